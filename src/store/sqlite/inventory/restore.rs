//! Putting certificates back that a process still has in memory.

use sqlx::{Connection as _, SqliteConnection};

use super::super::super::StoreError;
use super::super::super::inventory::StoredCertificate;
use super::super::{BEGIN, ROWS_MAX};
use super::InventoryDb;
use super::certificates::{Row, issuers_on, row};
use crate::certificate::fingerprint;
use crate::clock::UnixTime;

impl InventoryDb {
    pub(in crate::store) async fn restore(
        &self,
        certificates: &[StoredCertificate],
        now: UnixTime,
    ) -> Result<u64, StoreError> {
        let mut restored = 0u64;
        for some in certificates.chunks(ROWS_MAX) {
            let rows = some.iter().map(|it| row(&it.certificate)).collect::<Result<Vec<_>, _>>();
            let rows = rows.map_err(|reason| self.refused(reason))?;
            let mut conn = self.writer().await?;
            let done = restore_on(&mut conn, some.iter().zip(&rows), now).await;
            restored = restored.saturating_add(self.end(conn, done)?);
        }
        Ok(restored)
    }
}

async fn restore_on<'r>(
    conn: &mut SqliteConnection,
    certificates: impl Iterator<Item = (&'r StoredCertificate, &'r Row<'r>)>,
    now: UnixTime,
) -> Result<u64, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    // Whoever still goes on with an order of before must not meet another one under its number. There were never as many
    // as there are seconds.
    sqlx::query(
        "INSERT INTO sqlite_sequence (name, seq)
         SELECT 'acme_order', $1 WHERE NOT EXISTS (SELECT * FROM sqlite_sequence WHERE name = 'acme_order')",
    )
    .bind(now.secs())
    .execute(&mut *tx)
    .await?;
    let mut restored = 0u64;
    for (StoredCertificate { id, certificate: new, revoked_at, ari }, row) in certificates {
        let issuers = issuers_on(&mut tx, row).await?;
        let window = ari.and_then(|ari| ari.window);
        let done = sqlx::query(
            "INSERT OR IGNORE INTO certificate
             (id, subject, tenant, role, provenance, ca, facts, not_after, fingerprint, leaf, issuers, sealed_key,
              kept_at, revoked_at, ari_start, ari_end, ari_next)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(id.0)
        .bind(new.subject.as_str())
        .bind(new.tenant.as_ref().map(|tenant| tenant.as_str()))
        .bind(new.role.label())
        .bind(new.provenance.label())
        .bind(&*new.ca)
        .bind(&*row.facts)
        .bind(new.facts.not_after.secs())
        .bind(&fingerprint(row.leaf)[..])
        .bind(row.leaf)
        .bind(issuers)
        .bind(&*new.sealed_key)
        .bind(new.at.secs())
        .bind(revoked_at.map(UnixTime::secs))
        .bind(window.map(|window| window.start.secs()))
        .bind(window.map(|window| window.end.secs()))
        .bind(ari.map(|ari| ari.next_at.secs()))
        .execute(&mut *tx)
        .await?;
        restored = restored.saturating_add(done.rows_affected());
    }
    tx.commit().await?;
    Ok(restored)
}
