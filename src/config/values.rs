//! The values of the configuration file: durations, sizes, addresses, words.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::diagnostic::{Wrong, shown};
use super::keys::{list, nearest};
use super::reader::Value;
use crate::name::{DomainName, Kind, NameError};

/// The longest time that can be written. Nobody waits longer, and clocks would overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 86_400);

/// The units of sizes, the ones meant by a short form last.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A time such as `"30s"`, more than none.
///
/// # Errors
/// It is something else.
pub fn duration(value: &Value) -> Result<Duration, Wrong> {
    const EXAMPLES: &str = "write a number and a unit, as in \"500ms\", \"30s\", \"1m 30s\" or \"2h\"";
    if let Some(integer) = value.integer() {
        return Err(Wrong::new(format!("`{}` has no unit", value.key), format!("write \"{integer}s\" for seconds")));
    }
    let Some(text) = value.string() else { return Err(value.expected("a time", EXAMPLES)) };
    let duration = match humantime::parse_duration(text) {
        Ok(duration) => duration,
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(Wrong::new(format!("`{}` has no unit", value.key), format!("write \"{}s\"", shown(text))));
        }
        Err(_) => return Err(Wrong::new(format!("`{}` is not a time", shown(text)), EXAMPLES)),
    };
    if duration < Duration::from_millis(1) {
        return Err(Wrong::new(format!("`{}` must be longer than nothing", value.key), EXAMPLES));
    }
    if duration > MAX_DURATION {
        return Err(Wrong::new(format!("`{}` is too long", value.key), "write at most \"365days\""));
    }
    Ok(duration)
}

/// How long something is kept: two days at least, because a day is sealed when it is over.
///
/// # Errors
/// It is something else.
pub fn days(value: &Value) -> Result<Duration, Wrong> {
    const EXAMPLES: &str = "write a number of days, as in \"30d\", from \"2d\" to \"3650d\"";
    let Some(text) = value.string() else { return Err(value.expected("a time", EXAMPLES)) };
    let wrong = || Wrong::new(format!("`{}` is not from 2 to 3650 days", shown(text)), EXAMPLES);
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let whole_day = Duration::from_secs(86_400);
    if (2 * whole_day..=3650 * whole_day).contains(&duration) { Ok(duration) } else { Err(wrong()) }
}

/// A number of octets: an integer, or a text such as `"10MiB"`.
///
/// # Errors
/// It is something else.
pub fn size(value: &Value) -> Result<u64, Wrong> {
    const EXAMPLES: &str = "write bytes, or a whole number and a unit, as in \"16KiB\", \"10MiB\" or \"2GB\"";
    if let Some(integer) = value.integer() {
        let what = || Wrong::new(format!("`{}` is not a size", value.written()), EXAMPLES);
        return u64::try_from(integer).map_err(|_| what());
    }
    let Some(text) = value.string() else { return Err(value.expected("a size", EXAMPLES)) };
    let digits = text.trim().bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.trim().split_at(digits);
    let not_a_size = |remedy: String| Wrong::new(format!("`{}` is not a size", shown(text)), remedy);
    let Ok(number) = number.parse::<u64>() else { return Err(not_a_size(EXAMPLES.to_owned())) };
    let unit = unit.trim();
    let factor = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            let same_letters = |(name, _): &&(&str, u64)| {
                name.eq_ignore_ascii_case(unit)
                    || name.replace('i', "").trim_end_matches('B').eq_ignore_ascii_case(unit)
            };
            return Err(not_a_size(match UNITS.iter().rfind(same_letters) {
                Some((name, _)) => format!("write \"{number}{name}\""),
                None => EXAMPLES.to_owned(),
            }));
        }
    };
    number.checked_mul(factor).ok_or_else(|| not_a_size("write a smaller size".to_owned()))
}

