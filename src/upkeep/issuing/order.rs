//! One order, from its placing to a certificate that is kept: a straight way that can be gone on from anywhere.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::accounts::Accounts;
use super::failure::{Blame, Failure, Said};
use super::proving::{OnShow, Providers, Stage, patience};
use super::queue::Task;
use crate::certificate::key_context_of_spki;
use crate::challenge::Board;
use crate::clock::{Clock, UnixTime};
use crate::control::Kept;
use crate::issuance::subject::{Subject, challenges_for};
use crate::issuance::{Authority, OnDemand};
use crate::issuer::acme::{self, AcmeError, Status, request};
use crate::name::DomainName;
use crate::store::inventory::{Order, OrderId};
use crate::upkeep::custody::{Custody, CustodyError};
use crate::upkeep::on_demand::{Asker, Verdict};

/// How long authorities may take to look for what is on show.
const LOOKING_PATIENCE: Duration = Duration::from_secs(120);
/// The same where they say that it takes longer: until then they may look at any moment.
const LONGEST_LOOKING: Duration = Duration::from_secs(1200);
/// How long they may take to sign.
const SIGNING_PATIENCE: Duration = Duration::from_secs(300);

/// How long an order is gone on with after trouble that may pass; then another one is placed.
const ORDER_KEPT_SECS: i64 = 86_400;

/// What an order needs besides the authority.
pub struct Workshop {
    /// Inventory and vault.
    pub custody: Arc<Custody>,
    /// Authorities.
    pub accounts: Accounts,
    /// What they look for.
    pub board: Arc<Board>,
    /// Who sets TXT records.
    pub providers: Arc<Providers>,
    /// Wall time.
    pub clock: Arc<Clock>,
    /// Who is asked whether a name on demand is still to be served.
    pub asker: Arc<Asker>,
    /// Where is done what nobody waits for.
    pub quiet: Handle,
}

/// An order to be carried out.
#[derive(Debug, Clone)]
pub struct Job {
    /// What for.
    pub task: Task,
    /// The names, and how they are proved.
    pub subject: Arc<Subject>,
    /// By whom.
    pub authority: Arc<Authority>,
    /// Whom to ask after that in the same attempt.
    pub others: Vec<Arc<Authority>>,
    /// What came of the orders before in the same attempt.
    pub before: Vec<Said>,
    /// The order among them that can be gone on with.
    pub passed_over: Option<Order>,
    /// How many attempts failed before.
    pub failures: u32,
    /// Whose turn it is of the ways to prove control.
    pub turn: u32,
    /// Of the names, the optional ones that could not be proved.
    pub left_out: HashSet<DomainName>,
    /// Whether a file can be shown on port 80.
    pub has_http_listener: bool,
    /// The certificate that the new one replaces.
    pub replaces: Option<Arc<Kept>>,
    /// An order that is under way already.
    pub under_way: Option<(OrderId, Order)>,
    /// Whether nobody configured the name.
    pub is_on_demand: bool,
    /// Who has to approve first.
    pub question: Option<Arc<OnDemand>>,
}

impl Workshop {
    /// Carries out an order, within bounds of time.
    ///
    /// # Errors
    /// [`Failure`]. What was begun is gone on with, or forgotten, at the next attempt.
    pub async fn carry_out(&self, job: &Job) -> Result<Arc<Kept>, Failure> {
        self.ask(job).await?;
        let done = self.attempt(job).await;
        let Err(failure) = &done else { return done };
        // What the authority has forgotten, restored from a backup perhaps, is begun anew at once, and once.
        if failure.is_account_gone || failure.is_order_gone && job.under_way.is_some() {
            return self.attempt(&Job { under_way: None, ..job.clone() }).await;
        }
        done
    }

