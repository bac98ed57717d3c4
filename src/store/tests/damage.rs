//! Databases that are older, newer, or no databases at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rstest::rstest;

use super::*;

/// What stands in a directory, in order.
fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// A closed database with something in it.
async fn closed() -> TempDir {
    let world = World::new().await;
    let folds: Vec<_> = (0..2000).map(|n| fold(&format!("n{n}"), &[(1, 5)])).collect();
    world.store.fold(&folds, at(JUNE), UTC).await.unwrap();
    world.store.close().await;
    assert_eq!(files(world.dir.path()), [FILE]);
    world.dir
}

#[tokio::test]
async fn an_empty_file_is_brought_up_to_date_but_not_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    let refused = Store::open_to_read(dir.path()).await;
    assert!(matches!(refused, Err(StoreError::Older(_))), "{refused:?}");
    let store = open(dir.path()).await;
    store.fold(&[fold("a", &[(1, 1)])], at(JUNE), UTC).await.unwrap();
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let dir = closed().await;
    tamper(dir.path(), "PRAGMA user_version = 1000").await;
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let refused = Store::open(dir.path(), JUNE).await;
    assert!(matches!(refused, Err(StoreError::Newer(_))), "{refused:?}");
    let refused = Store::open_to_read(dir.path()).await;
    assert!(matches!(refused, Err(StoreError::Newer(_))), "{refused:?}");
    assert!(before == fs::read(dir.path().join(FILE)).unwrap());
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let dir = closed().await;
    let path = dir.path().join(FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = open(dir.path()).await;
    for file in files(dir.path()) {
        assert_eq!(dir.path().join(&file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[rstest]
#[case::garbage(|path: &Path| fs::write(path, "this is no database ".repeat(999)).unwrap())]
#[case::a_few_bytes(|path: &Path| fs::write(path, "not much").unwrap())]
#[case::truncated(|path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(8192).unwrap())]
#[case::header(|path: &Path| flip(path, 3))]
#[case::schema(|path: &Path| flip(path, 100))]
#[case::tables(|path: &Path| overwrite_tables(path))]
#[case::log(|path: &Path| fs::create_dir(path.with_extension("db-wal")).unwrap())]
#[tokio::test]
async fn a_damaged_database_is_set_aside_and_replaced(#[case] damage: fn(&Path)) {
    let dir = closed().await;
    let path = dir.path().join(FILE);
    damage(&path);
    let damaged = fs::read(&path).unwrap();
    let refused = Store::open_to_read(dir.path()).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");

    let opened = Store::open(dir.path(), JUNE).await.unwrap();
    let aside = dir.path().join("lockgate.db.damaged-20260601T000000Z");
    assert_eq!(opened.set_aside.as_ref(), Some(&aside));
    assert!(fs::read(&aside).unwrap() == damaged);
    opened.store.fold(&[fold("a", &[(1, 1)])], at(JUNE), UTC).await.unwrap();
    assert_eq!(opened.store.names().await.unwrap().len(), 1);
    opened.store.close().await;
    open(dir.path()).await;
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

fn overwrite_tables(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    // What stands behind the first page's schema.
    bytes[4096..].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_was_set_aside_before_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in ["first", "second", "third"] {
        fs::write(dir.path().join(FILE), garbage.repeat(999)).unwrap();
        Store::open(dir.path(), JUNE).await.unwrap().store.close().await;
    }
    let aside = "lockgate.db.damaged-20260601T000000Z";
    let names = [FILE.to_owned(), aside.to_owned(), format!("{aside}-2"), format!("{aside}-3")];
    assert_eq!(files(dir.path()), names);
    assert!(fs::read_to_string(dir.path().join(aside)).unwrap().starts_with("first"));
}

#[tokio::test]
async fn a_log_with_damaged_content_costs_only_what_it_said() {
    let dir = closed().await;
    fs::write(dir.path().join("lockgate.db-wal"), "no log ".repeat(9999)).unwrap();
    assert_eq!(open(dir.path()).await.names().await.unwrap().len(), 2000);
}

#[tokio::test]
async fn damage_that_is_met_later_is_told_apart_and_the_database_can_be_replaced() {
    let dir = closed().await;
    let store = Store::open(dir.path(), JUNE).await.unwrap().store;
    overwrite_tables(&dir.path().join(FILE));
    let refused = store.fold(&[fold("a", &[(1, 1)])], at(JUNE), UTC).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    store.close().await;
    let replaced = Store::replace(dir.path(), JUNE).await.unwrap();
    assert!(replaced.set_aside.is_some());
    replaced.store.fold(&[fold("a", &[(1, 1)])], at(JUNE), UTC).await.unwrap();
}

#[tokio::test]
async fn replacing_nothing_sets_nothing_aside() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Store::replace(dir.path(), JUNE).await.unwrap().set_aside, None);
    let missing = Store::open(&dir.path().join("missing"), JUNE).await;
    assert!(matches!(missing, Err(StoreError::Unavailable { .. })), "{missing:?}");
}
