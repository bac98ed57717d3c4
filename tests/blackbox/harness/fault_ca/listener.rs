//! Brings requests over HTTPS to the CA, and its answers back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::acme::Ca;
use super::seen::Seen;
use crate::harness::pki::Leaf;

/// More than any ACME client has to say.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// What is to be sent.
pub(super) enum Reply {
    Whole(Response<Bytes>),
    /// 200 and a body without end.
    Endless,
    Never,
}

/// Serves from a thread of its own until the sender is dropped.
pub(super) fn serve(listener: std::net::TcpListener, api: &Leaf, ca: Arc<Mutex<Ca>>) -> oneshot::Sender<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(api)));
    let (over, is_over) = oneshot::channel();
    listener.set_nonblocking(true).expect("listener");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("listener");
            let accept = async {
                loop {
                    let Ok((tcp, _)) = listener.accept().await else { continue };
                    tokio::spawn(converse(acceptor.clone(), tcp, Arc::clone(&ca)));
                }
            };
            tokio::select! {
                () = accept => {}
                _ = is_over => {}
            }
        });
    });
    over
}

fn tls(api: &Leaf) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(&api.cert).expect("certificate").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(&api.key).expect("key");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    builder.with_single_cert(chain.expect("certificate"), key).expect("a pair")
}

/// A client that gives up is its own business.
async fn converse(acceptor: TlsAcceptor, tcp: TcpStream, ca: Arc<Mutex<Ca>>) {
    let _ = tcp.set_nodelay(true);
    let Ok(stream) = acceptor.accept(tcp).await else { return };
    let service = service_fn(|request| answer(request, Arc::clone(&ca)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    ca: Arc<Mutex<Ca>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await?.to_bytes();
    let seen = Seen::new(head.method, head.uri.path(), &body);
    let reply = ca.lock().expect("the CA").answer(seen);
    match reply {
        Reply::Whole(response) => Ok(response.map(|bytes| Full::new(bytes).boxed())),
        Reply::Endless => {
            let mut response = Response::new(Endless.boxed());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
        Reply::Never => std::future::pending().await,
    }
}

/// A JSON string that is never closed.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        static SPACE: [u8; 16 * 1024] = [b' '; 16 * 1024];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&SPACE)))))
    }
}
