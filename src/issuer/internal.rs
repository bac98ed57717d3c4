//! The internal authority: the last resort, so that a domain without any valid certificate still answers over TLS.
//!
//! Nobody trusts it unless told to. Its key is made at first use; whoever can keep it sealed takes it
//! ([`InternalCa::roots`]) and gives it back to the next process ([`InternalCa::adopt`]). The certificates that it makes
//! stay in memory: one per configured domain, never per name that a client sends.
//!
//! A clock that is wrong for a while makes another root, for a time that the first one does not reach to. So the last two
//! are known: when the clock is right again, so is the root that clients trust.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use dashmap::DashMap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::certificate::{Certificate, LastResort};
use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};

const DAY_SECS: i64 = 86_400;

/// Both reach back this far, for clients whose clocks are behind.
const BACKDATED_SECS: i64 = DAY_SECS;
const LEAF_SECS: i64 = 7 * DAY_SECS;
/// A leaf this close to its end is made anew.
const LEAF_RENEWED_SECS: i64 = DAY_SECS;
const CA_SECS: i64 = 3650 * DAY_SECS;

/// 9999-12-31T23:59:59Z, the last second that a certificate can name (RFC 5280, section 4.1.2.5).
const LAST_SECS: i64 = 253_402_300_799;

/// The largest common name (RFC 5280, appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// An authority in memory, and the certificates that it made, one per domain.
#[derive(Default)]
pub struct InternalCa {
    authority: Slot<Authority>,
    /// The authority that signed before. Changed only by whoever may make one.
    before: ArcSwapOption<Authority>,
    /// How many authorities there were.
    generations: AtomicU64,
    /// Which of them signs, so that no leaf is served of another one.
    generation: AtomicU64,
    leaves: DashMap<DomainName, Arc<Slot<Leaf>>>,
}

/// Something made at need: read without a lock, made by one thread while the others wait for it.
struct Slot<T> {
    current: ArcSwapOption<T>,
    making: Mutex<()>,
}

/// A self-signed root and its key.
struct Authority {
    generation: u64,
    validity: Validity,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, WipedKey>,
}

/// A key whose octets are wiped when it is dropped, wherever that is.
struct WipedKey(KeyPair);

impl WipedKey {
    fn generate() -> Option<Self> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok().map(Self)
    }

    /// PKCS#8 DER.
    fn der(&self) -> &[u8] {
        self.0.serialized_der()
    }
}

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for WipedKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for WipedKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

struct Leaf {
    generation: u64,
    certificate: Arc<Certificate>,
}

/// First and last second, in Unix seconds from the epoch to [`LAST_SECS`].
#[derive(Clone, Copy)]
struct Validity {
    from_secs: i64,
    to_secs: i64,
}

