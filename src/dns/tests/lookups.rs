//! What name servers say.

use std::net::{Ipv6Addr, UdpSocket};

use rstest::rstest;

use super::*;

#[tokio::test]
async fn the_worlds_name_servers_are_asked() {
    let named = named().await;
    let resolver = Resolver::new(&[named.address]);
    let (v4, v6) = resolver.addresses("alias.example.test").await.unwrap();
    assert_eq!((v4.len(), v6), (2, vec!["2001:db8::1".parse::<Ipv6Addr>().unwrap()]));
    assert_eq!(resolver.addresses("mail.example.test").await.unwrap().1, Vec::<Ipv6Addr>::new());
    let none = resolver.addresses("txt.example.test").await.unwrap();
    assert_eq!(none, (vec![], vec![]), "it exists, and has none");
    assert_eq!(resolver.cname_chain("alias.example.test").await.unwrap(), ["other.example.test", "www.example.test"]);
    assert!(resolver.cname_chain("www.example.test").await.unwrap().is_empty());
    let zone = resolver.name_servers("a.b.www.example.test").await.unwrap();
    assert_eq!(zone, Zone { name: "example.test".into(), servers: vec!["ns.example.test".into()] });
    let mut texts = resolver.txt("txt.example.test").await.unwrap();
    texts.sort();
    assert_eq!(texts, ["one and one", "two"]);
}

#[rstest]
#[case::own("strict.example.test", Some("strict.example.test"))]
#[case::parent("a.strict.example.test", Some("strict.example.test"))]
#[case::wildcard("*.strict.example.test", Some("strict.example.test"))]
#[case::past_a_name_without("www.example.test", Some("example.test"))]
#[case::past_names_that_do_not_exist("a.b.c.example.test", Some("example.test"))]
#[case::an_alias_without_goes_on_upwards("aliased.strict.example.test", Some("strict.example.test"))]
#[tokio::test]
async fn caa_is_looked_for_upwards(#[case] name: &str, #[case] found_at: Option<&str>) {
    let named = named().await;
    let found = Resolver::new(&[named.address]).caa(name).await.unwrap();
    assert_eq!(found.as_ref().map(|found| &*found.found_at), found_at);
    let mut records = found.unwrap().records;
    records.sort_by(|a, b| b.tag.cmp(&a.tag));
    if found_at == Some("strict.example.test") {
        let issue = Caa { is_critical: true, tag: "issue".into(), value: "other.test; account=7".into() };
        let iodef = Caa { is_critical: false, tag: "iodef".into(), value: "mailto:a@example.test".into() };
        assert_eq!(records, [issue, iodef]);
    }
}

#[rstest]
#[case::missing(
    "nothing.example.test",
    "the IPv4 addresses of nothing.example.test: the name does not exist (NXDOMAIN)"
)]
#[case::dangling(
    "_acme-challenge.delegated.example.test",
    "_acme-challenge.delegated.other.test: the name does not exist"
)]
#[case::referral("www.child.example.test", "knows only its own zones and asks no others")]
#[case::foreign("www.elsewhere.test", "refused to answer (REFUSED)")]
#[case::no_name("a..b", "this is not a domain name")]
#[tokio::test]
async fn failures_are_told_apart(#[case] name: &str, #[case] expected: &str) {
    let named = named().await;
    check(Resolver::new(&[named.address]).addresses(name).await, expected);
}

#[tokio::test]
async fn a_name_server_that_is_not_there_is_silent_and_the_next_is_asked() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let named = named().await;
    assert_eq!(Resolver::new(&[address, named.address]).txt("txt.example.test").await.unwrap().len(), 2);
    check(Resolver::new(&[address]).txt("txt.example.test").await, "no answer within 5s");
}
