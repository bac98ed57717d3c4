//! Storing what names used.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use sqlx::{Connection as _, QueryBuilder, SqliteConnection};

use super::super::{Fold, StoreError};
use super::read::unpack_or_log;
use super::{BEGIN, ROWS_MAX, Sqlite, push_list, write_rows};
use crate::clock::Reading;
use crate::meter::Bucket;
use crate::usage::{Hour, Series, pack, raise};

/// Counts of an hour are appended until they have so many bytes, then they are packed anew. A full hour takes a quarter
/// of it: only buckets that are stored again and again get there.
const HOUR_BYTES_MAX: u32 = 8 * 1024;

/// Everything that a call folds of one name.
pub(super) struct Gathered<'f> {
    pub(super) name: &'f Arc<str>,
    /// `None` if nothing is or will be known of it.
    pub(super) id: Option<i64>,
    state: &'f [u8],
    counts: Series,
}

impl Sqlite {
    pub(in crate::store) async fn fold(&self, folds: &[Fold], at: Reading, zone: &str) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = self.fold_on(&mut conn, folds, at, zone).await;
        self.end(conn, done)
    }

    async fn fold_on(
        &self,
        conn: &mut SqliteConnection,
        folds: &[Fold],
        at: Reading,
        zone: &str,
    ) -> Result<(), sqlx::Error> {
        let mut tx = conn.begin_with(BEGIN).await?;
        let gathered = self.store(&mut tx, folds, at).await?;
        store_mark(&mut tx, at, Some(zone)).await?;
        tx.commit().await?;
        self.remember_ids(&gathered);
        Ok(())
    }

    /// Stores counts and states, as part of a transaction.
    pub(super) async fn store<'f>(
        &self,
        conn: &mut SqliteConnection,
        folds: impl IntoIterator<Item = &'f Fold>,
        at: Reading,
    ) -> Result<Vec<Gathered<'f>>, sqlx::Error> {
        let mut gathered = gather(folds);
        self.find_ids(conn, &mut gathered).await?;
        // In the tables' order, so that neighbours are written together.
        gathered.sort_unstable_by_key(|of| of.id);
        store_states(conn, &gathered, at).await?;
        store_counts(conn, &gathered).await?;
        Ok(gathered)
    }

    /// Gives each name its id; a new one to those of which there is something to store.
    async fn find_ids(&self, conn: &mut SqliteConnection, gathered: &mut [Gathered<'_>]) -> Result<(), sqlx::Error> {
        let mut unknown = Vec::new();
        {
            let ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
            for of in gathered {
                of.id = ids.get(of.name).copied();
                if of.id.is_none() {
                    unknown.push(of);
                }
            }
        }
        for unknown in unknown.chunks_mut(ROWS_MAX) {
            let new: Vec<_> = unknown.iter().filter(|of| !of.is_empty()).map(|of| of.name).collect();
            if !new.is_empty() {
                let ignore_known = " ON CONFLICT (name) DO NOTHING";
                write_rows(conn, "INSERT INTO domain (name) ", &new, ignore_known, |columns, name| {
                    columns.push_bind(&***name);
                })
                .await?;
            }
            let mut sql = QueryBuilder::new("SELECT name, id FROM domain WHERE name IN ");
            push_list(&mut sql, unknown.iter().map(|of| &**of.name));
            let rows: Vec<(String, i64)> = sql.build_query_as().persistent(false).fetch_all(&mut *conn).await?;
            let ids: HashMap<_, _> = rows.into_iter().collect();
            for of in unknown {
                of.id = ids.get(&**of.name).copied();
            }
        }
        Ok(())
    }

    /// Only ever after a commit: ids that were rolled back are given again, to others.
    pub(super) fn remember_ids(&self, gathered: &[Gathered<'_>]) {
        let mut ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for of in gathered {
            if let Some(id) = of.id
                && !ids.contains_key(of.name)
            {
                ids.insert(Arc::clone(of.name), id);
            }
        }
    }
}

impl Gathered<'_> {
    fn is_empty(&self) -> bool {
        self.state.is_empty() && self.counts.is_empty()
    }
}

/// One entry for each name, however often it was folded: the last state and the largest counts hold.
fn gather<'f>(folds: impl IntoIterator<Item = &'f Fold>) -> Vec<Gathered<'f>> {
    let mut places = HashMap::new();
    let mut gathered = Vec::<Gathered<'f>>::new();
    for fold in folds {
        let place = *places.entry(&fold.name).or_insert(gathered.len());
        if place == gathered.len() {
            gathered.push(Gathered { name: &fold.name, id: None, state: &[], counts: Series::new() });
        }
        let Some(of) = gathered.get_mut(place) else { continue };
        of.state = &fold.state;
        fold.counts.iter().filter(|(_, count)| *count > 0).for_each(|(b, count)| raise(&mut of.counts, *b, *count));
    }
    gathered
}

