//! What an authority may do wrong, and what becomes of it.

use rstest::rstest;
use serde_json::json;

use super::ErrorKind::{
    AccountGone, BadNonce, Caa, Connection, Nonsense, RateLimited, Refused, Timeout, Unauthorized, Unreachable,
};
use super::fake::{Fake, Reply, but, problem, says};
use super::*;
use crate::certificate::fixture::pair;
use crate::issuance::{Challenge, KeyAlgorithm};

const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(2),
    max_body_bytes: 64 * 1024,
};

/// With a new account.
async fn enter(authority: &Authority) -> Result<Account, AcmeError> {
    Account::register_within(authority, &account_key().unwrap(), None, LIMITS).await
}

/// All the way from the directory to the certificate.
async fn walk(fake: &Fake) -> Result<(), AcmeError> {
    let account = enter(&fake.authority()).await?;
    let names = names(&["www.example.com"]);
    let mut order = account.order(&names, None, None).await?;
    let request = request(&names, KeyAlgorithm::EcdsaP256).await?;
    issue(&mut order, &request).await.map(|_| ())
}

/// The way ends with this kind of error, and its words hold these.
async fn check(script: &[(&str, &[Reply])], kind: ErrorKind, words: &str) -> AcmeError {
    let fake = Fake::start(script).await;
    let error = walk(&fake).await.expect_err("the way ended well");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.problem().contains(words), "{error}");
    assert!(!error.advice().is_empty());
    assert!(error.problem().len() <= 4000 && !error.problem().contains(char::is_control), "{error}");
    error
}

#[tokio::test]
async fn a_good_authority_issues() {
    walk(&Fake::start(&[]).await).await.unwrap();
    let odd_nonce = Reply::But(json!({}), vec![("replay-nonce", "\"\\ \u{e9}")]);
    walk(&Fake::start(&[("/nonce", &[odd_nonce])]).await).await.unwrap();
}

const JSON: &str = "not understood";

