//! Names of origins -> addresses: each name once at a time, and remembered for a few seconds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout};

/// How long an answer is used without asking again. The system's resolver does not tell how long it is valid.
const FRESH: Duration = Duration::from_secs(5);
/// How long a failure is used without asking again.
const FAILED: Duration = Duration::from_secs(1);
/// How long addresses may be used for as long as no newer answer comes (RFC 8767, section 5).
const STALE: Duration = Duration::from_secs(300);
/// How long a request waits for a newer answer before it makes do with the old one.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often old answers are forgotten.
const SWEEP: Duration = Duration::from_secs(30);
/// Look-ups of one worker under way. Each occupies a thread for as long as the name server takes, and what has to wait
/// for a thread would wait behind the slowest name server of all tenants.
const MAX_LOOKUPS: usize = 16;

type Addresses = Rc<[IpAddr]>;
type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>>>>;

/// One worker's resolver.
#[derive(Clone)]
pub(super) struct Resolver(Rc<Inner>);

struct Inner {
    names: RefCell<HashMap<Box<str>, Name>>,
    lookups: Cell<usize>,
    swept_at: Cell<Instant>,
    lookup: fn(Box<str>) -> LookupFuture,
}

#[derive(Default)]
struct Name {
    /// The last addresses, and when they came.
    addresses: Option<(Addresses, Instant)>,
    /// Until when nobody asks again.
    settled_until: Option<Instant>,
    /// The look-up under way; its end is the channel's.
    lookup: Option<watch::Receiver<()>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::with(|host| {
            Box::pin(async move {
                // The port is not used, but the function wants one.
                let found = tokio::net::lookup_host((&*host, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }
}

impl Resolver {
    fn with(lookup: fn(Box<str>) -> LookupFuture) -> Self {
        let (lookups, swept_at) = (Cell::new(0), Cell::new(Instant::now()));
        Self(Rc::new(Inner { names: RefCell::default(), lookups, swept_at, lookup }))
    }

    /// The addresses of `host`, in the order in which to try them. `None` if there are none or nobody could be asked.
    pub(super) async fn resolve(&self, host: &str) -> Option<Addresses> {
        let (old, under_way) = {
            let mut names = self.0.names.borrow_mut();
            let name = match names.get_mut(host) {
                Some(name) => name,
                None => names.entry(host.into()).or_default(),
            };
            let now = Instant::now();
            let old = name.usable(now);
            if name.settled_until.is_some_and(|until| now < until) {
                return old;
            }
            if name.lookup.is_none() {
                name.lookup = self.begin(host);
            }
            (old, name.lookup.clone())
        };
        let Some(mut under_way) = under_way else { return old };
        // Nothing is ever sent: what ends the wait is that the sender is gone.
        if old.is_none() {
            _ = under_way.changed().await;
        } else if timeout(PATIENCE, under_way.changed()).await.is_err() {
            // The others need not find out the same.
            if let Some(name) = self.0.names.borrow_mut().get_mut(host) {
                name.settled_until = Some(Instant::now() + FRESH);
            }
        }
        self.0.names.borrow().get(host).and_then(|name| name.usable(Instant::now()))
    }

    /// Forgets what is too old to be used. Does so only now and then, because there may be very many names.
    pub(super) fn sweep(&self, now: Instant) {
        if now.duration_since(self.0.swept_at.get()) < SWEEP {
            return;
        }
        self.0.swept_at.set(now);
        self.0.names.borrow_mut().retain(|_, name| {
            let settled = name.settled_until.is_some_and(|until| now < until);
            settled || name.lookup.is_some() || name.usable(now).is_some()
        });
    }

    /// Looks `host` up, whoever goes on waiting for it: the thread would not be stopped by their going away.
    fn begin(&self, host: &str) -> Option<watch::Receiver<()>> {
        let lookups = self.0.lookups.get();
        if lookups >= MAX_LOOKUPS {
            return None;
        }
        self.0.lookups.set(lookups + 1);
        let (done, under_way) = watch::channel(());
        let (this, host) = (Rc::clone(&self.0), Box::<str>::from(host));
        tokio::task::spawn_local(async move {
            let found = (this.lookup)(host.clone()).await;
            this.lookups.set(this.lookups.get().saturating_sub(1));
            let now = Instant::now();
            let mut names = this.names.borrow_mut();
            let name = names.entry(host).or_default();
            name.lookup = None;
            match found {
                Ok(found) if !found.is_empty() => {
                    name.addresses = Some((found.into(), now));
                    name.settled_until = Some(now + FRESH);
                }
                // Whether the name is gone or its server is, nobody says: the old addresses stay until they are stale.
                _ => name.settled_until = Some(now + FAILED),
            }
            drop((names, done));
        });
        Some(under_way)
    }
}

impl Name {
    fn usable(&self, now: Instant) -> Option<Addresses> {
        let (addresses, since) = self.addresses.as_ref()?;
        (now.duration_since(*since) < STALE).then(|| Rc::clone(addresses))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::sleep;

    use super::*;

    thread_local! {
        static ASKED: Cell<usize> = const { Cell::new(0) };
        static FAILS: Cell<bool> = const { Cell::new(false) };
    }

    /// Takes a moment, and for ever for names that begin with "slow".
    fn name_server(host: Box<str>) -> LookupFuture {
        ASKED.set(ASKED.get() + 1);
        Box::pin(async move {
            sleep(if host.starts_with("slow") { Duration::MAX } else { Duration::from_millis(5) }).await;
            if FAILS.get() { Err(io::ErrorKind::NotFound.into()) } else { Ok(vec![Ipv4Addr::LOCALHOST.into()]) }
        })
    }

    fn run(test: impl AsyncFnOnce(Resolver)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, test(Resolver::with(name_server)));
    }

    /// Everything happened so much earlier.
    fn advance(resolver: &Resolver, by: Duration) {
        for name in resolver.0.names.borrow_mut().values_mut() {
            let earlier = |instant: Instant| instant.checked_sub(by).unwrap();
            name.addresses = name.addresses.take().map(|(addresses, since)| (addresses, earlier(since)));
            name.settled_until = name.settled_until.map(earlier);
        }
    }

    #[test]
    fn all_who_want_a_name_wait_for_one_look_up() {
        run(async |resolver| {
            let asking: Vec<_> = (0..1000)
                .map(|_| {
                    let resolver = resolver.clone();
                    spawn_local(async move { resolver.resolve("a.test").await })
                })
                .collect();
            for answer in asking {
                assert!(answer.await.unwrap().is_some());
            }
            assert_eq!(ASKED.get(), 1);
            advance(&resolver, FRESH);
            resolver.resolve("a.test").await.unwrap();
            assert_eq!(ASKED.get(), 2);
        });
    }

    #[test]
    fn a_failure_is_remembered_for_a_moment() {
        run(async |resolver| {
            FAILS.set(true);
            assert!(resolver.resolve("a.test").await.is_none() && resolver.resolve("a.test").await.is_none());
            assert_eq!(ASKED.get(), 1);
            FAILS.set(false);
            advance(&resolver, FAILED);
            assert!(resolver.resolve("a.test").await.is_some());
        });
    }

    #[test]
    fn old_addresses_serve_while_the_name_server_does_not_until_they_are_stale() {
        run(async |resolver| {
            resolver.resolve("a.test").await.unwrap();
            FAILS.set(true);
            advance(&resolver, FRESH);
            assert!(resolver.resolve("a.test").await.is_some());
            advance(&resolver, STALE);
            assert!(resolver.resolve("a.test").await.is_none());
            advance(&resolver, FAILED);
            resolver.sweep(Instant::now() + SWEEP);
            assert_eq!(resolver.0.names.borrow().len(), 0);
        });
    }

    #[test]
    fn slow_name_servers_stop_no_name_that_is_known() {
        run(async |resolver| {
            resolver.resolve("a.test").await.unwrap();
            for i in 0..MAX_LOOKUPS {
                let resolver = resolver.clone();
                spawn_local(async move { resolver.resolve(&format!("slow{i}.test")).await });
            }
            sleep(Duration::from_millis(5)).await;
            advance(&resolver, FRESH);
            assert!(resolver.resolve("a.test").await.is_some());
            assert!(resolver.resolve("b.test").await.is_none(), "refused at once, not queued");
        });
    }
}