impl InternalCa {
    /// An authority that is made when it is first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The root certificate at `now`, PEM, for a client that is to trust it. Empty if there can be none at `now`.
    pub fn root_pem(&self, now: UnixTime) -> String {
        let Some(authority) = self.authority(now) else { return String::new() };
        let line_ends = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new("CERTIFICATE", authority.root.to_vec()), line_ends)
    }

    /// The last two roots (DER) and their keys (PKCS#8), to be kept sealed; the one that signs last. Makes none.
    pub fn roots(&self) -> Vec<(Vec<u8>, Zeroizing<Vec<u8>>)> {
        let _making = self.authority.making.lock().unwrap_or_else(PoisonError::into_inner);
        let both = [self.before.load_full(), self.authority.current.load_full()];
        let export = |it: Arc<Authority>| (it.root.to_vec(), Zeroizing::new(it.issuer.key().der().to_vec()));
        both.into_iter().flatten().map(export).collect()
    }

    /// How many authorities there were: another number whenever [`Self::roots`] may be others than before.
    pub fn generations(&self) -> u64 {
        self.generations.load(Ordering::Acquire)
    }

    /// Goes on as the authority that was kept: from now on it signs, and where it does not reach to, the one that signed
    /// until now. Returns whether it can; if not, nothing changes.
    pub fn adopt(&self, root: &[u8], key_pkcs8: &[u8]) -> bool {
        let _making = self.authority.making.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(adopted) = Authority::kept(root, key_pkcs8, self.next_generation()) else { return false };
        let adopted = Arc::new(adopted);
        self.succeed(&adopted);
        self.authority.current.store(Some(adopted));
        true
    }

    /// Forgets the certificates of all domains but those of which `is_kept` says so.
    pub fn forget_others(&self, is_kept: impl Fn(&DomainName) -> bool) {
        self.leaves.retain(|domain, _| is_kept(domain));
    }

    /// How many domains have a certificate of it.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether it has made none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    fn authority(&self, now: UnixTime) -> Option<Arc<Authority>> {
        let fresh = |it: &Authority| it.validity.holds(now) && it.validity.holds(UnixTime::from_secs(leaf_end(now)));
        self.authority.get_or_make(fresh, || {
            let next = match self.before.load_full().filter(|before| fresh(before)) {
                Some(before) => before,
                None => Arc::new(Authority::new(now, self.next_generation())?),
            };
            self.succeed(&next);
            Some(next)
        })
    }

    fn next_generation(&self) -> u64 {
        self.generations.load(Ordering::Acquire).wrapping_add(1)
    }

    /// From now on `next` signs: leaves of the authority that did before are made anew. Whoever calls it may make one.
    fn succeed(&self, next: &Authority) {
        self.before.store(self.authority.current.load_full());
        self.generations.fetch_max(next.generation, Ordering::AcqRel);
        self.generation.store(next.generation, Ordering::Release);
    }

    fn is_fresh(&self, leaf: &Leaf, now: UnixTime) -> bool {
        leaf.generation == self.generation.load(Ordering::Acquire)
            && leaf.certificate.is_valid_at(now)
            // At the end of time nothing can be renewed; then it is served to its last second.
            && leaf.certificate.not_after().secs() >= leaf_end(now).min(now.secs().saturating_add(LEAF_RENEWED_SECS))
    }

    /// The domain's slot; the map is let go of before anything is signed.
    fn slot(&self, domain: &DomainName) -> Arc<Slot<Leaf>> {
        if let Some(slot) = self.leaves.get(domain) {
            return Arc::clone(&slot);
        }
        Arc::clone(&self.leaves.entry(domain.clone()).or_default())
    }
}

impl LastResort for InternalCa {
    fn certificate(&self, domain: &DomainName, now: UnixTime) -> Option<Arc<Certificate>> {
        let leaf = self
            .slot(domain)
            .get_or_make(|leaf| self.is_fresh(leaf, now), || self.authority(now)?.issue(domain, now).map(Arc::new))?;
        Some(Arc::clone(&leaf.certificate))
    }

    fn held(&self, domain: &DomainName, now: UnixTime) -> Option<Arc<Certificate>> {
        let slot = self.leaves.get(domain).map(|slot| Arc::clone(&slot))?;
        let leaf = slot.current.load_full().filter(|leaf| self.is_fresh(leaf, now))?;
        Some(Arc::clone(&leaf.certificate))
    }
}

impl<T> Slot<T> {
    /// What is there if it is `fresh`; else what `make` gives, which only one thread at a time does.
    fn get_or_make(&self, fresh: impl Fn(&T) -> bool, make: impl FnOnce() -> Option<Arc<T>>) -> Option<Arc<T>> {
        let current = || self.current.load_full().filter(|it| fresh(it));
        if let Some(current) = current() {
            return Some(current);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have made it while this thread waited.
        if let Some(current) = current() {
            return Some(current);
        }
        let made = make()?;
        self.current.store(Some(Arc::clone(&made)));
        Some(made)
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), making: Mutex::new(()) }
    }
}