#[rstest]
#[case::no_json("/dir", says(200, "<html>hello</html>"), Nonsense, JSON)]
#[case::no_directory("/dir", says(200, "{}"), Nonsense, "newNonce")]
#[case::deep("/dir", says(200, &"[".repeat(60_000)), Nonsense, JSON)]
#[case::no_url("/dir", but(json!({"newNonce": "not a URL \u{7f}"})), Nonsense, "newNonce")]
#[case::plain("/dir", but(json!({"newOrder": "http://127.0.0.1/order"})), Nonsense, "newOrder")]
#[case::empty_url("/dir", but(json!({"newAccount": ""})), Nonsense, "newAccount")]
#[case::endless("/dir", Reply::Endless, Nonsense, "larger than 65536")]
#[case::never("/dir", Reply::Never, Timeout, "no whole answer")]
#[case::elsewhere("/dir", Reply::Says(302, vec![("location", "https://localhost:1/dir".into())], "".into()), Nonsense, "redirect")]
#[case::downgrade("/dir", Reply::Says(302, vec![("location", "http://127.0.0.1/dir".into())], "".into()), Nonsense, "redirect")]
#[case::trouble("/dir", says(503, "<html>"), Unreachable, "503")]
#[case::too_often("/dir", says(429, ""), RateLimited, "429")]
#[case::no_nonce("/nonce", Reply::But(json!({}), vec![("replay-nonce", "")]), Nonsense, "nonce")]
#[case::nonce_trouble("/nonce", says(500, ""), Unreachable, "500")]
#[case::nonce_never("/nonce", Reply::Never, Timeout, "")]
#[case::nameless_account("/account", Reply::But(json!({}), vec![("location", "")]), Nonsense, "account URL")]
#[case::refused_in_html("/account", says(403, "<html>"), Nonsense, JSON)]
#[case::nameless_order("/order", Reply::But(json!({}), vec![("location", "")]), Nonsense, "order URL")]
#[case::order_somewhere("/order", Reply::But(json!({}), vec![("location", "http://127.0.0.1/x")]), Nonsense, "https")]
#[case::order_at_no_url("/order", Reply::But(json!({}), vec![("location", "::")]), Nonsense, "")]
#[case::half_an_order("/order", says(201, r#"{"status": "pending"}"#), Nonsense, "")]
#[case::odd_status("/order", but(json!({"status": "asleep"})), Nonsense, "asleep")]
#[case::very_many("/order", but(json!({"authorizations": vec![""; 300]})), Nonsense, "300 proofs")]
#[case::endless_order("/order", Reply::Endless, Nonsense, "larger")]
#[case::empty_refusal("/order", says(400, "{}"), Refused, "without a reason")]
#[case::odd_refusal("/order", says(400, "[]"), Nonsense, "")]
#[case::proof_at_no_url("/order", but(json!({"authorizations": [" "]})), Nonsense, "")]
#[case::not_a_name("/authorization", but(json!({"identifier": {"type": "dns", "value": "a b"}})), Nonsense, "no name")]
#[case::another_name("/authorization", but(json!({"identifier": {"type": "dns", "value": "example.com"}})), Nonsense, "not ordered")]
#[case::another_wildcard("/authorization", but(json!({"wildcard": true, "identifier": {"type": "dns", "value": "example.com"}})), Nonsense, "not ordered")]
#[case::not_a_kind("/authorization", but(json!({"identifier": {"type": "face", "value": "?"}})), Nonsense, "face")]
#[case::no_challenge("/authorization", but(json!({"challenges": []})), Nonsense, "no challenge")]
#[case::odd_challenge("/authorization", but(json!({"challenges": [{"type": "dance-01", "url": "", "status": "pending"}]})), Nonsense, "no challenge")]
#[case::escaping_token("/authorization", but(json!({"challenges":
    [{"type": "http-01", "url": "BASE/challenge", "status": "pending", "token": "../../a"}]})), Nonsense, "no challenge")]
#[case::silent_failure("/authorization", but(json!({"status": "expired"})), Unauthorized, "expired")]
#[case::challenge_refused("/challenge", problem(400, "malformed", "no"), Refused, "no (urn")]
#[case::invalid_order("/order/1", but(json!({"status": "invalid"})), Refused, "no reason")]
#[case::invalid_for_a_reason("/order/1", but(json!({"status": "invalid",
    "error": {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids"}})), Caa, "CAA forbids")]
#[case::wait_for_ever("/order/1", Reply::But(json!({"status": "pending"}), vec![("retry-after", "18446744073709551615")]), Timeout, "not checked")]
#[case::finalize_refused(
    "/finalize",
    problem(400, "badCSR", "weak key"),
    Refused,
    "weak key (urn:ietf:params:acme:error:badCSR)"
)]
#[case::finalized_invalid("/finalize", but(json!({"status": "invalid"})), Refused, "")]
#[case::no_certificate_url("/finalize", but(json!({"status": "valid", "certificate": null})), Nonsense, "certificate URL")]
#[case::no_pem("/certificate", says(200, "-----BEGIN CERTIFICATE-----\nnonsense"), Nonsense, "no PEM")]
#[case::no_x509(
    "/certificate",
    says(200, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    Nonsense,
    "X.509"
)]
#[case::empty_chain("/certificate", says(200, ""), Nonsense, "no certificate")]
#[case::endless_chain("/certificate", Reply::Endless, Nonsense, "larger")]
#[case::long_chain("/certificate", says(200, &pair(&["www.example.com"]).pem().cert.repeat(33)), Nonsense, "more than 32")]
#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_error(
    #[case] path: &str,
    #[case] reply: Reply,
    #[case] kind: ErrorKind,
    #[case] words: &str,
) {
    check(&[(path, &[reply])], kind, words).await;
}

