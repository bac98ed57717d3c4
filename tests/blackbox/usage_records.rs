//! Sealed records (SPEC 2): whatever was done to them, `lockgate usage verify` finds it, alone or against an export. They
//! are sealed by the store itself, without a process that takes days.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lockgate::clock::{Reading, UnixTime};
use lockgate::meter::Bucket;
use lockgate::store::{Fold, Seal, Store};
use lockgate::usage::{Calendar, DayRecord, Link};
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use crate::harness::*;

const SITE: &str = "www.example.test";

/// `lockgate usage` on a data_dir that nobody uses.
#[track_caller]
pub fn usage_in(data_dir: &Path, args: &[&str]) -> Output {
    run(Command::new(program()).arg("usage").args(args).arg("--data-dir").arg(data_dir))
}

/// A data_dir in which two domains have three sealed days each, and an export of it.
pub struct Books {
    pub dir: TempDir,
    export: PathBuf,
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

impl Books {
    pub fn new(format: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let export = dir.path().join(format!("export.{format}"));
        let books = Self { dir, export };
        fs::create_dir(books.data_dir()).unwrap();
        block_on(books.seal());
        let exported = books.usage(&["export", "--output", books.export.to_str().unwrap()]);
        assert_eq!(exported.code, 0, "{}", exported.text());
        books
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn seal(&self) {
        let now = UnixTime::from_secs(utc("2026-06-05 12:00:00"));
        let at = Reading { now, pass: 0 };
        let store = Store::open(&self.data_dir(), now).await.unwrap().store;
        let mut calendar = Calendar::new(jiff::tz::TimeZone::get("Asia/Shanghai").unwrap());
        store.fold(&[], at, "Asia/Shanghai").await.unwrap();
        for name in ["other.example.test", SITE] {
            for day in 1..=3 {
                let day = calendar.day(jiff::civil::date(2026, 6, day)).unwrap();
                let counts = vec![(Bucket(day.start.0 + 60), 120), (Bucket(day.start.0 + 90), 7)];
                let fold = Fold { name: Arc::from(name), state: Vec::new(), counts };
                let zone = "Asia/Shanghai".to_owned();
                let seal = Seal { fold, day, zone, limit_qps: Some(10), throttled_secs: 60, peak: None };
                assert_eq!(store.seal(&[seal], at).await.unwrap().len(), 1);
            }
        }
        store.close().await;
    }

    #[track_caller]
    pub fn usage(&self, args: &[&str]) -> Output {
        usage_in(&self.data_dir(), args)
    }

    /// Does something to the database that nobody should.
    fn tamper(&self, sql: &'static str) {
        let url = format!("sqlite://{}", self.data_dir().join("lockgate.db").display());
        block_on(async {
            let mut conn = SqliteConnection::connect(&url).await.unwrap();
            // So that the file itself has it: the tests read that, too.
            for sql in ["PRAGMA foreign_keys = OFF", sql, "PRAGMA wal_checkpoint(TRUNCATE)"] {
                sqlx::query(sql).execute(&mut conn).await.unwrap();
            }
            conn.close().await.unwrap();
        });
    }

    /// Gives the site's second day fewer requests, and all its records the hashes that follow.
    fn rebuild(&self) {
        let url = format!("sqlite://{}", self.data_dir().join("lockgate.db").display());
        block_on(async {
            let store = Store::open_to_read(&self.data_dir()).await.unwrap().unwrap();
            let chain = store.chain(SITE).await.unwrap().unwrap();
            store.close().await;
            let mut conn = SqliteConnection::connect(&url).await.unwrap();
            let mut head = Link::GENESIS;
            for mut record in chain.records {
                if record.seq == 2 {
                    record.facts.requests -= 100;
                }
                let record = DayRecord::seal(record.domain, record.facts, &head);
                head = record.link();
                sqlx::query(
                    "UPDATE day SET requests = $1, previous = $2, hash = $3
                     WHERE seq = $4 AND domain_id = (SELECT id FROM domain WHERE name = $5)",
                )
                .bind(record.facts.requests.cast_signed())
                .bind(record.previous.0.to_vec())
                .bind(record.hash.0.to_vec())
                .bind(record.seq.cast_signed())
                .bind(SITE)
                .execute(&mut conn)
                .await
                .unwrap();
            }
            sqlx::query("UPDATE domain SET head_hash = $1 WHERE name = $2")
                .bind(head.hash.0.to_vec())
                .bind(SITE)
                .execute(&mut conn)
                .await
                .unwrap();
            conn.close().await.unwrap();
        });
    }

    /// What `verify` finds, without and with the export.
    #[track_caller]
    fn found(&self) -> [Output; 2] {
        [self.usage(&["verify"]), self.usage(&["verify", "--against", self.export.to_str().unwrap()])]
    }
}

#[rstest]
#[case("csv")]
#[case("json")]
fn usage_that_nobody_touched_is_sound(#[case] format: &str) {
    let [alone, against] = Books::new(format).found();
    assert_eq!((alone.code, alone.stdout.as_str()), (0, "2 domains, 6 records: sound\n"));
    assert_eq!((against.code, against.stdout.as_str()), (0, "2 domains, 6 records: sound, and as exported\n"));
}

#[rstest]
#[case::requests(
    "UPDATE day SET requests = requests - 1 WHERE domain_id = 2 AND seq = 2",
    "record 2 of 2026-06-02 was changed"
)]
#[case::limit("UPDATE day SET limit_qps = NULL WHERE domain_id = 2 AND seq = 2", "record 2 of 2026-06-02 was changed")]
#[case::date("UPDATE day SET date = 'someday' WHERE domain_id = 2 AND seq = 2", "was changed")]
#[case::hash(
    "UPDATE day SET hash = zeroblob(32) WHERE domain_id = 2 AND seq = 2",
    "record 2 of 2026-06-02 was changed"
)]
#[case::removed("DELETE FROM day WHERE domain_id = 2 AND seq = 2", "record 2 was removed")]
#[case::first_removed("DELETE FROM day WHERE domain_id = 2 AND seq = 1", "record 1 was removed")]
#[case::last_removed("DELETE FROM day WHERE domain_id = 2 AND seq = 3", "record 3 was removed")]
#[case::all_removed("DELETE FROM day WHERE domain_id = 2", "records 1 to 3 were removed")]
#[case::head("UPDATE domain SET head_hash = zeroblob(32) WHERE id = 2", "record 3 of 2026-06-03 is not the one")]
#[case::moved("UPDATE day SET domain_id = 1, seq = 4 WHERE domain_id = 2 AND seq = 3", "record 3 was removed")]
fn usage_that_was_tampered_with_is_found(#[case] sql: &'static str, #[case] what: &str) {
    let books = Books::new("json");
    books.tamper(sql);
    for output in books.found() {
        assert_eq!(output.code, 1, "{}", output.text());
        let line = output.stdout.lines().find(|line| line.starts_with(SITE)).unwrap_or_default();
        assert!(line.contains(what), "{}", output.text());
        assert!(output.stdout.contains("flaw"), "{}", output.text());
    }
    let json: Value = serde_json::from_str(&books.usage(&["verify", SITE, "--json"]).stdout).unwrap();
    assert_eq!((&json["ok"], &json["flaws"][0]["domain"]), (&json!(false), &json!(SITE)));
}

