//! `Refusal` -> response: the only place that decides how a refusal looks.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use super::body::Body;
use crate::refusal::{OriginFault, Refusal};
use crate::site::Site;

/// draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The answer to a request that was refused, at `site` if it got that far; `close` ends the connection.
pub fn refusal(refusal: Refusal, site: Option<&Site>, close: bool) -> Response<Body> {
    let mut response = match refusal {
        Refusal::Malformed(why) => page(refusal.status(), &format!("The request is malformed: {why}.")),
        other => html(other.status(), Bytes::from_static(standing_page(other).as_bytes())),
    };
    let headers = response.headers_mut();
    match refusal {
        Refusal::Throttled { retry_after_s } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
            if let Some(plan) = site.and_then(|site| site.spec.terms.plan.as_ref()) {
                let policy = format!("\"{}\";q={};w=1", plan.name, plan.max_qps);
                let limit = format!("\"{}\";r=0;t={retry_after_s}", plan.name);
                for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, limit)] {
                    if let Ok(value) = HeaderValue::try_from(value) {
                        headers.insert(name, value);
                    }
                }
            }
        }
        // RFC 9110, section 15.5.6, wants it; the origin decides what else it takes.
        Refusal::NotAProxy => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        _ => {}
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A short page: the status, and one sentence.
pub fn page(status: StatusCode, sentence: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or_default();
    let code = status.as_str();
    let page = format!(
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{code} {title}</title>\n\
         <h1>{code} {title}</h1><p>{sentence}\n"
    );
    html(status, Bytes::from(page))
}

/// A page as `HEAD` gets it: its length, and nothing of it (RFC 9110, section 9.3.2). hyper sees to that in HTTP/1.1, but
/// not in HTTP/2.
pub fn to_method(method: &Method, page: Response<Body>) -> Response<Body> {
    if method != Method::HEAD {
        return page;
    }
    let length = page.body().size_hint().exact();
    let mut response = page.map(|_| Body::empty());
    if let Some(bytes) = length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    response
}

/// What an authority looks for (RFC 8555, section 8.3).
pub fn file(content: String) -> Response<Body> {
    let mut response = Response::new(Body::page(Bytes::from(content)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn html(status: StatusCode, page: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::page(page));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The page of [`page`], written when Lockgate was built: a flood of refusals formats none.
macro_rules! standing {
    ($title:literal, $sentence:literal) => {
        concat!(
            "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>",
            $title,
            "</title>\n<h1>",
            $title,
            "</h1><p>",
            $sentence,
            "\n"
        )
    };
}

/// What the visitor is told: never which server stands behind, nor why it failed.
fn standing_page(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => standing!("400 Bad Request", "The request is malformed."),
        Refusal::BodyMalformed => standing!("400 Bad Request", "The request's body is malformed."),
        Refusal::NotAProxy => standing!("405 Method Not Allowed", "CONNECT is not served here."),
        Refusal::BodyTimeout => standing!("408 Request Timeout", "The request's body did not arrive in time."),
        Refusal::BodyTooLarge => standing!("413 Payload Too Large", "The request's body is too large."),
        Refusal::UnknownExpectation => standing!("417 Expectation Failed", "The expectation cannot be met."),
        Refusal::Misdirected => standing!("421 Misdirected Request", "This host is not served on this connection."),
        Refusal::Throttled { .. } => standing!(
            "429 Too Many Requests",
            "This site has more visitors than its plan allows. Please try again in a moment."
        ),
        Refusal::Origin(OriginFault::Timeout) => {
            standing!("504 Gateway Timeout", "The site's server did not answer in time. Please try again later.")
        }
        Refusal::Origin(_) => {
            standing!("502 Bad Gateway", "The site's server cannot be reached. Please try again later.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    fn the_standing_pages_show_their_status(
        #[values(
            Refusal::Malformed(""),
            Refusal::BodyMalformed,
            Refusal::NotAProxy,
            Refusal::BodyTimeout,
            Refusal::BodyTooLarge,
            Refusal::UnknownExpectation,
            Refusal::Misdirected,
            Refusal::Throttled { retry_after_s: 1 },
            Refusal::Origin(OriginFault::Timeout),
            Refusal::Origin(OriginFault::Connect)
        )]
        refusal: Refusal,
    ) {
        let status = refusal.status();
        let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap());
        let page = standing_page(refusal);
        assert!(page.contains(&format!("<title>{title}</title>\n<h1>{title}</h1>")), "{page}");
    }

    #[test]
    fn a_refused_head_has_the_length_of_its_page_and_no_body() {
        let refused = || refusal(Refusal::Misdirected, None, false);
        let length = refused().body().size_hint().exact().unwrap();
        let head = to_method(&Method::HEAD, refused());
        assert!(head.body().is_end_stream());
        assert_eq!(head.headers()[CONTENT_LENGTH], length.to_string());
        assert!(!to_method(&Method::GET, refused()).body().is_end_stream());
    }
}
