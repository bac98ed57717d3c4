//! A TLS client that sends exactly what it is told and reports what it was shown.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, SignatureScheme, SupportedProtocolVersion,
};

use super::PATIENCE;
use super::answer::{Answer, read_answer};
use super::pki::Presented;

/// Sends a ClientHello in a way of its own.
type Hello = Arc<dyn Fn(&mut TcpStream, &[u8]) -> io::Result<()> + Send + Sync>;

/// A client in the making, and the maker of any number of its connections. Believes every certificate: what was
/// presented is for the test to judge. Resumes nothing unless told to.
#[derive(Clone)]
pub struct TlsClient {
    to: SocketAddr,
    name: String,
    sni: bool,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    schemes: Option<Vec<SignatureScheme>>,
    resumption: Resumption,
    hello: Option<Hello>,
    /// Made once, so that a session is resumed by the configuration that it was begun by.
    config: OnceLock<Arc<ClientConfig>>,
}

impl TlsClient {
    pub fn new(to: SocketAddr, name: &str) -> Self {
        Self {
            to,
            name: name.to_owned(),
            sni: true,
            alpn: vec![b"http/1.1".to_vec()],
            versions: rustls::ALL_VERSIONS.to_vec(),
            schemes: None,
            resumption: Resumption::disabled(),
            hello: None,
            config: OnceLock::new(),
        }
    }

    /// Names no site.
    pub fn without_sni(mut self) -> Self {
        self.sni = false;
        self
    }

    /// Offers these protocols instead of `http/1.1`.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Understands only these signatures.
    pub fn signatures(mut self, schemes: &[SignatureScheme]) -> Self {
        self.schemes = Some(schemes.to_vec());
        self
    }

    /// Remembers sessions and offers them again, at any site.
    pub fn resuming(mut self) -> Self {
        self.resumption = Resumption::store(Arc::new(AnySite::default()));
        self
    }

    /// Sends its ClientHello in a way of its own.
    pub fn hello(mut self, send: impl Fn(&mut TcpStream, &[u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.hello = Some(Arc::new(send));
        self
    }

    /// Connects and shakes hands.
    pub fn connect(&self) -> Result<Connection, Failure> {
        self.connect_to(&self.name)
    }

    /// The same client at another site, with what it remembers of the first.
    pub fn connect_to(&self, name: &str) -> Result<Connection, Failure> {
        let tcp = TcpStream::connect(self.to)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let mut socket = Socket { tcp, hello: self.hello.clone() };
        let mut tls = ClientConnection::new(self.config(), server_name(name)).expect("client");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Connection { stream: BufReader::new(Stream { tls, socket }), host: name.to_owned() })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let make = || {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let verifier = Believer { provider: Arc::clone(&provider), schemes: self.schemes.clone() };
            let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&self.versions);
            let builder = builder.expect("versions").dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            let mut config = builder.with_no_client_auth();
            config.alpn_protocols = self.alpn.clone();
            config.enable_sni = self.sni;
            config.resumption = self.resumption.clone();
            Arc::new(config)
        };
        Arc::clone(self.config.get_or_init(make))
    }
}

pub(super) fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a server name")
}

/// The record that a client for this site opens with.
pub fn client_hello(name: &str) -> Vec<u8> {
    let config = TlsClient::new(([127, 0, 0, 1], 0).into(), name).config();
    let mut hello = Vec::new();
    ClientConnection::new(config, server_name(name)).expect("client").write_tls(&mut hello).expect("hello");
    hello
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server's fatal alert.
    Alert(AlertDescription),
    /// The server closed or reset without a word.
    Closed,
    /// Nothing happened for [`PATIENCE`].
    Silence,
    /// Something else, as rustls or the system says it.
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => return Self::Alert(*alert),
            Some(other) => return Self::Other(other.to_string()),
            None => {}
        }
        match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => Self::Closed,
            WouldBlock | TimedOut => Self::Silence,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// An open connection over TLS.
