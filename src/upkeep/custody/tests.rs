//! What is kept, opened step by step, with real files.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;

use super::attend::pen;
use super::*;
use crate::certificate::fixture::NOW;
use crate::control::Control;
use crate::snapshot::Live;

/// Does something to the database of a process that runs.
async fn tamper(dir: &TempDir, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(dir.path().join("certificates.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_data_key_that_could_not_be_stored_seals_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = KeySource::Made(dir.path().join("vault.key"));
    let custody = Custody::new(dir.path(), source, &Registry::new()).unwrap();
    custody.open(NOW).await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON data_key BEGIN SELECT RAISE(ABORT, 'no'); END";
    tamper(&dir, refuse).await;
    let internal = InternalCa::new();
    custody.unlock(&internal, NOW).await.unwrap_err();
    assert!(custody.vault.seal(b"key", b"whose").is_err(), "a start would not open it");
    assert!(!custody.is_unlocked() && !custody.is_ready());
    tamper(&dir, "DROP TRIGGER refuse").await;
    custody.unlock(&internal, NOW).await.unwrap();
    assert!(custody.is_unlocked() && custody.is_ready());
    // A start opens what is sealed now.
    let sealed = custody.vault.seal(b"key", b"whose").unwrap();
    let stored = custody.inventory().unwrap().data_keys().await.unwrap();
    let wrap = rotation::find(&custody.source.load_full(), &stored).await.unwrap().wrap;
    let restarted = Vault::locked();
    restarted.unlock(&wrap, &stored, NOW).await.unwrap();
    assert_eq!(restarted.open(&sealed, b"whose").unwrap().as_slice(), b"key");
}

#[tokio::test]
async fn whoever_waits_for_the_pen_keeps_no_thread() {
    let control = Arc::new(Mutex::new(Control::new(Arc::new(Live::default()))));
    let (release, released) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let holder = thread::spawn({
        let control = Arc::clone(&control);
        move || {
            let _pen = control.lock().unwrap();
            tell.send(()).unwrap();
            // As long as a disk may take. Whoever keeps this test's thread would wait to the end.
            _ = released.recv_timeout(Duration::from_secs(5));
        }
    });
    told.recv().unwrap();
    tokio::select! {
        biased;
        _ = pen(&control) => panic!("the thread was kept until the pen was free"),
        () = std::future::ready(()) => {}
    }
    release.send(()).unwrap();
    holder.join().unwrap();
    drop(pen(&control).await);
}
