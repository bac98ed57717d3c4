//! HTTP/1.1 responses as a client reads them.

use std::io::{self, BufRead, Read};

/// A response, whole.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// Fields in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server announced that it closes the connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

/// Reads the next final response: 1xx are skipped, the body follows its framing. `bodiless`: the request was a HEAD.
pub fn read_answer(from: &mut impl BufRead, bodiless: bool) -> io::Result<Answer> {
    loop {
        let mut answer = read_head(from)?;
        if (100..200).contains(&answer.status) && answer.status != 101 {
            continue;
        }
        if !bodiless && answer.status != 101 && answer.status != 204 && answer.status != 304 {
            read_body(from, &mut answer)?;
        }
        return Ok(answer);
    }
}

/// Reads a status line and its fields.
pub fn read_head(from: &mut impl BufRead) -> io::Result<Answer> {
    let line = read_line(from)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad(format!("status line {line:?}")))?;
    Ok(Answer { status, headers: read_fields(from)?, ..Answer::default() })
}

fn read_body(from: &mut impl BufRead, answer: &mut Answer) -> io::Result<()> {
    if answer.header("transfer-encoding").is_some_and(|te| te.contains("chunked")) {
        loop {
            let line = read_line(from)?;
            let size = line.split(';').next().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
            let size = size.ok_or_else(|| bad(format!("chunk size {line:?}")))?;
            if size == 0 {
                answer.trailers = read_fields(from)?;
                return Ok(());
            }
            let start = answer.body.len();
            answer.body.resize(start + size, 0);
            from.read_exact(&mut answer.body[start..])?;
            read_line(from)?;
        }
    }
    match answer.header("content-length").map(str::parse::<usize>) {
        Some(Ok(len)) => {
            answer.body.resize(len, 0);
            from.read_exact(&mut answer.body)
        }
        Some(Err(_)) => Err(bad("content-length".into())),
        None => from.read_to_end(&mut answer.body).map(drop),
    }
}

fn read_fields(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("field {line:?}")))?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|last| *last == b'\r');
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
