//! The certificates' database fails, or the process does: what is served goes on, and nothing is published that is not
//! stored (RELIABILITY 19, 20).

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lockgate::store::inventory::{FILE, Inventory};
use rstest::rstest;

use crate::estate::*;
use crate::harness::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Certificates stored for a name, as anybody sees them who reads beside the process.
fn stored(gate: &Lockgate, name: &str) -> usize {
    block_on(async {
        let inventory = Inventory::open_to_read(&gate.data_dir()).await.unwrap().unwrap();
        let found = inventory.certificates().await.unwrap();
        inventory.close().await;
        assert!(found.unusable.is_empty());
        found.certificates.iter().filter(|it| it.certificate.subject.as_str() == name).count()
    })
}

fn on_a_bad_disk(pki: &Pki, authority: &FaultCa) -> Setup {
    authority.set_now(utc(NOON));
    let setup = managed(pki, &[authority]).domain(SITE, Scripted::ok("hello")).uncertified().clock_stopped(NOON).disk();
    setup.expect_error("journal").expect_error("lockgate.db").expect_error(FILE).expect_error("database")
}

#[rstest]
#[case::full(Disk::full)]
#[case::read_only(Disk::read_only)]
#[case::broken(Disk::broken)]
fn while_nothing_can_be_stored_nothing_is_published_and_it_recovers(#[case] fail: fn(&Disk)) {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let gate = on_a_bad_disk(&pki, &authority).start();
    let own = await_own(&gate);
    fail(gate.disk());
    stop_at(&gate, &[&authority], utc(NOON) + 61 * DAY);
    gate.await_log(&["issuance_failed", SITE, FILE]);
    let asked = authority.requests().len();
    stop_at(&gate, &[&authority], utc(NOON) + 61 * DAY + 60);
    // SQLite is given time before it counts as failed.
    let limit = Duration::from_secs(30);
    let attempts = || gate.count_log(&["issuance_failed", SITE, FILE]);
    eventually_within(limit, "another attempt", || (attempts() > 1).then_some(()));
    assert_eq!(authority.requests().len(), asked, "what cannot be kept is not ordered");
    assert_eq!((gate.leaf(SITE), gate.get(SITE).text(), issued(&authority)), (own.clone(), "hello".to_owned(), 1));
    gate.disk().well();
    eventually_within(limit, "the renewal", || {
        gate.clock().advance(20);
        (gate.leaf(SITE) != own).then_some(())
    });
    assert_eq!((stored(&gate, SITE), issued(&authority), authority.accounts()), (2, 2, 1));
}

#[test]
fn a_disk_that_is_full_from_the_start_makes_one_account_and_no_certificate() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let mut gate = on_a_bad_disk(&pki, &authority).expect_error("kept certificates").start();
    let own = await_own(&gate);
    gate.stop();
    gate.disk().full();
    gate.start_again();
    assert_eq!((gate.leaf(SITE), gate.get(SITE).text()), (own.clone(), "hello".to_owned()));
    stop_at(&gate, &[&authority], utc(NOON) + 61 * DAY);
    let_it_look();
    assert_eq!((source(&gate, SITE), authority.orders().len()), ("own", 1));
    gate.disk().well();
    await_other(&gate, &own);
    assert_eq!((issued(&authority), authority.accounts()), (2, 1));
}

/// On a disk that takes nothing, whether the process before ended well or left a log.
#[rstest]
#[case::stopped(Lockgate::stop)]
#[case::killed(Lockgate::kill)]
fn a_start_on_a_read_only_file_system_serves_what_was_issued_and_issues_later(#[case] end: fn(&mut Lockgate)) {
    let Some(disk) = SmallDisk::mount("8m") else { return };
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    authority.set_now(utc(NOON));
    let setup = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("hello")).uncertified().clock_stopped(NOON);
    let setup = setup.keeping_on(&disk).expect_error("journal").expect_error("lockgate.db").expect_error(FILE);
    let mut gate = setup.expect_error("control.sock").start();
    let own = await_own(&gate);
    end(&mut gate);
    disk.remount("ro");
    gate.start_again();
    assert_eq!((gate.leaf(SITE), gate.get(SITE).text()), (own.clone(), "hello".to_owned()));
    gate.await_log(&["ERROR", "the inventory can only be read", "nothing is issued until it can be written", FILE]);
    // It is due, and nobody even asks for it.
    stop_at(&gate, &[&authority], utc(NOON) + 61 * DAY);
    let_it_look();
    assert_eq!((source(&gate, SITE), gate.leaf(SITE), authority.orders().len()), ("own", own.clone(), 1));
    assert_eq!(gate.count_log(&["issuance_failed"]), 0);
    disk.remount("rw");
    let renewed = await_other(&gate, &own);
    assert_eq!((issued(&authority), authority.accounts()), (2, 1));
    gate.kill();
    gate.start_again();
    assert_eq!((gate.leaf(SITE), authority.orders().len()), (renewed, 2));
    gate.kill();
}

