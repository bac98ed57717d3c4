//! `lockgate vault`, and what it is for: no private key lies in plain on the disk, and the key to them all can be changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockgate::certificate::key_context_of_leaf;
use lockgate::clock::UnixTime;
use lockgate::issuance::KeySource;
use lockgate::secret::SecretSource;
use lockgate::store::inventory::Inventory;
use lockgate::vault::{Vault, WrappedKey, rotation};
use rstest::rstest;

use crate::cert_commands::{Site, await_issued, command, json};
use crate::harness::*;

const SHOP: &str = "shop.lockgate.test";

/// A proxy that serves [`SHOP`] with a certificate of this authority.
fn serving(site: &Site, pki: &Pki, authority: &Pebble) -> Lockgate {
    let setup = site.setup(pki, authority).domain(SHOP, Scripted::ok("")).uncertified();
    let gate = setup.expect_error("is not the one that sealed these keys").start();
    await_issued(&gate, SHOP);
    await_source(&gate, "own");
    gate
}

#[track_caller]
fn await_source(gate: &Lockgate, source: &str) {
    let labels = [("domain", SHOP), ("source", source)];
    eventually(&format!("{source} serves"), || {
        gate.metric("lockgate_certificate_not_after_seconds", &labels).map(drop)
    });
}

fn key_file(gate: &Lockgate) -> PathBuf {
    gate.data_dir().join("vault.key")
}

#[track_caller]
fn rotate(gate: &Lockgate, args: &[&str]) -> String {
    let output = command(gate, &[&["vault", "rotate"], args].concat());
    assert_eq!(output.code, 0, "{}", output.text());
    output.stdout
}

/// Killed and started again, it still serves the certificate that it served before.
#[track_caller]
fn assert_survives_a_restart(gate: &mut Lockgate) {
    let leaf = gate.leaf(SHOP);
    gate.kill();
    gate.start_again();
    await_source(gate, "own");
    assert_eq!(gate.leaf(SHOP), leaf);
    assert_eq!(gate.metric("lockgate_vault_unlocked", &[]), Some(1.0));
}

#[test]
fn the_key_is_changed_beside_a_running_process() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let mut gate = serving(&site, &pki, &authority);
    let before = json(&gate, &["vault", "status"]);
    assert_eq!((before["ok"].clone(), before["data_keys"].clone()), (true.into(), 1.into()), "{before}");
    // The certificate's, the account's and the internal authority's.
    assert_eq!(before["sealed_keys"], 3);
    let old = fs::read(key_file(&gate)).unwrap();

    let said = rotate(&gate, &[]);
    assert!(said.contains("vault.key.previous"), "{said}");
    assert_eq!(fs::read(gate.data_dir().join("vault.key.previous")).unwrap(), old);
    assert_ne!(fs::read(key_file(&gate)).unwrap(), old);
    assert_eq!(fs::metadata(key_file(&gate)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!gate.data_dir().join("vault.key.next").exists());
    let after = json(&gate, &["vault", "status"]);
    assert!(after["ok"] == true && after["identity"] != before["identity"], "{after}");
    // What runs goes on and issues: its data keys are the same.
    let leaf = gate.leaf(SHOP);
    assert_eq!(command(&gate, &["cert", "renew", SHOP]).code, 0);
    eventually("the new one serves", || (gate.leaf(SHOP) != leaf).then_some(()));
    assert_survives_a_restart(&mut gate);

    // A fresh data key seals what comes; what was sealed before opens as before. Old keys are kept, each.
    rotate(&gate, &["--data-key"]);
    assert!(gate.data_dir().join("vault.key.previous.2").exists());
    assert_survives_a_restart(&mut gate);
    assert_eq!(json(&gate, &["vault", "status"])["data_keys"], 2);
    assert_eq!(command(&gate, &["cert", "renew", SHOP]).code, 0);
    rotate(&gate, &["--discard-old"]);
    assert!(!gate.data_dir().join("vault.key.previous.3").exists());
    gate.stop();
    gate.start_again();
    await_source(&gate, "own");
}

