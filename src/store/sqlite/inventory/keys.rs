//! Data keys, accounts with authorities, and other secrets.

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, SqliteConnection};

use super::super::super::StoreError;
use super::super::super::inventory::{Account, Secret};
use super::super::BEGIN;
use super::{InventoryDb, read_usable, time, value};
use crate::vault::WrappedKey;

impl InventoryDb {
    pub(in crate::store) async fn data_keys(&self) -> Result<Vec<WrappedKey>, StoreError> {
        let mut conn = self.reader().await?;
        let sql = "SELECT id, wrapped_by, wrapped, made_at FROM data_key ORDER BY id";
        let read = read_usable(&mut conn, sql, "a data key", data_key).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn add_data_key(&self, key: &WrappedKey) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        // Of one that is there every column must be the same.
        let done = sqlx::query(
            "INSERT INTO data_key (id, wrapped_by, wrapped, made_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET made_at = excluded.made_at
             WHERE wrapped_by = excluded.wrapped_by AND wrapped = excluded.wrapped AND made_at = excluded.made_at",
        )
        .bind(key.id)
        .bind(&*key.wrapped_by)
        .bind(&*key.wrapped)
        .bind(key.made_at.secs())
        .execute(&mut *conn)
        .await;
        match self.end(conn, done)?.rows_affected() {
            0 => Err(self.refused(format!("there is another data key {}", key.id))),
            _ => Ok(()),
        }
    }

    pub(in crate::store) async fn rewrap_data_keys(&self, keys: &[WrappedKey]) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = rewrap_on(&mut conn, keys).await;
        match self.end(conn, done)? {
            Some(missing) => Err(self.refused(format!("there is no data key {missing}"))),
            None => Ok(()),
        }
    }

    pub(in crate::store) async fn secret(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        let mut conn = self.reader().await?;
        let read = sqlx::query_as::<_, (Vec<u8>, Vec<u8>)>("SELECT sealed, public FROM secret WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *conn)
            .await;
        let found = self.end(conn, read)?;
        Ok(found.map(|(sealed, public)| Secret { name: name.into(), sealed: sealed.into(), public: public.into() }))
    }

    pub(in crate::store) async fn put_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query(
            "INSERT INTO secret (name, sealed, public) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, public = excluded.public",
        )
        .bind(&*secret.name)
        .bind(&*secret.sealed)
        .bind(&*secret.public)
        .execute(&mut *conn)
        .await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let mut conn = self.reader().await?;
        let sql = "SELECT ca, eab_kid, url, sealed_key, made_at, contact FROM account ORDER BY ca, eab_kid";
        let read = read_usable(&mut conn, sql, "an account", account).await;
        self.end(conn, read)
    }

    pub(in crate::store) async fn put_account(&self, account: &Account) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query(
            "INSERT INTO account (ca, eab_kid, url, sealed_key, made_at, contact) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (ca, eab_kid) DO UPDATE
             SET url = excluded.url, sealed_key = excluded.sealed_key, made_at = excluded.made_at,
                 contact = excluded.contact",
        )
        .bind(&*account.ca)
        .bind(account.eab_kid.as_deref().unwrap_or_default())
        .bind(&*account.url)
        .bind(&*account.sealed_key)
        .bind(account.made_at.secs())
        .bind(&*account.contact)
        .execute(&mut *conn)
        .await;
        self.end(conn, done).map(drop)
    }

    pub(in crate::store) async fn remove_account(&self, ca: &str, eab_kid: Option<&str>) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let done = sqlx::query("DELETE FROM account WHERE ca = $1 AND eab_kid = $2")
            .bind(ca)
            .bind(eab_kid.unwrap_or_default())
            .execute(&mut *conn)
            .await;
        self.end(conn, done).map(drop)
    }
}

fn data_key(row: &SqliteRow) -> Result<WrappedKey, String> {
    let id: i64 = value(row, 0)?;
    Ok(WrappedKey {
        id: u32::try_from(id).map_err(|_| format!("{id} is no data key's number"))?,
        wrapped_by: value(row, 1)?,
        wrapped: value(row, 2)?,
        made_at: time(row, 3)?,
    })
}

fn account(row: &SqliteRow) -> Result<Account, String> {
    let eab_kid: String = value(row, 1)?;
    Ok(Account {
        ca: value(row, 0)?,
        eab_kid: (!eab_kid.is_empty()).then_some(eab_kid),
        url: value(row, 2)?,
        sealed_key: value::<&[u8]>(row, 3)?.into(),
        made_at: time(row, 4)?,
        contact: value(row, 5)?,
    })
}

/// The number of one that is not there, if any: then nothing was changed.
async fn rewrap_on(conn: &mut SqliteConnection, keys: &[WrappedKey]) -> Result<Option<u32>, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    for key in keys {
        let done = sqlx::query("UPDATE data_key SET wrapped_by = $1, wrapped = $2 WHERE id = $3")
            .bind(&*key.wrapped_by)
            .bind(&*key.wrapped)
            .bind(key.id)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            tx.rollback().await?;
            return Ok(Some(key.id));
        }
    }
    tx.commit().await?;
    Ok(None)
}
