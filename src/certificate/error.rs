//! What can be wrong with a certificate and its key, and what would be right.

use std::fmt;

use super::{KeyKind, MAX_CHAIN, MAX_FILE_BYTES};

/// Which file of a pair is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairFile {
    /// The chain.
    Certificate,
    /// The private key.
    Key,
}

impl fmt::Display for PairFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
        })
    }
}

/// Why a chain and a key cannot be used. No message repeats what a key file holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More than [`MAX_FILE_BYTES`].
    #[error("the {file} file has {bytes} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge {
        /// Which.
        file: PairFile,
        /// Its size.
        bytes: u64,
    },
    /// DER, PKCS#12 or another binary format.
    #[error("the {file} file is binary, not PEM")]
    NotPem {
        /// Which.
        file: PairFile,
    },
    /// A section without end, or not base64.
    #[error("the {file} file is not valid PEM: {reason}")]
    BadPem {
        /// Which.
        file: PairFile,
        /// What is wrong in it.
        reason: &'static str,
    },
    /// No `CERTIFICATE` section.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// More than [`MAX_CHAIN`].
    #[error("the certificate file holds {certificates} certificates; a chain has at most {MAX_CHAIN}")]
    ChainTooLong {
        /// How many.
        certificates: usize,
    },
    /// A certificate that is no X.509.
    #[error("certificate {position} of the file cannot be read: {reason}")]
    BadCertificate {
        /// Which of the file, from 1.
        position: usize,
        /// The parser's words.
        reason: String,
    },
    /// A key that no browser or no rustls accepts.
    #[error("the certificate is for a key of the kind {kind}, which is not supported")]
    UnsupportedKey {
        /// `RSA 1024`, `DSA`, an OID...
        kind: String,
    },
    /// No `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY` section.
    #[error("the key file holds no private key")]
    NoKey,
    /// PKCS#8 with a password, or the older `Proc-Type: 4,ENCRYPTED`.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// Damaged, or of an unsupported kind.
    #[error("the private key cannot be read: it is damaged or of an unsupported kind")]
    BadKey,
    /// The vault does not open it (now), or it is not the leaf's.
    #[error("the sealed key does not open: the vault is locked, or what is stored was changed")]
    SealedKey,
    /// The key belongs to no certificate of the file.
    #[error("the key does not fit the certificate: {}", kinds(*certificate, *key))]
    KeyMismatch {
        /// The leaf's kind.
        certificate: KeyKind,
        /// The key's kind.
        key: KeyKind,
    },
    /// The key belongs to a later certificate of the file.
    #[error("the key belongs to certificate {position} of the file, not to the first")]
    LeafNotFirst {
        /// Which of the file, from 1.
        position: usize,
    },
}

impl CertificateError {
    /// Which of the two files is to be changed.
    pub fn file(&self) -> PairFile {
        match self {
            Self::TooLarge { file, .. } | Self::NotPem { file } | Self::BadPem { file, .. } => *file,
            Self::NoCertificate
            | Self::ChainTooLong { .. }
            | Self::BadCertificate { .. }
            | Self::UnsupportedKey { .. }
            | Self::LeafNotFirst { .. } => PairFile::Certificate,
            Self::NoKey | Self::EncryptedKey | Self::BadKey | Self::SealedKey | Self::KeyMismatch { .. } => {
                PairFile::Key
            }
        }
    }

    /// What would be right, as one instruction.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "name a file that holds one chain or one key",
            Self::NotPem { file: PairFile::Certificate } => {
                "convert it: `openssl x509 -inform DER -in FILE` for a certificate, `openssl pkcs12 -in FILE` for a key store"
            }
            Self::NotPem { file: PairFile::Key } => {
                "convert it: `openssl pkey -inform DER -in FILE` for a key, `openssl pkcs12 -nodes -nocerts -in FILE` for a key store"
            }
            Self::BadPem { .. } => "copy the file again, whole, with its BEGIN and END lines",
            Self::NoCertificate => {
                "name a file with `-----BEGIN CERTIFICATE-----` sections; if it holds the key, `cert` and `key` are swapped"
            }
            Self::ChainTooLong { .. } => "name the leaf with its intermediates, not a bundle of roots",
            Self::BadCertificate { .. } => "get the certificate from its issuer again",
            Self::UnsupportedKey { .. } => {
                "get a certificate for an ECDSA P-256, P-384 or P-521, an Ed25519 or an RSA key of 2048 to 8192 bits"
            }
            Self::NoKey => {
                "name a file with a `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY` section; if it holds the certificate, `cert` and `key` are swapped"
            }
            Self::EncryptedKey => "decrypt it: `openssl pkey -in FILE -out NEW`, and let only Lockgate read the result",
            Self::BadKey => {
                "check it with `openssl pkey -check -noout -in FILE`; ECDSA P-256, P-384, P-521, Ed25519 and RSA of 2048 to 8192 bits are supported"
            }
            Self::SealedKey => "look at `lockgate vault status`; if the vault is open, order the certificate again",
            Self::KeyMismatch { .. } => "name the key that the certificate was requested with",
            Self::LeafNotFirst { .. } => {
                "put the leaf first: the certificate of this key, then the intermediate that signed it, and so on"
            }
        }
    }
}

