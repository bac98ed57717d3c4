//! Names that nobody wrote into the configuration: approved, served and given a certificate at their first handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustls::AlertDescription::UnrecognisedName;

use crate::harness::{
    Answer, ChallTestSrv, Failure, Lockgate, Pebble, PebbleSetup, Pki, Scripted, Setup, eventually, eventually_within,
    free_port, plain_get,
};

/// The domain that takes strangers in.
const SHOPS: &str = "shops.lockgate.test";
const REFUSED: Failure = Failure::Alert(UnrecognisedName);

/// A proxy with an authority that looks at it.
struct Field {
    pki: Pki,
    http: u16,
    https: u16,
    authority: Pebble,
    _names: ChallTestSrv,
}

impl Field {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl FnOnce(PebbleSetup) -> PebbleSetup) -> Self {
        let (http, https, names) = (free_port(), free_port(), ChallTestSrv::start());
        let authority = change(Pebble::setup().validates_at(http, https).dns(names.server())).start();
        Self { pki: Pki::new(), http, https, authority, _names: names }
    }

    /// A proxy with one domain, and these lines in `[acme.on_demand]`.
    fn setup(&self, lines: &[&str]) -> Setup {
        let (directory, ca_file) = (self.authority.directory(), self.authority.ca_file());
        let mut setup = Lockgate::under(&self.pki)
            .set("listen.http", &format!("['127.0.0.1:{}']", self.http))
            .set("listen.https", &format!("['127.0.0.1:{}']", self.https))
            .set("acme.agree_to_terms", "true")
            .set("acme.standby", "false")
            .set("acme.on_demand.site", &format!("'{SHOPS}'"));
        for line in lines {
            let (key, value) = line.split_once(" = ").unwrap();
            setup = setup.set(&format!("acme.on_demand.{key}"), value);
        }
        let table = format!("[[acme.ca]]\nname = 'ca'\ndirectory = '{directory}'\nca_file = '{}'", ca_file.display());
        setup.table(&table).domain(SHOPS, Scripted::ok("shop"))
    }
}

/// Whoever is asked, with an answer that can be changed.
#[derive(Clone)]
struct Asked {
    server: Scripted,
    status: Arc<AtomicU16>,
}

impl Asked {
    fn answering(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let says = Arc::clone(&status);
        let server = Scripted::each(move |_| {
            format!("HTTP/1.1 {} Said\r\nContent-Length: 0\r\n\r\n", says.load(Ordering::Relaxed)).into_bytes()
        });
        Self { server, status }
    }

    fn line(&self) -> String {
        ask(&self.server)
    }

