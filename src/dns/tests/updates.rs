//! Dynamic updates, and whether everybody sees them.

use rstest::rstest;

use super::*;
use crate::clock::{self, UnixTime};

#[rstest]
#[tokio::test]
async fn every_algorithm_signs(#[values(0, 1, 2, 3, 4)] i: usize) {
    let (named, algorithm) = (named().await, TSIG_ALGORITHMS[i]);
    let records = open(&update(named.address, &format!("key-{algorithm}"), algorithm));
    let shown = records.present(CHALLENGE, "value").await.unwrap();
    assert_eq!(named.txt(CHALLENGE).await, ["value"]);
    records.clear(&shown).await.unwrap();
    assert!(named.txt(CHALLENGE).await.is_empty());
}

#[tokio::test]
async fn values_stand_beside_each_other_and_go_one_by_one() {
    let named = named().await;
    let records = Arc::new(records(&named));
    let existing = records.present("txt.example.test", "three").await.unwrap();
    assert_eq!(named.txt("txt.example.test").await, ["one and one", "three", "two"]);
    records.clear(&existing).await.unwrap();
    records.clear(&existing).await.unwrap();
    assert_eq!(named.txt("txt.example.test").await, ["one and one", "two"]);

    let many = (0..10).map(|i| {
        let records = Arc::clone(&records);
        tokio::spawn(async move { records.present(CHALLENGE, &format!("value {i}")).await.unwrap() })
    });
    let mut shown = vec![];
    for one in many.collect::<Vec<_>>() {
        shown.push(one.await.unwrap());
    }
    assert_eq!(named.txt(CHALLENGE).await.len(), 10);
    records.seen(&shown[3]).await.unwrap();
    records.clear(&shown[3]).await.unwrap();
    let left = named.txt(CHALLENGE).await;
    assert!(left.len() == 9 && !left.contains(&"value 3".to_owned()), "{left:?}");
}

#[tokio::test]
async fn who_clears_leaves_what_another_shows_too() {
    let named = named().await;
    let records = records(&named);
    let first = records.present(CHALLENGE, "same").await.unwrap();
    let second = records.present(CHALLENGE, "same").await.unwrap();
    records.clear(&first).await.unwrap();
    assert_eq!(named.txt(CHALLENGE).await, ["same"]);
    records.clear(&second).await.unwrap();
    assert!(named.txt(CHALLENGE).await.is_empty());
    // After a restart, nobody remembers that it was shown.
    records.present(CHALLENGE, "same").await.unwrap();
    super::records(&named).sweep(&second).await.unwrap();
    assert!(named.txt(CHALLENGE).await.is_empty());
}

#[rstest]
#[case::delegated("_acme-challenge.delegated.example.test", "_acme-challenge.delegated.other.test", "other.test")]
#[case::twice("_acme-challenge.twice.example.test", "_acme-challenge.delegated.other.test", "other.test")]
#[case::not_a_wildcard("_acme-challenge.a.wild.example.test", "_acme-challenge.a.wild.example.test", "example.test")]
#[case::deep("_acme-challenge.a.b.c.d.example.test", "_acme-challenge.a.b.c.d.example.test", "example.test")]
#[case::apex("_acme-challenge.example.test", "_acme-challenge.example.test", "example.test")]
#[tokio::test]
async fn a_record_goes_where_the_authority_looks(#[case] name: &str, #[case] at: &str, #[case] zone: &str) {
    let named = named().await;
    let records = records(&named);
    let shown = records.present(name, "value").await.unwrap();
    assert_eq!((&*shown.name, &*shown.at, &*shown.zone), (name, at, zone));
    assert_eq!(named.txt(name).await, ["value"], "through the aliases, as the authority asks");
    records.seen(&shown).await.unwrap();
    records.clear(&shown).await.unwrap();
    assert!(named.txt(at).await.is_empty());
}

