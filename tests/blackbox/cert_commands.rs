//! `lockgate cert`: every certificate shown, in every state, with and without a process; and issued when asked.

use std::process::Command;

use serde_json::Value;

use crate::harness::*;

const SHOP: &str = "shop.lockgate.test";

/// A proxy whose domains are served with certificates of an authority of ours.
pub struct Site {
    http: u16,
    https: u16,
    pub names: ChallTestSrv,
}

impl Site {
    pub fn new() -> Self {
        Self { http: free_port(), https: free_port(), names: ChallTestSrv::start() }
    }

    /// An authority that looks at this proxy.
    pub fn authority(&self) -> PebbleSetup {
        Pebble::setup().validates_at(self.http, self.https).dns(self.names.server())
    }

    /// The proxy's configuration: `[acme]` and nothing else.
    pub fn setup(&self, pki: &Pki, authority: &Pebble) -> Setup {
        let (directory, ca_file) = (authority.directory(), authority.ca_file());
        Lockgate::under(pki)
            .set("listen.http", &format!("['127.0.0.1:{}']", self.http))
            .set("listen.https", &format!("['127.0.0.1:{}']", self.https))
            .set("acme.agree_to_terms", "true")
            .table(&format!("[[acme.ca]]\nname = 'ca'\ndirectory = '{directory}'\nca_file = '{}'", ca_file.display()))
    }
}

/// `lockgate GROUP COMMAND ...` on this proxy's configuration, with these in its environment.
#[track_caller]
pub fn command(gate: &Lockgate, args: &[&str]) -> Output {
    run(Command::new(program()).args(args).arg("-c").arg(gate.config_file()))
}

/// What it prints by `--json`.
#[track_caller]
pub fn json(gate: &Lockgate, args: &[&str]) -> Value {
    let output = command(gate, &[args, &["--json"]].concat());
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()))
}

/// The certificates that are listed.
#[track_caller]
fn listed(gate: &Lockgate, args: &[&str]) -> Vec<Value> {
    json(gate, &[&["cert", "list"], args].concat())["certificates"].as_array().unwrap().clone()
}

/// Waits until the domain's certificate is there.
#[track_caller]
pub fn await_issued(gate: &Lockgate, name: &str) -> Value {
    eventually(&format!("a certificate for {name}"), || {
        listed(gate, &[name]).into_iter().find(|it| it["name"] == name && it["state"] == "issued")
    })
}

#[test]
fn what_is_issued_and_what_lies_in_files_is_listed_and_shown() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let old = pki.issue(&["old.lockgate.test"]).from("2020-01-01 00:00:00").until("2020-06-01 00:00:00").leaf();
    let mut gate = site
        .setup(&pki, &authority)
        .domain(SHOP, Scripted::ok(""))
        .uncertified()
        .domain("own.lockgate.test", Scripted::ok(""))
        .domain("old.lockgate.test", Scripted::ok(""))
        .certificate(&old)
        .with("acme", "false")
        .start();
    let issued = await_issued(&gate, SHOP);
    let leaf = gate.leaf(SHOP);
    assert_eq!(issued["source"], "acme");
    assert_eq!(issued["role"], "own");
    assert_eq!(issued["key"], "ECDSA P-256");
    assert_eq!(issued["names"], serde_json::json!([SHOP]));
    assert_eq!(issued["ca"], authority.directory());
    assert!(issued["renew_at"].as_str().unwrap() > issued["not_before"].as_str().unwrap());
    assert!(issued["not_after"].as_str().unwrap().ends_with("+00:00"));
    let id = issued["id"].as_i64().unwrap().to_string();

    let states: Vec<_> = listed(&gate, &[]).iter().map(|it| (it["name"].clone(), it["state"].clone())).collect();
    let state = |name: &str, state: &str| (Value::from(name), Value::from(state));
    assert_eq!(
        states,
        [state("old.lockgate.test", "expired"), state("own.lockgate.test", "issued"), state(SHOP, "issued")]
    );
    assert_eq!(listed(&gate, &["--state", "expired"]).len(), 1);
    assert_eq!(listed(&gate, &["--issuer", "pebble"]).len(), 1);
    assert_eq!(listed(&gate, &["*.lockgate.test"]).len(), 3);
    assert_eq!(listed(&gate, &["--name", "o?n.*"]).len(), 1);
    assert_eq!(listed(&gate, &["nobody"]).len(), 0);
    let table = command(&gate, &["cert", "list"]).stdout;
    assert!(table.ends_with("issued 2, expired 1\n") && table.contains(" days ago)"), "{table}");

    // The same by its number and by its name, in words and as PEM.
    let shown = command(&gate, &["cert", "show", SHOP]);
    // But for the days that are left: their number changes in the second of issue.
    let undated =
        |text: &str| text.lines().filter(|line| !line.contains(" left)")).map(str::to_owned).collect::<Vec<_>>();
    let by_number = command(&gate, &["cert", "show", &id]).stdout;
    assert_eq!((shown.code, undated(&shown.stdout)), (0, undated(&by_number)));
    let has = |part: &str| assert!(shown.stdout.contains(part), "no {part:?} in {}", shown.stdout);
    let fingerprint = hex::decode(issued["fingerprint"].as_str().unwrap()).unwrap();
    has(&fingerprint.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":"));
    has("type            internal");
    has(&format!("serves          {SHOP}"));
    has(" → CN=Pebble ");
    has("renewal  ");
    let pem = command(&gate, &["cert", "show", SHOP, "--pem"]).stdout;
    let chain = pem::parse_many(&pem).unwrap();
    assert_eq!((sha256(chain[0].contents()), chain.len()), (fingerprint, 2));
    assert!(!pem.contains("PRIVATE") && Presented::parse(chain[0].contents()) == leaf);
    let own = command(&gate, &["cert", "show", "own.lockgate.test"]).stdout;
    assert!(own.contains("source          file /") && own.contains("serves          own.lockgate.test"), "{own}");
    let unknown = command(&gate, &["cert", "show", "shops.lockgate.test"]);
    assert!(unknown.code == 1 && unknown.stderr.contains(&format!("did you mean `{SHOP}`")), "{}", unknown.text());

    // Without a process, and with a configuration that is wrong.
    gate.stop();
    assert_eq!(listed(&gate, &[]).len(), 3);
    gate.rewrite_raw(&format!("data_dir = '{}'\nnonsense = 1\n", gate.data_dir().display()));
    let output = command(&gate, &["cert", "list"]);
    assert!(output.code == 0 && output.stdout.contains(SHOP), "{}", output.text());
    assert!(output.stderr.contains("nonsense"), "{}", output.text());
    gate.restore();
}

