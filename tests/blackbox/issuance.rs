//! Certificates that look after themselves, by real authorities.

use crate::harness::{ChallTestSrv, Lockgate, Nginx, Pebble, PebbleSetup, Pki, Setup, eventually, free_port};

/// A proxy whose domains are served with certificates of an authority of ours.
struct Site {
    http: u16,
    https: u16,
    names: ChallTestSrv,
}

impl Site {
    fn new() -> Self {
        Self { http: free_port(), https: free_port(), names: ChallTestSrv::start() }
    }

    /// An authority that looks at this proxy.
    fn authority(&self) -> PebbleSetup {
        Pebble::setup().validates_at(self.http, self.https).dns(self.names.server())
    }

    /// The proxy's configuration: `[acme]` and nothing else.
    fn setup(&self, pki: &Pki, authorities: &[&Pebble]) -> Setup {
        let mut setup = Lockgate::under(pki)
            .set("listen.http", &format!("['127.0.0.1:{}']", self.http))
            .set("listen.https", &format!("['127.0.0.1:{}']", self.https))
            .set("acme.agree_to_terms", "true");
        for (number, authority) in authorities.iter().enumerate() {
            let (directory, ca_file) = (authority.directory(), authority.ca_file());
            setup = setup.table(&format!(
                "[[acme.ca]]\nname = 'ca-{number}'\ndirectory = '{directory}'\nca_file = '{}'",
                ca_file.display()
            ));
        }
        setup
    }
}

fn source(gate: &Lockgate, name: &str) -> Option<String> {
    let metrics = gate.metrics();
    ["own", "store", "standby", "configured", "internal"]
        .into_iter()
        .find(|source| {
            metrics.get("lockgate_certificate_not_after_seconds", &[("domain", name), ("source", source)]).is_some()
        })
        .map(str::to_owned)
}

#[test]
fn two_lines_and_a_domain_is_on_https() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let origin = Nginx::start();
    let mut gate = site.setup(&pki, &[&authority]).domain("shop.lockgate.test", origin).uncertified().start();
    eventually("the domain's own certificate serves", || (source(&gate, "shop.lockgate.test")? == "own").then_some(()));
    let (orders, leaf) = (authority.orders(), gate.leaf("shop.lockgate.test"));
    assert_eq!(orders, 1);

    gate.kill();
    gate.start_again();
    assert_eq!(gate.leaf("shop.lockgate.test"), leaf);
    assert_eq!((authority.orders(), authority.accounts()), (1, 1));
}