    fn say(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The targets of all questions so far.
    fn questions(&self) -> Vec<String> {
        let line = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
        self.server.requests().iter().map(|request| line(request.line())).collect()
    }
}

fn ask(server: &Scripted) -> String {
    format!("ask = '{}/allowed?key=1'", server.url())
}

fn refusal(gate: &Lockgate, name: &str) -> Option<Failure> {
    gate.tls(name).connect().err()
}

/// A handshake that may come while its order fails for want of time.
fn patient_get(gate: &Lockgate, name: &str) -> Answer {
    let mut connection = eventually("a handshake", || gate.tls(name).connect().ok());
    connection.get("/")
}

fn results(gate: &Lockgate, result: &str) -> f64 {
    gate.metric("lockgate_on_demand_questions_total", &[("result", result)]).unwrap()
}

#[test]
fn an_allowed_name_is_served_from_its_first_handshake_on() {
    let field = Field::new();
    let mut gate = field.setup(&["allow = ['*.customers.test', 'single.test']"]).start();
    let before = field.authority.orders();
    for name in ["deep.shop.customers.test", "single.test"] {
        let mut connection = gate.connect(name);
        assert_eq!(connection.presented().names, [name]);
        assert_eq!(connection.get("/").text(), "shop");
        // It is counted as the domain that serves it, and by no name of its own.
        assert_eq!(plain_get(gate.http(), name, "/a").header("location").unwrap(), location(&field, name));
    }
    assert_eq!(field.authority.orders(), before + 2);
    for name in ["customers.test", "www.single.test", "evilcustomers.test"] {
        assert_eq!(refusal(&gate, name), Some(REFUSED), "{name}");
    }
    gate.await_metric("lockgate_on_demand_names", &[], 2.0);
    gate.await_metric("lockgate_requests_total", &[("domain", SHOPS), ("status", "2xx")], 2.0);
    assert_eq!(gate.metrics().label_values("domain"), [SHOPS]);
    assert_eq!((results(&gate, "approved"), results(&gate, "refused")), (2.0, 3.0));
    // Whoever's the domain is by now: the list is the operator's.
    let leaf = gate.leaf("single.test");
    gate.reconfigure(|setup| setup.tenant("another"));
    assert_eq!((gate.leaf("single.test"), field.authority.orders()), (leaf, before + 2));
}

fn location(field: &Field, name: &str) -> String {
    format!("https://{name}:{}/a", field.https)
}

#[test]
fn a_name_is_asked_about_once_and_a_restart_knows_it() {
    let (field, asked) = (Field::new(), Asked::answering(200));
    let mut gate = field.setup(&[&asked.line()]).tenant("one").start();
    let first = gate.leaf("Shop.example-A.test");
    assert_eq!(first.names, ["shop.example-a.test"]);
    assert_eq!(asked.questions(), ["/allowed?key=1&domain=shop.example-a.test"]);
    let orders = field.authority.orders();

    gate.kill();
    asked.say(404);
    gate.start_again();
    assert_eq!(gate.leaf("shop.example-a.test"), first);
    assert_eq!((asked.questions().len(), field.authority.orders()), (1, orders));
    assert_eq!(gate.get("shop.example-a.test").text(), "shop");

    // Another tenant has not approved of it.
    gate.reconfigure(|setup| setup.tenant("another"));
    assert_eq!(refusal(&gate, "shop.example-a.test"), Some(REFUSED));
    gate.reconfigure(|setup| setup.tenant("one"));
    assert_eq!(gate.leaf("shop.example-a.test"), first);

    // Without the table nobody is taken in; with it, who was approved is known again.
    gate.reconfigure(|setup| setup.unset("acme.on_demand"));
    assert_eq!(refusal(&gate, "shop.example-a.test"), Some(REFUSED));
    let lines = asked.line();
    gate.reconfigure(|setup| {
        let setup = setup.set("acme.on_demand.site", &format!("'{SHOPS}'"));
        setup.set("acme.on_demand.ask", lines.split_once(" = ").unwrap().1)
    });
    assert_eq!(gate.leaf("shop.example-a.test"), first);
    gate.reconfigure(|setup| setup.unset("acme.on_demand.ask").set("acme.on_demand.allow", "['*.other.test']"));
    assert_eq!(refusal(&gate, "shop.example-a.test"), Some(REFUSED));
    assert_eq!(field.authority.orders(), orders);
}

#[test]
fn a_refused_name_is_asked_about_once() {
    let (field, asked) = (Field::new(), Asked::answering(404));
    let gate = field.setup(&[&asked.line()]).start();
    let orders = field.authority.orders();
    for _ in 0..5 {
        assert_eq!(refusal(&gate, "nobody.test"), Some(REFUSED));
    }
    assert_eq!((asked.questions().len(), field.authority.orders()), (1, orders));
    assert_eq!(results(&gate, "refused"), 1.0);
    for host in ["nobody.test", "localhost"] {
        assert_eq!(plain_get(gate.http(), host, "/").status, 404);
    }
    // Neither is a question.
    for name in ["nodot", "a_b.test"] {
        assert_eq!(refusal(&gate, name), Some(REFUSED), "{name}");
    }
    assert!(gate.tls(SHOPS).without_sni().connect().is_err());
    assert_eq!(asked.questions().len(), 1);
}

#[rstest]
#[case::error(|| Scripted::answering("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"))]
#[case::forbidden(|| Scripted::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))]
#[case::redirect(|| Scripted::answering("HTTP/1.1 302 Found\r\nLocation: /yes\r\nContent-Length: 0\r\n\r\n"))]
#[case::garbage(|| Scripted::answering("\x16\x03\x01 what?\r\n\r\n"))]
#[case::closes(|| Scripted::new(|peer| peer.request().map(drop)))]
#[case::endless_head(|| endless("HTTP/1.1 200 OK\r\n", b"X: y\r\n"))]
#[case::silent(Scripted::silent)]
fn who_says_neither_yes_nor_no_is_asked_again_later(#[case] server: fn() -> Scripted) {
    let (field, server) = (Field::new(), server());
    let gate = field.setup(&[&ask(&server)]).start();
    let (orders, began) = (field.authority.orders(), Instant::now());
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED));
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED), "not asked again at once");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!((server.connections().len(), field.authority.orders()), (1, orders));
    assert_eq!(results(&gate, "failed"), 1.0);
    assert_eq!(gate.get(SHOPS).text(), "shop");
}

