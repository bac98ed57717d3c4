//! Reading certificates: a hundred thousand of them at each start.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::super::super::StoreError;
use super::super::super::inventory::{
    Ari, CERTIFICATE_BYTES_MAX, CertificateId, NewCertificate, Provenance, StoredCertificate, Unusable, facts,
};
use super::{InventoryDb, name, role, shortened};
use crate::certificate::{Facts, MAX_CHAIN, facts_of, share_intermediate};
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::name::TenantId;

/// Between the fields of a row's head, and between heads; in none of them.
const FIELD_END: u8 = 0x1f;
const HEAD_END: u8 = 0x1e;
/// How many fields a head has.
const FIELDS: usize = 16;
/// How many of them, at its end, are lengths.
const LENGTHS: usize = 4;

/// Octets of a row, told without reading them.
macro_rules! octets {
    () => {
        "octet_length(subject) + octet_length(coalesce(tenant, '')) + octet_length(role) + octet_length(provenance)
         + octet_length(ca) + octet_length(facts) + octet_length(fingerprint) + octet_length(leaf)
         + octet_length(issuers) + octet_length(sealed_key)"
    };
}

/// Rows as one: how many there are and the number of the last, their heads, and their octets behind one another. Rows
/// that are larger than any that we write are left where they are.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT count(*), max(id), CAST(group_concat(head, char(30)) AS BLOB),
                 CAST(group_concat(octets, '') AS BLOB)
             FROM (
                 SELECT id, concat_ws(char(31), id, subject, coalesce(tenant, ''), role, provenance, ca, issuers, kept_at,
                         coalesce(revoked_at, ''), coalesce(ari_start, ''), coalesce(ari_end, ''),
                         coalesce(ari_next, ''), octet_length(facts), octet_length(fingerprint),
                         octet_length(leaf), octet_length(sealed_key)) AS head,
                     facts || fingerprint || leaf || sealed_key AS octets
                 FROM certificate NOT INDEXED WHERE ",
            octets!(),
            " <= $1 ",
            $which,
            ")"
        )
    };
}

