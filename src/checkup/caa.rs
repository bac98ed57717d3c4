//! Who may issue for a name: CAA records (RFC 8659), and their parameters (RFC 8657).

use super::facts::{CaaProperty, CaaRecords, Facts};
use super::finding::{Finding, What};
use super::names::no_answer;
use super::serving::{challenge, issued_name};
use crate::issuance::subject::authorities_for;
use crate::issuance::{Authority, Challenge};
use crate::name::Kind;
use crate::remedy;

/// What authorities are called in CAA records, by a part of their directories' host names, as they themselves say.
const IDENTITIES: &[(&str, &[&str])] = &[
    ("letsencrypt.org", &["letsencrypt.org"]),
    ("pki.goog", &["pki.goog"]),
    ("zerossl.com", &["sectigo.com", "zerossl.com"]),
    ("sectigo.com", &["sectigo.com"]),
    ("ssl.com", &["ssl.com"]),
    ("buypass.com", &["buypass.com"]),
    ("buypass.no", &["buypass.com"]),
    ("digicert.com", &["digicert.com"]),
    ("globalsign.com", &["globalsign.com"]),
    ("actalis.com", &["actalis.it"]),
];

/// Tags that authorities understand: RFC 8659, section 4; RFC 9495; the CA/Browser Forum's contacts; marks in mail.
const KNOWN_TAGS: &[&str] = &["issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"];

/// Whether one authority may issue.
enum May {
    Yes,
    /// What it is called is not known.
    Perhaps,
    /// No record names it; what it is called.
    NotNamed(&'static str),
    /// One names it for other ways of proof only.
    OtherProof(String),
    /// One names it for another account only.
    OtherAccount(String),
}

/// What the CAA records mean. Nothing where they were not looked at.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(looked_up) = &facts.caa else { return Vec::new() };
    let name = issued_name(facts).as_str();
    // Who has files does not need an authority today.
    let is_needed = facts.serving.subject.as_ref().is_some_and(|subject| !subject.terms.is_manual);
    let found = match looked_up {
        Err(no) => vec![Finding::wrong(What::Caa, no.words.clone(), no_answer(no.why, name))],
        Ok(None) => vec![Finding::ok(What::Caa, format!("{name} has no CAA records: any authority may issue"))],
        Ok(Some(records)) => judge(facts, records),
    };
    found.into_iter().map(|finding| finding.only_if(is_needed)).collect()
}

fn judge(facts: &Facts, records: &CaaRecords) -> Vec<Finding> {
    let CaaRecords { found_at, properties } = records;
    let name = issued_name(facts);
    let is_unknown = |it: &&CaaProperty| it.is_critical && !KNOWN_TAGS.contains(&it.tag.as_str());
    if let Some(unknown) = properties.iter().find(is_unknown) {
        return vec![Finding::wrong(
            What::Caa,
            format!("{found_at} has a critical CAA record `{}`, which authorities do not understand", unknown.tag),
            format!("remove the CAA record `{}` of {found_at}: until then nobody issues", unknown.tag),
        )];
    }
    // For a wildcard `issuewild` alone counts, where there is any (RFC 8659, section 4.3).
    let of = |tag| properties.iter().filter(|it| it.tag == tag).collect::<Vec<_>>();
    let wild = if name.kind() == Kind::Wildcard { of("issuewild") } else { Vec::new() };
    let (tag, relevant) = if wild.is_empty() { ("issue", of("issue")) } else { ("issuewild", wild) };
    if relevant.is_empty() {
        return vec![Finding::ok(
            What::Caa,
            format!("the CAA records of {found_at} forbid nobody to issue for {name}"),
        )];
    }
    let allowed: Vec<Allowed<'_>> = relevant.iter().map(|property| Allowed::parse(&property.value)).collect();
    let said = match allowed.iter().filter(|it| !it.authority.is_empty()).map(|it| it.authority).collect::<Vec<_>>() {
        none if none.is_empty() => format!("the CAA records of {found_at} allow nobody to issue"),
        some => format!("the CAA records of {found_at} allow {} alone to issue", some.join(", ")),
    };
    let authorities = match (&facts.serving.subject, &facts.serving.acme) {
        (Some(subject), Some(acme)) => authorities_for(acme, subject, subject.terms.is_manual, None, 0),
        _ => return vec![Finding::note(What::Caa, said)],
    };
    let verdicts: Vec<_> = authorities.iter().map(|it| (it, may_issue(facts, it, &allowed))).collect();
    let is_allowed = verdicts.iter().any(|(_, may)| matches!(may, May::Yes));
    let mut findings: Vec<Finding> =
        verdicts.iter().map(|(authority, may)| finding(authority, may, (found_at, tag, &said))).collect();
    // One that may issue is enough; of the others it is good to know.
    let is_open = is_allowed || verdicts.iter().any(|(_, may)| matches!(may, May::Perhaps));
    findings = findings.into_iter().map(|finding| finding.only_if(!is_open)).collect();
    findings
}

