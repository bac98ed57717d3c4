//! Answers to challenges, on show while an authority looks for them.
//!
//! The request's way reads the board and knows nothing else of issuing: a file on port 80 (RFC 8555, section 8.3), a
//! certificate on port 443 (RFC 8737).

use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use rustls::sign::CertifiedKey;

/// Where a file is looked for, with the token behind it.
pub const PATH: &str = "/.well-known/acme-challenge/";

/// The protocol by which an authority asks for a certificate (RFC 8737, section 6.2).
pub const ALPN: &[u8] = b"acme-tls/1";

/// The most answers on show: far more than orders can be under way.
const MAX_SHOWN: usize = 100_000;

/// What is on show.
#[derive(Default)]
pub struct Board {
    files: DashMap<Box<str>, Box<str>>,
    certificates: DashMap<Box<str>, Arc<CertifiedKey>>,
}

/// An answer on show: until this is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is not on show"]
pub struct Exhibit {
    board: Arc<Board>,
    what: What,
}

#[derive(Debug)]
enum What {
    File(Box<str>),
    Certificate(Box<str>),
}

impl Board {
    /// Shows a key authorization under its token. `None`: there is no more room.
    pub fn show_file(self: &Arc<Self>, token: &str, key_authorization: &str) -> Option<Exhibit> {
        if self.files.len() >= MAX_SHOWN {
            return None;
        }
        self.files.insert(token.into(), key_authorization.into());
        Some(Exhibit { board: Arc::clone(self), what: What::File(token.into()) })
    }

    /// Shows a certificate to whoever asks for `server_name`, in normal form, by [`ALPN`]. `None`: there is no more
    /// room.
    pub fn show_certificate(self: &Arc<Self>, server_name: &str, key: Arc<CertifiedKey>) -> Option<Exhibit> {
        if self.certificates.len() >= MAX_SHOWN {
            return None;
        }
        self.certificates.insert(server_name.into(), key);
        Some(Exhibit { board: Arc::clone(self), what: What::Certificate(server_name.into()) })
    }

    /// The key authorization for a request's path.
    pub fn file(&self, path: &str) -> Option<Box<str>> {
        let token = path.strip_prefix(PATH)?;
        self.files.get(token).map(|file| file.clone())
    }

    /// The certificate for `server_name`, in normal form.
    pub fn certificate(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.get(server_name).map(|key| Arc::clone(&key))
    }
}

impl Drop for Exhibit {
    fn drop(&mut self) {
        match &self.what {
            What::File(token) => _ = self.board.files.remove(token),
            What::Certificate(name) => _ = self.board.certificates.remove(name),
        }
    }
}

/// How much there is; never what.
impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board {{ files: {}, certificates: {} }}", self.files.len(), self.certificates.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_on_show_until_its_order_is_over() {
        let board = Arc::new(Board::default());
        let shown = board.show_file("token", "token.thumbprint").unwrap();
        assert_eq!(board.file("/.well-known/acme-challenge/token").as_deref(), Some("token.thumbprint"));
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/token", "token", ""] {
            assert_eq!(board.file(path), None, "{path}");
        }
        drop(shown);
        assert_eq!(board.file("/.well-known/acme-challenge/token"), None);
    }
}
