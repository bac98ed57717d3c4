//! Every rule of the vault, through its verbs, with real files, programs and sockets.

mod keys;
mod places;
mod services;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::issuance::KeySource;
use crate::secret::SecretSource;

/// 2026-06-01T00:00:00Z.
const NOW: UnixTime = UnixTime::from_secs(1_780_272_000);
const LATER: UnixTime = NOW.plus_secs(86_400);
const SECRET: &[u8] = b"-----BEGIN PRIVATE KEY-----";
const CONTEXT: &[u8] = b"certificate:example.com";

/// The `n`-th key-encryption key: 32 octets that are no text.
fn kek(n: u8) -> Vec<u8> {
    (0..32).map(|i: u8| i.wrapping_mul(37).wrapping_add(n.wrapping_mul(101)) | 0x80).collect()
}

/// What a file with this in it wraps with.
async fn wrap_with(key: &[u8]) -> KeyWrap {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), key).unwrap();
    open_file(file.path()).await.unwrap()
}

async fn open_file(path: &Path) -> Result<KeyWrap, VaultError> {
    KeyWrap::open(&KeySource::Secret(SecretSource::File(path.to_owned()))).await
}

/// A vault with one data key, and how that is stored.
async fn unlocked(wrap: &KeyWrap) -> (Vault, Vec<WrappedKey>) {
    let vault = Vault::locked();
    let first = vault.unlock(wrap, &[], NOW).await.unwrap().unwrap();
    vault.trust(first.id).unwrap();
    (vault, vec![first])
}

/// The id of the data key that sealed it.
fn sealed_under(sealed: &[u8]) -> u32 {
    u32::from_be_bytes(sealed[1..5].try_into().unwrap())
}

#[track_caller]
fn assert_opens(vault: &Vault, sealed: &[u8]) {
    assert_eq!(vault.open(sealed, CONTEXT).unwrap().as_slice(), SECRET);
}

#[rstest]
#[case::nothing(0)]
#[case::an_octet(1)]
#[case::a_key(138)]
#[case::a_large_key(2_400)]
#[case::a_megabyte(1 << 20)]
#[tokio::test]
async fn what_is_sealed_opens(#[case] octets: usize) {
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let secret = (0..octets).map(|i| i as u8).collect::<Vec<_>>();
    let sealed = vault.seal(&secret, CONTEXT).unwrap();
    assert_eq!(sealed.len(), 1 + 4 + 12 + octets + 16);
    assert_eq!(*vault.open(&sealed, CONTEXT).unwrap(), secret);
    assert!(octets < 16 || !sealed.windows(16).any(|part| part == &secret[..16]), "it is there in plain");
}

#[tokio::test]
async fn the_same_key_is_never_sealed_alike() {
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let sealed = (0..100).map(|_| vault.seal(SECRET, CONTEXT).unwrap()).collect::<HashSet<_>>();
    let nonces = sealed.iter().map(|sealed| sealed[5..17].to_vec()).collect::<HashSet<_>>();
    assert_eq!((sealed.len(), nonces.len()), (100, 100));
}

#[tokio::test]
async fn a_sealed_key_with_one_bit_changed_does_not_open() {
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let sealed = vault.seal(SECRET, CONTEXT).unwrap();
    for octet in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[octet] ^= 1 << bit;
            let error = vault.open(&changed, CONTEXT).unwrap_err();
            match (octet, error) {
                (0, VaultError::UnknownForm { version }) => assert_eq!(version, changed[0]),
                (1..=4, VaultError::NoDataKey { id }) => assert_eq!(id, sealed_under(&changed)),
                (5.., VaultError::Tampered) => {}
                (_, error) => panic!("octet {octet}, bit {bit}: {error}"),
            }
        }
    }
    assert_opens(&vault, &sealed);
}

