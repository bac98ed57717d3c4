//! Providers' APIs.

use std::sync::{Arc, Mutex};

use rstest::rstest;

use super::*;

fn api(name: &str, settings: &[&str], secrets: &[&str]) -> Result<(), DnsError> {
    let settings = settings.iter().map(|&key| (key.to_owned(), "http://127.0.0.1:9".to_owned())).collect();
    let secrets = secrets.iter().map(|&key| (key.to_owned(), SecretSource::Env(key.into()))).collect();
    let provider = DnsProvider::Api { name: name.into(), settings, secrets };
    let dns = Dns { provider, ..exec(&["true"], closed_port()) };
    open_with(&dns, SECRET).map(|_| ())
}

#[rstest]
#[case("cloudfare", &[], &["api_token"], "no DNS provider is called `cloudfare`; there are alidns,")]
#[case("cloudflare", &[], &[], "the DNS provider cloudflare needs the secret `api_token`")]
#[case("cloudflare", &["zone"], &["api_token"], "the DNS provider cloudflare has no setting `zone`")]
#[case("dnsimple", &[], &["api_token"], "the DNS provider dnsimple needs the setting `account_id`")]
#[case("ovh", &["endpoint"], &["application_key", "application_secret", "consumer_key"], "Invalid OVH endpoint")]
fn what_a_provider_lacks_is_named(
    #[case] name: &str,
    #[case] settings: &[&str],
    #[case] secrets: &[&str],
    #[case] expected: &str,
) {
    check(api(name, settings, secrets), expected);
}

#[test]
fn every_provider_can_be_opened_with_what_it_needs() {
    let names: Vec<_> = provider_names().collect();
    assert!(names.is_sorted() && names.len() > 50, "{names:?}");
    let needs = names.into_iter().map(|name| provider_needs(name).unwrap());
    let opened = needs.filter_map(|needs| api(needs.name, needs.settings, needs.secrets).err());
    let wrong: Vec<_> = opened.map(|error| error.to_string()).collect();
    // What has a form of its own, and did not get it here.
    let expected = ["cloudns", "huaweicloud", "oraclecloud", "ovh"];
    assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
    for (wrong, expected) in wrong.iter().zip(expected) {
        assert!(wrong.starts_with(&format!("the DNS provider {expected} cannot be used: ")), "{wrong}");
    }
}

/// PowerDNS's API, one zone, kept in memory.
struct PowerDns {
    zone: Arc<Mutex<Vec<String>>>,
    endpoint: String,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl PowerDns {
    async fn start() -> Self {
        let zone = Arc::new(Mutex::new(Vec::<String>::new()));
        let patch = {
            let zone = Arc::clone(&zone);
            move |axum::Json(body): axum::Json<serde_json::Value>| async move {
                let set = &body["rrsets"][0];
                let contents = set["records"].as_array().cloned().unwrap_or_default();
                let contents = contents.iter().map(|record| record["content"].as_str().unwrap().to_owned());
                match set["changetype"].as_str().unwrap() {
                    "EXTEND" => zone.lock().unwrap().extend(contents),
                    "PRUNE" => {
                        let gone: Vec<_> = contents.collect();
                        zone.lock().unwrap().retain(|content| !gone.contains(content));
                    }
                    "DELETE" => zone.lock().unwrap().clear(),
                    _ => *zone.lock().unwrap() = contents.collect(),
                }
                axum::http::StatusCode::NO_CONTENT
            }
        };
        let get = {
            let zone = Arc::clone(&zone);
            move || async move {
                // Long enough for two who do not wait for each other to read the same.
                let records: Vec<_> =
                    zone.lock().unwrap().iter().map(|c| serde_json::json!({"content": c, "disabled": false})).collect();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let sets = match records.is_empty() {
                    true => serde_json::json!([]),
                    false => serde_json::json!([{
                        "name": format!("{CHALLENGE}."), "type": "TXT", "ttl": 60, "records": records, "comments": []
                    }]),
                };
                axum::Json(serde_json::json!({"name": "example.test.", "kind": "Native", "rrsets": sets}))
            }
        };
        let app = axum::Router::new().fallback(axum::routing::get(get).patch(patch));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Self { zone, endpoint, server }
    }

    fn dns(&self, named: &Named, ttl_secs: u64) -> Dns {
        let provider = DnsProvider::Api {
            name: "powerdns".into(),
            settings: vec![("endpoint".into(), self.endpoint.clone())],
            secrets: vec![("api_key".into(), SecretSource::Env("KEY".into()))],
        };
        Dns { provider, ttl: Duration::from_secs(ttl_secs), ..exec(&["true"], named.address) }
    }

    fn values(&self) -> Vec<String> {
        let mut values = self.zone.lock().unwrap().clone();
        values.sort();
        values
    }
}

/// What `dns-update` makes of two values at one name, be they set by one or by two that were opened apart.
#[rstest]
#[tokio::test]
async fn an_api_holds_two_values_at_one_name(#[values(false, true)] are_two: bool) {
    let named = named().await;
    let api = PowerDns::start().await;
    let shelves = Arc::default();
    let first = Arc::new(open_beside(&api.dns(&named, 60), SECRET, &shelves).unwrap());
    // As after a reload, or for a domain with settings of its own.
    let second = match are_two {
        true => Arc::new(open_beside(&api.dns(&named, 120), SECRET, &shelves).unwrap()),
        false => Arc::clone(&first),
    };
    let (one, two) = tokio::join!(first.present(CHALLENGE, "one"), second.present(CHALLENGE, "two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(api.values(), ["\"one\"", "\"two\""]);
    // The same value is one that another holds, too.
    second.set(&one).await.unwrap();
    assert_eq!(api.values().len(), 2);
    first.clear(&one).await.unwrap();
    first.sweep(&one).await.unwrap();
    assert_eq!(api.values().len(), 2);
    second.clear(&one).await.unwrap();
    assert_eq!(api.values(), ["\"two\""]);
    second.clear(&two).await.unwrap();
    assert!(api.values().is_empty());
    api.server.abort();
    _ = api.server.await;
    check(first.present(CHALLENGE, "three").await, "the DNS API of powerdns did not set the TXT record");
}
