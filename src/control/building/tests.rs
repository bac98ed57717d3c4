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
use crate::issuance::{Acme, Authority, CertificateSpec, KeyAlgorithm, Method};
use crate::name::{DomainName, TenantId};
use crate::plan::Plan;
use crate::site::{OriginSpec, SiteSpec, Terms};
use crate::snapshot::Live;
use crate::store::inventory::{CertificateId, Role};
use crate::throttle::Throttle;

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

    /// Serves one domain, held to this plan; gives back its throttle.
    fn serve_with(&mut self, plan: Option<&Plan>) -> Option<Arc<Throttle>> {
        let spec = SiteSpec::new(DomainName::parse("www.example.com").unwrap(), OriginSpec::http("127.0.0.1", 1));
        let terms = Arc::new(Terms { plan: plan.cloned().map(Arc::new), ..Terms::default() });
        let domains = [Arc::new(SiteSpec { terms, ..spec })].into();
        assert!(self.control.apply(Blueprint { domains, ..Blueprint::default() }).unwrap().is_empty());
        self.control.live.snapshot().site("www.example.com").unwrap().throttle.clone()
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

#[rstest]
#[case::ordered(CA, "one", "two", Source::Own)]
#[case::uploaded("", "one", "two", Source::Internal)]
#[case::uploaded_by_whose_it_is_now("", "two", "two", Source::Own)]
#[case::uploaded_by_whose_it_was_before("", "two", "one", Source::Internal)]
fn a_domain_that_changes_its_tenant_keeps_what_was_ordered_for_it_and_nothing_else(
    #[case] ca: &str,
    #[case] stored: &str,
    #[case] now: &str,
    #[case] source: Source,
) {
    let name = "www.example.com";
    let certificate = pair(&[name]).make();
    let before = if now == "one" { "two" } else { "one" };
    let mut world = World::new();
    world.serve(&[(name, before, None)]);
    world.keep(1, stored, ca, name, &certificate);
    world.serve(&[(name, now, None)]);
    assert_eq!(world.source(name), source);
    // A start finds it in the inventory.
    let mut world = World::new();
    world.serve(&[(name, now, None)]);
    world.keep(1, stored, ca, name, &certificate);
    assert_eq!(world.source(name), source);
}

#[rstest]
#[case::ordered(CA, Source::Store)]
#[case::uploaded("", Source::Internal)]
fn a_domain_whose_certificate_is_a_groups_by_now_is_covered_by_what_was_ordered_for_it(
    #[case] ca: &str,
    #[case] source: Source,
) {
    let mut world = World::new();
    world.serve(&[("www.example.com", "two", None)]);
    world.keep(1, "one", ca, "www.example.com", &pair(&["www.example.com"]).make());
    let method = Method {
        authorities: None,
        challenge: None,
        dns: None,
        key: KeyAlgorithm::default(),
        profile: None,
        standby: false,
    };
    let names = ["group.example.com", "www.example.com"].map(|name| DomainName::parse(name).unwrap()).into();
    let group = CertificateSpec { names, tenant: TenantId::new("two"), method: method.clone() };
    let authority = Authority {
        name: "one".to_owned(),
        directory: CA.to_owned(),
        roots: None,
        email: None,
        eab: None,
        profile: None,
        preferred_chain: None,
        is_standby_only: false,
    };
    let authorities = vec![Arc::new(authority)];
    let acme = Acme { agreed_to_terms: true, authorities, method, max_orders: 1, on_demand: None };
    let blueprint =
        Blueprint { acme: Some(Arc::new(acme)), groups: vec![Arc::new(group)], ..world.control.blueprint.clone() };
    assert!(world.control.apply(blueprint).unwrap().is_empty());
    assert_eq!(world.source("www.example.com"), source);
}

#[test]
fn only_a_plan_brings_a_throttle_and_that_outlives_the_plan() {
    let (mut world, plan) = (World::new(), Plan::new("p", 1));
    assert!(world.serve_with(None).is_none(), "nothing would ever engage it");
    let throttle = world.serve_with(Some(&plan)).unwrap();
    throttle.engage(&plan);
    assert!(throttle.admit().is_ok() && throttle.admit().is_err());
    // Its burst is spent. Only a verdict that is lifted brings another one: no world that is published does.
    let others = [Some(Plan::new("q", 1)), None, Some(plan.clone())].map(|plan| world.serve_with(plan.as_ref()));
    assert!(others.iter().flatten().all(|other| Arc::ptr_eq(other, &throttle)));
    let last = others.last().unwrap().as_ref().unwrap();
    last.engage(&plan);
    assert!(last.admit().is_err());
}