pub struct Connection {
    stream: BufReader<Stream>,
    /// For the Host of `get`.
    host: String,
}

impl Connection {
    // What the handshake showed.

    #[track_caller]
    pub fn presented(&self) -> Presented {
        let chain = self.tls().peer_certificates().expect("certificates");
        Presented::parse(chain.first().expect("a leaf"))
    }

    pub fn protocol(&self) -> Option<String> {
        self.tls().alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned())
    }

    pub fn version(&self) -> ProtocolVersion {
        self.tls().protocol_version().expect("after the handshake")
    }

    pub fn group(&self) -> NamedGroup {
        self.tls().negotiated_key_exchange_group().expect("after the handshake").name()
    }

    pub fn resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    // Requests.

    /// Sends these bytes. That the server has closed already is not said here: its answer says why.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.stream.get_mut();
        let _ = stream.write_all(bytes.as_ref()).and_then(|()| stream.flush());
    }

    /// Sends these bytes to a server that must still take them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let Stream { tls, socket } = self.stream.get_mut();
        tls.writer().write_all(bytes.as_ref())?;
        // rustls's own stream reports what it could buffer and keeps the socket's error for later.
        while tls.wants_write() {
            tls.write_tls(socket)?;
        }
        Ok(())
    }

    /// Reads the next answer.
    pub fn try_answer(&mut self) -> io::Result<Answer> {
        read_answer(&mut self.stream, false)
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer().unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    /// Sends these bytes and reads the answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// An ordinary GET of the connection's site.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.ask(request)
    }

    /// Whether the connection still answers an ordinary GET.
    pub fn usable(&mut self) -> bool {
        self.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host));
        self.try_answer().is_ok()
    }

    /// Everything until the server closes; what came before silence, if it does not close.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Waits until the server closes; what it said before.
    #[track_caller]
    pub fn expect_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest).map_err(Failure::from);
        assert!(matches!(end, Ok(_) | Err(Failure::Closed)), "not closed but {end:?}");
        rest
    }

    /// Waits until the server closes, saying nothing more.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.expect_end();
        assert!(rest.is_empty(), "before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// How long reading waits from now on.
    pub fn set_patience(&mut self, limit: Duration) {
        self.stream.get_ref().socket.tcp.set_read_timeout(Some(limit)).expect("timeout");
    }

    fn tls(&self) -> &ClientConnection {
        &self.stream.get_ref().tls
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

/// The two together, like rustls's own, but able to read on where nothing can be written any more: a server that
/// refuses a request in the middle has said why before it closed.
struct Stream {
    tls: ClientConnection,
    socket: Socket,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            while self.tls.wants_write() && self.tls.write_tls(&mut self.socket).is_ok() {}
            self.tls.read_tls(&mut self.socket)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.socket).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut self.tls, &mut self.socket).flush()
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.get_mut().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().flush()
    }
}

/// TCP, but the first write (the ClientHello) may go a way of its own.
struct Socket {
    tcp: TcpStream,
    hello: Option<Hello>,
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.hello.take() {
            Some(send) => send(&mut self.tcp, buf).map(|()| buf.len()),
            None => self.tcp.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// Believes any certificate, but checks that the server holds its key.
#[derive(Debug)]
struct Believer {
    provider: Arc<CryptoProvider>,
    schemes: Option<Vec<SignatureScheme>>,
}

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let all = || self.provider.signature_verification_algorithms.supported_schemes();
        self.schemes.clone().unwrap_or_else(all)
    }
}

/// A session store that offers a ticket to any site, as a hostile client would.
#[derive(Default)]
pub struct AnySite {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Vec<Tls13ClientSessionValue>>,
}

impl fmt::Debug for AnySite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnySite")
    }
}

impl ClientSessionStore for AnySite {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.tls12.lock().expect("store") = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().expect("store").clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.tls12.lock().expect("store").take();
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tls13.lock().expect("store").push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.lock().expect("store").pop()
    }
}