/// A size between two sizes, which `range` says as text too.
///
/// # Errors
/// It is something else.
pub fn size_in(value: &Value, range: RangeInclusive<u64>, words: &str) -> Result<u64, Wrong> {
    let size = size(value)?;
    if range.contains(&size) {
        return Ok(size);
    }
    Err(Wrong::new(format!("`{}` is {}, out of its range", value.key, value.written()), format!("write {words}")))
}

/// An integer of a range.
///
/// # Errors
/// It is something else.
pub fn integer_in<T: TryFrom<i128>>(value: &Value, range: RangeInclusive<i128>) -> Result<T, Wrong> {
    let remedy = match *range.end() {
        end if end >= i128::from(u32::MAX) => format!("write an integer from {}", range.start()),
        end => format!("write an integer from {} to {end}", range.start()),
    };
    let Some(integer) = value.integer() else {
        let remedy = match value.string().and_then(|text| text.trim().parse::<i128>().ok()) {
            Some(integer) if range.contains(&integer) => format!("write {integer} without quotes"),
            _ => remedy,
        };
        return Err(value.expected("an integer", remedy));
    };
    let out_of_range = || Wrong::new(format!("`{}` is {}, out of its range", value.key, value.written()), remedy);
    if !range.contains(&integer) {
        return Err(out_of_range());
    }
    T::try_from(integer).map_err(|_| out_of_range())
}

/// `word` for `None`, or what `read` makes of the value; the word is added to its remedy.
///
/// # Errors
/// It is neither.
pub fn word_or<T>(
    value: &Value,
    word: &str,
    read: impl FnOnce(&Value) -> Result<T, Wrong>,
) -> Result<Option<T>, Wrong> {
    if value.string() == Some(word) {
        return Ok(None);
    }
    read(value).map(Some).map_err(|wrong| Wrong { remedy: format!("{}, or \"{word}\"", wrong.remedy), ..wrong })
}

/// One of some words.
///
/// # Errors
/// It is none of them.
pub fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let words = || choices.iter().map(|(word, _)| *word);
    let remedy = format!("write {}", words().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "));
    let Some(text) = value.string() else { return Err(value.expected("a string", remedy)) };
    match choices.iter().find(|(word, _)| *word == text) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let remedy = match nearest(text, words()) {
                Some(meant) => format!("did you mean \"{meant}\"? {remedy}"),
                None => remedy,
            };
            Err(Wrong::new(format!("`{}` cannot be \"{}\"", value.key, shown(text)), remedy))
        }
    }
}

/// A path, relative to the directory of the file that names it.
///
/// # Errors
/// It is no text.
pub fn path(value: &Value, base: &Path) -> Result<PathBuf, Wrong> {
    let text = value.text()?;
    if text.contains('\0') {
        return Err(Wrong::new(format!("`{}` is not a path", shown(text)), "leave the NUL character out"));
    }
    Ok(base.join(text))
}

/// A time zone of the IANA database.
///
/// # Errors
/// There is none of that name.
pub fn timezone(value: &Value) -> Result<TimeZone, Wrong> {
    let text = value.text()?;
    TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let remedy = match nearest(text, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => "write an IANA name such as \"Asia/Shanghai\", \"Europe/Berlin\" or \"UTC\"".to_owned(),
        };
        Wrong::new(format!("no time zone is called `{}`", shown(text)), remedy)
    })
}

/// A listener's address, `IP:port`; `port` is the usual one, for examples.
///
/// # Errors
/// It is something else.
pub fn address(value: &Value, port: u16) -> Result<SocketAddr, Wrong> {
    let Some(text) = value.string() else {
        let remedy = match value.integer() {
            Some(port @ 1..=65_535) => format!("write \"[::]:{port}\""),
            _ => format!("write \"[::]:{port}\""),
        };
        return Err(value.expected("an address and a port", remedy));
    };
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let remedy = match text.rsplit_once(':') {
        _ if text.contains("://") => format!("write the address alone, without a scheme, as in \"[::]:{port}\""),
        None if is_port(text) => format!("write \"[::]:{text}\""),
        Some(("" | "*", port)) if is_port(port) => format!("write \"[::]:{port}\" for all addresses"),
        Some(("localhost", port)) if is_port(port) => format!("write \"127.0.0.1:{port}\""),
        Some((ip, port)) if is_port(port) && ip.parse::<Ipv6Addr>().is_ok() => format!("write \"[{ip}]:{port}\""),
        _ if text.parse::<Ipv6Addr>().is_ok() => format!("write \"[{text}]:{port}\""),
        _ if text.parse::<IpAddr>().is_ok() => format!("write \"{text}:{port}\""),
        Some((_, digits)) if !is_port(digits) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() => {
            "write a port from 0 to 65535".to_owned()
        }
        _ => format!("write an IP address of this machine and a port, or \"[::]:{port}\" for all addresses"),
    };
    Err(Wrong::new(format!("`{}` is not an address and a port", shown(text)), remedy))
}

