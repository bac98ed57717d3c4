//! Roots, an intermediate, and what it signs.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// One intermediate, certified by every root: the same leaf ends in as many chains as there are roots.
pub(super) struct Issuing {
    roots: Vec<CertifiedIssuer<'static, KeyPair>>,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_params: CertificateParams,
    issued: u64,
}

/// What a CSR asks for.
pub(super) struct Requested {
    pub(super) names: Vec<String>,
    key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Requested {
    /// `None` where it is no CSR or its key is of a kind that no CA takes.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (_, csr) = X509CertificationRequest::from_der(der).ok()?;
        let key = &csr.certification_request_info.subject_pki;
        let algorithm = match key.parsed().ok()? {
            PublicKey::RSA(_) => &rcgen::PKCS_RSA_SHA256,
            PublicKey::EC(point) if point.key_size() == 256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            PublicKey::EC(point) if point.key_size() == 384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => return None,
        };
        let mut names = Vec::new();
        for extension in csr.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(alternatives) = extension else { continue };
            names.extend(alternatives.general_names.iter().filter_map(name));
        }
        Some(Self { names, key: key.subject_public_key.data.to_vec(), algorithm })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(address.to_string())
        }
        _ => None,
    }
}

impl Issuing {
    pub(super) fn new() -> Self {
        let intermediate_params = authority("Fault CA Intermediate");
        let intermediate = Issuer::new(intermediate_params.clone(), KeyPair::generate().expect("key"));
        Self { roots: vec![root(0)], intermediate, intermediate_params, issued: 0 }
    }

    /// So many roots besides the first, which stays.
    pub(super) fn offer_alternates(&mut self, count: usize) {
        self.roots.truncate(1 + count);
        self.roots.extend((self.roots.len()..=count).map(root));
    }

    pub(super) fn chains(&self) -> usize {
        self.roots.len()
    }

    pub(super) fn root_pem(&self, chain: usize) -> String {
        self.roots.get(chain).expect("a chain that is offered").pem()
    }

    /// A leaf for this key and these names, valid between these Unix seconds, in PEM.
    pub(super) fn leaf(&mut self, key: &impl PublicKeyData, names: &[String], from: i64, until: i64) -> String {
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from.unsigned_abs());
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until.unsigned_abs());
        // RFC 9773, section 4.1, names a certificate by these two.
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(self.next_serial());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(key, &self.intermediate).expect("certificate").pem()
    }

    /// The leaf with the intermediate that leads to the root of that number.
    pub(super) fn chain(&self, leaf: &str, chain: usize) -> Option<String> {
        let key = self.intermediate.key();
        let intermediate = self.intermediate_params.signed_by(key, self.roots.get(chain)?).expect("intermediate");
        Some(format!("{leaf}{}", intermediate.pem()))
    }

    /// With the highest bit set, so that its DER begins with a zero that an ARI identifier must keep.
    fn next_serial(&mut self) -> SerialNumber {
        self.issued += 1;
        let mut serial = crate::harness::noise(16, self.issued.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        serial[0] |= 0x80;
        SerialNumber::from_slice(&serial)
    }
}

fn root(number: usize) -> CertifiedIssuer<'static, KeyPair> {
    let params = authority(&format!("Fault CA Root {number}"));
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("root")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2099, 1, 1));
    params
}