fn kinds(certificate: KeyKind, key: KeyKind) -> String {
    if certificate == key {
        format!("both are {key}, but of two different pairs")
    } else {
        format!("one is {key}, the other for {certificate}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Certificate;
    use super::super::fixture::pair;
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    /// The message, the file to blame and the remedy of every way in which a pair can be broken.
    #[test]
    fn broken_pairs_are_explained() {
        let good = pair(&["www.example.com"]).pem();
        let other = pair(&["www.example.com"]).rsa().pem();
        let (chain, ca_key) = pair(&["www.example.com"]).chain();
        let reversed = {
            let at = chain.cert.rfind("-----BEGIN").unwrap();
            chain.cert[at..].to_owned() + &chain.cert[..at]
        };
        let der = CertificateDer::from_pem_slice(good.cert.as_bytes()).unwrap().to_vec();
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let cut = good.key[..good.key.len() / 2].to_owned();
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let mut told = String::new();
        let mut tell = |what: &str, cert: &[u8], key: &[u8]| {
            let error = Certificate::from_pem(cert, key).unwrap_err();
            told += &format!(
                "{what} ({}): {error}
    {}
",
                error.file(),
                error.remedy()
            );
        };
        tell("empty", b"", b"");
        tell("no key", good.cert.as_bytes(), b"\n");
        tell("swapped", good.key.as_bytes(), good.cert.as_bytes());
        tell("DER", &der, good.key.as_bytes());
        tell("DER key", good.cert.as_bytes(), &der);
        tell("half a certificate", &good.cert.as_bytes()[..200], good.key.as_bytes());
        tell("half a key", good.cert.as_bytes(), cut.as_bytes());
        tell("key on one line", good.cert.as_bytes(), &good.key.replace('\n', "").into_bytes());
        tell("not base64", pem("CERTIFICATE", "!!!!").as_bytes(), good.key.as_bytes());
        tell("not X.509", pem("CERTIFICATE", "MAMCAQE=").as_bytes(), good.key.as_bytes());
        tell(
            "broken intermediate",
            &(good.cert.clone() + &pem("CERTIFICATE", "MAMCAQE=")).into_bytes(),
            good.key.as_bytes(),
        );
        tell("key of garbage", good.cert.as_bytes(), pem("PRIVATE KEY", "MAMCAQE=").as_bytes());
        tell("encrypted", good.cert.as_bytes(), pem("ENCRYPTED PRIVATE KEY", "MAMCAQE=").as_bytes());
        tell("encrypted, old", good.cert.as_bytes(), old.as_bytes());
        tell("another's key", good.cert.as_bytes(), other.key.as_bytes());
        tell("another's certificate", other.cert.as_bytes(), good.key.as_bytes());
        tell("authority first", reversed.as_bytes(), chain.key.as_bytes());
        tell("authority's key", chain.cert.as_bytes(), ca_key.as_bytes());
        tell("a bundle", &chain.cert.repeat(20).into_bytes(), chain.key.as_bytes());
        tell("too large", &vec![b'\n'; MAX_FILE_BYTES + 1], good.key.as_bytes());
        tell("RSA 1024", include_bytes!("fixture/rsa1024.pem"), good.key.as_bytes());
        tell("secp256k1", include_bytes!("fixture/secp256k1.pem"), good.key.as_bytes());
        tell("Ed448", include_bytes!("fixture/ed448.pem"), good.key.as_bytes());
        insta::assert_snapshot!(told);
    }
}