fn finding(authority: &Authority, may: &May, (found_at, tag, said): (&str, &str, &str)) -> Finding {
    let name = &authority.name;
    match may {
        May::Yes => Finding::ok(What::Caa, format!("the CAA records of {found_at} allow {name} to issue")),
        May::Perhaps => Finding::note(What::Caa, format!("{said}; what they call {name} is not known"))
            .with_remedy(format!("compare them with `caaIdentities` in {}", authority.directory)),
        May::NotNamed(identity) => {
            let remedy = match *identity {
                "" => remedy::allow_unnamed(found_at),
                identity => remedy::allow(found_at, tag, identity),
            };
            Finding::wrong(What::Caa, format!("{said}, and not {name}"), remedy)
        }
        May::OtherProof(methods) => Finding::wrong(
            What::Caa,
            format!("the CAA records of {found_at} allow {name} to issue after {methods} alone (`validationmethods`)"),
            format!("write a `challenge` that they allow, or add yours to `validationmethods` of {found_at}"),
        ),
        May::OtherAccount(account) => Finding::wrong(
            What::Caa,
            format!("the CAA records of {found_at} allow {name} to issue for another account alone (`accounturi`)"),
            format!("set `accounturi` in the CAA records of {found_at} to {account}, or leave it out"),
        ),
    }
}

fn may_issue(facts: &Facts, authority: &Authority, allowed: &[Allowed<'_>]) -> May {
    let identities = identities(authority);
    if identities.is_empty() {
        let is_nobody = allowed.iter().all(|it| it.authority.is_empty());
        return if is_nobody { May::NotNamed("") } else { May::Perhaps };
    }
    let mut refused = May::NotNamed(identities.first().copied().unwrap_or_default());
    let challenge = challenge(facts).and_then(Result::ok);
    let account = facts.serving.authorities.iter().find(|it| it.directory == authority.directory);
    for it in allowed.iter().filter(|it| identities.iter().any(|known| it.authority.eq_ignore_ascii_case(known))) {
        match (it.parameter("validationmethods"), challenge, it.parameter("accounturi"), account) {
            (Some(methods), Some(challenge), _, _) if !has_method(methods, challenge) => {
                refused = May::OtherProof(methods.to_owned());
            }
            (_, _, Some(uri), Some(own)) if uri != own.account => {
                refused = May::OtherAccount(own.account.clone());
            }
            _ => return May::Yes,
        }
    }
    refused
}

fn has_method(methods: &str, challenge: Challenge) -> bool {
    methods.split(',').any(|method| method.trim().eq_ignore_ascii_case(challenge.label()))
}

/// What CAA records call an authority; empty: it is not known.
fn identities(authority: &Authority) -> &'static [&'static str] {
    let host = authority.directory.split("://").nth(1).unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    let is_under = |top: &str| host == top || host.strip_suffix(top).is_some_and(|rest| rest.ends_with('.'));
    IDENTITIES.iter().find(|(top, _)| is_under(top)).map(|(_, identities)| *identities).unwrap_or_default()
}

/// The value of an `issue` or `issuewild` property (RFC 8659, section 4.2): who may, and under which conditions.
struct Allowed<'a> {
    authority: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Allowed<'a> {
    fn parse(value: &'a str) -> Self {
        let mut parts = value.split(';').map(str::trim);
        let authority = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
        Self { authority, parameters: parameters.collect() }
    }

    fn parameter(&self, key: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(it, _)| it.eq_ignore_ascii_case(key)).map(|(_, value)| *value)
    }
}