#[rstest]
#[case("accountDoesNotExist", AccountGone, "new account")]
#[case("badCSR", Refused, "authority says")]
#[case("badNonce", BadNonce, "")]
#[case("caa", Caa, "0 issue \"ca.example\"")]
#[case("connection", Connection, "ports 80 and 443")]
#[case("dns", ErrorKind::Dns, "name servers")]
#[case("externalAccountRequired", ErrorKind::ExternalAccountRequired, "eab")]
#[case("incorrectResponse", Unauthorized, "A and AAAA")]
#[case("invalidContact", ErrorKind::InvalidContact, "email")]
#[case("unsupportedContact", ErrorKind::InvalidContact, "email")]
#[case("invalidProfile", ErrorKind::InvalidProfile, "profile")]
#[case("malformed", Refused, "")]
#[case("orderNotFound", ErrorKind::Gone, "anew")]
#[case("rateLimited", RateLimited, "[[acme.ca]]")]
#[case("rejectedIdentifier", ErrorKind::RejectedIdentifier, "public name")]
#[case("serverInternal", Unreachable, "")]
#[case("tls", ErrorKind::Tls, "port 443")]
#[case("unauthorized", Unauthorized, "")]
#[case("unsupportedIdentifier", ErrorKind::UnsupportedIdentifier, "another authority")]
#[case("userActionRequired", ErrorKind::UserActionRequired, "terms")]
#[case("never-heard-of", Refused, "")]
#[tokio::test]
async fn each_type_of_problem_has_its_advice(#[case] of: &str, #[case] kind: ErrorKind, #[case] advice: &str) {
    let detail = "so it is\u{7}\u{1b}[31m";
    let replies: Vec<Reply> = (0..40).map(|_| problem(400, of, detail)).collect();
    let error = check(&[("/order", &replies)], kind, &format!("so it is[31m (urn:ietf:params:acme:error:{of})")).await;
    assert!(error.advice().contains(advice), "{}", error.advice());
}

#[tokio::test]
async fn a_problem_is_repeated_with_its_parts_and_not_endlessly() {
    let part = |kind: &str, name: &str| json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no", "identifier": {"type": "dns", "value": name}});
    let of = |kind: &str, parts: Vec<serde_json::Value>| {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        says(400, &json!({"type": kind, "detail": "all of it", "subproblems": parts}).to_string())
    };
    let parts = vec![part("rejectedIdentifier", "a.example.com"), part("caa", "b.example.com")];
    let words = "; a.example.com: no (urn:ietf:params:acme:error:rejectedIdentifier); b.example.com: no (urn";
    for kind in ["compound", "malformed"] {
        let error = check(&[("/order", &[of(kind, parts.clone())])], ErrorKind::RejectedIdentifier, words).await;
        assert_eq!(error.name(), Some("a.example.com"));
        assert!(error.advice().contains("a.example.com"));
    }
    let many = vec![part("caa", "b.example.com"); 500];
    let error = check(&[("/order", &[of("compound", many)])], Caa, "all of it").await;
    assert_eq!(error.problem().chars().count(), 1000);
}

#[rstest]
#[case::seconds("120", "", Some(120))]
#[case::date("Sun, 06 Nov 1994 08:51:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", Some(120))]
#[case::too_long("99999999", "", Some(604_800))]
#[case::nothing("", "", None)]
#[tokio::test]
async fn it_is_known_when_to_come_back(#[case] after: &str, #[case] date: &str, #[case] secs: Option<u64>) {
    let fields = [("retry-after", after), ("date", date)].into_iter().filter(|(_, value)| !value.is_empty());
    let fields = fields.map(|(name, value)| (name, value.to_owned())).collect();
    let body = json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}).to_string();
    let error = check(&[("/order", &[Reply::Says(429, fields, body)])], RateLimited, "too many").await;
    assert_eq!(error.retry_after(), secs.map(Duration::from_secs));
}

