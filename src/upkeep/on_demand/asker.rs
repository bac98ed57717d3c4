//! Whether the operator approves a name: by `allow`, or by whoever answers at the `ask` URL.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::StatusCode;
use http::header::USER_AGENT;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::sync::OnceCell;

use crate::issuance::OnDemand;
use crate::name::DomainName;
use crate::on_demand::{Recent, is_allowed};

/// From the question to the answer's status.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions per second, and at once.
const ASKS_PER_SEC: NonZeroU32 = NonZeroU32::new(50).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(25).unwrap();
/// How long an approval is good for another try, and how many are remembered.
const APPROVED: Duration = Duration::from_secs(300);
const MAX_APPROVED: usize = 10_000;
/// Connections kept for the next question.
const MAX_IDLE: usize = 2;
/// What whoever answers reads of who is asking.
const AGENT: &str = concat!("lockgate/", env!("CARGO_PKG_VERSION"));

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The name may be served.
    Approved,
    /// It may not.
    Refused,
    /// Nobody said either.
    Failed,
    /// It was not asked: there were too many questions.
    Limited,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Approved, Self::Refused, Self::Failed, Self::Limited];

    /// The value of the metrics' `result` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Limited => "limited",
        }
    }

    /// What a status means. No is only what is said of a name: that it is not there (RFC 9110, sections 15.5.5 and
    /// 15.5.11). All else may be said of the question, 401 and 403 too: a proxy that guards whoever answers says so to
    /// everybody when its login is broken, and no renewal may end with that.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::Refused,
            status if status.is_success() => Self::Approved,
            _ => Self::Failed,
        }
    }
}

/// Who asks.
#[derive(Debug)]
pub struct Asker {
    /// Made when it is first needed: the system's roots are hundreds of files.
    client: OnceCell<reqwest::Client>,
    limiter: DefaultDirectRateLimiter,
    /// Approved a moment ago: an order that fails is tried again without another question.
    approved: Mutex<Recent>,
}

impl Default for Asker {
    fn default() -> Self {
        Self {
            client: OnceCell::new(),
            limiter: RateLimiter::direct(Quota::per_second(ASKS_PER_SEC).allow_burst(BURST)),
            approved: Mutex::new(Recent::new(MAX_APPROVED)),
        }
    }
}

impl Asker {
    /// Whether `name`, which a client asked for, may be served. There may be many such questions: they are limited, and
    /// an approval is good for some time.
    pub async fn ask(&self, on_demand: &OnDemand, name: &DomainName) -> Verdict {
        if is_allowed(on_demand, name) {
            // As many as clients like.
            tracing::debug!(domain = %name, "approved by `allow`");
            return Verdict::Approved;
        }
        if on_demand.ask.is_none() {
            return Verdict::Refused;
        }
        if self.lock().has(name, Instant::now()) {
            return Verdict::Approved;
        }
        if self.limiter.check().is_err() {
            return Verdict::Limited;
        }
        let verdict = self.ask_again(on_demand, name).await;
        if verdict == Verdict::Approved && self.note(name) {
            tracing::info!(domain = %name, "approved by `ask`");
        }
        verdict
    }

    /// Whether `name`, which has been served, still may be.
    pub async fn ask_again(&self, on_demand: &OnDemand, name: &DomainName) -> Verdict {
        if is_allowed(on_demand, name) {
            return Verdict::Approved;
        }
        let Some(url) = &on_demand.ask else { return Verdict::Refused };
        let verdict = match self.status(url, name).await {
            Ok(status) => {
                tracing::debug!(domain = %name, "`ask` answers {status}");
                Verdict::of(status)
            }
            Err(problem) => {
                tracing::debug!(domain = %name, "`ask` does not answer: {problem}");
                Verdict::Failed
            }
        };
        if verdict == Verdict::Refused {
            self.lock().forget(name);
        }
        verdict
    }

