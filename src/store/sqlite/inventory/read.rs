//! Reading certificates: a hundred thousand of them at each start.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;

use super::super::super::StoreError;
use super::super::super::inventory::{
    Ari, CERTIFICATE_BYTES_MAX, CertificateId, NewCertificate, Provenance, StoredCertificate, Unusable, facts,
};
use super::super::{error, plain};
use super::{InventoryDb, name, role, shortened};
use crate::certificate::{self, Facts, MAX_CHAIN, facts_of, share_intermediate};
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::name::TenantId;
use crate::text::SharedText;

/// Octets of a row, told without reading them.
macro_rules! octets {
    () => {
        "octet_length(subject) + octet_length(coalesce(tenant, '')) + octet_length(role) + octet_length(provenance)
         + octet_length(ca) + octet_length(facts) + octet_length(fingerprint) + octet_length(leaf)
         + octet_length(issuers) + octet_length(sealed_key)"
    };
}

/// Rows that are larger than any that we write are left where they are.
macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT id, subject, tenant, role, provenance, ca, facts, fingerprint, leaf, issuers, sealed_key, kept_at,
                 revoked_at, ari_start, ari_end, ari_next
             FROM certificate NOT INDEXED WHERE ",
            octets!(),
            " <= $1 ",
            $which
        )
    };
}

/// A column of a row: looking for it by its name would take as long as all the rest.
#[derive(Clone, Copy)]
struct Column(usize, &'static str);

const ID: Column = Column(0, "id");
const SUBJECT: Column = Column(1, "subject");
const TENANT: Column = Column(2, "tenant");
const ROLE: Column = Column(3, "role");
const PROVENANCE: Column = Column(4, "provenance");
const CA: Column = Column(5, "ca");
const FACTS: Column = Column(6, "facts");
const FINGERPRINT: Column = Column(7, "fingerprint");
const LEAF: Column = Column(8, "leaf");
const ISSUERS: Column = Column(9, "issuers");
const SEALED_KEY: Column = Column(10, "sealed_key");
const KEPT_AT: Column = Column(11, "kept_at");
const REVOKED_AT: Column = Column(12, "revoked_at");
const ARI_START: Column = Column(13, "ari_start");
const ARI_END: Column = Column(14, "ari_end");
const ARI_NEXT: Column = Column(15, "ari_next");

const SELECT_ALL: &str = select!("ORDER BY id");
const SELECT_ONE: &str = select!("AND id = $2");
const SELECT_TOO_LARGE: &str = concat!("SELECT id FROM certificate NOT INDEXED WHERE ", octets!(), " > $1 ORDER BY id");

impl InventoryDb {
    pub(in crate::store) async fn each_certificate<T: Send + 'static>(
        &self,
        each: impl FnMut(StoredCertificate) -> T + Send + 'static,
    ) -> Result<(Vec<T>, Vec<Unusable>), StoreError> {
        self.plainly(|conn| read_all(conn, each)).await
    }

    pub(in crate::store) async fn certificate(
        &self,
        id: CertificateId,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        self.plainly(move |conn| read_one(conn, id)).await
    }

    /// Reads by a connection of its own, in one transaction: an issuer that is trimmed meanwhile must not be missing.
    async fn plainly<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, beside) = (Arc::clone(&self.0.shared), self.0.beside);
        let reading = spawn_blocking(move || {
            let done = plain::open(&shared.path, beside).and_then(|conn| {
                let tx = conn.unchecked_transaction()?;
                read(&tx)
            });
            done.map_err(|e| {
                let error = plain::error(&shared.path, e);
                if matches!(error, StoreError::Damaged { .. }) {
                    shared.note_damage();
                }
                error
            })
        });
        reading.await.unwrap_or_else(|panic| Err(error(&self.0.shared.path, io::Error::other(panic).into())))
    }
}

