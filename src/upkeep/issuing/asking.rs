//! What somebody asks for: a certificate now, whatever its time.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Issuing;
use super::order::Failure;
use super::queue::Task;
use crate::clock::UnixTime;
use crate::control::{Kept, Ordered, WantedCertificate};
use crate::issuance::subject::{Subject, Terms};
use crate::name::DomainName;
use crate::store::inventory::Role;

impl Issuing {
    /// Begins what somebody wants, and answers when it is done.
    pub(super) fn asked(&mut self, wanted: &WantedCertificate, reply: oneshot::Sender<Ordered>) {
        match self.begin_what_is_asked(wanted) {
            Ok(task) => self.askers.entry(task).or_default().push(reply),
            Err(why) => _ = reply.send(Ordered::refused(why)),
        }
    }

    /// Plans what somebody wants for now. What the operator did not configure is ordered once.
    fn begin_what_is_asked(&mut self, wanted: &WantedCertificate) -> Result<Task, String> {
        if !self.is_open {
            return Err("the inventory is not open yet: try again in a moment".to_owned());
        }
        if !self.workshop.custody.vault().is_open() {
            return Err("the vault is locked: see `lockgate vault status`".to_owned());
        }
        if !self.workshop.custody.is_ready() {
            return Err("the inventory can only be read: nothing is issued until its disk can be written".to_owned());
        }
        let acme = self.acme.clone().filter(|acme| acme.agreed_to_terms);
        let acme = acme.ok_or("nothing is ordered without `agree_to_terms = true` in `[acme]`")?;
        let parse = |name: &String| DomainName::parse(name).map_err(|error| format!("{name}: {error}"));
        let names: Vec<DomainName> = wanted.names.iter().map(parse).collect::<Result<_, _>>()?;
        let first = names.first().cloned().ok_or("no name")?;
        let task = Task { subject: first.clone(), role: Role::Own };
        let is_configured = names.len() == 1 && self.wanted.get(&first).is_some_and(|subject| !subject.terms.is_manual);
        if self.under_way.contains_key(&task) {
            return Ok(task);
        }
        if is_configured {
            self.wanted.plan(&task, Some(UnixTime::from_secs(0)));
        } else {
            let tenant = self.live.snapshot().site(first.as_str()).and_then(|site| site.spec.tenant.clone());
            let terms = Terms { tenant, method: Arc::new(acme.method.clone()), is_manual: false };
            self.once.insert(&task, Subject::of_all(names, Arc::new(terms)).ok_or("no name")?);
        }
        Ok(task)
    }
}

/// What became of an order, for whoever asked for it.
pub(super) fn answer(outcome: &Result<Arc<Kept>, Failure>) -> Ordered {
    match outcome {
        Ok(kept) => {
            let (issuer, end) = (kept.certificate.issuer(), kept.certificate.not_after());
            Ordered {
                ok: true,
                id: Some(kept.id.0),
                message: format!("issued by {issuer}, valid until {end}"),
                advice: None,
            }
        }
        Err(failure) => {
            let advice = Some(failure.advice.clone()).filter(|advice| !advice.is_empty());
            Ordered { advice, ..Ordered::refused(failure.problem.clone()) }
        }
    }
}
