use super::super::fixture::{DAY, NOW, pair};
use super::*;
use crate::name::DomainName;
use proptest::prelude::*;
use rcgen::PKCS_ECDSA_P384_SHA384;
use rstest::rstest;
use std::sync::atomic::{AtomicUsize, Ordering};

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];
const BOTH: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

/// Gives one certificate, if any, and counts how often it was asked for it.
#[derive(Default)]
struct Internal(Option<Arc<Certificate>>, AtomicUsize);

impl LastResort for Internal {
    fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.clone()
    }

    fn held(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
        self.0.clone()
    }
}

/// A certificate as a word: `p256`, `p384`, `rsa`, then first and last day from [`NOW`] on.
fn certificate(text: &str) -> Arc<Certificate> {
    let (kind, days) = text.split_once(' ').unwrap();
    let (from, to) = days.split_once("..").unwrap();
    let day = |text: &str| text.parse::<i64>().unwrap() * DAY;
    let maker = pair(&["www.example.com"]).valid(day(from), day(to));
    match kind {
        "p256" => maker,
        "p384" => maker.algorithm(&PKCS_ECDSA_P384_SHA384),
        "rsa" => maker.rsa(),
        "other" => pair(&["other.example.com"]).valid(day(from), day(to)),
        "broken" => return Arc::new(broken(maker.pem())),
        _ => panic!("{kind}"),
    }
    .make()
}

/// A key whose public half fits and whose private half does not.
fn broken(pair: super::super::fixture::Pair) -> Certificate {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let mut key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap().secret_der().to_vec();
    // PKCS#8 of P-256: the private scalar begins at octet 36.
    key[40] ^= 1;
    Certificate::from_der(vec![cert], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))).unwrap()
}

fn domain() -> DomainName {
    DomainName::parse("www.example.com").unwrap()
}

/// `rank: certificate` lines; the answer names the line.
fn set(lines: &[&str]) -> (CertificateSet, Vec<(String, Arc<Certificate>)>) {
    let mut ranks = Ranks::default();
    let mut configured = None;
    let mut internal = Internal::default();
    let mut named = Vec::new();
    for line in lines {
        let (rank, text) = line.split_once(": ").unwrap();
        let made = certificate(text);
        named.push(((*line).to_owned(), Arc::clone(&made)));
        match rank {
            "own" => ranks.own.push(made),
            "store" => ranks.store.push(made),
            "standby" => ranks.standby.push(made),
            "configured" => configured = Some(made),
            "internal" => internal.0 = Some(made),
            _ => panic!("{rank}"),
        }
    }
    let common = CommonRanks { configured, last_resort: Arc::new(internal) };
    (CertificateSet::new(&domain(), ranks, Arc::new(common)), named)
}

fn check(lines: &[&str], now: UnixTime, schemes: &[SignatureScheme], expected: Option<&str>) {
    let (set, named) = set(lines);
    let choice = set.choose(&domain(), now, schemes);
    let line = choice.as_ref().map(|choice| {
        assert!(choice.certificate.is_valid_at(now));
        let (line, _) = named.iter().find(|(_, made)| Arc::ptr_eq(made, &choice.certificate)).unwrap();
        assert!(line.starts_with(choice.source.label()), "{line} as {}", choice.source);
        line.as_str()
    });
    assert_eq!(line, expected);
}

const ALL: &[&str] =
    &["own: p256 -9..1", "store: p256 -9..2", "standby: p256 -9..3", "configured: p256 -9..4", "internal: p256 -9..5"];

#[rstest]
#[case::own(0, Some("own: p256 -9..1"))]
#[case::own_in_its_last_second(DAY, Some("own: p256 -9..1"))]
#[case::store_a_second_later(DAY + 1, Some("store: p256 -9..2"))]
#[case::standby(2 * DAY + 1, Some("standby: p256 -9..3"))]
#[case::configured(3 * DAY + 1, Some("configured: p256 -9..4"))]
#[case::internal(4 * DAY + 1, Some("internal: p256 -9..5"))]
#[case::never_an_expired_one(5 * DAY + 1, None)]
#[case::first_second(-9 * DAY, Some("own: p256 -9..1"))]
#[case::never_one_before_its_time(-9 * DAY - 1, None)]
fn the_best_rank_with_a_valid_one_serves(#[case] later_secs: i64, #[case] expected: Option<&str>) {
    check(ALL, NOW.plus_secs(later_secs), BOTH, expected);
}

