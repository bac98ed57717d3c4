//! What is written when, and what is kept until it was: on real files, for a harvest that says what a test wants.

use std::collections::VecDeque;
use std::fs;
use std::sync::PoisonError;

use prometheus::Registry;
use tempfile::TempDir;
use tokio::time::sleep;

use super::*;
use crate::clock::Reading;
use crate::journal::{self, Entry};
use crate::meter::Bucket;
use crate::store::{FILE, Fold, Seal, Store};
use crate::upkeep::harvest::Status;

/// 2026-06-01T00:00:00Z.
const JUNE: UnixTime = UnixTime::from_secs(1_780_272_000);
/// How often the harvest is asked how things stand until whatever was due when it was asked first was done.
const LOOKS: usize = 4;

/// What plays the harvest. It gives one fold at a time.
struct Accounts {
    closed_by: i64,
    zone: &'static str,
    changes: Vec<Entry>,
    waiting: VecDeque<(u64, Fold)>,
    taken: Vec<Fold>,
    next_ticket: u64,
    seals: Vec<Seal>,
    resumed: Vec<Past>,
    looks: usize,
}

impl Accounts {
    fn wait(&mut self, fold: Fold) {
        self.waiting.push_back((self.next_ticket, fold));
        self.next_ticket += 1;
    }

    fn status(&self) -> Status {
        Status {
            now: reading(),
            closed_by: Some(Bucket(self.closed_by)),
            is_trusted: false,
            zone: self.zone.to_owned(),
            unsaved: self.waiting.len(),
            oldest: self.waiting.front().map(|(ticket, _)| *ticket),
            next: self.next_ticket,
            backlog: 0,
            given_up: 0,
            to_seal: self.seals.len(),
        }
    }

    fn run(&mut self, errand: Errand) {
        match errand {
            Errand::Changes(reply) => _ = reply.send(std::mem::take(&mut self.changes)),
            Errand::Status(reply) => {
                self.looks += 1;
                _ = reply.send(self.status());
            }
            Errand::Folds(_, reply) => {
                let folds: Vec<_> = self.waiting.pop_front().into_iter().map(|(_, fold)| fold).collect();
                self.taken.extend(folds.clone());
                _ = reply.send(folds);
            }
            Errand::Seals(_, reply) => _ = reply.send(std::mem::take(&mut self.seals)),
            Errand::SaveAll => std::mem::take(&mut self.taken).into_iter().for_each(|fold| self.wait(fold)),
            Errand::Resume(past) => self.resumed.push(*past),
        }
    }
}