/// A network in CIDR notation, or one address.
///
/// # Errors
/// It is something else.
pub fn network(value: &Value) -> Result<IpNet, Wrong> {
    let text = value.text()?.trim();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    match text.parse::<IpNet>() {
        Ok(network) => Ok(network.trunc()),
        Err(_) => {
            let message = format!("`{}` is neither an IP address nor a network", shown(text));
            Err(Wrong::new(
                message,
                "write an address or a network, as in \"10.0.0.5\", \"10.0.0.0/8\" or \"fd00::/8\"",
            ))
        }
    }
}

/// A domain's name.
///
/// # Errors
/// It is something else.
pub fn domain_name(value: &Value) -> Result<DomainName, Wrong> {
    let text = value.text()?;
    DomainName::parse(text).map_err(|e| {
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let bare = bare.split(['/', ':']).next().unwrap_or_default();
        let remedy = match e {
            NameError::Empty => "write a host name, as in \"www.example.com\"".to_owned(),
            NameError::Wildcard => "a wildcard is one `*.` in front of a host name, as in \"*.example.com\"".to_owned(),
            NameError::TooLong => "a name has at most 253 characters, and 63 between two dots".to_owned(),
            NameError::Syntax(_) if bare != text && DomainName::parse(bare).is_ok() => format!("write \"{bare}\""),
            NameError::Syntax(_) => "write letters, digits and hyphens between dots, and nothing else".to_owned(),
            NameError::HalfAddress(_) => "write a host name, or a whole IP address".to_owned(),
        };
        Wrong::new(format!("`{}` is not a domain name", shown(text)), remedy)
    })
}

/// A host name or an address, without wildcard, in normal form.
///
/// # Errors
/// It is something else.
pub fn host(value: &Value) -> Result<String, Wrong> {
    let name = domain_name(value)?;
    match name.kind() {
        Kind::Wildcard => Err(Wrong::new(format!("`{name}` is a wildcard"), "write one host name")),
        Kind::Exact | Kind::Ip(_) => Ok(name.as_str().to_owned()),
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797, section 6.1).
///
/// # Errors
/// It is something else.
pub fn hsts(value: &Value) -> Result<http::HeaderValue, Wrong> {
    let text = value.text()?.trim();
    let wrong = |why: &str| Wrong::new(format!("`hsts` {why}"), "write \"max-age=31536000\", the seconds of a year");
    let header = http::HeaderValue::from_str(text).map_err(|_| wrong("cannot be sent as a header field"))?;
    let is_max_age = |directive: &str| {
        directive.split_once('=').is_some_and(|(name, seconds)| {
            let seconds = seconds.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("max-age")
                && !seconds.is_empty()
                && seconds.bytes().all(|b| b.is_ascii_digit())
        })
    };
    if text.is_ascii() && text.split(';').any(is_max_age) {
        return Ok(header);
    }
    Err(wrong("needs max-age with a number of seconds"))
}

/// What to say of the name of something that does not exist among `known`.
pub fn not_among<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Wrong {
    let remedy = match nearest(name, known.clone()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("there are {}", list(known)),
    };
    Wrong::new(format!("no {what} is called `{}`", shown(name)), remedy)
}
