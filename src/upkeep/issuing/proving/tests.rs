//! Programs as providers, with resolvers that are asked for nothing but the zone.

use std::fs;
use std::path::Path;

use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::dns::{Failure as NoAnswer, LookupError, UpdateRefusal};
use crate::issuance::subject::Terms;
use crate::issuance::{DnsProvider, KeyAlgorithm, Method};
use crate::secret::SecretSource;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn terms(dns: Option<Arc<Dns>>) -> Arc<Terms> {
    let (authorities, challenge, key, profile) = (None, None, KeyAlgorithm::default(), None);
    let method = Method { authorities, challenge, dns, key, profile, standby: false };
    Arc::new(Terms { tenant: None, method: Arc::new(method), is_manual: false })
}

fn refused() -> DnsError {
    DnsError::Update {
        server: ([127, 0, 0, 1], 53).into(),
        zone: "a.test".into(),
        key_name: "key".into(),
        why: UpdateRefusal::Refused,
    }
}

fn lookup(failure: NoAnswer) -> DnsError {
    let record_type = hickory_resolver::proto::rr::RecordType::SOA;
    LookupError { name: "a.test".into(), record_type, server: None, failure }.into()
}

fn api_down() -> DnsError {
    DnsError::Api { provider: "desec", verb: "set", at: "_acme-challenge.a.test".into(), why: "503".into() }
}

fn not_seen() -> DnsError {
    DnsError::NotSeen { at: "_acme-challenge.a.test".into(), after: Duration::from_secs(1), lacking: vec![] }
}

/// `www` takes its parent along, and so does a wildcard: the record of its parent is the wildcard's own.
#[rstest]
#[case::its_zone_is_not_ours("www.a.test", refused(), true)]
#[case::no_zone("www.a.test", lookup(NoAnswer::NoZone), true)]
#[case::the_api_is_down("www.a.test", api_down(), false)]
#[case::it_comes_late("www.a.test", not_seen(), false)]
#[case::no_answer("www.a.test", lookup(NoAnswer::Silent(Duration::from_secs(5))), false)]
#[case::the_resolver_refuses("www.a.test", lookup(NoAnswer::Refused), false)]
#[case::no_secret("www.a.test", DnsError::Settings("no key".into()), false)]
#[case::at_the_wildcards_place("*.a.test", refused(), false)]
fn a_name_is_left_out_only_for_what_is_its_own(
    #[case] required: &str,
    #[case] error: DnsError,
    #[case] is_left_out: bool,
) {
    let subject = Subject::new(name(required), terms(None)).taking_along([name("a.test")]);
    assert_eq!(is_to_blame(&subject, &name("a.test"), &error), is_left_out);
}

#[rstest]
#[case::no_dns(None, 2, 1800)]
#[case::usual(Some((120, 60)), 2, 1800 + 120 + 2 * 60)]
#[case::slow(Some((3600, 600)), 100, 1800 + 3600 + 100 * 600)]
fn to_prove_control_may_take_as_long_as_the_configuration_allows(
    #[case] secs: Option<(u64, u64)>,
    #[case] names: usize,
    #[case] expected: u64,
) {
    let dns = secs.map(|(propagation, call)| {
        let provider = DnsProvider::Exec { command: vec![], timeout: Duration::from_secs(call) };
        let propagation_timeout = Duration::from_secs(propagation);
        Arc::new(Dns { provider, resolvers: vec![], propagation_timeout, ttl: Duration::from_secs(60) })
    });
    assert_eq!(patience(dns.as_ref(), names), Duration::from_secs(expected));
}

/// A program that writes down what it is called with, after doing `first`.
fn hook(dir: &TempDir, first: &str) -> Arc<Dns> {
    let path = dir.path().join("hook");
    fs::write(&path, format!("{first}\necho $1 $3 >> $0.calls\n")).unwrap();
    let command = vec!["sh".to_owned(), path.display().to_string()];
    let provider = DnsProvider::Exec { command, timeout: Duration::from_secs(20) };
    let resolvers = vec![([127, 0, 0, 1], 9).into()];
    Arc::new(Dns { provider, resolvers, propagation_timeout: Duration::from_secs(5), ttl: Duration::from_secs(60) })
}