/// The head is not only looked at: with two data keys of the same octets, only what is authenticated tells them apart.
#[tokio::test]
async fn the_number_of_the_data_key_is_authenticated() {
    let wrap = wrap_with(&kek(1)).await;
    let mut stored = Vec::new();
    for id in [1, 2] {
        let wrapped = wrap.wrap(&[7; 32], id).await.unwrap();
        stored.push(WrappedKey { id, wrapped_by: wrap.identity().to_owned(), wrapped, made_at: NOW });
    }
    let vault = Vault::locked();
    vault.unlock(&wrap, &stored, NOW).await.unwrap();
    let mut sealed = vault.seal(SECRET, CONTEXT).unwrap();
    assert_eq!(sealed_under(&sealed), 2);
    sealed[4] = 1;
    assert!(matches!(vault.open(&sealed, CONTEXT), Err(VaultError::Tampered)));
}

#[tokio::test]
async fn a_sealed_key_cut_short_or_made_longer_does_not_open() {
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let sealed = vault.seal(SECRET, CONTEXT).unwrap();
    for octets in 0..sealed.len() {
        assert!(matches!(vault.open(&sealed[..octets], CONTEXT), Err(VaultError::Tampered)), "{octets} octets");
    }
    let longer = [&sealed, [0].as_slice()].concat();
    assert!(matches!(vault.open(&longer, CONTEXT), Err(VaultError::Tampered)));
}

#[rstest]
#[case::another_domain(b"certificate:example.org")]
#[case::another_purpose(b"account:example.com")]
#[case::shorter(b"certificate:example.co")]
#[case::longer(b"certificate:example.com.")]
#[case::none(b"")]
#[tokio::test]
async fn what_is_one_owners_does_not_open_for_another(#[case] other: &[u8]) {
    let (vault, _) = unlocked(&wrap_with(&kek(1)).await).await;
    let sealed = vault.seal(SECRET, CONTEXT).unwrap();
    assert!(matches!(vault.open(&sealed, other), Err(VaultError::Tampered)));
    let sealed = vault.seal(SECRET, other).unwrap();
    assert!(matches!(vault.open(&sealed, CONTEXT), Err(VaultError::Tampered)));
}

#[tokio::test]
async fn a_locked_vault_does_nothing() {
    let (vault, wrap) = (Vault::locked(), wrap_with(&kek(1)).await);
    assert!(!vault.is_open());
    assert!(matches!(vault.seal(SECRET, CONTEXT), Err(VaultError::Locked)));
    assert!(matches!(vault.open(b"", CONTEXT), Err(VaultError::Locked)));
    assert!(matches!(vault.rewrap(&wrap, NOW).await, Err(VaultError::Locked)));
    assert!(matches!(vault.renew(&wrap, NOW).await, Err(VaultError::Locked)));
    assert!(matches!(vault.trust(1), Err(VaultError::Locked)));
}

#[tokio::test]
async fn nothing_is_sealed_under_the_first_data_key_before_it_is_stored() {
    let (vault, wrap) = (Vault::locked(), wrap_with(&kek(1)).await);
    let first = vault.unlock(&wrap, &[], NOW).await.unwrap().unwrap();
    assert_eq!((first.id, first.wrapped_by.as_str(), first.made_at), (1, wrap.identity(), NOW));
    assert!(!vault.is_open());
    assert!(matches!(vault.seal(SECRET, CONTEXT), Err(VaultError::Locked)));
    assert!(matches!(vault.renew(&wrap, NOW).await, Err(VaultError::Locked)));
    assert!(matches!(vault.trust(2), Err(VaultError::NoDataKey { id: 2 })));
    assert!(!vault.is_open());

    // A clone is the same vault, on whatever thread.
    let clone = vault.clone();
    std::thread::spawn(move || clone.trust(1)).join().unwrap().unwrap();
    vault.trust(1).unwrap();
    let sealed = vault.seal(SECRET, CONTEXT).unwrap();

    let restarted = Vault::locked();
    assert!(restarted.unlock(&wrap, &[first], LATER).await.unwrap().is_none());
    assert!(restarted.is_open());
    assert_opens(&restarted, &sealed);
}

