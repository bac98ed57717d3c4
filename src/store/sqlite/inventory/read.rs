//! Reading certificates: a hundred thousand of them at each start.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, SqliteConnection};

use super::super::super::StoreError;
use super::super::super::inventory::{
    Ari, CERTIFICATE_BYTES_MAX, CertificateId, NewCertificate, Provenance, StoredCertificate, Unusable, facts,
};
use super::{InventoryDb, name, role, shortened, value};
use crate::certificate::{Facts, MAX_CHAIN, facts_of, share_intermediate};
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::name::TenantId;

/// Between the fields of a row's head; in none of them.
const SEPARATOR: u8 = 0x1f;
/// How many fields there are.
const FIELDS: usize = 15;

/// Octets of a row, told without reading them.
macro_rules! octets {
    () => {
        "octet_length(subject) + octet_length(coalesce(tenant, '')) + octet_length(role) + octet_length(provenance)
         + octet_length(ca) + octet_length(facts) + octet_length(fingerprint) + octet_length(leaf)
         + octet_length(issuers) + octet_length(sealed_key)"
    };
}

/// A row as two values, its head and its octets. Each value is copied twice on its way here, which took longer than all
/// else when there were as many as columns. Rows that are larger than any that we write are left where they are.
macro_rules! select {
    ($more:literal) => {
        concat!(
            "SELECT concat_ws(char(31), id, subject, coalesce(tenant, ''), role, provenance, ca, issuers, kept_at,
                 coalesce(revoked_at, ''), coalesce(ari_start, ''), coalesce(ari_end, ''), coalesce(ari_next, ''),
                 octet_length(facts), octet_length(fingerprint), octet_length(leaf)),
             CAST(facts || fingerprint || leaf || sealed_key AS BLOB) FROM certificate ",
            $more,
            " WHERE ",
            octets!(),
            " <= $1"
        )
    };
}

const SELECT: &str = select!("NOT INDEXED");
const SELECT_ONE: &str = concat!(select!(""), " AND id = $2");
const SELECT_TOO_LARGE: &str = concat!("SELECT id FROM certificate NOT INDEXED WHERE ", octets!(), " > $1 ORDER BY id");

impl InventoryDb {
    pub(in crate::store) async fn each_certificate(
        &self,
        each: impl FnMut(StoredCertificate),
    ) -> Result<Vec<Unusable>, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_all(&mut conn, each).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn certificate(
        &self,
        id: CertificateId,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_one(&mut conn, id).await;
        self.end(conn, read)
    }
}

async fn read_all(
    conn: &mut SqliteConnection,
    mut each: impl FnMut(StoredCertificate),
) -> Result<Vec<Unusable>, sqlx::Error> {
    // In one transaction: an issuer that is trimmed meanwhile must not be missing.
    let mut tx = conn.begin().await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM certificate").fetch_one(&mut *tx).await?;
    let mut shelf = Shelf { issuers: read_issuers(&mut tx).await?, ..Shelf::default() };
    let (mut seen, mut unusable) = (0_i64, Vec::new());
    {
        let mut rows = sqlx::query(SELECT).bind(CERTIFICATE_BYTES_MAX as i64).fetch(&mut *tx);
        while let Some(row) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
            let row = row?;
            seen = seen.saturating_add(1);
            match shelf.certificate(&row) {
                Ok(certificate) => each(certificate),
                Err(reason) => unusable.push(Unusable { id: id(&row), reason: shortened(&reason) }),
            }
        }
    }
    if seen < count {
        let too_large = sqlx::query_scalar(SELECT_TOO_LARGE).bind(CERTIFICATE_BYTES_MAX as i64);
        let ids: Vec<i64> = too_large.fetch_all(&mut *tx).await?;
        let reason = format!("it has more than {CERTIFICATE_BYTES_MAX} octets");
        unusable.extend(ids.into_iter().map(|id| Unusable { id: CertificateId(id), reason: reason.clone() }));
    }
    tx.rollback().await?;
    Ok(unusable)
}

async fn read_one(conn: &mut SqliteConnection, id: CertificateId) -> Result<Option<StoredCertificate>, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let mut shelf = Shelf { issuers: read_issuers(&mut tx).await?, ..Shelf::default() };
    let one = sqlx::query(SELECT_ONE).bind(CERTIFICATE_BYTES_MAX as i64).bind(id.0).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    let Some(row) = one else { return Ok(None) };
    match shelf.certificate(&row) {
        Ok(certificate) => Ok(Some(certificate)),
        Err(reason) => {
            tracing::error!(id = id.0, "a certificate that is kept cannot be used: {}", shortened(&reason));
            Ok(None)
        }
    }
}

/// Each issuer, or why it is none.
type Issuers = HashMap<i64, Result<CertificateDer<'static>, String>>;

async fn read_issuers(conn: &mut SqliteConnection) -> Result<Issuers, sqlx::Error> {
    let sql = "SELECT id, der FROM issuer NOT INDEXED WHERE octet_length(der) <= $1";
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(sql).bind(CERTIFICATE_BYTES_MAX as i64).fetch_all(conn).await?;
    let issuer = |(id, der)| {
        let shared = share_intermediate(CertificateDer::from(der));
        (id, shared.map_err(|error| format!("issuer {id} is no certificate: {error}")))
    };
    Ok(rows.into_iter().map(issuer).collect())
}

/// What many certificates have in common, kept once.
#[derive(Default)]
struct Shelf {
    issuers: Issuers,
    tenants: HashSet<TenantId>,
    /// Directory URLs, and names of issuers.
    texts: HashSet<Arc<str>>,
}

