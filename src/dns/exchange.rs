//! One message to one name server, and its answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::Failure;

/// How a question travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// UDP, and TCP if the answer is too long for it.
    Usual,
    /// TCP at once: the operating system tells when nobody listens.
    Tcp,
}

/// Asks `server` for records. Whatever it answers is `Ok`, an error code too.
///
/// `recursion` asks it to find out what it does not know itself.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    record_type: RecordType,
    recursion: bool,
    way: Way,
    patience: Duration,
) -> Result<Message, Failure> {
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = recursion;
    let request = DnsRequest::from_query(Query::query(name.clone(), record_type), options);
    let asking = async {
        if way == Way::Usual {
            // A stream for each question, for each has its own random port: the answer is harder to forge.
            let builder = UdpClientStream::builder(server, TokioRuntimeProvider::new());
            let mut stream = builder.with_timeout(Some(patience)).build();
            let answer = stream.send_message(request.clone()).first_answer().await;
            let answer = answer.map_err(|error| of_net(&error, patience))?;
            if !answer.truncation {
                return Ok(answer.into_message());
            }
        }
        let sent = request.to_vec().map_err(|error| Failure::Garbled(error.to_string()))?;
        let octets = over_tcp(server, &sent).await.map_err(|error| of_io(&error, patience))?;
        let answer = Message::from_vec(&octets).map_err(|error| Failure::Garbled(error.to_string()))?;
        if answer.id != request.id || answer.queries != request.queries {
            return Err(Failure::Garbled("it answers another question".into()));
        }
        Ok(answer)
    };
    timeout(patience, asking).await.unwrap_or(Err(Failure::Silent(patience)))
}

/// Sends one message and reads one (RFC 1035, section 4.2.2). Has no timeout of its own.
pub(super) async fn over_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stream = TcpStream::connect(server).await?;
    // One write: some servers read the length and expect the rest to be there.
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

pub(super) fn of_io(error: &io::Error, patience: Duration) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::Silent(patience),
        io::ErrorKind::ConnectionRefused => Failure::Unreachable("nobody listens there (connection refused)".into()),
        io::ErrorKind::UnexpectedEof => Failure::Unreachable("it closed the connection without an answer".into()),
        _ => Failure::Unreachable(error.to_string()),
    }
}

fn of_net(error: &NetError, patience: Duration) -> Failure {
    match error {
        NetError::Timeout => Failure::Silent(patience),
        NetError::Io(error) => of_io(error, patience),
        other => Failure::Garbled(other.to_string()),
    }
}
