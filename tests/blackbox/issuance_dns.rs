//! dns-01 through the operator's own program, and records that others see late or never: before they are seen, the
//! authority is told nothing.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::cert_commands::command;
use crate::harness::{Bind, Call, Hoster, Lockgate, Machine, Pebble, Pki, Setup, eventually, eventually_within};

const ZONE: &str = "lockgate.test";
const WILDCARD: &str = "*.lockgate.test";
const CHALLENGE: &str = "_acme-challenge.lockgate.test";
const NOWHERE: &str = "http://127.0.0.1:1";
/// Longer than the first back-off with its jitter.
const BACK_OFF_SECS: i64 = 700;

/// The date by which the proxy's clock starts.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A proxy for a wildcard, which is proved with what that name server says.
fn setup(authority: &Pebble) -> Setup {
    Lockgate::under(&Pki::new()).acme(&[authority]).domain(WILDCARD, NOWHERE).uncertified().clock(&now())
}

/// How often the authority was told that it may look.
fn told(authority: &Pebble) -> usize {
    authority.count_log(&["POST /chalZ/"])
}

fn verbs(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.verb.as_str()).collect()
}

#[track_caller]
fn assert_served(gate: &Lockgate) {
    gate.await_own(WILDCARD);
    assert!(gate.leaf("any.lockgate.test").names.contains(&WILDCARD.to_owned()));
}

#[test]
fn a_program_proves_a_wildcard_and_clears_up() {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    let gate = setup(&authority).acme_hook(&hoster).start();
    assert_served(&gate);
    let calls = hoster.calls();
    assert_eq!(verbs(&calls), ["present", "present", "clear", "clear"]);
    assert!(calls.iter().all(|call| call.name == CHALLENGE), "{calls:?}");
    // The wildcard's value and its apex's, beside each other.
    assert_ne!(calls[0].value, calls[1].value);
    let [mut shown, mut cleared] = [&calls[..2], &calls[2..]].map(|calls| calls.to_vec());
    shown.iter_mut().chain(&mut cleared).for_each(|call| call.verb.clear());
    cleared.sort_by_key(|call| call.value != shown[0].value);
    assert_eq!(shown, cleared);
    assert_eq!(hoster.bind().txt(CHALLENGE), Vec::<String>::new());
    assert_eq!((authority.orders(), authority.count_log(&["authz", "VALID"])), (1, 2));
}

#[rstest]
#[case::fails(
    "echo 'the zone is locked by nightly-job' >&2; exit 1",
    "exit status: 1: the zone is locked by nightly-job"
)]
#[case::silent("exit 1", "exit status: 1, and nothing on standard error")]
#[case::cannot_reach_its_api("exec curl -sS --fail http://127.0.0.1:1/", "exit status: 7: curl: (7) ")]
#[case::hangs(
    "echo 'waiting for the lock of the zone' >&2; sleep 1000 & echo $! > $0.pid; wait",
    "it was killed after 1s: waiting for the lock of the zone"
)]
fn a_program_that_does_not_do_it_is_quoted(#[case] first: &str, #[case] why: &str) {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    hoster.script(first);
    let setup = setup(&authority).acme_hook(&hoster).set("acme.dns.command_timeout", "'1s'");
    let (began, gate) = (Instant::now(), setup.start());
    let failed = gate.await_failures(WILDCARD, 1);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let why = format!("`sh` did not present the TXT record at {CHALLENGE}: {why}");
    assert!(failed.contains(&why) && failed.contains("Next attempt at "), "{failed}");
    assert!(failed.contains(" To do: run `sh` by hand with the same words: it must end with 0"), "{failed}");
    assert_eq!((authority.orders(), told(&authority), hoster.calls()), (1, 0, vec![]));
    assert_eq!(gate.metric("lockgate_acme_failures_total", &[("ca", "ca-0"), ("reason", "local")]), Some(1.0));
    // Nor does anything live on that it left behind.
    if let Ok(pid) = fs::read_to_string(hoster.beside_script("pid")) {
        eventually("the sleeper is dead", || is_dead(pid.trim()).then_some(()));
    }

    hoster.script("");
    gate.clock().advance(BACK_OFF_SECS);
    assert_served(&gate);
    assert_eq!(names(&gate), ["*.lockgate.test", "lockgate.test"], "nothing that is the apex's own has failed");
    assert_eq!(hoster.bind().txt(CHALLENGE), Vec::<String>::new());
}

fn names(gate: &Lockgate) -> Vec<String> {
    let mut names = gate.leaf("any.lockgate.test").names;
    names.sort();
    names
}