impl Shelf {
    fn certificate(&mut self, row: &SqliteRow) -> Result<StoredCertificate, String> {
        let (mut head, mut octets) = (Head::of(value(row, 0)?)?, Octets(value(row, 1)?));
        let id = CertificateId(head.number()?);
        let (subject, tenant, role_label, provenance) = (head.text(), head.text(), head.text(), head.text());
        let (ca, issuers, kept_at) = (head.text(), head.text(), head.number()?);
        let revoked_at = head.number_or_none()?.map(UnixTime::from_secs);
        let ari = ari(head.number_or_none()?, head.number_or_none()?, head.number_or_none()?);
        let (facts, fingerprint) = (octets.take(head.number()?)?, octets.take(head.number()?)?);
        let leaf = octets.take(head.number()?)?;
        let mut facts = match facts::decode(facts, leaf) {
            Some(facts) => facts,
            None => facts_anew(leaf, fingerprint)?,
        };
        facts.issuer = self.text(&facts.issuer);
        // Nearly always one of the certificate's own names: then it is the same text.
        let subject = match facts.names.iter().find(|name| name.as_str() == subject) {
            Some(name) => name.clone(),
            None => name(subject)?,
        };
        let certificate = NewCertificate {
            subject,
            tenant: self.tenant(tenant)?,
            role: role(role_label)?,
            provenance: Provenance::of_label(provenance)
                .ok_or_else(|| format!("`{}` is neither acme nor uploaded", shortened(provenance)))?,
            ca: self.text(ca),
            chain: self.chain(leaf, issuers)?,
            facts,
            sealed_key: octets.0.into(),
            at: UnixTime::from_secs(kept_at),
        };
        Ok(StoredCertificate { id, certificate, revoked_at, ari })
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn tenant(&mut self, text: &str) -> Result<Option<TenantId>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let tenant = TenantId::new(text).filter(|tenant| tenant.as_str() == text);
        let tenant = tenant.ok_or_else(|| format!("`{}` is no tenant's name", shortened(text)))?;
        if let Some(known) = self.tenants.get(&tenant) {
            return Ok(Some(known.clone()));
        }
        self.tenants.insert(tenant.clone());
        Ok(Some(tenant))
    }

    fn chain(&self, leaf: &[u8], issuers: &str) -> Result<Vec<CertificateDer<'static>>, String> {
        let count = issuers.split_ascii_whitespace().count();
        if count >= MAX_CHAIN {
            return Err(format!("it names {count} issuers: a chain has at most {MAX_CHAIN} certificates"));
        }
        let mut chain = Vec::with_capacity(count.saturating_add(1));
        chain.push(CertificateDer::from(leaf.to_vec()));
        for id in issuers.split_ascii_whitespace() {
            let issuer = id.parse().ok().and_then(|id: i64| self.issuers.get(&id));
            match issuer {
                Some(Ok(issuer)) => chain.push(issuer.clone()),
                Some(Err(reason)) => return Err(reason.clone()),
                None => return Err(format!("there is no issuer `{}`", shortened(id))),
            }
        }
        Ok(chain)
    }
}

/// What the leaf says, if it is the one that was kept.
fn facts_anew(leaf: &[u8], fingerprint: &[u8]) -> Result<Facts, String> {
    let facts = facts_of(&CertificateDer::from(leaf)).map_err(|error| error.to_string())?;
    if facts.fingerprint == fingerprint { Ok(facts) } else { Err("its leaf is not the one that was kept".to_owned()) }
}

fn ari(start: Option<i64>, end: Option<i64>, next_at: Option<i64>) -> Option<Ari> {
    let at = UnixTime::from_secs;
    let window = start.zip(end).map(|(start, end)| Window { start: at(start), end: at(end) });
    next_at.map(|next_at| Ari { window, next_at: at(next_at) })
}

/// The number of a row that is otherwise unusable.
fn id(row: &SqliteRow) -> CertificateId {
    let first = |head: &[u8]| str::from_utf8(head.split(|octet| *octet == SEPARATOR).next()?).ok()?.parse().ok();
    CertificateId(value(row, 0).ok().and_then(first).unwrap_or_default())
}

/// The fields of a row's head that are left to read.
struct Head<'r>(&'r str);

impl<'r> Head<'r> {
    fn of(octets: &'r [u8]) -> Result<Self, String> {
        let text = str::from_utf8(octets).map_err(|error| format!("its text is not UTF-8: {error}"))?;
        match octets.iter().filter(|octet| **octet == SEPARATOR).count().saturating_add(1) {
            FIELDS => Ok(Self(text)),
            _ => Err("there are control characters in its text".to_owned()),
        }
    }

    fn text(&mut self) -> &'r str {
        let (field, rest) = self.0.split_once(char::from(SEPARATOR)).unwrap_or((self.0, ""));
        self.0 = rest;
        field
    }

    fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let field = self.text();
        field.parse().map_err(|_| format!("`{}` is not the number that is meant", shortened(field)))
    }

    fn number_or_none(&mut self) -> Result<Option<i64>, String> {
        let field = self.text();
        if field.is_empty() { Ok(None) } else { Self(field).number().map(Some) }
    }
}

/// The octets of a row that are left to read.
struct Octets<'r>(&'r [u8]);

impl<'r> Octets<'r> {
    fn take(&mut self, count: usize) -> Result<&'r [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("its octets end too early")?;
        self.0 = rest;
        Ok(taken)
    }
}