/// A recorder at work.
struct World {
    dir: TempDir,
    accounts: Arc<Mutex<Accounts>>,
    recording: Recording,
    _retention: watch::Sender<Retention>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Beginning::begin(dir.path(), JUNE).recorder().await.unwrap();
        Self::of(dir, recorder).await
    }

    async fn of(dir: TempDir, recorder: Recorder) -> Self {
        let (ask, mut asked) = mpsc::channel(8);
        let (waiting, taken, changes, seals) = (VecDeque::new(), Vec::new(), Vec::new(), Vec::new());
        let resumed = Vec::new();
        let accounts =
            Accounts { closed_by: 0, zone: "UTC", changes, waiting, taken, next_ticket: 0, seals, resumed, looks: 0 };
        let accounts = Arc::new(Mutex::new(accounts));
        let played = Arc::clone(&accounts);
        tokio::spawn(async move {
            while let Some(errand) = asked.recv().await {
                played.lock().unwrap_or_else(PoisonError::into_inner).run(errand);
            }
        });
        let (retention, retained) = watch::channel(Retention::default());
        let gauges = Gauges::register(&Registry::new()).unwrap();
        let recording = recorder.start(ask, Arc::new(Clock::default()), retained, gauges);
        let world = Self { dir, accounts, recording, _retention: retention };
        world.let_be_done().await;
        world
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap()
    }

    /// One request of a name is counted, and the journal has it.
    async fn journal(&self, name: &str) {
        self.accounts().changes.push(entry(name));
        self.until("the journal has it", async || !self.journaled().is_empty()).await;
    }

    /// The buckets before `by` close, and what is due is stored.
    async fn close(&self, by: i64) {
        self.accounts().closed_by = by;
        self.let_be_done().await;
    }

    async fn let_be_done(&self) {
        let looks = self.accounts().looks;
        self.until("it is looked for work", async || self.accounts().looks >= looks + LOOKS).await;
    }

    fn journaled(&self) -> Vec<Entry> {
        journal::replay(self.dir.path()).map(|replay| replay.entries).unwrap_or_default()
    }

    /// The names that are stored, and the zone.
    async fn stored(&self) -> (Vec<String>, Option<String>) {
        stored(self.dir.path()).await
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so().await {
            assert!(Instant::now() < deadline, "{what}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn stored(dir: &Path) -> (Vec<String>, Option<String>) {
    let Ok(Some(store)) = Store::open_to_read(dir).await else { return (Vec::new(), None) };
    let names = store.names().await.unwrap().iter().map(ToString::to_string).collect();
    let zone = store.remembered().await.unwrap().zone;
    store.close().await;
    (names, zone)
}

fn reading() -> Reading {
    Reading { now: JUNE, pass: 7 }
}

fn entry(name: &str) -> Entry {
    Entry { name: name.into(), bucket: Bucket::of(JUNE), pass: 7, count: 1 }
}

fn fold(name: &str) -> Fold {
    Fold { name: name.into(), state: vec![1], counts: vec![(Bucket::of(JUNE), 1)] }
}

#[tokio::test]
async fn a_file_of_the_journal_is_kept_until_the_store_has_all_that_it_says() {
    let world = World::new().await;
    world.journal("a").await;
    ["a", "b"].into_iter().for_each(|name| world.accounts().wait(fold(name)));
    world.close(10).await;
    assert_eq!((world.stored().await.0, world.journaled()), (vec!["a".to_owned()], vec![entry("a")]));
    // Also when the clock went back.
    world.close(5).await;
    assert_eq!((world.stored().await.0.len(), world.journaled()), (2, vec![]));
}

#[tokio::test]
async fn another_zone_is_stored_when_all_accounts_are_stored_in_it() {
    let world = World::new().await;
    let mut zones = Vec::new();
    for (by, names) in [(1, vec!["a"]), (2, vec!["b", "c"]), (3, vec![]), (4, vec!["d"])] {
        names.into_iter().for_each(|name| world.accounts().wait(fold(name)));
        world.close(by).await;
        zones.push(world.stored().await.1.unwrap());
        world.accounts().zone = "Asia/Shanghai";
    }
    assert_eq!(zones, ["UTC", "UTC", "UTC", "Asia/Shanghai"]);
}

#[tokio::test]
async fn a_database_that_was_removed_is_made_anew_and_gets_everything_before_the_journal_loses_it() {
    let world = World::new().await;
    world.journal("a").await;
    ["a", "b"].into_iter().for_each(|name| world.accounts().wait(fold(name)));
    world.close(1).await;
    for file in ["", "-wal", "-shm"] {
        _ = fs::remove_file(world.dir.path().join(format!("{FILE}{file}")));
    }
    world.close(2).await;
    world.until("all are asked for again", async || world.accounts().waiting.len() == 2).await;
    world.until("what was in hand is stored", async || world.stored().await.0 == ["b"]).await;
    world.close(3).await;
    assert_eq!((world.stored().await.0.len(), world.journaled()), (2, vec![entry("a")]), "one still waits");
    world.close(4).await;
    assert_eq!(world.journaled(), []);
}

#[tokio::test]
async fn the_last_thing_is_to_store_and_to_seal() {
    let world = World::new().await;
    let day = crate::usage::Calendar::new(jiff::tz::TimeZone::UTC).today(JUNE);
    let seal = Seal { fold: fold("b"), day, zone: "UTC".to_owned(), limit_qps: None, throttled_secs: 0, peak: None };
    {
        let mut accounts = world.accounts();
        accounts.changes.push(entry("a"));
        accounts.wait(fold("a"));
        accounts.seals.push(seal);
    }
    let World { dir, recording, .. } = world;
    recording.finish(Duration::from_secs(10)).await;
    let store = Store::open_to_read(dir.path()).await.unwrap().unwrap();
    assert_eq!(store.names().await.unwrap().len(), 2);
    assert_eq!(store.chain("b").await.unwrap().unwrap().records.len(), 1);
    store.close().await;
    assert_eq!(journal::replay(dir.path()).unwrap().entries, []);
}

#[tokio::test]
async fn what_the_journal_did_not_take_it_takes_later() {
    let world = World::new().await;
    let directory = world.dir.path().join("journal");
    _ = fs::remove_dir_all(&directory);
    fs::write(&directory, "no directory").unwrap();
    world.accounts().changes.push(entry("a"));
    world.until("it is tried", async || world.accounts().changes.is_empty()).await;
    sleep(Duration::from_millis(100)).await;
    fs::remove_file(&directory).unwrap();
    world.until("it has it", async || world.journaled() == [entry("a")]).await;
}

#[tokio::test]
async fn a_start_has_the_journals_clock_and_sets_aside_what_it_could_not_read() {
    let dir = tempfile::tempdir().unwrap();
    Journal::new(dir.path(), None).append(reading(), &[entry("a")]).unwrap();
    let damaged = dir.path().join("journal").join("000000000002.log");
    fs::write(&damaged, "this is no journal").unwrap();
    let mut recorder = Beginning::begin(dir.path(), JUNE).recorder().await.unwrap();
    assert_eq!(recorder.last_reading(), Some(reading()));
    assert_eq!(recorder.take_past().entries, [entry("a")]);
    assert!(!damaged.exists() && damaged.with_extension("log.damaged").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_read_late_is_taken_in_before_anything_is_appended_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    Journal::new(dir.path(), None).append(reading(), &[entry("before")]).unwrap();
    let mut recorder = Beginning::begin(dir.path(), JUNE).recorder().await.unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let directory = dir.path().to_owned();
    recorder.journal = Err(spawn_blocking(move || {
        _ = released.recv();
        ledger::read_journal(&directory)
    }));
    let world = World::of(dir, recorder).await;
    world.accounts().changes.push(entry("since"));
    world.accounts().wait(fold("since"));
    world.close(10).await;
    assert_eq!(world.journaled(), [entry("before")], "neither appended to nor removed");
    release.send(()).unwrap();
    world.until("it goes on", async || world.journaled() == [entry("before"), entry("since")]).await;
    let resumed: Vec<_> = world.accounts().resumed.iter().flat_map(|past| past.entries.clone()).collect();
    assert_eq!(resumed, [entry("before")]);
    world.accounts().wait(fold("before"));
    world.close(20).await;
    world.until("the store has all of it", async || world.journaled().is_empty()).await;
}
