//! A line of the access log: what is noted of a request at its arrival, and how it reads once the request is over.
//!
//! JSON is for machines; the combined format is Apache's `vhost_combined`, which every log analyser reads.

use std::ops::Range;
use std::time::{Duration, Instant};

use http::header::{HeaderName, REFERER, USER_AGENT};
use http::{Version, request};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::clock::UnixTime;

/// Where a longer path and query is cut.
pub const MAX_URI_BYTES: usize = 2048;
/// Where everything else that a client sends is cut.
pub const MAX_FIELD_BYTES: usize = 512;

/// How lines read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `vhost_combined`: `domain:port client - - [time] "request" status bytes "referer" "user agent"`.
    Combined,
}

/// What is noted of a request at its arrival: later its head is on its way to the origin. Kept for the next request
/// when a line has been written, so that none needs memory of its own.
#[derive(Debug)]
pub struct Note {
    arrival: UnixTime,
    began: Instant,
    protocol: &'static str,
    /// Everything that the client sent, cut and one after the other, as the ranges say.
    text: Vec<u8>,
    host: Range<usize>,
    method: Range<usize>,
    uri: Range<usize>,
    referer: Option<Range<usize>>,
    user_agent: Option<Range<usize>>,
}

/// What is known of a request once it is over, and whose it was.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The domain that it was metered under.
    pub domain: &'a str,
    /// The port that clients know that domain by.
    pub port: u16,
    /// Whose domain that is.
    pub tenant: Option<&'a str>,
    /// The client's address.
    pub client: &'a [u8],
    /// The answer's status, as it was counted.
    pub status: u16,
    /// Bytes of the answer's body that went to the client.
    pub bytes: u64,
    /// Monotonic, when it was over.
    pub now: Instant,
    /// Whether the throttle refused it.
    pub throttled: bool,
}

impl Note {
    /// A note that nothing stands on yet.
    pub fn blank(now: Instant) -> Self {
        Self {
            arrival: UnixTime::from_secs(0),
            began: now,
            protocol: "",
            text: Vec::new(),
            host: 0..0,
            method: 0..0,
            uri: 0..0,
            referer: None,
            user_agent: None,
        }
    }

    /// Notes a request for `host` (in normal form) that arrived at `arrival`, `now` on the monotonic clock.
    pub fn take(&mut self, arrival: UnixTime, now: Instant, host: &str, head: &request::Parts) {
        self.text.clear();
        self.arrival = arrival;
        self.began = now;
        self.protocol = match head.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        self.host = self.add(host.as_bytes(), MAX_FIELD_BYTES);
        self.method = self.add(head.method.as_str().as_bytes(), MAX_FIELD_BYTES);
        let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str());
        self.uri = self.add(uri.as_bytes(), MAX_URI_BYTES);
        self.referer = self.add_field(head, &REFERER);
        self.user_agent = self.add_field(head, &USER_AGENT);
    }

    fn add(&mut self, value: &[u8], max_bytes: usize) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(cut(value, max_bytes));
        start..self.text.len()
    }

    fn add_field(&mut self, head: &request::Parts, name: &HeaderName) -> Option<Range<usize>> {
        let value = head.headers.get(name)?;
        Some(self.add(value.as_bytes(), MAX_FIELD_BYTES))
    }

    fn noted(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// Appends the request's line.
    pub fn write(&self, format: Format, end: &End<'_>, line: &mut Vec<u8>) {
        match format {
            Format::Json => self.write_json(end, line),
            Format::Combined => self.write_combined(end, line),
        }
    }

    fn write_json(&self, end: &End<'_>, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"ts\":\"");
        push_rfc3339(line, self.arrival);
        line.push(b'"');
        push_json_field(line, b",\"domain\":\"", end.domain.as_bytes());
        push_json_field(line, b",\"host\":\"", self.noted(&self.host));
        if let Some(tenant) = end.tenant {
            push_json_field(line, b",\"tenant\":\"", tenant.as_bytes());
        }
        push_json_field(line, b",\"client\":\"", end.client);
        push_json_field(line, b",\"method\":\"", self.noted(&self.method));
        push_json_field(line, b",\"uri\":\"", self.noted(&self.uri));
        push_json_field(line, b",\"protocol\":\"", self.protocol.as_bytes());
        line.extend_from_slice(b",\"status\":");
        push_number(line, end.status.into(), 1);
        line.extend_from_slice(b",\"bytes\":");
        push_number(line, end.bytes, 1);
        line.extend_from_slice(b",\"duration_ms\":");
        push_milliseconds(line, end.now.saturating_duration_since(self.began));
        line.extend_from_slice(if end.throttled { b",\"throttled\":true" } else { b",\"throttled\":false" });
        if let Some(referer) = &self.referer {
            push_json_field(line, b",\"referer\":\"", self.noted(referer));
        }
        if let Some(user_agent) = &self.user_agent {
            push_json_field(line, b",\"user_agent\":\"", self.noted(user_agent));
        }
        line.extend_from_slice(b"}\n");
    }

    fn write_combined(&self, end: &End<'_>, line: &mut Vec<u8>) {
        // An IPv6 address needs brackets before its port.
        let brackets: (&[u8], &[u8]) = if end.domain.contains(':') { (b"[", b"]:") } else { (b"", b":") };
        line.extend_from_slice(brackets.0);
        push_escaped(line, end.domain.as_bytes());
        line.extend_from_slice(brackets.1);
        push_number(line, end.port.into(), 1);
        line.push(b' ');
        push_escaped(line, end.client);
        line.extend_from_slice(b" - - [");
        push_combined_time(line, self.arrival);
        line.extend_from_slice(b"] \"");
        push_escaped(line, self.noted(&self.method));
        line.push(b' ');
        push_escaped(line, self.noted(&self.uri));
        line.push(b' ');
        line.extend_from_slice(self.protocol.as_bytes());
        line.extend_from_slice(b"\" ");
        push_number(line, end.status.into(), 1);
        line.push(b' ');
        push_number(line, end.bytes, 1);
        for field in [&self.referer, &self.user_agent] {
            line.extend_from_slice(b" \"");
            match field.as_ref().map(|range| self.noted(range)) {
                None | Some([]) => line.push(b'-'),
                Some(value) => push_escaped(line, value),
            }
            line.push(b'"');
        }
        line.push(b'\n');
    }
}