async fn store_states(conn: &mut SqliteConnection, gathered: &[Gathered<'_>], at: Reading) -> Result<(), sqlx::Error> {
    let Bucket(now) = Bucket::of(at.now);
    let mut states = Vec::with_capacity(gathered.len());
    let mut gone = Vec::new();
    for of in gathered {
        let Some(id) = of.id else { continue };
        if of.state.is_empty() {
            gone.push(id);
        } else {
            // It also speaks of the bucket that is still open.
            let last = of.counts.last_key_value().map_or(now, |(bucket, _)| bucket.0.max(now));
            states.push((id, last, of.state));
        }
    }
    for rows in states.chunks(ROWS_MAX) {
        // Of a state from before the clock went back, later buckets may still be in this one.
        let replace = " ON CONFLICT (domain_id) DO UPDATE
            SET bytes = excluded.bytes, last_bucket = max(state.last_bucket, excluded.last_bucket)";
        write_rows(
            conn,
            "INSERT INTO state (domain_id, last_bucket, bytes) ",
            rows,
            replace,
            |columns, (id, last, bytes)| {
                columns.push_bind(*id).push_bind(*last).push_bind(*bytes);
            },
        )
        .await?;
    }
    for ids in gone.chunks(ROWS_MAX) {
        let mut sql = QueryBuilder::new("DELETE FROM state WHERE domain_id IN ");
        push_list(&mut sql, ids.iter().copied());
        sql.build().persistent(false).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The counts of one name in one hour.
struct HourRow {
    hour: i64,
    id: i64,
    bytes: Vec<u8>,
}

async fn store_counts(conn: &mut SqliteConnection, gathered: &[Gathered<'_>]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::with_capacity(gathered.len());
    for of in gathered {
        let Some(id) = of.id else { continue };
        let hours = pack(of.counts.iter().map(|(bucket, count)| (*bucket, *count)));
        rows.extend(hours.into_iter().map(|(Hour(hour), bytes)| HourRow { hour, id, bytes }));
    }
    rows.sort_unstable_by_key(|row| (row.hour, row.id));
    // Joined bytes are text to SQLite until they are cast back, which changes none of them.
    let append = format!(
        " ON CONFLICT (hour, domain_id) DO UPDATE SET counts = CAST(series.counts || excluded.counts AS BLOB)
          WHERE length(series.counts) < {HOUR_BYTES_MAX}"
    );
    for rows in rows.chunks(ROWS_MAX) {
        let insert = "INSERT INTO series (hour, domain_id, counts) ";
        let written = write_rows(conn, insert, rows, &append, |columns, row| {
            columns.push_bind(row.hour).push_bind(row.id).push_bind(&*row.bytes);
        })
        .await?;
        if written < rows.len() as u64 {
            pack_anew(conn, rows).await?;
        }
    }
    Ok(())
}

/// Adds to those hours that had grown too large to be appended to.
async fn pack_anew(conn: &mut SqliteConnection, rows: &[HourRow]) -> Result<(), sqlx::Error> {
    for HourRow { hour, id, bytes } in rows {
        let known: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT counts FROM series WHERE hour = $1 AND domain_id = $2 AND length(counts) >= $3")
                .bind(hour)
                .bind(id)
                .bind(HOUR_BYTES_MAX)
                .fetch_optional(&mut *conn)
                .await?;
        let Some(known) = known else { continue };
        let mut counts = Series::new();
        unpack_or_log(Hour(*hour), *id, &known, &mut counts);
        unpack_or_log(Hour(*hour), *id, bytes, &mut counts);
        sqlx::query("UPDATE series SET counts = $1 WHERE hour = $2 AND domain_id = $3")
            .bind(pack(counts).remove(&Hour(*hour)).unwrap_or_default())
            .bind(hour)
            .bind(id)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Notes the clock; also the zone, if one is given.
pub(super) async fn store_mark(
    conn: &mut SqliteConnection,
    at: Reading,
    zone: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO mark (id, now_ms, pass, zone) VALUES (1, $1, $2, $3) ON CONFLICT (id) DO UPDATE
         SET now_ms = excluded.now_ms, pass = excluded.pass, zone = coalesce(excluded.zone, mark.zone)",
    )
    .bind(at.now.ms())
    .bind(at.pass)
    .bind(zone)
    .execute(conn)
    .await?;
    Ok(())
}
