//! Keys that stay with somebody else: a program, and Vault's transit engine.
//!
//! The engine is played by a small server that answers as Vault's API documents it; a real HashiCorp Vault is packaged
//! nowhere that these tests may rely on.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::exec::Program;
use super::super::transit::TransitKey;
use super::super::wrap::Fault;
use super::*;
use crate::issuance::Transit;

const TOKEN: &str = "hvs.CAESIJ";

/// Wraps by turning one bit of each octet over.
const GOOD: &str = r"base64 -d | LC_ALL=C tr '\000-\377' '\200-\377\000-\177' | base64";

fn script(dir: &TempDir, text: &str) -> Vec<String> {
    let path = dir.path().join("kms.sh");
    fs::write(&path, text).unwrap();
    vec!["/bin/sh".to_owned(), path.to_str().unwrap().to_owned()]
}

/// Opens a vault by this source twice, as two processes would, and what one sealed by the other.
async fn check_round_trip(source: &KeySource, identity: &str) {
    let wrap = KeyWrap::open(source).await.unwrap();
    assert_eq!(wrap.identity(), identity);
    let (vault, mut stored) = unlocked(&wrap).await;
    let old = vault.seal(SECRET, CONTEXT).unwrap();
    stored.push(vault.renew(&wrap, LATER).await.unwrap());
    vault.trust(2).unwrap();
    let new = vault.seal(SECRET, CONTEXT).unwrap();

    let wrap = KeyWrap::open(source).await.unwrap();
    let restarted = Vault::locked();
    restarted.unlock(&wrap, &stored, LATER).await.unwrap();
    assert_opens(&restarted, &old);
    assert_opens(&restarted, &new);

    // Two data keys that changed places.
    let swapped = WrappedKey { id: 2, ..stored[0].clone() };
    let error = wrap.unwrap(&swapped).await.unwrap_err();
    assert!(matches!(error, VaultError::TamperedDataKey { id: 2, .. }), "{error}");
    // From a file to here: the data keys stay.
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let sealed = vault.seal(SECRET, CONTEXT).unwrap();
    restarted.unlock(&wrap, &vault.rewrap(&wrap, LATER).await.unwrap(), LATER).await.unwrap();
    assert_opens(&restarted, &sealed);
}

#[tokio::test]
async fn a_program_wraps() {
    let dir = TempDir::new().unwrap();
    check_round_trip(&KeySource::Exec(script(&dir, GOOD)), "exec:/bin/sh").await;
}

#[tokio::test]
async fn a_program_is_told_what_to_do_behind_its_own_words() {
    let dir = TempDir::new().unwrap();
    let mut command = script(&dir, r#"echo "$@" | base64"#);
    command.push("--key=a b".to_owned());
    let program = Program::new(&command).unwrap();
    for verb in ["wrap", "unwrap"] {
        let answer = program.run(verb, b"x").await.unwrap();
        assert_eq!(answer.as_slice(), format!("--key=a b {verb}\n").as_bytes());
    }
}

#[rstest]
#[case::fails("echo 'no such key' >&2; echo more >&2; exit 3", "`wrap` ended with exit status: 3: no such key")]
#[case::fails_silently("exit 1", "`wrap` ended with exit status: 1: it said nothing")]
#[case::is_killed("kill -9 $$", "`wrap` ended with signal: 9 (SIGKILL): it said nothing")]
#[case::controls("printf '\\033[2Jgone\\n' >&2; exit 1", "exit status: 1: [2Jgone")]
#[case::talks_for_ever("yes complaint | head -c 1000000 >&2; exit 1", "exit status: 1: complaint")]
#[case::answers_nothing("cat >/dev/null", "`wrap` must answer one line of base64")]
#[case::answers_words("echo 'not base64!'", "`wrap` must answer one line of base64")]
#[case::answers_much("cat /dev/zero", "`wrap` answered more than 65536 octets")]
#[case::wraps_nothing("cat", "it gave the data key back as it was")]
#[case::wraps_in_base64("base64", "it gave the data key back as it was")]
#[case::wraps_in_base64_behind_words(
    "{ printf ab; base64 -d; } | base64 | base64",
    "it gave the data key back as it was"
)]
#[case::wraps_in_base64_behind_more(
    "{ printf abcde; base64 -d; } | base64 -w 20 | base64",
    "it gave the data key back"
)]
#[case::wraps_in_hexadecimal("base64 -d | od -An -vtx1 | base64", "it gave the data key back as it was")]
#[case::wraps_in_large_hexadecimal(
    "base64 -d | od -An -vtx1 | tr a-f A-F | base64",
    "it gave the data key back as it was"
)]
#[case::unwraps_nothing("[ $1 = wrap ] && echo aGVsbG8= || exit 7", "`unwrap` ended with exit status: 7")]
#[case::unwraps_another("echo aGVsbG8=", "it does not unwrap what it wrapped")]
#[tokio::test]
async fn a_program_that_does_not_wrap_says_why(#[case] text: &str, #[case] reason: &str) {
    let dir = TempDir::new().unwrap();
    let wrap = KeyWrap::open(&KeySource::Exec(script(&dir, text))).await.unwrap();
    let error = wrap.wrap(&kek(1), 1).await.unwrap_err().to_string();
    let begin = "the key-encryption key cannot be had from the program /bin/sh: ";
    assert!(error.starts_with(begin) && error.contains(reason), "{error}");
    assert!(!error.contains(char::is_control) && error.chars().count() < 600, "{error}");
}

