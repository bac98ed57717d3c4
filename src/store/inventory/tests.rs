//! Every rule of the inventory, on real files, through its verbs. Raw SQL only plays the part of whoever damages it.

mod ahead;
mod damage;
mod hostile;

use std::path::Path;
use std::sync::LazyLock;

use rstest::rstest;
use rustls_pki_types::CertificateDer;
use sqlx::Connection as _;
use tempfile::TempDir;

use super::*;
use crate::certificate::facts_of;
use crate::certificate::fixture::{DAY, NOW, Pair, pair};
use crate::name::TenantId;

const CA: &str = "https://ca.example/directory";

/// An inventory in a directory of its own.
struct World {
    dir: TempDir,
    inventory: Inventory,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let inventory = open(dir.path()).await;
        Self { dir, inventory }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn keep(&self, new: &NewCertificate) -> CertificateId {
        self.inventory.keep(new).await.unwrap()
    }

    /// The numbers of the certificates that can be used.
    async fn ids(&self) -> Vec<i64> {
        let all = self.inventory.certificates().await.unwrap();
        assert_eq!(all.unusable, []);
        all.certificates.iter().map(|certificate| certificate.id.0).collect()
    }

    async fn one(&self, id: CertificateId) -> StoredCertificate {
        self.inventory.certificate(id).await.unwrap().unwrap()
    }

    /// Carries out SQL as somebody else would.
    async fn tamper(&self, sql: &str) {
        tamper(self.path(), sql).await;
    }

    async fn count(&self, table: &str) -> i64 {
        let mut conn = connect(self.path()).await;
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
    }

    /// Closed and opened again.
    async fn reopened(self) -> Self {
        self.inventory.close().await;
        let inventory = open(self.path()).await;
        Self { inventory, ..self }
    }
}

async fn open(dir: &Path) -> Inventory {
    let opened = Inventory::open(dir, NOW).await.unwrap();
    assert_eq!((opened.set_aside, opened.salvaged_rows), (None, 0));
    opened.inventory
}

async fn connect(dir: &Path) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(FILE));
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

async fn tamper(dir: &Path, sql: &str) {
    let mut conn = connect(dir).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// A chain of two: making one takes long, and all may share it.
static CHAIN: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| chain_of(&pair(&["www.example.com"]).chain().0));

fn chain_of(pair: &Pair) -> Vec<CertificateDer<'static>> {
    pair.parse().chain()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// A certificate over ACME, as its own leaf says.
fn genuine() -> NewCertificate {
    NewCertificate {
        subject: name("www.example.com"),
        tenant: TenantId::new("a tenant"),
        role: Role::Own,
        provenance: Provenance::Acme,
        ca: CA.into(),
        facts: facts_of(&CHAIN[0]).unwrap(),
        chain: CHAIN.clone(),
        sealed_key: b"sealed".as_slice().into(),
        at: NOW,
    }
}

/// The `n`th of many, whose leaf nobody parses.
fn numbered(n: u32) -> NewCertificate {
    let mut new = genuine();
    new.subject = name(&format!("www.customer{n}.example"));
    new.facts.names = [new.subject.clone()].into();
    new.chain[0] = [&*CHAIN[0], &n.to_le_bytes()].concat().into();
    new
}

/// Another of a subject and role, which ends so many days from now.
fn ending(n: u32, subject: &str, role: Role, days: i64) -> NewCertificate {
    let mut new = NewCertificate { subject: name(subject), role, ..numbered(n) };
    new.facts.not_after = NOW.plus_secs(days * DAY);
    new
}

fn order(subject: &str, role: Role) -> Order {
    Order {
        subject: name(subject),
        role,
        ca: CA.into(),
        url: "https://ca.example/order/1".into(),
        names: vec![name(subject), name("*.example.org"), name("2001:db8::1")],
        sealed_key: None,
        placed_at: NOW,
    }
}

fn attempts(subject: &str, role: Role) -> Attempts {
    Attempts {
        subject: name(subject),
        role,
        failures: 3,
        first_at: NOW,
        last_at: NOW.plus_secs(20),
        next_at: NOW.plus_secs(620),
        ca: CA.into(),
        problem: "urn:ietf:params:acme:error:caa: \u{1f}\nno".into(),
        advice: "set a CAA record".into(),
        held_off: vec![
            HeldOff { ca: CA.into(), until: NOW.plus_secs(3600) },
            HeldOff { ca: "https://other.example/acme?a=1".into(), until: UnixTime::from_secs(-1) },
        ],
    }
}