#[test]
fn a_damaged_one_on_a_read_only_file_system_is_told_of_and_carried_over_later() {
    let Some(disk) = SmallDisk::mount("8m") else { return };
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let setup = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("hello")).uncertified().keeping_on(&disk);
    let setup = setup.expect_error("journal").expect_error("lockgate.db").expect_error("the inventory");
    let mut gate = setup.expect_error("control.sock").expect_error("damaged").start();
    let own = await_own(&gate);
    gate.stop();
    in_database(&gate, "PRAGMA wal_checkpoint(TRUNCATE)");
    let file = gate.data_dir().join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    bytes[..100].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    disk.remount("ro");
    gate.start_again();
    assert_eq!((gate.get(SITE).text(), source(&gate, SITE)), ("hello".to_owned(), "internal"));
    gate.await_log(&["ERROR", FILE, "is damaged", "only when its directory can be written", "fallbacks serve"]);
    disk.remount("rw");
    await_source(&gate, SITE, "own");
    assert_eq!((gate.leaf(SITE), authority.orders().len()), (own, 1));
    gate.await_log(&["the inventory was damaged"]);
    gate.kill();
}

/// At every call that the disk can fail in the course of an issuance.
#[test]
fn one_call_that_fails_costs_no_certificate() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let gate = on_a_bad_disk(&pki, &authority).start();
    let mut own = await_own(&gate);
    let mut now = utc(NOON);
    for n in (1..40).step_by(3) {
        gate.disk().fail_nth(n, rustix::io::Errno::IO);
        now += 61 * DAY;
        stop_at(&gate, &[&authority], now);
        let renewed = eventually("the renewal", || {
            stop_at(&gate, &[&authority], now);
            now += 20;
            Some(gate.leaf(SITE))
                .filter(|leaf| leaf.names == [SITE] && *leaf != own && leaf.not_before > own.not_before)
                .filter(|_| source(&gate, SITE) == "own")
        });
        own = renewed;
        gate.disk().well();
    }
    let issued = issued(&authority);
    assert!((14..=28).contains(&issued), "{issued}");
}

#[test]
fn a_disk_that_never_answers_does_not_hold_up_a_start() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let setup = managed(&pki, &[&authority]).domain(SITE, Scripted::ok("hello")).uncertified();
    let mut gate = setup.expect_error(FILE).start();
    let own = await_own(&gate);
    gate.stop();
    block_on(async {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gate.data_dir().join(FILE));
        let mut holder = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").execute(&mut holder).await.unwrap();
        let began = Instant::now();
        gate.start_again();
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        assert_eq!((gate.get(SITE).text(), source(&gate, SITE)), ("hello".to_owned(), "internal"));
        holder.close().await.unwrap();
    });
    eventually_within(Duration::from_secs(20), "its own certificate", || (source(&gate, SITE) == "own").then_some(()));
    assert_eq!((gate.leaf(SITE), authority.orders().len()), (own, 1));
}