#[tokio::test]
async fn a_program_must_be_there() {
    let error = KeyWrap::open(&KeySource::Exec(vec![])).await.unwrap_err().to_string();
    assert!(error.contains("no program is named"), "{error}");
    let wrap = KeyWrap::open(&KeySource::Exec(vec!["/no/such/kms".to_owned()])).await.unwrap();
    let error = wrap.wrap(&kek(1), 1).await.unwrap_err().to_string();
    assert!(error.contains("the program /no/such/kms: it cannot be started: No such file"), "{error}");
}

/// Neither it nor what it started goes on, and it is not waited for longer than it may take.
#[rstest]
#[case::itself("echo $$ >PIDS; exec sleep 1000")]
#[case::its_child("sleep 1000 & echo $! >PIDS; wait")]
#[case::what_it_left_behind("sleep 1000 & echo $! >PIDS")]
#[tokio::test]
async fn a_program_that_does_not_end_is_ended(#[case] text: &str) {
    let dir = TempDir::new().unwrap();
    let pids = dir.path().join("pids");
    let mut program = Program::new(&script(&dir, &text.replace("PIDS", pids.to_str().unwrap()))).unwrap();
    program.limit = Duration::from_secs(2);
    let begun = Instant::now();
    let Err(Fault::Away(reason)) = program.run("wrap", b"x").await else { panic!("it ended") };
    assert_eq!(reason, "`wrap` took longer than 2s and was ended");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let pid = fs::read_to_string(&pids).unwrap().trim().to_owned();
    // Ended is one that is gone, or that nobody has waited for yet.
    let goes_on = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
    };
    while goes_on() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
        tokio::task::yield_now().await;
    }
}

/// What the server was asked, and what it answers instead of what Vault would.
#[derive(Default)]
struct Engine {
    asked: Mutex<Vec<(String, HeaderMap, Value)>>,
    instead: Option<fn() -> Response>,
}

/// The transit engine with one key, whose ciphertext is the plaintext with each octet turned over.
async fn engine(State(engine): State<Arc<Engine>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let question = serde_json::from_slice::<Value>(&body).unwrap();
    engine.asked.lock().unwrap().push((uri.path().to_owned(), headers.clone(), question.clone()));
    if let Some(instead) = engine.instead {
        return instead();
    }
    let errors = |status: StatusCode, error: &str| (status, json!({ "errors": [error] }).to_string()).into_response();
    if headers.get("x-vault-token").is_none_or(|token| token != TOKEN) {
        return errors(StatusCode::FORBIDDEN, "permission denied");
    }
    if let Some(key) = uri.path().strip_suffix("/rotate") {
        let may = key.ends_with("/keys/lockgate");
        return if may {
            StatusCode::NO_CONTENT.into_response()
        } else {
            errors(StatusCode::FORBIDDEN, "not this one")
        };
    }
    let (verb, key) = uri.path().rsplit_once('/').unwrap();
    let turned = |text: &str| STANDARD.encode(STANDARD.decode(text).unwrap().iter().map(|o| !o).collect::<Vec<_>>());
    let data = if verb.ends_with("/encrypt") {
        json!({ "ciphertext": format!("vault:v1:{key}:{}", turned(question["plaintext"].as_str().unwrap())) })
    } else {
        let ciphertext = question["ciphertext"].as_str().unwrap();
        let Some(own) = ciphertext.strip_prefix(&format!("vault:v1:{key}:")) else {
            return errors(StatusCode::BAD_REQUEST, "cipher: message authentication failed");
        };
        json!({ "plaintext": turned(own) })
    };
    json!({ "request_id": "1", "lease_id": "", "renewable": false, "data": data, "warnings": null })
        .to_string()
        .into_response()
}

