//! The access log's file and the thread that writes it. Each time that the log is opened it gets a thread of its own,
//! which ends when the workers' last lines for it are written: so every line goes to the file that it was meant for.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};

use crate::access::Format;
use crate::config::{self, Target};
use crate::proxy::Counters;
use crate::proxy::access_log::{Outlet, Piece, Queue};

/// Visitors' addresses are in it: not for everybody.
const FILE_MODE: u32 = 0o640;
/// How long the writer rests when the disk has refused it. Meanwhile lines wait in the queue.
const RETRY: Duration = Duration::from_millis(200);
/// How long a log that is being closed may fail before the rest of its lines is dropped.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a reload, or the end of the process, waits for a log to be closed.
const MAX_CLOSING: Duration = Duration::from_secs(3);
/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// A log that can be written to.
#[derive(Debug)]
pub struct Opened {
    target: Target,
    format: Format,
    file: File,
}

/// Opens the log that a configuration asks for. May wait for the disk.
///
/// # Errors
/// What is wrong and what would be right, for people.
pub fn open(config: Option<&config::AccessLog>) -> Result<Option<Opened>, String> {
    let Some(config::AccessLog { target, format }) = config else { return Ok(None) };
    let failed = |error: io::Error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "make its directory, or name another path",
            ErrorKind::PermissionDenied => "let the user that runs lockgate write there, or name another path",
            _ => "name another path",
        };
        format!("the access log {target} cannot be opened: {error}; {remedy}")
    };
    let file = match target {
        Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Target::File(path) => open_file(path),
    };
    Ok(Some(Opened { target: target.clone(), format: *format, file: file.map_err(failed)? }))
}

fn open_file(path: &Path) -> io::Result<File> {
    // A FIFO that nobody reads must not be waited for; one that somebody reads is written like any file.
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(without_waiting).open(path)?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// Whether a file ends in the middle of a line. One that cannot be read is taken to be whole.
fn ends_within_line(target: &Target) -> bool {
    let Target::File(path) = target else { return false };
    let last = || {
        let mut file = File::open(path)?;
        let mut last = [b'\n'];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        io::Result::Ok(last)
    };
    path.is_file() && last().is_ok_and(|last| last != [b'\n'])
}

/// The log that is being written, if there is one.
#[derive(Debug, Default)]
pub struct AccessLog(Option<(Target, Arc<Progress>)>);

/// How far a writer is.
#[derive(Debug, Default)]
struct Progress {
    /// Nobody hands anything over any more: what the disk does not take soon is dropped.
    is_closing: AtomicBool,
    has_ended: AtomicBool,
}

impl AccessLog {
    /// Starts to write to `opened`, which takes this log's place: its outlet is for the workers, and once they have it
    /// this log is to be closed.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn succeed(
        &self,
        opened: Option<Opened>,
        port: u16,
        counters: &Arc<Counters>,
    ) -> io::Result<(Self, Option<Outlet>)> {
        let Some(Opened { target, format, file }) = opened else { return Ok((Self(None), None)) };
        let (pieces, arriving) = channel();
        let queue = Arc::new(Queue::new(Arc::clone(counters)));
        let outlet = Outlet::new(format, port, pieces, Arc::clone(&queue));
        let progress = Arc::new(Progress::default());
        let before = self.0.as_ref().filter(|(before, _)| *before == target).map(|(_, progress)| Arc::clone(progress));
        let writer = Writer {
            file,
            target: target.clone(),
            queue,
            progress: Arc::clone(&progress),
            before,
            is_first: true,
            failing_since: None,
            is_within_line: false,
        };
        thread::Builder::new().name("lockgate-access".to_owned()).spawn(move || writer.run(&arriving))?;
        Ok((Self(Some((target, progress))), Some(outlet)))
    }

    /// Waits until every line that was handed over is written, or dropped because the disk does not take it.
    pub async fn close(self) {
        let Some((target, progress)) = self.0 else { return };
        progress.is_closing.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + MAX_CLOSING;
        while !progress.has_ended.load(Ordering::Acquire) {
            if Instant::now() >= deadline {
                return tracing::warn!("the last lines for the access log {target} are still waiting to be written");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What the thread has.
#[derive(Debug)]
struct Writer {
    file: File,
    target: Target,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    /// The writer of before, if it writes to the same place: two at a time could write one line into another.
    before: Option<Arc<Progress>>,
    is_first: bool,
    /// Since when a log that is being closed has not taken anything.
    failing_since: Option<Instant>,
    /// Whether the last line in the file is not whole, and never will be.
    is_within_line: bool,
}

impl Writer {
    fn run(mut self, arriving: &Receiver<Piece>) {
        // Ends when the last outlet is gone.
        while let Ok(piece) = arriving.recv() {
            if let Some(before) = self.before.take() {
                while !before.has_ended.load(Ordering::Acquire) {
                    thread::sleep(LOOK);
                }
            }
            // What a crash or a full disk left of a line must not be glued to our first one.
            if std::mem::take(&mut self.is_first) {
                self.is_within_line = ends_within_line(&self.target);
            }
            self.write_piece(&piece);
        }
    }

    fn write_piece(&mut self, piece: &Piece) {
        if self.is_within_line {
            self.is_within_line = !self.write(b"\n").is_empty();
        }
        let rest = self.write(&piece.bytes);
        let lost = rest.iter().filter(|b| **b == b'\n').count() as u64;
        self.queue.took(piece.bytes.len(), piece.lines.saturating_sub(lost));
        if lost > 0 {
            let written = piece.bytes.len().checked_sub(rest.len() + 1).and_then(|last| piece.bytes.get(last));
            self.is_within_line |= written.is_some_and(|last| *last != b'\n');
            self.queue.lost(lost);
        } else if self.queue.is_empty() && self.queue.end_outage() {
            tracing::warn!("the access log {} is written again", self.target);
        }
    }

    /// Writes all of it, however long the disk takes. Returns what is left of it if that is too long.
    fn write<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let mut rest = piece;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(written) if written > 0 => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.failing_since = None;
                }
                refused => {
                    if self.queue.begin_outage() {
                        let error = refused.err().unwrap_or_else(|| ErrorKind::WriteZero.into());
                        let target = &self.target;
                        tracing::warn!(
                            "the access log {target} cannot be written: {error}; lines wait while there is room for them"
                        );
                    }
                    if self.is_too_late() {
                        return rest;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
        rest
    }

    fn is_too_late(&mut self) -> bool {
        if !self.progress.is_closing.load(Ordering::Relaxed) {
            self.failing_since = None;
            return false;
        }
        self.failing_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.progress.has_ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