#[test]
fn the_last_millisecond_belongs_to_the_certificate() {
    let last = UnixTime::from_ms(NOW.plus_secs(DAY).ms() + 999);
    check(ALL, last, BOTH, Some("own: p256 -9..1"));
    check(ALL, UnixTime::from_ms(last.ms() + 1), BOTH, Some("store: p256 -9..2"));
}

#[rstest]
#[case::curves_first(&["own: rsa -1..9", "own: p256 -9..9"], BOTH, "own: p256 -9..9")]
#[case::rsa_for_whom_it_suits(&["own: rsa -1..9", "own: p256 -9..9"], RSA, "own: rsa -1..9")]
#[case::ecdsa_for_whom_it_suits(&["own: rsa -1..9", "own: p256 -9..9"], ECDSA, "own: p256 -9..9")]
#[case::rsa_when_the_other_expired(&["own: rsa -1..9", "own: p256 -9..-1"], BOTH, "own: rsa -1..9")]
#[case::renewed(&["own: p256 -9..1", "own: p256 -1..5"], BOTH, "own: p256 -1..5")]
#[case::renewed_in_any_order(&["own: p256 -1..5", "own: p256 -9..1"], BOTH, "own: p256 -1..5")]
#[case::renewed_for_less_time(&["own: p256 -9..90", "own: p256 -1..5"], BOTH, "own: p256 -1..5")]
#[case::renewed_too_early(&["own: p256 -9..1", "own: p256 1..5"], BOTH, "own: p256 -9..1")]
#[case::begun_together(&["own: p256 -9..1", "own: p256 -9..2"], BOTH, "own: p256 -9..2")]
#[case::next_rank_suits(&["own: p256 -9..9", "configured: rsa -9..9"], RSA, "configured: rsa -9..9")]
#[case::none_suits(&["own: p384 -9..9", "store: p384 -9..9", "internal: p256 -9..9"], RSA, "own: p384 -9..9")]
#[case::none_suits_but_the_internal(&["own: p384 -9..9", "internal: p256 -9..9"], ECDSA, "own: p384 -9..9")]
#[case::expired_own(&["own: p256 -9..-1", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
#[case::own_of_another_name(&["own: other -9..9", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
#[case::fallback_as_given(&["configured: other -9..9", "internal: p256 -9..9"], BOTH, "configured: other -9..9")]
#[case::key_does_not_open(&["own: broken -1..9", "own: p256 -9..9"], BOTH, "own: p256 -9..9")]
#[case::only_key_does_not_open(&["own: broken -1..9", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
fn within_a_rank_key_and_age_decide(
    #[case] lines: &[&str],
    #[case] schemes: &[SignatureScheme],
    #[case] expected: &str,
) {
    check(lines, NOW, schemes, Some(expected));
}

#[test]
fn the_authority_is_not_asked_on_a_healthy_site() {
    let internal = Arc::new(Internal(Some(certificate("p256 -9..9")), AtomicUsize::new(0)));
    let ranks = Ranks { own: vec![certificate("p256 -9..1")], ..Ranks::default() };
    let common = CommonRanks { configured: None, last_resort: Arc::clone(&internal) as Arc<dyn LastResort> };
    let set = CertificateSet::new(&domain(), ranks, Arc::new(common));
    set.choose(&domain(), NOW, BOTH).unwrap();
    set.choose(&domain(), NOW, &[]).unwrap();
    set.standing(&domain(), NOW.plus_secs(2 * DAY));
    assert_eq!(internal.1.load(Ordering::Relaxed), 0);
    assert_eq!(set.choose(&domain(), NOW.plus_secs(2 * DAY), BOTH).unwrap().source, Source::Internal);
}

