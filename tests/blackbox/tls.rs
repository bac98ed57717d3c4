//! Handshakes: what is offered, what is refused, and what a hostile one costs (SPEC 5; RELIABILITY 10, 11, 12, 17).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustls::{AlertDescription, NamedGroup, ProtocolVersion};

use crate::harness::*;

const SITE: &str = "www.example.test";

fn serving() -> Setup {
    Lockgate::serving(SITE, Scripted::down())
}

/// `openssl s_client` with these arguments: whether it got a connection, and what it said.
fn s_client(gate: &Lockgate, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &gate.https().to_string(), "-servername", SITE]).args(args);
    let output = run(&mut command);
    (output.code == 0, output.text())
}

#[rstest]
#[case(&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
#[case(&rustls::version::TLS12, ProtocolVersion::TLSv1_2)]
fn versions_of_today_are_spoken(
    #[case] offered: &'static rustls::SupportedProtocolVersion,
    #[case] spoken: ProtocolVersion,
) {
    let gate = serving().start();
    assert_eq!(gate.tls(SITE).version(offered).connect().unwrap().version(), spoken);
}

#[rstest]
#[case::tls10(&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false)]
#[case::tls11(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false)]
#[case::no_forward_secrecy(&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], false)]
#[case::no_aead(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"], false)]
#[case::finite_field(&["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], false)]
#[case::aead_ecdhe(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true)]
#[case::apple(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], true)]
fn suites_of_yesterday_are_not(#[case] args: &[&str], #[case] spoken: bool) {
    let gate = serving().start();
    let (connected, said) = s_client(&gate, args);
    assert_eq!(connected, spoken, "{said}");
}

#[test]
fn the_key_exchange_withstands_quantum_computers() {
    let gate = serving().start();
    assert_eq!(gate.connect(SITE).group(), NamedGroup::X25519MLKEM768);
}

#[rstest]
#[case::both(&["h2", "http/1.1"], Ok(Some("h2")))]
#[case::http2(&["h2"], Ok(Some("h2")))]
#[case::http1(&["http/1.1"], Ok(Some("http/1.1")))]
#[case::none(&[], Ok(None))]
#[case::nothing_that_we_speak(&["spdy/3"], Err(AlertDescription::NoApplicationProtocol))]
fn alpn_decides_the_protocol(#[case] offered: &[&str], #[case] chosen: Result<Option<&str>, AlertDescription>) {
    let gate = serving().start();
    let outcome = gate.tls(SITE).alpn(offered).connect().map(|connection| connection.protocol());
    assert_eq!(outcome, chosen.map(|name| name.map(str::to_owned)).map_err(Failure::Alert));
}

#[test]
fn without_alpn_it_is_http1() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.tls(SITE).alpn(&[]).connect().unwrap().get("/").text(), "hello");
}

#[rstest]
#[case::http2_preface_on_http1("http/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice())]
#[case::http1_on_http2("h2", b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n")]
fn the_protocol_is_not_guessed(#[case] alpn: &str, #[case] bytes: &[u8]) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.tls(SITE).alpn(&[alpn]).connect().unwrap();
    client.send(bytes);
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(!rest.contains("hello") && !rest.starts_with("HTTP/1.1 2"), "{rest}");
    assert_eq!(origin.received(), "");
}

// RELIABILITY 11.

#[test]
fn a_client_hello_may_be_split_at_any_byte() {
    let gate = serving().start();
    let len = client_hello(SITE).len();
    thread::scope(|scope| {
        for worker in 0..4 {
            let gate = &gate;
            scope.spawn(move || {
                for at in (1..len).skip(worker).step_by(4) {
                    let split = move |tcp: &mut TcpStream, hello: &[u8]| {
                        let (head, tail) = hello.split_at(at.min(hello.len()));
                        tcp.write_all(head)?;
                        thread::yield_now();
                        tcp.write_all(tail)
                    };
                    let connection = gate.tls(SITE).hello(split).connect();
                    assert!(connection.is_ok(), "split at {at}: {:?}", connection.err());
                }
            });
        }
    });
}

