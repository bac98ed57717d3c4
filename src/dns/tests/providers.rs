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

/// PowerDNS's API, one zone, kept in memory: what `dns-update` makes of two values at one name.
#[tokio::test]
async fn an_api_holds_two_values_at_one_name() {
    let named = named().await;
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

    let provider = DnsProvider::Api {
        name: "powerdns".into(),
        settings: vec![("endpoint".into(), endpoint)],
        secrets: vec![("api_key".into(), SecretSource::Env("KEY".into()))],
    };
    let records = open(&Dns { provider, ..exec(&["true"], named.address) });
    let (one, two) = tokio::join!(records.present(CHALLENGE, "one"), records.present(CHALLENGE, "two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    let mut shown = zone.lock().unwrap().clone();
    shown.sort();
    assert_eq!(shown, ["\"one\"", "\"two\""]);
    records.clear(&one).await.unwrap();
    assert_eq!(*zone.lock().unwrap(), ["\"two\""]);
    records.clear(&two).await.unwrap();
    assert!(zone.lock().unwrap().is_empty());
    server.abort();
    _ = server.await;
    check(records.present(CHALLENGE, "three").await, "the DNS API of powerdns did not set the TXT record");
}
