//! What somebody asks for: a certificate now, whatever its time.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Issuing;
use super::failure::Failure;
use super::queue::Task;
use crate::clock::UnixTime;
use crate::control::{Kept, Ordered, WantedCertificate};
use crate::issuance::subject::{Subject, Terms};
use crate::issuance::{Acme, DomainAcme};
use crate::name::DomainName;
use crate::store::inventory::Role;

/// Those who wait for one task at most.
const MAX_ASKERS: usize = 100;

impl Issuing {
    /// Begins what somebody wants, and answers when it is done.
    pub(super) fn asked(&mut self, wanted: &WantedCertificate, reply: oneshot::Sender<Ordered>) {
        match self.begin_what_is_asked(wanted) {
            Ok(task) => self.wait_for(task, reply),
            Err(why) => _ = reply.send(Ordered::refused(why)),
        }
    }

    /// Answers when a task's order is over.
    pub(super) fn wait_for(&mut self, task: Task, reply: oneshot::Sender<Ordered>) {
        let askers = self.askers.entry(task).or_default();
        // Whoever went away waits no more.
        askers.retain(|asker| !asker.is_closed());
        match askers.len() < MAX_ASKERS {
            true => askers.push(reply),
            false => _ = reply.send(Ordered::refused(format!("{MAX_ASKERS} others wait for the same already"))),
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
        // An order for other names answers nobody who asks for these.
        if let Some(order) = self.under_way.get(&task) {
            return match names.iter().all(|name| order.names.contains(name)) {
                true => Ok(task),
                false => Err(format!("another order for {first} is under way: ask again when it is over")),
            };
        }
        if let Some(waiting) = self.once.subject(&task) {
            return match names.iter().all(|name| waiting.names().any(|it| it == name)) {
                true => Ok(task),
                false => Err(format!("another order for {first} waits for its turn: ask again when it is over")),
            };
        }
        if is_configured {
            self.wanted.plan(&task, Some(UnixTime::from_secs(0)));
        } else {
            let terms = self.terms_of(&names, &acme)?;
            self.once.insert(&task, Subject::of_all(names, Arc::new(terms)).ok_or("no name")?);
        }
        Ok(task)
    }

    /// Whose a certificate for these names is, and how it is obtained: as the first of them is.
    fn terms_of(&self, names: &[DomainName], acme: &Acme) -> Result<Terms, String> {
        let snapshot = self.live.snapshot();
        let served = || names.iter().filter_map(|name| Some((name, snapshot.site(name.as_str())?)));
        let mut served_by = served();
        let first = served_by.next();
        let tenant = first.and_then(|(_, site)| site.spec.tenant.clone());
        if let Some((name, _)) = served_by.find(|(_, site)| site.spec.tenant != tenant) {
            return Err(format!("{name} is another tenant's than the names before it: order them apart"));
        }
        let subject = names.first().and_then(|name| self.wanted.get(name));
        let method = match (subject, first.map(|(_, site)| &site.spec.acme)) {
            (Some(subject), _) => Arc::clone(&subject.terms.method),
            (None, Some(DomainAcme::Method(method))) => Arc::new((**method).clone()),
            (None, _) => Arc::new(acme.method.clone()),
        };
        Ok(Terms { tenant, method, is_manual: false })
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
