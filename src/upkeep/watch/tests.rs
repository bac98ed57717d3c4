use super::*;
use crate::certificate::fixture::{DAY, NOW, Stored, TestVault, pair};
use crate::certificate::{Certificate, CertificateSet, CommonRanks, LastResort, OpenedKeys, PairPaths, Ranks};
use crate::name::DomainName;
use crate::site::{Origin, OriginSpec, SiteSpec};
use std::cell::Cell;
use std::sync::LazyLock;

thread_local!(static KEY_CHANGES: Cell<u64> = const { Cell::new(0) });

struct Nobody;

impl LastResort for Nobody {
    fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
        None
    }
}

/// One for `*.example.com`, valid from and to so many days after [`NOW`]. Its key is not there, and not needed.
fn certificate(from: i64, to: i64) -> Arc<Certificate> {
    static STORED: LazyLock<Stored> = LazyLock::new(|| pair(&["*.example.com"]).pem().stored());
    let mut stored = STORED.clone();
    (stored.facts.not_before, stored.facts.not_after) = (NOW.plus_secs(from * DAY), NOW.plus_secs(to * DAY));
    stored.sealed(&OpenedKeys::new(Arc::new(TestVault::default()), 1))
}

/// A site with certificates of its own.
fn site(slot: u32, own: &[(i64, i64)]) -> Arc<Site> {
    let name = DomainName::parse(&format!("s{slot}.example.com")).unwrap();
    let ranks = Ranks { own: own.iter().map(|(from, to)| certificate(*from, *to)).collect(), ..Ranks::default() };
    let common = CommonRanks { configured: None, last_resort: Arc::new(Nobody) };
    let origin = Arc::new(OriginSpec::http("127.0.0.1", 1));
    Arc::new(Site {
        certificates: CertificateSet::new(&name, ranks, Arc::new(common)),
        spec: Arc::new(SiteSpec::new(name, Arc::clone(&origin))),
        origin: Arc::new(Origin { id: 1, spec: origin, tls: None }),
        slot: Slot(slot),
        throttle: None,
    })
}

/// A site with certificate files, whose certificates are those.
fn site_of_files(slot: u32, own: &[(i64, i64)]) -> Arc<Site> {
    let Site { spec, certificates, origin, slot, throttle } = Arc::into_inner(site(slot, own)).unwrap();
    let files = PairPaths { cert: "/etc/certs/www.pem".into(), key: "/etc/certs/www.key".into() };
    let spec = Arc::new(SiteSpec { certificates: [files].into(), ..SiteSpec::clone(&spec) });
    Arc::new(Site { spec, certificates, origin, slot, throttle })
}

/// A watch and what it said.
struct Bench {
    watch: Watch,
    alerts: Alerts,
    snapshot: Arc<Snapshot>,
}

impl Bench {
    fn new(sites: &[Arc<Site>]) -> Self {
        KEY_CHANGES.set(0);
        let watch = Watch::new(|| KEY_CHANGES.get());
        Self { watch, alerts: Alerts::default(), snapshot: Arc::new(Snapshot::new(sites.to_vec(), None)) }
    }

    fn publish(&mut self, sites: &[Arc<Site>]) {
        self.snapshot = Arc::new(Snapshot::new(sites.to_vec(), None));
    }

    /// Takes a step so many seconds after [`NOW`]; checks how many sites it looks at.
    fn step(&mut self, later_secs: i64, expected: usize) {
        let looked = self.watch.step(NOW.plus_secs(later_secs), &self.snapshot, &self.alerts);
        assert_eq!(looked, expected, "{later_secs} s later");
    }

    /// How often alerts of that kind were raised for the first site.
    fn count(&self, kind: AlertKind) -> u64 {
        let of_it = |(domain, of, times): (Arc<str>, AlertKind, u64)| {
            (&*domain == "s1.example.com" && of == kind).then_some(times)
        };
        self.alerts.counts().into_iter().find_map(of_it).unwrap_or(0)
    }

    /// What was raised so far: `s1 kind times`.
    fn told(&self) -> Vec<String> {
        let short = |domain: &str| domain.split('.').next().unwrap().to_owned();
        self.alerts.counts().iter().map(|(of, kind, times)| format!("{} {} {times}", short(of), kind.label())).collect()
    }
}

