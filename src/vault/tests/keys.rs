//! Key-encryption keys that lie on this machine: their forms, where they lie, and the one that is made.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Barrier;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::*;

/// A raw key that ends with what looks like a line's end.
fn raw_with_newline() -> Vec<u8> {
    let mut raw = kek(1);
    raw[31] = b'\n';
    raw
}

#[rstest]
#[case::raw(kek(1), kek(1))]
#[case::raw_that_ends_like_a_line(raw_with_newline(), raw_with_newline())]
#[case::hex(hex::encode(kek(1)), kek(1))]
#[case::hex_in_capitals(hex::encode_upper(kek(1)), kek(1))]
#[case::hex_and_newline(hex::encode(kek(1)) + "\n", kek(1))]
#[case::base64(STANDARD.encode(kek(1)), kek(1))]
#[case::base64_and_newline(STANDARD.encode(kek(1)) + " \r\n", kek(1))]
#[case::base64_unpadded(STANDARD_NO_PAD.encode(kek(1)), kek(1))]
#[case::base64url(URL_SAFE.encode(kek(1)), kek(1))]
#[case::base64url_unpadded(URL_SAFE_NO_PAD.encode(kek(1)), kek(1))]
#[tokio::test]
async fn a_key_is_the_same_in_every_form(#[case] form: impl Into<Vec<u8>>, #[case] key: Vec<u8>) {
    let (written, plain) = (wrap_with(&form.into()).await, wrap_with(&key).await);
    assert_eq!(written.identity(), plain.identity());
    assert!(plain.unwrap(&first(&written).await).await.is_ok());
}

#[rstest]
#[case::nothing("")]
#[case::white_space(" \n")]
#[case::short("0123456789abcdef")]
#[case::a_password("correct horse battery staple 123")]
#[case::a_password_and_newline("correct horse battery staple 123\n")]
#[case::a_password_of_64("correct horse battery staple 123correct horse battery staple 123")]
#[case::a_password_of_44("correct horse battery staple correct horse 1")]
#[case::a_password_of_43("correct-horse-battery-staple-correct-horse!")]
#[case::raw_and_newline([kek(1), b"\n".to_vec()].concat())]
#[case::raw_cut_short(&kek(1)[..31])]
#[case::twice(kek(1).repeat(2))]
#[case::base64_of_33_octets(STANDARD.encode([kek(1), vec![9]].concat()))]
#[case::zeros([0; 32])]
#[case::zeros_in_hexadecimal("0".repeat(64))]
#[tokio::test]
async fn what_is_no_key_is_refused_and_it_is_said_how_to_make_one(#[case] form: impl Into<Vec<u8>>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    let form = form.into();
    fs::write(&path, &form).unwrap();
    let error = open_file(&path).await.unwrap_err();
    let VaultError::NoKey { place, reason } = &error else { panic!("{error}") };
    assert_eq!(*place, format!("the file {}", path.display()));
    assert!(form.is_empty() || reason.ends_with("make one with `head -c 32 /dev/urandom | base64`"), "{error}");
    assert!(!reason.contains("correct"), "{error}");
}

/// Three places for one key: moving it is no change of it.
#[tokio::test]
async fn a_key_is_known_wherever_it_lies() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault.key");
    fs::write(&path, hex::encode(kek(1))).unwrap();
    let directory = dir.path().to_owned();
    let sources = [
        (SecretSource::File(path.clone()), "file:", format!("the file {}", path.display())),
        (SecretSource::Env("KEK".to_owned()), "env:", "the environment variable KEK".to_owned()),
        (
            SecretSource::Credential("vault.key".to_owned()),
            "credential:",
            "the systemd credential vault.key".to_owned(),
        ),
    ];
    let mut wraps = Vec::new();
    for (source, kind, place) in sources {
        let directory = directory.clone();
        let env = move |name: &str| match name {
            "KEK" => Some(STANDARD.encode(kek(1)).into()),
            "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
            _ => None,
        };
        let wrap = KeyWrap::open_in(&KeySource::Secret(source), env).await.unwrap();
        assert!(wrap.identity().starts_with(kind) && !wrap.was_made(), "{wrap:?}");
        assert_eq!(wrap.place(), place);
        wraps.push(wrap);
    }
    for from in &wraps {
        let (vault, stored) = unlocked(from).await;
        let sealed = vault.seal(SECRET, CONTEXT).unwrap();
        for to in &wraps {
            let restarted = Vault::locked();
            restarted.unlock(to, &stored, LATER).await.unwrap();
            assert_opens(&restarted, &sealed);
        }
    }
}

#[tokio::test]
async fn a_raw_key_comes_from_the_environment_too() {
    let env = |_: &str| Some(std::ffi::OsString::from_vec(raw_with_newline()));
    let wrap = KeyWrap::open_in(&KeySource::Secret(SecretSource::Env("KEK".to_owned())), env).await.unwrap();
    assert_eq!(wrap.identity().split_once(':').unwrap().1.len(), 16);
}

