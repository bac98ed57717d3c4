//! What changes in a message between client and origin, and what may not pass.

use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    HeaderName, HeaderValue, PROXY_AUTHORIZATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::{Body as _, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::body::{Body, RequestBody};
pub use super::client::Client;
use super::client::remove_forwarding;
use crate::certificate::Source;
use crate::name::normalize_host;
use crate::origin::Upload;
use crate::refusal::{OriginFault, Refusal};
use crate::site::Site;

/// Fields that concern one connection only (RFC 9110, section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What `Connection` names besides fields, or fields that are taken out anyway.
const CONNECTION_OPTIONS: [&str; 3] = ["keep-alive", "close", "upgrade"];

/// How much of a body nobody wants is read so that its connection stays usable, and for how long.
const MAX_DRAIN_BYTES: u64 = 64 * 1024;
const MAX_DRAIN_TIME: Duration = Duration::from_secs(2);

/// A request on its way. Its body leaves when it is sent on; what is left at the end must be drained.
#[derive(Debug)]
pub struct Arriving {
    /// Method, target, fields.
    pub head: request::Parts,
    body: Option<Incoming>,
}

impl Arriving {
    /// A request as hyper parsed it.
    pub fn new(request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        Self { head, body: Some(body) }
    }

    /// Whether its connection carries one request at a time.
    pub fn is_http1(&self) -> bool {
        self.head.version < Version::HTTP_2
    }

    /// Whether it has a body, or may yet turn out to have one.
    pub fn has_body(&self) -> bool {
        self.body.as_ref().is_some_and(|body| !body.is_end_stream())
    }

    /// Reads what is left of the body, within bounds. Returns whether the connection can take another request.
    pub async fn drain(&mut self) -> bool {
        // HTTP/2 resets the stream; the connection is none the worse.
        if !self.is_http1() {
            return true;
        }
        // A body that was sent on is beyond reach, and so is its connection.
        let Some(body) = self.body.take() else { return false };
        if body.is_end_stream() {
            return true;
        }
        // Who waits to be asked for the body is not asked; who sends more than is worth reading is cut off.
        if self.head.headers.contains_key(EXPECT) || body.size_hint().lower() > MAX_DRAIN_BYTES {
            return false;
        }
        let mut body = pin!(http_body_util::Limited::new(body, MAX_DRAIN_BYTES as usize));
        let rest = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(MAX_DRAIN_TIME, rest).await.unwrap_or(false)
    }
}

/// The host that a request is for, in normal form.
///
/// # Errors
/// [`Refusal::Malformed`] for anything that two servers could read differently (RFC 9112, sections 3.2 and 6; RFC 9113,
/// section 8.3.1): none, several, contradictory hosts; a target that only `CONNECT` has; a length that is in doubt.
pub fn host(head: &request::Parts) -> Result<Cow<'_, str>, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::NotAProxy);
    }
    if head.uri.authority().is_some() && head.uri.scheme().is_none() {
        return Err(Refusal::Malformed("the target is an authority, which only CONNECT has"));
    }
    if !is_unchunked_or_chunked(&head.headers) {
        return Err(Refusal::Malformed("a Transfer-Encoding other than one chunked"));
    }
    if length_lines(&head.headers) == Lengths::Odd {
        return Err(Refusal::Malformed("a Content-Length that is not one number"));
    }
    if several(&head.headers, HOST) {
        return Err(Refusal::Malformed("several Host lines"));
    }
    if head.headers.get(EXPECT).is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::UnknownExpectation);
    }
    let normal = |authority| normalize_host(authority).ok_or(Refusal::Malformed("the host is not a host name"));
    let field = match head.headers.get(HOST) {
        Some(host) => Some(normal(host.to_str().map_err(|_| Refusal::Malformed("the host is not a host name"))?)?),
        None => None,
    };
    let target = match head.uri.authority() {
        Some(authority) => Some(normal(authority.as_str())?),
        None => None,
    };
    match (target, field) {
        (Some(target), Some(field)) if target != field => Err(Refusal::Malformed("two hosts that differ")),
        // HTTP/1.1 wants the field even where the target names the host.
        (_, None) if head.version == Version::HTTP_11 => Err(Refusal::Malformed("no Host line")),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::Malformed("no host")),
    }
}

/// Whether there is no `Transfer-Encoding`, or one line of exactly `chunked`: the one coding that everybody reads alike.
fn is_unchunked_or_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// What the `Content-Length` lines of a message say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// Nothing, or one number.
    Plain,
    /// The same number several times.
    Repeated,
    /// What is no number, or several.
    Odd,
}

/// Digits and nothing else (RFC 9110, section 8.6): parsers differ on signs, blanks, lists and the empty value.
fn length_lines(headers: &HeaderMap) -> Lengths {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Lengths::Plain };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    match lines.next() {
        _ if !is_number => Lengths::Odd,
        None => Lengths::Plain,
        Some(second) if second == first && lines.all(|other| other == first) => Lengths::Repeated,
        Some(_) => Lengths::Odd,
    }
}

/// Leaves one of several equal `Content-Length` lines.
fn say_length_once(headers: &mut HeaderMap) {
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
}

