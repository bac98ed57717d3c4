//! AES-256-GCM over a buffer, with a head in plain that is authenticated too.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

/// Octets of GCM's tag.
const TAG_BYTES: usize = 16;

/// A key that seals and opens. AWS-LC draws the nonces, and wipes the key when it is freed.
pub(super) struct Cipher(RandomizedNonceKey);

impl Cipher {
    /// # Errors
    /// If the key has not 32 octets.
    pub(super) fn new(key: &[u8]) -> Result<Self, Unspecified> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(Self)
    }

    /// `head`, nonce, ciphertext and tag. `head` and `context` are authenticated; `head` must have the same length
    /// whenever this key is used, so that no octet passes from one to the other.
    ///
    /// # Errors
    /// If there is no randomness.
    pub(super) fn seal(&self, head: &[u8], context: &[u8], secret: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let secret_at = head.len() + NONCE_LEN;
        // Room for all of it at once: a buffer that grows leaves the secret behind. Wiped where sealing fails.
        let mut sealed = Zeroizing::new(Vec::with_capacity(secret_at + secret.len() + TAG_BYTES));
        sealed.extend_from_slice(head);
        sealed.extend_from_slice(&[0; NONCE_LEN]);
        sealed.extend_from_slice(secret);
        let (before, in_out) = sealed.split_at_mut_checked(secret_at).ok_or(Unspecified)?;
        let (nonce, tag) = self.0.seal_in_place_separate_tag(aad(head, context), in_out)?;
        let nonce_at = before.get_mut(head.len()..).ok_or(Unspecified)?;
        nonce_at.copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(std::mem::take(&mut *sealed))
    }

    /// The secret in `body`, which is what followed `head`.
    ///
    /// # Errors
    /// If it was changed, or sealed by another key, with another head or for another context.
    pub(super) fn open(&self, head: &[u8], context: &[u8], body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let (nonce, ciphertext) = body.split_first_chunk::<NONCE_LEN>().ok_or(Unspecified)?;
        let mut in_out = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret_bytes = self.0.open_in_place(nonce, aad(head, context), &mut in_out)?.len();
        in_out.truncate(secret_bytes);
        Ok(in_out)
    }
}

fn aad(head: &[u8], context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([head, context].concat())
}
