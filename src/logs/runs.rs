//! Sorted counts on disk, and how they are merged again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// A count and what it is of: any number by which counts are ordered.
pub type Counted = (u64, u64);

const RECORD_BYTES: usize = 16;
/// What all runs together may buffer while they are merged, and what each has in any case.
const MERGE_BYTES: usize = 32 * 1024 * 1024;
const MIN_CHUNK_BYTES: usize = 4 * 1024;
const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// Sorted runs, end to end in one file without a name, which is gone when it is closed, whatever happens.
#[derive(Debug)]
pub struct Runs {
    file: File,
    runs: Vec<Range<u64>>,
}

impl Runs {
    /// None yet, in the system's folder for temporary files.
    ///
    /// # Errors
    /// If no file can be made there.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, runs: Vec::new() })
    }

    /// Writes one run.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn push(&mut self, sorted: &[Counted]) -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(MAX_CHUNK_BYTES, &self.file);
        for (key, count) in sorted {
            writer.write_all(&key.to_le_bytes())?;
            writer.write_all(&count.to_le_bytes())?;
        }
        writer.flush()?;
        let start = self.runs.last().map_or(0, |run| run.end);
        self.runs.push(start..start + (sorted.len() * RECORD_BYTES) as u64);
        Ok(())
    }
}

/// All counts in order, those of the same added up.
#[derive(Debug)]
pub struct Merged {
    file: Option<File>,
    sources: Vec<Source>,
    /// The next count of every source that has one.
    next: BinaryHeap<Reverse<(u64, u64, usize)>>,
}

#[derive(Debug)]
enum Source {
    Memory(std::vec::IntoIter<Counted>),
    Run { left: Range<u64>, chunk: Vec<u8>, place: usize, chunk_bytes: usize },
}

impl Source {
    fn next(&mut self, file: Option<&File>) -> io::Result<Option<Counted>> {
        let (left, chunk, place, chunk_bytes) = match self {
            Self::Memory(counts) => return Ok(counts.next()),
            Self::Run { left, chunk, place, chunk_bytes } => (left, chunk, place, *chunk_bytes),
        };
        if *place == chunk.len() {
            let bytes = usize::try_from(left.end - left.start).unwrap_or(usize::MAX).min(chunk_bytes);
            chunk.resize(bytes, 0);
            if let Some(file) = file {
                file.read_exact_at(chunk, left.start)?;
            }
            (left.start, *place) = (left.start + bytes as u64, 0);
        }
        let record = chunk.get(*place..).unwrap_or_default();
        let Some((key, rest)) = record.split_first_chunk() else { return Ok(None) };
        let Some((count, _)) = rest.split_first_chunk() else { return Ok(None) };
        *place += RECORD_BYTES;
        Ok(Some((u64::from_le_bytes(*key), u64::from_le_bytes(*count))))
    }
}

impl Merged {
    /// The counts of `runs` and those that are still in `memory`, sorted too.
    ///
    /// # Errors
    /// If the runs cannot be read.
    pub fn new(runs: Option<Runs>, memory: Vec<Counted>) -> io::Result<Self> {
        let (file, runs) = runs.map_or((None, Vec::new()), |runs| (Some(runs.file), runs.runs));
        let chunk_bytes = (MERGE_BYTES / runs.len().max(1)).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
        let chunk_bytes = chunk_bytes / RECORD_BYTES * RECORD_BYTES;
        let runs = runs.into_iter().map(|left| Source::Run { left, chunk: Vec::new(), place: 0, chunk_bytes });
        let sources = std::iter::once(Source::Memory(memory.into_iter())).chain(runs).collect();
        let mut merged = Self { file, sources, next: BinaryHeap::new() };
        for source in 0..merged.sources.len() {
            merged.take_from(source)?;
        }
        Ok(merged)
    }

    /// The next one. `None` at the end.
    ///
    /// # Errors
    /// If the runs cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<Counted>> {
        let Some(Reverse((key, mut sum, source))) = self.next.pop() else { return Ok(None) };
        self.take_from(source)?;
        while let Some(&Reverse((same, count, source))) = self.next.peek()
            && same == key
        {
            sum = sum.saturating_add(count);
            self.next.pop();
            self.take_from(source)?;
        }
        Ok(Some((key, sum)))
    }

    fn take_from(&mut self, at: usize) -> io::Result<()> {
        if let Some(source) = self.sources.get_mut(at)
            && let Some((key, count)) = source.next(self.file.as_ref())?
        {
            self.next.push(Reverse((key, count, at)));
        }
        Ok(())
    }
}
