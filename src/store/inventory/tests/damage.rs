//! Databases that are newer, damaged, or no databases at all.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;

/// Enough for many pages: at most four to a page.
const CERTIFICATES: u32 = 200;
const ASIDE: &str = "certificates.db.damaged-20270115T080000Z";

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// A closed database with something of everything in it.
async fn closed() -> TempDir {
    let world = World::new().await;
    fill(&world.inventory).await;
    world.inventory.close().await;
    assert_eq!(files(world.path()), [FILE]);
    world.dir
}

async fn fill(inventory: &Inventory) {
    for n in 0..CERTIFICATES {
        let mut new = numbered(n);
        new.sealed_key = vec![7; 1500].into();
        inventory.keep(&new).await.unwrap();
    }
    inventory.add_data_key(&data_key(1)).await.unwrap();
    inventory.put_secret(&secret("root")).await.unwrap();
    inventory.put_account(&account(None)).await.unwrap();
    inventory.begin_order(&order("example.com", Role::Own)).await.unwrap();
    inventory.note_attempts(&attempts("example.com", Role::Own)).await.unwrap();
}

/// What of it is there; certificates by their number.
async fn contents(inventory: &Inventory) -> (usize, Vec<usize>) {
    let certificates = inventory.certificates().await.unwrap();
    assert_eq!(certificates.unusable, []);
    let others = [
        inventory.data_keys().await.unwrap() == [data_key(1)],
        inventory.secret("root").await.unwrap() == Some(secret("root")),
        inventory.accounts().await.unwrap() == [account(None)],
        inventory.orders().await.unwrap() == [(OrderId(1), order("example.com", Role::Own))],
        inventory.attempts().await.unwrap() == [attempts("example.com", Role::Own)],
    ];
    let lost = others.iter().zip(0..).filter(|(is_there, _)| !**is_there).map(|(_, n)| n).collect();
    (certificates.certificates.len(), lost)
}

/// Takes away what the first version did not have.
const OLDER: &str = "ALTER TABLE attempts DROP COLUMN held_off; ALTER TABLE account DROP COLUMN contact;
    PRAGMA user_version = 1";

/// As it was before authorities that want to be left alone were kept, and what they were told.
async fn closed_older() -> TempDir {
    let dir = closed().await;
    tamper(dir.path(), OLDER).await;
    dir
}

/// Fills pages with garbage; the first one is 1. Negative: counted from the end.
fn overwrite(path: &Path, pages: impl IntoIterator<Item = u64>) {
    let file = fs::File::options().write(true).open(path).unwrap();
    for page in pages {
        file.write_all_at(&[0xa5; 8192], (page - 1) * 8192).unwrap();
    }
}

fn pages(path: &Path) -> u64 {
    path.metadata().unwrap().len() / 8192
}

/// Pages of the table of certificates that hold rows, in the order of the rows.
async fn leaf_pages(dir: &Path) -> Vec<u64> {
    let mut conn = connect(dir).await;
    let sql = "SELECT pageno FROM dbstat WHERE name = 'certificate' AND pagetype = 'leaf' ORDER BY path";
    let pages: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    pages.into_iter().map(|page| page as u64).collect()
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let dir = closed().await;
    tamper(dir.path(), "PRAGMA user_version = 1000").await;
    let before = fs::read(dir.path().join(FILE)).unwrap();
    let refused = Inventory::open(dir.path(), NOW).await;
    assert!(matches!(refused, Err(StoreError::Newer(_))), "{refused:?}");
    assert_eq!(files(dir.path()), [FILE]);
    let refused = Inventory::open_to_read(dir.path()).await;
    assert!(matches!(refused, Err(StoreError::Newer(_))), "{refused:?}");
    assert!(before == fs::read(dir.path().join(FILE)).unwrap());
}