    /// Asks, where a name on demand is to be renewed, whether it still is one.
    async fn ask(&self, job: &Job) -> Result<(), Failure> {
        let Some(on_demand) = &job.question else { return Ok(()) };
        match self.asker.ask_again(on_demand, &job.task.subject).await {
            Verdict::Approved => Ok(()),
            Verdict::Refused => {
                let problem = "`ask` does not approve of it any more".to_owned();
                let blame = Blame::Nobody;
                Err(Failure { is_withdrawn: true, blame, ..Failure::here(&job.authority, problem) })
            }
            Verdict::Failed | Verdict::Limited => {
                let problem = "`ask` did not answer whether it is still to be served".to_owned();
                let advice = "let `ask` answer: 2xx for yes, 404 or 410 for no".to_owned();
                Err(Failure { advice, blame: Blame::Nobody, ..Failure::here(&job.authority, problem) })
            }
        }
    }

    async fn attempt(&self, job: &Job) -> Result<Arc<Kept>, Failure> {
        match &job.under_way {
            Some((id, record)) => self.go_on(job, *id, record).await,
            None => self.begin(job).await,
        }
    }

    /// Places an order, and sees it through.
    async fn begin(&self, job: &Job) -> Result<Arc<Kept>, Failure> {
        let inventory = self.custody.inventory()?;
        // What cannot be kept is not ordered, and no account is made for it.
        let id = inventory.begin_order(&self.record(job, String::new())).await?;
        let placed = async {
            let account = self.accounts.enter(&job.authority, self.now()).await?;
            match self.place(job, &account).await {
                Err(failure) if failure.is_account_gone => {
                    self.accounts.forget(&job.authority, &account).await;
                    Err(failure)
                }
                placed => placed,
            }
        };
        match placed.await {
            Ok((id, record, order)) => self.see_through_or_end(job, id, record, order).await,
            Err(failure) => {
                // There is no such order.
                self.end(id).await;
                Err(failure)
            }
        }
    }

    /// Goes on with an order that was placed before.
    async fn go_on(&self, job: &Job, id: OrderId, record: &Order) -> Result<Arc<Kept>, Failure> {
        let account = self.accounts.enter(&job.authority, self.now()).await?;
        match account.resume(&record.url, &record.names).await {
            Ok(order) => self.see_through_or_end(job, id, record.clone(), order).await,
            Err(error) => {
                let failure = Failure::of(&job.authority, &error);
                if failure.is_account_gone {
                    self.accounts.forget(&job.authority, &account).await;
                    return Err(failure);
                }
                if self.is_kept(&failure, record) {
                    return Err(failure);
                }
                // Whatever it is that does not let it be read: it would be in the way of every other one.
                self.end(id).await;
                Err(Failure { is_order_gone: !failure.is_passing, ..failure })
            }
        }
    }

    async fn see_through_or_end(
        &self,
        job: &Job,
        id: OrderId,
        record: Order,
        order: acme::Order,
    ) -> Result<Arc<Kept>, Failure> {
        self.accounts.note_order(&job.authority);
        let done = self.see_through(job, id, record.clone(), order).await;
        if let Err(failure) = &done
            && !self.is_kept(failure, &record)
        {
            self.end(id).await;
        }
        done
    }

    /// Whether an order is gone on with at the next attempt.
    fn is_kept(&self, failure: &Failure, record: &Order) -> bool {
        let placed_at = record.placed_at.secs();
        let is_fresh = (placed_at..placed_at.saturating_add(ORDER_KEPT_SECS)).contains(&self.now().secs());
        failure.is_passing && !failure.is_order_over && is_fresh
    }

    /// Forgets an order. Where that fails, it is found invalid, or too old, another time: what went wrong with it says
    /// more.
    async fn end(&self, id: OrderId) {
        let ended = async { Ok::<_, CustodyError>(self.custody.inventory()?.end_order(id).await?) };
        if let Err(error) = ended.await {
            tracing::warn!("an order that is over cannot be forgotten: {error}");
        }
    }

    /// What is kept of an order; without an URL it was not placed.
    fn record(&self, job: &Job, url: String) -> Order {
        Order {
            subject: job.task.subject.clone(),
            role: job.task.role,
            ca: job.authority.directory.clone(),
            url,
            names: job.names(),
            sealed_key: None,
            placed_at: self.now(),
        }
    }

