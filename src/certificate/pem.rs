//! Chain and key out of PEM (RFC 7468).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memchr2;
use rustls_pki_types::pem::{Error, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{CertificateError, MAX_CHAIN, MAX_FILE_BYTES, PairFile};

/// Base64, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The certificates of a file in their order; other sections are passed over.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = check_text(text, PairFile::Certificate)?;
    let mut chain = Vec::new();
    for section in Sections::of(text) {
        // Nothing else is decoded: there may be a key beside them.
        let section = section.map_err(|reason| bad(PairFile::Certificate, reason))?;
        if section.label != b"CERTIFICATE" {
            continue;
        }
        let der = CertificateDer::from_pem_slice(section.whole);
        chain.push(der.map_err(|error| bad(PairFile::Certificate, reason_of(&error)))?);
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
    for section in Sections::of(text) {
        let section = section.map_err(|reason| bad(PairFile::Key, reason))?;
        let kind = match section.label {
            b"PRIVATE KEY" => SectionKind::PrivateKey,
            b"RSA PRIVATE KEY" => SectionKind::RsaPrivateKey,
            b"EC PRIVATE KEY" => SectionKind::EcPrivateKey,
            _ => continue,
        };
        let mut der = decode(section.body).ok_or_else(|| bad(PairFile::Key, NOT_BASE64))?;
        return PrivateKeyDer::from_pem(kind, std::mem::take(&mut *der)).ok_or(CertificateError::NoKey);
    }
    Err(CertificateError::NoKey)
}

/// The octets that a key's lines spell, with no copy of any left anywhere: the parser that reads certificates has buffers
/// that grow, and frees them as they are.
fn decode(body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
    digits.extend(body.iter().filter(|octet| !octet.is_ascii_whitespace()));
    // Room for all of it at once.
    let mut der = Zeroizing::new(vec![0; digits.len()]);
    let length = BASE64.decode_slice(&*digits, &mut der).ok()?;
    der.truncate(length);
    Some(der)
}

const NO_END: &str = "a section has no END line";
const BAD_BEGIN: &str = "a BEGIN line does not end in five hyphens";
const NOT_BASE64: &str = "a section holds something else than base64";

/// A section of a file.
struct Section<'t> {
    /// What its first line names.
    label: &'t [u8],
    /// What stands between its first line and its last.
    body: &'t [u8],
    /// All of it.
    whole: &'t [u8],
}

/// The sections of a file, one after the other; words between them are passed over. It copies nothing.
struct Sections<'t> {
    rest: &'t [u8],
}

impl<'t> Sections<'t> {
    fn of(text: &'t [u8]) -> Self {
        Self { rest: text }
    }

    /// The next line, without its end, and what follows it.
    fn line(text: &'t [u8]) -> Option<(&'t [u8], &'t [u8])> {
        match memchr2(b'\n', b'\r', text).and_then(|end| text.split_at_checked(end)) {
            Some((line, rest)) => Some((line, rest.split_first().map_or(rest, |(_, rest)| rest))),
            None if text.is_empty() => None,
            None => Some((text, &[])),
        }
    }
}

impl<'t> Iterator for Sections<'t> {
    type Item = Result<Section<'t>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut begun: Option<(&'t [u8], &'t [u8], &'t [u8])> = None;
        loop {
            let here = self.rest;
            let Some((line, rest)) = Self::line(here) else { return begun.map(|_| Err(NO_END)) };
            self.rest = rest;
            let up_to = |start: &'t [u8], end: &'t [u8]| start.get(..start.len().saturating_sub(end.len()));
            if let Some(label) = line.strip_prefix(b"-----BEGIN ") {
                let Some(label) = label.trim_ascii_end().strip_suffix(b"-----").filter(|it| !it.ends_with(b"-")) else {
                    return Some(Err(BAD_BEGIN));
                };
                if begun.is_some() {
                    return Some(Err(NO_END));
                }
                begun = Some((label, here, rest));
            } else if let Some((label, whole, body)) = begun
                && line
                    .strip_prefix(b"-----END ")
                    .and_then(|end| end.strip_prefix(label))
                    .is_some_and(|end| end.starts_with(b"-----"))
            {
                let (whole, body) = (up_to(whole, rest).unwrap_or_default(), up_to(body, here).unwrap_or_default());
                return Some(Ok(Section { label, body, whole }));
            }
        }
    }
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

/// Says what is wrong without repeating any of it: the parser's own message would quote the file.
fn reason_of(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => NO_END,
        Error::IllegalSectionStart { .. } => BAD_BEGIN,
        Error::Base64Decode(_) => NOT_BASE64,
        _ => "a section cannot be read",
    }
}

fn bad(file: PairFile, reason: &'static str) -> CertificateError {
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
    #[case::words_with_hyphens(|pair: Pair| Pair { key: format!("-----END PRIVATE KEY-----\n- - -\n{}", pair.key), ..pair })]
    #[case::old_macs(|pair: Pair| Pair { cert: pair.cert.replace('\n', "\r"), key: pair.key.replace('\n', "\r") })]
    #[case::indented(|pair: Pair| Pair { key: pair.key.replace("\n", " \n\t").replace("\t---", "---"), ..pair })]
    #[case::unpadded(|pair: Pair| Pair { key: pair.key.replace('=', ""), ..pair })]
    #[case::damaged_beside_the_key(|pair: Pair| Pair { key: format!("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n{}", pair.key), ..pair })]
    #[case::begins_with_a_zero(|pair: Pair| Pair { cert: format!("0 s:CN = a\n{}", pair.cert), ..pair })]
    fn untidy_files_are_read(#[case] untidy: fn(Pair) -> Pair) {
        untidy(pair(&["www.example.com"]).pem()).parse().open().unwrap();
    }

    #[rstest]
    #[case::another_begins_inside("-----BEGIN PRIVATE KEY-----\nAAAA\n-----BEGIN PRIVATE KEY-----\n", "no END line")]
    #[case::another_ends("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "no END line")]
    #[case::six_hyphens("-----BEGIN PRIVATE KEY------\nAAAA\n-----END PRIVATE KEY-----\n", "five hyphens")]
    #[case::four_hyphens("-----BEGIN PRIVATE KEY----\nAAAA\n-----END PRIVATE KEY-----\n", "five hyphens")]
    #[case::no_base64("-----BEGIN PRIVATE KEY-----\nAA*A\n-----END PRIVATE KEY-----\n", "else than base64")]
    fn a_key_that_is_no_pem_is_told_why(#[case] key: &str, #[case] why: &str) {
        let cert = pair(&["www.example.com"]).pem().cert;
        let error = Certificate::from_pem(cert.as_bytes(), key.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
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
