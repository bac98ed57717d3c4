//! Rows that somebody else wrote.

use super::*;

/// What is wrong with certificate 1 after `sql`; certificate 2 can be used all the same.
async fn reason(sql: &str) -> String {
    let world = World::new().await;
    world.keep(&genuine()).await;
    world.keep(&numbered(2)).await;
    world.tamper(&format!("PRAGMA ignore_check_constraints = 1; {sql}")).await;
    let all = world.inventory.certificates().await.unwrap();
    assert_eq!(all.certificates.iter().map(|one| one.id.0).collect::<Vec<_>>(), [2], "{:?}", all.unusable);
    assert_eq!(all.unusable.iter().map(|one| one.id.0).collect::<Vec<_>>(), [1]);
    assert!(world.inventory.certificate(CertificateId(1)).await.unwrap().is_none());
    assert_eq!(world.count("certificate").await, 2);
    let Some(Unusable { reason, .. }) = all.unusable.into_iter().next() else { panic!() };
    assert!(reason.chars().count() <= 200, "{reason}");
    reason
}

#[rstest]
#[case::space("subject = 'exa mple.com'", "`exa mple.com` is not a host name")]
#[case::not_normal("subject = ' WWW.example.com'", "that is `www.example.com`")]
#[case::long_name("subject = printf('%.*c', 90000, 'a')", "the name is too long")]
#[case::control("subject = char(31) || 'a'", "is not a host name")]
#[case::nul("subject = 'a' || char(0) || 'b'", "is not a host name")]
#[case::not_utf8("ca = CAST(x'ff' AS TEXT)", "not UTF-8")]
#[case::tenant("tenant = ' a '", "` a ` is no tenant's name")]
#[case::role("role = 'owner'", "`owner` is neither own nor standby")]
#[case::provenance("provenance = 'stolen'", "`stolen` is neither acme nor uploaded")]
#[case::no_issuer("issuers = '7'", "there is no issuer `7`")]
#[case::negative_issuer("issuers = '-1'", "there is no issuer `-1`")]
#[case::no_number("issuers = '1;2'", "there is no issuer `1;2`")]
#[case::many_issuers("issuers = replace(printf('%.*c', 40, '1'), '1', '1 ')", "it names 40 issuers")]
#[case::large_leaf("leaf = zeroblob(5000000)", "more than 262144 octets")]
#[case::large_ca("ca = printf('%.*c', 300000, 'a')", "more than 262144 octets")]
#[case::no_leaf("leaf = x'', facts = x''", "cannot be read")]
#[case::other_leaf("leaf = CAST(substr(leaf, 1, length(leaf) - 1) || x'00' AS BLOB)", "not the one that was kept")]
#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_passed_over_with_a_reason(#[case] change: &str, #[case] expected: &str) {
    let reason = reason(&format!("UPDATE certificate SET {change} WHERE id = 1")).await;
    assert!(reason.contains(expected), "{reason}");
}

