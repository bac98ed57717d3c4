//! Intermediates: the same few stand in nearly every chain.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use rustls_pki_types::CertificateDer;
use x509_parser::error::X509Error;

use super::leaf;

/// How many different ones are shared. Public authorities use a few dozen; what comes later is kept per chain.
const MAX_SHARED: usize = 256;

/// The largest that is shared, in octets. With [`MAX_SHARED`] it bounds what is never freed: 2 MiB.
const MAX_SHARED_BYTES: usize = 8 * 1024;

/// Never freed, so that chains can borrow them: rustls takes owned or `'static` certificates, nothing counted.
static SHARED: RwLock<Option<HashSet<&'static [u8]>>> = RwLock::new(None);

/// Checks that `der` is a certificate, and gives back the one copy of it that all chains share.
pub(super) fn share(der: CertificateDer<'static>) -> Result<CertificateDer<'static>, X509Error> {
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
