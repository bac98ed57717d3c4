//! Forgetting what is too old, a bounded step at a time.

use std::collections::HashMap;

use jiff::civil;
use sqlx::{Connection as _, SqliteConnection};

use super::super::StoreError;
use super::{BEGIN, ROWS_MAX, Sqlite, write_rows};
use crate::usage::Hour;

impl Sqlite {
    pub(in crate::store) async fn trim(
        &self,
        hours_before: Hour,
        days_before: civil::Date,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut conn = self.writer().await?;
        let done = trim_on(&mut conn, hours_before, days_before, limit).await;
        self.end(conn, done)
    }
}

async fn trim_on(
    conn: &mut SqliteConnection,
    hours_before: Hour,
    days_before: civil::Date,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    let series = sqlx::query(
        "DELETE FROM series WHERE (hour, domain_id) IN
         (SELECT hour, domain_id FROM series WHERE hour < $1 ORDER BY hour, domain_id LIMIT $2)",
    )
    .bind(hours_before.0)
    .bind(limit)
    .execute(&mut *tx)
    .await?;
    let mut trimmed = series.rows_affected().saturating_add(trim_days(&mut tx, days_before, limit).await?);
    // Old states are found by reading them all: once, in the last step, and not in each.
    if trimmed < u64::from(limit) {
        let states = sqlx::query(
            "DELETE FROM state WHERE domain_id IN (SELECT domain_id FROM state WHERE last_bucket < $1 LIMIT $2)",
        )
        .bind(hours_before.start().0)
        .bind(limit)
        .execute(&mut *tx)
        .await?;
        trimmed = trimmed.saturating_add(states.rows_affected());
    }
    tx.commit().await?;
    Ok(trimmed)
}

async fn trim_days(conn: &mut SqliteConnection, before: civil::Date, limit: u32) -> Result<u64, sqlx::Error> {
    // Chains whose first record is old, and then record after record as long as they are. One that is old but stands
    // behind a newer one waits: a chain loses its beginning only.
    let old: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(
        "WITH RECURSIVE old (domain_id, seq, hash) AS (
             SELECT * FROM (
                 SELECT day.domain_id, day.seq, day.hash FROM day JOIN domain ON domain.id = day.domain_id
                 WHERE day.date < $1 AND day.seq = domain.anchor_seq + 1 ORDER BY day.date LIMIT $2
             )
             UNION ALL
             SELECT day.domain_id, day.seq, day.hash
             FROM old JOIN day ON day.domain_id = old.domain_id AND day.seq = old.seq + 1 WHERE day.date < $1
         )
         SELECT domain_id, seq, hash FROM old LIMIT $2",
    )
    .bind(before.to_string())
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    for rows in old.chunks(ROWS_MAX) {
        // By way of a table: a bare list would be looked through for each record that there is.
        let delete = ") DELETE FROM day WHERE (domain_id, seq) IN (SELECT domain_id, seq FROM gone)";
        write_rows(conn, "WITH gone (domain_id, seq) AS (", rows, delete, |columns, (id, seq, _)| {
            columns.push_bind(*id).push_bind(*seq);
        })
        .await?;
    }
    let trimmed = old.len() as u64;
    // Of each chain the last is left: its records come in order.
    let anchors: HashMap<_, _> = old.into_iter().map(|(id, seq, hash)| (id, (seq, hash))).collect();
    let anchors: Vec<_> = anchors.into_iter().collect();
    for rows in anchors.chunks(ROWS_MAX) {
        write_rows(
            conn,
            "WITH moved (id, seq, hash) AS (",
            rows,
            ") UPDATE domain SET anchor_seq = moved.seq, anchor_hash = moved.hash FROM moved WHERE domain.id = moved.id",
            |columns, (id, (seq, hash))| {
                columns.push_bind(*id).push_bind(*seq).push_bind(&**hash);
            },
        )
        .await?;
    }
    Ok(trimmed)
}