#[tokio::test]
async fn of_many_one_is_passed_over() {
    let world = World::new().await;
    for n in 1..=150 {
        world.keep(&numbered(n)).await;
    }
    for (bad, change) in [(70, "subject = char(30)"), (71, "role = 'x'"), (140, "leaf = zeroblob(5000000)")] {
        world
            .tamper(&format!("PRAGMA ignore_check_constraints = 1; UPDATE certificate SET {change} WHERE id = {bad}"))
            .await;
    }
    let all = world.inventory.certificates().await.unwrap();
    let ids = |of: &mut dyn Iterator<Item = CertificateId>| of.map(|id| id.0).collect::<Vec<_>>();
    assert_eq!(ids(&mut all.unusable.iter().map(|it| it.id)), [70, 71, 140]);
    let usable: Vec<_> = (1..=150).filter(|n| ![70, 71, 140].contains(n)).collect();
    assert_eq!(ids(&mut all.certificates.iter().map(|it| it.id)), usable);
    for (n, kept) in usable.iter().zip(&all.certificates) {
        assert_eq!(kept.certificate.facts, numbered(*n as u32).facts, "{n}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_none_is_told_of_with_each_chain() {
    let world = World::new().await;
    world.keep(&genuine()).await;
    world.tamper("UPDATE issuer SET der = x'3000'").await;
    let all = world.inventory.certificates().await.unwrap();
    assert!(all.certificates.is_empty() && all.unusable[0].reason.contains("issuer 1 is no certificate"), "{all:?}");
}

#[rstest]
#[case::empty("x''")]
#[case::version("CAST(x'01' || substr(facts, 2) AS BLOB)")]
#[case::octet("CAST(substr(facts, 1, 9) || x'ffffff' || substr(facts, 13) AS BLOB)")]
#[case::short("substr(facts, 1, 20)")]
#[tokio::test]
async fn facts_that_are_damaged_are_read_from_the_leaf(#[case] facts: &str) {
    let world = World::new().await;
    let id = world.keep(&genuine()).await;
    world.tamper(&format!("UPDATE certificate SET facts = {facts}")).await;
    assert_eq!(world.one(id).await.certificate.facts, genuine().facts);
    assert_eq!(world.ids().await, [1]);
}

#[tokio::test]
async fn absurd_times_are_times() {
    let world = World::new().await;
    let id = world.keep(&genuine()).await;
    world
        .tamper(
            "UPDATE certificate SET kept_at = -5, revoked_at = 9223372036854775807, ari_next = -9223372036854775808",
        )
        .await;
    let kept = world.one(id).await;
    assert_eq!(kept.certificate.at, UnixTime::from_secs(-5));
    assert_eq!(kept.revoked_at, Some(UnixTime::from_secs(i64::MAX)));
    assert_eq!(kept.ari, Some(Ari { window: None, next_at: UnixTime::from_secs(i64::MIN) }));
}

#[rstest]
#[case::order("UPDATE acme_order SET subject = 'a b' WHERE id = 1")]
#[case::names("UPDATE acme_order SET names = 'example.com *.*' WHERE id = 1")]
#[case::no_names("UPDATE acme_order SET names = '' WHERE id = 1")]
#[case::order_role("UPDATE acme_order SET role = '' WHERE id = 1")]
#[case::not_utf8("UPDATE acme_order SET url = CAST(x'ff' AS TEXT) WHERE id = 1")]
#[case::failures("UPDATE attempts SET failures = -1 WHERE role = 'own'")]
#[case::more_failures("UPDATE attempts SET failures = 4294967296 WHERE role = 'own'")]
#[case::held_off("UPDATE attempts SET held_off = 'soon https://ca.example' WHERE role = 'own'")]
#[case::nobody_held_off("UPDATE attempts SET held_off = '5' WHERE role = 'own'")]
#[case::data_key("UPDATE data_key SET id = -1 WHERE id = 1")]
#[case::account("UPDATE account SET url = CAST(x'ff' AS TEXT) WHERE eab_kid = ''")]
#[tokio::test]
async fn other_rows_that_cannot_be_used_are_passed_over(#[case] sql: &str) {
    let world = World::new().await;
    let inventory = &world.inventory;
    for role in [Role::Own, Role::Standby] {
        inventory.begin_order(&order("example.com", role)).await.unwrap();
        inventory.note_attempts(&attempts("example.com", role)).await.unwrap();
    }
    for key in [data_key(1), data_key(2)] {
        inventory.add_data_key(&key).await.unwrap();
    }
    for account in [account(None), account(Some("kid"))] {
        inventory.put_account(&account).await.unwrap();
    }
    world.tamper(sql).await;
    let usable = inventory.orders().await.unwrap().len()
        + inventory.attempts().await.unwrap().len()
        + inventory.data_keys().await.unwrap().len()
        + inventory.accounts().await.unwrap().len();
    assert_eq!(usable, 7);
    let mut rows = 0;
    for table in ["acme_order", "attempts", "data_key", "account"] {
        rows += world.count(table).await;
    }
    assert_eq!(rows, 8);
}
