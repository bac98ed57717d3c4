//! Private keys lie sealed on the disk, and what happens when they do not open (SPEC 10, "Keys at rest").

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lockgate::store::inventory::Inventory;
use rstest::rstest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::estate::*;
use crate::harness::*;

/// A key-encryption key, and another one, as files outside the data directory.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::TempDir::new().unwrap());
        keys.put(&"5a6b".repeat(16));
        keys
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("kek")
    }

    fn put(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn with_key(setup: Setup, keys: &Keys) -> Setup {
    setup.set("vault.key_file", &format!("'{}'", keys.file().display()))
}

/// Whether something is kept sealed under `name`.
fn is_secret(gate: &Lockgate, name: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let inventory = Inventory::open_to_read(&gate.data_dir()).await.unwrap().unwrap();
        let secret = inventory.secret(name).await.unwrap();
        inventory.close().await;
        secret.is_some()
    })
}

fn is_unlocked(gate: &Lockgate) -> bool {
    gate.metric("lockgate_vault_unlocked", &[]) == Some(1.0)
}

#[test]
fn without_a_key_one_is_made_once_for_its_owner_alone_and_it_is_said() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let mut gate = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("")).uncertified().start();
    let own = await_own(&gate);
    let key = gate.data_dir().join("vault.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let notice = ["WARN", "vault.key", "Keep a copy"];
    assert_eq!(gate.count_log(&notice), 1);
    gate.kill();
    gate.start_again();
    assert_eq!((gate.leaf(SITE), gate.count_log(&notice)), (own, 0));
}

#[test]
fn a_made_key_that_is_gone_is_not_replaced_by_one_that_opens_nothing() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let setup = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("")).uncertified();
    let mut gate = setup.expect_error("kept certificates stay closed").start();
    let own = await_own(&gate);
    gate.stop();
    let key = gate.data_dir().join("vault.key");
    let aside = key.with_extension("aside");
    fs::rename(&key, &aside).unwrap();
    gate.start_again();
    gate.await_log(&["ERROR", "vault.key", "kept certificates stay closed"]);
    // The internal authority makes none before it is asked.
    gate.leaf(SITE);
    assert_eq!((source(&gate, SITE), key.exists()), ("internal", false));
    fs::rename(&aside, &key).unwrap();
    await_source(&gate, SITE, "own");
    assert_eq!((gate.leaf(SITE), authority.orders().len()), (own, 1));
}