/// One by one they take longer, most of it to pass each from thread to thread. A limit that is no literal would have the
/// statement prepared each time anew.
const SELECT_BATCH: &str = select!("AND id > $2 ORDER BY id LIMIT 64");
const SELECT_NEXT: &str = select!("AND id > $2 ORDER BY id LIMIT 1");
const SELECT_ONE: &str = select!("AND id = $2");
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
    let (mut rows, mut unusable) = (0, Vec::new());
    let mut sort = |read| match read {
        Ok(certificate) => each(certificate),
        Err(it) => unusable.push(it),
    };
    let (mut after, mut next) = (i64::MIN, read_batch(&mut tx, SELECT_BATCH, i64::MIN).await?);
    while let Some(batch) = next {
        // The database reads on while these are taken apart.
        let (read, ()) = tokio::join!(read_batch(&mut tx, SELECT_BATCH, batch.last), async {
            if batch.is_well_formed() {
                batch.rows().for_each(|row| sort(shelf.certificate(row)));
            }
        });
        if !batch.is_well_formed() {
            while let Some(one) = read_batch(&mut tx, SELECT_NEXT, after).await?
                && after < batch.last
            {
                one.rows().for_each(|row| sort(shelf.certificate(row)));
                after = one.last;
            }
        }
        rows += batch.count;
        (after, next) = (batch.last, read?);
    }
    if rows < count {
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
    let one = read_batch(&mut tx, SELECT_ONE, id.0).await?;
    tx.rollback().await?;
    match one.iter().flat_map(Batch::rows).next().map(|row| shelf.certificate(row)) {
        Some(Ok(certificate)) => Ok(Some(certificate)),
        Some(Err(Unusable { id, reason })) => {
            tracing::error!(id = id.0, "a certificate that is kept cannot be used: {reason}");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Some rows, in the order of their numbers.
struct Batch {
    count: i64,
    /// The number of the last.
    last: i64,
    heads: Vec<u8>,
    octets: Vec<u8>,
}

/// Reads the rows that `select` finds by `number`. `None`: there are none.
async fn read_batch(
    conn: &mut SqliteConnection,
    select: &'static str,
    number: i64,
) -> Result<Option<Batch>, sqlx::Error> {
    let row = sqlx::query(select).bind(CERTIFICATE_BYTES_MAX as i64).bind(number).fetch_one(&mut *conn).await?;
    let (count, last): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let Some(last) = last else { return Ok(None) };
    Ok(Some(Batch { count, last, heads: row.try_get(2)?, octets: row.try_get(3)? }))
}

impl Batch {
    /// Whether each row is where it seems to be: a separator within a text, which we never write, would move all that
    /// follow. Of one row alone nothing follows.
    fn is_well_formed(&self) -> bool {
        let ends = |separator| self.heads.iter().filter(|octet| **octet == separator).count();
        let count = usize::try_from(self.count).unwrap_or_default();
        let fields = FIELDS.saturating_sub(1).saturating_mul(count);
        count == 1 || (ends(HEAD_END).saturating_add(1), ends(FIELD_END)) == (count, fields)
    }

    /// The rows, of a batch that is well formed.
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let is_end = |octet: &u8| self.count > 1 && *octet == HEAD_END;
        let mut octets = Octets(&self.octets);
        self.heads.split(is_end).map(move |head| {
            let lengths = head.rsplit(|octet| *octet == FIELD_END).take(LENGTHS);
            let length = lengths.filter_map(|length| str::from_utf8(length).ok()?.parse::<usize>().ok()).sum();
            Row { head, octets: Octets(octets.take(length).unwrap_or_default()) }
        })
    }
}

/// A row: its head, and its octets in the order in which the head tells their lengths.
struct Row<'b> {
    head: &'b [u8],
    octets: Octets<'b>,
}

impl Row<'_> {
    /// Its number, even if it is otherwise unusable.
    fn id(&self) -> CertificateId {
        let first = self.head.split(|octet| *octet == FIELD_END).next();
        let id = first.and_then(|first| str::from_utf8(first).ok()?.parse().ok());
        CertificateId(id.unwrap_or_default())
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
    fn certificate(&mut self, row: Row<'_>) -> Result<StoredCertificate, Unusable> {
        let id = row.id();
        self.read(row).map_err(|reason| Unusable { id, reason: shortened(&reason) })
    }

    fn read(&mut self, row: Row<'_>) -> Result<StoredCertificate, String> {
        let (mut head, mut octets) = (Head::of(row.head)?, row.octets);
        let id = CertificateId(head.number()?);
        let (subject, tenant, role_label, provenance) = (head.text(), head.text(), head.text(), head.text());
        let (ca, issuers, kept_at) = (head.text(), head.text(), head.number()?);
        let revoked_at = head.number_or_none()?.map(UnixTime::from_secs);
        let ari = ari(head.number_or_none()?, head.number_or_none()?, head.number_or_none()?);
        let (facts, fingerprint) = (octets.take(head.number()?)?, octets.take(head.number()?)?);
        let leaf = octets.take(head.number()?)?;
        let sealed_key = octets.take(head.number()?)?;
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
            sealed_key: sealed_key.into(),
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

/// The fields of a row's head that are left to read.
struct Head<'r>(&'r str);

impl<'r> Head<'r> {
    fn of(octets: &'r [u8]) -> Result<Self, String> {
        let text = str::from_utf8(octets).map_err(|error| format!("its text is not UTF-8: {error}"))?;
        match octets.iter().filter(|octet| **octet == FIELD_END).count().saturating_add(1) {
            FIELDS => Ok(Self(text)),
            _ => Err("there are control characters in its text".to_owned()),
        }
    }

    fn text(&mut self) -> &'r str {
        let (field, rest) = self.0.split_once(char::from(FIELD_END)).unwrap_or((self.0, ""));
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
