//! Lines of any input, of bounded length.

use std::io::{self, ErrorKind, Read};

use memchr::memchr;

/// No server logs longer requests; a line that is, is not kept.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

const BUFFER_BYTES: usize = 4 * MAX_LINE_BYTES;

/// Cuts what it reads into lines, in one buffer that is used again and again.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// What was read and not handed out yet.
    start: usize,
    end: usize,
    /// How much of that is known to hold no line's end.
    searched: usize,
    has_ended: bool,
    /// Whether the line being read is too long, and what there was of it is gone.
    is_long: bool,
}

/// A line of more than [`MAX_LINE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl<R: Read> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { input, buffer, start: 0, end: 0, searched: 0, has_ended: false, is_long: false }
    }

    /// The next line without its end, LF or CR LF. `None` at the end of the input.
    ///
    /// # Errors
    /// If the input cannot be read further; what was read of its last line is lost.
    pub fn next_line(&mut self) -> io::Result<Option<Result<&[u8], TooLong>>> {
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let found = memchr(b'\n', unread.get(self.searched..).unwrap_or_default());
            if found.is_none() && !self.has_ended {
                self.searched = unread.len();
                if unread.len() > MAX_LINE_BYTES {
                    self.is_long = true;
                    (self.start, self.end, self.searched) = (0, 0, 0);
                }
                self.read_more()?;
                continue;
            }
            if found.is_none() && unread.is_empty() && !self.is_long {
                return Ok(None);
            }
            let line_bytes = found.map_or(unread.len(), |at| at + self.searched);
            let line = self.start..self.start + line_bytes;
            self.start = line.end + usize::from(found.is_some());
            self.searched = 0;
            if std::mem::take(&mut self.is_long) || line_bytes > MAX_LINE_BYTES {
                return Ok(Some(Err(TooLong)));
            }
            let line = self.buffer.get(line).unwrap_or_default();
            return Ok(Some(Ok(line.strip_suffix(b"\r").unwrap_or(line))));
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        loop {
            match self.input.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(bytes) => {
                    self.has_ended = bytes == 0;
                    self.end += bytes;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.len().min(self.1).min(into.len());
            let (now, later) = self.0.split_at(bytes);
            into[..bytes].copy_from_slice(now);
            self.0 = later;
            Ok(bytes)
        }
    }

    fn lines(input: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(Trickle(input, step));
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(line.ok().map(<[u8]>::to_vec));
        }
        all
    }

    #[test]
    fn the_last_line_needs_no_end_and_no_line_needs_content() {
        let line = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(lines(b"", 9), []);
        assert_eq!(lines(b"a\r\n\nb", 1), [line("a"), line(""), line("b")]);
    }

    #[test]
    fn an_endless_line_is_passed_over_in_bounded_memory() {
        let line = |bytes: usize| "x".repeat(bytes);
        for end in ["\n", ""] {
            let text = format!("a\n{}\n{}\n{}\nb\n{}{end}", line(65_536), line(65_537), line(1_000_000), line(700_000));
            let kept = |text: String| Some(text.into_bytes());
            let wanted = [kept("a".into()), kept(line(65_536)), None, None, kept("b".into()), None];
            assert_eq!(lines(text.as_bytes(), 100_000), wanted);
        }
    }

    proptest! {
        #[test]
        fn lines_are_what_stands_between_ends(text in "[ab\n]{0,200}", step in 1usize..20) {
            let plain: Vec<_> = text.lines().map(|line| Some(line.as_bytes().to_vec())).collect();
            prop_assert_eq!(lines(text.as_bytes(), step), plain);
        }
    }
}
