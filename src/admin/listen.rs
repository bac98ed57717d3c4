//! Accepts connections of the admin, metrics and control sockets: few at a time, and none for ever.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What one listener gives its clients. Whoever is beyond it waits in the kernel's queue.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    connections: usize,
    /// For the head of a request, from the connection's start or the answer before: it ends idle connections too.
    head: Duration,
    /// For a connection and everything on it.
    total: Duration,
}

/// A handful of scrapers, people and commands; a total longer than a command waits (`lockgate cert order` 5 minutes).
const ALLOWANCE: Allowance =
    Allowance { connections: 64, head: Duration::from_secs(10), total: Duration::from_secs(330) };
/// How long an answer under way may take to finish when the connection's time is over.
const FINISHING: Duration = Duration::from_secs(5);

/// Serves `routes` on `listener`, as long as the process runs.
pub async fn serve<L: Listener>(listener: L, routes: Router) {
    serve_within(ALLOWANCE, listener, routes).await;
}

async fn serve_within<L: Listener>(allowance: Allowance, mut listener: L, routes: Router) {
    let places = Arc::new(Semaphore::new(allowance.connections));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // Waits, where descriptors have run out, before it tries again.
        let (stream, _) = listener.accept().await;
        let routes = routes.clone();
        tokio::spawn(async move {
            let mut serving = std::pin::pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(allowance.head)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
            );
            // What goes wrong on a connection is its client's affair.
            if timeout(allowance.total, serving.as_mut()).await.is_err() {
                serving.as_mut().graceful_shutdown();
                _ = timeout(FINISHING, serving).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    const SOON: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_secs(3600);

    async fn listening(allowance: Allowance) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(serve_within(allowance, listener, routes));
        address
    }

    async fn client(to: SocketAddr, says: &str) -> TcpStream {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(says.as_bytes()).await.unwrap();
        stream
    }

    async fn all(mut stream: TcpStream) -> String {
        let mut said = String::new();
        _ = timeout(SOON, stream.read_to_string(&mut said)).await.expect("the end of the connection");
        said
    }

    const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const ASK_ONCE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_says_nothing_does_not_keep_others_out_for_long() {
        let at = listening(Allowance { connections: 2, head: Duration::from_millis(300), total: NEVER }).await;
        let silent = [client(at, "").await, client(at, "GET / HT").await];
        assert!(all(client(at, ASK_ONCE).await).await.ends_with("hello"));
        drop(silent);
    }

    #[tokio::test]
    async fn no_more_are_served_at_once_than_allowed() {
        let at = listening(Allowance { connections: 1, head: NEVER, total: NEVER }).await;
        let mut first = client(at, ASK).await;
        assert!(first.read(&mut [0; 512]).await.unwrap() > 0);
        let mut second = client(at, ASK).await;
        assert!(timeout(Duration::from_millis(300), second.read(&mut [0; 512])).await.is_err(), "no place for it");
        drop(first);
        assert!(timeout(SOON, second.read(&mut [0; 512])).await.unwrap().unwrap() > 0);
    }

    #[tokio::test]
    async fn no_connection_lives_for_ever() {
        let at = listening(Allowance { connections: 1, head: NEVER, total: Duration::from_millis(300) }).await;
        assert!(all(client(at, ASK).await).await.ends_with("hello"));
        assert_eq!(all(client(at, "").await).await, "");
    }
}