#[test]
fn the_key_moves_to_another_file_and_a_reload_follows() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let mut gate = serving(&site, &pki, &authority);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("kek");
    let inside = command(&gate, &["vault", "rotate", "--to-file", gate.data_dir().join("kek").to_str().unwrap()]);
    assert_eq!(inside.code, 2, "{}", inside.text());

    // A reload takes no key that opens nothing.
    fs::write(&file, "81".repeat(31) + "07").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    gate.rewrite(|setup| setup.set("vault.key_file", &format!("'{}'", file.display())));
    let refused = gate.reload();
    assert!(refused.code == 2 && refused.stderr.contains("is not the one that sealed"), "{}", refused.text());
    gate.rewrite(|setup| setup.unset("vault."));

    fs::remove_file(&file).unwrap();
    let said = rotate(&gate, &["--to-file", file.to_str().unwrap()]);
    assert!(said.contains(&format!("[vault]\nkey_file = \"{}\"", file.display())), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let status = command(&gate, &["vault", "status"]);
    assert_eq!(status.code, 1, "{}", status.text());
    gate.rewrite(|setup| setup.set("vault.key_file", &format!("'{}'", file.display())));
    let status = command(&gate, &["vault", "status"]);
    assert_eq!(status.code, 0, "{}", status.text());
    assert_eq!(gate.reload().code, 0);
    assert_survives_a_restart(&mut gate);

    let other = Command::new(program())
        .args(["vault", "rotate", "--to-env", "KEK", "-c"])
        .arg(gate.config_file())
        .env("KEK", "3a".repeat(31) + "3b")
        .output()
        .unwrap();
    assert!(other.status.success() && String::from_utf8_lossy(&other.stdout).contains("key_env = \"KEK\""));
}

#[test]
fn with_a_wrong_key_a_fallback_serves_until_the_right_one_is_back() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let mut gate = serving(&site, &pki, &authority);
    let leaf = gate.leaf(SHOP);
    let needed = json(&gate, &["vault", "status"])["identity"].clone();
    gate.stop();
    let right = fs::read(key_file(&gate)).unwrap();
    fs::write(key_file(&gate), "5f".repeat(31) + "60").unwrap();

    gate.start_again();
    let status = json(&gate, &["vault", "status"]);
    assert!(status["ok"] == false, "{status}");
    assert!(status["problem"].as_str().unwrap().contains(needed.as_str().unwrap()), "{status}");
    assert!(status["remedy"].as_str().unwrap().contains(needed.as_str().unwrap()), "{status}");
    gate.await_log(&["is not the one that sealed these keys", needed.as_str().unwrap(), "fallbacks serve"]);
    assert_ne!(gate.leaf(SHOP), leaf);
    // Nothing is rewrapped by a key that opens nothing.
    assert_eq!(command(&gate, &["vault", "rotate"]).code, 1);
    fs::write(key_file(&gate), right).unwrap();
    eventually_within(std::time::Duration::from_secs(40), "the right one serves", || {
        (gate.leaf(SHOP) == leaf).then_some(())
    });
}

/// As a container's runtime mounts one: the file has a directory around it that is another file system, and goes with
/// the container.
#[test]
fn a_key_file_that_cannot_be_replaced_is_not_changed() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let gate = serving(&site, &pki, &authority);
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let (file, mounted) = (key_file(&gate), disk.path("key"));
    fs::copy(&file, &mounted).unwrap();
    assert_eq!(run(Command::new("mount").arg("--bind").args([&mounted, &file])).code, 0);
    let before = fs::read(&file).unwrap();
    let rotated = [&[][..], &["--discard-old"]].map(|how| command(&gate, &[&["vault", "rotate"], how].concat()));
    let status = json(&gate, &["vault", "status"]);
    assert_eq!(run(Command::new("umount").arg(&file)).code, 0);
    for rotated in rotated {
        assert!(rotated.code == 1 && rotated.stderr.contains("nothing was changed"), "{}", rotated.text());
    }
    assert!(status["ok"] == true && status["warnings"] == serde_json::json!([]), "{status}");
    assert!(fs::read(&mounted).unwrap() == before && !gate.data_dir().join("vault.key.next").exists());
}

