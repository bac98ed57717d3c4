//! The protocol: what each request is answered with (RFC 8555, section 7).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::fault::{Fault, RetryAfter, What, befalling, striking};
use super::issuing::{Issuing, Requested};
use super::listener::Reply;
use super::order::{Order, OrderSeen, Standing};
use super::seen::{Resource, Seen, decode};

const NONCE: HeaderName = HeaderName::from_static("replay-nonce");
const DAY_SECS: i64 = 86_400;

/// Everything that the CA is and knows.
pub(super) struct Ca {
    base: String,
    pub(super) now: Option<i64>,
    pub(super) validity_secs: i64,
    /// Start and end of the window, and when to ask again.
    pub(super) ari: Option<(i64, i64, u64)>,
    pub(super) profiles: Vec<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) seen: Vec<Seen>,
    pub(super) issuing: Issuing,
    /// Keys as JWK, by account; `None`: forgotten.
    accounts: Vec<Option<Value>>,
    orders: Vec<Order>,
    nonces: u64,
}

/// An error answer: status, last word of the type, detail (RFC 8555, section 6.7).
type Refused = (StatusCode, &'static str, String);
type Outcome = Result<Response<Bytes>, Refused>;

impl Ca {
    pub(super) fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            now: None,
            validity_secs: 90 * DAY_SECS,
            ari: None,
            profiles: Vec::new(),
            faults: Vec::new(),
            seen: Vec::new(),
            issuing: Issuing::new(),
            accounts: Vec::new(),
            orders: Vec::new(),
            nonces: 0,
        }
    }

    /// What a request is answered with, after it was written down.
    pub(super) fn answer(&mut self, seen: Seen) -> Reply {
        self.seen.push(seen.clone());
        let mut response = match befalling(&mut self.faults, &seen) {
            Some(What::Silence) => return Reply::Never,
            Some(What::LostAnswer) => {
                _ = self.route(&seen);
                return Reply::Never;
            }
            Some(What::Endless) => return Reply::Endless,
            Some(What::Garbage) => Response::new(Bytes::from_static(b"<html>It works!</html>")),
            Some(What::BadNonce { .. }) => {
                problem(400, "badNonce", "not one of ours", self.header_of(RetryAfter::Nothing))
            }
            Some(What::Problem { status, kind, detail, retry_after }) => {
                problem(status, &kind, &detail, self.header_of(retry_after))
            }
            _ => match self.route(&seen) {
                Ok(response) => response,
                Err((status, kind, detail)) => problem(status.as_u16(), kind, &detail, None),
            },
        };
        self.nonces += 1;
        response.headers_mut().insert(NONCE, value(&format!("nonce-{}", self.nonces)));
        response.headers_mut().insert(header::DATE, value(&self.http_date_in(0)));
        Reply::Whole(response)
    }

    pub(super) fn orders_seen(&self) -> Vec<OrderSeen> {
        self.orders.iter().map(|order| order.seen.clone()).collect()
    }

    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn forget_accounts(&mut self) {
        self.accounts.fill(None);
    }

    fn now(&self) -> i64 {
        self.now.unwrap_or_else(|| jiff::Timestamp::now().as_second())
    }

    fn header_of(&self, retry_after: RetryAfter) -> Option<String> {
        match retry_after {
            RetryAfter::Nothing => None,
            RetryAfter::Secs(secs) => Some(secs.to_string()),
            RetryAfter::DateIn(secs) => Some(self.http_date_in(secs)),
        }
    }

    /// IMF-fixdate (RFC 9110, section 5.6.7), so many seconds from now.
    fn http_date_in(&self, secs: u64) -> String {
        let at = jiff::Timestamp::from_second(self.now()).expect("a date") + std::time::Duration::from_secs(secs);
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    fn route(&mut self, seen: &Seen) -> Outcome {
        let mut path = seen.path.split('/').skip(2);
        match seen.resource {
            Resource::Directory => return Ok(self.directory()),
            Resource::NewNonce => return Ok(Response::new(Bytes::new())),
            Resource::RenewalInfo => return self.renewal_info(),
            Resource::Unknown => return Err(not_found()),
            _ if !seen.is_signed() => return Err(malformed("a POST with a JWS is needed")),
            Resource::NewAccount => return self.new_account(seen),
            _ => {}
        }
        let account = self.know_account(seen)?;
        let [number, part, which] = [(); 3].map(|()| index(path.next()));
        match seen.resource {
            Resource::NewOrder => self.new_order(seen, account),
            Resource::Order => {
                self.settle(number)?;
                Ok(self.order(number, 200))
            }
            Resource::Authorization => {
                self.settle(number)?;
                let authorization = self.orders[number].authorizations.get(part).ok_or_else(not_found)?;
                Ok(json_of(200, &authorization.json(&self.base, number, part)))
            }
            // To these two it is said what was when it was asked: for what comes of it a client has to come back.
            Resource::Challenge => {
                let order = self.orders.get_mut(number).ok_or_else(not_found)?;
                let authorization = order.authorizations.get_mut(part).ok_or_else(not_found)?;
                authorization.is_triggered |= seen.payload.is_object();
                let challenge = authorization.challenge(&self.base, number, part, which).ok_or_else(not_found)?;
                Ok(json_of(200, &challenge))
            }
            Resource::Finalize => {
                self.settle(number)?;
                self.orders[number].finalize(seen)?;
                Ok(self.order(number, 200))
            }
            Resource::Certificate => self.certificate(number, part),
            Resource::Account => Ok(json_of(200, &json!({ "status": "valid" }))),
            _ => Ok(Response::new(Bytes::new())),
        }
    }

    fn directory(&self) -> Response<Bytes> {
        let at = |path: &str| format!("{}/{path}", self.base);
        let profiles: serde_json::Map<_, _> =
            self.profiles.iter().map(|name| (name.clone(), json!(format!("The profile {name}")))).collect();
        let mut directory = json!({
            "newNonce": at("new-nonce"),
            "newAccount": at("new-account"),
            "newOrder": at("new-order"),
            "revokeCert": at("revoke-cert"),
            "keyChange": at("key-change"),
            "meta": { "termsOfService": at("terms"), "profiles": profiles },
        });
        if self.ari.is_some() {
            directory["renewalInfo"] = json!(at("renewal-info"));
        }
        json_of(200, &directory)
    }

    /// RFC 9773, section 4.2.
    fn renewal_info(&self) -> Outcome {
        let (start, end, retry_after_secs) = self.ari.ok_or_else(not_found)?;
        let [start, end] = [start, end].map(|at| jiff::Timestamp::from_second(at).expect("a date").to_string());
        let mut response = json_of(200, &json!({ "suggestedWindow": { "start": start, "end": end } }));
        response.headers_mut().insert(header::RETRY_AFTER, value(&retry_after_secs.to_string()));
        Ok(response)
    }

    fn new_account(&mut self, seen: &Seen) -> Outcome {
        let key = &seen.protected["jwk"];
        if !key.is_object() {
            return Err(malformed("a new account comes with its key"));
        }
        let known = self.accounts.iter().position(|account| account.as_ref() == Some(key));
        if known.is_none() && seen.payload["onlyReturnExisting"] == true {
            return Err((StatusCode::BAD_REQUEST, "accountDoesNotExist", "no account has this key".to_owned()));
        }
        let number = known.unwrap_or_else(|| {
            self.accounts.push(Some(key.clone()));
            self.accounts.len() - 1
        });
        let status = if known.is_some() { 200 } else { 201 };
        let mut response = json_of(status, &json!({ "status": "valid", "contact": seen.payload["contact"] }));
        response.headers_mut().insert(header::LOCATION, value(&format!("{}/account/{number}", self.base)));
        Ok(response)
    }

    /// The account's number; `None` where none is needed.
    fn know_account(&self, seen: &Seen) -> Result<Option<usize>, Refused> {
        let number = seen.account().and_then(|url| url.strip_prefix(&format!("{}/account/", self.base)));
        let number = number.and_then(|number| number.parse().ok());
        let known = number.filter(|number: &usize| self.accounts.get(*number).is_some_and(Option::is_some));
        // A certificate may be revoked by its own key too.
        let needs_none = seen.resource == Resource::RevokeCert && seen.protected["jwk"].is_object();
        if known.is_some() || needs_none {
            return Ok(known);
        }
        Err((StatusCode::BAD_REQUEST, "accountDoesNotExist", "no such account".to_owned()))
    }

    fn new_order(&mut self, seen: &Seen, account: Option<usize>) -> Outcome {
        let mut order = Order::new(&seen.payload).ok_or_else(|| malformed("an order names identifiers"))?;
        order.account = account;
        if let Some(profile) = order.seen.profile.as_ref().filter(|profile| !self.profiles.contains(profile)) {
            return Err((StatusCode::BAD_REQUEST, "invalidProfile", format!("there is no profile {profile:?}")));
        }
        if let Some(replaces) = &order.seen.replaces {
            let brought = |other: &&Order| other.renewal_id.as_ref() == Some(replaces);
            // RFC 9773, section 5, in the words of Let's Encrypt.
            if self.orders.iter().find(brought).is_some_and(|other| other.account != account) {
                let words = "requester account did not request the certificate being replaced by this order";
                return Err((StatusCode::FORBIDDEN, "unauthorized", words.to_owned()));
            }
            let is_same = |other: &&Order| other.seen.replaces.as_ref() == Some(replaces);
            if self.orders.iter().filter(is_same).any(|other| other.standing != Standing::Invalid) {
                return Err((StatusCode::CONFLICT, "alreadyReplaced", "another order replaces it".to_owned()));
            }
        }
        self.orders.push(order);
        Ok(self.order(self.orders.len() - 1, 201))
    }

    fn order(&self, number: usize, status: u16) -> Response<Bytes> {
        let mut response = json_of(status, &self.orders[number].json(&self.base, number));
        response.headers_mut().insert(header::LOCATION, value(&format!("{}/order/{number}", self.base)));
        response
    }

    /// Decides what is due to be decided about an order, if there is one of that number.
    fn settle(&mut self, number: usize) -> Result<(), Refused> {
        let order = self.orders.get_mut(number).ok_or_else(not_found)?;
        order.validate(|| {
            let decides = |what: &What| matches!(what, What::InvalidAuthorization { .. } | What::StuckPending);
            match striking(&mut self.faults, decides) {
                Some(What::InvalidAuthorization { kind, detail }) => Some(Err((kind, detail))),
                Some(_) => None,
                None => Some(Ok(())),
            }
        });
        let is_due = order.standing == Standing::Processing;
        if is_due && striking(&mut self.faults, |what| *what == What::StuckProcessing).is_none() {
            let requested = Requested::parse(&order.csr).expect("taken when it was sent");
            let leaf = self.issue(&requested);
            self.orders[number].issued(leaf);
        }
        Ok(())
    }

    /// The leaf in PEM, as right or wrong as it should be.
    fn issue(&mut self, requested: &Requested) -> String {
        let now = self.now();
        let (mut from, mut until) = (now, now + self.validity_secs);
        if striking(&mut self.faults, |what| *what == What::Expired).is_some() {
            (from, until) = (now - self.validity_secs - 1, now - 1);
        }
        let names = match striking(&mut self.faults, |what| matches!(what, What::WrongNames(_))) {
            Some(What::WrongNames(names)) => names,
            _ => requested.names.clone(),
        };
        if striking(&mut self.faults, |what| *what == What::WrongKey).is_some() {
            return self.issuing.leaf(&KeyPair::generate().expect("key"), &names, from, until);
        }
        self.issuing.leaf(requested, &names, from, until)
    }

    fn certificate(&mut self, number: usize, chain: usize) -> Outcome {
        let leaf = self.orders.get(number).and_then(|order| order.certificate.as_ref()).ok_or_else(not_found)?;
        let mut pem = self.issuing.chain(leaf, chain).ok_or_else(not_found)?;
        if striking(&mut self.faults, |what| *what == What::BrokenChain).is_some() {
            pem.truncate(leaf.len() + 200);
        }
        let mut response = Response::new(Bytes::from(pem));
        let content_type = HeaderValue::from_static("application/pem-certificate-chain");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        for other in (0..self.issuing.chains()).filter(|other| *other != chain) {
            let link = format!("<{}/certificate/{number}/{other}>;rel=\"alternate\"", self.base);
            response.headers_mut().append(header::LINK, value(&link));
        }
        Ok(response)
    }
}