#[rstest]
#[case::wrong_name("nobody", "hmac-sha256", SECRET, "does not know a key `nobody` for hmac-sha256 (BADKEY)")]
#[case::wrong_algorithm(
    "key-hmac-sha256",
    "hmac-sha512",
    SECRET,
    "does not know a key `key-hmac-sha256` for hmac-sha512"
)]
#[case::wrong_secret("key-hmac-sha256", "hmac-sha256", "YW5vdGhlciBzZWNyZXQ=", "with another secret (BADSIG)")]
#[case::not_allowed(
    "stranger",
    "hmac-sha256",
    SECRET,
    "(REFUSED): is the key `stranger` allowed to update TXT records of example.test?"
)]
#[tokio::test]
async fn a_key_that_does_not_fit_is_explained(
    #[case] name: &str,
    #[case] algorithm: &str,
    #[case] secret: &str,
    #[case] expected: &str,
) {
    let named = named().await;
    let records = open_with(&update(named.address, name, algorithm), secret).unwrap();
    let error = records.present(CHALLENGE, "value").await.unwrap_err();
    // Another key would do, but for what this one may not change.
    assert_eq!((error.is_of_name(), error.leaves_doubt()), (name == "stranger", false), "{error}");
    check::<()>(Err(error), expected);
    assert!(named.txt(CHALLENGE).await.is_empty());
}

#[rstest]
#[case::ours_is_behind(-3600, "s ahead of ours; set the wrong one right")]
#[case::ours_is_ahead(3600, "s behind ours")]
#[tokio::test]
async fn a_clock_that_is_wrong_is_named(#[case] by_secs: i64, #[case] expected: &str) {
    let named = named().await;
    let now: fn() -> UnixTime =
        if by_secs < 0 { || clock::now().plus_secs(-3600) } else { || clock::now().plus_secs(3600) };
    let error = records(&named).with_clock(now).present(CHALLENGE, "value").await.unwrap_err();
    let DnsError::Update { why: UpdateRefusal::WrongTime { ahead_secs: Some(ahead_secs) }, .. } = &error else {
        panic!("{error}")
    };
    assert!((ahead_secs + by_secs).abs() <= 5, "{ahead_secs}");
    check::<()>(Err(error), expected);
}

#[tokio::test]
async fn a_server_that_does_not_hold_the_zone_is_told_from_one_that_refuses() {
    let (world, primary) = tokio::join!(named(), named());
    let dns = update(primary.address, "key-hmac-sha256", "hmac-sha256");
    let shown = Shown {
        name: "_acme-challenge.elsewhere.test".into(),
        at: "_acme-challenge.elsewhere.test".into(),
        zone: "elsewhere.test".into(),
        value: "value".into(),
    };
    let records = open(&dns).in_a_world_of(&[world.address], 53);
    check(
        records.sweep(&shown).await,
        "does not hold the zone elsewhere.test (NOTAUTH): `server` must be the zone's primary",
    );
    let inside_out = Shown { zone: "example.test".into(), ..shown };
    check(
        records.sweep(&inside_out).await,
        "_acme-challenge.elsewhere.test. is not in the zone example.test (NOTZONE)",
    );
    check(records.present("_acme-challenge.elsewhere.test", "value").await, "refused to answer (REFUSED)");
    let records = open(&update(primary.address, "key-hmac-sha256", "hmac-sha256"));
    check(records.present("round.example.test", "value").await, "too many CNAMEs");
}

#[tokio::test]
async fn a_server_that_is_down_is_told_from_one_that_hangs() {
    let named = named().await;
    let down = closed_port();
    let records = open(&update(down, "key", "hmac-sha256")).in_a_world_of(&[named.address], 53);
    let began = Instant::now();
    let error = records.present(CHALLENGE, "value").await;
    check(error, &format!("nobody listens there (connection refused) (asked {down})"));
    assert!(began.elapsed() < Duration::from_secs(1));

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let records = open(&update(address, "key", "hmac-sha256")).in_a_world_of(&[named.address], 53);
    check(records.present(CHALLENGE, "value").await, "no answer within 5s");
}

#[tokio::test]
async fn an_answer_without_a_signature_proves_nothing() {
    let liar = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = liar.local_addr().unwrap();
    let lying = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = liar.accept().await.unwrap();
        let mut request = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut request).await.unwrap();
        // The same identifier, an answer to an update, no error, nothing in it.
        let answer = [0, 12, request[0], request[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stream.write_all(&answer).await.unwrap();
    });
    let records = open(&update(address, "key", "hmac-sha256"));
    let (name, zone, value) = (CHALLENGE.to_owned(), "example.test".to_owned(), "value".to_owned());
    let shown = Shown { at: name.clone(), name, zone, value };
    check(records.sweep(&shown).await, "is not signed with the key `key` (it has no signature)");
    lying.await.unwrap();
}

