//! `origin` and `origin_tls`: the server behind a domain.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

use super::diagnostic::{Wrong, shown};
use super::keys;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::source::read_regular;
use super::values::{host, path};
use crate::name::{DomainName, Kind};
use crate::site::{OriginSpec, OriginTls, Scheme};

const EXAMPLE: &str = "write \"http://10.0.0.2:8080\" or \"https://origin.example.com\"";

/// Roots to trust.
pub type Roots = Arc<[CertificateDer<'static>]>;

/// The files of `ca` and `ca_file` read so far: thousands of domains may name the same one.
#[derive(Debug, Default)]
pub struct CaFiles(HashMap<PathBuf, Result<Roots, Wrong>>);

/// Reads a domain's `origin` and `origin_tls`; `None` if there is no usable origin, which is reported.
pub fn read(domain: &Reader, base: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> Option<OriginSpec> {
    let origin = domain.require("origin", "\"http://10.0.0.2:8080\"", problems, one_origin);
    let tls = domain.table("origin_tls", &keys::ORIGIN_TLS, problems);
    let tls_spec = tls.map(|table| read_tls(&table, base, ca_files, problems)).unwrap_or_default();
    let origin = origin?;
    if let (Some(table), Scheme::Http) = (tls, origin.scheme) {
        let wrong =
            Wrong::new("`origin_tls` without TLS: the origin is `http`", "write an `https` origin, or leave it out");
        problems.report(table.place, wrong);
    }
    Some(OriginSpec { tls: tls_spec, ..origin })
}

/// How a domain's origin is written, if nothing else says anything of it.
pub fn written_alone<'t>(domain: &Reader<'t, '_>) -> Option<&'t str> {
    let url = domain.value("origin")?.only().ok()?.string()?;
    domain.value("origin_tls").is_none().then_some(url)
}

fn read_tls(table: &Reader, base: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> OriginTls {
    let sni = table.read("sni", problems, host);
    let ca = table.read("ca", problems, |v| ca_files.get(path(v, base)?));
    let insecure = table.read("insecure", problems, Value::boolean).unwrap_or_default();
    if let (true, Some(value)) = (insecure, table.value("ca")) {
        let message = "`ca` beside `insecure = true`, which verifies nothing";
        problems.report(value.place, Wrong::new(message, "leave out `insecure` to verify the origin, or `ca` not to"));
    }
    OriginTls { sni, ca, insecure }
}

impl CaFiles {
    /// The certificates in the file `path`.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn get(&mut self, path: PathBuf) -> Result<Roots, Wrong> {
        self.0.entry(path).or_insert_with_key(|path| read_ca(path)).clone()
    }
}

/// The certificates of a file, as far as rustls takes each of them as a root.
fn read_ca(path: &Path) -> Result<Roots, Wrong> {
    let named = |what: &str| format!("the CA file `{}` {what}", shown(&path.to_string_lossy()));
    let remedy = "name a file of PEM certificates (-----BEGIN CERTIFICATE-----)";
    let text = read_regular(path).map_err(|e| match e.line() {
        Some(_) => Wrong::new(named("is not PEM"), remedy),
        None => Wrong::new(named(&e.to_string()), e.remedy()),
    })?;
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let nth = roots.len() + 1;
        let certificate = certificate.map_err(|e| Wrong::new(named(&format!("is damaged: {}", damage(&e))), remedy))?;
        if RootCertStore::empty().add(certificate.clone()).is_err() {
            return Err(Wrong::new(named(&format!("holds, as number {nth}, what is no X.509 certificate")), remedy));
        }
        roots.push(certificate);
    }
    if roots.is_empty() {
        return Err(Wrong::new(named("holds no certificate"), remedy));
    }
    Ok(roots.into())
}

/// The PEM reader's own words show section labels as numbers.
fn damage(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it is not PEM",
    }
}

/// One URL, alone or in brackets.
fn one_origin(value: &Value) -> Result<OriginSpec, Wrong> {
    match value.only() {
        Ok(value) => match value.string() {
            Some(text) => url(text.trim()),
            None => Err(value.expected("a URL", EXAMPLE)),
        },
        Err(0) => Err(Wrong::new("`origin` is empty", EXAMPLE)),
        Err(_) => Err(Wrong::new("several origins are not supported by this version of lockgate", "write one")),
    }
}

fn url(text: &str) -> Result<OriginSpec, Wrong> {
    let not_an_origin =
        |remedy: &str| Wrong::new(format!("`{}` is not the URL of an origin", shown(text)), remedy.to_owned());
    let Some((scheme, rest)) = text.split_once("://") else {
        let with_scheme = format!("http://{text}");
        return Err(match url(&with_scheme) {
            Ok(_) => not_an_origin(&format!("write \"{with_scheme}\"")),
            Err(_) => not_an_origin(EXAMPLE),
        });
    };
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        "h2c" => {
            let message = "`h2c` origins are not supported by this version of lockgate";
            return Err(Wrong::new(message, format!("write \"http://{}\" if it speaks HTTP/1.1 too", shown(rest))));
        }
        _ => return Err(not_an_origin("the scheme is `http` or `https`")),
    };
    let authority = match rest.split_once(['/', '?', '#']) {
        Some((authority, "")) if rest.ends_with('/') => authority,
        Some((authority, _)) => {
            let bare = format!("{}://{}", scheme_text(scheme), shown(authority));
            return Err(not_an_origin(&format!("requests keep their own path and query: write \"{bare}\"")));
        }
        None => rest,
    };
    if authority.contains('@') {
        return Err(not_an_origin("leave out the user name and password: lockgate does not log in to origins"));
    }
    let (host, port) = host_and_port(authority).ok_or_else(|| {
        not_an_origin("write host and port, as in \"http://10.0.0.2:8080\" or \"http://[fd00::2]:8080\"")
    })?;
    let port = match port {
        None => default_port,
        // `parse` would take a sign.
        Some(digits) => match digits.parse() {
            Ok(port @ 1..) if digits.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err(not_an_origin("the port is a number from 1 to 65535")),
        },
    };
    match DomainName::parse(host) {
        Ok(name) if name.kind() != Kind::Wildcard => {
            Ok(OriginSpec { scheme, host: name.as_str().to_owned(), port, tls: OriginTls::default() })
        }
        _ => Err(not_an_origin("its host must be a host name or an IP address")),
    }
}

fn scheme_text(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`; the brackets go.
fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        ip.parse::<std::net::Ipv6Addr>().ok()?;
        return match port {
            "" => Some((ip, None)),
            _ => Some((ip, Some(port.strip_prefix(':')?))),
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}