#[test]
fn only_what_is_due_is_looked_at_and_in_its_second() {
    let mut bench = Bench::new(&[site(1, &[(-1, 1)]), site(2, &[(-9, 5)]), site(3, &[(-1, 1), (2, 9)])]);
    bench.step(0, 3);
    bench.step(1, 0);
    bench.step(DAY, 0);
    assert!(bench.told().is_empty());
    bench.step(DAY + 1, 2);
    let expired = ["s1 fallback_installed 1", "s1 certificate_expired 1"];
    assert_eq!(bench.told(), [expired, ["s3 fallback_installed 1", "s3 certificate_expired 1"]].concat());
    bench.step(DAY + 2, 0);
    bench.step(2 * DAY, 1);
    assert_eq!(bench.told()[3], "s3 fallback_ended 1");
}

#[test]
fn a_jump_forward_finds_all_that_became_due_and_looks_once() {
    let mut bench = Bench::new(&[site(1, &[(-1, 1), (2, 3), (4, 5)]), site(2, &[(-9, 90)])]);
    bench.step(0, 2);
    bench.step(10 * DAY + 2, 1);
    bench.step(10 * DAY + 3, 0);
    assert_eq!(bench.told(), ["s1 fallback_installed 1", "s1 certificate_expired 1"]);
}

#[test]
fn after_a_step_back_everything_is_looked_at() {
    let mut bench = Bench::new(&[site(1, &[(-1, 1)]), site(2, &[(-9, 90)])]);
    bench.step(2 * DAY, 2);
    bench.step(0, 2);
    assert_eq!(bench.told()[1..], ["s1 fallback_ended 1", "s1 certificate_expired 1"]);
    bench.step(1, 0);
    bench.step(2 * DAY, 1);
    assert_eq!(bench.told(), ["s1 fallback_installed 2", "s1 fallback_ended 1", "s1 certificate_expired 2"]);
}

#[test]
fn of_a_new_snapshot_only_the_changed_sites_are_looked_at() {
    let (one, two) = (site(1, &[(-1, 1)]), site(2, &[(-1, 1)]));
    let mut bench = Bench::new(&[Arc::clone(&one), Arc::clone(&two)]);
    bench.step(0, 2);
    bench.publish(&[Arc::clone(&one), Arc::clone(&two)]);
    bench.step(1, 0);
    bench.publish(&[one, site(2, &[(-9, 9)]), site(3, &[])]);
    bench.step(2, 2);
    bench.step(DAY + 1, 1);
    assert_eq!(bench.told(), ["s1 fallback_installed 1", "s1 certificate_expired 1", "s3 fallback_installed 1"]);
}

#[test]
fn a_site_that_is_gone_is_not_looked_at_and_remembered_when_it_is_back() {
    let (one, two) = (site(1, &[(-9, -1)]), site(2, &[(-1, 1)]));
    let mut bench = Bench::new(&[Arc::clone(&one), Arc::clone(&two)]);
    bench.step(0, 2);
    bench.publish(&[]);
    bench.step(DAY + 1, 0);
    assert!(bench.watch.due.is_empty());
    bench.publish(&[one, two]);
    bench.step(DAY + 2, 2);
    // Of what has been expired for a day somebody is reminded.
    let told = ["s1 fallback_installed 1", "s1 certificate_expired 2"];
    assert_eq!(bench.told(), [told, ["s2 fallback_installed 1", "s2 certificate_expired 1"]].concat());
}

#[test]
fn when_a_key_does_not_open_everything_is_looked_at() {
    let broken = site(1, &[(-9, 9)]);
    let mut bench = Bench::new(&[Arc::clone(&broken), site(2, &[(-9, 9)])]);
    bench.step(0, 2);
    broken.certificates.own().next().unwrap().open().unwrap_err();
    KEY_CHANGES.set(1);
    bench.step(1, 2);
    bench.step(2, 0);
    assert_eq!(bench.told(), ["s1 fallback_installed 1"]);
}

