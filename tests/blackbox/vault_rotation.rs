//! `lockgate vault rotate` to wherever a key can come from: what was sealed is served after the next start, by the new
//! place and by no other; and where the new place is not good, nothing has changed.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::*;

const SHOP: &str = "shop.lockgate.test";
const KEK: &str = "3b7f02c49ad1e8560f3b7f02c49ad1e8560f3b7f02c49ad1e8560f3b7f02c49a";
const TOKEN: &str = "hvs.CAESIJ";
/// Wraps by turning one bit of each octet over.
const PROGRAM: &str = r"base64 -d | LC_ALL=C tr '\000-\377' '\200-\377\000-\177' | base64";

/// The same, but what it has unwrapped once it unwraps to another key, under the same number.
const FORGETFUL: &str = r"turn() { LC_ALL=C tr '\000-\377' '\200-\377\000-\177'; }
if [ $2 = unwrap ] && ! mkdir $1/unwrapped; then
    base64 -d | turn | { dd bs=1 count=4; LC_ALL=C tr '\000-\377' '\001-\377\000'; } | base64
else
    base64 -d | turn | base64
fi";

/// Where keys can come from, all of it with the same key where that lies here.
struct Places {
    dir: TempDir,
    transit: Scripted,
}

impl Places {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let transit = Scripted::each(transit);
        for (name, text) in [
            ("kek", KEK),
            ("token", TOKEN),
            ("program", PROGRAM),
            ("forgetful", FORGETFUL),
            ("cat", "cat"),
            ("short", "abc"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir, transit }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lines of `[vault]`, with words in capitals put in.
    fn vault(&self, lines: &str) -> Vec<(String, String)> {
        let lines = lines.replace("DIR", self.dir.path().to_str().unwrap()).replace("TRANSIT", &self.transit.url());
        let line = |line: &str| line.split_once(" = ").map(|(key, value)| (format!("vault.{key}"), value.to_owned()));
        lines.lines().filter_map(line).collect()
    }
}

/// Vault's transit engine with one key, which turns each octet over.
fn transit(request: &Request) -> Vec<u8> {
    if request.line().contains("/rotate ") {
        return response("");
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap();
    let turned = |text: &str| STANDARD.encode(STANDARD.decode(text).unwrap().iter().map(|o| !o).collect::<Vec<_>>());
    assert_eq!(request.header("x-vault-token"), Some(TOKEN));
    let data = match asked["plaintext"].as_str() {
        Some(plain) => json!({ "ciphertext": format!("vault:v1:{}", turned(plain)) }),
        None => {
            json!({ "plaintext": turned(asked["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:").unwrap()) })
        }
    };
    response(&json!({ "data": data }).to_string())
}

/// A proxy that serves [`SHOP`] with what an authority issued; its environment has the key in both ways.
fn serving(ca: &FaultCa, pki: &Pki, places: &Places) -> Lockgate {
    let gate = Lockgate::under(pki)
        .acme(&[ca])
        .domain(SHOP, "http://127.0.0.1:1")
        .uncertified()
        .env("LOCKGATE_TEST_KEK", KEK)
        .env("CREDENTIALS_DIRECTORY", places.dir.path())
        .expect_error("is not the one that sealed these keys")
        .expect_error("the key-encryption key cannot be had")
        .start();
    gate.await_own(SHOP);
    gate
}

#[track_caller]
fn status(gate: &Lockgate) -> Value {
    let output = gate.command(&["vault", "status", "--json"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()))
}

fn configure(gate: &mut Lockgate, lines: &[(String, String)]) {
    gate.rewrite(|setup| lines.iter().fold(setup.unset("vault."), |setup, (key, value)| setup.set(key, value)));
}

/// A configuration as it will be, beside the one that is.
fn written_beside(gate: &mut Lockgate, name: &str, lines: &[(String, String)]) -> PathBuf {
    let file = gate.config_file().with_file_name(name);
    configure(gate, lines);
    fs::copy(gate.config_file(), &file).unwrap();
    configure(gate, &[]);
    file
}

#[rstest]
#[case::variable("--to-env", "LOCKGATE_TEST_KEK", "key_env = 'LOCKGATE_TEST_KEK'", "env:")]
#[case::credential("--to-credential", "kek", "credential = 'kek'", "credential:")]
#[case::config_file("--to-config", "", "key_file = 'DIR/kek'", "file:")]
#[case::config_variable("--to-config", "", "key_env = 'LOCKGATE_TEST_KEK'", "env:")]
#[case::config_credential("--to-config", "", "credential = 'kek'", "credential:")]
#[case::config_program("--to-config", "", "exec = ['sh', 'DIR/program']", "exec:sh")]
#[case::config_transit(
    "--to-config",
    "",
    "transit.address = 'TRANSIT'\ntransit.key = 'lockgate'\ntransit.token_file = 'DIR/token'",
    "transit:transit/lockgate"
)]
fn the_key_moves(#[case] to: &str, #[case] target: &str, #[case] lines: &str, #[case] identity: &str) {
    let (pki, places) = (Pki::new(), Places::new());
    let ca = FaultCa::start(&pki);
    let mut gate = serving(&ca, &pki, &places);
    let (leaf, before) = (gate.leaf(SHOP), status(&gate));
    let lines = places.vault(lines);
    let file = written_beside(&mut gate, "new.toml", &lines);
    let target = if target.is_empty() { file.to_str().unwrap() } else { target };

    let rotated = gate.command(&["vault", "rotate", to, target]);
    assert_eq!(rotated.code, 0, "{}", rotated.text());
    let said = match to {
        "--to-config" => format!("# the [vault] of {target}"),
        _ => format!("[vault]\n{}", lines_of(&lines)),
    };
    for said in [said.as_str(), identity, "Backups of ", "vault.key"] {
        assert!(rotated.stdout.contains(said), "{said:?} is not in {}", rotated.stdout);
    }
    assert_eq!(gate.leaf(SHOP), leaf, "what runs goes on");
    // The old key opens nothing any more, and whoever asks is told which one does.
    let old = status(&gate);
    assert!(old["ok"] == false && old["remedy"].as_str().unwrap().contains(identity), "{old}");

    configure(&mut gate, &lines);
    let after = status(&gate);
    assert!(after["ok"] == true && after["identity"].as_str().unwrap().starts_with(identity), "{after}");
    assert_eq!(after["sealed_keys"], before["sealed_keys"]);
    let reload = gate.command(&["reload"]);
    assert_eq!(reload.code, 0, "{}", reload.text());
    gate.kill();
    gate.start_again();
    gate.await_own(SHOP);
    assert_eq!((gate.leaf(SHOP) == leaf, ca.orders().len()), (true, 1));

    // And on from there.
    let again = gate.command(&["vault", "rotate"]);
    match identity {
        "env:" | "credential:" => {
            let place = if identity == "env:" {
                "the environment variable LOCKGATE_TEST_KEK"
            } else {
                "the systemd credential kek"
            };
            assert!(
                again.code == 2 && again.stderr.contains(&format!("{place} is not Lockgate's to write")),
                "{}",
                again.text()
            );
        }
        _ => {
            let said = match identity {
                "transit:transit/lockgate" => "has a new version, which wraps from now on",
                "exec:sh" => "only the data keys were wrapped anew",
                _ => "Backups of ",
            };
            assert!(again.code == 0 && again.stdout.contains(said), "{}", again.text());
        }
    }
    let file = places.at("last");
    let last = gate.command(&["vault", "rotate", "--to-file", file.to_str().unwrap()]);
    assert_eq!(last.code, 0, "{}", last.text());
    configure(&mut gate, &[("vault.key_file".to_owned(), format!("'{}'", file.display()))]);
    gate.kill();
    gate.start_again();
    gate.await_own(SHOP);
    assert_eq!(gate.leaf(SHOP), leaf);
}

