//! Orders under way, and attempts that failed.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::super::super::StoreError;
use super::super::super::inventory::{Attempts, FILE, HeldOff, Order, OrderId, PROBLEM_CHARS_MAX, Role};
use super::{InventoryDb, name, read_usable, role, shortened, time, value};
use crate::clock::UnixTime;
use crate::name::DomainName;

impl InventoryDb {
    pub(in crate::store) async fn orders(&self) -> Result<Vec<(OrderId, Order)>, StoreError> {
        let mut conn = self.reader().await?;
        let sql = "SELECT id, subject, role, ca, url, names, sealed_key, placed_at FROM acme_order ORDER BY id";
        let read = read_usable(&mut conn, sql, "an order", order).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn order_of(
        &self,
        subject: &DomainName,
        role: Role,
    ) -> Result<Option<(OrderId, Order)>, StoreError> {
        let mut conn = self.reader().await?;
        // UNIQUE (subject, role) is an index.
        let sql = "SELECT id, subject, role, ca, url, names, sealed_key, placed_at FROM acme_order
                   WHERE subject = $1 AND role = $2";
        let read = sqlx::query(sql).bind(subject.as_str()).bind(role.label()).fetch_optional(&mut *conn).await;
        let found = self.end(conn, read)?.map(|row| order(&row)).transpose();
        Ok(found.unwrap_or_else(|reason| {
            tracing::error!("an order in {FILE} cannot be used and is passed over: {reason}");
            None
        }))
    }

    pub(in crate::store) async fn begin_order(&self, order: &Order) -> Result<OrderId, StoreError> {
        let mut conn = self.writer().await?;
        let names: Vec<_> = order.names.iter().map(DomainName::as_str).collect();
        // Replaced and not updated: it gets another number, so that nobody goes on with the old one by mistake.
        let done = sqlx::query(
            "INSERT OR REPLACE INTO acme_order (subject, role, ca, url, names, sealed_key, placed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(order.subject.as_str())
        .bind(order.role.label())
        .bind(&*order.ca)
        .bind(&*order.url)
        .bind(names.join(" "))
        .bind(order.sealed_key.as_deref())
        .bind(order.placed_at.secs())
        .execute(&mut *conn)
        .await;
        self.end(conn, done).map(|done| OrderId(done.last_insert_rowid()))
    }

    pub(in crate::store) async fn seal_order_key(&self, OrderId(id): OrderId, sealed: &[u8]) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("UPDATE acme_order SET sealed_key = $1 WHERE id = $2")
            .bind(sealed)
            .bind(id)
            .execute(&mut *conn)
            .await;
        match self.end(conn, done)?.rows_affected() {
            0 => Err(self.refused(format!("order {id} has ended or was replaced"))),
            _ => Ok(()),
        }
    }

    pub(in crate::store) async fn end_order(&self, OrderId(id): OrderId) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("DELETE FROM acme_order WHERE id = $1").bind(id).execute(&mut *conn).await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn attempts(&self) -> Result<Vec<Attempts>, StoreError> {
        let mut conn = self.reader().await?;
        let sql = "SELECT subject, role, failures, first_at, last_at, next_at, ca, problem, advice, held_off
                   FROM attempts ORDER BY subject, role";
        let read = read_usable(&mut conn, sql, "a failed attempt", attempts).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn note_attempts(&self, attempts: &Attempts) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let cut = |text: &str| text.chars().take(PROBLEM_CHARS_MAX).collect::<String>();
        let held_off: Vec<_> = attempts.held_off.iter().map(|of| format!("{} {}", of.until.secs(), of.ca)).collect();
        let done = sqlx::query(
            "INSERT OR REPLACE INTO attempts
             (subject, role, failures, first_at, last_at, next_at, ca, problem, advice, held_off)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(attempts.subject.as_str())
        .bind(attempts.role.label())
        .bind(attempts.failures)
        .bind(attempts.first_at.secs())
        .bind(attempts.last_at.secs())
        .bind(attempts.next_at.secs())
        .bind(&*attempts.ca)
        .bind(cut(&attempts.problem))
        .bind(cut(&attempts.advice))
        .bind(held_off.join("\n"))
        .execute(&mut *conn)
        .await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn forget_attempts(&self, subject: &DomainName, role: Role) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = forget_attempts_on(&mut conn, subject, role).await;
        self.end(conn, done)
    }
}

pub(super) async fn forget_attempts_on(
    conn: &mut SqliteConnection,
    subject: &DomainName,
    role: Role,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM attempts WHERE subject = $1 AND role = $2")
        .bind(subject.as_str())
        .bind(role.label())
        .execute(conn)
        .await
        .map(drop)
}

pub(super) async fn end_order_of(
    conn: &mut SqliteConnection,
    subject: &DomainName,
    role: Role,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM acme_order WHERE subject = $1 AND role = $2")
        .bind(subject.as_str())
        .bind(role.label())
        .execute(conn)
        .await
        .map(drop)
}

fn order(row: &SqliteRow) -> Result<(OrderId, Order), String> {
    let names: Vec<_> = value::<&str>(row, 5)?.split_ascii_whitespace().map(name).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err("it is for no names".to_owned());
    }
    let order = Order {
        subject: name(value(row, 1)?)?,
        role: role(value(row, 2)?)?,
        ca: value(row, 3)?,
        url: value(row, 4)?,
        names,
        sealed_key: value::<Option<&[u8]>>(row, 6)?.map(Box::from),
        placed_at: time(row, 7)?,
    };
    Ok((OrderId(value(row, 0)?), order))
}

fn attempts(row: &SqliteRow) -> Result<Attempts, String> {
    let failures: i64 = value(row, 2)?;
    Ok(Attempts {
        subject: name(value(row, 0)?)?,
        role: role(value(row, 1)?)?,
        failures: u32::try_from(failures).map_err(|_| format!("{failures} is no number of failures"))?,
        first_at: time(row, 3)?,
        last_at: time(row, 4)?,
        next_at: time(row, 5)?,
        ca: value(row, 6)?,
        problem: value(row, 7)?,
        advice: value(row, 8)?,
        held_off: value::<&str>(row, 9)?.lines().map(held_off).collect::<Result<_, _>>()?,
    })
}

fn held_off(line: &str) -> Result<HeldOff, String> {
    let fields = line.split_once(' ').and_then(|(until, ca)| Some((until.parse().ok()?, ca)));
    let (until, ca) = fields.ok_or_else(|| format!("`{}` is not a time and an authority", shortened(line)))?;
    Ok(HeldOff { ca: ca.to_owned(), until: UnixTime::from_secs(until) })
}
