//! The transport of a connection: the one place through which all of a client's bytes go, before encryption. Here writes
//! are gathered, and here it is seen when a request begins.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// What is gathered at most: one TLS record (RFC 8446, section 5.1).
const MAX_GATHERED_BYTES: usize = 16 * 1024;
/// Writes of this size are worth a record of their own.
const LARGE_WRITE_BYTES: usize = 8 * 1024;

/// A stream that tells its connection what is read, and writes in few pieces.
///
/// HTTP/2 flushes after every answer. With many streams under way that is a record, a system call and a packet for each.
/// So the first flush only asks to be polled again, behind the tasks that are ready now: whatever they have to write
/// goes out in the same piece. Nothing waits for a timer, and a lone answer waits for nobody.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    connection: Arc<Connection>,
    gathers: bool,
    /// Unencrypted bytes that wait for a flush. Given back when empty.
    gathered: BytesMut,
    /// Whether a flush was put off and is due at the next poll.
    flush_is_due: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Wraps a connection's stream; `gathers`: its protocol sends many answers at once.
    pub fn new(stream: S, connection: Arc<Connection>, gathers: bool) -> Self {
        Self { stream, connection, gathers, gathered: BytesMut::new(), flush_is_due: false }
    }

    /// Hands the gathered bytes to the stream.
    fn poll_send_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(sent);
        }
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        if read > 0 {
            this.connection.has_read(read);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if this.gathers && bytes < LARGE_WRITE_BYTES {
            if this.gathered.len() + bytes > MAX_GATHERED_BYTES {
                ready!(this.poll_send_gathered(cx))?;
            }
            bufs.iter().for_each(|buf| this.gathered.extend_from_slice(buf));
            return Poll::Ready(Ok(bytes));
        }
        ready!(this.poll_send_gathered(cx))?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty() && !std::mem::replace(&mut this.flush_is_due, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_send_gathered(cx))?;
        this.flush_is_due = false;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_gathered(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