/// The beginning of `value`, without half a character of UTF-8 at its end.
fn cut(value: &[u8], max_bytes: usize) -> &[u8] {
    let Some(mut begin) = value.get(..max_bytes).filter(|_| value.len() > max_bytes) else { return value };
    let mut next = value.get(max_bytes).copied();
    // A character is at most four bytes: three of them can be beyond its first.
    for _ in 0..3 {
        match (next, begin) {
            (Some(0x80..=0xBF), [rest @ .., last]) => (begin, next) = (rest, Some(*last)),
            _ => break,
        }
    }
    begin
}

/// Appends `key` (which opens the quotes) and `value` as the inside of a JSON string. Bytes that are no UTF-8 become
/// U+FFFD, one for each run that cannot be read, as everywhere where text is read lossily; control characters are
/// escaped, also those that JSON allows but a terminal obeys.
fn push_json_field(line: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    line.extend_from_slice(key);
    let is_plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    if value.iter().all(is_plain) {
        line.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            chunk.valid().chars().for_each(|c| push_json_char(line, c));
            if !chunk.invalid().is_empty() {
                line.extend_from_slice(b"\\ufffd");
            }
        }
    }
    line.push(b'"');
}

fn push_json_char(line: &mut Vec<u8>, c: char) {
    match c {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        // All of these are below U+0100.
        c if c.is_control() => {
            line.extend_from_slice(b"\\u00");
            push_hex(line, u32::from(c) as u8);
        }
        c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends `value` as nginx does: quotes, backslashes and everything that is not printable ASCII as `\xHH`.
fn push_escaped(line: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match byte {
            b'"' | b'\\' | 0..b' ' | 0x7F.. => {
                line.extend_from_slice(b"\\x");
                push_hex(line, *byte);
            }
            plain => line.push(*plain),
        }
    }
}

fn push_hex(line: &mut Vec<u8>, byte: u8) {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'A' + n - 10 };
    line.extend([digit(byte >> 4), digit(byte & 0xF)]);
}

/// Appends `n` in decimal, with zeros in front up to `width`. The standard library's formatting takes several times as
/// long, and a line has a dozen numbers.
fn push_number(line: &mut Vec<u8>, n: u64, width: usize) {
    const MAX_DIGITS: usize = 20;
    let mut digits = [b'0'; MAX_DIGITS];
    let (mut rest, mut used) = (n, 0);
    for digit in digits.iter_mut().rev() {
        if rest == 0 && used >= width {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
    }
    line.extend_from_slice(digits.get(MAX_DIGITS - used..).unwrap_or_default());
}

/// Milliseconds to the microsecond.
fn push_milliseconds(line: &mut Vec<u8>, duration: Duration) {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(line, us / 1000, 1);
    line.push(b'.');
    push_number(line, us % 1000, 3);
}

/// `at` on the calendar, in UTC. None before the year 0 and after 9999, where no clock of ours should be.
fn calendar(at: UnixTime) -> Option<DateTime> {
    let at = Timestamp::from_millisecond(at.ms()).ok()?;
    Some(Offset::UTC.to_datetime(at)).filter(|at| at.year() >= 0)
}

/// `2026-06-01T12:00:00.123Z`
fn push_rfc3339(line: &mut Vec<u8>, at: UnixTime) {
    let Some(civil) = calendar(at) else { return line.extend_from_slice(at.to_string().as_bytes()) };
    push_number(line, civil.year().unsigned_abs().into(), 4);
    for (before, n) in [(b'-', civil.month()), (b'-', civil.day())] {
        push_after(line, before, n);
    }
    push_time(line, b'T', &civil);
    line.push(b'.');
    push_number(line, civil.millisecond().unsigned_abs().into(), 3);
    line.push(b'Z');
}

/// `01/Jun/2026:12:00:00 +0000`
fn push_combined_time(line: &mut Vec<u8>, at: UnixTime) {
    const MONTHS: [&[u8; 5]; 12] = [
        b"/Jan/", b"/Feb/", b"/Mar/", b"/Apr/", b"/May/", b"/Jun/", b"/Jul/", b"/Aug/", b"/Sep/", b"/Oct/", b"/Nov/",
        b"/Dec/",
    ];
    let civil = calendar(at).unwrap_or_default();
    push_number(line, civil.day().unsigned_abs().into(), 2);
    let month = usize::from(civil.month().unsigned_abs()).saturating_sub(1);
    line.extend_from_slice(MONTHS.get(month).map_or(b"/Jan/", |month| *month));
    push_number(line, civil.year().unsigned_abs().into(), 4);
    push_time(line, b':', &civil);
    line.extend_from_slice(b" +0000");
}

fn push_time(line: &mut Vec<u8>, before: u8, civil: &DateTime) {
    for (before, n) in [(before, civil.hour()), (b':', civil.minute()), (b':', civil.second())] {
        push_after(line, before, n);
    }
}

fn push_after(line: &mut Vec<u8>, before: u8, n: i8) {
    line.push(before);
    push_number(line, n.unsigned_abs().into(), 2);
}

#[cfg(test)]
mod tests;
