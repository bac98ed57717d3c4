//! An inventory as issuing leaves it behind, and the configuration that goes with it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, net};

use lockgate::certificate::{facts_of, key_context_of_leaf};
use lockgate::clock::{self, UnixTime};
use lockgate::issuance::KeySource;
use lockgate::name::DomainName;
use lockgate::store::inventory::{Inventory, NewCertificate, Provenance, Role};
use lockgate::vault::{KeyWrap, Vault};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::runtime::Runtime;

pub const DOMAINS: usize = 100_000;
/// An authority that is down: nobody listens there.
const DIRECTORY: &str = "https://127.0.0.1:1/directory";
const DAY_SECS: i64 = 86_400;
/// Certificates are of all ages up to this, so that none is due within days.
const AGES_DAYS: usize = 50;
/// Signed certificate timestamps (RFC 6962, section 3.3), of which a leaf holds two or three.
const TIMESTAMPS: (&[u64], usize) = (&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], 260);
/// What else a public leaf says: its policies, where its issuer is, whether it was revoked.
const THE_REST: (&[u64], usize) = (&[1, 3, 6, 1, 4, 1, 55738, 999, 1], 330);

/// Where it lies.
pub struct Stock {
    pub dir: PathBuf,
    pub bytes_per_certificate: u64,
    pub authority: Authority,
}

/// Who signs: an intermediate that all chains share. All leaves are for one key, each sealed by itself.
pub struct Authority {
    intermediate: Issuer<'static, KeyPair>,
    intermediate_der: CertificateDer<'static>,
    leaf_key: KeyPair,
    root: CertificateDer<'static>,
}

pub fn name(i: usize) -> DomainName {
    DomainName::parse(&format!("shop-{i}.example.com")).unwrap()
}

impl Stock {
    /// What lies in `dir`; made if nothing does.
    pub fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let runtime = Runtime::new().unwrap();
        if !dir.join("root.pem").exists() {
            Authority::make(dir);
            runtime.block_on(fill(dir, &Authority::read(dir)));
            fs::write(dir.join("full"), "").unwrap();
        }
        assert!(dir.join("full").exists(), "{} was not filled to the end: remove it", dir.display());
        let bytes = fs::metadata(dir.join("data/certificates.db")).unwrap().len();
        Self { dir: dir.to_owned(), bytes_per_certificate: bytes / DOMAINS as u64, authority: Authority::read(dir) }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn key_source(&self) -> KeySource {
        KeySource::Made(self.data_dir().join("vault.key"))
    }

    /// Two lines for each domain, in front of `origin`; where it listens, and its file.
    pub fn configuration(&self, origin: net::SocketAddr) -> (net::SocketAddr, PathBuf) {
        let [https, admin] = [(), ()].map(|()| net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [https, admin] = [https, admin].map(|socket| socket.local_addr().unwrap());
        let mut text = format!(
            "data_dir = 'data'\n[listen]\nhttps = ['{https}']\nhttp = []\nadmin = '{admin}'\n[acme]\n\
             agree_to_terms = true\n[[acme.ca]]\ndirectory = '{DIRECTORY}'\nca_file = 'root.pem'\n"
        );
        for i in 0..DOMAINS {
            write!(text, "[[domain]]\nname = 'shop-{i}.example.com'\norigin = 'http://{origin}'\n").unwrap();
        }
        let path = self.dir.join("lockgate.toml");
        fs::write(&path, text).unwrap();
        (https, path)
    }
}

async fn fill(dir: &Path, authority: &Authority) {
    let data_dir = dir.join("data");
    fs::create_dir_all(&data_dir).unwrap();
    let now = clock::now();
    let inventory = Inventory::open(&data_dir, now).await.unwrap().inventory;
    let wrap = KeyWrap::open(&KeySource::Made(data_dir.join("vault.key"))).await.unwrap();
    let vault = Vault::locked();
    let made = vault.unlock(&wrap, &[], now).await.unwrap().unwrap();
    inventory.add_data_key(&made).await.unwrap();
    vault.trust(made.id).unwrap();
    for i in 0..DOMAINS {
        let age_secs = (i * 7919 % (AGES_DAYS * 86_400)) as i64;
        inventory.keep(&authority.issue(i, now.plus_secs(-age_secs), &vault, now)).await.unwrap();
    }
    inventory.close().await;
}

impl Authority {
    fn make(dir: &Path) {
        let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::OrganizationName, "An Authority");
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let [root_key, intermediate_key, leaf_key] = [(), (), ()].map(|()| KeyPair::generate().unwrap());
        let root = ca("R1").self_signed(&root_key).unwrap();
        let issuer = Issuer::new(ca("R1"), root_key);
        write("intermediate.pem", ca("E7").signed_by(&intermediate_key, &issuer).unwrap().pem());
        write("intermediate.key", intermediate_key.serialize_pem());
        write("leaf.key", leaf_key.serialize_pem());
        write("root.pem", root.pem());
    }

    fn read(dir: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let der = |name: &str| CertificateDer::from_pem_slice(text(name).as_bytes()).unwrap();
        let key = |name: &str| KeyPair::from_pem(&text(name)).unwrap();
        Self {
            intermediate: Issuer::from_ca_cert_der(&der("intermediate.pem"), key("intermediate.key")).unwrap(),
            intermediate_der: der("intermediate.pem"),
            leaf_key: key("leaf.key"),
            root: der("root.pem"),
        }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// A certificate of 90 days for domain `i`, and its sealed key.
    pub fn issue(&self, i: usize, not_before: UnixTime, vault: &Vault, now: UnixTime) -> NewCertificate {
        let subject = name(i);
        let at = |time: UnixTime| date_time_ymd(1970, 1, 1) + Duration::from_secs(time.secs().unsigned_abs());
        let mut params = CertificateParams::new(vec![subject.as_str().to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.as_str());
        params.not_before = at(not_before);
        params.not_after = at(not_before.plus_secs(90 * DAY_SECS - 1));
        let serial = [&[4, 0x5a], &(i as u64).to_be_bytes()[..], &not_before.secs().to_be_bytes()[..]].concat();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        let padding = [TIMESTAMPS, THE_REST].map(|(oid, octets)| {
            CustomExtension::from_oid_content(
                oid,
                [&[4, 0x82], &(octets as u16).to_be_bytes()[..], &vec![7; octets]].concat(),
            )
        });
        params.custom_extensions = padding.into();
        let leaf = params.signed_by(&self.leaf_key, &self.intermediate).unwrap().der().clone();
        let context = key_context_of_leaf(&leaf).unwrap();
        NewCertificate {
            subject,
            tenant: None,
            role: Role::Own,
            provenance: Provenance::Acme,
            ca: DIRECTORY.into(),
            facts: facts_of(&leaf).unwrap(),
            sealed_key: vault.seal(&self.leaf_key.serialize_der(), &context).unwrap(),
            chain: vec![leaf, self.intermediate_der.clone()],
            at: now,
        }
    }
}
