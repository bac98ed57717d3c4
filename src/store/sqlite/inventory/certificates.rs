//! Certificates: keeping, noting, forgetting. Reading them is in `read`.

use sqlx::{Connection as _, QueryBuilder, SqliteConnection};

use super::super::super::StoreError;
use super::super::super::inventory::{CERTIFICATE_BYTES_MAX, CertificateId, NewCertificate, Provenance, facts};
use super::super::{BEGIN, ROWS_MAX, push_list};
use super::InventoryDb;
use super::orders::{end_order_of, forget_attempts_on};
use crate::certificate::{MAX_CHAIN, fingerprint, share_intermediate};
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;

impl InventoryDb {
    pub(in crate::store) async fn keep(&self, new: &NewCertificate) -> Result<CertificateId, StoreError> {
        let row = row(new).map_err(|reason| self.refused(reason))?;
        let mut conn = self.writer().await?;
        let done = keep_on(&mut conn, new, &row).await;
        self.end(conn, done)
    }

    pub(in crate::store) async fn note_ari(
        &self,
        CertificateId(id): CertificateId,
        window: Option<Window>,
        next_at: UnixTime,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("UPDATE certificate SET ari_start = $1, ari_end = $2, ari_next = $3 WHERE id = $4")
            .bind(window.map(|window| window.start.secs()))
            .bind(window.map(|window| window.end.secs()))
            .bind(next_at.secs())
            .bind(id)
            .execute(&mut *conn)
            .await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn revoke(
        &self,
        CertificateId(id): CertificateId,
        at: UnixTime,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("UPDATE certificate SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2")
            .bind(at.secs())
            .bind(id)
            .execute(&mut *conn)
            .await;
        match self.end(conn, done)?.rows_affected() {
            0 => Err(self.refused(format!("there is no certificate {id}"))),
            _ => Ok(()),
        }
    }

    pub(in crate::store) async fn remove(&self, CertificateId(id): CertificateId) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("DELETE FROM certificate WHERE id = $1").bind(id).execute(&mut *conn).await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn trim(&self, before: UnixTime, limit: u32) -> Result<u64, StoreError> {
        let mut conn = self.writer().await?;
        let done = trim_on(&mut conn, before, limit).await;
        self.end(conn, done)
    }
}

/// What is written of a certificate, found fit to be read again.
pub(super) struct Row<'n> {
    pub(super) leaf: &'n [u8],
    pub(super) issuers: Vec<&'n [u8]>,
    pub(super) facts: Vec<u8>,
}

pub(super) fn row(new: &NewCertificate) -> Result<Row<'_>, String> {
    let Some((leaf, issuers)) = new.chain.split_first() else {
        return Err("there is no certificate in the chain".to_owned());
    };
    if new.chain.len() > MAX_CHAIN {
        return Err(format!("the chain has {} certificates, more than {MAX_CHAIN}", new.chain.len()));
    }
    for issuer in issuers {
        share_intermediate(issuer.clone()).map_err(|error| format!("an issuer is no certificate: {error}"))?;
    }
    let facts = facts::encode(&new.facts, leaf);
    let tenant_bytes = new.tenant.as_ref().map_or(0, |tenant| tenant.as_str().len());
    let parts = [leaf.len(), facts.len(), new.sealed_key.len(), new.ca.len(), tenant_bytes];
    let bytes = parts.into_iter().chain(issuers.iter().map(|issuer| issuer.len())).fold(0, usize::saturating_add);
    if bytes > CERTIFICATE_BYTES_MAX {
        return Err(format!("the certificate has {bytes} octets with its key, more than {CERTIFICATE_BYTES_MAX}"));
    }
    Ok(Row { leaf, issuers: issuers.iter().map(AsRef::as_ref).collect(), facts })
}

async fn keep_on(
    conn: &mut SqliteConnection,
    new: &NewCertificate,
    row: &Row<'_>,
) -> Result<CertificateId, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    let issuers = issuers_on(&mut tx, row).await?;
    let id = sqlx::query_scalar(
        "INSERT INTO certificate
         (subject, tenant, role, provenance, ca, facts, not_after, fingerprint, leaf, issuers, sealed_key, kept_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (fingerprint) DO UPDATE
         SET facts = excluded.facts, not_after = excluded.not_after, leaf = excluded.leaf,
             issuers = excluded.issuers, sealed_key = excluded.sealed_key
         RETURNING id",
    )
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
    .fetch_one(&mut *tx)
    .await?;
    if new.provenance != Provenance::Uploaded {
        end_order_of(&mut tx, &new.subject, new.role).await?;
    }
    forget_attempts_on(&mut tx, &new.subject, new.role).await?;
    tx.commit().await?;
    Ok(CertificateId(id))
}

/// The numbers of a chain's issuers, as they stand in its row.
pub(super) async fn issuers_on(conn: &mut SqliteConnection, row: &Row<'_>) -> Result<String, sqlx::Error> {
    let mut issuers = Vec::with_capacity(row.issuers.len());
    for der in &row.issuers {
        issuers.push(issuer_id(conn, der).await?.to_string());
    }
    Ok(issuers.join(" "))
}

async fn issuer_id(conn: &mut SqliteConnection, der: &[u8]) -> Result<i64, sqlx::Error> {
    let known = sqlx::query_scalar("SELECT id FROM issuer WHERE der = $1").bind(der).fetch_optional(&mut *conn).await?;
    match known {
        Some(id) => Ok(id),
        None => {
            let made = sqlx::query("INSERT INTO issuer (der) VALUES ($1)").bind(der).execute(conn).await?;
            Ok(made.last_insert_rowid())
        }
    }
}

async fn trim_on(conn: &mut SqliteConnection, before: UnixTime, limit: u32) -> Result<u64, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    let ended = sqlx::query(
        "DELETE FROM certificate WHERE id IN (
             SELECT id FROM certificate AS old WHERE not_after < $1 AND EXISTS (
                 SELECT * FROM certificate AS newer
                 WHERE newer.subject = old.subject AND newer.role = old.role
                 AND (newer.not_after, newer.id) > (old.not_after, old.id)
             ) ORDER BY not_after LIMIT $2
         )",
    )
    .bind(before.secs())
    .bind(limit)
    .execute(&mut *tx)
    .await?;
    // Which issuers are named is found by reading all names of them: once, in the last step, and not in each.
    if ended.rows_affected() < u64::from(limit) {
        trim_issuers(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(ended.rows_affected())
}

async fn trim_issuers(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let named = named_issuers(conn).await?;
    let known: Vec<i64> = sqlx::query_scalar("SELECT id FROM issuer ORDER BY id").fetch_all(&mut *conn).await?;
    let unnamed: Vec<_> = known.into_iter().filter(|id| named.binary_search(id).is_err()).collect();
    for ids in unnamed.chunks(ROWS_MAX) {
        let mut sql = QueryBuilder::new("DELETE FROM issuer WHERE id IN ");
        push_list(&mut sql, ids.iter().copied());
        sql.build().persistent(false).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The numbers of all issuers that stand in any chain, in order.
pub(super) async fn named_issuers(conn: &mut SqliteConnection) -> Result<Vec<i64>, sqlx::Error> {
    let lists: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT DISTINCT CAST(issuers AS BLOB) FROM certificate").fetch_all(conn).await?;
    let lists = lists.iter().filter_map(|list| str::from_utf8(list).ok());
    let mut named: Vec<_> = lists.flat_map(|list| list.split(' ')).filter_map(|id| id.parse().ok()).collect();
    named.sort_unstable();
    named.dedup();
    Ok(named)
}
