//! Reading what is stored.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::civil;
use sqlx::{Connection as _, QueryBuilder, Row as _, SqliteConnection};

use super::super::{Remembered, StoreError};
use super::{ROWS_MAX, Sqlite, USAGE, push_list};
use crate::clock::{Reading, UnixTime};
use crate::meter::Bucket;
use crate::usage::{Chain, DayFacts, DayRecord, Hash, Hour, Link, Series, unpack};

impl Sqlite {
    pub(in crate::store) async fn glimpse(data_dir: &Path) -> Result<Remembered, StoreError> {
        let sqlite = Self::open_still(&USAGE, data_dir).await?;
        let remembered = sqlite.remembered().await;
        sqlite.close().await;
        remembered
    }

    pub(in crate::store) async fn remembered(&self) -> Result<Remembered, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_remembered(&mut conn).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn names(&self) -> Result<Vec<Arc<str>>, StoreError> {
        let mut conn = self.reader().await?;
        let read = sqlx::query_scalar::<_, String>("SELECT name FROM domain ORDER BY name").fetch_all(&mut *conn).await;
        self.end(conn, read).map(|names| names.into_iter().map(Arc::from).collect())
    }

    pub(in crate::store) async fn series(&self, name: &str, from: Bucket, to: Bucket) -> Result<Series, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_series(&mut conn, name, from, to).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn series_of_all(
        &self,
        from: Bucket,
        to: Bucket,
    ) -> Result<HashMap<Arc<str>, Series>, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_series_of_all(&mut conn, from, to).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn records_of(&self, date: civil::Date) -> Result<Vec<DayRecord>, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_records_of(&mut conn, date).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn chain(&self, name: &str) -> Result<Option<Chain>, StoreError> {
        let mut conn = self.reader().await?;
        let read = read_chain(&mut conn, name).await;
        self.end(conn, read)
    }
}

async fn read_remembered(conn: &mut SqliteConnection) -> Result<Remembered, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let mark: Option<(i64, u32, Option<String>)> =
        sqlx::query_as("SELECT now_ms, pass, zone FROM mark WHERE id = 1").fetch_optional(&mut *tx).await?;
    let states: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT domain.name, state.bytes FROM state CROSS JOIN domain ON domain.id = state.domain_id")
            .fetch_all(&mut *tx)
            .await?;
    tx.rollback().await?;
    let states = states.into_iter().map(|(name, bytes)| (Arc::from(name), bytes)).collect();
    let Some((now_ms, pass, zone)) = mark else { return Ok(Remembered { at: None, zone: None, states }) };
    Ok(Remembered { at: Some(Reading { now: UnixTime::from_ms(now_ms), pass }), zone, states })
}

async fn read_series(conn: &mut SqliteConnection, name: &str, from: Bucket, to: Bucket) -> Result<Series, sqlx::Error> {
    let mut series = Series::new();
    let id = sqlx::query_scalar("SELECT id FROM domain WHERE name = $1").bind(name).fetch_optional(&mut *conn).await?;
    let Some(id) = id else { return Ok(series) };
    for (hour, id, bytes) in read_hours(conn, &[id], from, to).await? {
        unpack_or_log(hour, id, &bytes, &mut series);
    }
    // The first and the last hour may reach beyond.
    series.retain(|bucket, _| (from..to).contains(bucket));
    Ok(series)
}

/// The hours of these names that buckets of `from` to before `to` lie in, the earliest first.
pub(super) async fn read_hours(
    conn: &mut SqliteConnection,
    ids: &[i64],
    from: Bucket,
    to: Bucket,
) -> Result<Vec<(Hour, i64, Vec<u8>)>, sqlx::Error> {
    if from >= to {
        return Ok(Vec::new());
    }
    let (Hour(first), Hour(last)) = (Hour::of(from), Hour::of(Bucket(to.0.saturating_sub(1))));
    // Goes from each hour that is stored at all to the next, so that nobody else's counts are passed over on the way,
    // and a range of a thousand years costs no more than what is in it.
    let mut sql = QueryBuilder::new("WITH RECURSIVE stored (hour) AS (SELECT min(hour) FROM series WHERE hour >= ");
    sql.push_bind(first);
    sql.push(
        " UNION ALL SELECT (SELECT min(series.hour) FROM series WHERE series.hour > stored.hour)
          FROM stored WHERE stored.hour < ",
    );
    sql.push_bind(last);
    sql.push(
        ") SELECT series.hour, series.domain_id, series.counts
         FROM stored CROSS JOIN series ON series.hour = stored.hour WHERE stored.hour <= ",
    );
    sql.push_bind(last).push(" AND series.domain_id IN ");
    push_list(&mut sql, ids.iter().copied());
    let is_usual = ids.len() == 1 || ids.len() == ROWS_MAX;
    let rows: Vec<(i64, i64, Vec<u8>)> = sql.build_query_as().persistent(is_usual).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(hour, id, bytes)| (Hour(hour), id, bytes)).collect())
}