#[test]
fn files_that_end_are_told_at_each_threshold_and_after_the_end_each_day() {
    let mut bench = Bench::new(&[site_of_files(1, &[(-300, 40)]), site(2, &[(-1, 1)])]);
    bench.step(0, 2);
    assert!(bench.told().is_empty());
    for (passed, days) in [30, 14, 7, 3, 1].into_iter().enumerate() {
        // What has expired meanwhile is looked at, too.
        bench.watch.step(NOW.plus_secs((40 - days) * DAY), &bench.snapshot, &bench.alerts);
        assert_eq!(bench.count(AlertKind::CertificateExpiring), passed as u64);
        bench.watch.step(NOW.plus_secs((40 - days) * DAY + 1), &bench.snapshot, &bench.alerts);
        assert_eq!(bench.count(AlertKind::CertificateExpiring), passed as u64 + 1);
    }
    for day in 0..40 {
        bench.watch.step(NOW.plus_secs((40 + day) * DAY + 1), &bench.snapshot, &bench.alerts);
        assert_eq!(bench.count(AlertKind::CertificateExpired), 1 + day.min(30) as u64);
    }
    // Nothing is left to be looked at.
    assert!(bench.watch.due.is_empty());
}

#[test]
fn a_start_tells_the_last_threshold_once_and_a_fresh_file_ends_it() {
    let mut bench = Bench::new(&[site_of_files(1, &[(-300, 10)])]);
    bench.step(0, 1);
    bench.step(1, 0);
    assert_eq!(bench.told(), ["s1 certificate_expiring 1"]);
    // A successor that begins in time is what ends.
    bench.publish(&[site_of_files(1, &[(-300, 10), (5, 100)])]);
    bench.step(2, 1);
    bench.step(10 * DAY + 1, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 1"]);
}

#[test]
fn a_threshold_that_was_told_is_not_told_again_for_whatever_reason_it_is_looked_at() {
    let mut bench = Bench::new(&[site_of_files(1, &[(-300, 10)])]);
    bench.step(0, 1);
    // The site is another one, as after a reload.
    bench.publish(&[site_of_files(1, &[(-300, 10)])]);
    bench.step(1, 1);
    // Some key did not open.
    KEY_CHANGES.set(1);
    bench.step(2, 1);
    // The clock is set back, but not to where the threshold was not due yet.
    bench.step(-DAY, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 1"]);
    // Whoever starts anew remembers nothing, and tells what is due now, once: not the thresholds before it.
    bench.watch = Watch::new(|| KEY_CHANGES.get());
    bench.step(4 * DAY, 1);
    bench.step(4 * DAY + 1, 0);
    assert_eq!(bench.told(), ["s1 certificate_expiring 2"]);
    bench.step(7 * DAY + 1, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 3"]);
}

#[test]
fn a_clock_that_is_set_back_tells_nothing_and_what_is_due_later_again_in_its_second() {
    let mut bench = Bench::new(&[site_of_files(1, &[(-300, 10)])]);
    bench.step(4 * DAY, 1);
    bench.step(0, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 1"], "the threshold before was passed over");
    bench.step(3 * DAY, 0);
    bench.step(3 * DAY + 1, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 2"]);
}

#[test]
fn another_certificate_has_thresholds_of_its_own() {
    let mut bench = Bench::new(&[site_of_files(1, &[(-300, 2)])]);
    bench.step(0, 1);
    bench.publish(&[site_of_files(1, &[(-300, 10)])]);
    bench.step(1, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 2"], "an earlier threshold, of a later end");
}

#[test]
fn what_is_renewed_by_itself_is_told_only_when_it_is_late() {
    let mut bench = Bench::new(&[site(1, &[(-5, 1)]), site(2, &[(-60, 30)])]);
    // The first was to be renewed when three days were left, the second when thirty were.
    bench.step(0, 2);
    assert!(bench.told().is_empty());
    bench.step(1, 1);
    assert_eq!(bench.told(), ["s1 certificate_expiring 1"]);
    bench.watch.step(NOW.plus_secs(16 * DAY + 1), &bench.snapshot, &bench.alerts);
    assert_eq!(bench.told()[3], "s2 certificate_expiring 1", "{:?}", bench.told());
}

#[test]
fn it_says_what_is_left_and_where_the_file_is() {
    let ending = |site: &Site| Ending::of(site, NOW).unwrap().in_words(site, NOW);
    let files = ending(&site_of_files(1, &[(-300, 10)]));
    assert_eq!(
        files,
        "its own certificate expires at 2027-01-25T08:00:00Z, 10 days left: put a fresh one into /etc/certs/www.pem"
    );
    let managed = ending(&site(1, &[(-89, -1)]));
    assert!(managed.starts_with("its own certificate expired at 2027-01-14T08:00:00Z: "), "{managed}");
    assert!(managed.ends_with("`lockgate cert show s1.example.com` says why"), "{managed}");
}
