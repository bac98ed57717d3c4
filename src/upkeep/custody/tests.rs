//! What is kept, opened step by step, with real files.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rstest::rstest;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::attend::pen;
use super::*;
use crate::certificate::fixture::{NOW, pair};
use crate::control::Control;
use crate::issuer::InternalCa;
use crate::name::DomainName;
use crate::snapshot::Live;
use crate::store::inventory::{NewCertificate, Role};
use crate::vault::rotation;

const FILE: &str = "certificates.db";
const PAGE_BYTES: u64 = 8192;

/// Does something to the database of a process that runs.
async fn tamper(dir: &TempDir, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(dir.path().join(FILE));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

fn custody(dir: &TempDir) -> Arc<Custody> {
    Custody::new(dir.path(), KeySource::Made(dir.path().join("vault.key")), &Registry::new()).unwrap()
}

/// Fills pages of the database with garbage; the first one is 0.
fn damage(file: &Path, pages: std::ops::Range<u64>) {
    let file = fs::File::options().write(true).open(file).unwrap();
    for page in pages {
        file.write_all_at(&[0xa5; PAGE_BYTES as usize], page * PAGE_BYTES).unwrap();
    }
}

/// The last pages, far from where the schema is: only whoever reads certificates meets that.
fn damage_the_end(file: &Path) {
    let pages = file.metadata().unwrap().len() / PAGE_BYTES;
    damage(file, pages * 3 / 4..pages);
}

/// A disk that damages what was just put in the place of a damaged database.
struct BadDisk(PathBuf);

impl<S: Subscriber> Layer<S> for BadDisk {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| text += &format!("{value:?}"));
        if text.contains("the inventory was damaged") {
            damage_the_end(&self.0);
        }
    }
}

/// One that is damaged again at once is not replaced again and again: each time a little more of it would be lost.
#[rstest]
#[case::met_by_opening(|file: &Path| damage(file, 0..1), false)]
#[case::met_by_reading(damage_the_end, false)]
#[case::met_by_opening_on_a_bad_disk(|file: &Path| damage(file, 0..1), true)]
#[case::met_by_reading_on_a_bad_disk(damage_the_end, true)]
#[tokio::test]
async fn a_damaged_inventory_is_replaced_at_once_and_once(#[case] spoil: fn(&Path), #[case] is_bad: bool) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    let before = custody(&dir);
    before.open(NOW).await.unwrap();
    let inventory = before.inventory().unwrap();
    let stored = pair(&["www.example.com"]).pem().stored();
    for number in 0..100_u8 {
        let new = NewCertificate {
            subject: DomainName::parse(&format!("n{number}.example.com")).unwrap(),
            tenant: None,
            role: Role::Own,
            provenance: Provenance::Acme,
            ca: "https://ca.example/directory".into(),
            facts: stored.facts.clone(),
            // Another leaf each, which nobody parses.
            chain: vec![[&*stored.chain[0], &[number]].concat().into()],
            sealed_key: vec![7; 1500].into(),
            at: NOW,
        };
        inventory.keep(&new).await.unwrap();
    }
    inventory.close().await;
    spoil(&file);
    let disk = is_bad.then(|| BadDisk(file.clone()));
    let _bad_disk = tracing::subscriber::set_default(tracing_subscriber::registry().with(disk));
    let custody = custody(&dir);
    let opened = custody.open(NOW).await;
    match opened {
        Ok(contents) => assert!(!is_bad && !contents.certificates.is_empty(), "what could be read is carried over"),
        Err(error) => assert!(is_bad && matches!(error, CustodyError::Store(StoreError::Damaged { .. })), "{error}"),
    }
    let aside = || {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.contains(".damaged-")).count()
    };
    assert_eq!(aside(), 1);
    if is_bad {
        assert!(custody.open(NOW).await.is_err());
        assert_eq!(aside(), 1, "a minute later");
        *custody.replaced_at.lock().unwrap() = Instant::now().checked_sub(REPLACE_PAUSE);
        assert!(custody.open(NOW).await.is_err());
        assert_eq!(aside(), 2, "an hour later");
    }
}

#[tokio::test]
async fn a_data_key_that_could_not_be_stored_seals_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let custody = custody(&dir);
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