    /// The way of an order: prove, finalize, fetch, test, keep.
    async fn see_through(
        &self,
        job: &Job,
        id: OrderId,
        mut record: Order,
        mut order: acme::Order,
    ) -> Result<Arc<Kept>, Failure> {
        let authority = &job.authority;
        let failed = |error: AcmeError| Failure::of(authority, &error);

        let mut on_show = OnShow::default();
        let patience = patience(job.subject.terms.method.dns.as_ref(), record.names.len());
        let proved = timeout(patience, self.prove_control(job, &mut order, &mut on_show)).await;
        on_show.clear(&self.providers).await;
        let too_long = || Failure::here(authority, "to prove control took too long".to_owned());
        proved.map_err(|_| Failure { blame: Blame::Proof, ..too_long() })??;

        let is_finalized = matches!(order.status(), Status::Processing | Status::Valid);
        if record.sealed_key.is_none() || !is_finalized {
            let made = request(&record.names, job.subject.terms.method.key).await.map_err(failed)?;
            let sealed = self.custody.vault().seal(&made.key_pkcs8, &key_context_of_spki(&made.spki_der))?;
            // Before the authority signs: a certificate without its key would be worth nothing.
            self.custody.inventory()?.seal_order_key(id, &sealed).await?;
            record.sealed_key = Some(sealed);
            order.finalize(&made.csr_der).await.map_err(failed)?;
        }
        let preferred = authority.preferred_chain.as_deref();
        let chain = order.certificate(SIGNING_PATIENCE, preferred).await.map_err(failed)?;
        self.keep(job, record, chain).await
    }

    async fn place(&self, job: &Job, account: &Arc<acme::Account>) -> Result<(OrderId, Order, acme::Order), Failure> {
        let failed = |error: AcmeError| Failure::of(&job.authority, &error);
        let names = job.names();
        let profile = job.subject.terms.method.profile.as_deref().or(job.authority.profile.as_deref());
        let replaced = job.replaces.as_ref().filter(|kept| *kept.ca == *job.authority.directory);
        let replaced = replaced.and_then(|kept| kept.certificate.chain().into_iter().next());
        let mut ordered = account.order(&names, profile, replaced.as_ref()).await;
        if ordered.as_ref().is_err_and(AcmeError::is_not_found)
            && let Some(account) = self.accounts.enter_again(&job.authority, account, self.now()).await?
        {
            ordered = account.order(&names, profile, replaced.as_ref()).await;
        }
        let order = ordered.map_err(failed)?;
        let record = Order { names, ..self.record(job, order.url().to_owned()) };
        let id = self.custody.inventory()?.begin_order(&record).await?;
        Ok((id, record, order))
    }

    async fn prove_control(&self, job: &Job, order: &mut acme::Order, on_show: &mut OnShow) -> Result<(), Failure> {
        let authority = &job.authority;
        let failed = |error: AcmeError| Failure::of(authority, &error);
        let pending = order.pending().await.map_err(failed)?;
        let mut chosen = Vec::with_capacity(pending.len());
        for proof in &pending {
            let name = proof.ordered();
            // There is always an `https` listener.
            let ways = challenges_for(&job.subject, std::slice::from_ref(&name), job.has_http_listener, true, job.turn);
            for (_, way) in ways {
                let challenge = way.map_err(|problem| Failure::unproved(authority, proof, &problem.to_string()))?;
                chosen.push((proof, challenge));
            }
        }
        let stage = Stage { subject: &job.subject, authority, board: &self.board, providers: &self.providers };
        on_show.put(&stage, &chosen).await?;
        on_show.seen(&stage).await?;
        for (proof, challenge) in chosen {
            order.ready(proof, challenge).await.map_err(failed)?;
        }
        order.settled(LOOKING_PATIENCE, LONGEST_LOOKING).await.map_err(failed)
    }

    /// By the wall clock.
    pub(super) fn now(&self) -> UnixTime {
        self.clock.read().now
    }
}

impl Job {
    /// What is ordered.
    pub fn names(&self) -> Vec<DomainName> {
        let is_wanted = |name: &&DomainName| !self.left_out.contains(name);
        self.subject.names().filter(is_wanted).cloned().collect()
    }
}