#[tokio::test]
async fn a_fresh_data_key_seals_once_it_is_stored_and_the_old_ones_still_open() {
    let wrap = wrap_with(&kek(1)).await;
    let (vault, mut stored) = unlocked(&wrap).await;
    let old = vault.seal(SECRET, CONTEXT).unwrap();
    let lost = vault.renew(&wrap, LATER).await.unwrap();
    assert_eq!(sealed_under(&vault.seal(SECRET, CONTEXT).unwrap()), 1, "it may not be stored");
    // The first was not stored, as far as is known; its number is not used again.
    let fresh = vault.renew(&wrap, LATER).await.unwrap();
    assert_eq!((lost.id, fresh.id, fresh.made_at), (2, 3, LATER));
    assert!(matches!(vault.trust(2), Err(VaultError::NoDataKey { id: 2 })));
    vault.trust(3).unwrap();
    let new = vault.seal(SECRET, CONTEXT).unwrap();
    assert_eq!((sealed_under(&old), sealed_under(&new)), (1, 3));

    stored.push(fresh);
    for stored in [[stored[0].clone(), stored[1].clone()], [stored[1].clone(), stored[0].clone()]] {
        let restarted = Vault::locked();
        assert!(restarted.unlock(&wrap, &stored, LATER).await.unwrap().is_none());
        for vault in [&vault, &restarted] {
            assert_opens(vault, &old);
            assert_opens(vault, &new);
            assert_eq!(sealed_under(&vault.seal(SECRET, CONTEXT).unwrap()), 3);
        }
    }
}

#[tokio::test]
async fn two_fresh_data_keys_at_once_are_two() {
    let wrap = wrap_with(&kek(1)).await;
    let (vault, _) = unlocked(&wrap).await;
    let (one, other) = tokio::join!(vault.renew(&wrap, NOW), vault.renew(&wrap, NOW));
    assert_ne!(one.unwrap().id, other.unwrap().id);
}

#[tokio::test]
async fn there_are_only_so_many_data_keys() {
    let wrap = wrap_with(&kek(1)).await;
    let (vault, _) = unlocked(&wrap).await;
    for _ in 1..MAX_DATA_KEYS {
        vault.trust(vault.renew(&wrap, NOW).await.unwrap().id).unwrap();
    }
    assert!(matches!(vault.renew(&wrap, NOW).await, Err(VaultError::Full)));

    let last = WrappedKey { id: u32::MAX, wrapped: wrap.wrap(&kek(9), u32::MAX).await.unwrap(), ..first(&wrap).await };
    vault.unlock(&wrap, &[last], NOW).await.unwrap();
    assert!(matches!(vault.renew(&wrap, NOW).await, Err(VaultError::Full)));
}

async fn first(wrap: &KeyWrap) -> WrappedKey {
    unlocked(wrap).await.1.remove(0)
}

