//! A TLS client that trusts the authority of the stock and nobody else, and resumes nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::stock::{self, Stock};

pub type Client = StreamOwned<ClientConnection, TcpStream>;

const PATIENCE: Duration = Duration::from_secs(10);
const BODY_BYTES: usize = 1024;

pub fn config(stock: &Stock) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(stock.authority.root()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Shakes hands with domain `i`; an error if another certificate serves than its own.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, i: usize) -> io::Result<Client> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(stock::name(i).as_str().to_owned()).unwrap();
    let mut client = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), tcp);
    client.conn.complete_io(&mut client.sock)?;
    Ok(client)
}

/// How long a handshake takes, in milliseconds.
pub fn handshake_ms(address: SocketAddr, config: &Arc<ClientConfig>, i: usize) -> f64 {
    let began = Instant::now();
    connect(address, config, i).unwrap();
    began.elapsed().as_secs_f64() * 1000.
}

/// One GET of 1 KiB from domain `i`.
pub fn get(client: &mut Client, i: usize) {
    let host = stock::name(i);
    client.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::with_capacity(2 * BODY_BYTES);
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "ended early: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + BODY_BYTES) {
            return;
        }
    }
}

/// Answers every request head with 1 KiB.
pub fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES));
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