pub(super) fn read_all<T>(
    conn: &Connection,
    mut each: impl FnMut(StoredCertificate) -> T,
) -> rusqlite::Result<(Vec<T>, Vec<Unusable>)> {
    let limit = CERTIFICATE_BYTES_MAX as i64;
    let count: i64 = conn.query_one("SELECT count(*) FROM certificate", [], |row| row.get(0))?;
    let mut shelf = Shelf { issuers: read_issuers(conn)?, ..Shelf::default() };
    let (mut read, mut unusable) = (Vec::new(), Vec::new());
    let mut select = conn.prepare(SELECT_ALL)?;
    let mut rows = select.query([limit])?;
    while let Some(row) = rows.next()? {
        match shelf.certificate(&Row(row)) {
            Ok(certificate) => read.push(each(certificate)),
            Err(it) => unusable.push(it),
        }
    }
    if usize::try_from(count) != Ok(read.len().saturating_add(unusable.len())) {
        let mut too_large = conn.prepare(SELECT_TOO_LARGE)?;
        let ids = too_large.query_map([limit], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        let reason = format!("it has more than {CERTIFICATE_BYTES_MAX} octets");
        unusable.extend(ids.into_iter().map(|id| Unusable { id: CertificateId(id), reason: reason.clone() }));
    }
    Ok((read, unusable))
}

fn read_one(conn: &Connection, id: CertificateId) -> rusqlite::Result<Option<StoredCertificate>> {
    let mut shelf = Shelf { issuers: read_issuers(conn)?, ..Shelf::default() };
    let mut select = conn.prepare(SELECT_ONE)?;
    let mut rows = select.query([CERTIFICATE_BYTES_MAX as i64, id.0])?;
    Ok(match rows.next()?.map(|row| shelf.certificate(&Row(row))) {
        Some(Ok(certificate)) => Some(certificate),
        Some(Err(Unusable { id, reason })) => {
            tracing::error!(id = id.0, "a certificate that is kept cannot be used: {reason}");
            None
        }
        None => None,
    })
}

/// A row as SQLite has it: nothing of it is copied before it is known to be of use.
struct Row<'r>(&'r rusqlite::Row<'r>);

impl<'r> Row<'r> {
    fn text(&self, column: Column) -> Result<&'r str, String> {
        Ok(self.text_or_none(column)?.unwrap_or_default())
    }

    fn text_or_none(&self, column: Column) -> Result<Option<&'r str>, String> {
        match self.value(column)? {
            ValueRef::Text(text) => match str::from_utf8(text) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(format!("`{}` is not UTF-8: {error}", column.1)),
            },
            ValueRef::Null => Ok(None),
            _ => Err(format!("`{}` is no text", column.1)),
        }
    }

    fn octets(&self, column: Column) -> Result<&'r [u8], String> {
        match self.value(column)? {
            ValueRef::Blob(octets) => Ok(octets),
            _ => Err(format!("`{}` is no octets", column.1)),
        }
    }

    fn number(&self, column: Column) -> Result<i64, String> {
        self.number_or_none(column)?.ok_or_else(|| format!("`{}` is missing", column.1))
    }

    fn number_or_none(&self, column: Column) -> Result<Option<i64>, String> {
        match self.value(column)? {
            ValueRef::Integer(number) => Ok(Some(number)),
            ValueRef::Null => Ok(None),
            _ => Err(format!("`{}` is no number", column.1)),
        }
    }

    fn time_or_none(&self, column: Column) -> Result<Option<UnixTime>, String> {
        Ok(self.number_or_none(column)?.map(UnixTime::from_secs))
    }

    fn value(&self, column: Column) -> Result<ValueRef<'r>, String> {
        self.0.get_ref(column.0).map_err(|error| error.to_string())
    }
}

/// Each issuer, or why it is none.
type Issuers = HashMap<i64, Result<CertificateDer<'static>, String>>;

fn read_issuers(conn: &Connection) -> rusqlite::Result<Issuers> {
    let mut select = conn.prepare("SELECT id, der FROM issuer NOT INDEXED WHERE octet_length(der) <= $1")?;
    let issuer = |row: &rusqlite::Row| {
        let (id, der): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let shared = share_intermediate(CertificateDer::from(der));
        Ok((id, shared.map_err(|error| format!("issuer {id} is no certificate: {error}"))))
    };
    select.query_map([CERTIFICATE_BYTES_MAX as i64], issuer)?.collect()
}

/// What many certificates have in common, kept once.
#[derive(Default)]
struct Shelf {
    issuers: Issuers,
    tenants: HashSet<TenantId>,
    /// Directory URLs, and names of issuers.
    texts: HashSet<SharedText>,
}

impl Shelf {
    fn certificate(&mut self, row: &Row<'_>) -> Result<StoredCertificate, Unusable> {
        let id = CertificateId(row.number(ID).unwrap_or_default());
        self.read(id, row).map_err(|reason| Unusable { id, reason: shortened(&reason) })
    }

    fn read(&mut self, id: CertificateId, row: &Row<'_>) -> Result<StoredCertificate, String> {
        let (leaf, fingerprint) = (row.octets(LEAF)?, row.octets(FINGERPRINT)?);
        let mut facts = match facts::decode(row.octets(FACTS)?, leaf) {
            Some(facts) => facts,
            None => facts_anew(leaf, fingerprint)?,
        };
        facts.issuer = self.shared(&facts.issuer);
        // Nearly always one of the certificate's own names: then it is the same text.
        let subject = row.text(SUBJECT)?;
        let subject = match facts.names.iter().find(|name| name.as_str() == subject) {
            Some(name) => name.clone(),
            None => name(subject)?,
        };
        let provenance = row.text(PROVENANCE)?;
        let certificate = NewCertificate {
            subject,
            tenant: row.text_or_none(TENANT)?.filter(|it| !it.is_empty()).map(|it| self.tenant(it)).transpose()?,
            role: role(row.text(ROLE)?)?,
            provenance: Provenance::of_label(provenance)
                .ok_or_else(|| format!("`{}` is neither acme nor uploaded", shortened(provenance)))?,
            ca: self.shared(row.text(CA)?),
            chain: self.chain(leaf, row.text(ISSUERS)?)?,
            facts,
            sealed_key: row.octets(SEALED_KEY)?.into(),
            at: UnixTime::from_secs(row.number(KEPT_AT)?),
        };
        let window = row.time_or_none(ARI_START)?.zip(row.time_or_none(ARI_END)?);
        let window = window.map(|(start, end)| Window { start, end });
        let ari = row.time_or_none(ARI_NEXT)?.map(|next_at| Ari { window, next_at });
        Ok(StoredCertificate { id, certificate, revoked_at: row.time_or_none(REVOKED_AT)?, ari })
    }

    fn shared(&mut self, text: &str) -> SharedText {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text = SharedText::from(text);
        self.texts.insert(text.clone());
        text
    }

    fn tenant(&mut self, text: &str) -> Result<TenantId, String> {
        let tenant = TenantId::new(text).filter(|tenant| tenant.as_str() == text);
        let tenant = tenant.ok_or_else(|| format!("`{}` is no tenant's name", shortened(text)))?;
        if let Some(known) = self.tenants.get(&tenant) {
            return Ok(known.clone());
        }
        self.tenants.insert(tenant.clone());
        Ok(tenant)
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
    if certificate::fingerprint(leaf) == fingerprint {
        Ok(facts)
    } else {
        Err("its leaf is not the one that was kept".to_owned())
    }
}
