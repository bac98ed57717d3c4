//! With an authority on this machine that does as it is told.

use prometheus::Registry;
use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::certificate::fixture::NOW;
use crate::control::Control;
use crate::issuance::KeySource;
use crate::issuer::acme::tests::fake::{Fake, Reply, but, problem, says};
use crate::snapshot::Live;

const HOUR: Duration = Duration::from_secs(3600);

pub(in crate::upkeep::issuing) struct World {
    _dir: TempDir,
    custody: Arc<Custody>,
    pub(in crate::upkeep::issuing) accounts: Accounts,
    pub(in crate::upkeep::issuing) fake: Fake,
    pub(in crate::upkeep::issuing) authority: Arc<Authority>,
}

impl World {
    pub(in crate::upkeep::issuing) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let source = KeySource::Made(dir.path().join("vault.key"));
        let custody = Custody::new(dir.path(), source, &Registry::new()).unwrap();
        custody.open(NOW).await.unwrap();
        custody.unlock(Control::new(Arc::new(Live::default())).internal(), NOW).await.unwrap();
        let fake = Fake::start(&[]).await;
        let authority = Arc::new(fake.authority());
        Self { _dir: dir, accounts: Accounts::new(Arc::clone(&custody)), custody, fake, authority }
    }

    /// As the next process begins, with what is stored.
    fn restarted(self) -> Self {
        Self { accounts: Accounts::new(Arc::clone(&self.custody)), ..self }
    }

    async fn enter(&self) -> Result<Arc<acme::Account>, Failure> {
        self.accounts.enter(&self.authority, NOW).await
    }

    async fn enter_at(&self, at: Instant) -> Arc<acme::Account> {
        self.accounts.enter_at(&self.authority, NOW, at).await.unwrap()
    }

    /// What it has entered, it entered before any pause.
    pub(in crate::upkeep::issuing) async fn has_entered_before(&self) {
        let slot = self.accounts.slot(&self.authority);
        let mut slot = slot.lock().await;
        let entered = slot.entered.as_mut().unwrap();
        entered.read_at = entered.read_at.checked_sub(DIRECTORY_PAUSE).unwrap();
    }

    /// URLs of the accounts that are stored, without the authority's own.
    async fn stored(&self) -> Vec<String> {
        let stored = self.custody.inventory().unwrap().accounts().await.unwrap();
        let base = self.authority.directory.trim_end_matches("/dir");
        stored.into_iter().map(|account| account.url.replace(base, "")).collect()
    }

    /// Which keys accounts were asked for with, by number.
    fn keys(&self) -> Vec<usize> {
        let keys = self.fake.keys("/account");
        keys.iter().map(|key| keys.iter().position(|other| other == key).unwrap()).collect()
    }

    fn directories_read(&self) -> usize {
        self.fake.signed("/dir").len()
    }
}

#[rstest]
#[case::in_the_same_process(false)]
#[case::in_the_next_one(true)]
#[tokio::test]
async fn an_account_whose_answer_did_not_come_is_asked_for_again_with_the_same_key(#[case] restarts: bool) {
    let world = World::new().await;
    world.fake.script("/account", &[says(503, "")]);
    world.enter().await.unwrap_err();
    assert_eq!(world.stored().await, [""]);
    let world = if restarts { world.restarted() } else { world };
    world.enter().await.unwrap();
    assert_eq!((world.keys(), world.stored().await), (vec![0, 0], vec!["/account/1".to_owned()]));
    world.restarted().enter().await.unwrap();
}

#[rstest]
#[case::there_after_all(Reply::But(serde_json::json!({}), vec![("location", "BASE/account/2")]), &[0, 0], "/account/2")]
#[case::the_one_that_is_gone(Reply::Well, &[0, 0, 2], "/account/1")]
#[case::closed(problem(403, "unauthorized", "the account is deactivated"), &[0, 0, 2], "/account/1")]
#[case::refused(problem(400, "malformed", "not with this key"), &[0, 0, 2], "/account/1")]
#[case::not_now(problem(429, "rateLimited", "too many"), &[0, 0], "/account/1")]
#[case::down(says(503, ""), &[0, 0], "/account/1")]
#[tokio::test]
async fn an_account_that_is_gone_is_asked_for_with_its_key_and_then_with_another(
    #[case] reply: Reply,
    #[case] keys: &[usize],
    #[case] stored: &str,
) {
    let world = World::new().await;
    let account = world.enter().await.unwrap();
    world.accounts.forget(&world.authority, &account).await;
    world.fake.script("/account", &[reply]);
    let entered = world.enter().await;
    assert_eq!((world.keys(), world.stored().await), (keys.to_vec(), vec![stored.to_owned()]));
    let thumbprint = entered.ok().map(|account| account.thumbprint().to_owned());
    assert_eq!(thumbprint.is_some_and(|it| it != account.thumbprint()), keys.len() > 2);
}

