//! An HTTP/2 client that says what it is told to, also what a browser never would.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::lockgate::Lockgate;
use super::tls::{TlsClient, server_name};

/// One connection.
pub struct H2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

/// A response with its trailers.
#[derive(Debug)]
pub struct H2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl H2 {
    #[track_caller]
    pub fn connect(gate: &Lockgate, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let config = TlsClient::new(gate.https(), name).alpn(&["h2"]).config();
        let send = runtime.block_on(async {
            let tcp = TcpStream::connect(gate.https()).await.expect("connect");
            let tls = TlsConnector::from(config).connect(server_name(name), tcp).await.expect("handshake");
            let (send, connection) = h2::client::handshake(tls).await.expect("preface");
            tokio::spawn(connection);
            send
        });
        Self { runtime, send }
    }

    /// The streams that the server allows at once, known after the first answer.
    pub fn max_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// A GET with these fields; the URI gives `:scheme`, `:authority` and `:path`.
    #[track_caller]
    pub fn get(&mut self, uri: &str, headers: &[(&str, &str)]) -> Result<H2Answer, h2::Error> {
        self.request("GET", uri, headers, None)
    }

    /// A request, with a body if there is one.
    #[track_caller]
    pub fn request(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<H2Answer, h2::Error> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("request");
        let body = body.map(Bytes::copy_from_slice);
        let mut send = self.send.clone();
        let asked = async move {
            std::future::poll_fn(|cx| send.poll_ready(cx)).await?;
            let (response, mut stream) = send.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            let (head, mut body) = response.await?.into_parts();
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                bytes.extend_from_slice(&data);
            }
            let trailers = body.trailers().await?;
            Ok(H2Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
        };
        let limited = async { tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time") };
        self.runtime.block_on(limited)
    }

    /// Opens a stream and resets it at once, `count` times; an error when the server has had enough.
    pub fn rapid_reset(&mut self, uri: &str, count: usize) -> Result<(), h2::Error> {
        let mut send = self.send.clone();
        self.runtime.block_on(async move {
            for _ in 0..count {
                std::future::poll_fn(|cx| send.poll_ready(cx)).await?;
                let request = Request::builder().uri(uri).body(()).expect("request");
                let (_, mut stream) = send.send_request(request, true)?;
                tokio::task::yield_now().await;
                stream.send_reset(h2::Reason::CANCEL);
            }
            Ok(())
        })
    }
}
