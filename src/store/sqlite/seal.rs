//! Sealing days that are over.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sqlx::{Connection as _, QueryBuilder, SqliteConnection};

use super::super::{Seal, StoreError};
use super::fold::store_mark;
use super::read::{DayRow, link, read_hours, unpack_or_log};
use super::{BEGIN, ROWS_MAX, Sqlite, push_list, saturate, write_rows};
use crate::clock::Reading;
use crate::usage::{Day, DayFacts, DayRecord, Link, Series, Totals};

impl Sqlite {
    pub(in crate::store) async fn seal(&self, seals: &[Seal], at: Reading) -> Result<Vec<DayRecord>, StoreError> {
        let mut conn = self.writer().await?;
        let done = self.seal_on(&mut conn, seals, at).await;
        self.end(conn, done)
    }

    async fn seal_on(
        &self,
        conn: &mut SqliteConnection,
        seals: &[Seal],
        at: Reading,
    ) -> Result<Vec<DayRecord>, sqlx::Error> {
        let mut tx = conn.begin_with(BEGIN).await?;
        let gathered = self.store(&mut tx, seals.iter().map(|seal| &seal.fold), at).await?;
        let ids: HashMap<_, _> = gathered.iter().filter_map(|of| Some((of.name, of.id?))).collect();
        let mut due: Vec<_> = seals.iter().filter_map(|seal| Some((*ids.get(&seal.fold.name)?, seal))).collect();
        // A chain goes on with the earlier day, and the names of a day are looked up together.
        due.sort_by_key(|(id, seal)| (seal.day.start, *id));
        let mut sealed = Vec::new();
        for of_day in due.chunk_by(|(_, a), (_, b)| a.day == b.day).flat_map(|of_day| of_day.chunks(ROWS_MAX)) {
            sealed.extend(seal_some(&mut tx, of_day).await?);
        }
        store_mark(&mut tx, at, None).await?;
        tx.commit().await?;
        self.remember_ids(&gathered);
        Ok(sealed)
    }
}

/// Seals the same day of several names.
async fn seal_some(conn: &mut SqliteConnection, due: &[(i64, &Seal)]) -> Result<Vec<DayRecord>, sqlx::Error> {
    let Some((_, Seal { day, .. })) = due.first() else { return Ok(Vec::new()) };
    let ids: Vec<i64> = due.iter().map(|(id, _)| *id).collect();
    let used = add_up(conn, &ids, day).await?;
    let mut latest = read_latest(conn, &ids, day).await?;
    let mut heads = read_heads(conn, &ids).await?;
    let mut appended = Vec::new();
    for (id, seal) in due {
        let mut used = used.get(id).copied().unwrap_or_default();
        if let Some(peak) = seal.peak {
            used.know(peak.at, peak.count);
        }
        let Some(mut facts) = facts(&used, seal) else { continue };
        let known = latest.entry((*id, seal.zone.clone()));
        if let Entry::Occupied(known) = &known {
            // A verdict or a limit that changed since does not change a day on which nothing else arrived.
            let used = |facts: &DayFacts| (facts.requests, facts.peak_count, facts.peak_at);
            if used(known.get()) == used(&facts) {
                continue;
            }
            facts.throttled_secs = facts.throttled_secs.max(known.get().throttled_secs);
            if is_less(&facts, known.get(), day) {
                tracing::warn!(
                    domain = %seal.fold.name, date = %day.date,
                    "less is stored of a sealed day than its record says: the record stays as it is"
                );
                continue;
            }
        }
        known.insert_entry(facts.clone());
        let head = heads.entry(*id).or_insert(Link::GENESIS);
        let record = DayRecord::seal(Arc::clone(&seal.fold.name), facts, head);
        *head = record.link();
        appended.push((*id, record));
    }
    append(conn, &appended).await?;
    Ok(appended.into_iter().map(|(_, record)| record).collect())
}

/// Counts never shrink: if less is there than when the day was sealed, part of it was trimmed or damaged since.
fn is_less(facts: &DayFacts, sealed: &DayFacts, day: &Day) -> bool {
    // Far outside the calendar many days have the same date.
    let is_same_day = day.start <= sealed.peak_at && sealed.peak_at < day.end;
    is_same_day && (facts.requests < sealed.requests || facts.peak_count < sealed.peak_count)
}

