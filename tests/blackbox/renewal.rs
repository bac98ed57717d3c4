//! Certificates are renewed in time, by themselves, whatever the clock does (SPEC 10; RELIABILITY 13, 21); and what is
//! served is looked at.

use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread;

use rstest::rstest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::estate::*;
use crate::harness::*;

fn expiring_soon(gate: &Lockgate) -> f64 {
    gate.metric(GUARANTEED, &DOMAIN).expect("a series for each domain")
}

/// The clock is months ahead when the certificate is due; the authority has forgotten everything meanwhile.
#[test]
fn a_certificate_of_a_real_authority_is_renewed() {
    let (http, https, names, pki) = (free_port(), free_port(), ChallTestSrv::start(), Pki::new());
    let mut authority =
        Pebble::setup().validity_secs(90 * DAY as u64).validates_at(http, https).dns(names.server()).start();
    let gate = Lockgate::under(&pki)
        .set("listen.http", &format!("['127.0.0.1:{http}']"))
        .set("listen.https", &format!("['127.0.0.1:{https}']"))
        .set("acme.agree_to_terms", "true")
        .table(&format!(
            "[[acme.ca]]\ndirectory = '{}'\nca_file = '{}'",
            authority.directory(),
            authority.ca_file().display()
        ))
        .domain(SITE, Scripted::ok(""))
        .uncertified()
        // The authority says from when on it is valid by its own clock, to the second.
        .clock(&date(jiff::Timestamp::now().as_second() + 60))
        .start();
    let own = await_own(&gate);
    authority.stop();
    authority.start_again_with(|setup| setup.validity_secs(365 * DAY as u64));
    gate.clock().advance(61 * DAY);
    let renewed = await_other(&gate, &own);
    assert!(renewed.not_after > own.not_after + 200 * DAY, "{renewed:?}");
    assert_eq!((source(&gate, SITE), authority.orders(), authority.accounts()), ("own", 1, 1));
}

#[rstest]
#[case::three_months(90 * DAY, 60 * DAY)]
#[case::six_days(6 * DAY, 3 * DAY)]
#[case::an_hour(HOUR, HOUR / 2)]
fn it_is_renewed_with_a_third_or_a_half_left_and_the_old_one_is_never_seen_again(
    #[case] lifetime: i64,
    #[case] latest: i64,
) {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    authority.set_validity_secs(lifetime);
    authority.set_now(utc(NOON));
    let setup = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("")).uncertified();
    let mut gate = setup.clock_stopped(NOON).start();
    let mut own = await_own(&gate);
    for orders in 1..3 {
        stop_at(&gate, &[&authority], own.not_before + latest - lifetime / 20 - 2);
        let_it_look();
        assert_eq!(authority.orders().len(), orders, "not from birth");
        assert!(expiring_soon(&gate) > (lifetime - latest) as f64);
        stop_at(&gate, &[&authority], own.not_before + latest + 2);
        let renewed = await_other(&gate, &own);
        assert_eq!((0..40).filter(|_| gate.leaf(SITE) != renewed).count(), 0, "the old one came back");
        assert_eq!((renewed.not_after - renewed.not_before, authority.orders().len()), (lifetime, orders + 1));
        own = renewed;
    }
    gate.kill();
    gate.start_again();
    assert_eq!(gate.leaf(SITE), own, "nor after a restart");
    let_it_look();
    assert_eq!(authority.orders().len(), 3);
}

#[test]
fn the_clock_jumps_and_nothing_expired_is_served_and_nothing_stormed() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let (pki, origin) = (Pki::new(), Scripted::ok(""));
    let (first, second) = (FaultCa::start(&pki), FaultCa::start(&pki));
    let both = [&first, &second];
    both.iter().for_each(|authority| authority.set_now(utc(NOON)));
    let names = NAMES.map(|name| format!("{name}.lockgate.test"));
    let setup = names.iter().fold(managed(&pki, &both), |setup, name| setup.domain(name, &origin).uncertified());
    let gate = setup.clock_stopped(NOON).start();
    let all_are_own = || {
        for name in &names {
            await_source(&gate, name, "own");
        }
    };
    let all_are_valid = |at: i64| {
        for leaf in names.iter().map(|name| gate.leaf(name)) {
            assert!(leaf.not_before <= at && at <= leaf.not_after, "{leaf:?} at {at}");
        }
    };
    all_are_own();
    let later = utc(NOON) + 91 * DAY;
    stop_at(&gate, &both, later);
    all_are_valid(later);
    all_are_own();
    let_it_look();
    assert_eq!(issued(&first), 2 * NAMES.len());
    assert!(issued(&second) <= NAMES.len(), "at most one standby each");
    let orders = || both.map(|authority| authority.orders().len());
    let before = orders();
    // The last certificates have not begun, and those before them have ended.
    stop_at(&gate, &both, later - 30 * DAY);
    all_are_valid(later - 30 * DAY);
    let_it_look();
    assert_eq!(orders(), before, "what is held is good as soon as the clock is right again");
    stop_at(&gate, &both, later);
    all_are_own();
    all_are_valid(later);
    let_it_look();
    assert_eq!(orders(), before);
}

/// Somebody else listens at the same port, and the system gives part of the clients to him.
#[test]
fn another_certificate_on_the_wire_is_noticed() {
    let pki = Pki::new();
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).start();
    let probes = |result| gate.metric("lockgate_certificate_probes_total", &[("result", result)]).unwrap_or_default();
    eventually("a look", || (probes("meant") > 0.0).then_some(()));
    assert_eq!(gate.metric("lockgate_certificate_mismatches_total", &DOMAIN).unwrap_or_default(), 0.0);
    let thief = pki.leaf(SITE);
    // The proxy has a socket for each processor.
    let sockets: Vec<_> = (0..16).map(|_| share(gate.https())).collect();
    for socket in &sockets {
        let (socket, thief) = (socket.try_clone().unwrap(), thief.clone());
        thread::spawn(move || steal(&socket, &thief));
    }
    eventually("the mismatch", || {
        (gate.metric("lockgate_certificate_mismatches_total", &DOMAIN).unwrap_or_default() > 0.0).then_some(())
    });
    gate.await_log(&["another certificate is served than the one that is meant", SITE]);
    assert!(probes("other") > 0.0);
    // Without him all is well.
    sockets.iter().for_each(|socket| _ = socket2::SockRef::from(socket).shutdown(Shutdown::Both));
    drop(sockets);
    let meant = probes("meant");
    eventually("a look that finds what is meant", || (probes("meant") > meant).then_some(()));
}

/// Another listener at an address that is taken.
fn share(address: std::net::SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// Shakes hands with whoever comes, until the socket is shut down.
fn steal(socket: &TcpListener, with: &Leaf) {
    let chain = CertificateDer::pem_file_iter(&with.cert).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&with.key).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    while let Ok((mut stream, _)) = socket.accept() {
        let mut server = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        while server.is_handshaking() && server.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
    }
}
