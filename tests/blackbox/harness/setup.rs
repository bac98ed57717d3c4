//! The configuration of a test's proxy, written the way an operator would write it.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::lockgate::Lockgate;
use super::nginx::Nginx;
use super::pki::{Leaf, Pki};
use super::process::{Output, program, run};
use super::scripted::Scripted;

/// Where the program keeps its data, in the test's folder.
pub(super) const DATA_DIR: &str = "data";

/// A configuration in the making. Calls that speak of a domain speak of the last one begun.
#[derive(Clone)]
pub struct Setup {
    pki: Pki,
    /// Root keys, dotted: `listen.https`; a later value replaces an earlier one.
    keys: Vec<(String, String)>,
    tables: Vec<String>,
    domains: Vec<Domain>,
    pub(super) clock: Option<Start>,
    pub(super) has_disk: bool,
    pub(super) max_fds: Option<u32>,
    pub(super) env: Vec<(String, String)>,
    pub(super) expected_errors: Vec<String>,
}

#[derive(Clone)]
struct Domain {
    name: String,
    origin: Behind,
    lines: Vec<String>,
    certificates: Vec<Leaf>,
    /// The certificates are those that every domain gets without asking.
    automatic: bool,
}

/// How the clock begins.
#[derive(Clone)]
pub(super) enum Start {
    Flowing(String),
    Stopped(String),
}

impl Setup {
    /// A proxy without domains, whose certificates come from `pki`.
    pub fn new(pki: &Pki) -> Self {
        let setup = Self {
            pki: pki.clone(),
            keys: Vec::new(),
            tables: Vec::new(),
            domains: Vec::new(),
            clock: None,
            has_disk: false,
            max_fds: None,
            env: Vec::new(),
            expected_errors: Vec::new(),
        };
        setup
            .set("shutdown_grace", "'5s'")
            .set("listen.https", "['127.0.0.1:0']")
            .set("listen.http", "['127.0.0.1:0']")
            .set("listen.admin", "'127.0.0.1:0'")
    }

    /// Sets a key outside the tables, dotted, to a TOML value: `.set("limits.header_timeout", "'1s'")`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.retain(|(k, _)| k != key);
        self.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Leaves out what begins with `key` of the keys outside the tables.
    pub fn unset(mut self, key: &str) -> Self {
        self.keys.retain(|(k, _)| !k.starts_with(key));
        self
    }

    /// Adds whole tables: `[plans.tiny]` and its lines.
    pub fn table(mut self, toml: &str) -> Self {
        self.tables.push(toml.to_owned());
        self
    }

    /// Begins a domain, with an ECDSA certificate of its own unless told otherwise.
    pub fn domain(mut self, name: &str, origin: impl ToOrigin) -> Self {
        let certificates = vec![self.pki.leaf(name)];
        let origin = origin.origin();
        self.domains.push(Domain { name: name.to_owned(), origin, lines: Vec::new(), certificates, automatic: true });
        self
    }

    /// Leaves that domain out.
    pub fn without_domain(mut self, name: &str) -> Self {
        self.domains.retain(|domain| domain.name != name);
        self
    }

    /// Another origin for a domain begun earlier.
    pub fn move_domain(mut self, name: &str, origin: impl ToOrigin) -> Self {
        let domain = self.domains.iter_mut().find(|domain| domain.name == name).expect("a domain begun earlier");
        domain.origin = origin.origin();
        self
    }

    /// The domain's certificate is this one; called again: these.
    pub fn certificate(mut self, leaf: &Leaf) -> Self {
        let domain = self.last();
        if std::mem::take(&mut domain.automatic) {
            domain.certificates.clear();
        }
        domain.certificates.push(leaf.clone());
        self
    }

    /// The domain has no certificate of its own.
    pub fn uncertified(mut self) -> Self {
        let domain = self.last();
        domain.automatic = false;
        domain.certificates.clear();
        self
    }

    /// The domain's plan; called again, another plan.
    pub fn plan(self, plan: &str) -> Self {
        self.with("plan", &format!("'{plan}'"))
    }

    pub fn tenant(self, tenant: &str) -> Self {
        self.with("tenant", &format!("'{tenant}'"))
    }

