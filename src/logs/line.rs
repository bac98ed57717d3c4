//! One line of an access log: whose request, and when it arrived.

use std::borrow::Cow;

use super::stamp::Stamps;
use super::{combined, json};
use crate::clock::UnixTime;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A request arrived.
    Request {
        /// For whom, as the line spells it. `None` if it does not say: then all lines of the file are of one host.
        host: Option<Cow<'a, [u8]>>,
        /// When.
        arrival: UnixTime,
    },
    /// Nothing that is counted: an empty line, something else that a server logs, a request that never got a site.
    Other,
}

/// Why a line is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nothing of what is known.
    #[error("no line of a known access log")]
    Unknown,
    /// Over the largest length of a line.
    #[error("longer than 64 KiB")]
    TooLong,
    /// It begins like JSON.
    #[error("broken JSON")]
    BrokenJson,
    /// It is JSON, of something else.
    #[error("JSON of no known access log: neither Lockgate's nor Caddy's")]
    UnknownJson,
    /// The time cannot be read, has no zone, or is centuries away.
    #[error("no time that can be read")]
    NoTime,
    /// The line ends in the request or has no status.
    #[error("no whole request with its status")]
    NoRequest,
    /// No name, or none that a host can have.
    #[error("no host name")]
    NoHost,
    /// Over [`super::hosts::MAX_HOSTS`].
    #[error("too many hosts")]
    TooManyHosts,
}

/// Reads a line of whatever format.
///
/// # Errors
/// [`Why`] it is not counted.
pub fn parse<'a>(line: &'a [u8], stamps: &mut Stamps) -> Result<Line<'a>, Why> {
    match line.trim_ascii_start() {
        [] => Ok(Line::Other),
        object @ [b'{', ..] => json::parse(object, stamps),
        text => combined::parse(text, stamps),
    }
}