/// A number in a path; absent, it is 0.
fn index(segment: Option<&str>) -> usize {
    segment.map_or(0, |segment| segment.parse().unwrap_or(usize::MAX))
}

impl Order {
    fn finalize(&mut self, seen: &Seen) -> Result<(), Refused> {
        if self.standing != Standing::Ready {
            return Err((StatusCode::FORBIDDEN, "orderNotReady", "it has to be ready".to_owned()));
        }
        let der = seen.payload["csr"].as_str().and_then(decode).unwrap_or_default();
        let bad = |why: &str| (StatusCode::BAD_REQUEST, "badCSR", why.to_owned());
        let requested = Requested::parse(&der).ok_or_else(|| bad("no CSR with a key that is taken"))?;
        let [mut asked, mut ordered] = [requested.names, self.seen.names.clone()];
        asked.sort();
        ordered.sort();
        if asked != ordered {
            return Err(bad(&format!("it asks for {asked:?}, the order for {ordered:?}")));
        }
        (self.csr, self.standing) = (der, Standing::Processing);
        Ok(())
    }
}

fn json_of(status: u16, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<String>) -> Response<Bytes> {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    let mut response = json_of(status, &json!({ "type": kind, "detail": detail, "status": status }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, value(&retry_after));
    }
    response
}

fn malformed(why: &str) -> Refused {
    (StatusCode::BAD_REQUEST, "malformed", why.to_owned())
}

fn not_found() -> Refused {
    (StatusCode::NOT_FOUND, "malformed", "there is no such resource".to_owned())
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a header value")
}
