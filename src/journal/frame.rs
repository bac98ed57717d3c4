//! How a batch stands in a file.
//!
//! A file is [`MAGIC`] and then frames; a frame is the length of its payload, the payload's CRC-32 (both `u32`, little
//! endian) and the payload; a payload is a [`Head`] and then [`Line`]s to its end, in postcard's encoding. A line names
//! its domain by number: numbers are given in each file anew, in the order of first use, and the line that uses the next
//! free one is followed by the text. So a line of a name that the file knows takes some six bytes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::clock::{Reading, UnixTime};
use crate::meter::Bucket;

/// What every file begins with; the last byte is the format's version.
pub const MAGIC: [u8; 8] = *b"LGJOURN\x01";
/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 8;
/// No payload is longer, so garbage that is taken for a length cannot make a reader allocate without bound.
pub const MAX_PAYLOAD_BYTES: u32 = 64 << 20;
/// A payload that has grown to this takes no further lines: the batch goes on in another frame.
const FULL_PAYLOAD_BYTES: usize = 1 << 20;

/// What a payload begins with: the clock when the batch was written.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    now_ms: i64,
    pass: u32,
}

/// An [`Entry`] as written. Bucket and pass are told by how far they are from the head's, which is mostly nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: u32,
    bucket: i64,
    pass: i32,
    count: u64,
}

/// The names that a file knows, with their numbers there.
#[derive(Debug, Default)]
pub struct Names {
    // Names are the operator's, never a client's, so a fast hash is safe here.
    numbers: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
}

impl Names {
    /// Appends a batch to `out`, in as many frames as it needs. If it then does not get into the file whole, these names
    /// are no longer true of the file.
    ///
    /// # Errors
    /// If a frame would be longer than any reader takes.
    pub fn encode(&mut self, at: Reading, entries: &[Entry], out: &mut Vec<u8>) -> io::Result<()> {
        let mut entries = entries.iter().peekable();
        let mut payload = Vec::new();
        loop {
            payload.clear();
            put(&Head { now_ms: at.now.ms(), pass: at.pass }, &mut payload)?;
            while payload.len() < FULL_PAYLOAD_BYTES
                && let Some(entry) = entries.next()
            {
                self.put_entry(at, entry, &mut payload)?;
            }
            put_frame(&payload, out)?;
            if entries.peek().is_none() {
                return Ok(());
            }
        }
    }

    fn put_entry(&mut self, at: Reading, entry: &Entry, payload: &mut Vec<u8>) -> io::Result<()> {
        let known = self.numbers.get(&entry.name).copied();
        let next = u32::try_from(self.numbers.len()).map_err(io::Error::other)?;
        let line = Line {
            name: known.unwrap_or(next),
            bucket: entry.bucket.0.wrapping_sub(Bucket::of(at.now).0),
            pass: entry.pass.wrapping_sub(at.pass).cast_signed(),
            count: entry.count,
        };
        put(&line, payload)?;
        if known.is_none() {
            put(&*entry.name, payload)?;
            self.numbers.insert(Arc::clone(&entry.name), next);
        }
        Ok(())
    }
}

fn put<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> io::Result<()> {
    postcard::to_io(value, out).map(drop).map_err(io::Error::other)
}

fn put_frame(payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_PAYLOAD_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a name of many megabytes"))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// The length and the checksum that a frame's header tells.
pub const fn header([l0, l1, l2, l3, c0, c1, c2, c3]: [u8; HEADER_BYTES]) -> (u32, u32) {
    (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]))
}

/// An [`Entry`] as read; `name` is its number in the file.
#[derive(Debug, Clone, Copy)]
pub struct Numbered {
    pub name: u32,
    pub bucket: Bucket,
    pub pass: u32,
    pub count: u64,
}

/// Why a payload with a good checksum is none.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("it is cut short or has no meaning ({0})")]
    Postcard(#[from] postcard::Error),
    #[error("it uses a name that was never defined")]
    UnknownName,
}

/// Takes a payload apart for a reader who knows `known` names: `define` gets each new name, in the order of their
/// numbers, and `lines` all entries.
///
/// # Errors
/// If it is no payload; what was handed over until then must not be used.
pub fn decode(
    payload: &[u8],
    mut known: u32,
    mut define: impl FnMut(&str),
    lines: &mut Vec<Numbered>,
) -> Result<Reading, Malformed> {
    let (head, mut rest) = postcard::take_from_bytes::<Head>(payload)?;
    let now = UnixTime::from_ms(head.now_ms);
    let bucket_now = Bucket::of(now);
    while !rest.is_empty() {
        let (line, after) = postcard::take_from_bytes::<Line>(rest)?;
        rest = after;
        if line.name > known {
            return Err(Malformed::UnknownName);
        }
        if line.name == known {
            let (text, after) = postcard::take_from_bytes::<&str>(rest)?;
            rest = after;
            define(text);
            known = known.saturating_add(1);
        }
        lines.push(Numbered {
            name: line.name,
            bucket: Bucket(bucket_now.0.wrapping_add(line.bucket)),
            pass: head.pass.wrapping_add(line.pass.cast_unsigned()),
            count: line.count,
        });
    }
    Ok(Reading { now, pass: head.pass })
}