#[tokio::test]
async fn who_does_not_have_a_record_is_named() {
    let named = named().await;
    let mut dns = update(named.address, "key-hmac-sha256", "hmac-sha256");
    dns.propagation_timeout = Duration::from_millis(700);
    let records = open(&dns).in_a_world_of(&[named.address], named.address.port());
    let shown = records.present("_acme-challenge.split.test", "value").await.unwrap();
    let error = records.seen(&shown).await.unwrap_err();
    let DnsError::NotSeen { lacking, .. } = &error else { panic!("{error}") };
    let servers: Vec<_> = lacking.iter().map(|lacking| &*lacking.server).collect();
    assert_eq!(servers, ["ns2.split.test", "ns3.example.test"], "{error}");
    check::<()>(Err(error), "ns3.example.test: it has no address: is the delegation right?");

    let other = Shown { value: "another".into(), ..shown };
    let error = records.seen(&other).await;
    check(error, &format!("ns1.split.test ({}): one other value there", named.address));
    let nowhere = Shown { at: "_acme-challenge.nowhere.split.test".into(), ..other };
    check(records.seen(&nowhere).await, "no TXT record there");
}

/// The zone's first name server has the record, the second does not exist, and the third has no address.
#[tokio::test]
async fn name_servers_that_do_not_answer_are_passed_over() {
    let named = named().await;
    let records = records(&named).with_silence_of(Duration::from_millis(1500));
    let shown = records.present("_acme-challenge.split.test", "value").await.unwrap();
    records.seen(&shown).await.unwrap();
    // Those that answer must all have it, and one at least.
    let other = Shown { value: "another".into(), ..shown };
    let began = Instant::now();
    let error = records.wait_until_seen(&other, tokio::time::Instant::now() + Duration::from_secs(2)).await;
    check(error, "one other value there");
    assert!(began.elapsed() >= Duration::from_secs(2), "it may come as long as there is time");
}

#[tokio::test]
async fn if_no_name_server_answers_it_is_not_seen() {
    let (named, nobody) = (named().await, closed_port());
    let records = records(&named).with_silence_of(Duration::from_millis(300));
    let shown = records.present("_acme-challenge.split.test", "value").await.unwrap();
    let records = records.with_zones_at(nobody.port());
    let error =
        records.wait_until_seen(&shown, tokio::time::Instant::now() + Duration::from_secs(3)).await.unwrap_err();
    let DnsError::NotSeen { lacking, .. } = &error else { panic!("{error}") };
    assert_eq!(lacking.len(), 3, "{error}");
    assert_eq!(error.advice(), "see that these name servers can be asked from here, or write others as `resolvers`");
}

#[tokio::test]
async fn a_record_that_comes_late_is_seen() {
    let named = named().await;
    let records = Arc::new(records(&named));
    let (name, zone, value) = (CHALLENGE.to_owned(), "example.test".to_owned(), "late".to_owned());
    let late = Shown { at: name.clone(), name, zone, value };
    let waiting = tokio::spawn({
        let records = Arc::clone(&records);
        async move { records.seen(&late).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it was not there yet");
    records.present(CHALLENGE, "late").await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn resolvers_that_are_named_are_the_ones_that_are_asked() {
    let (named, other) = tokio::join!(named(), named());
    let mut dns = update(named.address, "key-hmac-sha256", "hmac-sha256");
    dns.propagation_timeout = Duration::from_millis(500);
    dns.resolvers = vec![named.address, other.address];
    let records = open(&dns);
    let shown = records.present(CHALLENGE, "value").await.unwrap();
    let error = records.seen(&shown).await.unwrap_err();
    let DnsError::NotSeen { lacking, .. } = &error else { panic!("{error}") };
    assert_eq!(lacking.iter().map(|lacking| lacking.address).collect::<Vec<_>>(), [Some(other.address)]);
    check::<()>(Err(error), &format!("do not have it: {}: no TXT record there", other.address));
}

#[rstest]
#[case::algorithm("hmac-md5", SECRET, "the key algorithm `hmac-md5` is none of hmac-sha256")]
#[case::secret("hmac-sha256", "not base64!", "the secret of the key `key` is not base64")]
#[case::empty("hmac-sha256", "", "the secret of the key `key` is empty")]
fn a_key_that_cannot_be_one_is_refused_at_once(#[case] algorithm: &str, #[case] secret: &str, #[case] expected: &str) {
    let dns = update(closed_port(), "key", algorithm);
    check(open_with(&dns, secret).map(|_| ()), expected);
}
