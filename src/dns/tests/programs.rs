//! The operator's program.

use rstest::rstest;

use super::*;

/// A program for `exec` that writes down what it is called with.
fn script(directory: &TempDir, text: &str) -> String {
    let path = directory.path().join("hook");
    std::fs::write(&path, format!("echo \"$@\" >> {}/calls\n{text}\n", directory.path().display())).unwrap();
    path.display().to_string()
}

#[rstest]
#[case::done("exit 0", None)]
#[case::failed("echo; echo 'no such zone' >&2; echo more >&2; exit 3", Some("exit status: 3: no such zone"))]
#[case::silent("exit 1", Some("exit status: 1, and nothing on standard error"))]
#[case::endless("sleep 1000 & sleep 1000", Some("it was killed after 500ms, and nothing on standard error"))]
#[case::waiting("echo 'no lock yet' >&2; sleep 1000 & sleep 1000", Some("it was killed after 500ms: no lock yet"))]
#[case::talkative("head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero; exit 0", None)]
#[case::leaves_something("sleep 3 & exit 0", None)]
#[tokio::test]
async fn a_program_is_called(#[case] text: &str, #[case] expected: Option<&str>) {
    let (named, directory) = (named().await, tempfile::tempdir().unwrap());
    let hook = script(&directory, text);
    let timeout = Duration::from_millis(if text.contains("1000 &") { 500 } else { 60_000 });
    let records = open(&exec_within(&["sh", &hook, "--zone"], named.address, timeout));
    let began = Instant::now();
    let name = "_acme-challenge.delegated.example.test";
    let result = records.present(name, "value with spaces; $(true)").await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let calls = || std::fs::read_to_string(directory.path().join("calls")).unwrap();
    let present = "--zone present _acme-challenge.delegated.other.test value with spaces; $(true)\n";
    assert_eq!(calls(), present);
    match expected {
        Some(expected) => check(
            result,
            &format!("`sh` did not present the TXT record at _acme-challenge.delegated.other.test: {expected}"),
        ),
        None => {
            records.clear(&result.unwrap()).await.unwrap();
            assert_eq!(calls(), format!("{present}{}", present.replace("present", "clear")));
        }
    }
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let named = named().await;
    let records = open(&exec(&["/nonexistent/hook"], named.address));
    check(records.present(CHALLENGE, "value").await, "`/nonexistent/hook` did not present");
    check(records.present(CHALLENGE, "value").await, "it cannot be started: No such file");
}

#[tokio::test]
async fn a_program_does_not_get_the_secrets_of_others() {
    let (named, directory) = (named().await, tempfile::tempdir().unwrap());
    let environment = directory.path().join("environment");
    let hook = script(&directory, &format!("env > {}", environment.display()));
    // Two that every test has.
    assert!(["CARGO_PKG_NAME", "CARGO_PKG_VERSION"].iter().all(|variable| std::env::var_os(variable).is_some()));
    crate::secret::withhold("CARGO_PKG_NAME");
    open(&exec(&["sh", &hook], named.address)).present(CHALLENGE, "value").await.unwrap();
    let environment = std::fs::read_to_string(environment).unwrap();
    assert!(environment.contains("CARGO_PKG_VERSION=") && !environment.contains("CARGO_PKG_NAME="), "{environment}");
}

/// What failed, and what nobody waited for, may have been done, and is cleared; what was refused was not.
#[tokio::test]
async fn what_may_have_been_set_is_cleared() {
    let (named, directory) = (named().await, tempfile::tempdir().unwrap());
    let hook = script(&directory, "test $1 = clear || { touch $0.begun; sleep 1000; }");
    let calls = || std::fs::read_to_string(directory.path().join("calls")).unwrap_or_default();
    let records = open(&exec_within(&["sh", &hook], named.address, Duration::from_millis(300)));
    let [one, two] = [records.place(CHALLENGE, "one").await.unwrap(), records.place(CHALLENGE, "two").await.unwrap()];
    check(records.set(&one).await, "it was killed after 300ms");
    records.clear(&one).await.unwrap();
    assert_eq!(calls(), format!("present {CHALLENGE} one\nclear {CHALLENGE} one\n"));
    // Once is enough, and what was never begun is not cleared.
    records.clear(&one).await.unwrap();
    records.clear(&two).await.unwrap();
    assert_eq!(calls().lines().count(), 2);

    let records = Arc::new(open(&exec(&["sh", &hook], named.address)));
    std::fs::remove_file(directory.path().join("hook.begun")).unwrap();
    let setting = tokio::spawn({
        let (records, two) = (Arc::clone(&records), two.clone());
        async move { records.set(&two).await }
    });
    while !directory.path().join("hook.begun").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    setting.abort();
    assert!(setting.await.unwrap_err().is_cancelled());
    records.clear(&two).await.unwrap();
    assert_eq!(calls().lines().last(), Some(&*format!("clear {CHALLENGE} two")));

    let nobody = open(&update(named.address, "nobody", "hmac-sha256"));
    check(nobody.set(&one).await, "(BADKEY)");
    nobody.clear(&one).await.unwrap();
}
