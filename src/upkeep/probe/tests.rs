use super::*;
use crate::certificate::fixture::{NOW, pair};
use crate::certificate::{Certificate, CertificateSet, CommonRanks, LastResort, Ranks};
use crate::meter::Slot;
use crate::site::{Origin, OriginSpec, SiteSpec};
use rustls::server::Acceptor;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::LazyConfigAcceptor;

struct Nobody;

impl LastResort for Nobody {
    fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
        None
    }
}

fn site(name: &str, own: Vec<Arc<Certificate>>) -> Arc<Site> {
    let name = DomainName::parse(name).unwrap();
    let common = CommonRanks { configured: None, last_resort: Arc::new(Nobody) };
    let origin = Arc::new(OriginSpec::http("127.0.0.1", 1));
    Arc::new(Site {
        certificates: CertificateSet::new(&name, Ranks { own, ..Ranks::default() }, Arc::new(common)),
        spec: Arc::new(SiteSpec::new(name, Arc::clone(&origin))),
        origin: Arc::new(Origin { id: 1, spec: origin, tls: None }),
        slot: Slot(1),
        throttle: None,
    })
}

/// Who was asked for, at which listener, and whether for elliptic curves and for RSA; noted by listeners that break
/// every handshake off.
type Asked = Arc<Mutex<Vec<(String, usize, bool, bool)>>>;

struct Bench {
    probe: Probe,
    asked: Asked,
    probes: Arc<Probes>,
    _listeners: watch::Sender<Vec<SocketAddr>>,
}

impl Bench {
    /// With listeners at these addresses.
    async fn new(listeners: &[&str], snapshot: Snapshot) -> Self {
        let (live, asked, probes) = (Arc::new(Live::default()), Asked::default(), Arc::<Probes>::default());
        live.publish(snapshot);
        let mut addresses = Vec::new();
        for (number, address) in listeners.iter().enumerate() {
            let listener = TcpListener::bind((*address, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let (asked, probes) = (Arc::clone(&asked), Arc::clone(&probes));
            tokio::spawn(async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    assert!(probes.recognise(peer), "it was announced");
                    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.unwrap();
                    let hello = start.client_hello();
                    let has = |wanted| hello.signature_schemes().contains(&wanted);
                    let (ecdsa, rsa) =
                        (has(SignatureScheme::ECDSA_NISTP256_SHA256), has(SignatureScheme::RSA_PSS_SHA256));
                    asked.lock().unwrap().push((
                        hello.server_name().unwrap_or_default().to_owned(),
                        number,
                        ecdsa,
                        rsa,
                    ));
                }
            });
        }
        let (sender, receiver) = watch::channel(addresses);
        let clock = Arc::new(Clock::new(|| NOW));
        let probe = Probe::new(live, clock, receiver, Arc::clone(&probes), &Registry::new()).unwrap();
        Self { probe, asked, probes, _listeners: sender }
    }

    /// What is asked for in so many steps, sorted.
    async fn steps(&mut self, count: usize) -> Vec<(String, usize, bool, bool)> {
        for _ in 0..count {
            self.probe.step().await;
        }
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

#[tokio::test]
async fn listeners_and_kinds_of_keys_take_turns() {
    let both = vec![pair(&["www.example.com"]).make(), pair(&["www.example.com"]).rsa().make()];
    let snapshot = Snapshot::new([site("www.example.com", both)], None);
    let mut bench = Bench::new(&["127.0.0.1", "127.0.0.2"], snapshot).await;
    let way = |listener, ecdsa, rsa| ("www.example.com".to_owned(), listener, ecdsa, rsa);
    let all = [way(0, false, true), way(0, true, false), way(1, false, true), way(1, true, false)];
    assert_eq!(bench.steps(4).await, all);
    assert_eq!(bench.steps(4).await, all);
    assert_eq!(bench.probe.results.with_label_values(&["failed"]).get(), 8);
    assert!(!bench.probes.recognise(([127, 0, 0, 1], 1).into()));
}

#[tokio::test]
async fn one_kind_of_key_is_offered_what_all_clients_have() {
    let snapshot = Snapshot::new([site("www.example.com", vec![pair(&["www.example.com"]).rsa().make()])], None);
    let mut bench = Bench::new(&["127.0.0.1"], snapshot).await;
    assert_eq!(bench.steps(2).await, vec![("www.example.com".to_owned(), 0, true, true); 2]);
}

#[tokio::test]
async fn names_on_demand_are_looked_at_by_their_own_name() {
    let mut snapshot = Snapshot::new([site("shops.example.com", vec![pair(&["shops.example.com"]).make()])], None);
    // As which it is served is the domain that takes it in.
    snapshot
        .aliases
        .insert("a.customers.test".into(), site("shops.example.com", vec![pair(&["shops.example.com"]).make()]));
    let mut bench = Bench::new(&["127.0.0.1"], snapshot).await;
    let asked: Vec<_> = bench.steps(2).await.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(asked, ["a.customers.test", "shops.example.com"]);
}