#[rstest]
#[case("csv")]
#[case("json")]
fn usage_that_was_rebuilt_whole_shows_against_an_export(#[case] format: &str) {
    let books = Books::new(format);
    books.rebuild();
    let [alone, against] = books.found();
    assert_eq!(alone.code, 0, "{}", alone.text());
    assert_eq!(against.code, 1, "{}", against.text());
    let rebuilt = "is not the one that was exported: the chain was rebuilt since the export";
    let expected = format!(
        "{SITE}: record 2 of 2026-06-02 {rebuilt}\n{SITE}: record 3 of 2026-06-03 {rebuilt}\n\
         2 domains, 6 records: 2 flaws\n"
    );
    assert_eq!(against.stdout, expected);
}

#[rstest]
#[case::the_end_is_cut_off(
    "UPDATE domain SET head_seq = 2, head_hash = (SELECT hash FROM day WHERE domain_id = 2 AND seq = 2) WHERE id = 2",
    "DELETE FROM day WHERE domain_id = 2 AND seq = 3",
    "record 3 of 2026-06-03 is in the export, and was removed since"
)]
#[case::the_domain_is_gone(
    "DELETE FROM day WHERE domain_id = 2",
    "DELETE FROM domain WHERE id = 2",
    "is in the export, and nothing is known of it any more"
)]
fn usage_that_is_missing_without_a_trace_shows_against_an_export(
    #[case] first: &'static str,
    #[case] then: &'static str,
    #[case] what: &str,
) {
    let books = Books::new("csv");
    books.tamper(first);
    books.tamper(then);
    let [alone, against] = books.found();
    assert_eq!(alone.code, 0, "{}", alone.text());
    assert_eq!(against.code, 1, "{}", against.text());
    assert!(against.stdout.contains(&format!("{SITE}: {what}\n")), "{}", against.text());
    let one = books.usage(&["verify", SITE, "--against", books.export.to_str().unwrap()]);
    assert!(one.code == 1 && one.stdout.contains(what), "{}", one.text());
}

#[rstest]
#[case("csv", ",127,60,", ",27,60,")]
#[case("json", "\"requests\":127", "\"requests\":27")]
fn usage_exports_that_were_edited_are_named(#[case] format: &str, #[case] from: &str, #[case] to: &str) {
    let books = Books::new(format);
    let text = fs::read_to_string(&books.export).unwrap();
    fs::write(&books.export, text.replacen(from, to, 1)).unwrap();
    let [_, against] = books.found();
    assert_eq!(against.code, 1, "{}", against.text());
    let edited = "other.example.test: record 1 of 2026-06-01 was edited in the export";
    assert!(against.stdout.starts_with(edited), "{}", against.text());
}

#[test]
fn usage_shows_a_byte_that_was_flipped_in_the_file() {
    let books = Books::new("csv");
    let file = books.data_dir().join("lockgate.db");
    let mut bytes = fs::read(&file).unwrap();
    let text = b"2026-06-02Asia/Shanghai";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("the text of a record");
    bytes[at + text.len() - 1] ^= 1;
    fs::write(&file, bytes).unwrap();
    let [alone, _] = books.found();
    assert_eq!(alone.code, 1, "{}", alone.text());
    assert!(alone.stdout.contains("record 2 of 2026-06-02 was changed"), "{}", alone.text());
    assert!(alone.stdout.ends_with("2 domains, 6 records: 1 flaw\n"), "{}", alone.text());
}

#[rstest]
#[case::show(&["show"])]
#[case::export(&["export"])]
#[case::verify(&["verify"])]
fn usage_of_a_damaged_database_fails_and_leaves_it_alone(#[case] args: &[&str]) {
    let books = Books::new("csv");
    let file = books.data_dir().join("lockgate.db");
    let garbage = noise(fs::metadata(&file).unwrap().len() as usize, 7);
    fs::write(&file, &garbage).unwrap();
    let output = books.usage(args);
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(output.stderr.contains("lockgate.db is damaged"), "{}", output.text());
    assert_eq!(fs::read(&file).unwrap(), garbage);
}