impl Authority {
    /// Makes a key and its root.
    fn new(now: UnixTime, generation: u64) -> Option<Self> {
        let validity = Validity::new(now, CA_SECS)?;
        let mut params = params(validity)?;
        // Several processes, or one after a restart, must not look like one authority to a client that keeps roots.
        let number: String =
            params.serial_number.as_ref().map(ToString::to_string).unwrap_or_default().chars().take(11).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Lockgate internal CA {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = WipedKey::generate()?;
        let root = params.self_signed(&key).ok()?.der().clone();
        Some(Self { generation, validity, root, issuer: Issuer::new(params, key) })
    }

    /// One that was made before.
    fn kept(root: &[u8], key_pkcs8: &[u8], generation: u64) -> Option<Self> {
        let root = CertificateDer::from(root.to_vec());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()));
        // The two belong together.
        let certificate = Certificate::from_der(vec![root.clone()], der).ok()?;
        let validity = Validity { from_secs: certificate.not_before().secs(), to_secs: certificate.not_after().secs() };
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key_pkcs8), &PKCS_ECDSA_P256_SHA256);
        let key = key.ok().map(WipedKey)?;
        let issuer = Issuer::from_ca_cert_der(&root, key).ok()?;
        Some(Self { generation, validity, root, issuer })
    }

    /// Makes a key and a certificate for exactly `domain`.
    fn issue(&self, domain: &DomainName, now: UnixTime) -> Option<Leaf> {
        let mut params = params(Validity::new(now, LEAF_SECS)?.within(self.validity))?;
        let san = match domain.kind() {
            Kind::Ip(address) => SanType::IpAddress(address),
            Kind::Exact | Kind::Wildcard => SanType::DnsName(domain.as_str().try_into().ok()?),
        };
        if domain.as_str().len() <= MAX_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, domain.as_str());
        }
        params.subject_alt_names = vec![san];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = WipedKey::generate()?;
        let leaf = params.signed_by(&key, &self.issuer).ok()?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.der().to_vec()));
        let certificate = Certificate::from_der(vec![leaf.into()], der).ok()?;
        Some(Leaf { generation: self.generation, certificate: Arc::new(certificate) })
    }
}

impl Validity {
    /// From a day before `now` until `secs` after it, held within what a certificate can say. `None`: `now` is not.
    fn new(now: UnixTime, secs: i64) -> Option<Self> {
        let now = now.secs();
        if !(0..=LAST_SECS).contains(&now) {
            return None;
        }
        Some(Self { from_secs: (now - BACKDATED_SECS).max(0), to_secs: (now + secs).min(LAST_SECS) })
    }

    fn within(self, outer: Self) -> Self {
        Self { from_secs: self.from_secs.max(outer.from_secs), to_secs: self.to_secs.min(outer.to_secs) }
    }

    fn holds(self, now: UnixTime) -> bool {
        (self.from_secs..=self.to_secs).contains(&now.secs())
    }
}

/// The last second of a leaf made at `now`.
fn leaf_end(now: UnixTime) -> i64 {
    now.secs().saturating_add(LEAF_SECS).min(LAST_SECS)
}

/// What every certificate says here: its dates and a random serial number. rcgen's own dates reach to the year 4096.
fn params(validity: Validity) -> Option<CertificateParams> {
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(u64::try_from(validity.from_secs).ok()?);
    params.not_after = epoch + Duration::from_secs(u64::try_from(validity.to_secs).ok()?);
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    Some(params)
}