/// `None` without requests. Numbers are what can be stored of them, so that the record's hash is of what is stored.
fn facts(used: &Totals, seal: &Seal) -> Option<DayFacts> {
    let storable = |n: u64| saturate(n).unsigned_abs();
    let (peak_at, peak_count) = used.peak?;
    (used.requests > 0).then(|| DayFacts {
        date: seal.day.date,
        zone: seal.zone.clone(),
        limit_qps: seal.limit_qps,
        peak_count: storable(peak_count),
        peak_at,
        requests: storable(used.requests),
        throttled_secs: storable(seal.throttled_secs),
    })
}

async fn add_up(conn: &mut SqliteConnection, ids: &[i64], day: &Day) -> Result<HashMap<i64, Totals>, sqlx::Error> {
    let mut used = HashMap::<i64, Totals>::new();
    let mut counts = Series::new();
    for (hour, id, bytes) in read_hours(conn, ids, day.start, day.end).await? {
        // A bucket may stand in its hour more than once, but in no other.
        counts.clear();
        unpack_or_log(hour, id, &bytes, &mut counts);
        let used = used.entry(id).or_default();
        counts.range(day.start..day.end).for_each(|(bucket, count)| used.add(*bucket, *count));
    }
    Ok(used)
}

/// What holds of the day so far, by name and zone.
async fn read_latest(
    conn: &mut SqliteConnection,
    ids: &[i64],
    day: &Day,
) -> Result<HashMap<(i64, String), DayFacts>, sqlx::Error> {
    let mut sql = QueryBuilder::new("SELECT * FROM day WHERE date = ");
    sql.push_bind(day.date.to_string()).push(" AND domain_id IN ");
    push_list(&mut sql, ids.iter().copied());
    sql.push(" ORDER BY domain_id, seq");
    let rows: Vec<DayRow> = sql.build_query_as().persistent(ids.len() == ROWS_MAX).fetch_all(conn).await?;
    let nobody: Arc<str> = "".into();
    let facts = rows.into_iter().map(|row| (row.domain_id, row.into_record(Arc::clone(&nobody)).facts));
    Ok(facts.map(|(id, facts)| ((id, facts.zone.clone()), facts)).collect())
}

/// Where each chain goes on. A head that somebody set back is followed by the next free number all the same: the chain
/// shows the flaw then, and the other names are sealed.
async fn read_heads(conn: &mut SqliteConnection, ids: &[i64]) -> Result<HashMap<i64, Link>, sqlx::Error> {
    let mut sql = QueryBuilder::new(
        "SELECT id, max(head_seq, (SELECT coalesce(max(seq), 0) FROM day WHERE domain_id = domain.id)), head_hash
         FROM domain WHERE id IN ",
    );
    push_list(&mut sql, ids.iter().copied());
    let rows: Vec<(i64, i64, Vec<u8>)> = sql.build_query_as().persistent(ids.len() == ROWS_MAX).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, seq, hash)| (id, link(seq, &hash))).collect())
}

/// Appends records, and moves the heads of their chains. Later records of a chain stand behind earlier ones.
async fn append(conn: &mut SqliteConnection, appended: &[(i64, DayRecord)]) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO day (domain_id, seq, date, zone, limit_qps, peak_count, peak_at, requests,
        throttled_secs, previous, hash) ";
    for rows in appended.chunks(ROWS_MAX) {
        write_rows(conn, insert, rows, "", |columns, (id, record)| {
            let DayFacts { date, zone, limit_qps, peak_count, peak_at, requests, throttled_secs } = &record.facts;
            columns.push_bind(*id).push_bind(saturate(record.seq));
            columns.push_bind(date.to_string()).push_bind(&**zone).push_bind(*limit_qps);
            columns.push_bind(saturate(*peak_count)).push_bind(peak_at.0);
            columns.push_bind(saturate(*requests)).push_bind(saturate(*throttled_secs));
            columns.push_bind(&record.previous.0[..]).push_bind(&record.hash.0[..]);
        })
        .await?;
    }
    let heads: HashMap<_, _> = appended.iter().map(|(id, record)| (*id, record.link())).collect();
    let heads: Vec<_> = heads.into_iter().collect();
    for rows in heads.chunks(ROWS_MAX) {
        write_rows(
            conn,
            "WITH moved (id, seq, hash) AS (",
            rows,
            ") UPDATE domain SET head_seq = moved.seq, head_hash = moved.hash FROM moved WHERE domain.id = moved.id",
            |columns, (id, head)| {
                columns.push_bind(*id).push_bind(saturate(head.seq)).push_bind(&head.hash.0[..]);
            },
        )
        .await?;
    }
    Ok(())
}
