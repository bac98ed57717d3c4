//! An origin that does exactly what a test tells it to, and remembers every byte that it was sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A TCP server with a thread for each connection. A handle: it serves until the last one is gone, and the proxy in
/// front of it has one too.
#[derive(Clone)]
pub struct Scripted {
    server: Arc<Server>,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    over: Arc<AtomicBool>,
}

/// What came in.
#[derive(Default)]
struct Seen {
    /// The bytes of each connection.
    bytes: Mutex<Vec<Vec<u8>>>,
    /// The requests of all connections, in the order completed.
    requests: Mutex<Vec<Request>>,
    /// Connections that are open at this moment.
    open: AtomicUsize,
}

/// A request as the origin got it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Request line and fields, without the empty line.
    pub head: String,
    /// Decoded; trailers are in `trailers`.
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Request {
    /// Method, target, version.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// Every field of that name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

impl Scripted {
    /// Every connection goes through `behave`, which ends it by returning.
    pub fn new(behave: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (seen, over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (theirs, ends, behave) = (Arc::clone(&seen), Arc::clone(&over), Arc::new(behave));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, behave) = (Arc::clone(&theirs), Arc::clone(&behave));
                thread::spawn(move || {
                    let mut peer = Peer::new(stream, seen);
                    let _ = behave(&mut peer);
                });
            }
        });
        Self { server: Arc::new(Server { address, seen, over }) }
    }

    /// Answers every request by what `answer` makes of it.
    pub fn each(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::new(move |peer| {
            while let Some(request) = peer.request()? {
                peer.send(answer(&request))?;
            }
            Ok(())
        })
    }

    /// Answers every request with these bytes.
    pub fn answering(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::each(move |_| bytes.clone())
    }

    /// Answers every request with 200 and this body.
    pub fn ok(body: &str) -> Self {
        Self::answering(response(body))
    }

    /// Answers every request with 200 and the request's own body.
    pub fn echo() -> Self {
        Self::each(|request| response(&String::from_utf8_lossy(&request.body)))
    }

    /// Reads each request, then says nothing.
    pub fn silent() -> Self {
        Self::new(|peer| {
            peer.request()?;
            peer.stall()
        })
    }

    /// A port where nobody listens.
    pub fn down() -> String {
        format!("http://127.0.0.1:{}", super::nginx::free_port())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The bytes of each connection so far.
    pub fn connections(&self) -> Vec<Vec<u8>> {
        self.server.seen.bytes.lock().expect("origin").clone()
    }

    /// All bytes so far, as text.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.connections().concat()).into_owned()
    }

    /// The complete requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.seen.requests.lock().expect("origin").clone()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.server.seen.open.load(Ordering::Relaxed)
    }

    /// The last complete request.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("the origin got a request")
    }
}

/// The listener's thread wakes up to see that it is over.
impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// 200 with a body of known length.
pub fn response(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One connection, from the origin's side.
pub struct Peer {
    stream: TcpStream,
    seen: Arc<Seen>,
    /// Which connection this is, from 0.
    pub index: usize,
    /// Read but not yet parsed.
    unread: Vec<u8>,
    /// The last field, so that a connection counts as open until its socket is closed.
    _open: Open,
}

/// One of [`Seen::open`].
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seen))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peer {
    fn new(stream: TcpStream, seen: Arc<Seen>) -> Self {
        let _ = stream.set_nodelay(true);
        let mut connections = seen.bytes.lock().expect("origin");
        let index = connections.len();
        connections.push(Vec::new());
        drop(connections);
        Self { stream, _open: Open::new(&seen), seen, index, unread: Vec::new() }
    }

    /// Reads a whole request; `None` when the proxy closed instead.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.head()? else { return Ok(None) };
        let mut request = Request { head, ..Request::default() };
        let chunked = request.header("transfer-encoding").is_some_and(|te| te.to_ascii_lowercase().contains("chunked"));
        if chunked {
            self.chunks(&mut request)?;
        } else if let Some(Ok(len)) = request.header("content-length").map(str::parse) {
            request.body = self.take(len)?;
        }
        self.seen.requests.lock().expect("origin").push(request.clone());
        Ok(Some(request))
    }

    /// Reads a request's head and leaves its body; `None` when the proxy closed instead.
    pub fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.take(end + 4)?;
                return Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Does nothing more until the proxy closes.
    pub fn stall(&mut self) -> io::Result<()> {
        while self.fill()? {}
        Ok(())
    }

    /// Neither reads nor closes, for longer than any test takes.
    pub fn ignore(&mut self) -> io::Result<()> {
        thread::sleep(Duration::from_secs(3600));
        Ok(())
    }

    /// Ends the connection with RST.
    pub fn reset(&mut self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Says that nothing more is coming, but keeps reading.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn chunks(&mut self, request: &mut Request) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            match size.map_err(|_| ErrorKind::InvalidData)? {
                0 => break,
                size => request.body.extend_from_slice(&self.take(size)?),
            }
            self.line()?;
        }
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            request.trailers += &(line + "\n");
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.unread.split_off(len);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Reads what there is, and remembers it; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut some = [0; 16 * 1024];
        let n = self.stream.read(&mut some)?;
        self.unread.extend_from_slice(&some[..n]);
        self.seen.bytes.lock().expect("origin")[self.index].extend_from_slice(&some[..n]);
        Ok(n > 0)
    }
}

/// A tunnel reads and writes the connection itself.
impl Read for Peer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Peer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
