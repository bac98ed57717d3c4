//! The request's way from end to end in one process: a TLS client, a worker, a plain origin, all on loopback.
//!
//! The figures include client and origin, so they are for comparing one version with another, nothing else.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockgate::clock::Clock;
use lockgate::control::{Blueprint, Control};
use lockgate::name::DomainName;
use lockgate::on_demand::Doorbell;
use lockgate::proxy::worker::{self, Channels};
use lockgate::proxy::{Counters, Order, Protocol, Shared};
use lockgate::site::{OriginSpec, SiteSpec};
use lockgate::snapshot::Live;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::sync::mpsc;

type Client = StreamOwned<ClientConnection, TcpStream>;

/// Answers every request head with 1 KiB.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut buffer = [0; 16 * 1024];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) && stream.write_all(answer.as_bytes()).is_ok() {}
            });
        }
    });
    address
}

/// A worker that serves `localhost` in front of `origin`; its address, and how to connect.
fn lockgate(origin: SocketAddr) -> (SocketAddr, Arc<ClientConfig>) {
    let live = Arc::new(Live::default());
    let mut control = Control::new(Arc::clone(&live));
    let name = DomainName::parse("localhost").unwrap();
    let spec = SiteSpec::new(name, OriginSpec::http("127.0.0.1", origin.port()));
    control.apply(Blueprint { domains: [Arc::new(spec)].into(), ..Blueprint::default() }).unwrap();
    let clock = Arc::new(Clock::default());
    let root = control.internal().root_pem(clock.read().now);

    let counters = Arc::new(Counters::register(&prometheus::Registry::new()).unwrap());
    let shared = Shared::new(live, clock, counters, Doorbell::new().0, 1000).unwrap();
    let (tell, orders) = mpsc::unbounded_channel();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    tell.send(Order::Listen(Protocol::Https, address, socket)).unwrap();
    std::thread::spawn(move || {
        let _tell = tell;
        let (shipments, mut arriving) = mpsc::channel(16);
        std::thread::spawn(move || while arriving.blocking_recv().is_some() {});
        let (_ask, ship_now) = mpsc::channel(1);
        worker::run(shared, Channels { orders, shipments, ship_now }).unwrap();
    });

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    (address, Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_nodelay(true).unwrap();
    let session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap();
    StreamOwned::new(session, tcp)
}

/// One GET, answered with 1 KiB and a date that Lockgate adds.
fn get(client: &mut Client, buffer: &mut [u8]) {
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n").unwrap();
    let mut read = 0;
    loop {
        read += client.read(&mut buffer[read..]).unwrap();
        let answer = &buffer[..read];
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| read >= head + 4 + 1024) {
            return;
        }
    }
}

fn request(c: &mut Criterion) {
    let (address, config) = lockgate(origin());
    let mut buffer = vec![0; 16 * 1024];
    let mut group = c.benchmark_group("end to end");
    group.throughput(Throughput::Elements(1));
    let mut client = connect(address, &config);
    group.bench_function("GET 1 KiB on a kept connection", |b| b.iter(|| get(&mut client, &mut buffer)));
    group.bench_function("handshake (resumed) and GET 1 KiB", |b| {
        b.iter(|| get(&mut connect(address, &config), &mut buffer));
    });
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