async fn read_series_of_all(
    conn: &mut SqliteConnection,
    from: Bucket,
    to: Bucket,
) -> Result<HashMap<Arc<str>, Series>, sqlx::Error> {
    let (Hour(first), Hour(last)) = (Hour::of(from), Hour::of(Bucket(to.0.saturating_sub(1))));
    let rows: Vec<(String, i64, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT domain.name, series.hour, series.domain_id, series.counts
         FROM series JOIN domain ON domain.id = series.domain_id WHERE series.hour BETWEEN $1 AND $2",
    )
    .bind(first)
    .bind(last)
    .fetch_all(conn)
    .await?;
    let mut all = HashMap::<Arc<str>, Series>::new();
    for (name, hour, id, bytes) in rows {
        unpack_or_log(Hour(hour), id, &bytes, all.entry(name.into()).or_default());
    }
    all.values_mut().for_each(|series| series.retain(|bucket, _| (from..to).contains(bucket)));
    all.retain(|_, series| !series.is_empty());
    Ok(all)
}

async fn read_records_of(conn: &mut SqliteConnection, date: civil::Date) -> Result<Vec<DayRecord>, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let names: Vec<(i64, String)> = sqlx::query_as("SELECT id, name FROM domain").fetch_all(&mut *tx).await?;
    let rows: Vec<DayRow> = sqlx::query_as("SELECT * FROM day WHERE date = $1 ORDER BY domain_id, seq")
        .bind(date.to_string())
        .fetch_all(&mut *tx)
        .await?;
    tx.rollback().await?;
    let names: HashMap<i64, Arc<str>> = names.into_iter().map(|(id, name)| (id, Arc::from(name))).collect();
    let record = |row: DayRow| Some((names.get(&row.domain_id).map(Arc::clone)?, row));
    Ok(rows.into_iter().filter_map(record).map(|(name, row)| row.into_record(name)).collect())
}

/// One damaged hour must not keep us from the others: what is readable of it counts.
pub(super) fn unpack_or_log(hour: Hour, domain_id: i64, bytes: &[u8], counts: &mut Series) {
    if let Err(damage) = unpack(hour, bytes, counts) {
        tracing::error!(domain_id, "{damage}: what stands before the damage is used");
    }
}

async fn read_chain(conn: &mut SqliteConnection, name: &str) -> Result<Option<Chain>, sqlx::Error> {
    // In one transaction: a record that is sealed meanwhile must not show as missing.
    let mut tx = conn.begin().await?;
    let name_row = sqlx::query("SELECT id, anchor_seq, anchor_hash, head_seq, head_hash FROM domain WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(name_row) = name_row else { return Ok(None) };
    let rows: Vec<DayRow> = sqlx::query_as("SELECT * FROM day WHERE domain_id = $1 ORDER BY seq")
        .bind(name_row.try_get::<i64, _>("id")?)
        .fetch_all(&mut *tx)
        .await?;
    tx.rollback().await?;
    let domain: Arc<str> = name.into();
    Ok(Some(Chain {
        anchor: link(name_row.try_get("anchor_seq")?, name_row.try_get("anchor_hash")?),
        records: rows.into_iter().map(|row| row.into_record(Arc::clone(&domain))).collect(),
        head: link(name_row.try_get("head_seq")?, name_row.try_get("head_hash")?),
        domain,
    }))
}

/// A sealed day as stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct DayRow {
    pub(super) domain_id: i64,
    seq: i64,
    date: String,
    zone: String,
    limit_qps: Option<i64>,
    peak_count: i64,
    peak_at: i64,
    requests: i64,
    throttled_secs: i64,
    previous: Vec<u8>,
    hash: Vec<u8>,
}

impl DayRow {
    /// What no record can say was put there by others. It is read as something else rather than refused, and then the
    /// record's hash gives it away.
    pub(super) fn into_record(self, domain: Arc<str>) -> DayRecord {
        let facts = DayFacts {
            date: self.date.parse().unwrap_or(civil::Date::MIN),
            zone: self.zone,
            limit_qps: self.limit_qps.map(|limit| u32::try_from(limit).unwrap_or_default()),
            peak_count: count(self.peak_count),
            peak_at: Bucket(self.peak_at),
            requests: count(self.requests),
            throttled_secs: count(self.throttled_secs),
        };
        DayRecord { domain, seq: count(self.seq), facts, previous: hash(&self.previous), hash: hash(&self.hash) }
    }
}

pub(super) fn link(seq: i64, hash_bytes: &[u8]) -> Link {
    Link { seq: count(seq), hash: hash(hash_bytes) }
}

fn hash(bytes: &[u8]) -> Hash {
    Hash(bytes.try_into().unwrap_or_default())
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}
