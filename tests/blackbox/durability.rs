//! What was metered outlives the process (SPEC 2): restarts, crashes, days that end while nobody is there.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lockgate::clock::UnixTime;
use lockgate::meter::Bucket;
use lockgate::store::{FILE, Store};
use lockgate::usage::DayRecord;
use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

fn basic(origin: impl ToOrigin) -> Setup {
    Lockgate::serving(SITE, origin).plan("basic").clock_stopped(NOON)
}

/// Longer than a count takes to the journal: what arrived before this is in it.
fn let_the_journal_have_it() {
    thread::sleep(Duration::from_secs(1));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The database as anybody sees it who reads it beside the process.
fn stored<T>(gate: &Lockgate, ask: impl AsyncFnOnce(&Store) -> T) -> Option<T> {
    block_on(async {
        let store = Store::open_to_read(&gate.data_dir()).await.ok()??;
        let answer = ask(&store).await;
        store.close().await;
        Some(answer)
    })
}

fn records(gate: &Lockgate) -> Vec<DayRecord> {
    let chain = stored(gate, async |store| store.chain(SITE).await.ok().flatten()).flatten();
    chain
        .map(|chain| {
            assert_eq!(chain.flaws(), []);
            chain.records
        })
        .unwrap_or_default()
}

/// Waits for so many records: (date, peak count, requests, throttled seconds).
#[track_caller]
fn await_records(gate: &Lockgate, count: usize) -> Vec<(String, u64, u64, u64)> {
    let records =
        eventually(&format!("{count} records"), || Some(records(gate)).filter(|records| records.len() == count));
    let row = |r: &DayRecord| (r.facts.date.to_string(), r.facts.peak_count, r.facts.requests, r.facts.throttled_secs);
    records.iter().map(row).collect()
}

/// Requests stored for a name, by bucket's first second.
fn series(gate: &Lockgate) -> Vec<(UnixTime, u64)> {
    let all = stored(gate, async |store| store.series(SITE, Bucket(0), Bucket(1 << 40)).await.ok()).flatten();
    all.unwrap_or_default().into_iter().map(|(bucket, count)| (bucket.start(), count)).collect()
}

#[test]
fn a_process_killed_in_mid_bucket_goes_on_in_it() {
    let mut gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, SITE, 150);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.get_many(SITE, 90);
    let_the_journal_have_it();
    gate.kill();
    gate.start_again();
    let metrics = gate.metrics();
    assert_eq!(metrics.get("lockgate_domain_throttled", &DOMAIN), Some(1.0), "the verdict stands at once");
    assert_eq!(metrics.get("lockgate_domain_peak_qps", &DOMAIN), Some(15.0));
    assert!(gate.get_many(SITE, 80).contains(&429));
    assert_eq!(gate.count_log(&["qps_throttled"]), 0, "nobody is told again");
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 17.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 17.0);
    let noon = utc(NOON);
    eventually("both buckets in the store", || {
        (series(&gate) == [(UnixTime::from_secs(noon), 150), (UnixTime::from_secs(noon + 10), 170)]).then_some(())
    });
}

#[rstest]
#[case::killed(Lockgate::kill)]
#[case::stopped(Lockgate::stop)]
fn a_bucket_that_a_restart_cuts_in_two_is_judged_by_its_sum(#[case] end: fn(&mut Lockgate)) {
    let mut gate = basic(Scripted::ok("")).start();
    for count in [50, 30, 31] {
        gate.get_many(SITE, count);
        let_the_journal_have_it();
        end(&mut gate);
        gate.start_again();
    }
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 11.1);
}

#[test]
fn a_clock_set_back_while_the_process_was_down_makes_it_another_visit() {
    let mut gate = basic(Scripted::ok("")).start();
    gate.get_many(SITE, 60);
    gate.clock().advance(30);
    gate.get_many(SITE, 1);
    let_the_journal_have_it();
    gate.kill();
    gate.clock().advance(-30);
    gate.start_again();
    gate.get_many(SITE, 55);
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 6.0);
}