/// 127 random bits: positive and never zero (RFC 5280, section 4.1.2.2).
fn serial() -> Option<SerialNumber> {
    let mut octets = [0; 16];
    rand::fill(&mut octets).ok()?;
    if let Some(first) = octets.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Some(SerialNumber::from_slice(&octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime as PkiTime};
    use std::collections::HashSet;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn domain(name: &str) -> DomainName {
        DomainName::parse(name).unwrap()
    }

    /// Verifies the domain's certificate at `now` against the root at `now`, as a client would.
    fn verify(ca: &InternalCa, name: &str, server: &str, now: UnixTime) -> Result<(), rustls::Error> {
        let certificate = ca.certificate(&domain(name), now).unwrap();
        let root = CertificateDer::from_pem_slice(ca.root_pem(now).as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let server = ServerName::try_from(server.to_owned()).unwrap();
        let at = PkiTime::since_unix_epoch(Duration::from_secs(now.secs().unsigned_abs()));
        let chain = certificate.chain();
        use rustls::client::danger::ServerCertVerifier;
        verifier.verify_server_cert(&chain[0], &chain[1..], &server, &[], at).map(|_| ())
    }

    #[rstest]
    #[case("www.example.com", "www.example.com", true)]
    #[case("www.example.com", "example.com", false)]
    #[case("*.example.com", "a.example.com", true)]
    #[case("*.example.com", "example.com", false)]
    #[case("*.example.com", "a.b.example.com", false)]
    #[case("192.0.2.1", "192.0.2.1", true)]
    #[case("2001:db8::1", "2001:db8::1", true)]
    #[case("2001:db8::1", "2001:db8::2", false)]
    #[case("localhost", "localhost", true)]
    fn a_client_that_trusts_the_root_accepts_exactly_the_domain(
        #[case] name: &str,
        #[case] server: &str,
        #[case] good: bool,
    ) {
        let ca = InternalCa::new();
        assert_eq!(verify(&ca, name, server, NOW).is_ok(), good);
        assert_eq!(ca.certificate(&domain(name), NOW).unwrap().names(), [domain(name)]);
    }

    #[test]
    fn a_name_of_253_characters_has_one_too() {
        let name = format!("{}.{}.{}.example", "a".repeat(63), "b".repeat(63), "c".repeat(63));
        verify(&InternalCa::new(), &name, &name, NOW).unwrap();
    }

    #[rstest]
    #[case::at_once(0, true)]
    #[case::six_days_later(6 * DAY_SECS, true)]
    #[case::a_second_after_that(6 * DAY_SECS + 1, false)]
    #[case::ten_years_later(CA_SECS + DAY_SECS, false)]
    #[case::a_day_back(-DAY_SECS, true)]
    #[case::more_than_a_day_back(-DAY_SECS - 1, false)]
    #[case::thirty_days_back(-30 * DAY_SECS, false)]
    fn a_leaf_is_kept_until_a_day_before_its_end(#[case] later_secs: i64, #[case] same: bool) {
        let ca = InternalCa::new();
        let name = domain("www.example.com");
        let first = ca.certificate(&name, NOW).unwrap();
        let then = NOW.plus_secs(later_secs);
        let second = ca.certificate(&name, then).unwrap();
        assert_eq!(Arc::ptr_eq(&first, &second), same);
        assert!(second.is_valid_at(then));
        verify(&ca, "www.example.com", "www.example.com", then).unwrap();
    }

    #[test]
    fn after_a_jump_back_and_forth_all_leaves_are_of_the_root_that_is_shown() {
        let ca = InternalCa::new();
        for later in [0, -30 * DAY_SECS, 0, 11 * 365 * DAY_SECS, 0] {
            for name in ["a.example.com", "b.example.com"] {
                verify(&ca, name, name, NOW.plus_secs(later)).unwrap();
            }
        }
    }

    #[rstest]
    #[case::ahead(&[0, 20 * 365 * DAY_SECS, 0, 20 * 365 * DAY_SECS], &[0, 1, 0, 1])]
    #[case::no_clock_at_the_start(&[-NOW.secs(), 0, 1, -NOW.secs(), 0], &[0, 1, 1, 0, 1])]
    #[case::ten_years(&[0, CA_SECS, 2 * CA_SECS, 2 * CA_SECS], &[0, 1, 2, 2])]
    fn when_the_clock_is_right_again_so_is_the_root(#[case] later_secs: &[i64], #[case] expected: &[usize]) {
        let ca = InternalCa::new();
        let mut seen: Vec<String> = Vec::new();
        let shown = later_secs.iter().map(|later| {
            let root = ca.root_pem(NOW.plus_secs(*later));
            if !seen.contains(&root) {
                seen.push(root.clone());
            }
            seen.iter().position(|it| *it == root).unwrap()
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!((ca.generations(), ca.roots().len()), (seen.len() as u64, 2));
    }

    #[rstest]
    #[case::dead_clock_battery(UnixTime::from_secs(0), true)]
    #[case::before_the_epoch(UnixTime::from_secs(-1), false)]
    #[case::last_second(UnixTime::from_secs(LAST_SECS), true)]
    #[case::after_it(UnixTime::from_secs(LAST_SECS + 1), false)]
    #[case::end_of_the_type(UnixTime::from_ms(i64::MAX), false)]
    #[case::start_of_the_type(UnixTime::from_ms(i64::MIN), false)]
    fn no_clock_makes_it_panic(#[case] now: UnixTime, #[case] can: bool) {
        let ca = InternalCa::new();
        let made = ca.certificate(&domain("www.example.com"), now);
        assert_eq!(made.as_ref().map(|it| it.is_valid_at(now)), can.then_some(true));
        assert_eq!(ca.root_pem(now).is_empty(), !can);
        if let Some(made) = made {
            assert!(Arc::ptr_eq(&made, &ca.certificate(&domain("www.example.com"), now).unwrap()));
        }
    }

    #[test]
    fn what_was_kept_signs_for_the_next_process_too() {
        let (before, after) = (InternalCa::new(), InternalCa::new());
        let name = domain("www.example.com");
        let root = before.root_pem(NOW);
        let made_without = after.certificate(&name, NOW).unwrap();
        let (der, key) = before.roots().pop().unwrap();
        assert!(after.adopt(&der, &key));
        assert_eq!(after.root_pem(NOW), root);
        assert!(!Arc::ptr_eq(&made_without, &after.certificate(&name, NOW).unwrap()));
        verify(&after, "www.example.com", "www.example.com", NOW).unwrap();
        let other = InternalCa::new();
        assert!(other.roots().is_empty(), "looking makes none");
        other.root_pem(NOW);
        let (_, other_key) = other.roots().pop().unwrap();
        for (der, key) in [(&der[..], &other_key[..]), (&der[1..], &key[..]), (&[], &key[..]), (&der[..], &[])] {
            assert!(!after.adopt(der, key));
            assert_eq!(after.root_pem(NOW), root);
        }
    }

    #[test]
    fn a_thousand_threads_make_one_leaf() {
        let ca = InternalCa::new();
        let name = domain("www.example.com");
        let start = std::sync::Barrier::new(1000);
        let prints: HashSet<[u8; 32]> = std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                ca.certificate(&name, NOW).unwrap().fingerprint()
            };
            let threads: Vec<_> = (0..1000).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!((prints.len(), ca.len()), (1, 1));
    }

    #[test]
    fn looking_makes_nothing_and_forgetting_forgets() {
        let ca = InternalCa::new();
        let (kept, gone) = (domain("kept.example.com"), domain("gone.example.com"));
        assert!(ca.held(&kept, NOW).is_none() && ca.is_empty());
        let made = ca.certificate(&kept, NOW).unwrap();
        ca.certificate(&gone, NOW).unwrap();
        ca.forget_others(|domain| *domain == kept);
        assert!(Arc::ptr_eq(&made, &ca.held(&kept, NOW).unwrap()));
        assert!(ca.held(&gone, NOW).is_none());
        assert!(ca.held(&kept, NOW.plus_secs(30 * DAY_SECS)).is_none());
    }

    #[test]
    fn it_says_of_itself_what_a_strict_client_wants_to_read() {
        let ca = InternalCa::new();
        let certificate = ca.certificate(&domain("www.example.com"), NOW).unwrap();
        let (leaf, root) = (certificate.chain(), CertificateDer::from_pem_slice(ca.root_pem(NOW).as_bytes()).unwrap());
        let parse = |der| x509_parser::parse_x509_certificate(der).unwrap().1;
        let (leaf, root) = (parse(&leaf[0]), parse(&root));
        let oids = |it: &x509_parser::certificate::X509Certificate<'_>| {
            it.extensions()
                .iter()
                .map(|extension| (extension.oid.to_id_string(), extension.critical))
                .collect::<Vec<_>>()
        };
        // 29.14 subject key id, 29.15 key usage, 29.17 names, 29.19 basic constraints, 29.35 authority key id, 29.37 usage
        insta::assert_snapshot!(format!("leaf {:?}\nroot {:?}", oids(&leaf), oids(&root)));
        assert_eq!(leaf.issuer(), root.subject());
        assert!(root.is_ca() && !leaf.is_ca());
        assert!((15..=16).contains(&leaf.raw_serial().len()));
        assert!(certificate.issuer().starts_with("CN=Lockgate internal CA "), "{}", certificate.issuer());
    }
}
