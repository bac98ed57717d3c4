//! `lockgate domain check`

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;

use super::super::ConfigFile;
use super::super::failure::Failure;
use super::reached::{Glass, look};
use super::{approved, asked, behind, configured, running};
use crate::admin::socket::ShownFile;
use crate::checkup::{Facts, LookedUp, Process, Report, Role, Way, examine};
use crate::clock;
use crate::config::{self, Config};
use crate::dns::Resolver;
use crate::name::{DomainName, Kind};
use crate::server::control_socket;

/// How long any one thing that is looked at may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// The label that stands for all names under a wildcard.
const PROBE_LABEL: &str = "lockgate-check";

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// The name to look at: a host name, a wildcard or an address
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Ask this name server instead of the system's
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = name_server)]
    resolver: Option<SocketAddr>,
    /// The port on which the world finds plain HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    http_port: u16,
    /// The port on which the world finds HTTPS [default: `[listen] public_https_port`, or 443]
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, DNS_PORT)),
        (_, Ok(address)) => Ok(address),
        _ => Err("write an IP address, and a port if it is not 53, as in 192.0.2.53:5353".to_owned()),
    }
}

impl Check {
    /// 0: nothing is wrong; 1: something is.
    pub(super) fn run(self) -> ExitCode {
        match self.report() {
            Ok(report) => {
                match self.json {
                    true => println!("{}", serde_json::json!(report)),
                    false => println!("{report}"),
                }
                if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::from(1) }
            }
            Err(failure) => failure.report(),
        }
    }

    fn report(&self) -> Result<Report, Failure> {
        let name = DomainName::parse(&self.name).map_err(|error| Failure::Usage(error.to_string()))?;
        let (config, wrong) = config::load_in_part(&self.file.config).map_err(Failure::Config)?;
        if let Some(wrong) = wrong {
            let path = self.file.config.display();
            eprintln!(
                "note: {path} cannot be followed, see `lockgate check`: what of it is right is looked at\n{wrong}"
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(error.to_string()))?;
        let facts = runtime.block_on(self.gather(name, &config));
        // What still asks the system for a name must not keep the answer waiting.
        runtime.shutdown_background();
        Ok(examine(&facts?))
    }

    async fn gather(&self, name: DomainName, config: &Config) -> Result<Facts, Failure> {
        let now = clock::now();
        let mut serving = configured::serving(config, &name);
        let held = configured::hold(config, &mut serving, &name, now).await;
        let stranger = configured::stranger(config, &name);
        let issued_for = serving.domain.as_ref().map_or_else(|| name.clone(), |domain| domain.name.clone());
        let resolver = Resolver::new(self.resolver.as_slice());
        let has_caa = !matches!(issued_for.kind(), Kind::Ip(_));
        let host = host_of(&name);
        let socket = control_socket(&config.data_dir);
        let (names, caa, txt_aliases, origin, shown, approval) = tokio::join!(
            asked::names(&resolver, &name, &host),
            async { if has_caa { Some(asked::caa(&resolver, &issued_for).await) } else { None } },
            asked::txt_aliases(&resolver, &issued_for),
            async {
                let spec = serving.domain.as_ref().or(stranger.map(|(_, host)| host))?;
                Some(behind::look(spec, &host).await)
            },
            running::show(&socket),
            async {
                let (on_demand, host) = stranger?;
                Some((host.name.clone(), approved::approval(on_demand, &name).await))
            },
        );
        serving.on_demand = approval;
        let (process, shown) = match shown {
            Ok(shown) => (Process::Runs, Some(shown)),
            Err(why) => (Process::Silent(why), None),
        };
        let ways = self.ways(addresses(&name, &names), host, shown, held.fingerprints, config).await?;
        Ok(Facts {
            name,
            now,
            serving,
            process,
            names,
            txt_aliases,
            caa,
            ways,
            origin,
            certificates: held.certificates,
        })
    }

    /// Tries each address by itself, all of them at once.
    async fn ways(
        &self,
        addresses: Vec<IpAddr>,
        host: String,
        shown: Option<ShownFile>,
        ours: Vec<[u8; 32]>,
        config: &Config,
    ) -> Result<Vec<Way>, Failure> {
        let https_port = self.https_port.or(config.listen.public_https_port).unwrap_or(443);
        let glass = Glass::new(host, (self.http_port, https_port), shown, ours, clock::now());
        let glass = Arc::new(glass.map_err(|error| Failure::Work(error.to_string()))?);
        let mut looking = JoinSet::new();
        for (place, address) in addresses.into_iter().enumerate() {
            let glass = Arc::clone(&glass);
            looking.spawn(async move { (place, look(&glass, address).await) });
        }
        let mut ways = looking.join_all().await;
        ways.sort_by_key(|(place, _)| *place);
        Ok(ways.into_iter().map(|(_, way)| way).collect())
    }
}

/// The name to ask ports and origins for: a wildcard's stands for all under it.
fn host_of(name: &DomainName) -> String {
    match name.wildcard_parent() {
        Some(parent) => format!("{PROBE_LABEL}.{parent}"),
        None => name.to_string(),
    }
}

/// Where the name leads; of a wildcard, the name under it.
fn addresses(name: &DomainName, names: &[LookedUp]) -> Vec<IpAddr> {
    if let Kind::Ip(address) = name.kind() {
        return vec![address];
    }
    let ours = names.iter().filter(|looked_up| looked_up.role != Role::Parent);
    let mut addresses: Vec<IpAddr> = ours.filter_map(|it| it.addresses.as_ref().ok()).flatten().copied().collect();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}