fn several(headers: &HeaderMap, name: HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// The request as the origin gets it, and where to see how far its body has come, if it has one.
///
/// # Errors
/// [`Refusal::BodyTooLarge`] where the length says so beforehand.
pub fn request(
    arriving: &mut Arriving,
    site: &Site,
    client: &Client,
    upgrade: bool,
) -> Result<(Request<RequestBody>, Option<Rc<Upload>>), Refusal> {
    let body_bytes = arriving.body.as_ref().map_or(0, |body| body.size_hint().lower());
    if site.spec.terms.max_body_bytes.is_some_and(|max| body_bytes > max) {
        return Err(Refusal::BodyTooLarge);
    }
    let head = &mut arriving.head;
    let host = host_field(head)?;
    let upgrade = upgrade.then(|| head.headers.remove(UPGRADE)).flatten();
    let takes_trailers = takes_trailers(&head.headers);
    strip_hop_by_hop(&mut head.headers);
    head.headers.remove(EXPECT);
    join_cookies(&mut head.headers);
    client.introduce(&mut head.headers, &host);
    if let Some(protocol) = upgrade {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
    } else if takes_trailers {
        // Servers of gRPC refuse to answer who does not take them.
        head.headers.insert(CONNECTION, HeaderValue::from_static("TE"));
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    head.headers.insert(HOST, host);

    let (body, upload) = if arriving.has_body() {
        let incoming = arriving.body.take();
        incoming.map_or_else(Default::default, |incoming| {
            let (body, upload) =
                RequestBody::streaming(incoming, site.spec.terms.max_body_bytes, site.spec.terms.timeouts.idle);
            (body, Some(upload))
        })
    } else {
        Default::default()
    };
    let head = &mut arriving.head;
    frame_request(&mut head.headers, &head.method, upload.is_some().then(|| body.size_hint()));
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = origin_form(&head.uri);
    *request.headers_mut() = std::mem::take(&mut head.headers);
    Ok((request, upload))
}

/// The `Host` for the origin: the target's authority where it has one, whatever the field says (RFC 9112, section 3.2.2;
/// RFC 9113, section 8.3.1).
fn host_field(head: &request::Parts) -> Result<HeaderValue, Refusal> {
    let target = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    target.or_else(|| head.headers.get(HOST).cloned()).ok_or(Refusal::Malformed("no host"))
}

/// Says how long a request's body is, where the client's own field does not. `body`: the size, if there is a body.
fn frame_request(headers: &mut HeaderMap, method: &Method, body: Option<SizeHint>) {
    match body {
        // Left alone, hyper's client sends a GET or HEAD of unknown length without its body.
        Some(size) if size.exact().is_none() => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // HTTP/2 needs no length to say that there is no body; HTTP/1.1 servers ask for one (RFC 9110, section 8.6).
        None if [Method::POST, Method::PUT, Method::PATCH].contains(method)
            && !headers.contains_key(CONTENT_LENGTH) =>
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        _ if length_lines(headers) == Lengths::Repeated => say_length_once(headers),
        _ => {}
    }
}

/// The answer to a request of `method` as the client gets it.
///
/// # Errors
/// [`OriginFault::Malformed`] where its length could be read in two ways.
pub fn response(
    mut response: Response<Body>,
    method: &Method,
    site: &Site,
    source: Source,
) -> Result<Response<Body>, Refusal> {
    let (status, size) = (response.status(), response.body().size_hint());
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // What follows is no body (RFC 9110, section 8.6).
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(TRANSFER_ENCODING);
    } else {
        let describes_another = method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
        frame_response(response.headers_mut(), size.exact().filter(|_| !describes_another))?;
        strip_hop_by_hop(response.headers_mut());
    }
    if let Some(hsts) = &site.spec.terms.hsts
        // An internal certificate needs an exception in the browser, and HSTS forbids exceptions.
        && source != Source::Internal
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Leaves one reading of how long an answer is (RFC 9112, section 6.3). `body_bytes`: as long as it was read to be;
/// `None` if that is unknown, or the fields speak of a body that is not there (`HEAD`, 304).
fn frame_response(headers: &mut HeaderMap, body_bytes: Option<u64>) -> Result<(), Refusal> {
    if !is_unchunked_or_chunked(headers) {
        return Err(Refusal::Origin(OriginFault::Malformed));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return Ok(());
    }
    match (length_lines(headers), body_bytes) {
        (Lengths::Plain, _) => {}
        (Lengths::Repeated, _) => say_length_once(headers),
        (Lengths::Odd, Some(bytes)) => _ = headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes)),
        (Lengths::Odd, None) => _ = headers.remove(CONTENT_LENGTH),
    }
    Ok(())
}

/// Path and query alone (RFC 9112, section 3.2.1), or the `*` of `OPTIONS`.
fn origin_form(uri: &Uri) -> Uri {
    match (uri.path_and_query(), uri.scheme()) {
        (Some(_), None) if uri.authority().is_none() => uri.clone(),
        (Some(path), _) => Uri::from(path.clone()),
        (None, _) => Uri::from_static("/"),
    }
}

/// Takes out what concerns one connection only. `Trailer` stays: trailers do pass.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            // Nearly every such line says this and no more: no list is made of it.
            .filter(|name| !CONNECTION_OPTIONS.iter().any(|option| name.eq_ignore_ascii_case(option)))
            .filter_map(|name| name.parse().ok())
            // Nobody may have the host or the length taken out by naming them here.
            .filter(|name| ![HOST, CONTENT_LENGTH].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the client takes trailers (RFC 9110, section 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut lists = headers.get_all(TE).iter().filter_map(|list| list.to_str().ok());
    lists.any(|list| list.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}

/// HTTP/2 may send one cookie a line; HTTP/1.1 wants them in one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if !several(headers, COOKIE) {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// Takes out of trailers what must not be there (RFC 9110, section 6.5.1): framing, routing, authentication, and what
/// says who the client is.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 12] = [
        AUTHORIZATION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        PROXY_AUTHORIZATION,
        SET_COOKIE,
        TRAILER,
        STRICT_TRANSPORT_SECURITY,
    ];
    strip_hop_by_hop(trailers);
    remove_forwarding(trailers);
    for name in FORBIDDEN {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests;
