//! The key that signs updates (TSIG, RFC 8945).
//!
//! The signing is ours because hickory's knows SHA-256 and longer only, reads the clock itself, and keeps nothing of an
//! unsigned answer: but the unsigned ones are those that say what is wrong with the key (section 5.2).

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::tsig::{
    TSIG, TsigAlgorithm, make_tsig_record, message_tbs, signed_bitmessage_to_buf,
};
use zeroize::Zeroizing;

use crate::clock::UnixTime;

/// By how many seconds the two clocks may differ (section 10 recommends it).
const FUDGE_SECS: u16 = 300;

/// The algorithms of `key_algorithm` (RFC 8945, section 6). MD5 must not be used, the truncated ones nobody does.
pub const ALGORITHMS: [&str; 5] = ["hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1"];

/// A secret that a name server has too.
pub(super) struct Key {
    /// What the server calls it.
    pub(super) name: Name,
    /// One of [`ALGORITHMS`].
    pub(super) algorithm: &'static str,
    wire_algorithm: TsigAlgorithm,
    key: hmac::Key,
}

impl Key {
    /// The key that `name`, one of [`ALGORITHMS`] and a secret in base64 make. The error says what is wrong with which.
    pub(super) fn new(name: &str, algorithm: &str, secret: &[u8]) -> Result<Self, String> {
        let mut key_name = Name::from_ascii(name).map_err(|_| format!("the key name `{name}` is not a domain name"))?;
        key_name.set_fqdn(true);
        let Some(algorithm) = ALGORITHMS.into_iter().find(|known| known.eq_ignore_ascii_case(algorithm)) else {
            return Err(format!("the key algorithm `{algorithm}` is none of {}", ALGORITHMS.join(", ")));
        };
        let (wire_algorithm, hash) = match algorithm {
            "hmac-sha1" => (TsigAlgorithm::HmacSha1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            "hmac-sha224" => (TsigAlgorithm::HmacSha224, hmac::HMAC_SHA224),
            "hmac-sha384" => (TsigAlgorithm::HmacSha384, hmac::HMAC_SHA384),
            "hmac-sha512" => (TsigAlgorithm::HmacSha512, hmac::HMAC_SHA512),
            _ => (TsigAlgorithm::HmacSha256, hmac::HMAC_SHA256),
        };
        let secret = BASE64_STANDARD.decode(secret.trim_ascii());
        let secret = Zeroizing::new(secret.map_err(|_| format!("the secret of the key `{name}` is not base64"))?);
        if secret.is_empty() {
            return Err(format!("the secret of the key `{name}` is empty"));
        }
        Ok(Self { name: key_name, algorithm, wire_algorithm, key: hmac::Key::new(hash, &secret) })
    }

    /// Signs `message`; what is returned is the signature, which the answer's is bound to.
    pub(super) fn sign(&self, message: &mut Message, now: UnixTime) -> Result<Vec<u8>, ProtoError> {
        let secs = u64::try_from(now.secs()).unwrap_or_default();
        let unsigned = TSIG::new(self.wire_algorithm.clone(), secs, FUDGE_SECS, vec![], message.id, None, vec![]);
        let mac = hmac::sign(&self.key, &message_tbs(message, &unsigned, &self.name)?).as_ref().to_vec();
        message.set_signature(Box::new(make_tsig_record(self.name.clone(), unsigned.set_mac(mac.clone()))));
        Ok(mac)
    }

    /// Whether `answer`, which must be a message that can be read, comes from who has the key and answers what was
    /// signed with `mac`. Returns the signed seconds; the error says what is wrong.
    pub(super) fn verify(&self, answer: &[u8], mac: &[u8]) -> Result<u64, &'static str> {
        let Ok((signed, record)) = signed_bitmessage_to_buf(answer, Some(mac), true) else {
            return Err("it has no signature");
        };
        if record.name != self.name || record.data.algorithm != self.wire_algorithm {
            return Err("it names another key");
        }
        hmac::verify(&self.key, &signed, &record.data.mac).map_err(|_| "the signature is wrong")?;
        Ok(record.data.time)
    }

    /// Whether a signature made at `secs` still counts `now` (section 5.2.3).
    pub(super) fn is_fresh(secs: u64, now: UnixTime) -> bool {
        let now = u64::try_from(now.secs()).unwrap_or_default();
        secs.abs_diff(now) <= u64::from(FUDGE_SECS)
    }
}
