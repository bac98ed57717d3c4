//! Certificates read before it is known who may write.

use super::*;

fn ids(dir: &Path) -> Option<(Vec<i64>, Glance)> {
    let (ids, unusable, glance) = Glance::take(dir, |stored| stored.id.0)?;
    assert_eq!(unusable, []);
    Some((ids, glance))
}

#[tokio::test]
async fn what_was_read_ahead_holds_until_somebody_writes() {
    let world = World::new().await;
    world.keep(&numbered(1)).await;
    world.keep(&numbered(2)).await;
    let (read, glance) = ids(world.path()).unwrap();
    assert!(read == [1, 2] && glance.holds());
    // Opened again, and read: nothing is changed by that.
    let world = world.reopened().await;
    assert!(world.ids().await == [1, 2] && glance.holds());
    world.inventory.revoke(CertificateId(1), NOW).await.unwrap();
    assert!(!glance.holds());
}

#[tokio::test]
async fn what_was_read_of_another_file_does_not_hold() {
    let world = World::new().await;
    world.keep(&numbered(1)).await;
    let (_, glance) = ids(world.path()).unwrap();
    let file = world.path().join(FILE);
    std::fs::rename(&file, world.path().join("aside")).unwrap();
    assert!(!glance.holds());
    std::fs::copy(world.path().join("aside"), &file).unwrap();
    assert!(!glance.holds());
}

#[tokio::test]
async fn what_is_not_there_or_of_another_schema_is_not_read_ahead() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ids(dir.path()).is_none() && std::fs::read_dir(dir.path()).unwrap().next().is_none());
    let world = World::new().await;
    world.tamper("PRAGMA user_version = 1").await;
    assert!(ids(world.path()).is_none());
}