#[rstest]
#[case::of_no_form(|_: &World| vec![0; 64])]
#[case::under_a_lost_data_key(|_: &World| [&[1, 0, 0, 0, 99][..], &[7; 64]].concat())]
#[case::of_something_else(|world: &World| world.custody.vault().seal(b"key", b"another").unwrap().into())]
#[case::no_key(|world: &World| world.custody.vault().seal(b"no key", &context(&world.authority)).unwrap().into())]
#[tokio::test]
async fn an_account_whose_key_does_not_open_is_made_anew(#[case] sealed: fn(&World) -> Vec<u8>) {
    let world = World::new().await;
    let (ca, eab_kid) = key(&world.authority);
    let lost = inventory::Account {
        ca,
        eab_kid,
        url: "https://ca.example/account/7".to_owned(),
        sealed_key: sealed(&world).into(),
        made_at: NOW,
        contact: String::new(),
    };
    world.custody.inventory().unwrap().put_account(&lost).await.unwrap();
    let account = world.enter().await.unwrap();
    assert_eq!((world.keys(), world.stored().await), (vec![0], vec!["/account/1".to_owned()]));
    assert_eq!(world.restarted().enter().await.unwrap().thumbprint(), account.thumbprint());
}

#[tokio::test]
async fn a_directory_is_read_again_after_a_day_and_the_one_of_before_does_until_then() {
    let world = World::new().await;
    let begun = Instant::now();
    let first = world.enter_at(begun).await;
    assert!(Arc::ptr_eq(&first, &world.enter_at(begun + HOUR * 23).await));
    let read = world.directories_read();
    let second = world.enter_at(begun + HOUR * 24).await;
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!((world.directories_read(), second.url()), (read + 1, first.url()));
    // One that cannot be read, or is none, holds up nobody, and is not asked for all the time.
    world.fake.script("/dir", &[says(503, ""), but(serde_json::json!({"newOrder": ""}))]);
    let mut at = begun + HOUR * 48;
    for tries in 2..4 {
        assert!(Arc::ptr_eq(&second, &world.enter_at(at).await));
        assert!(Arc::ptr_eq(&second, &world.enter_at(at + DIRECTORY_PAUSE / 2).await));
        assert_eq!(world.directories_read(), read + tries);
        at += DIRECTORY_PAUSE;
    }
    assert!(!Arc::ptr_eq(&second, &world.enter_at(at).await));
    assert_eq!((world.keys(), world.stored().await), (vec![0], vec!["/account/1".to_owned()]));
}

#[tokio::test]
async fn a_directory_whose_urls_lead_nowhere_is_read_again_unless_it_was_just_read() {
    let world = World::new().await;
    let begun = Instant::now();
    let first = world.enter_at(begun).await;
    let again = async |account, at| world.accounts.enter_again_at(&world.authority, account, NOW, at).await;
    assert!(again(&first, begun + DIRECTORY_PAUSE / 2).await.unwrap().is_none());
    let second = again(&first, begun + DIRECTORY_PAUSE).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // Whoever entered before that is given what was entered since.
    let read = world.directories_read();
    assert!(Arc::ptr_eq(&second, &again(&first, begun + DIRECTORY_PAUSE * 3).await.unwrap().unwrap()));
    assert_eq!(world.directories_read(), read);
    world.fake.script("/dir", &[says(503, "")]);
    again(&second, begun + DIRECTORY_PAUSE * 3).await.unwrap_err();
    assert!(Arc::ptr_eq(&second, &world.enter_at(begun + DIRECTORY_PAUSE * 3).await));
}
