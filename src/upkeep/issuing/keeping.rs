//! What was issued is tested, and kept if it is good.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;

use super::failure::Failure;
use super::order::{Job, Workshop};
use crate::certificate::{facts_of, key_context_of_leaf, prove};
use crate::control::Kept;
use crate::issuer::acme::{AcmeError, check_issued, spki_of};
use crate::store::inventory::{NewCertificate, Order, Provenance, StoredCertificate};

impl Workshop {
    /// Tests what was issued, and keeps it if it is good.
    pub(super) async fn keep(
        &self,
        job: &Job,
        record: Order,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<Kept>, Failure> {
        let authority = &job.authority;
        let wrong = |what: String| Failure::here(authority, what);
        let now = self.now();
        let failed = |error: AcmeError| Failure::of(authority, &error);
        let leaf = chain.first().ok_or_else(|| wrong("the authority sent no certificate".to_owned()))?;
        let facts = facts_of(leaf).map_err(|error| wrong(format!("the authority's certificate: {error}")))?;
        let sealed_key = record.sealed_key.ok_or_else(|| wrong("the order's key is not kept".to_owned()))?;
        // Sealed for its public half: with another one it does not open.
        let context =
            key_context_of_leaf(leaf).ok_or_else(|| wrong("the authority's certificate has no key".to_owned()))?;
        let key = self.custody.vault().open(&sealed_key, &context);
        let key = key.map_err(|_| {
            wrong("the authority's certificate is for another key than the one that was sent".to_owned())
        })?;
        let spki = spki_of(&key).map_err(failed)?;
        check_issued(&chain, &spki, &record.names, now).map_err(failed)?;
        let new = NewCertificate {
            subject: record.subject,
            tenant: job.subject.terms.tenant.clone(),
            role: record.role,
            provenance: if job.is_on_demand { Provenance::OnDemand } else { Provenance::Acme },
            ca: record.ca.into(),
            chain,
            facts,
            sealed_key,
            at: now,
        };
        let test = self.custody.to_try(new.facts.clone(), &new.chain, &new.sealed_key);
        // Its first second may be a moment away, by a clock that goes ahead of ours: until then another one serves.
        let (names, at) = (record.names, now.max(new.facts.not_before));
        // A handshake for each name, with the largest of RSA keys a second or more in all.
        let proved = spawn_blocking(move || prove(&test, &names, at)).await;
        proved
            .map_err(|error| wrong(format!("what was issued cannot be tested: {error}")))?
            .map_err(|error| wrong(format!("what was issued does not work: {error}")))?;
        let id = self.custody.inventory()?.keep(&new).await?;
        let stored = StoredCertificate { id, certificate: new, revoked_at: None, ari: None };
        self.custody.kept(stored).ok_or_else(|| wrong("it was revoked".to_owned()))
    }
}
