//! A certificate whose key lies sealed in the store: small until its first handshake.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::intermediate::{Rest, share_rest};
use super::opened::{OpenedKeys, OpensKeys, Place};
use super::{Facts, key, leaf};

/// Chain and key as stored.
pub(super) struct Sealed {
    /// The leaf and, behind it, the sealed key: one allocation, exactly as large.
    leaf_and_key: Box<[u8]>,
    leaf_len: usize,
    /// The chain behind the leaf, shared by all that have the same.
    rest: Rest,
    keys: Arc<OpenedKeys>,
    /// Where the key hangs while it is open.
    place: Place,
}

impl Sealed {
    pub(super) fn new(chain: &[CertificateDer<'static>], key: &[u8], keys: Arc<OpenedKeys>) -> Self {
        let (leaf, rest) = chain.split_first().map_or((&[][..], chain), |(leaf, rest)| (leaf, rest));
        Self {
            leaf_and_key: [leaf, key].concat().into(),
            leaf_len: leaf.len(),
            rest: share_rest(rest),
            keys,
            place: Place::default(),
        }
    }

    /// The chain as sent, leaf first: the leaf copied, the rest shared if it can be.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let (leaf, _) = self.parts();
        std::iter::once(CertificateDer::from(leaf.to_vec())).chain(self.rest.iter().cloned()).collect()
    }

    pub(super) fn leaf(&self) -> &[u8] {
        self.parts().0
    }

    /// The key, sealed.
    pub(super) fn key(&self) -> &[u8] {
        self.parts().1
    }

    /// The key, opened if it is not open. `facts` are those that the leaf must say of itself.
    pub(super) fn certified_key(&self, facts: &Facts) -> Option<Arc<CertifiedKey>> {
        let open = |vault: &dyn OpensKeys| self.open(facts, vault);
        match &*self.place.get() {
            Some(cell) => self.keys.key(cell, open),
            None => self.keys.key(&self.place.fill(), open),
        }
    }

    /// Whether the key opens, tried now if that is not known, and not kept open.
    pub(super) fn opens(&self, facts: &Facts) -> bool {
        self.keys.opens(&self.place, |vault| self.open(facts, vault))
    }

    /// Whether the key is known not to open, as the vault is now.
    pub(super) fn is_known_broken(&self) -> bool {
        self.keys.is_locked() || self.place.get().as_ref().is_some_and(|cell| self.keys.is_broken(cell))
    }