/// Says `first`, and then `more` for ever.
fn endless(first: &'static str, more: &'static [u8]) -> Scripted {
    Scripted::new(move |peer| {
        peer.request()?;
        peer.send(first)?;
        loop {
            peer.send(more)?;
        }
    })
}

#[test]
fn only_the_status_matters_however_long_the_answer() {
    let field = Field::new();
    let server = endless("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]);
    let gate = field.setup(&[&ask(&server)]).start();
    assert_eq!(gate.leaf("shop.test").names, ["shop.test"]);
    eventually("the answer is not read on", || (server.open() == 0).then_some(()));
}

#[test]
fn who_cannot_be_asked_approves_nobody() {
    let field = Field::new();
    let down = format!("ask = '{}/'", Scripted::down());
    let gate = field.setup(&[&down, "allow = ['*.customers.test']"]).start();
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED));
    assert_eq!(gate.leaf("a.customers.test").names, ["a.customers.test"]);
    assert_eq!(results(&gate, "failed"), 1.0);
}

#[test]
fn fifty_first_handshakes_make_one_question_and_one_order() {
    let (field, asked) = (Field::new(), Asked::answering(200));
    let gate = field.setup(&[&asked.line()]).start();
    let orders = field.authority.orders();
    let leaves: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| gate.leaf("shop.test"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(leaves.iter().all(|leaf| *leaf == leaves[0]));
    assert_eq!((asked.questions().len(), field.authority.orders()), (1, orders + 1));
    assert_eq!(gate.count_log(&["approved by `ask`", "shop.test"]), 1);
}

#[test]
fn random_names_cost_nobody_anything() {
    const NAMES: usize = 2_000;
    let (field, asked) = (Field::new(), Asked::answering(404));
    let gate = field.setup(&[&asked.line()]).start();
    let (orders, began) = (field.authority.orders(), Instant::now());
    let flood = |from: usize| {
        thread::scope(|scope| {
            for client in 0..20 {
                let gate = &gate;
                scope.spawn(move || {
                    for number in (client..NAMES).step_by(20) {
                        assert_eq!(refusal(gate, &format!("n{}.test", from + number)), Some(REFUSED));
                    }
                });
            }
        });
    };
    flood(0);
    let bytes = gate.resident_bytes();
    flood(NAMES);
    assert!(gate.resident_bytes() < bytes + 8 * 1024 * 1024, "{bytes} -> {}", gate.resident_bytes());
    let allowed = 25 + 50 * (began.elapsed().as_secs() as usize + 1);
    let questions = asked.questions().len();
    assert!(questions <= allowed, "{questions} questions in {:?}", began.elapsed());
    assert_eq!(field.authority.orders(), orders);
    assert_eq!(gate.get(SHOPS).text(), "shop");
    assert!(gate.log().len() < 100, "{} lines", gate.log().len());
    assert!(gate.metrics().label_values("domain").len() <= 1);
    assert!(results(&gate, "limited") > 0.0, "{questions}");
}

#[test]
fn host_and_sni_belong_to_one_domain() {
    let field = Field::new();
    let setup = field.setup(&["allow = ['*.customers.test']"]);
    let gate = setup.domain("other.lockgate.test", Scripted::ok("other")).start();
    gate.leaf("b.customers.test");
    let mut connection = gate.connect("a.customers.test");
    let mut status = |host: &str| connection.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    assert_eq!(status("other.lockgate.test"), 421);
    assert_eq!(status("c.customers.test"), 421, "a name that has no certificate yet");
    for host in ["a.customers.test", "b.customers.test", SHOPS] {
        assert_eq!(status(host), 200, "{host}");
    }
    assert_eq!(patient_get(&gate, "other.lockgate.test").text(), "other");
}

#[test]
fn there_are_only_so_many_names() {
    let (field, asked) = (Field::new(), Asked::answering(200));
    let gate = field.setup(&[&asked.line(), "max_names = 2"]).start();
    for name in ["a.test", "b.test"] {
        gate.leaf(name);
    }
    let orders = field.authority.orders();
    for name in ["c.test", "d.test", "c.test"] {
        assert_eq!(refusal(&gate, name), Some(REFUSED), "{name}");
    }
    assert_eq!((asked.questions().len(), field.authority.orders()), (2, orders));
    gate.await_log(&["there are 2 names on demand already"]);
    assert_eq!(gate.count_log(&["there are 2 names on demand already"]), 1);
    gate.await_metric("lockgate_on_demand_names", &[], 2.0);
    assert_eq!(gate.leaf("a.test").names, ["a.test"]);
}

#[test]
fn only_so_many_new_names_are_let_in_within_an_hour() {
    let field = Field::new();
    let mut gate = field.setup(&["allow = ['*.customers.test']", "max_new_per_hour = 2"]).start();
    let names = ["a.customers.test", "b.customers.test"];
    let orders = field.authority.orders();
    for name in names {
        gate.leaf(name);
    }
    for number in 0..100 {
        assert_eq!(refusal(&gate, &format!("n{number}.customers.test")), Some(REFUSED));
    }
    assert_eq!(field.authority.orders(), orders + 2);
    assert_eq!(gate.count_log(&["there were 2 new names on demand in the hour", "max_new_per_hour"]), 1);
    assert_eq!(gate.metric("lockgate_on_demand_put_off_total", &[]), Some(100.0));
    assert!(gate.log().len() < 30, "{} lines", gate.log().len());
    for name in names {
        assert_eq!(gate.leaf(name).names, [name]);
    }
    gate.reconfigure(|setup| setup.set("acme.on_demand.max_new_per_hour", "3"));
    assert_eq!(gate.leaf("c.customers.test").names, ["c.customers.test"]);
    assert_eq!(refusal(&gate, "d.customers.test"), Some(REFUSED));
}

#[test]
fn a_name_whose_order_fails_is_refused_and_not_ordered_again() {
    let (field, asked) = (Field::new(), Asked::answering(200));
    // Nobody is to find us: what is looked for is elsewhere.
    let elsewhere = Pebble::setup().validates_at(free_port(), free_port()).dns(field._names.server()).start();
    let field = Field { authority: elsewhere, ..field };
    let gate = field.setup(&[&asked.line()]).start();
    let orders = field.authority.orders();
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED));
    let log = gate.await_log(&["issuance_failed", "shop.test"]);
    assert!(log.contains(SHOPS), "{log}");
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED));
    // One for each way in which it could have been proved.
    assert_eq!((asked.questions().len(), field.authority.orders()), (1, orders + 2));
    assert_eq!(gate.metrics().label_values("domain"), [SHOPS]);
}