#[rstest]
#[case(10, true)]
#[case(14, true)]
#[case(15, false)]
#[tokio::test]
async fn bad_nonces_are_borne_for_a_while(#[case] times: usize, #[case] good: bool) {
    let replies: Vec<Reply> = (0..times).map(|_| problem(400, "badNonce", "try again")).collect();
    let fake = Fake::start(&[("/challenge", &replies)]).await;
    let walked = walk(&fake).await;
    assert_eq!(walked.is_ok(), good, "{walked:?}");
    assert_eq!(walked.err().map(|error| error.kind()), (!good).then_some(BadNonce));
    assert_eq!(fake.signed("/challenge").len(), (times + 1).min(15));
}

#[tokio::test]
async fn a_proof_that_failed_is_told_with_name_challenge_and_reason() {
    let failed = but(json!({"status": "invalid", "challenges": [{"type": "http-01", "url": "BASE/challenge",
        "token": "dG9rZW4", "status": "invalid", "error": {"type": "urn:ietf:params:acme:error:connection",
        "detail": "Timeout during connect"}}]}));
    let still_pending = vec![but(json!({"status": "pending"})); 4];
    // The order stays pending, as with some authorities, or says so.
    for order in [still_pending, vec![but(json!({"status": "invalid"}))]] {
        let script: [(&str, &[Reply]); 2] = [("/order/1", &order), ("/authorization", &[Reply::Well, failed.clone()])];
        let error = check(&script, Connection, "Timeout during connect").await;
        assert_eq!((error.name(), error.challenge()), (Some("www.example.com"), Some(Challenge::Http01)));
        assert!(error.advice().contains("port 80 ") && error.advice().contains("www.example.com"));
    }
}

/// What an order or a proof is invalid for may be trouble that passes: the order does not come back.
#[tokio::test]
async fn what_made_an_order_invalid_ends_it_whatever_it_was() {
    let trouble = || json!({"type": "urn:ietf:params:acme:error:serverInternal", "detail": "out of paper"});
    let order = but(json!({"status": "invalid", "error": trouble()}));
    let proof = but(json!({"status": "invalid", "challenges": [{"type": "http-01", "url": "BASE/challenge",
        "token": "dG9rZW4", "status": "invalid", "error": trouble()}]}));
    for (path, reply) in [("/order/1", order), ("/authorization", proof)] {
        assert!(check(&[(path, &[reply])], Unreachable, "out of paper").await.is_order_over(), "{path}");
        assert!(!check(&[(path, &vec![says(503, "<html>"); 9])], Unreachable, "503").await.is_order_over(), "{path}");
    }
}

/// The order stays pending, so that its proofs are looked at with every fourth look.
#[tokio::test]
async fn a_moment_of_trouble_among_many_looks_at_proofs_is_waited_through() {
    let pending = vec![but(json!({"status": "pending"})); 4];
    let fake = Fake::start(&[("/order/1", &pending), ("/authorization", &[Reply::Well, says(503, "<html>")])]).await;
    walk(&fake).await.unwrap();
    assert_eq!(fake.signed("/authorization").len(), 2);
}