#[test]
fn a_stopped_process_leaves_nothing_to_replay() {
    let mut gate = basic(Scripted::ok("")).start();
    gate.get_many(SITE, 42);
    gate.stop();
    let journal = fs::read_dir(gate.data_dir().join("journal")).map(|dir| dir.count()).unwrap_or(0);
    assert_eq!(journal, 0, "the database has it all");
    gate.start_again();
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 4.2);
}

#[test]
fn a_kill_under_load_costs_less_than_a_second() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("")).clock_stopped(NOON).start();
    for round in 1..=3 {
        let mut connection = gate.connect(SITE);
        let mut answered = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1700) {
            assert_eq!(connection.get("/").status, 200);
            answered.push(Instant::now());
            thread::sleep(Duration::from_millis(3));
        }
        let killed = Instant::now();
        gate.kill();
        let kept = answered.iter().filter(|at| killed.duration_since(**at) > Duration::from_secs(1)).count();
        gate.start_again();
        gate.clock().advance(10);
        let closed = eventually("the closed bucket", || Some(series(&gate)).filter(|all| all.len() == round));
        let counted = closed[round - 1].1 as usize;
        assert!((kept..=answered.len()).contains(&counted), "{counted} of {}, {kept} due", answered.len());
    }
}

#[test]
fn a_day_that_ends_is_sealed_and_what_comes_late_amends_it() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped("2026-06-01 23:59:40").start();
    fill_bucket(&gate, SITE, 115);
    fill_bucket(&gate, SITE, 20);
    let first = ("2026-06-01".to_owned(), 115, 135, 10);
    assert_eq!(await_records(&gate, 1), std::slice::from_ref(&first));
    assert_eq!(records(&gate)[0].facts.limit_qps, Some(10));
    // The clock is set back over midnight, where more arrives than there was.
    gate.clock().stop_at("2026-06-01 23:59:50");
    gate.get_many(SITE, 30);
    gate.clock().stop_at("2026-06-02 00:00:10");
    let amended = ("2026-06-01".to_owned(), 115, 145, 10);
    assert_eq!(await_records(&gate, 2), [first, amended]);
    gate.stop();
    gate.start_again();
    let_the_journal_have_it();
    assert_eq!(records(&gate).len(), 2, "a restart seals nothing twice");
}

#[test]
fn days_missed_while_nobody_was_there_are_sealed_at_start_and_idle_ones_leave_none() {
    let mut gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, SITE, 50);
    let_the_journal_have_it();
    gate.kill();
    gate.clock().stop_at("2026-06-05 08:00:00");
    gate.start_again();
    assert_eq!(await_records(&gate, 1), [("2026-06-01".to_owned(), 50, 50, 0)]);
    fill_bucket(&gate, SITE, 3);
    gate.clock().stop_at("2026-06-06 00:00:00");
    assert_eq!(await_records(&gate, 2)[1], ("2026-06-05".to_owned(), 3, 3, 0));
}

#[rstest]
#[case::spring("2026-03-28 23:30:00", 23)]
#[case::autumn("2026-10-24 22:30:00", 25)]
fn a_day_of_another_length_is_one_record(#[case] begin: &str, #[case] hours: i64) {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").set("timezone", "'Europe/Berlin'");
    let gate = setup.clock_stopped(begin).start();
    fill_bucket(&gate, SITE, 120);
    // To the last bucket of the day, an hour early or late by the clock's count of hours.
    gate.clock().advance(hours * 3600 - 1800 - 30);
    fill_bucket(&gate, SITE, 5);
    assert_eq!(records(&gate), []);
    gate.clock().advance(10);
    let [(_, peak, requests, throttled)] = &await_records(&gate, 1)[..] else { panic!() };
    // The day began half an hour before the first request.
    assert_eq!((*peak, *requests), (120, 125));
    assert_eq!(*throttled, (hours as u64 * 3600 - 1800 - 10).min(86_400));
}