/// Gone, or a zombie that nobody has asked about yet.
fn is_dead(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

#[test]
fn a_record_that_is_not_cleared_costs_no_certificate_and_is_tried_again() {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    hoster.script("test $1 = present || { echo 'out of quota' >&2; exit 1; }");
    let gate = setup(&authority).acme_hook(&hoster).start();
    assert_served(&gate);
    let left = gate.await_log(&["a TXT record of an order that is over is left", "did not clear", "out of quota"]);
    assert!(left.contains(CHALLENGE), "{left}");
    assert_eq!(hoster.bind().txt(CHALLENGE).len(), 2);
    hoster.script("");
    eventually("nothing is left", || hoster.bind().txt(CHALLENGE).is_empty().then_some(()));
}

/// The program sets the record, and then hangs: nobody knows that it is there.
#[test]
fn what_a_program_did_before_it_failed_is_cleared() {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    hoster.script_after("test $1 = clear || exec sleep 1000");
    let gate = setup(&authority).acme_hook(&hoster).set("acme.dns.command_timeout", "'2s'").start();
    let failed = gate.await_failures(WILDCARD, 1);
    assert!(failed.contains("it was killed after 2s"), "{failed}");
    let (shown, cleared): (Vec<_>, Vec<_>) = hoster.calls().into_iter().partition(|call| call.verb == "present");
    assert!(!shown.is_empty() && shown.iter().all(|one| cleared.iter().any(|it| it.value == one.value)), "{cleared:?}");
    assert_eq!(hoster.bind().txt(CHALLENGE), Vec::<String>::new());
}

#[test]
fn at_the_end_of_the_process_nothing_is_left_and_the_order_goes_on_after_it() {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    hoster.hold_back();
    let mut gate = setup(&authority).acme_hook(&hoster).start();
    eventually("both are set", || (hoster.calls().len() == 2).then_some(()));
    gate.stop();
    assert_eq!(verbs(&hoster.calls())[2..], ["clear", "clear"]);
    hoster.publish();
    assert_eq!((hoster.bind().txt(CHALLENGE), told(&authority)), (vec![], 0));
    gate.start_again();
    assert_served(&gate);
    assert_eq!((authority.orders(), hoster.bind().txt(CHALLENGE)), (1, vec![]));
}

/// Waits until a name server was asked so often after what it said before.
fn await_questions(server: &Bind, more: usize) {
    let before = server.questions(CHALLENGE);
    eventually("questions", || (server.questions(CHALLENGE) >= before + more).then_some(()));
}

#[test]
fn the_authority_is_told_when_the_programs_records_are_to_be_seen() {
    let hoster = Hoster::start(ZONE);
    let authority = Pebble::setup().dns(hoster.bind().server()).start();
    hoster.hold_back();
    let gate = setup(&authority).acme_hook(&hoster).start();
    eventually("both are set", || (hoster.calls().len() == 2).then_some(()));
    await_questions(hoster.bind(), 4);
    assert_eq!((told(&authority), verbs(&hoster.calls())), (0, vec!["present", "present"]));
    hoster.publish();
    assert_served(&gate);
    assert_eq!((authority.orders(), gate.orders("ca-0", "failed")), (1, 0.0));
    assert_eq!(hoster.bind().txt(CHALLENGE), Vec::<String>::new());
}

/// The primary that is updated, and the name server of the world, which lags behind.
struct Lagging {
    primary: Bind,
    world: Bind,
    authority: Pebble,
}

impl Lagging {
    fn start() -> Self {
        let (primary, world) = (Bind::start(&[ZONE]), Bind::setup().open_zone(ZONE).start());
        let authority = Pebble::setup().dns(world.server()).start();
        Self { primary, world, authority }
    }

    fn setup(&self) -> Setup {
        let resolvers = format!("['{}']", self.world.server());
        setup(&self.authority).acme_dns(&self.primary).set("acme.dns.resolvers", &resolvers)
    }

    /// Both values, as soon as the primary has them.
    fn values(&self) -> Vec<String> {
        eventually("both are set", || Some(self.primary.txt(CHALLENGE)).filter(|values| values.len() == 2))
    }

    fn catch_up(&self, value: &str) {
        self.world.add_txt(ZONE, CHALLENGE, value);
    }
}

#[test]
fn the_authority_is_told_when_the_world_has_caught_up() {
    let dns = Lagging::start();
    let gate = dns.setup().start();
    let values = dns.values();
    await_questions(&dns.world, 3);
    assert_eq!(told(&dns.authority), 0);
    // One of two is not enough.
    dns.catch_up(&values[0]);
    await_questions(&dns.world, 3);
    assert_eq!(told(&dns.authority), 0);
    dns.catch_up(&values[1]);
    assert_served(&gate);
    assert_eq!((dns.authority.orders(), gate.orders("ca-0", "failed")), (1, 0.0));
    assert_eq!(dns.primary.txt(CHALLENGE), Vec::<String>::new());
}

#[test]
fn a_key_that_was_corrected_is_read_at_a_reload() {
    let bind = Bind::start(&[ZONE]);
    let authority = Pebble::setup().dns(bind.server()).start();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("tsig.key");
    fs::write(&key, "YW5vdGhlciBzZWNyZXQ=").unwrap();
    let gate = setup(&authority).acme_dns(&bind).set("acme.dns.key_file", &format!("'{}'", key.display())).start();
    let failed = gate.await_failures(WILDCARD, 1);
    assert!(failed.contains("with another secret (BADSIG)") && told(&authority) == 0, "{failed}");
    fs::copy(bind.key_file(), &key).unwrap();
    assert_eq!(gate.reload().code, 0);
    let renewed = command(&gate, &["cert", "renew", WILDCARD]);
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    assert_served(&gate);
}

#[test]
fn of_a_record_that_nobody_sees_the_authority_is_never_told() {
    let dns = Lagging::start();
    let gate = dns.setup().set("acme.dns.propagation_timeout", "'1500ms'").start();
    let failed = gate.await_failures(WILDCARD, 1);
    let why = format!(
        "the TXT record at {CHALLENGE} was set, but after 1s 500ms these name servers do not have it: {}: no TXT record",
        dns.world.server()
    );
    assert!(failed.contains(&why), "{failed}");
    assert!(failed.contains("To do: see why these name servers do not get the record, or raise"), "{failed}");
    assert_eq!((told(&dns.authority), dns.authority.orders()), (0, 1));
    assert_eq!(dns.primary.txt(CHALLENGE), Vec::<String>::new());

    // A stale value of another order is not the one. The clock cannot be moved here: the primary would not believe
    // signatures of tomorrow.
    dns.catch_up("stale");
    let renewed = command(&gate, &["cert", "renew", WILDCARD]);
    assert!(renewed.code == 1 && renewed.text().contains("one other value there"), "{}", renewed.text());
    assert_eq!(told(&dns.authority), 0);
    thread::scope(|scope| {
        let renewed = scope.spawn(|| command(&gate, &["cert", "renew", WILDCARD]));
        let mut seen = Vec::new();
        while !renewed.is_finished() {
            for value in dns.primary.txt(CHALLENGE) {
                if !seen.contains(&value) {
                    dns.catch_up(&value);
                    seen.push(value);
                }
            }
            thread::sleep(std::time::Duration::from_millis(20));
        }
        let renewed = renewed.join().unwrap();
        assert_eq!(renewed.code, 0, "{}", renewed.text());
    });
    assert_served(&gate);
    // The apex is optional, and was not to blame.
    assert_eq!(names(&gate), ["*.lockgate.test", "lockgate.test"]);
    assert_eq!(told(&dns.authority), 2);
}

/// With nobody but the zone's own name servers to ask, where name servers listen: on a machine of its own, for port 53 is
/// there once. One of them does not exist, which is found out in ten seconds.
#[test]
fn the_zones_own_name_servers_are_asked_and_one_that_is_down_keeps_nothing_from_being_issued() {
    let test =
        "issuance_dns::the_zones_own_name_servers_are_asked_and_one_that_is_down_keeps_nothing_from_being_issued";
    if !Machine::is_inside() {
        return Machine::run_alone(test, "nameserver 127.0.0.1\n");
    }
    let bind = Bind::setup().zone(ZONE).name_server("ns2", [127, 0, 0, 2].into()).port(53).start();
    let authority = Pebble::setup().dns(bind.server()).start();
    let began = Instant::now();
    let gate = setup(&authority).acme_dns(&bind).unset("acme.dns.resolvers").start();
    let own = || (gate.source(WILDCARD)? == "own").then_some(());
    eventually_within(Duration::from_secs(40), "a certificate", own);
    assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(names(&gate), ["*.lockgate.test", "lockgate.test"]);
    gate.await_log(&[CHALLENGE, "do not answer, and are passed over: ns2.lockgate.test (127.0.0.2:53): "]);
    assert_eq!((authority.orders(), gate.orders("ca-0", "failed")), (1, 0.0));
    assert_eq!(bind.txt(CHALLENGE), Vec::<String>::new());
}