async fn serve(instead: Option<fn() -> Response>) -> (Arc<Engine>, String) {
    let state = Arc::new(Engine { instead, ..Engine::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(engine).with_state(Arc::clone(&state));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (state, address)
}

/// A key of that address, its token in a file.
fn transit(dir: &TempDir, address: &str) -> Transit {
    let token = dir.path().join("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    Transit {
        address: address.to_owned(),
        mount: "transit".to_owned(),
        key: "lockgate".to_owned(),
        token: SecretSource::File(token),
        namespace: None,
        roots: None,
    }
}

fn open_transit(transit: &Transit) -> Result<TransitKey, String> {
    TransitKey::open(transit, &|_| None)
}

#[tokio::test]
async fn vaults_transit_engine_wraps() {
    let dir = TempDir::new().unwrap();
    let (engine, address) = serve(None).await;
    check_round_trip(&KeySource::Transit(transit(&dir, &address)), "transit:transit/lockgate").await;
    for (path, headers, question) in engine.asked.lock().unwrap().iter() {
        assert!(["/v1/transit/encrypt/lockgate", "/v1/transit/decrypt/lockgate"].contains(&path.as_str()), "{path}");
        assert_eq!(headers["x-vault-token"], TOKEN);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers.get("x-vault-namespace"), None);
        assert_eq!(question["context"], STANDARD.encode("lockgate vault"));
    }
}

#[tokio::test]
async fn the_engine_is_told_to_make_a_new_version_of_its_key() {
    let dir = TempDir::new().unwrap();
    let (engine, address) = serve(None).await;
    let renew = async |key: &str| {
        let transit = Transit { key: key.to_owned(), ..transit(&dir, &address) };
        KeyWrap::open(&KeySource::Transit(transit)).await.unwrap().renew_at_service().await.unwrap()
    };
    renew("lockgate").await.unwrap();
    let refused = renew("another").await.unwrap_err();
    assert!(refused.contains("403 Forbidden: not this one"), "{refused}");
    assert!(wrap_with(&kek(1)).await.renew_at_service().await.is_none());
    let asked = engine.asked.lock().unwrap();
    let paths = asked.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>();
    assert_eq!(paths, ["/v1/transit/keys/lockgate/rotate", "/v1/transit/keys/another/rotate"]);
}

#[tokio::test]
async fn mount_key_and_namespace_are_sent_as_they_are_written() {
    let dir = TempDir::new().unwrap();
    let (engine, address) = serve(None).await;
    let key = Transit {
        address: format!("{address}/behind/"),
        mount: "/teams/edge transit/".to_owned(),
        key: "a?b".to_owned(),
        namespace: Some("admin/edge".to_owned()),
        ..transit(&dir, &address)
    };
    let key = open_transit(&key).unwrap();
    assert_eq!(key.identity(), "transit:teams/edge transit/a?b");
    key.encrypt(b"x").await.unwrap();
    let asked = engine.asked.lock().unwrap();
    assert_eq!(asked[0].0, "/behind/v1/teams/edge%20transit/encrypt/a%3Fb");
    assert_eq!(asked[0].1["x-vault-namespace"], "admin/edge");
}

#[tokio::test]
async fn vault_says_what_is_wrong_in_its_own_words() {
    let dir = TempDir::new().unwrap();
    let (_, address) = serve(None).await;
    let right = transit(&dir, &address);
    let wrap = KeyWrap::open(&KeySource::Transit(right.clone())).await.unwrap();
    let stored = first(&wrap).await;
    let place = format!("the transit key transit/lockgate at {address}");
    assert_eq!(wrap.place(), place);

    // Another key of the engine's is asked, for it may only have another name.
    let other = KeySource::Transit(Transit { key: "other".to_owned(), ..right.clone() });
    let error = KeyWrap::open(&other).await.unwrap().unwrap(&stored).await.unwrap_err();
    assert!(
        matches!(&error, VaultError::WrongKey { wrapped_by, .. } if wrapped_by == "transit:transit/lockgate"),
        "{error}"
    );
    let changed = WrappedKey { wrapped: b"vault:v1:x".to_vec(), ..stored.clone() };
    let error = wrap.unwrap(&changed).await.unwrap_err().to_string();
    assert!(error.ends_with("it answered 400 Bad Request: cipher: message authentication failed"), "{error}");
    for foreign in [b"\xff".as_slice(), b"", b"hello"] {
        let error = wrap.unwrap(&WrappedKey { wrapped: foreign.to_vec(), ..stored.clone() }).await.unwrap_err();
        assert!(error.to_string().ends_with("what is to be unwrapped is not its"), "{error}");
    }

    fs::write(dir.path().join("token"), "hvs.expired").unwrap();
    let wrap = KeyWrap::open(&KeySource::Transit(right)).await.unwrap();
    let error = wrap.unwrap(&stored).await.unwrap_err().to_string();
    let begin = format!("the key-encryption key cannot be had from {place}: ");
    assert_eq!(error, format!("{begin}it answered 403 Forbidden: permission denied"));
}

#[rstest]
#[case::sealed(|| (StatusCode::SERVICE_UNAVAILABLE, r#"{"errors":["Vault is sealed"]}"#).into_response(),
    "it answered 503 Service Unavailable: Vault is sealed")]