    /// What was stored is believed only now, when it is about to be served.
    fn open(&self, facts: &Facts, vault: &dyn OpensKeys) -> Option<Arc<CertifiedKey>> {
        let (leaf, sealed) = self.parts();
        let (found, _) = leaf::parse(leaf).ok()?;
        let is_as_said = found.not_before == facts.not_before
            && found.not_after == facts.not_after
            && found.key_kind == facts.key_kind
            && found.names == facts.names;
        if !is_as_said {
            return None;
        }
        let der = vault.open_key(sealed, &key::context_of_leaf(leaf)?)?;
        let key = key::open(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&**der)), leaf)?;
        Some(Arc::new(CertifiedKey::new(self.chain(), key)))
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.leaf_and_key.split_at_checked(self.leaf_len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{DAY, NOW, Stored, TestVault, pair};
    use super::super::{
        Certificate, CertificateError, CertificateSet, CommonRanks, LastResort, Ranks, Source, key_changes,
        key_context_of_leaf,
    };
    use super::*;
    use crate::clock::UnixTime;
    use crate::name::DomainName;
    use rstest::rstest;
    use rustls::SignatureScheme;
    use std::sync::atomic::Ordering;

    const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

    fn keys(max: usize) -> (Arc<TestVault>, Arc<OpenedKeys>) {
        let vault = Arc::new(TestVault::default());
        (Arc::clone(&vault), OpenedKeys::new(vault, max))
    }

    fn stored() -> Stored {
        pair(&["www.example.com", "192.0.2.1"]).chain().0.stored()
    }

    #[test]
    fn it_serves_what_was_sealed_and_asks_the_vault_once() {
        let (vault, keys) = keys(10);
        let stored = stored();
        let certificate = stored.clone().sealed(&keys);
        assert_eq!((certificate.chain(), certificate.facts()), (stored.chain.clone(), &stored.facts));
        assert_eq!(certificate.sealed_key(), Some(&*stored.key));
        assert_eq!((vault.asked.load(Ordering::Relaxed), keys.len()), (0, 0));
        let key = certificate.certified_key().unwrap();
        key.keys_match().unwrap();
        assert_eq!(key.cert, stored.chain);
        assert!(Arc::ptr_eq(&key, &certificate.certified_key().unwrap()));
        assert_eq!((vault.asked.load(Ordering::Relaxed), keys.len()), (1, 1));
        drop(certificate);
        assert!(keys.is_empty(), "the key goes with its certificate");
    }

    #[rstest]
    #[case::as_stored(|_: &mut Stored| {}, true)]
    #[case::longer(|it: &mut Stored| it.facts.not_after = it.facts.not_after.plus_secs(DAY), false)]
    #[case::earlier(|it: &mut Stored| it.facts.not_before = it.facts.not_before.plus_secs(-1), false)]
    #[case::for_another_name(|it: &mut Stored| it.facts.names = [DomainName::parse("example.org").unwrap()].into(), false)]
    #[case::with_another_chain(|it: &mut Stored| it.chain = pair(&["www.example.com"]).pem().stored().chain, false)]
    #[case::without_chain(|it: &mut Stored| it.chain.clear(), false)]
    #[case::with_the_key_of_another(|it: &mut Stored| it.key = pair(&["www.example.com"]).pem().stored().key, false)]
    #[case::with_a_damaged_key(|it: &mut Stored| it.key.truncate(100), false)]
    #[case::with_a_key_that_opens_and_is_another(|it: &mut Stored| {
        let context = key_context_of_leaf(&it.chain[0]).unwrap();
        let other = pair(&["www.example.com"]).pem().stored().key;
        it.key = [&context, &other[context.len()..]].concat();
    }, false)]
    #[case::without_key(|it: &mut Stored| it.key.clear(), false)]
    fn what_was_changed_in_the_store_is_not_served(#[case] change: fn(&mut Stored), #[case] serves: bool) {
        let (vault, keys) = keys(10);
        let mut stored = stored();
        change(&mut stored);
        let certificate = stored.sealed(&keys);
        assert!(!certificate.is_known_broken());
        assert_eq!(certificate.open(), if serves { Ok(()) } else { Err(CertificateError::SealedKey) });
        assert_eq!(certificate.is_known_broken(), !serves);
        let asked = vault.asked.load(Ordering::Relaxed);
        for _ in 0..10 {
            assert_eq!(certificate.certified_key().is_some(), serves);
        }
        assert_eq!(vault.asked.load(Ordering::Relaxed), asked, "no flood of handshakes tries it again");
    }

    #[test]
    fn a_look_whether_it_opens_keeps_nothing_open() {
        let (vault, keys) = keys(10);
        let sound = stored().sealed(&keys);
        let changed = Stored { key: Vec::new(), ..stored() }.sealed(&keys);
        assert!([&sound, &changed].iter().all(|it| !it.is_known_broken()), "nobody has looked");
        let (before, asked) = (key_changes(), vault.asked.load(Ordering::Relaxed));
        assert!(sound.opens() && !changed.opens() && !changed.opens());
        assert_eq!((sound.is_known_broken(), changed.is_known_broken(), keys.len()), (false, true, 0));
        assert!(key_changes() > before && sealed(&sound).place.get().is_none());
        assert!(vault.asked.load(Ordering::Relaxed) <= asked + 2, "what is known is not tried again");
        keys.close_all();
        assert!(!changed.is_known_broken(), "another state of the vault");
    }

    struct Nobody;

    impl LastResort for Nobody {
        fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
            None
        }
    }

    #[test]
    fn while_the_vault_is_locked_the_next_rank_serves() {
        let (vault, keys) = keys(10);
        let domain = DomainName::parse("www.example.com").unwrap();
        let ranks = Ranks { own: vec![stored().sealed(&keys)], ..Ranks::default() };
        let configured = Some(pair(&["fallback.example"]).make());
        let set =
            CertificateSet::new(&domain, ranks, Arc::new(CommonRanks { configured, last_resort: Arc::new(Nobody) }));
        let serving = || set.choose(&domain, NOW, SCHEMES).unwrap().source;
        let vault_becomes = |is_locked| {
            vault.is_locked.store(is_locked, Ordering::Relaxed);
            keys.close_all();
        };
        vault_becomes(true);
        let before = key_changes();
        assert_eq!((serving(), set.standing(&domain, NOW).source), (Source::Configured, Source::Configured));
        assert!(key_changes() > before);
        vault_becomes(false);
        assert_eq!((set.standing(&domain, NOW).source, serving()), (Source::Own, Source::Own));
        vault_becomes(true);
        assert_eq!((keys.len(), serving()), (0, Source::Configured));
    }

    #[test]
    fn of_those_not_used_lately_the_next_is_closed_and_opens_again() {
        let (vault, keys) = keys(3);
        let certificates: Vec<_> = (0..5).map(|_| stored().sealed(&keys)).collect();
        let is_open = |at: usize| {
            let Sealed { place, .. } = sealed(&certificates[at]);
            place.get().as_ref().is_some_and(|cell| cell.is_open())
        };
        let open = |at: usize| certificates[at].certified_key().unwrap();
        [0, 1, 2, 0].into_iter().for_each(|at| drop(open(at)));
        assert_eq!([0, 1, 2, 3, 4].map(is_open), [true, true, true, false, false]);
        open(3);
        assert_eq!([0, 1, 2, 3, 4].map(is_open), [true, false, true, true, false], "0 was used again");
        open(4);
        assert_eq!([0, 1, 2, 3, 4].map(is_open), [true, false, false, true, true]);
        let asked = vault.asked.load(Ordering::Relaxed);
        assert_eq!((open(1).keys_match(), keys.len(), asked), (Ok(()), 3, 5));
    }

    #[test]
    fn never_more_are_open_than_there_is_room_for() {
        let (_, keys) = keys(4);
        let certificates: Vec<_> = (0..8).map(|_| stored().sealed(&keys)).collect();
        std::thread::scope(|scope| {
            for seed in 0..4_usize {
                let (certificates, keys) = (&certificates, &keys);
                scope.spawn(move || {
                    for round in 0..300 {
                        let at = (round * (seed + 1) + seed * round / 3) % certificates.len();
                        assert!(certificates[at].certified_key().is_some());
                        if round % 100 == seed {
                            keys.close_all();
                        }
                        assert!(keys.len() <= 4);
                    }
                });
            }
        });
        let open =
            certificates.iter().filter(|it| sealed(it).place.get().as_ref().is_some_and(|cell| cell.is_open())).count();
        assert_eq!(open, keys.len(), "none is open that the ring does not know");
    }

    #[test]
    fn a_closed_one_is_small() {
        // Beside the leaf, its key and the facts' own texts.
        assert!(size_of::<Certificate>() <= 96, "{}", size_of::<Certificate>());
        let (_, keys) = keys(1);
        let [one, two] = [(), ()].map(|()| pair(&["www.example.com"]).chain().0.stored());
        let two = Stored { chain: [&two.chain[..1], &one.chain[1..]].concat(), ..two };
        let (one, two) = (one.sealed(&keys), two.sealed(&keys));
        assert!(Arc::ptr_eq(&sealed(&one).rest, &sealed(&two).rest));
    }

    fn sealed(certificate: &Certificate) -> &Sealed {
        match &certificate.pair {
            super::super::Pair::Sealed(sealed) => sealed,
            super::super::Pair::Plain(_) => panic!("not sealed"),
        }
    }
}