#[rstest]
#[case::another(|keys: &Keys| keys.put(&"a5b6".repeat(16)), "is not the one that sealed these keys: that was file:")]
#[case::garbage(|keys: &Keys| keys.put("correct horse battery staple"), "cannot be had from the file")]
#[case::missing(|keys: &Keys| fs::remove_file(keys.file()).unwrap(), "it cannot be read: No such file")]
#[case::a_directory(|keys: &Keys| {
    fs::remove_file(keys.file()).unwrap();
    fs::create_dir(keys.file()).unwrap();
}, "it is not a regular file")]
#[case::empty(|keys: &Keys| keys.put(""), "it is empty")]
fn the_wrong_key_is_said_and_loses_nothing(#[case] spoil: fn(&Keys), #[case] said: &str) {
    let (pki, keys, origin) = (Pki::new(), Keys::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    let setup = with_key(managed(&pki, &[&authority]), &keys).domain(SITE, &origin).uncertified();
    let setup = setup.domain("files.lockgate.test", &origin).expect_error("kept certificates stay closed");
    let mut gate = setup.start();
    let own = await_own(&gate);
    let root = {
        gate.stop();
        spoil(&keys);
        gate.start_again();
        gate.await_log(&["ERROR", said, "kept certificates stay closed"]);
        assert_eq!((source(&gate, "files.lockgate.test"), is_unlocked(&gate)), ("own", false));
        assert_eq!(gate.get(SITE).text(), "hello");
        assert_eq!(source(&gate, SITE), "internal");
        issuer(&gate, SITE)
    };
    _ = fs::remove_dir(keys.file());
    keys.put(&"5a6b".repeat(16));
    // Without a restart.
    await_source(&gate, SITE, "own");
    assert_eq!((gate.leaf(SITE), is_unlocked(&gate)), (own.clone(), true));
    gate.kill();
    gate.start_again();
    assert_eq!(gate.leaf(SITE), own);
    assert_eq!((authority.orders().len(), authority.accounts()), (1, 1));
    assert!(root.contains("Lockgate internal CA"), "{root}");
}

#[rstest]
#[case::variable("vault.key_env", "the environment variable LOCKGATE_NO_SUCH_KEY")]
#[case::credential("vault.credential", "the systemd credential LOCKGATE_NO_SUCH_KEY")]
fn a_key_that_is_not_there_keeps_nothing_from_starting(#[case] key: &str, #[case] place: &str) {
    let setup = Lockgate::setup().set(key, "'LOCKGATE_NO_SUCH_KEY'").domain(SITE, Scripted::ok("hello")).uncertified();
    let gate = setup.expect_error("kept certificates stay closed").start();
    gate.await_log(&["ERROR", place, "kept certificates stay closed"]);
    assert_eq!((gate.get(SITE).text(), source(&gate, SITE)), ("hello".to_owned(), "internal"));
}

/// What is unlocked needs it only at the next start: a reload says so, and takes the rest. `check` makes an error of it.
#[test]
fn a_key_file_that_is_gone_refuses_no_reload() {
    let (pki, keys) = (Pki::new(), Keys::new());
    let authority = FaultCa::start(&pki);
    let setup = with_key(managed(&pki, &[&authority]), &keys).domain(SITE, Scripted::ok("hello")).uncertified();
    let mut gate = setup.start();
    let own = await_own(&gate);
    fs::remove_file(keys.file()).unwrap();
    gate.rewrite(|setup| setup.domain("new.lockgate.test", Scripted::ok("new")).uncertified());
    let reloaded = gate.reload();
    assert_eq!(reloaded.code, 0, "{}", reloaded.text());
    gate.await_log(&["WARN", "kek", "cannot be read", "without it the next start opens no kept key"]);
    await_source(&gate, "new.lockgate.test", "own");
    assert_eq!((gate.leaf(SITE), is_unlocked(&gate)), (own, true));
    let checked = lockgate(&["check", "-c", gate.config_file().to_str().unwrap()]);
    assert_eq!(checked.code, 2, "{}", checked.text());
    assert!(
        checked.stderr.contains("error: the secret file") && checked.stderr.contains("put it back"),
        "{}",
        checked.text()
    );
    // Another place than before must have the key at once.
    gate.rewrite(|setup| setup.set("vault.key_file", "'/nonexistent/kek'"));
    let refused = gate.reload();
    assert!(refused.code != 0 && refused.text().contains("[vault] has changed"), "{}", refused.text());
}

#[rstest]
#[case::one_bit(
    "UPDATE certificate SET sealed_key = CAST(substr(sealed_key, 1, 40)
    || CASE hex(substr(sealed_key, 41, 1)) WHEN '00' THEN x'01' ELSE x'00' END || substr(sealed_key, 42) AS BLOB)
    WHERE subject = 'shop.lockgate.test'"
)]
#[case::anothers(
    "UPDATE certificate SET sealed_key = (SELECT sealed_key FROM certificate WHERE subject = 'b.lockgate.test')
    WHERE subject = 'shop.lockgate.test'"
)]
#[case::of_a_lost_data_key(
    "UPDATE certificate SET sealed_key = CAST(x'0100000063' || substr(sealed_key, 6) AS BLOB)
    WHERE subject = 'shop.lockgate.test'"
)]
fn a_sealed_key_that_was_changed_is_told_of_and_another_certificate_ordered(#[case] damage: &'static str) {
    let (pki, origin) = (Pki::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    let setup = managed(&pki, &[&authority]).domain(SITE, &origin).uncertified();
    let setup = setup.domain("b.lockgate.test", &origin).uncertified().expect_error("does not open");
    let mut gate = setup.start();
    let own = await_own(&gate);
    await_source(&gate, "b.lockgate.test", "own");
    let others = gate.leaf("b.lockgate.test");
    gate.stop();
    in_database(&gate, damage);
    gate.start_again();
    let shown = gate.leaf(SITE);
    assert!(shown != own && shown.names == [SITE], "{shown:?}");
    gate.await_log(&["ERROR", SITE, "the key of a kept certificate does not open"]);
    await_source(&gate, SITE, "own");
    let fresh = gate.leaf(SITE);
    assert!(fresh != own && authority.orders().len() == 3, "{fresh:?}");
    assert_eq!(gate.leaf("b.lockgate.test"), others);
    gate.kill();
    gate.start_again();
    assert_eq!((gate.leaf(SITE), authority.orders().len()), (fresh, 3));
}

#[test]
fn the_internal_authority_outlives_the_process_and_is_not_lost_to_a_locked_vault() {
    let keys = Keys::new();
    let setup = with_key(Lockgate::setup(), &keys).domain(SITE, Scripted::ok("")).uncertified();
    let mut gate = setup.expect_error("kept certificates stay closed").start();
    eventually("the vault", || is_unlocked(&gate).then_some(()));
    let root = issuer(&gate, SITE);
    gate.kill();
    gate.start_again();
    assert_eq!(issuer(&gate, SITE), root);
    gate.stop();
    keys.put(&"a5b6".repeat(16));
    gate.start_again();
    assert_ne!(issuer(&gate, SITE), root, "its key does not open");
    gate.stop();
    keys.put(&"5a6b".repeat(16));
    gate.start_again();
    assert_eq!(issuer(&gate, SITE), root);
    gate.stop();
    // What was changed there is told of, and darkens nothing else.
    in_database(&gate, "UPDATE secret SET sealed = x'00'");
    gate.rewrite(|setup| setup.expect_error("the internal authority's key cannot be used"));
    gate.start_again();
    gate.await_log(&["ERROR", "the internal authority's key cannot be used"]);
    assert!(is_unlocked(&gate));
    assert_ne!(issuer(&gate, SITE), root);
}

#[test]
fn the_internal_authority_outlives_a_clock_that_is_wrong() {
    let setup = Lockgate::setup().domain(SITE, Scripted::ok("")).uncertified().clock_stopped(NOON);
    let mut gate = setup.start();
    eventually("the vault", || is_unlocked(&gate).then_some(()));
    let root = issuer(&gate, SITE);
    gate.clock().advance(20 * 365 * DAY);
    let other = issuer(&gate, SITE);
    assert_ne!(other, root);
    eventually("both are kept", || is_secret(&gate, "internal-ca-before").then_some(()));
    gate.kill();
    gate.start_again();
    assert_eq!(issuer(&gate, SITE), other);
    gate.clock().advance(-20 * 365 * DAY);
    assert_eq!(issuer(&gate, SITE), root, "it was not given up for a wrong clock");
    gate.kill();
    gate.start_again();
    assert_eq!(issuer(&gate, SITE), root);
}

#[test]
fn no_core_dump_holds_a_key() {
    // Where nobody asks for dumps there are none anyway, and nothing would be seen.
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    // A program has the limits of whoever calls it.
    let (program, inherited) = (dir.path().join("program"), dir.path().join("limits"));
    let wrap = r"base64 -d | LC_ALL=C tr '\000-\377' '\200-\377\000-\177' | base64";
    fs::write(&program, format!("ulimit -c >> '{}'\n{wrap}", inherited.display())).unwrap();
    let setup = Lockgate::under(&pki).set("vault.exec", &format!("['sh', '{}']", program.display()));
    let gate = setup.domain(SITE, Scripted::ok("")).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", gate.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Commands that open keys leave none either.
    for words in [&["vault", "status"][..], &["vault", "rotate"]] {
        fs::remove_file(&inherited).unwrap();
        let output = gate.command(words);
        assert_eq!(output.code, 0, "{}", output.text());
        let limits = fs::read_to_string(&inherited).unwrap();
        assert!(limits.lines().all(|limit| limit == "0"), "{words:?}: {limits}");
    }
}
