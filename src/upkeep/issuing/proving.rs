//! Proving control over names: what an authority will look for is put on show before it is told to look.

use std::sync::Arc;

use super::order::Failure;
use crate::challenge::{Board, Exhibit};
use crate::dns::{Shown, TxtRecords};
use crate::issuance::{Authority, Challenge, Dns};
use crate::issuer::acme::Proof;
use crate::issuer::proof_certificate;
use crate::vault::read_secret;

/// What is on show for one order.
#[derive(Default)]
pub struct OnShow {
    exhibits: Vec<Exhibit>,
    records: Vec<(Arc<TxtRecords>, Shown, Proof)>,
}

/// Who can set TXT records, by how it is configured: opened once, so that names under way at once do not erase each
/// other's values.
#[derive(Default)]
pub struct Providers {
    open: std::sync::Mutex<Vec<Opened>>,
}

type Opened = (Arc<Dns>, Arc<TxtRecords>);

impl Providers {
    /// Forgets how they were opened: the next order reads their secrets anew. Orders under way keep theirs.
    pub fn close(&self) {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    fn get(&self, dns: &Arc<Dns>) -> Result<Arc<TxtRecords>, String> {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, records)) = open.iter().find(|(known, _)| known == dns) {
            return Ok(Arc::clone(records));
        }
        let records = TxtRecords::open(dns, |source| read_secret(source).map_err(|error| error.to_string()));
        let records = Arc::new(records.map_err(|error| error.to_string())?);
        // Those that no configuration and no order knows any more.
        open.retain(|(dns, records)| Arc::strong_count(dns) > 1 || Arc::strong_count(records) > 1);
        open.push((Arc::clone(dns), Arc::clone(&records)));
        Ok(records)
    }
}

impl OnShow {
    /// Puts the answer to `challenge` on show.
    ///
    /// # Errors
    /// If it cannot be, or is not seen in time.
    pub async fn put(
        &mut self,
        proof: &Proof,
        challenge: Challenge,
        board: &Arc<Board>,
        providers: &Providers,
        dns: Option<&Arc<Dns>>,
        authority: &Authority,
    ) -> Result<(), Failure> {
        let failed = |reason: String| Failure::unproved(authority, proof, &format!("{}: {reason}", proof.name));
        let full = || Failure::here(authority, "too many answers are on show already".to_owned());
        let Some(answer) = proof.offer(challenge) else {
            return Err(failed(format!("the authority does not offer {challenge} for it")));
        };
        match challenge {
            Challenge::Http01 => {
                let shown = board.show_file(&answer.token, &answer.key_authorization);
                self.exhibits.push(shown.ok_or_else(full)?);
            }
            Challenge::TlsAlpn01 => {
                let (server_name, key) = proof_certificate(&proof.name, &answer.tls_alpn_digest)
                    .ok_or_else(|| failed("the proving certificate cannot be made".to_owned()))?;
                let shown = board.show_certificate(&server_name, key);
                self.exhibits.push(shown.ok_or_else(full)?);
            }
            Challenge::Dns01 => {
                let dns = dns.ok_or_else(|| failed("dns-01 needs `[acme.dns]`".to_owned()))?;
                let records = providers.get(dns).map_err(failed)?;
                let name = format!("_acme-challenge.{}", proof.name);
                let shown =
                    records.present(&name, &answer.dns_value).await.map_err(|error| failed(error.to_string()))?;
                self.records.push((records, shown, proof.clone()));
            }
        }
        Ok(())
    }

    /// Waits until what was put on show can be seen by everybody.
    ///
    /// # Errors
    /// If it is not seen in time.
    pub async fn seen(&self, authority: &Authority) -> Result<(), Failure> {
        for (records, shown, proof) in &self.records {
            let seen = records.wait_until_seen(shown).await;
            seen.map_err(|error| Failure::unproved(authority, proof, &error.to_string()))?;
        }
        Ok(())
    }

    /// Takes everything down again. What is not taken down does no harm.
    pub async fn clear(self) {
        for (records, shown, _) in &self.records {
            if let Err(error) = records.clear(shown).await {
                tracing::warn!("a TXT record of an order that is over is left: {error}");
            }
        }
    }
}