fn calls(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("hook.calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn record(providers: &Providers, dns: &Arc<Dns>, value: &str) -> Arc<Record> {
    let records = providers.get(dns).await.unwrap();
    let at = "_acme-challenge.a.test".to_owned();
    let shown = Shown { name: at.clone(), at, zone: "a.test".into(), value: value.into() };
    let record = Arc::new(Record { records, shown, name: name("a.test") });
    providers.note(&record).await;
    record
}

fn on_show(records: &[Arc<Record>]) -> OnShow {
    OnShow { records: Arc::new(Mutex::new(records.to_vec())), ..OnShow::default() }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn what_could_not_be_cleared_is_tried_again_and_given_up_in_the_end() {
    const SHORT: &[Duration] = &[Duration::from_millis(1); 3];
    let dir = tempfile::tempdir().unwrap();
    let dns = hook(&dir, "test $1 = present || echo tried >> $0.calls; test ! -e $0.locked || exit 1");
    let providers = Arc::new(Providers::pausing(SHORT));
    let record = record(&providers, &dns, "v").await;
    record.records.set(&record.shown).await.unwrap();
    fs::write(dir.path().join("hook.locked"), "").unwrap();
    on_show(&[Arc::clone(&record)]).clear(&providers).await;
    eventually("it is given up", || providers.is_idle()).await;
    assert_eq!(calls(dir.path()), ["present v", "tried", "tried", "tried", "tried"], "once, and after each pause");

    record.records.set(&record.shown).await.unwrap_err();
    fs::remove_file(dir.path().join("hook.locked")).unwrap();
    // The first time, it is refused.
    fs::write(dir.path().join("hook"), "echo $1 >> $0.calls; test -e $0.again || { touch $0.again; exit 1; }").unwrap();
    on_show(&[record]).clear(&providers).await;
    eventually("it is cleared", || providers.is_idle()).await;
    assert_eq!(calls(dir.path())[5..], ["clear", "clear"], "and no more after that");
}

#[tokio::test]
async fn records_are_set_and_awaited_side_by_side() {
    // Who does not meet as many others waits for ever.
    let meeting = Arc::new(tokio::sync::Barrier::new(RECORDS_AT_ONCE));
    let work = |_| {
        let meeting = Arc::clone(&meeting);
        async move {
            meeting.wait().await;
            Ok(())
        }
    };
    let mut on_show = OnShow::default();
    let all = on_show.for_each(vec![(); 2 * RECORDS_AT_ONCE], work);
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap().unwrap();
    // One more would be too many at once.
    let more = on_show.for_each(vec![(); RECORDS_AT_ONCE + 1], |_| async move { std::future::pending().await });
    assert!(tokio::time::timeout(Duration::from_millis(50), more).await.is_err());
    assert_eq!(on_show.at_work.len(), RECORDS_AT_ONCE);
}

#[tokio::test]
async fn at_the_end_what_no_authority_was_told_of_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let (dns, providers) = (hook(&dir, ""), Arc::new(Providers::default()));
    let [told, untold] = [record(&providers, &dns, "told").await, record(&providers, &dns, "untold").await];
    for record in [&told, &untold] {
        record.records.set(&record.shown).await.unwrap();
    }
    providers.tell(std::slice::from_ref(&told)).await;
    providers.end().await;
    assert_eq!(calls(dir.path()), ["present told", "present untold", "clear untold"]);
    // Nothing is begun any more, and nobody told.
    let late = [untold];
    let telling = tokio::time::timeout(Duration::from_millis(50), providers.tell(&late));
    assert!(telling.await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(50), providers.note(&late[0])).await.is_err());
}

/// A secret that takes its time to be read keeps nobody waiting who needs none, and one that was read before the
/// configuration changed is used once.
#[tokio::test]
async fn secrets_are_read_beside_everything_else_and_anew_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let (providers, plain) = (Arc::new(Providers::default()), hook(&dir, ""));
    let key = dir.path().join("key");
    fs::write(&key, "c2VjcmV0").unwrap();
    let provider = DnsProvider::Rfc2136 {
        server: ([127, 0, 0, 1], 9).into(),
        key_name: "key".into(),
        key_algorithm: "hmac-sha256".into(),
        key: SecretSource::File(key),
    };
    let signed = Arc::new(Dns { provider, ..(*plain).clone() });
    let first = providers.get(&signed).await.unwrap();
    assert!(Arc::ptr_eq(&first, &providers.get(&Arc::new((*signed).clone())).await.unwrap()), "opened once");
    providers.close();
    assert!(!Arc::ptr_eq(&first, &providers.get(&signed).await.unwrap()), "and anew after a change");

    providers.close();
    // Polled once, it has begun to read; then everything is forgotten.
    let mut reading = Box::pin(providers.get(&signed));
    tokio::select! {
        biased;
        early = &mut reading => drop(early.unwrap()),
        () = std::future::ready(()) => {
            providers.close();
            let before = reading.await.unwrap();
            let after = providers.get(&signed).await.unwrap();
            assert!(!Arc::ptr_eq(&before, &after), "what was read before is not kept");
        }
    }
}