/// Removed while the process runs, with or without all that lies beside it.
#[rstest]
#[case::alone(&[FILE, "certificates.db-wal", "certificates.db-shm"], Lockgate::kill)]
#[case::with_the_key(&[FILE, "certificates.db-wal", "certificates.db-shm", "vault.key"], Lockgate::kill)]
#[case::without_its_log(&[FILE], Lockgate::stop)]
fn a_file_that_was_deleted_is_made_anew_from_what_is_in_memory(
    #[case] deleted: &[&str],
    #[case] end: fn(&mut Lockgate),
) {
    let (pki, origin) = (Pki::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    let names: Vec<_> = (0..3).map(|n| format!("n{n}.lockgate.test")).collect();
    let setup =
        names.iter().fold(managed(&pki, &[&authority]), |setup, name| setup.domain(name, &origin).uncertified());
    let setup = setup.domain("internal.lockgate.test", &origin).uncertified().with("acme", "false");
    let mut gate = setup.expect_error(FILE).expect_error("inventory").start();
    names.iter().for_each(|name| await_source(&gate, name, "own"));
    let before: Vec<_> = names.iter().map(|name| gate.leaf(name)).collect();
    let internal = issuer(&gate, "internal.lockgate.test");
    deleted.iter().for_each(|file| _ = fs::remove_file(gate.data_dir().join(file)));
    gate.await_log(&["ERROR", "the inventory's file is gone"]);
    gate.await_log(&["WARN", "it was put back", "certificates=3"]);
    names.iter().for_each(|name| assert_eq!(stored(&gate, name), 1));
    // What comes later is kept as well.
    gate.rewrite(|setup| setup.domain(SITE, &origin).uncertified());
    assert_eq!(gate.reload().code, 0);
    let own = await_own(&gate);
    end(&mut gate);
    gate.start_again();
    assert_eq!(names.iter().map(|name| gate.leaf(name)).collect::<Vec<_>>(), before);
    assert_eq!((gate.leaf(SITE), issuer(&gate, "internal.lockgate.test")), (own, internal));
    assert_eq!((authority.orders().len(), authority.accounts()), (4, 1));
}

/// Every page but the first is garbage, which shows when something is written.
#[test]
fn one_that_is_damaged_while_the_process_runs_is_made_anew_from_what_is_in_memory() {
    let (pki, origin) = (Pki::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    authority.set_now(utc(NOON));
    let names: Vec<_> = (0..3).map(|n| format!("n{n}.lockgate.test")).collect();
    let setup =
        names.iter().fold(managed(&pki, &[&authority]), |setup, name| setup.domain(name, &origin).uncertified());
    let mut gate = setup.clock_stopped(NOON).expect_error(FILE).expect_error("inventory").start();
    names.iter().for_each(|name| await_source(&gate, name, "own"));
    let before: Vec<_> = names.iter().map(|name| gate.leaf(name)).collect();
    // A change by somebody else, so that the process reads anew what it had in memory.
    in_database(&gate, "UPDATE certificate SET kept_at = kept_at + 1; PRAGMA wal_checkpoint(TRUNCATE)");
    let file = fs::File::options().write(true).open(gate.data_dir().join(FILE)).unwrap();
    let garbage = vec![0x5a; file.metadata().unwrap().len() as usize - 8192];
    std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 8192).unwrap();
    gate.rewrite(|setup| setup.domain(SITE, &origin).uncertified());
    assert_eq!(gate.reload().code, 0);
    gate.await_log(&["ERROR", "the inventory is damaged"]);
    gate.await_log(&["WARN", "it was put back", "certificates=3"]);
    let mut now = utc(NOON);
    let own = eventually("a certificate of its own", || {
        now += 60;
        stop_at(&gate, &[&authority], now);
        (source(&gate, SITE) == "own").then(|| gate.leaf(SITE))
    });
    gate.kill();
    gate.start_again();
    assert_eq!(names.iter().map(|name| gate.leaf(name)).collect::<Vec<_>>(), before);
    assert_eq!(gate.leaf(SITE), own);
    assert_eq!((authority.orders().len(), authority.accounts()), (4, 1));
}

#[test]
fn what_is_left_of_a_damaged_one_is_carried_over() {
    let (pki, origin) = (Pki::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    let names: Vec<_> = (0..12).map(|n| format!("n{n}.lockgate.test")).collect();
    let setup =
        names.iter().fold(managed(&pki, &[&authority]), |setup, name| setup.domain(name, &origin).uncertified());
    let mut gate = setup.expect_error("damaged").expect_error("does not open").expect_error("cannot be used").start();
    names.iter().for_each(|name| await_source(&gate, name, "own"));
    let before: Vec<_> = names.iter().map(|name| gate.leaf(name)).collect();
    gate.stop();
    in_database(&gate, "PRAGMA wal_checkpoint(TRUNCATE)");
    let file = gate.data_dir().join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    // One page in which a certificate's key is: its last one.
    let pages = bytes.len() / 8192;
    let page = (2..pages)
        .rev()
        .find(|page| bytes[page * 8192] == 13 && bytes[page * 8192..][..8192].windows(5).any(|it| it == b"n1.lo"))
        .unwrap();
    bytes[page * 8192..][..64].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    gate.start_again();
    gate.await_log(&["the inventory was damaged"]);
    names.iter().for_each(|name| _ = gate.leaf(name));
    names.iter().for_each(|name| await_source(&gate, name, "own"));
    let same = names.iter().zip(&before).filter(|(name, before)| gate.leaf(name) == **before).count();
    assert!((1..12).contains(&same), "{same} of 12 were carried over");
    assert!(
        fs::read_dir(gate.data_dir()).unwrap().flatten().any(|it| it.file_name().to_string_lossy().contains("damaged"))
    );
}

#[test]
fn killed_again_and_again_while_it_issues() {
    let (pki, origin) = (Pki::new(), Scripted::ok("hello"));
    let authority = FaultCa::start(&pki);
    let names: Vec<_> = (0..6).map(|n| format!("n{n}.lockgate.test")).collect();
    let setup =
        names.iter().fold(managed(&pki, &[&authority]), |setup, name| setup.domain(name, &origin).uncertified());
    let mut gate = setup.start();
    for round in 0..8 {
        // At another place of an issuance each time.
        thread::sleep(Duration::from_millis(40 * round));
        gate.kill();
        gate.start_again();
    }
    names.iter().for_each(|name| await_source(&gate, name, "own"));
    for name in &names {
        assert_eq!(gate.leaf(name).names, std::slice::from_ref(name));
        // An order whose URL did not arrive is placed again, but only one of them is ever finalized: its URL is kept
        // before, and its key.
        let orders: Vec<_> = authority.orders().into_iter().filter(|order| order.names == [name.clone()]).collect();
        assert_eq!(orders.iter().filter(|order| order.is_issued).count(), 1, "{orders:?}");
        assert_eq!(stored(&gate, name), 1);
    }
    assert_eq!(authority.accounts(), 1);
    let output =
        run(std::process::Command::new("sqlite3").arg(gate.data_dir().join(FILE)).arg("PRAGMA integrity_check"));
    assert!(output.code != 0 || output.stdout.trim() == "ok", "{}", output.text());
}