#[case::not_mounted(|| (StatusCode::NOT_FOUND, r#"{"errors":[]}"#).into_response(),
    "it answered 404 Not Found: it does not say why; see whether the engine is mounted there")]
#[case::elsewhere(|| (StatusCode::TEMPORARY_REDIRECT, [("location", "http://127.0.0.1:1/")]).into_response(),
    "it answered 307 Temporary Redirect: go to http://127.0.0.1:1/")]
#[case::a_web_site(|| "<html>Welcome</html>".into_response(), "it answered what Vault's transit engine does not")]
#[case::nothing(|| "".into_response(), "it answered what Vault's transit engine does not")]
#[case::another_answer(|| r#"{"data":{"keys":[]}}"#.into_response(), "it answered what Vault's transit engine does not")]
#[case::hostile_words(|| (StatusCode::BAD_GATEWAY, json!({"errors": ["\u{1b}[2J\n".repeat(2_000)]}).to_string()).into_response(),
    "it answered 502 Bad Gateway: [2J[2J")]
#[case::endless(|| "x".repeat(1 << 20).into_response(), "it answered more than 65536 octets")]
#[tokio::test]
async fn an_answer_that_is_none_of_vaults_is_a_clear_error(#[case] instead: fn() -> Response, #[case] reason: &str) {
    let dir = TempDir::new().unwrap();
    let (engine, address) = serve(Some(instead)).await;
    let wrap = KeyWrap::open(&KeySource::Transit(transit(&dir, &address))).await.unwrap();
    let stored =
        WrappedKey { id: 1, wrapped_by: wrap.identity().to_owned(), wrapped: b"vault:v1:x".to_vec(), made_at: NOW };
    for error in [wrap.wrap(&kek(1), 1).await.unwrap_err(), wrap.unwrap(&stored).await.unwrap_err()] {
        assert!(matches!(error, VaultError::NoKey { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(reason) && !error.contains(char::is_control), "{error}");
        assert!(error.chars().count() < 600 && !error.contains(TOKEN), "{error}");
    }
    assert_eq!(engine.asked.lock().unwrap().len(), 2, "nothing is asked twice, or elsewhere");
}

#[tokio::test]
async fn a_vault_that_does_not_answer_is_given_up() {
    let dir = TempDir::new().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut key = open_transit(&transit(&dir, &format!("http://{}", silent.local_addr().unwrap()))).unwrap();
    key.limit = Duration::from_millis(100);
    let error = key.encrypt(b"x").await.unwrap_err().reason();
    assert_eq!(error, "it did not answer in time");

    let address = format!("http://{}", silent.local_addr().unwrap());
    drop(silent);
    let error = open_transit(&transit(&dir, &address)).unwrap().encrypt(b"x").await.unwrap_err().reason();
    assert!(error.starts_with("it does not answer: ") && error.contains("refused"), "{error}");
}

#[rstest]
#[case::localhost("http://localhost:8200", None)]
#[case::ipv6_loopback("http://[::1]:8200", None)]
#[case::https("https://vault.example:8200/", None)]
#[case::http_elsewhere("http://vault.example:8200", Some("use https"))]
#[case::http_by_a_false_name("http://localhost.example", Some("use https"))]
#[case::http_to_a_network("http://10.0.0.1:8200", Some("use https"))]
#[case::no_scheme("vault.example:8200", Some("neither https nor http"))]
#[case::nothing("", Some("its address is none"))]
#[case::a_password("https://root:secret@vault.example", Some("more than a host, a port and a path"))]
#[case::a_query("https://vault.example/?token=secret", Some("more than a host, a port and a path"))]
#[tokio::test]
async fn a_token_goes_only_where_nobody_listens(#[case] address: &str, #[case] wrong: Option<&str>) {
    let dir = TempDir::new().unwrap();
    let opened = open_transit(&transit(&dir, address)).map(|_| ());
    match (opened, wrong) {
        (Ok(()), None) => {}
        (Err(error), Some(wrong)) => assert!(error.contains(wrong) && !error.contains("secret"), "{error}"),
        (opened, _) => panic!("{opened:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_when_it_is_read() {
    let dir = TempDir::new().unwrap();
    let good = transit(&dir, "https://vault.example");
    let bad_token = dir.path().join("bad");
    fs::write(&bad_token, "two\nlines").unwrap();
    let wrong = [
        (Transit { mount: "..".into(), ..good.clone() }, "the engine's mount or the key has a name"),
        (Transit { mount: "/".into(), ..good.clone() }, "the engine's mount or the key has a name"),
        (Transit { key: String::new(), ..good.clone() }, "the engine's mount or the key has a name"),
        (Transit { key: "a/b".into(), ..good.clone() }, "the engine's mount or the key has a name"),
        (Transit { namespace: Some("a\nb".into()), ..good.clone() }, "its namespace has characters"),
        (
            Transit { token: SecretSource::Env("NO".into()), ..good.clone() },
            "its token, the environment variable NO, is not",
        ),
        (Transit { token: SecretSource::File(bad_token), ..good }, "has characters that no token has"),
    ];
    for (transit, wrong) in wrong {
        let error = open_transit(&transit).err().unwrap();
        assert!(error.contains(wrong), "{error}");
    }
}

#[tokio::test]
async fn vaults_certificate_is_verified_by_the_roots_that_are_given() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            _ = tls.read(&mut [0; 4096]).await;
            let body = r#"{"data":{"ciphertext":"vault:v1:x"}}"#;
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            _ = tls.write_all(answer.as_bytes()).await;
            _ = tls.shutdown().await;
        }
    });

    let dir = TempDir::new().unwrap();
    let roots: Arc<[CertificateDer<'static>]> = [cert.der().clone()].into();
    let trusting = Transit { roots: Some(roots), ..transit(&dir, &address) };
    assert_eq!(open_transit(&trusting).unwrap().encrypt(b"x").await.unwrap(), b"vault:v1:x");

    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.der().clone();
    for roots in [None, Some([other].into())] {
        // A machine without any roots trusts nobody, either.
        let Ok(key) = open_transit(&Transit { roots, ..trusting.clone() }) else { continue };
        let error = key.encrypt(b"x").await.unwrap_err().reason();
        assert!(error.contains("certificate"), "{error}");
    }
}