#[rstest]
#[case::another_key(None, "file:")]
#[case::a_service(Some("transit:transit/lockgate"), "transit:transit/lockgate")]
#[case::a_program(Some("exec:/usr/bin/kms"), "exec:/usr/bin/kms")]
#[case::nonsense(Some("\u{1b}[2Jfile"), "[2Jfile")]
#[case::nothing(Some(""), "")]
#[tokio::test]
async fn a_wrong_key_says_which_would_be_right(#[case] wrapped_by: Option<&str>, #[case] named: &str) {
    let (wrap, other) = (wrap_with(&kek(1)).await, wrap_with(&kek(2)).await);
    let mut stored = first(&other).await;
    if let Some(wrapped_by) = wrapped_by {
        // Even if it would open: what it says is compared first.
        stored = WrappedKey { wrapped_by: wrapped_by.to_owned(), ..first(&wrap).await };
    }
    let error = wrap.unwrap(&stored).await.unwrap_err();
    let VaultError::WrongKey { place, wrapped_by } = &error else { panic!("{error}") };
    assert_eq!(place, wrap.place());
    assert!(wrapped_by.starts_with(named) && !error.to_string().contains(char::is_control), "{error}");
    assert_ne!(wrapped_by, wrap.identity());
}

#[tokio::test]
async fn a_wrapped_data_key_with_one_bit_changed_does_not_open() {
    let wrap = wrap_with(&kek(1)).await;
    let stored = first(&wrap).await;
    let check = async |changed: &WrappedKey, what: &str| match wrap.unwrap(changed).await.unwrap_err() {
        VaultError::TamperedDataKey { id, wrapped_by, .. } => {
            assert_eq!((id, wrapped_by.as_str()), (changed.id, wrap.identity()));
        }
        error => panic!("{what}: {error}"),
    };
    for octet in 0..stored.wrapped.len() {
        for bit in 0..8 {
            let mut changed = stored.clone();
            changed.wrapped[octet] ^= 1 << bit;
            check(&changed, &format!("octet {octet}, bit {bit}")).await;
        }
        let wrapped = stored.wrapped[..octet].to_vec();
        check(&WrappedKey { wrapped, ..stored.clone() }, &format!("{octet} octets")).await;
    }
    check(&WrappedKey { id: 2, ..stored.clone() }, "another number").await;
    let wrapped = wrap.wrap(&[1; 31], 1).await.unwrap();
    check(&WrappedKey { wrapped, ..stored.clone() }, "31 octets inside").await;
    assert_eq!(wrap.unwrap(&stored).await.unwrap().len(), 32);
}

fn listed(dir: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_key_is_made_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault.key");
    let source = KeySource::Made(path.clone());
    let wrap = KeyWrap::open(&source).await.unwrap();
    assert!(wrap.was_made() && wrap.identity().starts_with("file:"), "{wrap:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(exposure(&path), None);
    let line = fs::read_to_string(&path).unwrap();
    assert_eq!(hex::decode(line.strip_suffix('\n').unwrap()).unwrap().len(), 32);
    assert_eq!(listed(&dir), [path.as_path()]);

    let again = KeyWrap::open(&source).await.unwrap();
    assert!(!again.was_made());
    assert_eq!(again.identity(), wrap.identity());
    assert_eq!(fs::read_to_string(&path).unwrap(), line);
    assert_eq!(open_file(&path).await.unwrap().identity(), wrap.identity());

    let elsewhere = TempDir::new().unwrap();
    let other = KeyWrap::open(&KeySource::Made(elsewhere.path().join("vault.key"))).await.unwrap();
    assert_ne!(other.identity(), wrap.identity());
}

#[tokio::test]
async fn what_is_there_is_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault.key");
    for there in ["", "half a k", "another's\n"] {
        fs::write(&path, there).unwrap();
        let error = KeyWrap::open(&KeySource::Made(path.clone())).await.unwrap_err();
        assert!(matches!(error, VaultError::NoKey { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), there);
    }
    // Its disk is not mounted, say: a key made elsewhere would be another.
    fs::remove_file(&path).unwrap();
    symlink(dir.path().join("not-mounted/vault.key"), &path).unwrap();
    let error = KeyWrap::open(&KeySource::Made(path.clone())).await.unwrap_err();
    assert!(matches!(error, VaultError::NoKey { .. }), "{error}");
    assert_eq!(listed(&dir), [path]);
}

#[tokio::test]
async fn where_no_key_can_be_made_it_is_said() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("missing/vault.key");
    let error = KeyWrap::open(&KeySource::Made(path)).await.unwrap_err().to_string();
    assert!(error.contains("missing/vault.key: it cannot be made: No such file"), "{error}");
    assert!(error.ends_with("make its directory writable, or name a key in [vault]"), "{error}");
}

#[test]
fn of_many_makers_one_makes_it_and_all_have_it() {
    const MAKERS: usize = 8;
    for _ in 0..20 {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("vault.key");
        let start = Barrier::new(MAKERS);
        let make = || {
            start.wait();
            super::super::local::LocalKey::made(&path).unwrap()
        };
        let made = std::thread::scope(|scope| {
            let makers = (0..MAKERS).map(|_| scope.spawn(make)).collect::<Vec<_>>();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(made.iter().filter(|(_, was_made)| *was_made).count(), 1);
        assert_eq!(made.iter().map(|(key, _)| key.identity()).collect::<HashSet<_>>().len(), 1);
        assert_eq!(listed(&dir), [path]);
    }
}
