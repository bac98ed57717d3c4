//! Names: what a domain may be called, and how the name in a request is read.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The name of a `[[domain]]`: a host name, a one-level wildcard or an IP address, in its normal form
/// (lower case, A-labels, no trailing dot, addresses as `std` prints them).
///
/// Nothing but the text: a name is held many times over, and asked for its [`Kind`] hardly ever.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<str>);

/// What a [`DomainName`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One host name.
    Exact,
    /// `*.` and a parent: every name exactly one label below the parent.
    Wildcard,
    /// An address, for clients that connect to it without SNI.
    Ip(IpAddr),
}

/// Why a text is no domain name. Each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// `*.*.example.com`, `a.*.example.com`, `*`, `f*o.example.com`.
    #[error("a wildcard is one `*.` in front of a host name, as in `*.example.com`")]
    Wildcard,
    /// A URL, a port, a space, an underscore at an edge...
    #[error("`{0}` is not a host name: letters, digits and hyphens between dots, without scheme, port or path")]
    Syntax(String),
    /// More than 253 octets, or a label of more than 63.
    #[error("the name is too long: 253 characters in all, 63 between two dots")]
    TooLong,
    /// `1.2.3` or `256.1.1.1`: would be taken for an address by browsers.
    #[error("`{0}` looks like an IP address but is none")]
    HalfAddress(String),
}

impl DomainName {
    /// Reads a name as a person writes it: any case, IDN in Unicode, a trailing dot.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        if let Some(ip) = parse_ip(text) {
            return Ok(Self(ip.to_string().into()));
        }
        let (is_wildcard, host) = match text.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, text),
        };
        if host.contains('*') {
            return Err(NameError::Wildcard);
        }
        let host = parse_host(host)?;
        if is_wildcard && !host.contains('.') {
            // `*.com` and `*.localhost` alike: nobody is issued a certificate for either, but the latter is handy.
            if host != "localhost" {
                return Err(NameError::Wildcard);
            }
        }
        Ok(Self(match is_wildcard {
            // Most are written in their normal form.
            true if *host == *text.strip_prefix("*.").unwrap_or_default() => text.into(),
            true => format!("*.{host}").into(),
            false => (*host).into(),
        }))
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normal form, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Host name, wildcard or address.
    pub fn kind(&self) -> Kind {
        if self.wildcard_parent().is_some() {
            return Kind::Wildcard;
        }
        // An address is written by `std`, and nothing else that reads as one is a name.
        if is_like_ip(&self.0) { self.0.parse().map_or(Kind::Exact, Kind::Ip) } else { Kind::Exact }
    }

    /// For `*.example.com`: `example.com`.
    pub fn wildcard_parent(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// For `example.com`: `*.example.com`. `None` for an address, a wildcard, or a name that is too long.
    pub fn wildcard_below(&self) -> Option<Self> {
        if self.kind() == Kind::Exact { Self::parse(&format!("*.{}", self.0)).ok() } else { None }
    }

    /// Whether requests for `host` (in normal form) are this domain's.
    pub fn covers(&self, host: &str) -> bool {
        pattern_covers(&self.0, host)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whose a domain is: an opaque name that the operator chose. Domains without one are the operator's own, together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Any non-empty text.
    pub fn new(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self(text.trim().into()))
    }

    /// The name as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a certificate's or domain's `pattern` (`www.example.com`, `*.example.com`) covers `host`, both in normal
/// form. A wildcard stands for exactly one label (RFC 6125, section 6.4.3; RFC 9525, section 6.3).
pub fn pattern_covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) if host != pattern => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        _ => pattern == host,
    }
}

/// The host of a request (`Host`, `:authority`, SNI) in normal form: lower case, without port, trailing dot and
/// brackets. `None` if it cannot be a host. Borrows where nothing had to change, which is nearly always.
pub fn normalize_host(authority: &str) -> Option<Cow<'_, str>> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        let is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_good.then(|| Cow::Owned(IpAddr::V6(address).to_canonical().to_string()));
    }
    // Every request comes by here: one pass, not one for each question.
    let mut is_lower = true;
    let mut end = authority.len();
    for (at, byte) in authority.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {}
            b'A'..=b'Z' => is_lower = false,
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    let (host, port) = authority.split_at_checked(end)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > 253 || !port.strip_prefix(':').is_none_or(is_port) {
        return None;
    }
    Some(if is_lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// Empty (`example.com:`) is allowed by RFC 3986, section 3.2.3.
fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

/// Underscores are no host names, but browsers and certificates know them.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')
}