#[rstest]
#[case::sound(None, CERTIFICATES as usize)]
#[case::first_page(Some("sqlite_schema"), CERTIFICATES as usize)]
#[case::a_row(Some("certificate"), CERTIFICATES as usize - 4)]
#[tokio::test]
async fn an_older_database_is_brought_up_to_date(#[case] damaged: Option<&str>, #[case] least: usize) {
    let dir = closed_older().await;
    let refused = Inventory::open_to_read(dir.path()).await;
    assert!(matches!(refused, Err(StoreError::Older(_))), "{refused:?}");
    match damaged {
        Some("sqlite_schema") => overwrite(&dir.path().join(FILE), [1]),
        Some(_) => overwrite(&dir.path().join(FILE), leaf_pages(dir.path()).await.get(20).copied()),
        None => {}
    }
    let inventory = open_and_read(dir.path()).await.inventory;
    // Of what is compared, accounts and what failed are others: nobody was noted to want to be left alone, or to know
    // whom to write to.
    let (certificates, lost) = contents(&inventory).await;
    assert!(certificates >= least && lost == [2, 4], "{certificates} {lost:?}");
    assert_eq!(inventory.accounts().await.unwrap(), [Account { contact: String::new(), ..account(None) }]);
    let mut kept = attempts("example.com", Role::Own);
    kept.held_off.clear();
    assert_eq!(inventory.attempts().await.unwrap(), [kept]);
    inventory.note_attempts(&attempts("example.com", Role::Own)).await.unwrap();
    inventory.put_account(&account(None)).await.unwrap();
    assert!(contents(&inventory).await.1.is_empty());
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let dir = closed().await;
    fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
    let inventory = open(dir.path()).await;
    inventory.put_secret(&secret("another")).await.unwrap();
    assert_eq!(files(dir.path()), [FILE, "certificates.db-shm", "certificates.db-wal"]);
    for file in files(dir.path()) {
        assert_eq!(dir.path().join(&file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

/// Opens it as the program does, which reads all certificates at once.
async fn open_and_read(dir: &Path) -> OpenedInventory {
    let opened = Inventory::open(dir, NOW).await.unwrap();
    match opened.inventory.certificates().await {
        Err(StoreError::Damaged { .. }) => {
            opened.inventory.close().await;
            Inventory::replace(dir, NOW).await.unwrap()
        }
        _ => opened,
    }
}

/// Opens it, and says what was salvaged; what was damaged is where it was put, untouched and private.
async fn salvaged(dir: &Path) -> (usize, Vec<usize>) {
    let damaged = fs::read(dir.join(FILE)).unwrap();
    let refused = match Inventory::open_to_read(dir).await {
        Ok(inventory) => inventory.unwrap().certificates().await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(refused, Some(StoreError::Damaged { .. })), "{refused:?}");
    let opened = open_and_read(dir).await;
    assert_eq!(opened.set_aside, Some(dir.join(ASIDE)));
    assert!(fs::read(dir.join(ASIDE)).unwrap() == damaged);
    let contents = contents(&opened.inventory).await;
    assert!(opened.salvaged_rows >= contents.0 as u64);
    // It is used like any other.
    let id = opened.inventory.keep(&numbered(1000)).await.unwrap();
    opened.inventory.close().await;
    for file in files(dir) {
        assert_eq!(dir.join(&file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert!(files(dir).iter().all(|file| file == FILE || file.starts_with(ASIDE)), "{:?}", files(dir));
    let again = open(dir).await;
    assert!(again.certificate(id).await.unwrap().is_some());
    again.close().await;
    contents
}

#[rstest]
#[case::header(|path: &Path| overwrite_start(path, 100))]
#[case::magic(|path: &Path| overwrite_start(path, 16))]
#[case::page_size(|path: &Path| overwrite_start(path, 18))]
#[case::first_page(|path: &Path| overwrite(path, [1]))]
#[case::schema(|path: &Path| overwrite_start(path, 300))]
#[tokio::test]
async fn nothing_is_lost_with_the_first_page(#[case] damage: fn(&Path)) {
    let dir = closed().await;
    damage(&dir.path().join(FILE));
    assert_eq!(salvaged(dir.path()).await, (CERTIFICATES as usize, vec![]));
}

fn overwrite_start(path: &Path, bytes: usize) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(&vec![0xa5; bytes], 0).unwrap();
}

#[rstest]
#[case::one(&[20], 4)]
#[case::neighbours(&[20, 21, 22], 12)]
#[case::apart(&[3, 20, 40], 12)]
#[case::first(&[0], 4)]
#[case::last(&[usize::MAX], 4)]
#[case::both_ends(&[0, usize::MAX], 8)]
#[tokio::test]
async fn only_rows_on_damaged_pages_are_lost(#[case] damaged: &[usize], #[case] lost_max: usize) {
    let dir = closed().await;
    let leaves = leaf_pages(dir.path()).await;
    overwrite(&dir.path().join(FILE), damaged.iter().map(|n| *leaves.get(*n).unwrap_or(leaves.last().unwrap())));
    let (certificates, lost) = salvaged(dir.path()).await;
    assert!(lost.is_empty(), "{lost:?}");
    let least = CERTIFICATES as usize - lost_max;
    assert!((least..CERTIFICATES as usize).contains(&certificates), "{certificates}");
}

#[tokio::test]
async fn what_stands_before_the_end_of_a_truncated_file_is_kept() {
    let dir = closed().await;
    let path = dir.path().join(FILE);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(pages(&path) / 2 * 8192 + 100).unwrap();
    let (certificates, lost) = salvaged(dir.path()).await;
    assert!(certificates > CERTIFICATES as usize / 3, "{certificates}");
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn what_only_the_log_holds_is_salvaged_too() {
    let dir = closed().await;
    let inventory = open(dir.path()).await;
    for n in 0..5 {
        inventory.keep(&numbered(1000 + n)).await.unwrap();
    }
    // As a process leaves it that was killed.
    let killed = tempfile::tempdir().unwrap();
    for file in [FILE, "certificates.db-wal"] {
        fs::copy(dir.path().join(file), killed.path().join(file)).unwrap();
    }
    inventory.close().await;
    let leaves = leaf_pages(dir.path()).await;
    overwrite(&killed.path().join(FILE), [leaves[20]]);
    let opened = open_and_read(killed.path()).await;
    assert!(opened.set_aside.is_some());
    assert!(contents(&opened.inventory).await.0 > CERTIFICATES as usize);
    assert!(opened.inventory.certificate(CertificateId(i64::from(CERTIFICATES) + 5)).await.unwrap().is_some());
}

#[rstest]
#[case("data_key")]
#[case("data_key_copy")]
#[case("issuer")]
#[case("issuer_copy")]
#[case("secret")]
#[case("secret_copy")]
#[tokio::test]
async fn what_all_depend_on_outlives_the_loss_of_its_page(#[case] table: &str) {
    let dir = closed().await;
    let mut conn = connect(dir.path()).await;
    let sql = "SELECT pageno FROM dbstat WHERE name = $1";
    let damaged: Vec<i64> = sqlx::query_scalar(sql).bind(table).fetch_all(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    overwrite(&dir.path().join(FILE), damaged.into_iter().map(|page| page as u64));
    assert_eq!(salvaged(dir.path()).await, (CERTIFICATES as usize, vec![]));
}

#[rstest]
#[case::garbage(|path: &Path| fs::write(path, "this is no database ".repeat(9999)).unwrap())]
#[case::a_few_bytes(|path: &Path| fs::write(path, "not much").unwrap())]
#[case::all_pages(|path: &Path| overwrite(path, 1..=pages(path)))]
#[tokio::test]
async fn where_nothing_can_be_read_it_begins_anew(#[case] damage: fn(&Path)) {
    let dir = closed().await;
    damage(&dir.path().join(FILE));
    assert_eq!(salvaged(dir.path()).await, (0, vec![0, 1, 2, 3, 4]));
}

#[tokio::test]
async fn numbers_of_rows_that_were_lost_are_not_used_again() {
    let dir = closed().await;
    let leaves = leaf_pages(dir.path()).await;
    overwrite(&dir.path().join(FILE), leaves.last().copied());
    let opened = open_and_read(dir.path()).await;
    assert_eq!(opened.inventory.keep(&numbered(1000)).await.unwrap(), CertificateId(i64::from(CERTIFICATES) + 1));
}

#[tokio::test]
async fn damage_that_is_met_later_is_told_apart_and_the_database_can_be_replaced() {
    let dir = closed().await;
    let inventory = open(dir.path()).await;
    let leaves = leaf_pages(dir.path()).await;
    overwrite(&dir.path().join(FILE), [leaves[9]]);
    assert_eq!(inventory.standing().await, Standing::Sound);
    let refused = inventory.certificates().await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert_eq!(inventory.standing().await, Standing::Damaged);
    inventory.close().await;
    let replaced = Inventory::replace(dir.path(), NOW).await.unwrap();
    assert_eq!(replaced.set_aside, Some(dir.path().join(ASIDE)));
    assert!(contents(&replaced.inventory).await.0 > CERTIFICATES as usize - 5);
}

#[tokio::test]
async fn a_sound_database_that_is_replaced_loses_nothing() {
    let dir = closed().await;
    let replaced = Inventory::replace(dir.path(), NOW).await.unwrap();
    assert_eq!(contents(&replaced.inventory).await, (CERTIFICATES as usize, vec![]));
    assert_eq!(replaced.salvaged_rows, u64::from(CERTIFICATES) + 6);
}

#[tokio::test]
async fn what_was_complete_when_the_process_ended_is_put_in_place() {
    let dir = closed().await;
    // Between the two names that a replacement changes.
    fs::rename(dir.path().join(FILE), dir.path().join("certificates.db.salvaged")).unwrap();
    assert_eq!(contents(&open(dir.path()).await).await, (CERTIFICATES as usize, vec![]));
}

#[tokio::test]
async fn what_was_not_complete_is_not_even_where_nothing_else_is() {
    let dir = closed().await;
    fs::rename(dir.path().join(FILE), dir.path().join("certificates.db.salvaging")).unwrap();
    assert_eq!(open(dir.path()).await.certificates().await.unwrap().certificates.len(), 0);
}

#[tokio::test]
async fn what_was_not_complete_is_not() {
    let dir = closed().await;
    fs::write(dir.path().join("certificates.db.salvaging"), "half").unwrap();
    fs::write(dir.path().join("certificates.db.salvaged"), "half").unwrap();
    fs::write(dir.path().join("certificates.db.copy-wal"), "half").unwrap();
    overwrite(&dir.path().join(FILE), [1]);
    assert_eq!(salvaged(dir.path()).await, (CERTIFICATES as usize, vec![]));
}

/// The files of a process that was killed: what was kept last is in the log alone.
async fn killed() -> TempDir {
    let dir = closed().await;
    let inventory = open(dir.path()).await;
    inventory.keep(&numbered(1000)).await.unwrap();
    let killed = tempfile::tempdir().unwrap();
    for file in [FILE, "certificates.db-wal"] {
        fs::copy(dir.path().join(file), killed.path().join(file)).unwrap();
    }
    inventory.close().await;
    killed
}

/// Reads it as it stands, and sees that nothing was changed.
async fn still(dir: &Path) -> (usize, Vec<usize>) {
    let bytes = || files(dir).into_iter().map(|file| (fs::read(dir.join(&file)).unwrap(), file)).collect::<Vec<_>>();
    let before = bytes();
    let inventory = Inventory::open_still(dir).await.unwrap().unwrap();
    let found = contents(&inventory).await;
    assert!(inventory.keep(&numbered(2000)).await.is_err());
    assert!(bytes() == before, "beside the open one: {:?}", files(dir));
    inventory.close().await;
    assert!(bytes() == before, "afterwards: {:?}", files(dir));
    found
}

#[tokio::test]
async fn one_that_cannot_be_written_is_read_as_it_stands() {
    assert!(Inventory::open_still(tempfile::tempdir().unwrap().path()).await.unwrap().is_none());
    assert_eq!(still(closed().await.path()).await, (CERTIFICATES as usize, vec![]));
    assert_eq!(still(killed().await.path()).await, (CERTIFICATES as usize + 1, vec![]));
    let emptied = closed().await;
    fs::write(emptied.path().join("certificates.db-wal"), "").unwrap();
    assert_eq!(still(emptied.path()).await, (CERTIFICATES as usize, vec![]));
}

#[tokio::test]
async fn an_older_one_that_cannot_be_written_is_read_as_far_as_it_goes() {
    let dir = closed_older().await;
    let inventory = Inventory::open_still(dir.path()).await.unwrap().unwrap();
    assert_eq!(inventory.certificates().await.unwrap().certificates.len(), CERTIFICATES as usize);
    assert_eq!(inventory.data_keys().await.unwrap(), [data_key(1)]);
    assert_eq!(inventory.secret("root").await.unwrap(), Some(secret("root")));
    assert!(inventory.attempts().await.is_err(), "they were noted otherwise then");
}

#[rstest]
#[case::the_fresh_one("certificates.db.salvaging/full")]
#[case::the_journal_of_the_fresh_one("certificates.db.salvaging-journal/full")]
#[case::the_copy_that_is_read("certificates.db.copy/full")]
#[tokio::test]
async fn one_that_is_damaged_where_nothing_can_be_written_is_left_alone_and_read_beside_the_damage(
    #[case] in_the_way: &str,
) {
    let dir = closed().await;
    let mut conn = connect(dir.path()).await;
    let index: i64 =
        sqlx::query_scalar("SELECT pageno FROM dbstat WHERE name = 'issuer_copy'").fetch_one(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    overwrite(&dir.path().join(FILE), [index as u64]);
    let damaged = fs::read(dir.path().join(FILE)).unwrap();
    // In the way of what is carried over.
    let in_the_way = dir.path().join(in_the_way);
    fs::create_dir_all(&in_the_way).unwrap();
    let refused = Inventory::open(dir.path(), NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unsalvaged { .. }) && refused.is_for_writing(), "{refused:?}");
    assert!(fs::read(dir.path().join(FILE)).unwrap() == damaged, "another is in its place");
    assert!(files(dir.path()).iter().all(|file| !file.starts_with(ASIDE)), "{:?}", files(dir.path()));
    fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    assert_eq!(still(dir.path()).await, (CERTIFICATES as usize, vec![]));
}

/// What a process goes on with after its file was removed is put back under the old numbers.
#[tokio::test]
async fn what_was_in_a_file_that_is_gone_is_put_back() {
    let world = World::new().await;
    for n in 0..1200 {
        world.keep(&numbered(n)).await;
    }
    world.inventory.note_ari(CertificateId(7), None, NOW).await.unwrap();
    let known = world.inventory.certificates().await.unwrap().certificates;
    for file in files(world.path()) {
        fs::remove_file(world.path().join(file)).unwrap();
    }
    assert_eq!(world.inventory.standing().await, Standing::Gone);
    assert!(world.inventory.keep(&numbered(1)).await.is_err());
    let world = world.reopened().await;
    assert_eq!((world.inventory.standing().await, world.ids().await), (Standing::Sound, vec![]));
    assert_eq!(world.inventory.restore(&known, NOW).await.unwrap(), 1200);
    let restored = world.inventory.certificates().await.unwrap().certificates;
    assert_eq!(format!("{restored:?}"), format!("{known:?}"));
    assert_eq!(world.inventory.restore(&known, NOW).await.unwrap(), 0);
    // Numbers go on.
    assert_eq!(world.keep(&numbered(2000)).await, CertificateId(1201));
    let OrderId(order) = world.inventory.begin_order(&order("example.com", Role::Own)).await.unwrap();
    assert!(order > NOW.secs(), "{order}");
}