#[rstest]
#[case(1, false)]
#[case(2, false)]
#[case(5, false)]
#[case(64, true)]
#[case(500, true)]
fn a_client_hello_may_be_spread_over_records(#[case] size: usize, #[case] must_work: bool) {
    let gate = serving().start();
    let connection = gate.tls(SITE).hello(move |tcp, hello| tcp.write_all(&records(hello, size))).connect();
    assert!(!must_work || connection.is_ok(), "{:?}", connection.err());
    assert_ne!(connection.err(), Some(Failure::Silence));
    assert!(gate.tls(SITE).connect().is_ok());
}

/// The handshake message of one record, in records of `size` bytes.
fn records(hello: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    let record = |piece: &[u8]| [&header[..3], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat();
    message.chunks(size).flat_map(record).collect()
}

#[test]
fn a_client_hello_that_never_ends_is_given_up() {
    let gate = serving().set("limits.handshake_timeout", "'500ms'").start();
    let hello = client_hello(SITE);
    let begun = Instant::now();
    let mut waiting: Vec<_> = [0, 1, 4, 5, 6, 40, hello.len() / 2, hello.len() - 1]
        .map(|len| {
            let mut tcp = TcpStream::connect(gate.https()).unwrap();
            tcp.write_all(&hello[..len]).unwrap();
            (len, tcp)
        })
        .into();
    for (len, tcp) in &mut waiting {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let end = tcp.read_to_end(&mut Vec::new());
        assert!(!matches!(&end, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "still open after {len} bytes");
    }
    // The default is 10 s.
    assert!((Duration::from_millis(300)..Duration::from_secs(9)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[rstest]
#[case::plain_http(b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n".as_slice())]
#[case::ssl2(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80")]
#[case::huge_record(b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb\x03\x03")]
#[case::empty_records(b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00")]
#[case::huge_message(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff")]
#[case::application_data(b"\x17\x03\x03\x00\x05hello")]
#[case::alert(b"\x15\x03\x01\x00\x02\x02\x28")]
#[case::zeroes(&[0; 64])]
fn what_is_no_client_hello_is_closed_in_time(#[case] bytes: &[u8]) {
    let gate = serving().set("limits.handshake_timeout", "'1s'").start();
    let mut tcp = TcpStream::connect(gate.https()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    tcp.write_all(bytes).unwrap();
    let mut said = Vec::new();
    let end = tcp.read_to_end(&mut said);
    assert!(!matches!(&end, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "still open");
    assert!(said.len() <= 7, "an alert at most: {said:?}");
    assert!(gate.tls(SITE).connect().is_ok());
}

// RELIABILITY 12.

#[rstest]
#[case::tls13(&rustls::version::TLS13)]
#[case::tls12(&rustls::version::TLS12)]
fn a_ticket_resumes_at_its_own_site_and_at_no_other(#[case] version: &'static rustls::SupportedProtocolVersion) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).domain("other.example.test", &origin).start();
    let client = gate.tls(SITE).version(version).resuming();
    let visit = |name| {
        let mut connection = client.connect_to(name).unwrap();
        assert_eq!(connection.get("/").text(), "hello", "{name}");
        (connection.resumed(), connection.presented().names)
    };
    assert!(!visit(SITE).0);
    assert!(visit(SITE).0, "a ticket is worth something");
    assert_eq!(visit("other.example.test"), (false, vec!["other.example.test".to_owned()]));
}

#[test]
fn a_ticket_of_a_site_that_is_gone_is_worth_nothing() {
    let origin = Scripted::ok("hello");
    let mut gate = Lockgate::serving(SITE, &origin).domain("other.example.test", &origin).start();
    let client = gate.tls(SITE).resuming();
    client.connect().unwrap().get("/");
    gate.reconfigure(|setup| setup.without_domain(SITE));
    assert_eq!(client.connect().err(), Some(Failure::Alert(AlertDescription::UnrecognisedName)));
}

/// The same name, another site: a name of the wildcard's gets a domain of its own.
#[rstest]
#[case::tls13(&rustls::version::TLS13)]
#[case::tls12(&rustls::version::TLS12)]
fn a_ticket_belongs_to_the_site_and_not_to_the_name(#[case] version: &'static rustls::SupportedProtocolVersion) {
    let origin = Scripted::ok("hello");
    let mut gate = Lockgate::serving("*.example.test", &origin).start();
    let client = gate.tls(SITE).version(version).resuming();
    client.connect().unwrap().get("/");
    gate.reconfigure(|setup| setup.domain(SITE, &origin));
    let connection = client.connect().unwrap();
    assert_eq!((connection.resumed(), connection.presented().names), (false, vec![SITE.to_owned()]));
}

#[test]
fn tickets_survive_a_reload() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let client = gate.tls(SITE).resuming();
    client.connect().unwrap().get("/");
    assert_eq!(gate.reload().code, 0);
    assert!(client.connect().unwrap().resumed());
}

/// RELIABILITY 17.
#[test]
fn thousands_of_made_up_names_leave_no_trace() {
    let gate = serving().start();
    let ask = |from: usize, count: usize| {
        thread::scope(|scope| {
            for worker in 0..4 {
                let gate = &gate;
                scope.spawn(move || {
                    for i in (from..from + count).skip(worker).step_by(4) {
                        let mut tcp = TcpStream::connect(gate.https()).unwrap();
                        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                        tcp.write_all(&client_hello(&format!("made-up-{i}.test"))).unwrap();
                        let mut alert = Vec::new();
                        let _ = tcp.read_to_end(&mut alert);
                        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112], "unrecognized_name, fatal");
                    }
                });
            }
        });
    };
    ask(0, 500);
    let before = (gate.resident_bytes(), gate.metrics().len(), gate.log().len());
    ask(500, 4000);
    let grown = gate.resident_bytes().saturating_sub(before.0);
    assert!(grown < 8 << 20, "{grown} bytes for 4000 names");
    assert_eq!(gate.metrics().len(), before.1);
    assert!(gate.log().len() - before.2 < 100, "{} lines", gate.log().len() - before.2);
}

#[test]
fn handshakes_are_counted_by_outcome() {
    // Looks of its own come once a second, from the same address as ours.
    let gate = serving().set("limits.max_connections_per_client", "1").start();
    let looks = || gate.metrics().sum("lockgate_certificate_probes_total", &[("result", "meant")]);
    let count = || gate.metrics().sum("lockgate_tls_handshakes_total", &[]);
    assert_eq!(count(), 0.0);
    for _ in 0..3 {
        eventually("a handshake", || gate.tls(SITE).connect().ok());
        eventually("a refusal", || match gate.tls("unknown.test").connect() {
            Err(Failure::Alert(AlertDescription::UnrecognisedName)) => Some(()),
            _ => None,
        });
    }
    eventually("six", || (count() == 6.0).then_some(()));
    let before = looks();
    eventually("two more looks", || (looks() >= before + 2.0).then_some(()));
    assert_eq!(count(), 6.0);
    assert!(gate.metrics().label_values("result").len() >= 2 && !gate.metrics().label_values("version").is_empty());
}

/// A look at ourselves takes nobody's place.
#[test]
fn a_client_that_may_have_one_connection_is_not_in_the_way_of_our_own_looks() {
    let gate = serving().set("limits.max_connections_per_client", "1").start();
    let looks = || gate.metrics().sum("lockgate_certificate_probes_total", &[("result", "meant")]);
    let connection = eventually("a handshake", || gate.tls(SITE).connect().ok());
    let before = looks();
    eventually("two more looks", || (looks() >= before + 2.0).then_some(()));
    let refused = || gate.metric("lockgate_refused_connections_total", &[]);
    assert_eq!(refused(), Some(0.0));
    assert_eq!(gate.metrics().sum("lockgate_open_connections", &[]), 1.0);
    assert!(gate.tls(SITE).connect().is_err());
    assert_eq!(refused(), Some(1.0));
    drop(connection);
}