    /// What the answer's status is. Its body is left unread, however long it is.
    async fn status(&self, url: &str, name: &DomainName) -> Result<StatusCode, String> {
        let mut url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
        url.query_pairs_mut().append_pair("domain", name.as_str());
        let client = self.client.get_or_try_init(client).await?;
        let answer = client.get(url).header(USER_AGENT, AGENT).send().await;
        answer.map(|answer| answer.status()).map_err(|error| error.without_url().to_string())
    }

    /// Remembers an approval. Returns whether it is news.
    fn note(&self, name: &DomainName) -> bool {
        self.lock().put(name.clone(), Instant::now() + APPROVED)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.approved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn client() -> Result<reqwest::Client, String> {
    let tls = tokio::task::spawn_blocking(|| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_platform_verifier()?.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok::<_, rustls::Error>(config)
    });
    let tls = tls.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .referer(false)
        .pool_max_idle_per_host(MAX_IDLE)
        .timeout(ASK_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[rstest]
    #[case(200, Verdict::Approved)]
    #[case(204, Verdict::Approved)]
    #[case(302, Verdict::Failed)]
    #[case(400, Verdict::Failed)]
    #[case(401, Verdict::Failed)]
    #[case(403, Verdict::Failed)]
    #[case(404, Verdict::Refused)]
    #[case(407, Verdict::Failed)]
    #[case(408, Verdict::Failed)]
    #[case(410, Verdict::Refused)]
    #[case(429, Verdict::Failed)]
    #[case(500, Verdict::Failed)]
    #[case(999, Verdict::Failed)]
    fn only_what_is_said_of_the_name_is_an_answer(#[case] status: u16, #[case] verdict: Verdict) {
        assert_eq!(Verdict::of(StatusCode::from_u16(status).unwrap()), verdict);
    }

    #[tokio::test]
    async fn without_a_url_only_what_is_allowed_is_approved() {
        let name = |text| DomainName::parse(text).unwrap();
        let allow = vec!["*.customers.example".to_owned()];
        let on_demand = OnDemand { site: name("www.example.com"), allow, ask: None, max_names: 1, max_new_per_hour: 1 };
        let asker = Asker::default();
        assert_eq!(asker.ask(&on_demand, &name("a.customers.example")).await, Verdict::Approved);
        assert_eq!(asker.ask(&on_demand, &name("a.example")).await, Verdict::Refused);
    }

    /// Answers each question with the status that is said at the time; counts them.
    async fn whom_to_ask() -> (String, Arc<(AtomicU16, AtomicUsize)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let state = Arc::new((AtomicU16::new(200), AtomicUsize::new(0)));
        let says = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = [0; 4096];
                if stream.read(&mut question).await.is_ok_and(|length| length > 0) {
                    says.1.fetch_add(1, Ordering::Relaxed);
                    let status = says.0.load(Ordering::Relaxed);
                    let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        (url, state)
    }

    #[tokio::test]
    async fn an_approval_is_good_for_another_try_until_there_is_a_refusal() {
        let (url, state) = whom_to_ask().await;
        let name = |text| DomainName::parse(text).unwrap();
        let on_demand = OnDemand {
            site: name("www.example.com"),
            allow: vec![],
            ask: Some(url),
            max_names: 1,
            max_new_per_hour: 1000,
        };
        let (asker, shop) = (Asker::default(), name("shop.example"));
        let asked = || state.1.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!((asker.ask(&on_demand, &shop).await, asked()), (Verdict::Approved, 1));
        }
        assert_eq!((asker.ask(&on_demand, &name("b.example")).await, asked()), (Verdict::Approved, 2));
        // Whether it may be renewed is another question; trouble takes nothing back.
        state.0.store(500, Ordering::Relaxed);
        assert_eq!((asker.ask_again(&on_demand, &shop).await, asked()), (Verdict::Failed, 3));
        assert_eq!((asker.ask(&on_demand, &shop).await, asked()), (Verdict::Approved, 3));
        state.0.store(404, Ordering::Relaxed);
        assert_eq!((asker.ask_again(&on_demand, &shop).await, asked()), (Verdict::Refused, 4));
        assert_eq!((asker.ask(&on_demand, &shop).await, asked()), (Verdict::Refused, 5));
    }
}
