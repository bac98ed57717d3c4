//! Disks that fail and come back.

use std::fs;

use super::*;

#[tokio::test]
async fn a_call_that_fails_half_way_stores_nothing_of_it() {
    let world = World::new().await;
    world.fold("a", &[(1, 1)]).await;
    world
        .tamper("CREATE TRIGGER fail BEFORE INSERT ON series WHEN NEW.hour = 10 BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    let folds = [fold("a", &[(2, 2)]), fold("new", &[(3, 3)]), fold("b", &[(3600, 1)])];
    let failed = world.store.fold(&folds, at(JUNE.plus_secs(1)), "Asia/Shanghai").await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    assert_eq!(world.series("a").await, [(1, 1)]);
    assert_eq!(world.store.names().await.unwrap(), [Arc::<str>::from("a")]);
    assert_eq!(world.store.remembered().await.unwrap().zone.as_deref(), Some(UTC));

    // Another name takes the id that was rolled back, and nothing is mixed up.
    world.tamper("DROP TRIGGER fail").await;
    world.fold("other", &[(7, 7)]).await;
    world.store.fold(&folds, at(JUNE), UTC).await.unwrap();
    assert_eq!(world.series("new").await, [(3, 3)]);
    assert_eq!(world.series("other").await, [(7, 7)]);
}

#[tokio::test]
async fn a_day_that_cannot_be_sealed_leaves_nothing_behind() {
    let world = World::new().await;
    world.tamper("CREATE TRIGGER fail BEFORE INSERT ON day BEGIN SELECT RAISE(ABORT, 'no'); END").await;
    let mut seal = seal("a", UTC, "2026-06-01");
    seal.fold = fold("a", &[(seal.day.start.0, 5)]);
    world.store.seal(std::slice::from_ref(&seal), at(JUNE)).await.unwrap_err();
    assert_eq!(world.store.names().await.unwrap(), []);
    world.tamper("DROP TRIGGER fail").await;
    assert_eq!(world.store.seal(&[seal], at(JUNE)).await.unwrap().len(), 1);
    assert_eq!(world.store.chain("a").await.unwrap().unwrap().flaws(), []);
}

#[tokio::test]
async fn a_database_that_vanishes_is_unavailable_until_it_is_back() {
    let world = World::new().await;
    world.fold("a", &[(1, 1)]).await;
    let moved = world.dir.path().join("moved");
    fs::rename(world.dir.path().join(FILE), &moved).unwrap();
    for _ in 0..3 {
        let failed = world.store.fold(&[fold("a", &[(2, 2)])], at(JUNE), UTC).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
        world.store.names().await.unwrap_err();
    }
    fs::rename(&moved, world.dir.path().join(FILE)).unwrap();
    world.fold("a", &[(3, 3)]).await;
    assert_eq!(world.series("a").await, [(1, 1), (3, 3)]);
}

#[tokio::test]
async fn a_database_that_is_replaced_by_another_gives_its_own_ids() {
    let world = World::new().await;
    world.fold("a", &[(1, 1)]).await;
    let other = World::new().await;
    other.fold("b", &[(2, 2)]).await;
    other.store.close().await;
    fs::remove_file(world.dir.path().join("lockgate.db-wal")).unwrap();
    fs::remove_file(world.dir.path().join("lockgate.db-shm")).unwrap();
    fs::rename(other.dir.path().join(FILE), world.dir.path().join(FILE)).unwrap();
    world.fold("a", &[(3, 3)]).await;
    assert_eq!(world.series("a").await, [(3, 3)]);
    assert_eq!(world.series("b").await, [(2, 2)]);
}

#[tokio::test]
async fn a_store_that_could_not_grow_goes_on_when_there_is_room() {
    let world = World::new().await;
    world.fold("a", &[(1, 1)]).await;
    world.tamper("CREATE TRIGGER full BEFORE INSERT ON state BEGIN SELECT RAISE(ROLLBACK, 'full'); END").await;
    // As on a full disk, SQLite ends the transaction by itself.
    for _ in 0..3 {
        let failed = world.store.fold(&[fold("b", &[(2, 2)])], at(JUNE), UTC).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    }
    world.tamper("DROP TRIGGER full").await;
    world.fold("b", &[(2, 2)]).await;
    assert_eq!(world.series("b").await, [(2, 2)]);
}

#[tokio::test]
async fn a_call_that_is_given_up_holds_nobody_else_up() {
    let world = World::new().await;
    let folds: Vec<_> = (0..3000).map(|n| fold(&format!("n{n}"), &[(1, 1)])).collect();
    for patience in [0, 1, 2, 5, 10, 20] {
        let patience = std::time::Duration::from_millis(patience);
        _ = tokio::time::timeout(patience, world.store.fold(&folds, at(JUNE), UTC)).await;
        world.fold("a", &[(1, 1)]).await;
    }
    let names = world.store.names().await.unwrap().len();
    assert!(names == 1 || names == 3001, "{names}");
}

/// Verbs are carried out by tasks that move between threads.
#[test]
fn verbs_may_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    fn check(store: &'static Store) {
        is_send(store.fold(&[], at(JUNE), UTC));
        is_send(store.seal(&[], at(JUNE)));
        is_send(store.trim(Hour(0), civil::Date::MIN, 1));
        is_send(store.series("a", Bucket(0), Bucket(1)));
        is_send(Store::open(Path::new(""), JUNE));
    }
    _ = check;
}