#[test]
fn no_answer_ends_no_renewal() {
    let (field, asked) = (Field::with(|setup| setup.validity_secs(15)), Asked::answering(204));
    let gate = field.setup(&[&asked.line()]).start();
    gate.leaf("shop.test");
    asked.say(401);
    let failed = eventually_within(Duration::from_secs(20), "the failure", || {
        gate.log().into_iter().find(|line| line.contains("issuance_failed"))
    });
    for words in ["shop.test: ", "`ask` did not answer", "404 or 410", "Next attempt at"] {
        assert!(failed.contains(words), "{words:?} is not in {failed}");
    }
    assert!(gate.tls("shop.test").connect().is_ok(), "it serves as long as it can");
    assert_eq!((asked.questions().len(), gate.count_log(&["not approved any more"])), (2, 0));
}

#[test]
fn a_renewal_is_asked_about_and_a_refusal_ends_it() {
    let (field, asked) = (Field::with(|setup| setup.validity_secs(15)), Asked::answering(200));
    let gate = field.setup(&[&asked.line()]).start();
    let first = gate.leaf("shop.test");
    let renewed = eventually_within(Duration::from_secs(20), "a renewal", || {
        gate.tls("shop.test").connect().ok().map(|it| it.presented()).filter(|leaf| *leaf != first)
    });
    assert_eq!((renewed.names, asked.questions().len()), (vec!["shop.test".to_owned()], 2));
    asked.say(404);
    eventually_within(Duration::from_secs(20), "the refusal", || {
        (gate.count_log(&["not approved any more", "shop.test"]) == 1).then_some(())
    });
    let orders = field.authority.orders();
    // What it has serves to its end; then it is a stranger again.
    assert!(gate.tls("shop.test").connect().is_ok());
    eventually_within(Duration::from_secs(20), "the end", || refusal(&gate, "shop.test"));
    assert_eq!(refusal(&gate, "shop.test"), Some(REFUSED));
    assert_eq!((asked.questions().len(), field.authority.orders()), (4, orders));
}
