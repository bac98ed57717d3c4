//! A client's socket, below TLS: where it is seen whether the client's side takes what is sent, and where a socket with
//! unread bytes is closed gently.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Connection;

/// What is read and thrown away of a body that nobody wanted, before the socket is closed all the same.
const MAX_LINGER_BYTES: usize = 1024 * 1024;

/// A socket that tells its connection what happens.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    connection: Arc<Connection>,
    /// Bytes thrown away since our side was closed; `None`: it is open.
    lingered_bytes: Option<usize>,
}

impl Socket {
    /// The socket of `connection`.
    pub fn new(tcp: TcpStream, connection: Arc<Connection>) -> Self {
        Self { tcp, connection, lingered_bytes: None }
    }

    /// The address that the client came to.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.tcp.local_addr()
    }

    /// Reads until the client is done too. The sweep ends it if that takes too long.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lingered = self.lingered_bytes.get_or_insert(0);
        let mut scrap = [0; 4096];
        while *lingered < MAX_LINGER_BYTES {
            let mut scrap = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut scrap)) {
                Ok(()) if !scrap.filled().is_empty() => *lingered += scrap.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn noted(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.has_written(polled.is_ready());
        polled
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.noted(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingered_bytes.is_none() {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
        }
        if this.connection.should_linger() { this.poll_linger(cx) } else { Poll::Ready(Ok(())) }
    }
}