#[tokio::test]
async fn moments_of_trouble_are_waited_through() {
    let early = || problem(403, "orderNotReady", "not yet");
    let fake = Fake::start(&[
        ("/order/1", &[but(json!({"status": "pending"})), says(503, ""), Reply::Well]),
        ("/finalize", &[early(), early()]),
    ])
    .await;
    walk(&fake).await.unwrap();
    assert_eq!(fake.signed("/challenge").len(), 1);
    assert_eq!(fake.signed("/finalize").len(), 3);
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_not_repeated() {
    let processing = but(json!({"status": "processing"}));
    let fake = Fake::start(&[
        ("/finalize", &[says(502, "")]),
        (
            "/order/1",
            &[
                Reply::Well,
                processing,
                but(json!({
            "status": "valid", "certificate": "BASE/certificate"})),
            ],
        ),
    ])
    .await;
    walk(&fake).await.unwrap();
    assert_eq!(fake.signed("/finalize").len(), 1);
}

#[rstest]
#[case::replaced_before(problem(409, "alreadyReplaced", "it was"))]
#[case::unknown_there(problem(404, "malformed", "no order for the given certificate"))]
#[case::of_another_account(problem(
    403,
    "unauthorized",
    "requester account did not request the certificate being replaced"
))]
#[case::of_other_names(problem(400, "malformed", "at least one identifier must be the same"))]
#[case::in_html(says(400, "<html>"))]
#[case::not_repeated(Reply::Well)]
#[tokio::test]
async fn what_is_replaced_is_left_out_if_the_authority_minds(#[case] reply: Reply) {
    let fake = Fake::start(&[("/order", &[reply])]).await;
    let account = enter(&fake.authority()).await.unwrap();
    let (pair, _) = replaceable();
    let order = account.order(&names(&["www.example.com"]), Some("short"), Some(&pair)).await.unwrap();
    assert!(order.url().ends_with("/order/1"));
    let orders = fake.signed("/order");
    assert_eq!(orders.iter().map(|it| it["replaces"].is_string()).collect::<Vec<_>>(), [true, false]);
    assert!(orders.iter().all(|it| it["profile"] == "short" && it["identifiers"][0]["value"] == "www.example.com"));
}

#[rstest]
#[case::too_many(problem(429, "rateLimited", "too many"), RateLimited)]
#[case::no_account(problem(400, "accountDoesNotExist", "who?"), AccountGone)]
#[case::new_terms(problem(403, "userActionRequired", "agree"), ErrorKind::UserActionRequired)]
#[case::trouble(problem(500, "serverInternal", "out of paper"), Unreachable)]
#[tokio::test]
async fn other_refusals_of_a_replacement_are_final(#[case] reply: Reply, #[case] kind: ErrorKind) {
    let fake = Fake::start(&[("/order", &[reply])]).await;
    let account = enter(&fake.authority()).await.unwrap();
    let error = account.order(&names(&["www.example.com"]), None, Some(&replaceable().0)).await.unwrap_err();
    assert_eq!((error.kind(), fake.signed("/order").len()), (kind, 1));
}

#[tokio::test]
async fn an_order_that_is_refused_whatever_it_replaces_is_refused() {
    let refused = || problem(403, "rejectedIdentifier", "not for you");
    let fake = Fake::start(&[("/order", &[refused(), refused()])]).await;
    let account = enter(&fake.authority()).await.unwrap();
    let error = account.order(&names(&["www.example.com"]), None, Some(&replaceable().0)).await.unwrap_err();
    assert_eq!((error.kind(), fake.signed("/order").len()), (ErrorKind::RejectedIdentifier, 2));
}

#[tokio::test]
async fn a_profile_that_is_not_offered_is_not_asked_for() {
    let fake = Fake::start(&[]).await;
    let account = enter(&fake.authority()).await.unwrap();
    let of = |(name, description): (&str, &str)| (name.to_owned(), description.to_owned());
    assert_eq!(account.profiles(), [("classic", "as ever"), ("short", "a week")].map(of));
    let error = account.order(&names(&["www.example.com"]), Some("long"), None).await.unwrap_err();
    assert_eq!((error.kind(), fake.signed("/order").len()), (ErrorKind::InvalidProfile, 0));
    assert!(error.problem().contains("classic, short"), "{error}");
}

fn replaceable() -> (CertificateDer<'static>, String) {
    let (pair, path) = renewable();
    (pair.parse().chain().remove(0), path)
}