#[test]
fn a_key_that_is_missing_is_not_made_anew_where_keys_are_sealed() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let mut gate = site
        .setup(&pki, &authority)
        .domain(SHOP, Scripted::ok(""))
        .uncertified()
        .expect_error("the key-encryption key cannot be had")
        .start();
    await_issued(&gate, SHOP);
    gate.stop();
    let away = gate.data_dir().join("away");
    fs::rename(key_file(&gate), &away).unwrap();
    gate.start_again();
    gate.await_log(&["the key-encryption key cannot be had", "fallbacks serve"]);
    assert!(!key_file(&gate).exists());
    assert_eq!(command(&gate, &["vault", "status"]).code, 1);
}

#[test]
fn a_change_of_key_that_was_interrupted_is_finished() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let mut gate = serving(&site, &pki, &authority);
    let old = fs::read(key_file(&gate)).unwrap();
    let next = gate.data_dir().join("vault.key.next");
    let interrupt = |gate: &Lockgate| {
        // As it lies there when the data keys were wrapped, and nothing was renamed yet.
        rotate(gate, &["--discard-old"]);
        fs::rename(key_file(gate), &next).unwrap();
        fs::write(key_file(gate), &old).unwrap();
    };
    interrupt(&gate);
    let status = json(&gate, &["vault", "status"]);
    assert!(status["ok"] == true && status["warnings"].to_string().contains("was interrupted"), "{status}");
    assert!(next.exists(), "whoever looks changes nothing");
    assert_survives_a_restart(&mut gate);
    assert!(!next.exists());
    assert_ne!(fs::read(key_file(&gate)).unwrap(), old);

    interrupt(&gate);
    assert!(rotate(&gate, &[]).contains("that was interrupted is finished"));
    assert!(!next.exists());
    // One that never came into force is in nobody's way.
    fs::write(&next, "half a k").unwrap();
    assert_survives_a_restart(&mut gate);
    rotate(&gate, &[]);
    assert_survives_a_restart(&mut gate);
}

/// Not in `data_dir`, nor where temporary files go, nor in any log.
#[rstest]
#[case::ecdsa("p256")]
#[case::rsa("rsa2048")]
fn no_private_key_lies_in_plain_on_the_disk(#[case] kind: &str) {
    let (site, pki, temporary) = (Site::new(), Pki::new(), tempfile::tempdir().unwrap());
    let authority = site.authority().start();
    let mut gate = site
        .setup(&pki, &authority)
        .set("acme.key", &format!("'{kind}'"))
        .set("access_log.path", "'access.log'")
        .env("TMPDIR", temporary.path())
        .domain(SHOP, Scripted::ok(""))
        .uncertified()
        .start();
    await_issued(&gate, SHOP);
    await_source(&gate, "own");
    assert_eq!(command(&gate, &["cert", "renew", SHOP]).code, 0);
    assert_eq!(gate.get(SHOP).status, 200);
    let access_log = gate.config_file().with_file_name("access.log");
    eventually("a line", || fs::read(&access_log).is_ok_and(|log| !log.is_empty()).then_some(()));
    // While it runs there are a log, its index and a journal; a kill leaves them as they are.
    let keys = private_keys(&gate.data_dir());
    assert_eq!(keys.len(), 4, "two certificates', the account's and the internal authority's");
    let is_rsa = |key: &&Vec<u8>| key.len() > 1000;
    assert_eq!(keys.iter().filter(is_rsa).count(), if kind == "rsa2048" { 2 } else { 0 });
    // What it said is written down, to be looked through like the rest.
    let said = |gate: &Lockgate| [gate.log(), gate.stdout()].concat().join("\n");
    let places = [gate.data_dir(), temporary.path().to_owned(), access_log.parent().unwrap().to_owned()];
    for round in ["beside the process", "after a kill"] {
        fs::write(temporary.path().join("said"), said(&gate)).unwrap();
        for key in &keys {
            let found: Vec<_> = places.iter().flat_map(|place| find_in(place, key)).collect();
            assert!(found.is_empty(), "{round}: {found:?}");
        }
        if round == "beside the process" {
            gate.kill();
        }
    }
    // It finds what there is to be found.
    for (number, form) in forms(&keys[0]).iter().enumerate() {
        let planted = gate.data_dir().join("planted");
        fs::write(&planted, [b"some octets before it ", form.as_slice(), b" and some after"].concat()).unwrap();
        assert_eq!(find_in(&gate.data_dir(), &keys[0]).len(), 1, "form {number}");
        fs::remove_file(planted).unwrap();
    }
}