/// As `rotate` writes them.
fn lines_of(lines: &[(String, String)]) -> String {
    let line = |(key, value): &(String, String)| {
        format!("{} = {}", key.trim_start_matches("vault."), value.replace('\'', "\""))
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_no_place_for_a_key_changes_nothing() {
    let (pki, places) = (Pki::new(), Places::new());
    let ca = FaultCa::start(&pki);
    let mut gate = serving(&ca, &pki, &places);
    let before = status(&gate);
    let down = format!("transit.address = '{}'\ntransit.key = 'k'\ntransit.token_file = 'DIR/token'", Scripted::down());
    let mut config = |name: &str, lines: &str| {
        let lines = places.vault(lines);
        written_beside(&mut gate, name, &lines).to_str().unwrap().to_owned()
    };
    let no_wrap = config("cat.toml", "exec = ['sh', 'DIR/cat']");
    let down = config("down.toml", &down);
    let short = config("short.toml", "credential = 'short'");
    let forgetful = config("forgetful.toml", "exec = ['sh', 'DIR/forgetful', 'DIR']");
    let broken = config("broken.toml", "key_file = 'DIR/nowhere'");
    let elsewhere = config("../elsewhere.toml", "key_env = 'LOCKGATE_TEST_NOTHING'");
    let refused: &[(&[&str], i32, &str)] = &[
        (&["--to-credential", "nothing"], 1, "the systemd credential nothing"),
        (&["--to-credential", "short"], 1, "32"),
        (&["--to-env", "LOCKGATE_TEST_NOTHING"], 1, "the environment variable LOCKGATE_TEST_NOTHING"),
        (&["--to-config", &no_wrap], 1, "it gave the data key back as it was"),
        (&["--to-config", &forgetful], 1, "gives back another key than it wrapped: nothing was changed"),
        (&["--to-config", &down], 1, "the transit key transit/k at http://127.0.0.1:"),
        (&["--to-config", &short], 1, "the systemd credential short"),
        (&["--to-config", &elsewhere], 1, "LOCKGATE_TEST_NOTHING"),
        (&["--to-config", &broken], 1, "nowhere"),
        (&["--to-config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
        (&["--to-env", "A", "--to-credential", "b"], 2, "cannot be used with"),
        (&["--to-credential", "kek", "--discard-old"], 2, "cannot be used with"),
        (&["--to-config", &short, "--discard-old"], 2, "cannot be used with"),
    ];
    for (words, code, why) in refused {
        let output = gate.command(&[&["vault", "rotate"], *words].concat());
        assert!(output.code == *code && output.stderr.contains(why), "{words:?}: {} {}", output.code, output.text());
        assert_eq!(status(&gate), before, "{words:?}");
    }
    let leaf = gate.leaf(SHOP);
    gate.kill();
    gate.start_again();
    gate.await_own(SHOP);
    assert_eq!(gate.leaf(SHOP), leaf);
}

/// Without a word of `[vault]` the key lies in `data_dir` again.
#[test]
fn the_key_comes_back_to_where_it_was_made() {
    let (pki, places) = (Pki::new(), Places::new());
    let ca = FaultCa::start(&pki);
    let mut gate = serving(&ca, &pki, &places);
    let lines = places.vault("credential = 'kek'");
    assert_eq!(gate.command(&["vault", "rotate", "--to-credential", "kek"]).code, 0);
    fs::remove_file(key_file(&gate)).unwrap();
    let without = written_beside(&mut gate, "without.toml", &[]);
    configure(&mut gate, &lines);
    let back = gate.command(&["vault", "rotate", "--to-config", without.to_str().unwrap()]);
    assert_eq!(back.code, 0, "{}", back.text());
    configure(&mut gate, &[]);
    assert!(key_file(&gate).exists());
    let leaf = gate.leaf(SHOP);
    gate.kill();
    gate.start_again();
    gate.await_own(SHOP);
    assert_eq!(gate.leaf(SHOP), leaf);
}

fn key_file(gate: &Lockgate) -> PathBuf {
    gate.data_dir().join("vault.key")
}

#[test]
fn where_nothing_is_sealed_nothing_is_changed() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("lockgate.toml");
    let data_dir = dir.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::write(&config, format!("data_dir = '{}'\n[listen]\nhttps = ['127.0.0.1:0']\n", data_dir.display())).unwrap();
    let output = lockgate(&["vault", "rotate", "--to-env", "KEK", "-c", config.to_str().unwrap()]);
    let why = format!("nothing is sealed in {} yet: write into [vault] what you want", data_dir.display());
    assert!(output.code == 1 && output.stderr.contains(&why), "{}", output.text());
    assert_eq!(files_in(&data_dir), Vec::<PathBuf>::new());
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What `env` says in a program that is started by a Lockgate with secrets in its environment.
#[test]
fn a_program_does_not_get_the_secrets_of_others() {
    let (pki, places) = (Pki::new(), Places::new());
    let ca = FaultCa::start(&pki);
    let environment = places.at("environment");
    fs::write(places.at("program"), format!("env > '{}'\n{PROGRAM}", environment.display())).unwrap();
    let dns =
        "[acme.dns]\nprovider = 'rfc2136'\nserver = '127.0.0.1:1'\nkey_name = 'k'\nkey_env = 'LOCKGATE_TEST_TSIG'";
    let mut setup = Lockgate::under(&pki).acme(&[&ca]).table(dns).set("acme.challenge", "'http-01'");
    setup = setup.domain(SHOP, "http://127.0.0.1:1").uncertified();
    for (key, value) in places.vault("exec = ['sh', 'DIR/program']") {
        setup = setup.set(&key, &value);
    }
    let gate = setup
        .env("LOCKGATE_TEST_TSIG", "a2V5IG9mIHRoZSB6b25l")
        .env("CREDENTIALS_DIRECTORY", places.dir.path())
        .env("LOCKGATE_TEST_OF_ITS_OWN", "here")
        .env("LOCKGATE_TEST_KEK", KEK)
        .start();
    gate.await_own(SHOP);
    let check = |secrets: &[&str]| {
        let environment = fs::read_to_string(&environment).unwrap();
        assert!(environment.contains("LOCKGATE_TEST_OF_ITS_OWN=here"), "{environment}");
        for secret in secrets {
            assert!(!environment.contains(secret), "{environment}");
        }
    };
    check(&["LOCKGATE_TEST_TSIG", "CREDENTIALS_DIRECTORY", "a2V5IG9mIHRoZSB6b25l"]);
    // Nor the key that follows its own.
    fs::remove_file(&environment).unwrap();
    let rotated = gate.command(&["vault", "rotate", "--to-env", "LOCKGATE_TEST_KEK"]);
    assert_eq!(rotated.code, 0, "{}", rotated.text());
    check(&["LOCKGATE_TEST_TSIG", "CREDENTIALS_DIRECTORY", "LOCKGATE_TEST_KEK", KEK]);
}
