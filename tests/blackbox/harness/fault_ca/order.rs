//! Orders and their authorizations (RFC 8555, sections 7.1.3 to 7.1.6).

use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// An order as it was accepted, and whether it came to a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderSeen {
    /// Host names, wildcards and addresses, in the order's order.
    pub names: Vec<String>,
    pub profile: Option<String>,
    /// The ARI identifier of the certificate that it replaces.
    pub replaces: Option<String>,
    pub is_issued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

impl Standing {
    fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

pub(super) struct Order {
    pub(super) seen: OrderSeen,
    identifiers: Vec<Value>,
    pub(super) authorizations: Vec<Authorization>,
    pub(super) standing: Standing,
    pub(super) csr: Vec<u8>,
    /// Who placed it.
    pub(super) account: Option<usize>,
    /// What an order that replaces the certificate calls it (RFC 9773, section 4.1).
    pub(super) renewal_id: Option<String>,
    /// The leaf in PEM.
    pub(super) certificate: Option<String>,
}

pub(super) struct Authorization {
    identifier: Value,
    is_wildcard: bool,
    pub(super) is_triggered: bool,
    /// Pending, valid or invalid.
    standing: Standing,
    error: Option<Value>,
}

/// The type and detail of what went wrong with a challenge.
type Failed = (String, String);

impl Order {
    /// From the payload of a newOrder request.
    pub(super) fn new(payload: &Value) -> Option<Self> {
        let identifiers = payload["identifiers"].as_array().filter(|all| !all.is_empty())?.clone();
        let names = identifiers.iter().map(|identifier| identifier["value"].as_str().map(ToOwned::to_owned));
        let text = |key: &str| payload[key].as_str().map(ToOwned::to_owned);
        Some(Self {
            seen: OrderSeen {
                names: names.collect::<Option<_>>()?,
                profile: text("profile"),
                replaces: text("replaces"),
                is_issued: false,
            },
            authorizations: identifiers.iter().map(Authorization::new).collect(),
            identifiers,
            standing: Standing::Pending,
            csr: Vec::new(),
            account: None,
            renewal_id: None,
            certificate: None,
        })
    }

    /// Decides the triggered challenges by `decide`, which says `None` while it does not know.
    pub(super) fn validate(&mut self, mut decide: impl FnMut() -> Option<Result<(), Failed>>) {
        let undecided = |authorization: &&mut Authorization| {
            authorization.is_triggered && authorization.standing == Standing::Pending
        };
        for authorization in self.authorizations.iter_mut().filter(undecided) {
            match decide() {
                Some(Ok(())) => authorization.standing = Standing::Valid,
                Some(Err((kind, detail))) => {
                    let kind = format!("urn:ietf:params:acme:error:{kind}");
                    authorization.standing = Standing::Invalid;
                    authorization.error = Some(json!({ "type": kind, "detail": detail, "status": 403 }));
                }
                None => {}
            }
        }
        if self.standing == Standing::Pending {
            let are = |standing| move |authorization: &Authorization| authorization.standing == standing;
            if self.authorizations.iter().any(are(Standing::Invalid)) {
                self.standing = Standing::Invalid;
            } else if self.authorizations.iter().all(are(Standing::Valid)) {
                self.standing = Standing::Ready;
            }
        }
    }

    pub(super) fn issued(&mut self, leaf_pem: String) {
        let leaf = CertificateDer::from_pem_slice(leaf_pem.as_bytes()).expect("a leaf");
        self.renewal_id = CertificateIdentifier::try_from(&leaf).ok().map(|id| id.to_string());
        self.certificate = Some(leaf_pem);
        self.standing = Standing::Valid;
        self.seen.is_issued = true;
    }

    pub(super) fn json(&self, base: &str, number: usize) -> Value {
        let authorizations = 0..self.authorizations.len();
        let authorizations: Vec<_> =
            authorizations.map(|part| format!("{base}/authorization/{number}/{part}")).collect();
        let mut order = json!({
            "status": self.standing.text(),
            "identifiers": self.identifiers,
            "authorizations": authorizations,
            "finalize": format!("{base}/finalize/{number}"),
        });
        let optional = [("profile", &self.seen.profile), ("replaces", &self.seen.replaces)];
        for (key, value) in optional.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            order[key] = json!(value);
        }
        if self.certificate.is_some() {
            order["certificate"] = json!(format!("{base}/certificate/{number}"));
        }
        order
    }
}

impl Authorization {
    /// A wildcard's authorization is for the name below which it stands (RFC 8555, section 7.1.3).
    fn new(identifier: &Value) -> Self {
        let mut identifier = identifier.clone();
        let parent = identifier["value"].as_str().and_then(|name| name.strip_prefix("*.")).map(ToOwned::to_owned);
        let is_wildcard = parent.is_some();
        if let Some(parent) = parent {
            identifier["value"] = json!(parent);
        }
        Self { identifier, is_wildcard, is_triggered: false, standing: Standing::Pending, error: None }
    }

    /// The kinds of challenge that can prove it: a wildcard by DNS alone, an address by anything else.
    fn kinds(&self) -> &'static [&'static str] {
        if self.is_wildcard {
            &["dns-01"]
        } else if self.identifier["type"] == "ip" {
            &["http-01", "tls-alpn-01"]
        } else {
            &["http-01", "tls-alpn-01", "dns-01"]
        }
    }

    pub(super) fn json(&self, base: &str, number: usize, part: usize) -> Value {
        let challenges = (0..self.kinds().len()).filter_map(|which| self.challenge(base, number, part, which));
        let challenges: Vec<_> = challenges.collect();
        let mut authorization =
            json!({ "status": self.standing.text(), "identifier": self.identifier, "challenges": challenges });
        if self.is_wildcard {
            authorization["wildcard"] = json!(true);
        }
        authorization
    }

    pub(super) fn challenge(&self, base: &str, number: usize, part: usize, which: usize) -> Option<Value> {
        let status = match self.standing {
            Standing::Pending if self.is_triggered => "processing",
            standing => standing.text(),
        };
        let mut challenge = json!({
            "type": self.kinds().get(which)?,
            "url": format!("{base}/challenge/{number}/{part}/{which}"),
            "token": format!("token-{number}-{part}-{which}"),
            "status": status,
        });
        if let Some(error) = &self.error {
            challenge["error"] = error.clone();
        }
        Some(challenge)
    }
}