#[test]
fn a_domain_that_comes_back_after_a_restart_finds_its_window() {
    let origin = Scripted::ok("");
    let mut gate = basic(&origin).domain("other.example.test", &origin).start();
    fill_bucket(&gate, SITE, 115);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.reconfigure(|setup| setup.without_domain(SITE));
    let_the_journal_have_it();
    gate.kill();
    gate.start_again();
    gate.reconfigure(|setup| setup.domain(SITE, &origin).plan("basic"));
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 11.5);
}

#[test]
fn a_verdict_ends_when_it_would_have_although_nobody_was_there() {
    let mut gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, SITE, 115);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    let_the_journal_have_it();
    gate.kill();
    gate.clock().stop_at("2026-06-02 12:00:09");
    gate.start_again();
    assert_eq!(gate.metric("lockgate_domain_throttled", &DOMAIN), Some(1.0));
    gate.kill();
    gate.clock().stop_at("2026-06-02 12:00:10");
    gate.start_again();
    assert_eq!(gate.metric("lockgate_domain_throttled", &DOMAIN), Some(0.0));
}

#[test]
fn another_zone_after_a_restart_counts_from_now_on() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("")).clock_stopped("2026-06-01 15:00:00").start();
    fill_bucket(&gate, SITE, 50);
    gate.clock().stop_at("2026-06-01 17:00:00");
    fill_bucket(&gate, SITE, 20);
    let_the_journal_have_it();
    gate.kill();
    // In Shanghai it has been 2 June since 16:00 UTC.
    gate.rewrite(|setup| setup.set("timezone", "'Asia/Shanghai'"));
    gate.start_again();
    assert_eq!(gate.metric("lockgate_domain_peak_qps", &DOMAIN), Some(2.0));
    let ended = [("2026-06-01".to_owned(), 50, 50, 0)];
    assert_eq!(await_records(&gate, 1), ended, "the zone's own 1 June is over, and has what arrived in it");
}

#[rstest]
#[case::garbage(|database: &[u8]| vec![0x5a; database.len()])]
#[case::empty_pages(|database: &[u8]| [&database[..100], &vec![0; database.len() - 100][..]].concat())]
fn a_damaged_database_is_set_aside_and_replaced(#[case] damage: fn(&[u8]) -> Vec<u8>) {
    let mut gate = basic(Scripted::ok("")).expect_error("database").start();
    fill_bucket(&gate, SITE, 50);
    let_the_journal_have_it();
    gate.stop();
    let file = gate.data_dir().join(FILE);
    fs::write(&file, damage(&fs::read(&file).unwrap())).unwrap();
    gate.start_again();
    gate.await_log(&["lockgate.db.damaged-"]);
    fill_bucket(&gate, SITE, 30);
    eventually("counts in the new database", || (series(&gate).len() == 1).then_some(()));
    let names: Vec<_> = fs::read_dir(gate.data_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("lockgate.db.damaged-")), "{names:?}");
}

#[test]
fn a_database_of_a_newer_lockgate_is_not_touched() {
    let mut gate = basic(Scripted::ok("")).start();
    gate.stop();
    let file = gate.data_dir().join(FILE);
    block_on(async {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let before = fs::read(&file).unwrap();
    let output = lockgate(&["run", "-c", gate.config_file().to_str().unwrap()]);
    assert_eq!((output.code, fs::read(&file).unwrap() == before), (1, true));
    assert!(output.text().contains("newer Lockgate"), "{}", output.text());
}

#[test]
fn a_database_that_another_process_holds_keeps_nobody_waiting() {
    let mut gate = basic(Scripted::ok("")).expect_error("database").start();
    fill_bucket(&gate, SITE, 150);
    let_the_journal_have_it();
    gate.stop();
    let file = gate.data_dir().join(FILE);
    let began = Instant::now();
    let released = block_on(async {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut holder = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").execute(&mut holder).await.unwrap();
        gate.start_again();
        assert_eq!(gate.get_many(SITE, 3), [200; 3]);
        holder.close().await.unwrap();
        began.elapsed()
    });
    assert!(released < Duration::from_secs(6), "{released:?}");
    // What it remembered is taken in as soon as it can be read.
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 15.0);
}