/// Every private key that is kept there, PKCS#8.
fn private_keys(data_dir: &Path) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let inventory = Inventory::open_to_read(data_dir).await.unwrap().unwrap();
        let stored: Vec<WrappedKey> = inventory.data_keys().await.unwrap();
        let source = KeySource::Secret(SecretSource::File(data_dir.join("vault.key")));
        let wrap = rotation::find(&source, &stored).await.unwrap().wrap;
        let vault = Vault::locked();
        vault.unlock(&wrap, &stored, UnixTime::from_secs(0)).await.unwrap();
        let mut keys = Vec::new();
        for stored in inventory.certificates().await.unwrap().certificates {
            let context = key_context_of_leaf(&stored.certificate.chain[0]).unwrap();
            keys.push(vault.open(&stored.certificate.sealed_key, &context).unwrap().to_vec());
        }
        for account in inventory.accounts().await.unwrap() {
            let context = format!("acme account\0{}", account.ca);
            keys.push(vault.open(&account.sealed_key, context.as_bytes()).unwrap().to_vec());
        }
        let internal = inventory.secret("internal-ca").await.unwrap().unwrap();
        keys.push(vault.open(&internal.sealed, b"internal-ca").unwrap().to_vec());
        inventory.close().await;
        keys
    })
}

/// The octets that make a key private: a P-256 key's number (RFC 5915, section 3), behind the version of an
/// ECPrivateKey; the first prime of an RSA key (RFC 8017, appendix A.1.2).
fn secret(pkcs8: &[u8]) -> &[u8] {
    let head = [0x02, 0x01, 0x01, 0x04, 0x20];
    if let Some(at) = pkcs8.windows(head.len()).position(|octets| octets == head) {
        return &pkcs8[at + head.len()..][..32];
    }
    let inside = |der| element(der).0;
    let (_, rest) = element(inside(pkcs8));
    let (_, key) = element(rest);
    let mut rest = inside(inside(key));
    // Version, modulus and both exponents come before it.
    for _ in 0..4 {
        rest = element(rest).1;
    }
    let prime = inside(rest);
    assert!(prime.len() >= 128, "an RSAPrivateKey");
    &prime[prime.len() - 128..]
}

/// What an element of DER holds, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (head, length) = match der[1] {
        short @ 0..=127 => (2, usize::from(short)),
        long => {
            let octets = usize::from(long & 0x7f);
            (2 + octets, der[2..2 + octets].iter().fold(0, |length, octet| length << 8 | usize::from(*octet)))
        }
    };
    der[head..].split_at(length)
}

/// Everything by which the key could be told: its octets, and those in base64 at each alignment and in hexadecimal.
fn forms(pkcs8: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![pkcs8.to_vec()];
    let secret = secret(pkcs8);
    forms.extend([secret.to_vec(), hex::encode(secret).into_bytes(), hex::encode_upper(secret).into_bytes()]);
    // PEM breaks lines every 64 characters: each line of the key as it stands there; the first is the same for all keys,
    // and an RSA key's first ones are public.
    let body = STANDARD.encode(pkcs8);
    let secret_at = pkcs8.windows(secret.len()).position(|octets| octets == secret).unwrap();
    let line = (secret_at * 4 / 3).div_ceil(64).max(1);
    forms.extend(body.as_bytes().chunks(64).skip(line).take(1).map(<[u8]>::to_vec));
    for alignment in 0..3 {
        // Characters that neither the octets before nor those behind have a part in.
        let text = STANDARD.encode([&[0; 2][..alignment], secret].concat());
        let from = (alignment * 8).div_ceil(6);
        let whole = (alignment + secret.len()) * 8 / 6;
        let part = &text[from..whole];
        forms.push(part.as_bytes().to_vec());
        forms.push(part.replace('+', "-").replace('/', "_").into_bytes());
    }
    forms
}

/// Files below `dir` that hold the key in any form.
fn find_in(dir: &Path, pkcs8: &[u8]) -> Vec<PathBuf> {
    let forms = forms(pkcs8);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find_in(&path, pkcs8));
        } else if let Ok(octets) = fs::read(&path)
            && forms.iter().any(|form| memchr::memmem::find(&octets, form).is_some())
        {
            found.push(path);
        }
    }
    found
}
