//! Who the client is, as its origin is told: in `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::cell::RefCell;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// What the origin is told about a client: written once per connection, not once per request.
#[derive(Debug)]
pub struct Client {
    address: HeaderValue,
    /// The address as `Forwarded` wants it: IPv6 in brackets and quotes (RFC 7239, section 6).
    node: String,
    /// Whether this client speaks for others.
    is_trusted: bool,
    /// The last `Host`, and the `Forwarded` that goes with it: on one connection it hardly changes.
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Client {
    /// The client at `address`.
    pub fn new(address: IpAddr, trusted_proxies: &[IpNet]) -> Self {
        let text = address.to_string();
        let node = if address.is_ipv6() { format!("\"[{text}]\"") } else { text.clone() };
        Self {
            address: HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown")),
            node,
            is_trusted: trusted_proxies.iter().any(|net| net.contains(&address)),
            forwarded: RefCell::default(),
        }
    }

    /// The client's address.
    pub fn address(&self) -> &[u8] {
        self.address.as_bytes()
    }

    /// Sets the forwarding fields: anew, unless the client is a trusted proxy, which is added to what it says.
    pub fn introduce(&self, headers: &mut HeaderMap, host: &HeaderValue) {
        let forwarded = self.forwarded(host);
        if self.is_trusted {
            append(headers, X_FORWARDED_FOR, &self.address);
            append(headers, FORWARDED, &forwarded);
            headers.entry(X_FORWARDED_PROTO).or_insert(HTTPS);
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        } else {
            remove_forwarding(headers);
            headers.insert(X_FORWARDED_FOR, self.address.clone());
            headers.insert(FORWARDED, forwarded);
            headers.insert(X_FORWARDED_PROTO, HTTPS);
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
    }

    fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        let mut last = self.forwarded.borrow_mut();
        match &*last {
            Some((known, forwarded)) if known == host => forwarded.clone(),
            _ => {
                // A host was validated before: no quote can be in it. A port's colon or brackets want quotes.
                let text = String::from_utf8_lossy(host.as_bytes());
                let quote = if text.contains([':', '[']) { "\"" } else { "" };
                let text = format!("for={};host={quote}{text}{quote};proto=https", self.node);
                let forwarded = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("for=unknown"));
                *last = Some((host.clone(), forwarded.clone()));
                forwarded
            }
        }
    }
}

/// Adds `value` to a list field, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut list: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    list.push(value.as_bytes());
    let joined = HeaderValue::from_bytes(&list.join(&b", "[..]));
    headers.insert(name, joined.unwrap_or_else(|_| value.clone()));
}

/// Takes out every field that claims to say who the client is, also in the spelling (`X_Forwarded_For`) that CGI and
/// its descendants cannot tell from the right one.
pub fn remove_forwarding(headers: &mut HeaderMap) {
    let claims = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        let is = |known: &[u8]| {
            name.len() == known.len() && name.iter().zip(known).all(|(a, b)| a == b || (*a, *b) == (b'_', b'-'))
        };
        is(b"forwarded")
            || is(b"x-real-ip")
            || name.get(..12).is_some_and(|prefix| {
                prefix.iter().zip(b"x-forwarded-").all(|(a, b)| a == b || (*a, *b) == (b'_', b'-'))
            })
    };
    // Nearly no request has any: look before making a list.
    if headers.keys().any(claims) {
        let claimed: Vec<HeaderName> = headers.keys().filter(|name| claims(name)).cloned().collect();
        for name in claimed {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &[&str] = &[
        "X-Forwarded-For: 6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "X-Forwarded-Port: 1",
        "X-Real-IP: 6.6.6.6",
        "X-Forwarded-Proto: http",
        "Forwarded: for=6.6.6.6",
        "X-Forwarded-Host: evil.test",
        "X-Other: 1",
    ];

    fn introduced(client: &str, trusted: &[&str], lines: &[&'static str]) -> Vec<String> {
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let client = Client::new(client.parse().unwrap(), &trusted);
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        client.introduce(&mut headers, &HeaderValue::from_static("a.test"));
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn nobody_says_who_a_client_is_but_we() {
        assert_eq!(
            introduced("192.0.2.1", &["10.0.0.0/8"], CLAIMS),
            [
                "forwarded: for=192.0.2.1;host=a.test;proto=https",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: a.test",
                "x-forwarded-proto: https",
                "x-other: 1"
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_is_added_to_what_it_says() {
        let lines = ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http", "Forwarded: for=203.0.113.9"];
        assert_eq!(
            introduced("10.1.2.3", &["10.0.0.0/8"], &lines),
            [
                "forwarded: for=203.0.113.9, for=10.1.2.3;host=a.test;proto=https",
                "x-forwarded-for: 203.0.113.9, 10.1.2.3",
                "x-forwarded-host: a.test",
                "x-forwarded-proto: http"
            ]
        );
    }

    #[test]
    fn an_ipv6_client_is_quoted_as_rfc_7239_wants_it() {
        let fields = introduced("2001:db8::1", &[], &[]);
        assert_eq!(fields[0], r#"forwarded: for="[2001:db8::1]";host=a.test;proto=https"#);
    }
}