#[test]
fn what_waits_and_what_failed_is_listed_with_the_reason() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    site.names.set_servfail("refused.lockgate.test");
    let mut gate = site
        .setup(&pki, &authority)
        .domain(SHOP, Scripted::ok(""))
        .uncertified()
        .domain("refused.lockgate.test", Scripted::ok(""))
        .uncertified()
        .start();
    await_issued(&gate, SHOP);
    let failed =
        eventually("the other one fails", || listed(&gate, &["refused", "--state", "failed"]).into_iter().next());
    assert_eq!((failed["id"].clone(), failed["failures"].clone()), (Value::Null, Value::from(1)));
    assert!(!failed["problem"].as_str().unwrap().is_empty());
    assert!(failed["next_attempt"].as_str().is_some());
    let shown = command(&gate, &["cert", "show", "refused.lockgate.test"]).stdout;
    assert!(shown.contains(failed["problem"].as_str().unwrap().lines().next().unwrap()), "{shown}");
    assert!(shown.contains("next attempt"), "{shown}");

    // Whom nobody has asked for yet waits.
    gate.stop();
    gate.rewrite(|setup| setup.domain("new.lockgate.test", Scripted::ok("")).uncertified());
    assert_eq!(listed(&gate, &["new"])[0]["state"], "waiting");
    let table = command(&gate, &["cert", "list"]).stdout;
    assert!(table.ends_with("waiting 1, issued 1, failed 1\n"), "{table}");
}

#[test]
fn certificates_are_ordered_and_renewed_when_asked() {
    let (site, pki) = (Site::new(), Pki::new());
    let authority = site.authority().start();
    let gate = site
        .setup(&pki, &authority)
        .domain(SHOP, Scripted::ok(""))
        .uncertified()
        .domain("own.lockgate.test", Scripted::ok(""))
        .with("acme", "false")
        .domain("blog.lockgate.test", Scripted::ok(""))
        .certificate(&pki.leaf("blog.lockgate.test"))
        .with("acme", "false")
        .start();
    await_issued(&gate, SHOP);
    eventually("it serves", || {
        (gate.metric("lockgate_certificate_fallback_active", &[("domain", SHOP)]) == Some(0.0)).then_some(())
    });

    // Two names, which nobody configured.
    let names = ["own.lockgate.test", "blog.lockgate.test"];
    let ordered = command(&gate, &["cert", "order", names[0], names[1]]);
    assert_eq!(ordered.code, 0, "{}", ordered.text());
    assert!(ordered.stdout.contains("issued by "), "{}", ordered.text());
    let hint = "[[certificate]]\nnames = [\"own.lockgate.test\", \"blog.lockgate.test\"]";
    assert!(ordered.stderr.contains(hint), "{}", ordered.text());
    let kept = await_issued(&gate, names[0]);
    let of_acme = listed(&gate, &["--issuer", "pebble", names[0]]);
    assert_eq!(of_acme[0]["names"].as_array().unwrap().len(), 2, "{kept}");

    // What is configured is renewed, and the new one serves at once.
    let before = gate.leaf(SHOP);
    let renewed = command(&gate, &["cert", "renew", SHOP]);
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    eventually("the new one serves", || (gate.leaf(SHOP) != before).then_some(()));
    assert_eq!((listed(&gate, &[SHOP]).len(), listed(&gate, &[SHOP, "--all"]).len()), (1, 2));

    // The user's own files are the user's; and what does not resolve is explained.
    let id = of_acme[0]["id"].as_i64().unwrap().to_string();
    assert_eq!(command(&gate, &["cert", "renew", &id]).code, 0);
    site.names.set_servfail("gone.lockgate.test");
    let failed = command(&gate, &["cert", "order", "gone.lockgate.test"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{}", failed.text());
    assert!(failed.stderr.contains("no certificate for gone.lockgate.test: "), "{}", failed.text());
    let late = command(&gate, &["cert", "order", SHOP, "--timeout", "1ms"]);
    assert!(late.code == 1 && late.stderr.contains("goes on"), "{}", late.text());
}

#[test]
fn nothing_is_ordered_that_cannot_be() {
    let mut gate = Lockgate::serving(SHOP, Scripted::ok("")).start();
    let refused = command(&gate, &["cert", "order", SHOP]);
    assert!(refused.code == 1 && refused.stderr.contains("agree_to_terms"), "{}", refused.text());
    let own = command(&gate, &["cert", "renew", SHOP]);
    assert!(own.code == 1 && own.stderr.contains("yours to renew"), "{}", own.text());
    assert_eq!(command(&gate, &["cert", "order", "no name"]).code, 2);
    gate.stop();
    let nobody = command(&gate, &["cert", "order", SHOP]);
    assert!(nobody.code == 1 && nobody.stderr.contains("start it with `lockgate run`"), "{}", nobody.text());
}
