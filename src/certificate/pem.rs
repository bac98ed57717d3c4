//! Chain and key out of PEM (RFC 7468).

use rustls_pki_types::pem::{Error, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateError, MAX_CHAIN, MAX_FILE_BYTES, PairFile};

/// The certificates of a file in their order; other sections are passed over.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = check_text(text, PairFile::Certificate)?;
    let mut chain = Vec::new();
    for section in CertificateDer::pem_slice_iter(text) {
        chain.push(section.map_err(|error| refusal(&error, PairFile::Certificate))?);
        if chain.len() > MAX_CHAIN {
            // Not decoded any further, but counted: the number helps more than "many".
            let certificates = count(text, b"-----BEGIN CERTIFICATE-----");
            return Err(CertificateError::ChainTooLong { certificates });
        }
    }
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    Ok(chain)
}

/// The first private key of a file; certificates and parameters beside it are passed over.
pub(super) fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = check_text(text, PairFile::Key)?;
    // `openssl` writes one or the other, by age of the format.
    if contains(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(CertificateError::EncryptedKey);
    }
    let secret =
        |kind| matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|error| refusal(&error, PairFile::Key))?;
        if secret(kind) {
            return PrivateKeyDer::from_pem(kind, der).ok_or(CertificateError::NoKey);
        }
    }
    Err(CertificateError::NoKey)
}

/// Refuses what is too large or no text; skips the byte order mark that Windows editors write.
fn check_text(text: &[u8], file: PairFile) -> Result<&[u8], CertificateError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(CertificateError::TooLarge { file, bytes: text.len() as u64 });
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // A DER SEQUENCE; UTF-16 shows by its zero bytes.
    if text.first() == Some(&0x30) && !contains(text, b"-----BEGIN ") || text.iter().take(64).any(|b| *b == 0) {
        return Err(CertificateError::NotPem { file });
    }
    Ok(text)
}

/// Says what is wrong without repeating any of it: the parser's own message would quote a key.
fn refusal(error: &Error, file: PairFile) -> CertificateError {
    let reason = match error {
        Error::MissingSectionEnd { .. } => "a section has no END line",
        Error::IllegalSectionStart { .. } => "a BEGIN line does not end in five hyphens",
        Error::Base64Decode(_) => "a section holds something else than base64",
        _ => "a section cannot be read",
    };
    CertificateError::BadPem { file, reason }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

fn count(text: &[u8], needle: &[u8]) -> usize {
    text.windows(needle.len()).filter(|window| *window == needle).count()
}

#[cfg(test)]
mod tests {
    use super::super::Certificate;
    use super::super::fixture::{Pair, mutated, pair};
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::byte_order_mark(|pair: Pair| Pair { cert: format!("\u{feff}{}", pair.cert), key: format!("\u{feff}{}", pair.key) })]
    #[case::windows(|pair: Pair| Pair { cert: pair.cert.replace('\n', "\r\n"), key: pair.key.replace('\n', "\r\n") })]
    #[case::words_between(|pair: Pair| Pair { cert: format!("subject=CN = a\n\n{}", pair.cert), key: format!("Bag Attributes\n{}", pair.key) })]
    #[case::both_in_both(|pair: Pair| Pair { cert: format!("{}{}", pair.key, pair.cert), key: format!("{}{}", pair.cert, pair.key) })]
    #[case::parameters_first(|pair: Pair| Pair { key: format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}", pair.key), ..pair })]
    #[case::second_key_is_ignored(|pair: Pair| Pair { key: format!("{0}{0}", pair.key), ..pair })]
    #[case::begins_with_a_zero(|pair: Pair| Pair { cert: format!("0 s:CN = a\n{}", pair.cert), ..pair })]
    fn untidy_files_are_read(#[case] untidy: fn(Pair) -> Pair) {
        untidy(pair(&["www.example.com"]).pem()).parse().open().unwrap();
    }

    proptest! {
        #[test]
        fn no_pem_makes_it_panic(
            edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            key_edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..3),
            cut in prop_oneof![4 => Just(0), 1 => any::<usize>()],
        ) {
            static PAIR: std::sync::LazyLock<Pair> = std::sync::LazyLock::new(|| pair(&["www.example.com"]).chain().0);
            let cert = mutated(PAIR.cert.as_bytes(), &edits, cut);
            let key = mutated(PAIR.key.as_bytes(), &key_edits, cut);
            if let Err(error) = Certificate::from_pem(&cert, &key) {
                let _ = (error.to_string(), error.remedy(), error.file());
            }
        }
    }
}
