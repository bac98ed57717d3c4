//! Intermediates: the same few stand in nearly every chain.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::CertificateDer;
use x509_parser::error::X509Error;

use super::leaf;

/// How many different ones are shared. Public authorities use a few dozen; what comes later is kept per chain.
const MAX_SHARED: usize = 256;

/// The largest that is shared, in octets. With [`MAX_SHARED`] it bounds what is never freed: 2 MiB.
const MAX_SHARED_BYTES: usize = 8 * 1024;

/// Never freed, so that chains can borrow them: rustls takes owned or `'static` certificates, nothing counted.
static SHARED: RwLock<Option<HashSet<&'static [u8]>>> = RwLock::new(None);

/// Whole chains behind a leaf, each once. Never freed either: what they hold is mostly in [`SHARED`] anyway.
static RESTS: RwLock<Option<Rests>> = RwLock::new(None);

/// Looked up once per certificate at start, and only the operator's own authorities are in it: a fast hash will do.
type Rests = HashMap<Vec<CertificateDer<'static>>, Rest, foldhash::fast::RandomState>;

/// The chain behind a leaf. A pointer and nothing more, because each leaf has one.
pub(super) type Rest = Arc<Vec<CertificateDer<'static>>>;

/// What all certificates with the same chain behind their leaf share. Of what is no certificate nothing is kept.
pub(super) fn share_rest(rest: &[CertificateDer<'static>]) -> Rest {
    let known = |rests: &Option<Rests>| rests.as_ref().and_then(|known| known.get(rest).cloned());
    if let Some(known) = known(&RESTS.read().unwrap_or_else(PoisonError::into_inner)) {
        return known;
    }
    let mut is_good = rest.iter().map(|der| der.len()).sum::<usize>() <= MAX_SHARED_BYTES;
    let each = |der: &CertificateDer<'static>| {
        share(der.clone()).unwrap_or_else(|_| {
            is_good = false;
            der.clone()
        })
    };
    let shared: Vec<_> = rest.iter().map(each).collect();
    let shared = Arc::new(shared);
    let mut rests = RESTS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known(&rests) {
        return known;
    }
    let known = rests.get_or_insert_default();
    if is_good && known.len() < MAX_SHARED {
        known.insert(shared.to_vec(), Arc::clone(&shared));
    }
    shared
}

/// Checks that `der` is a certificate, and gives back the one copy of it that all chains share.
pub(crate) fn share(der: CertificateDer<'static>) -> Result<CertificateDer<'static>, X509Error> {
    let known = |shared: &Option<HashSet<&'static [u8]>>| shared.as_ref().and_then(|set| set.get(&*der).copied());
    if let Some(known) = known(&SHARED.read().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(CertificateDer::from(known));
    }
    leaf::x509(&der)?;
    let mut shared = SHARED.write().unwrap_or_else(PoisonError::into_inner);
    // Somebody may have come first, between the two locks.
    if let Some(known) = known(&shared) {
        return Ok(CertificateDer::from(known));
    }
    let set = shared.get_or_insert_default();
    if set.len() >= MAX_SHARED || der.len() > MAX_SHARED_BYTES {
        return Ok(der);
    }
    let kept: &'static [u8] = Box::leak(der.to_vec().into_boxed_slice());
    set.insert(kept);
    Ok(CertificateDer::from(kept))
}