#[rstest]
#[case::healthy(&["own: p256 -9..1", "internal: p256 -9..9"], 0, "own until 1, own until 1")]
#[case::swapped(&["own: p256 -9..-1", "store: p256 -9..2"], 0, "store until 2, own until -1")]
#[case::both_expired(&["own: p256 -9..-2", "own: rsa -9..-1", "internal: p256 -9..9"], 0, "internal until 9, own until -1")]
#[case::two_keys(&["own: p256 -9..2", "own: rsa -9..5"], 0, "own until 2, own until 5")]
#[case::not_begun(&["own: p256 3..9"], 0, "internal until ?, own until ?")]
#[case::nothing(&[], 0, "internal until ?, own until ?")]
#[case::and_back(&["own: p256 -9..1", "own: p256 3..9", "store: p256 -9..9"], 2, "store until 9, own until 1")]
#[case::and_back_again(&["own: p256 -9..1", "own: p256 3..9", "store: p256 -9..9"], 4, "own until 9, own until 9")]
fn a_domain_stands(#[case] lines: &[&str], #[case] day: i64, #[case] expected: &str) {
    let (set, _) = set(lines);
    let standing = set.standing(&domain(), NOW.plus_secs(day * DAY));
    let show =
        |at: Option<UnixTime>| at.map_or("?".to_owned(), |at| ((at.secs() - NOW.secs()).div_euclid(DAY)).to_string());
    let (not_after, own) = (show(standing.not_after), show(standing.own_not_after));
    assert_eq!(format!("{} until {not_after}, own until {own}", standing.source), expected);
}
#[rstest]
#[case::own(&["own: p256 -9..1"], Some(1))]
#[case::nothing(&[], None)]
#[case::gone(&["own: p256 -9..-1"], None)]
#[case::to_come(&["own: p256 1..9"], None)]
#[case::one_after_the_other(&["own: p256 -9..1", "standby: p256 0..3", "store: p256 2..5"], Some(5))]
#[case::a_gap(&["own: p256 -9..1", "standby: p256 2..5"], Some(1))]
#[case::a_fallback_for_it(&["own: p256 -9..1", "configured: p256 0..3"], Some(3))]
#[case::a_fallback_for_another(&["own: p256 -9..1", "configured: other 0..3"], Some(1))]
#[case::internal(&["own: p256 -9..1", "internal: p256 0..3"], Some(1))]
fn a_certificate_is_assured(#[case] lines: &[&str], #[case] until: Option<i64>) {
    let (set, _) = set(lines);
    let expected = until.map(|day| NOW.plus_secs(day * DAY));
    assert_eq!(set.guaranteed_until(&domain(), NOW), expected);
}

#[test]
fn what_is_known_to_be_broken_assures_nothing() {
    let (set, _) = set(&["own: broken -1..9", "own: p256 -9..2"]);
    assert_eq!(set.guaranteed_until(&domain(), NOW), Some(NOW.plus_secs(9 * DAY)));
    set.choose(&domain(), NOW, BOTH).unwrap();
    assert_eq!(set.guaranteed_until(&domain(), NOW), Some(NOW.plus_secs(2 * DAY)));
}

/// A certificate that is valid from and to so many seconds after [`NOW`]; its key is not there, and not needed.
fn lasting(from: i64, to: i64) -> Arc<Certificate> {
    static STORED: std::sync::LazyLock<super::super::fixture::Stored> =
        std::sync::LazyLock::new(|| pair(&["www.example.com"]).pem().stored());
    let mut stored = STORED.clone();
    (stored.facts.not_before, stored.facts.not_after) = (NOW.plus_secs(from), NOW.plus_secs(to));
    stored.sealed(&super::super::OpenedKeys::new(Arc::new(super::super::fixture::TestVault::default()), 1))
}

proptest! {
    #[test]
    fn guarantee_and_next_change_are_what_looking_at_every_second_finds(
        lives in prop::collection::vec((0..4_usize, -20..20_i64, 0..15_i64), 0..8),
        now in -25..25_i64,
    ) {
        let mut ranks = Ranks::default();
        let mut configured = None;
        for (rank, from, lifetime) in lives {
            let made = lasting(from, from + lifetime);
            match rank {
                0 => ranks.own.push(made),
                1 => ranks.store.push(made),
                2 => ranks.standby.push(made),
                _ => configured = Some(made),
            }
        }
        let common = CommonRanks { configured, last_resort: Arc::<Internal>::default() };
        let set = CertificateSet::new(&domain(), ranks, Arc::new(common));
        let valid = |secs: i64| -> Vec<_> {
            set.valid(NOW.plus_secs(secs)).map(|(_, certificate)| Arc::as_ptr(certificate)).collect()
        };
        let until = (now..60).take_while(|secs| !valid(*secs).is_empty()).last();
        prop_assert_eq!(set.guaranteed_until(&domain(), NOW.plus_secs(now)), until.map(|secs| NOW.plus_secs(secs)));
        let change = (now + 1..60).find(|secs| valid(*secs) != valid(*secs - 1));
        prop_assert_eq!(set.next_change(NOW.plus_secs(now)), change.map(|secs| NOW.plus_secs(secs)));
    }
}