#[rstest]
#[case::well(Reply::Well, Ok(3600))]
#[case::not_said_when(Reply::But(json!({}), vec![("retry-after", "")]), Ok(6 * 3600))]
#[case::at_once(Reply::But(json!({}), vec![("retry-after", "0")]), Ok(60))]
#[case::never(Reply::But(json!({}), vec![("retry-after", "18446744073709551615")]), Ok(24 * 3600))]
#[case::backwards(but(json!({"suggestedWindow": {"start": "2030-01-02T00:00:00Z", "end": "2030-01-01T00:00:00Z"}})), Err(Nonsense))]
#[case::no_date(but(json!({"suggestedWindow": {"start": "soon", "end": "later"}})), Err(Nonsense))]
#[case::garbage(says(200, "<html>"), Err(Nonsense))]
#[case::refused(problem(400, "malformed", "no such certificate"), Err(Refused))]
#[case::trouble(says(503, "<html>"), Err(Unreachable))]
#[tokio::test]
async fn the_authority_says_when_to_renew(#[case] reply: Reply, #[case] expected: Result<u64, ErrorKind>) {
    let (leaf, path) = replaceable();
    let fake = Fake::start(&[(path.as_str(), &[reply])]).await;
    let account = enter(&fake.authority()).await.unwrap();
    let asked = account.renewal_window(&leaf).await.map_err(|error| error.kind());
    let window = Window { start: UnixTime::from_secs(1_893_456_000), end: UnixTime::from_secs(1_893_538_800) };
    assert_eq!(asked, expected.map(|secs| Some((window, Duration::from_secs(secs)))));
    // One that does not name its issuer's key has no renewal information.
    let plain = issued::chain(pair(&["www.example.com"]).pem().cert.as_bytes()).unwrap();
    assert_eq!(account.renewal_window(&plain[0]).await.unwrap(), None);
}

#[tokio::test]
async fn renewal_information_that_is_not_there_is_told_apart_from_none() {
    let (leaf, path) = replaceable();
    let fake = Fake::start(&[(path.as_str(), &[problem(404, "malformed", "no such certificate")])]).await;
    let account = enter(&fake.authority()).await.unwrap();
    assert!(account.renewal_window(&leaf).await.unwrap_err().is_not_found());
    let fake = Fake::start(&[("/dir", &vec![but(json!({"renewalInfo": null})); 2])]).await;
    assert_eq!(enter(&fake.authority()).await.unwrap().renewal_window(&leaf).await.unwrap(), None);
}

#[tokio::test]
async fn redirections_end() {
    let to = |path: &str| Reply::Says(302, vec![("location", path.to_owned())], String::new());
    check(&[("/dir", &vec![to("/dir"); 10])], Nonsense, "redirect").await;
    // Three are followed.
    let script: [(&str, &[Reply]); 1] = [("/dir", &[to("/dir"), to("/dir"), to("/dir")])];
    walk(&Fake::start(&script).await).await.unwrap();
}

#[rstest]
#[case::plain("http://127.0.0.1:1/dir", Nonsense, "not an https:// URL")]
#[case::no_url("directory", Nonsense, "not an https:// URL")]
#[case::empty("", Nonsense, "not an https:// URL")]
#[case::spaces("https://a b/", Nonsense, "")]
#[case::nobody_there("https://127.0.0.1:1/dir", Unreachable, "refused")]
#[tokio::test]
async fn a_directory_that_leads_nowhere_is_an_error(
    #[case] directory: &str,
    #[case] kind: ErrorKind,
    #[case] words: &str,
) {
    let root = server_certificate().0;
    let error = enter(&authority(directory, Some(&root))).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.problem().contains(words), "{error}");
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_not_talked_to() {
    let fake = Fake::start(&[]).await;
    let mut authority = fake.authority();
    authority.roots = Some(Arc::from([server_certificate().0]));
    let error = enter(&authority).await.unwrap_err();
    assert_eq!(error.kind(), Unreachable);
    assert!(error.problem().contains("invalid peer certificate"), "{error}");
    authority.roots = Some(Arc::from([CertificateDer::from(b"no certificate".to_vec())]));
    let error = enter(&authority).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Local, "{error}");
    assert!(fake.signed("/dir").is_empty());
}