    /// Sets a key of the domain to a TOML value: `.with("max_body", "'1KiB'")`.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        let begins = format!("{key} = ");
        let domain = self.last();
        domain.lines.retain(|line| !line.starts_with(&begins));
        domain.lines.push(begins + value);
        self
    }

    /// `[fallback]`: the operator's own last-but-one resort.
    pub fn fallback(self, leaf: &Leaf) -> Self {
        self.table(&format!("[fallback]\ncert = '{}'\nkey = '{}'", leaf.cert.display(), leaf.key.display()))
    }

    /// Wall time flows from `date` instead of now.
    pub fn clock(mut self, date: &str) -> Self {
        self.clock = Some(Start::Flowing(date.to_owned()));
        self
    }

    /// Wall time stands at `date` until the test moves it.
    pub fn clock_stopped(mut self, date: &str) -> Self {
        self.clock = Some(Start::Stopped(date.to_owned()));
        self
    }

    /// Writing to the data directory fails when the test says so, by [`Lockgate::disk`].
    pub fn disk(mut self) -> Self {
        self.has_disk = true;
        self
    }

    /// The program may open so many files.
    pub fn max_fds(mut self, limit: u32) -> Self {
        self.max_fds = Some(limit);
        self
    }

    /// The program has this variable in its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_str().expect("UTF-8").to_owned()));
        self
    }

    /// ERROR lines that contain this are what the test wants to see.
    pub fn expect_error(mut self, contains: &str) -> Self {
        self.expected_errors.push(contains.to_owned());
        self
    }

    /// `data_dir`, if it is written.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let (_, value) = self.keys.iter().find(|(key, _)| key == "data_dir")?;
        Some(value.trim_matches('\'').into())
    }

    /// Runs the proxy and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Lockgate {
        Lockgate::start(self)
    }

    /// Runs `lockgate check` on this configuration.
    #[track_caller]
    pub fn check(&self) -> Output {
        self.run_to_end("check")
    }

    /// Runs `lockgate run`, which is expected to give up by itself.
    #[track_caller]
    pub fn fail_to_start(&self) -> Output {
        self.run_to_end("run")
    }

    fn run_to_end(&self, subcommand: &str) -> Output {
        let dir = TempDir::new().expect("temporary folder");
        run(Command::new(program()).arg(subcommand).arg("-c").arg(self.write(dir.path())))
    }

    /// The line of the first occurrence of `text` in the file that `write` makes.
    #[track_caller]
    pub fn line_of(&self, text: &str) -> usize {
        let toml = self.toml(Path::new(""));
        1 + toml.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?} in:\n{toml}"))
    }

    /// Writes the file, renamed into place, and says where it is.
    pub(super) fn write(&self, dir: &Path) -> PathBuf {
        let file = dir.join("lockgate.toml");
        let fresh = dir.join("lockgate.toml.new");
        fs::write(&fresh, self.toml(dir)).expect("configuration");
        fs::rename(&fresh, &file).expect("configuration");
        file
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.pki.ca_file()
    }

    /// Ports on which origins and authorities listen: connections to them are kept.
    pub(super) fn origin_ports(&self) -> Vec<u16> {
        let origins = self.domains.iter().map(|domain| domain.origin.url.as_str());
        let lines = self.tables.iter().flat_map(|table| table.lines());
        let directories = lines.filter_map(|line| line.strip_prefix("directory = '"));
        let port = |url: &str| url.rsplit(':').next()?.split(['/', '\'']).next()?.parse().ok();
        origins.chain(directories).filter_map(port).collect()
    }

    fn toml(&self, dir: &Path) -> String {
        let mut toml = String::new();
        if !self.keys.iter().any(|(key, _)| key == "data_dir") {
            toml += &format!("data_dir = '{}'\n", dir.join(DATA_DIR).display());
        }
        for (key, value) in &self.keys {
            toml += &format!("{key} = {value}\n");
        }
        for table in &self.tables {
            toml += &format!("\n{table}\n");
        }
        for Domain { name, origin, lines, certificates, .. } in &self.domains {
            toml += &format!("\n[[domain]]\nname = \"{name}\"\norigin = [\"{}\"]\n{}\n", origin.url, lines.join("\n"));
            for Leaf { cert, key, .. } in certificates {
                toml += &format!("[[domain.certificate]]\ncert = '{}'\nkey = '{}'\n", cert.display(), key.display());
            }
        }
        toml
    }

    fn last(&mut self) -> &mut Domain {
        self.domains.last_mut().expect("a domain begun earlier")
    }
}

/// What stands behind a domain: the URL that the configuration names, and the handle that keeps it answering.
#[derive(Clone)]
pub struct Behind {
    url: String,
    _alive: Option<Arc<dyn Any + Send + Sync>>,
}

/// Whatever can stand behind a domain. An origin of ours lives for as long as a proxy is configured with it, so that
/// `Lockgate::serving(SITE, Scripted::ok("hello"))` needs no name for it.
pub trait ToOrigin {
    fn origin(self) -> Behind;
}

impl ToOrigin for &str {
    fn origin(self) -> Behind {
        Behind { url: self.to_owned(), _alive: None }
    }
}

impl ToOrigin for String {
    fn origin(self) -> Behind {
        self.as_str().origin()
    }
}

impl ToOrigin for Nginx {
    fn origin(self) -> Behind {
        Behind { url: self.url(), _alive: Some(Arc::new(self)) }
    }
}

impl ToOrigin for Scripted {
    fn origin(self) -> Behind {
        Behind { url: self.url(), _alive: Some(Arc::new(self)) }
    }
}

impl<T: ToOrigin + Clone> ToOrigin for &T {
    fn origin(self) -> Behind {
        self.clone().origin()
    }
}