fn data_key(id: u32) -> WrappedKey {
    WrappedKey { id, wrapped_by: "aabb".into(), wrapped: vec![9; 60], made_at: NOW }
}

fn account(eab_kid: Option<&str>) -> Account {
    Account {
        ca: CA.into(),
        eab_kid: eab_kid.map(str::to_owned),
        url: "https://ca.example/account/1".into(),
        sealed_key: b"sealed".as_slice().into(),
        made_at: NOW,
        contact: "ops@example.com".to_owned(),
    }
}

fn secret(name: &str) -> Secret {
    Secret { name: name.into(), sealed: b"sealed".as_slice().into(), public: b"\0\x1f\xff".as_slice().into() }
}

fn is_refused<T: std::fmt::Debug>(done: Result<T, StoreError>) -> String {
    match done {
        Err(StoreError::Refused { reason, .. }) => reason,
        done => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn a_certificate_is_read_as_it_was_kept() {
    let world = World::new().await;
    let (genuine, mut other) = (genuine(), numbered(1));
    other.tenant = None;
    other.role = Role::Standby;
    other.provenance = Provenance::Uploaded;
    other.ca = "".into();
    other.chain.truncate(1);
    other.sealed_key = b"\x1f\0".as_slice().into();
    for new in [&genuine, &other] {
        let id = world.keep(new).await;
        let kept = world.one(id).await;
        assert_eq!(format!("{:?}", kept.certificate), format!("{new:?}"));
        assert_eq!((kept.id, kept.revoked_at, kept.ari), (id, None, None));
    }
    let world = world.reopened().await;
    let all = world.inventory.certificates().await.unwrap();
    let all: Vec<_> = all.certificates.iter().map(|kept| format!("{:?}", kept.certificate)).collect();
    assert_eq!(all, [format!("{genuine:?}"), format!("{other:?}")]);
    assert!(world.inventory.certificate(CertificateId(99)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_certificate_that_is_kept_again_keeps_its_number_and_takes_the_new_chain_and_key() {
    let world = World::new().await;
    let mut new = genuine();
    new.chain.truncate(1);
    let id = world.keep(&new).await;
    world.inventory.revoke(id, NOW).await.unwrap();
    let again = NewCertificate {
        sealed_key: b"sealed anew".as_slice().into(),
        tenant: TenantId::new("another"),
        role: Role::Standby,
        subject: name("example.org"),
        at: NOW.plus_secs(5),
        ..genuine()
    };
    for _ in 0..2 {
        assert_eq!(world.keep(&again).await, id);
    }
    let kept = world.one(id).await;
    assert_eq!((kept.certificate.chain.len(), &*kept.certificate.sealed_key), (2, b"sealed anew".as_slice()));
    assert_eq!(kept.revoked_at, Some(NOW));
    assert_eq!(
        (kept.certificate.tenant, kept.certificate.role, kept.certificate.subject),
        (new.tenant, new.role, new.subject)
    );
    assert_eq!(world.count("certificate").await, 1);
}

#[rstest]
#[case::acme(Provenance::Acme, 1)]
#[case::uploaded(Provenance::Uploaded, 2)]
#[tokio::test]
async fn keeping_ends_the_order_and_the_failures_of_that_subject_and_role(
    #[case] provenance: Provenance,
    #[case] orders: usize,
) {
    let world = World::new().await;
    for role in [Role::Own, Role::Standby] {
        world.inventory.begin_order(&order("www.example.com", role)).await.unwrap();
        world.inventory.note_attempts(&attempts("www.example.com", role)).await.unwrap();
    }
    world.inventory.note_attempts(&attempts("example.org", Role::Own)).await.unwrap();
    world.keep(&NewCertificate { provenance, ..genuine() }).await;
    assert_eq!(world.inventory.orders().await.unwrap().len(), orders);
    let left = world.inventory.attempts().await.unwrap();
    let left: Vec<_> = left.iter().map(|of| (of.subject.as_str(), of.role)).collect();
    assert_eq!(left, [("example.org", Role::Own), ("www.example.com", Role::Standby)]);
}

#[rstest]
#[case("certificate", "INSERT")]
#[case("issuer", "INSERT")]
#[case("acme_order", "DELETE")]
#[case("attempts", "DELETE")]
#[tokio::test]
async fn a_certificate_is_kept_with_all_that_belongs_to_it_or_not_at_all(#[case] table: &str, #[case] when: &str) {
    let world = World::new().await;
    world.inventory.begin_order(&order("www.example.com", Role::Own)).await.unwrap();
    world.inventory.note_attempts(&attempts("www.example.com", Role::Own)).await.unwrap();
    world.tamper(&format!("CREATE TRIGGER fail BEFORE {when} ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")).await;
    let failed = world.inventory.keep(&genuine()).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    for (table, rows) in [("certificate", 0), ("issuer", 0), ("acme_order", 1), ("attempts", 1)] {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
    world.tamper("DROP TRIGGER fail").await;
    world.keep(&genuine()).await;
    for (table, rows) in [("certificate", 1), ("issuer", 1), ("acme_order", 0), ("attempts", 0)] {
        assert_eq!(world.count(table).await, rows, "{table}");
    }
}

#[rstest]
#[case::no_leaf(|new: &mut NewCertificate| new.chain.clear(), "there is no certificate in the chain")]
#[case::long(|new: &mut NewCertificate| new.chain = vec![new.chain[1].clone(); 33], "the chain has 33 certificates")]
#[case::issuer(|new: &mut NewCertificate| new.chain[1] = b"garbage".to_vec().into(), "an issuer is no certificate")]
#[case::large(|new: &mut NewCertificate| new.sealed_key = vec![0; CERTIFICATE_BYTES_MAX].into(), "octets with its key, more than 262144")]
#[tokio::test]
async fn what_could_not_be_read_again_is_not_kept(#[case] change: fn(&mut NewCertificate), #[case] reason: &str) {
    let world = World::new().await;
    let mut new = genuine();
    change(&mut new);
    let refused = is_refused(world.inventory.keep(&new).await);
    assert!(refused.contains(reason), "{refused}");
    assert_eq!(world.count("certificate").await, 0);
}

#[tokio::test]
async fn what_the_authority_says_of_renewal_replaces_what_it_said() {
    let world = World::new().await;
    let id = world.keep(&genuine()).await;
    let window = Window { start: NOW.plus_secs(-5), end: NOW.plus_secs(5) };
    for window in [Some(window), None] {
        let next_at = NOW.plus_secs(60);
        world.inventory.note_ari(id, window, next_at).await.unwrap();
        assert_eq!(world.one(id).await.ari, Some(Ari { window, next_at }));
    }
    world.inventory.note_ari(CertificateId(99), Some(window), NOW).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_revoked_once() {
    let world = World::new().await;
    let id = world.keep(&genuine()).await;
    for at in [NOW, NOW.plus_secs(9)] {
        world.inventory.revoke(id, at).await.unwrap();
        assert_eq!(world.one(id).await.revoked_at, Some(NOW));
    }
    assert_eq!(is_refused(world.inventory.revoke(CertificateId(9), NOW).await), "there is no certificate 9");
}

#[tokio::test]
async fn a_number_is_never_used_again() {
    let world = World::new().await;
    world.keep(&numbered(1)).await;
    let id = world.keep(&numbered(2)).await;
    let order_id = world.inventory.begin_order(&order("example.com", Role::Own)).await.unwrap();
    for _ in 0..2 {
        world.inventory.remove(id).await.unwrap();
        world.inventory.end_order(order_id).await.unwrap();
    }
    let world = world.reopened().await;
    assert!(world.keep(&numbered(2)).await > id);
    assert!(world.inventory.begin_order(&order("example.com", Role::Own)).await.unwrap() > order_id);
}

#[tokio::test]
async fn an_order_replaces_the_one_of_its_subject_and_role() {
    let world = World::new().await;
    let inventory = &world.inventory;
    let old = inventory.begin_order(&order("example.com", Role::Own)).await.unwrap();
    let standby = inventory.begin_order(&order("example.com", Role::Standby)).await.unwrap();
    inventory.seal_order_key(old, b"sealed").await.unwrap();
    let mut next = order("example.com", Role::Own);
    next.url.push('2');
    let new = inventory.begin_order(&next).await.unwrap();
    let both = [(standby, order("example.com", Role::Standby)), (new, next.clone())];
    assert_eq!(inventory.orders().await.unwrap(), both);
    let order_of = async |subject, role| inventory.order_of(&name(subject), role).await.unwrap();
    assert_eq!(
        [order_of("example.com", Role::Standby).await, order_of("example.com", Role::Own).await],
        both.map(Some)
    );
    assert_eq!(order_of("example.org", Role::Own).await, None);

    let refused = is_refused(inventory.seal_order_key(old, b"sealed").await);
    assert_eq!(refused, format!("order {} has ended or was replaced", old.0));
    inventory.seal_order_key(new, b"sealed").await.unwrap();
    inventory.end_order(standby).await.unwrap();
    next.sealed_key = Some(b"sealed".as_slice().into());
    let world = world.reopened().await;
    assert_eq!(world.inventory.orders().await.unwrap(), [(new, next)]);
}

#[tokio::test]
async fn failures_are_noted_and_forgotten_by_subject_and_role() {
    let world = World::new().await;
    let (mut own, standby) = (attempts("example.com", Role::Own), attempts("example.com", Role::Standby));
    for of in [&own, &standby] {
        world.inventory.note_attempts(of).await.unwrap();
    }
    own.failures = u32::MAX;
    world.inventory.note_attempts(&own).await.unwrap();
    assert_eq!(world.inventory.attempts().await.unwrap(), [own.clone(), standby.clone()]);
    own.problem = "ü".repeat(PROBLEM_CHARS_MAX + 1);
    world.inventory.note_attempts(&own).await.unwrap();
    assert_eq!(world.inventory.attempts().await.unwrap()[0].problem, "ü".repeat(PROBLEM_CHARS_MAX));
    world.inventory.forget_attempts(&own.subject, Role::Own).await.unwrap();
    let world = world.reopened().await;
    assert_eq!(world.inventory.attempts().await.unwrap(), [standby]);
}

#[rstest]
#[case::asked(CA, 20, Some(3600))]
#[case::over(CA, 3600, None)]
#[case::another("https://third.example", 20, None)]
// What is now the future is a clock that was wrong.
#[case::stepped_back(CA, 19, None)]
fn an_authority_is_left_alone_until_it_said(#[case] ca: &str, #[case] now: i64, #[case] until: Option<i64>) {
    let attempts = attempts("example.com", Role::Own);
    assert_eq!(attempts.held_off_until(ca, NOW.plus_secs(now)), until.map(|secs| NOW.plus_secs(secs)));
}

#[tokio::test]
async fn data_keys_are_added_once_and_wrapped_anew_all_or_none() {
    let world = World::new().await;
    for key in [data_key(2), data_key(u32::MAX), data_key(2)] {
        world.inventory.add_data_key(&key).await.unwrap();
    }
    let other = WrappedKey { wrapped: vec![8; 60], ..data_key(2) };
    assert_eq!(is_refused(world.inventory.add_data_key(&other).await), "there is another data key 2");
    let again = |id| WrappedKey { wrapped_by: "ccdd".into(), wrapped: vec![id as u8; 70], ..data_key(id) };
    let refused = is_refused(world.inventory.rewrap_data_keys(&[again(2), again(3)]).await);
    assert_eq!(refused, "there is no data key 3");
    let world = world.reopened().await;
    assert_eq!(world.inventory.data_keys().await.unwrap(), [data_key(2), data_key(u32::MAX)]);
    for _ in 0..2 {
        world.inventory.rewrap_data_keys(&[again(2), again(u32::MAX)]).await.unwrap();
        assert_eq!(world.inventory.data_keys().await.unwrap(), [again(2), again(u32::MAX)]);
    }
}

#[tokio::test]
async fn accounts_are_told_apart_by_authority_and_external_account() {
    let world = World::new().await;
    let (plain, mut external) = (account(None), account(Some("kid")));
    for account in [&plain, &external] {
        world.inventory.put_account(account).await.unwrap();
    }
    external.url.push('2');
    world.inventory.put_account(&external).await.unwrap();
    let world = world.reopened().await;
    assert_eq!(world.inventory.accounts().await.unwrap(), [plain.clone(), external]);
    for _ in 0..2 {
        world.inventory.remove_account(CA, Some("kid")).await.unwrap();
    }
    assert_eq!(world.inventory.accounts().await.unwrap(), [plain]);
}

#[tokio::test]
async fn secrets_are_kept_by_name() {
    let world = World::new().await;
    assert_eq!(world.inventory.secret("root").await.unwrap(), None);
    let mut root = secret("root");
    for secret in [&root, &secret("other")] {
        world.inventory.put_secret(secret).await.unwrap();
    }
    root.sealed = b"anew".as_slice().into();
    world.inventory.put_secret(&root).await.unwrap();
    let world = world.reopened().await;
    assert_eq!(world.inventory.secret("root").await.unwrap(), Some(root));
    assert_eq!(world.inventory.secret("other").await.unwrap(), Some(secret("other")));
}

#[tokio::test]
async fn only_what_ended_and_has_a_successor_is_trimmed() {
    let world = World::new().await;
    let kept = [
        ending(1, "a.example", Role::Own, -40),
        ending(2, "a.example", Role::Own, -39),
        ending(3, "a.example", Role::Own, 50),
        // Nothing newer in its role.
        ending(4, "a.example", Role::Standby, -90),
        // Of two that end together the later one stays; one that was kept later but ended earlier goes.
        ending(5, "b.example", Role::Own, -60),
        ending(6, "b.example", Role::Own, -60),
        ending(7, "b.example", Role::Own, -70),
        // Not old enough.
        ending(8, "c.example", Role::Own, -30),
        ending(9, "c.example", Role::Own, 30),
    ];
    for new in &kept {
        world.keep(new).await;
    }
    let before = NOW.plus_secs(-30 * DAY);
    assert_eq!(world.inventory.trim(before, 1).await.unwrap(), 1);
    assert_eq!(world.ids().await, [1, 2, 3, 4, 5, 6, 8, 9]);
    assert_eq!(world.inventory.trim(before, 100).await.unwrap(), 3);
    assert_eq!(world.ids().await, [3, 4, 6, 8, 9]);
    assert_eq!(world.inventory.trim(before, 100).await.unwrap(), 0);
}

#[tokio::test]
async fn issuers_go_when_nobody_names_them_any_more() {
    let world = World::new().await;
    let mut other = numbered(1);
    other.chain.push(chain_of(&pair(&["other.example"]).chain().0)[1].clone());
    world.keep(&genuine()).await;
    let id = world.keep(&other).await;
    assert_eq!(world.count("issuer").await, 2);
    assert_eq!(world.one(id).await.certificate.chain, other.chain);
    world.inventory.remove(id).await.unwrap();
    world.inventory.trim(NOW, 1).await.unwrap();
    assert_eq!(world.count("issuer").await, 1);
    assert_eq!(world.ids().await, [1]);
}

#[tokio::test]
async fn issuers_are_shared_by_all_chains() {
    let world = World::new().await;
    for n in 0..3 {
        world.keep(&numbered(n)).await;
    }
    assert_eq!(world.count("issuer").await, 1);
    let all = world.inventory.certificates().await.unwrap().certificates;
    assert!(
        all.iter().all(|one| std::ptr::eq(one.certificate.chain[1].as_ref(), all[0].certificate.chain[1].as_ref()))
    );
}

#[tokio::test]
async fn a_reader_sees_what_is_written_beside_it_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Inventory::open_to_read(dir.path()).await.unwrap().is_none());
    let writer = open(dir.path()).await;
    let reader = Inventory::open_to_read(dir.path()).await.unwrap().unwrap();
    let second = open(dir.path()).await;
    for (n, inventory) in [(1, &writer), (2, &second), (3, &writer)] {
        inventory.keep(&numbered(n)).await.unwrap();
        for of in [&writer, &second, &reader] {
            assert_eq!(of.certificates().await.unwrap().certificates.len(), n as usize);
        }
    }
    let refused = reader.keep(&numbered(4)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    second.close().await;
    writer.close().await;
    assert_eq!(reader.certificates().await.unwrap().certificates.len(), 3);
}

#[tokio::test]
async fn it_lies_beside_the_usage_database() {
    let world = World::new().await;
    let store = super::super::Store::open(world.path(), NOW).await.unwrap().store;
    world.keep(&genuine()).await;
    store.names().await.unwrap();
    assert!(world.path().join(super::super::FILE).is_file() && world.path().join(FILE).is_file());
}

/// Verbs are carried out by tasks that move between threads.
#[test]
fn verbs_may_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    fn check(inventory: &'static Inventory, new: &'static NewCertificate) {
        is_send(inventory.keep(new));
        is_send(inventory.certificates());
        is_send(inventory.orders());
        is_send(inventory.trim(NOW, 1));
        is_send(Inventory::open(Path::new(""), NOW));
    }
    _ = check;
}