/// Whether it can be an address at all. Nearly everything is a host name, and its last octet a letter.
fn is_like_ip(text: &str) -> bool {
    let last = text.as_bytes().last();
    last.is_some_and(|last| last.is_ascii_digit()) || text.contains(':')
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if !is_like_ip(bare) {
        return None;
    }
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// In one pass where nothing has to change: a start reads hundreds of thousands.
fn parse_host(host: &str) -> Result<Cow<'_, str>, NameError> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(NameError::Empty);
    }
    let syntax = || NameError::Syntax(host.to_owned());
    let ascii = if !host.is_ascii() {
        Cow::Owned(idna::domain_to_ascii(host).map_err(|_| syntax())?)
    } else if host.bytes().any(|octet| octet.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    let (mut is_good, mut is_long, mut top) = (true, ascii.len() > 253, &b""[..]);
    for label in ascii.as_bytes().split(|octet| *octet == b'.') {
        is_good &= !label.is_empty() && !label.starts_with(b"-") && !label.ends_with(b"-");
        is_good &= label.iter().copied().all(is_host_byte);
        is_long |= label.len() > 63;
        top = label;
    }
    if is_long {
        return Err(NameError::TooLong);
    }
    if !is_good {
        return Err(syntax());
    }
    if top.iter().all(u8::is_ascii_digit) {
        return Err(NameError::HalfAddress(ascii.into_owned()));
    }
    Ok(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("WWW.Example.com.", "www.example.com", Kind::Exact)]
    #[case("*.example.com", "*.example.com", Kind::Wildcard)]
    #[case("münchen.example", "xn--mnchen-3ya.example", Kind::Exact)]
    #[case("localhost", "localhost", Kind::Exact)]
    #[case("192.0.2.1", "192.0.2.1", Kind::Ip([192, 0, 2, 1].into()))]
    #[case("::ffff:192.0.2.1", "192.0.2.1", Kind::Ip([192, 0, 2, 1].into()))]
    #[case("[2001:DB8::1]", "2001:db8::1", Kind::Ip("2001:db8::1".parse().unwrap()))]
    fn names_have_one_normal_form(#[case] written: &str, #[case] normal: &str, #[case] kind: Kind) {
        let name = DomainName::parse(written).unwrap();
        assert_eq!((name.as_str(), name.kind()), (normal, kind));
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("*")]
    #[case("*.*.example.com")]
    #[case("a.*.example.com")]
    #[case("f*.example.com")]
    #[case("*.com")]
    #[case("https://example.com")]
    #[case("example.com:443")]
    #[case("exa mple.com")]
    #[case("-a.example.com")]
    #[case("a..example.com")]
    #[case("256.1.1.1")]
    #[case("1.2.3")]
    fn what_is_no_name_is_refused(#[case] written: &str) {
        DomainName::parse(written).unwrap_err();
    }

    #[test]
    fn names_have_a_length() {
        assert_eq!(DomainName::parse(&format!("{}.example", "a".repeat(64))), Err(NameError::TooLong));
        assert_eq!(DomainName::parse(&"a.".repeat(130)), Err(NameError::TooLong));
    }

    #[rstest]
    #[case("*.example.com", "a.example.com", true)]
    #[case("*.example.com", "example.com", false)]
    #[case("*.example.com", "a.b.example.com", false)]
    #[case("*.example.com", ".example.com", false)]
    #[case("www.example.com", "www.example.com", true)]
    #[case("www.example.com", "example.com", false)]
    fn a_wildcard_stands_for_one_label(#[case] pattern: &str, #[case] host: &str, #[case] covers: bool) {
        assert_eq!(pattern_covers(pattern, host), covers);
    }

    #[rstest]
    #[case("www.example.com", Some("www.example.com"))]
    #[case("WWW.example.COM.:8443", Some("www.example.com"))]
    #[case("example.com:", Some("example.com"))]
    #[case("[2001:DB8::1]:443", Some("2001:db8::1"))]
    #[case("192.0.2.1", Some("192.0.2.1"))]
    #[case("", None)]
    #[case(":443", None)]
    #[case("a b", None)]
    #[case("user@example.com", None)]
    #[case("example.com:port", None)]
    #[case("example.com:1:2", None)]
    #[case("[::1", None)]
    fn hosts_of_requests_are_compared_without_case_port_and_dot(#[case] authority: &str, #[case] host: Option<&str>) {
        assert_eq!(normalize_host(authority).as_deref(), host);
    }
}
