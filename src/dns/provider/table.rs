//! Which providers there are.

use std::time::Duration;

use dns_update::providers::azuredns::{AzureDnsConfig, AzureEnvironment};
use dns_update::providers::bluecatv2::BluecatV2Config;
use dns_update::providers::edgedns::EdgeDnsConfig;
use dns_update::providers::google_cloud_dns::GoogleCloudDnsConfig;
use dns_update::providers::infoblox::InfobloxConfig;
use dns_update::providers::joker::JokerAuth;
use dns_update::providers::lightsail::LightsailConfig;
use dns_update::providers::oraclecloud::OracleCloudConfig;
use dns_update::providers::route53::Route53Config;
use dns_update::providers::volcengine::VolcengineConfig;
use dns_update::providers::yandexcloud::YandexCloudConfig;
use dns_update::{DnsUpdater, Error};
use zeroize::Zeroizing;

use super::Needs;

/// What the configuration gives, secrets read.
pub(super) struct Given<'a> {
    pub(super) settings: &'a [(String, String)],
    pub(super) secrets: &'a [(String, Zeroizing<String>)],
}

impl Given<'_> {
    /// A setting or a secret; empty where there is none, which `Needs` has ruled out for those it requires.
    fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_default()
    }

    fn find(&self, key: &str) -> Option<&str> {
        let setting = self.settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        setting.or_else(|| self.secrets.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()))
    }

    fn owned(&self, key: &str) -> String {
        self.get(key).to_owned()
    }

    fn owned_if_any(&self, key: &str) -> Option<String> {
        self.find(key).map(str::to_owned)
    }
}

/// A row of the table for one whose secrets and settings are all there is to say.
const fn simple(
    name: &'static str,
    settings: &'static [&'static str],
    secrets: &'static [&'static str],
    open: fn(&Given) -> dns_update::Result<DnsUpdater>,
) -> Needs {
    Needs { name, settings, optional_settings: &[], secrets, optional_secrets: &[], ttl_min_secs: 0, open }
}

impl Needs {
    const fn ttl(self, min_secs: u32) -> Self {
        Self { ttl_min_secs: min_secs, ..self }
    }

    const fn optional(self, settings: &'static [&'static str], secrets: &'static [&'static str]) -> Self {
        Self { optional_settings: settings, optional_secrets: secrets, ..self }
    }
}

/// How long one HTTP request may take.
const T: Option<Duration> = Some(Duration::from_secs(20));