#[tokio::test]
async fn another_key_encryption_key_opens_what_was_sealed_before() {
    let (old_wrap, new_wrap) = (wrap_with(&kek(1)).await, wrap_with(&kek(2)).await);
    let (vault, mut stored) = unlocked(&old_wrap).await;
    let first = vault.seal(SECRET, CONTEXT).unwrap();
    stored.push(vault.renew(&old_wrap, NOW).await.unwrap());
    vault.trust(2).unwrap();
    let second = vault.seal(SECRET, CONTEXT).unwrap();
    // Made, and perhaps stored, but not trusted yet.
    let third = vault.renew(&old_wrap, NOW).await.unwrap();

    let rewrapped = vault.rewrap(&new_wrap, LATER).await.unwrap();
    assert_eq!(rewrapped.iter().map(|key| key.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(rewrapped.iter().all(|key| key.wrapped_by == new_wrap.identity() && key.made_at == LATER));
    assert_opens(&vault, &first);

    let restarted = Vault::locked();
    restarted.unlock(&new_wrap, &rewrapped, LATER).await.unwrap();
    assert_opens(&restarted, &first);
    assert_opens(&restarted, &second);
    assert_eq!(*old_wrap.unwrap(&third).await.unwrap(), *new_wrap.unwrap(&rewrapped[2]).await.unwrap());

    let error = Vault::locked().unlock(&old_wrap, &rewrapped, LATER).await.unwrap_err();
    assert!(matches!(&error, VaultError::WrongKey { wrapped_by, .. } if wrapped_by == new_wrap.identity()), "{error}");
}

#[tokio::test]
async fn unlocking_anew_replaces_every_data_key_or_none() {
    let (wrap, other_wrap) = (wrap_with(&kek(1)).await, wrap_with(&kek(2)).await);
    let (vault, stored) = unlocked(&wrap).await;
    let (other, other_stored) = unlocked(&other_wrap).await;
    let (sealed, others) = (vault.seal(SECRET, CONTEXT).unwrap(), other.seal(SECRET, CONTEXT).unwrap());

    let mixed = [stored[0].clone(), WrappedKey { id: 2, ..other_stored[0].clone() }];
    for wrong in [&mixed[..], &other_stored] {
        assert!(matches!(vault.unlock(&wrap, wrong, LATER).await, Err(VaultError::WrongKey { .. })));
        assert_opens(&vault, &sealed);
        assert!(matches!(vault.open(&others, CONTEXT), Err(VaultError::Tampered)));
    }

    vault.unlock(&other_wrap, &other_stored, LATER).await.unwrap();
    assert_opens(&vault, &others);
    assert!(matches!(vault.open(&sealed, CONTEXT), Err(VaultError::Tampered)));
}

/// What was sealed by an earlier version of Lockgate opens with every later one. These were computed by Python's
/// `cryptography`, from the description alone.
#[tokio::test]
async fn the_forms_stay_what_they_are() {
    let wrap = wrap_with(&kek(1)).await;
    assert_eq!(wrap.identity(), "file:2a13edd7516e339f");
    let wrapped = hex::decode(concat!(
        "016465666768696a6b6c6d6e6f7e9a2776ac20b664173120726d96e7bcc7c18b2746769710361698",
        "d0ab169c40e84d52c39060e6d899f1951b29212e8e"
    ))
    .unwrap();
    let stored = WrappedKey { id: 1, wrapped_by: wrap.identity().to_owned(), wrapped, made_at: NOW };
    let vault = Vault::locked();
    vault.unlock(&wrap, &[stored], NOW).await.unwrap();
    assert_opens(
        &vault,
        &hex::decode(concat!(
            "0100000001c8c9cacbcccdcecfd0d1d2d33c554cf6ab8ebe673d723fee4c4fbd55b4c2cce3413285",
            "09c0841687803c6de80b7267a15b5c8d69b06360"
        ))
        .unwrap(),
    );
}

#[tokio::test]
async fn nothing_that_is_shown_holds_a_secret() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, hex::encode(kek(1))).unwrap();
    let wrap = open_file(&path).await.unwrap();
    let (vault, stored) = unlocked(&wrap).await;
    let data_key = wrap.unwrap(&stored[0]).await.unwrap();
    let shown =
        format!("{vault:?} {wrap:?} {:?} {data_key:?} {}", read_secret(&SecretSource::File(path)), wrap.place());
    assert!(shown.contains("data_keys: 1") && shown.contains(wrap.identity()), "{shown}");
    for secret in [kek(1), data_key.to_vec()] {
        // As hexadecimal, and as a list of octets.
        for spelled in [hex::encode(&secret), format!("{:?}", &secret[..4]).trim_matches(['[', ']']).to_owned()] {
            assert!(!shown.contains(&spelled), "{shown}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_hostile_opens_or_panics(
        blob in prop::collection::vec(any::<u8>(), 0..200),
        context in prop::collection::vec(any::<u8>(), 0..40),
        id in any::<u32>(),
        wrapped_by in "(file:)?.{0,40}",
        head in 0..4_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let wrap = wrap_with(&kek(1)).await;
            let (vault, _) = unlocked(&wrap).await;
            // From noise to what looks right and is not.
            let sealed = match head {
                0 => blob.clone(),
                1 => [&[VERSION], blob.as_slice()].concat(),
                _ => [&[VERSION, 0, 0, 0, 1], blob.as_slice()].concat(),
            };
            assert!(vault.open(&sealed, &context).is_err());
            let wrapped_by = if head == 0 { wrapped_by } else { wrap.identity().to_owned() };
            let hostile = WrappedKey { id, wrapped_by, wrapped: sealed, made_at: NOW };
            let error = vault.unlock(&wrap, &[hostile], NOW).await.unwrap_err().to_string();
            assert!(!error.contains(char::is_control) && error.len() < 2_000, "{error}");
        });
    }
}
