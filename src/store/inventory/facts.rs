//! The facts of a leaf as octets, so that a start parses no certificate.
//!
//! A version, a CRC-32 (little-endian), and the facts by postcard. The sum is over the leaf, too: SQLite keeps none, and a
//! bit that a disk turned must not make a certificate valid for longer. What does not fit is read from the leaf.

use serde::{Deserialize, Serialize};

use crate::certificate::{Facts, KeyKind, fingerprint};
use crate::clock::UnixTime;
use crate::name::DomainName;

/// Another one is not read: facts that the leaf says anew are better than wrong ones.
const VERSION: u8 = 2;

/// [`Facts`] as written. New fields need a new [`VERSION`].
#[derive(Debug, Serialize, Deserialize)]
struct Written<'f> {
    #[serde(borrow)]
    names: Vec<&'f str>,
    /// Seconds since the epoch, as in X.509.
    not_before: i64,
    not_after: i64,
    issuer: &'f str,
    /// See [`key_code`].
    key: u16,
    /// Of the leaf, which whoever reads has: the form of this version has it.
    fingerprint: [u8; 32],
}

/// The facts of `leaf` as they are kept.
pub(in crate::store) fn encode(facts: &Facts, leaf: &[u8]) -> Vec<u8> {
    let written = Written {
        names: facts.names.iter().map(DomainName::as_str).collect(),
        not_before: facts.not_before.secs(),
        not_after: facts.not_after.secs(),
        issuer: &facts.issuer,
        key: key_code(facts.key_kind),
        fingerprint: fingerprint(leaf),
    };
    // Nothing in it can fail; if it did, they would be read from the leaf.
    let body = postcard::to_stdvec(&written).unwrap_or_default();
    let mut octets = Vec::with_capacity(body.len().saturating_add(5));
    octets.push(VERSION);
    octets.extend(sum(leaf, &body));
    octets.extend(body);
    octets
}

/// What [`encode`] wrote of this very leaf; `None` if it is anything else.
pub(in crate::store) fn decode(octets: &[u8], leaf: &[u8]) -> Option<Facts> {
    let (version, rest) = octets.split_first()?;
    let (summed, body) = rest.split_first_chunk::<4>()?;
    if *version != VERSION || *summed != sum(leaf, body) {
        return None;
    }
    let (written, rest) = postcard::take_from_bytes::<Written<'_>>(body).ok()?;
    let names: Result<_, _> = written.names.into_iter().map(DomainName::parse).collect();
    rest.is_empty().then_some(Facts {
        names: names.ok()?,
        not_before: UnixTime::from_secs(written.not_before),
        not_after: UnixTime::from_secs(written.not_after),
        issuer: written.issuer.into(),
        key_kind: key_kind(written.key)?,
    })
}

fn sum(leaf: &[u8], body: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(leaf);
    sum.update(body);
    sum.finalize().to_le_bytes()
}

/// A kind as a number: that of RSA is its bits, which are at least 2048.
fn key_code(kind: KeyKind) -> u16 {
    match kind {
        KeyKind::EcdsaP256 => 1,
        KeyKind::EcdsaP384 => 2,
        KeyKind::EcdsaP521 => 3,
        KeyKind::Ed25519 => 4,
        KeyKind::Rsa(bits) => bits,
    }
}

fn key_kind(code: u16) -> Option<KeyKind> {
    match code {
        1 => Some(KeyKind::EcdsaP256),
        2 => Some(KeyKind::EcdsaP384),
        3 => Some(KeyKind::EcdsaP521),
        4 => Some(KeyKind::Ed25519),
        2048..=8192 => Some(KeyKind::Rsa(code)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const LEAF: &[u8] = b"a leaf";

    fn facts(key_kind: KeyKind) -> Facts {
        Facts {
            names: ["*.example.com", "192.0.2.1"].map(|name| DomainName::parse(name).unwrap()).into(),
            not_before: UnixTime::from_secs(-5),
            not_after: UnixTime::from_secs(253_402_300_799),
            issuer: "C=US, CN=Ü".into(),
            key_kind,
        }
    }

    #[rstest]
    #[case(KeyKind::EcdsaP256)]
    #[case(KeyKind::EcdsaP384)]
    #[case(KeyKind::EcdsaP521)]
    #[case(KeyKind::Ed25519)]
    #[case(KeyKind::Rsa(2048))]
    #[case(KeyKind::Rsa(8192))]
    fn what_is_written_is_read(#[case] kind: KeyKind) {
        assert_eq!(decode(&encode(&facts(kind), LEAF), LEAF), Some(facts(kind)));
    }

    #[test]
    fn another_leaf_or_version_or_any_other_bit_is_not_read() {
        let octets = encode(&facts(KeyKind::EcdsaP256), LEAF);
        assert_eq!(decode(&octets, b"a leag"), None);
        for at in 0..octets.len() {
            for bit in 0..8 {
                let mut octets = octets.clone();
                octets[at] ^= 1 << bit;
                assert_eq!(decode(&octets, LEAF), None, "{at}");
            }
            assert_eq!(decode(&octets[..at], LEAF), None, "{at}");
        }
        let longer = [&*octets, b"x"].concat();
        assert_eq!(decode(&longer, LEAF), None);
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let octets = [&[VERSION], &sum(LEAF, &body)[..], &body].concat();
            let _ = decode(&octets, LEAF);
        }
    }
}