/// By name, in the order of the alphabet.
#[rustfmt::skip]
pub(super) static PROVIDERS: &[Needs] = &[
    simple("alidns", &[], &["access_key_id", "access_key_secret"], |g| DnsUpdater::new_alidns(
        g.get("access_key_id"), g.get("access_key_secret"), g.find("region"), g.find("security_token"), g.find("line"), T,
    )).optional(&["region", "line"], &["security_token"]).ttl(600),
    simple("arvancloud", &[], &["api_key"], |g| DnsUpdater::new_arvancloud(g.get("api_key"), T)),
    simple("autodns", &["username"], &["password"], |g| {
        let context = g.find("context").map(str::parse).transpose();
        let context = context.map_err(|_| Error::Parse("`context` is not a number".into()))?;
        DnsUpdater::new_autodns(g.get("username"), g.get("password"), context, T)
    }).optional(&["context"], &[]),
    simple("azure", &["tenant_id", "client_id", "subscription_id", "resource_group"], &["client_secret"], |g| {
        DnsUpdater::new_azuredns(AzureDnsConfig {
            tenant_id: g.owned("tenant_id"),
            client_id: g.owned("client_id"),
            client_secret: g.owned("client_secret"),
            subscription_id: g.owned("subscription_id"),
            resource_group: g.owned("resource_group"),
            environment: AzureEnvironment::from_str_lossy(g.get("environment")),
            request_timeout: T,
        })
    }).optional(&["environment"], &[]),
    simple("baiducloud", &[], &["access_key", "secret_key"], |g| {
        DnsUpdater::new_baiducloud(g.get("access_key"), g.get("secret_key"), T)
    }),
    simple("bluecat", &["server_url", "username", "config_name", "view_name"], &["password"], |g| {
        DnsUpdater::new_bluecatv2(BluecatV2Config {
            server_url: g.owned("server_url"),
            username: g.owned("username"),
            password: g.owned("password"),
            config_name: g.owned("config_name"),
            view_name: g.owned("view_name"),
            skip_deploy: false,
            request_timeout: T,
        })
    }),
    simple("bunny", &[], &["api_key"], |g| DnsUpdater::new_bunny(g.get("api_key"), T)),
    simple("cloudflare", &[], &["api_token"], |g| DnsUpdater::new_cloudflare(g.get("api_token"), T)).ttl(60),
    simple("cloudns", &[], &["auth_password"], |g| {
        DnsUpdater::new_cloudns(g.find("auth_id"), g.find("sub_auth_id"), g.get("auth_password"), T)
    }).optional(&["auth_id", "sub_auth_id"], &[]).ttl(60),
    simple("constellix", &[], &["api_key", "secret_key"], |g| {
        DnsUpdater::new_constellix(g.get("api_key"), g.get("secret_key"), T)
    }),
    simple("cpanel", &["base_url", "username"], &["api_token"], |g| {
        DnsUpdater::new_cpanel(g.get("base_url"), g.get("username"), g.get("api_token"), T)
    }),
    simple("desec", &[], &["api_token"], |g| DnsUpdater::new_desec(g.get("api_token"), T)).ttl(3600),
    simple("digitalocean", &[], &["api_token"], |g| DnsUpdater::new_digitalocean(g.get("api_token"), T)).ttl(30),
    simple("dnsimple", &["account_id"], &["api_token"], |g| {
        DnsUpdater::new_dnsimple(g.get("api_token"), g.get("account_id"), T)
    }),
    simple("dnsmadeeasy", &[], &["api_key", "api_secret"], |g| {
        DnsUpdater::new_dnsmadeeasy(g.get("api_key"), g.get("api_secret"), T)
    }),
    simple("domeneshop", &[], &["api_token", "api_secret"], |g| {
        DnsUpdater::new_domeneshop(g.get("api_token"), g.get("api_secret"), T)
    }),
    simple("dreamhost", &[], &["api_key"], |g| DnsUpdater::new_dreamhost(g.get("api_key"), T)),
    simple("dynu", &[], &["api_key"], |g| DnsUpdater::new_dynu(g.get("api_key"), T)),
    simple("easydns", &[], &["api_token", "api_key"], |g| {
        DnsUpdater::new_easydns(g.get("api_token"), g.get("api_key"), T)
    }),
    simple("edgedns", &["host"], &["client_token", "client_secret", "access_token"], |g| {
        DnsUpdater::new_edgedns(EdgeDnsConfig {
            host: g.owned("host"),
            client_token: g.owned("client_token"),
            client_secret: g.owned("client_secret"),
            access_token: g.owned("access_token"),
            account_switch_key: g.owned_if_any("account_switch_key"),
            request_timeout: T,
        })
    }).optional(&["account_switch_key"], &[]),
    simple("exoscale", &[], &["api_key", "api_secret"], |g| {
        DnsUpdater::new_exoscale(g.get("api_key"), g.get("api_secret"), T)
    }),
    simple("gandi", &[], &["personal_access_token"], |g| {
        DnsUpdater::new_gandiv5(g.get("personal_access_token"), T)
    }).ttl(300),
    simple("gcore", &[], &["api_token"], |g| DnsUpdater::new_gcore(g.get("api_token"), T)),
    simple("glesys", &["api_user"], &["api_key"], |g| DnsUpdater::new_glesys(g.get("api_user"), g.get("api_key"), T)),
    simple("godaddy", &[], &["api_key", "api_secret"], |g| {
        DnsUpdater::new_godaddy(g.get("api_key"), g.get("api_secret"), T)
    }).ttl(600),
    simple("google_cloud_dns", &["project_id"], &["service_account_json"], |g| {
        DnsUpdater::new_google_cloud_dns(GoogleCloudDnsConfig {
            service_account_json: g.owned("service_account_json"),
            project_id: g.owned("project_id"),
            managed_zone: g.owned_if_any("managed_zone"),
            private_zone: false,
            impersonate_service_account: g.owned_if_any("impersonate_service_account"),
            request_timeout: T,
        })
    }).optional(&["managed_zone", "impersonate_service_account"], &[]),
    simple("hetzner", &[], &["api_token"], |g| DnsUpdater::new_hetzner(g.get("api_token"), T)).ttl(60),
    simple("hostingde", &[], &["api_key"], |g| DnsUpdater::new_hostingde(g.get("api_key"), T)),
    simple("hostinger", &[], &["api_token"], |g| DnsUpdater::new_hostinger(g.get("api_token"), T)),
    simple("huaweicloud", &["region"], &["access_key", "secret_key"], |g| {
        DnsUpdater::new_huaweicloud(g.get("access_key"), g.get("secret_key"), g.get("region"), T)
    }),
    simple("ibmcloud", &["username"], &["api_key"], |g| DnsUpdater::new_ibmcloud(g.get("username"), g.get("api_key"), T)),
    simple("infoblox", &["host", "username"], &["password"], |g| DnsUpdater::new_infoblox(InfobloxConfig {
        host: g.owned("host"),
        port: g.owned_if_any("port"),
        username: g.owned("username"),
        password: g.owned("password"),
        wapi_version: g.owned_if_any("wapi_version"),
        dns_view: g.owned_if_any("dns_view"),
        request_timeout: T,
    })).optional(&["port", "wapi_version", "dns_view"], &[]),
    simple("infomaniak", &[], &["access_token"], |g| DnsUpdater::new_infomaniak(g.get("access_token"), T)).ttl(300),
    simple("inwx", &["username"], &["password"], |g| {
        DnsUpdater::new_inwx(g.get("username"), g.get("password"), false, T)
    }).ttl(300),
    simple("ionos", &[], &["api_key"], |g| DnsUpdater::new_ionos(g.get("api_key"), T)).ttl(60),
    simple("ipv64", &[], &["api_key"], |g| DnsUpdater::new_ipv64(g.get("api_key"), T)),
    simple("joker", &[], &["api_key"], |g| DnsUpdater::new_joker(JokerAuth::api_key(g.get("api_key")), T)).ttl(300),
    simple("lightsail", &[], &["access_key_id", "secret_access_key"], |g| DnsUpdater::new_lightsail(LightsailConfig {
        access_key_id: g.owned("access_key_id"),
        secret_access_key: g.owned("secret_access_key"),
        session_token: g.owned_if_any("session_token"),
        region: g.owned_if_any("region"),
        domain: g.owned_if_any("domain"),
        request_timeout: T,
    })).optional(&["region", "domain"], &["session_token"]),
    simple("linode", &[], &["api_token"], |g| DnsUpdater::new_linode(g.get("api_token"), T)).ttl(300),
    simple("luadns", &["username"], &["api_token"], |g| DnsUpdater::new_luadns(g.get("username"), g.get("api_token"), T)),
    simple("mythicbeasts", &["username"], &["password"], |g| {
        DnsUpdater::new_mythicbeasts(g.get("username"), g.get("password"), T)
    }),
    simple("namecheap", &["api_user", "client_ip"], &["api_key"], |g| DnsUpdater::new_namecheap(
        g.get("api_user"), g.get("api_key"), g.get("client_ip"), g.find("username"), T,
    )).optional(&["username"], &[]).ttl(60),
    simple("namedotcom", &["username"], &["api_token"], |g| {
        DnsUpdater::new_namedotcom(g.get("username"), g.get("api_token"), T)
    }).ttl(300),
    simple("namesilo", &[], &["api_key"], |g| DnsUpdater::new_namesilo(g.get("api_key"), T)),
    simple("netcup", &["customer_number"], &["api_key", "api_password"], |g| {
        DnsUpdater::new_netcup(g.get("customer_number"), g.get("api_key"), g.get("api_password"), T)
    }),
    simple("netlify", &[], &["access_token"], |g| DnsUpdater::new_netlify(g.get("access_token"), T)),
    simple("nifcloud", &[], &["access_key", "secret_key"], |g| {
        DnsUpdater::new_nifcloud(g.get("access_key"), g.get("secret_key"), T)
    }),
    simple("ns1", &[], &["api_key"], |g| DnsUpdater::new_ns1(g.get("api_key"), T)),
    simple("oraclecloud", &["tenancy_ocid", "user_ocid", "fingerprint", "region", "compartment_ocid"], &["private_key"], |g| {
        DnsUpdater::new_oraclecloud(OracleCloudConfig {
            tenancy_ocid: g.owned("tenancy_ocid"),
            user_ocid: g.owned("user_ocid"),
            fingerprint: g.owned("fingerprint"),
            private_key_pem: g.owned("private_key"),
            private_key_password: g.owned_if_any("private_key_password"),
            region: g.owned("region"),
            compartment_ocid: g.owned("compartment_ocid"),
            request_timeout: T,
        })
    }).optional(&[], &["private_key_password"]),
    simple("ovh", &["endpoint"], &["application_key", "application_secret", "consumer_key"], |g| DnsUpdater::new_ovh(
        g.get("application_key"), g.get("application_secret"), g.get("consumer_key"), g.get("endpoint").parse()?, T,
    )).ttl(60),
    simple("plesk", &["base_url"], &["api_key"], |g| DnsUpdater::new_plesk(g.get("base_url"), g.get("api_key"), T)),
    simple("porkbun", &[], &["api_key", "secret_api_key"], |g| {
        DnsUpdater::new_porkbun(g.get("api_key"), g.get("secret_api_key"), T)
    }).ttl(600),
    simple("powerdns", &["endpoint"], &["api_key"], |g| {
        DnsUpdater::new_pdns(g.get("api_key"), g.find("endpoint"), g.find("server_name"), T)
    }).optional(&["server_name"], &[]),
    simple("route53", &[], &["access_key_id", "secret_access_key"], |g| DnsUpdater::new_route53(Route53Config {
        access_key_id: g.owned("access_key_id"),
        secret_access_key: g.owned("secret_access_key"),
        session_token: g.owned_if_any("session_token"),
        region: g.owned_if_any("region"),
        hosted_zone_id: g.owned_if_any("hosted_zone_id"),
        private_zone_only: None,
        endpoint: g.owned_if_any("endpoint"),
    })).optional(&["region", "hosted_zone_id", "endpoint"], &["session_token"]),
    simple("safedns", &[], &["auth_token"], |g| DnsUpdater::new_safedns(g.get("auth_token"), T)),
    simple("scaleway", &[], &["api_token"], |g| DnsUpdater::new_scaleway(g.get("api_token"), T)).ttl(60),
    simple("selectel", &["username", "account_id", "project_id"], &["password"], |g| DnsUpdater::new_selectel(
        g.get("username"), g.get("password"), g.get("account_id"), g.get("project_id"), T,
    )).ttl(60),
    simple("simplycom", &["account_name"], &["api_key"], |g| {
        DnsUpdater::new_simplycom(g.get("account_name"), g.get("api_key"), T)
    }),
    simple("spaceship", &[], &["api_key", "api_secret"], |g| {
        DnsUpdater::new_spaceship(g.get("api_key"), g.get("api_secret"), T)
    }),
    simple("tencentcloud", &[], &["secret_id", "secret_key"], |g| DnsUpdater::new_tencentcloud(
        g.get("secret_id"), g.get("secret_key"), g.find("region"), g.find("session_token"), T,
    )).optional(&["region"], &["session_token"]).ttl(600),
    simple("transip", &["login"], &["private_key"], |g| {
        DnsUpdater::new_transip(g.get("login"), g.get("private_key"), g.find("global_key") == Some("true"), T)
    }).optional(&["global_key"], &[]).ttl(60),
    simple("ultradns", &["username"], &["password"], |g| {
        DnsUpdater::new_ultradns(g.get("username"), g.get("password"), g.owned_if_any("endpoint"), T)
    }).optional(&["endpoint"], &[]),
    simple("vercel", &[], &["api_token"], |g| {
        DnsUpdater::new_vercel(g.get("api_token"), g.find("team_id"), T)
    }).optional(&["team_id"], &[]).ttl(60),
    simple("volcengine", &[], &["access_key", "secret_key"], |g| DnsUpdater::new_volcengine(VolcengineConfig {
        access_key: g.owned("access_key"),
        secret_key: g.owned("secret_key"),
        region: g.owned_if_any("region"),
        host: None,
        scheme: None,
        request_timeout: T,
    })).optional(&["region"], &[]).ttl(600),
    simple("vultr", &[], &["api_key"], |g| DnsUpdater::new_vultr(g.get("api_key"), T)).ttl(120),
    simple("websupport", &[], &["api_key", "secret"], |g| {
        DnsUpdater::new_websupport(g.get("api_key"), g.get("secret"), T)
    }),
    simple("yandexcloud", &["folder_id"], &["iam_token"], |g| DnsUpdater::new_yandexcloud(YandexCloudConfig {
        iam_token_b64: g.owned("iam_token"),
        folder_id: g.owned("folder_id"),
        request_timeout: T,
    })),
    simple("zoneeu", &["username"], &["api_key"], |g| DnsUpdater::new_zoneeu(g.get("username"), g.get("api_key"), T)),
];
