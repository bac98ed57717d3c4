//! Whose certificates a domain is served with, through the pen's verbs.

use std::fs;
use std::sync::Arc;

use rstest::rstest;
use rustls::SignatureScheme;
use tempfile::TempDir;

use crate::certificate::fixture::{DAY, NOW, Pair, pair};
use crate::certificate::{Certificate, PairPaths, Source};
use crate::clock::UnixTime;
use crate::control::{Blueprint, Control, Kept};
use crate::name::{DomainName, TenantId};
use crate::site::{OriginSpec, SiteSpec};
use crate::snapshot::Live;
use crate::store::inventory::{CertificateId, Role};

const CA: &str = "https://ca.example/directory";

struct World {
    dir: TempDir,
    control: Control,
}

impl World {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), control: Control::new(Arc::new(Live::default())) }
    }

    /// Serves these domains, each with its tenant; of those with files, the stem of their names.
    fn serve(&mut self, domains: &[(&str, &str, Option<&str>)]) {
        let spec = |(name, tenant, files): &(&str, &str, Option<&str>)| {
            let spec = SiteSpec::new(DomainName::parse(name).unwrap(), OriginSpec::http("127.0.0.1", 1));
            let at = |stem: &str, ending| self.dir.path().join(stem).with_extension(ending);
            let certificates = files.iter().map(|stem| PairPaths { cert: at(stem, "pem"), key: at(stem, "key") });
            Arc::new(SiteSpec { tenant: TenantId::new(tenant), certificates: certificates.collect(), ..spec })
        };
        let blueprint = Blueprint { domains: domains.iter().map(spec).collect(), ..Blueprint::default() };
        assert!(self.control.apply(blueprint).unwrap().is_empty());
    }

    fn write(&self, stem: &str, pair: &Pair) {
        fs::write(self.dir.path().join(stem).with_extension("pem"), &pair.cert).unwrap();
        fs::write(self.dir.path().join(stem).with_extension("key"), &pair.key).unwrap();
    }

    fn keep(&mut self, id: i64, tenant: &str, ca: &str, subject: &str, certificate: &Arc<Certificate>) {
        self.control.take_in(vec![Arc::new(Kept {
            id: CertificateId(id),
            subject: DomainName::parse(subject).unwrap(),
            tenant: TenantId::new(tenant),
            role: Role::Own,
            is_on_demand: false,
            ca: ca.into(),
            certificate: Arc::clone(certificate),
            ari: None,
        })]);
    }

    fn source_at(&self, name: &str, now: UnixTime) -> Source {
        let site = self.control.live.snapshot().site(name).cloned().unwrap();
        site.certificates.choose(&site.spec.name, now, &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap().source
    }

    fn source(&self, name: &str) -> Source {
        self.source_at(name, NOW)
    }
}

const WILDCARD: &str = "*.example.com";

#[rstest]
#[case::of_the_same_tenant("one", CA, "one", Source::Store)]
#[case::of_one_that_was_renamed("before", CA, "one", Source::Store)]
#[case::of_a_domain_that_is_anothers_by_now("one", CA, "two", Source::Internal)]
#[case::uploaded_by_the_same("one", "", "two", Source::Store)]
#[case::uploaded_by_another("before", "", "one", Source::Internal)]
fn what_was_ordered_for_a_domain_goes_with_it(
    #[case] stored: &str,
    #[case] ca: &str,
    #[case] now: &str,
    #[case] source: Source,
) {
    let certificate = pair(&[WILDCARD]).make();
    // Taken in before the configuration has the domain, and after.
    let mut before = World::new();
    before.keep(1, stored, ca, WILDCARD, &certificate);
    before.serve(&[("a.example.com", "one", None), (WILDCARD, now, None)]);
    let mut after = World::new();
    after.serve(&[("a.example.com", "one", None), (WILDCARD, now, None)]);
    after.keep(1, stored, ca, WILDCARD, &certificate);
    assert_eq!([before.source("a.example.com"), after.source("a.example.com")], [source; 2]);
}

#[test]
fn what_was_ordered_for_a_domain_that_is_gone_is_whose_it_was() {
    let mut world = World::new();
    world.keep(1, "one", CA, WILDCARD, &pair(&[WILDCARD]).make());
    world.serve(&[("a.example.com", "one", None), ("b.example.com", "two", None)]);
    assert_eq!([world.source("a.example.com"), world.source("b.example.com")], [Source::Store, Source::Internal]);
}

#[test]
fn a_domain_that_moves_to_another_tenant_keeps_what_stood_behind_its_own() {
    let mut world = World::new();
    let name = "www.example.com";
    world.serve(&[(name, "two", None)]);
    world.keep(1, "one", CA, name, &pair(&[name]).make());
    // The newest one is not valid yet.
    world.keep(2, "two", CA, name, &pair(&[name]).valid(DAY, 20 * DAY).make());
    assert_eq!((world.source(name), world.source_at(name, NOW.plus_secs(DAY))), (Source::Store, Source::Own));
}

#[test]
fn files_that_two_tenants_share_cover_the_domains_of_both() {
    let mut world = World::new();
    world.write("shared", &pair(&["a.example.com", "b.example.com", WILDCARD]).pem());
    world.serve(&[
        ("a.example.com", "one", Some("shared")),
        ("b.example.com", "two", Some("shared")),
        ("c.example.com", "one", None),
        ("d.example.com", "two", None),
        ("e.example.com", "three", None),
    ]);
    let sources = ["c.example.com", "d.example.com", "e.example.com"].map(|name| world.source(name));
    assert_eq!(sources, [Source::Store, Source::Store, Source::Internal]);
}
