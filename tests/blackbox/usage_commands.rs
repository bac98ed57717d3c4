//! `lockgate usage` (SPEC 2, "It can be shown"): what was metered is shown, exported and checked, beside a running
//! process and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::*;
use crate::usage_records::{Books, usage_in};

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

/// `lockgate usage` on this proxy's configuration, at the time that it lives in.
#[track_caller]
fn usage(gate: &Lockgate, args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("usage").args(args).arg("-c").arg(gate.config_file());
    gate.clock().govern(&mut command);
    run(&mut command)
}

fn data_dir(gate: &Lockgate) -> PathBuf {
    gate.config_file().with_file_name("data")
}

#[track_caller]
fn parse(output: &Output) -> Value {
    assert_eq!(output.code, 0, "{}", output.text());
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.text()))
}

/// The days of the site as scripts see them.
#[track_caller]
fn days(gate: &Lockgate) -> Vec<Value> {
    let output = usage(gate, &["show", SITE, "--json"]);
    // Nothing at all is known before the first count is written down.
    if output.code == 1 {
        return Vec::new();
    }
    parse(&output)["domains"][0]["days"].as_array().unwrap().clone()
}

/// Waits until so many records are shown.
#[track_caller]
fn await_sealed(gate: &Lockgate, date: &str, record: u64) -> Value {
    eventually(&format!("record {record} of {date}"), || {
        days(gate).into_iter().find(|day| day["date"] == date && day["record"] == record)
    })
}

#[test]
fn usage_of_three_days_is_shown_exported_and_verified() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped(NOON).start();
    fill_bucket(&gate, SITE, 115);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.clock().stop_at("2026-06-02 13:00:00");
    await_sealed(&gate, "2026-06-01", 1);
    fill_bucket(&gate, SITE, 20);
    fill_bucket(&gate, SITE, 30);
    gate.clock().stop_at("2026-06-03 14:00:00");
    await_sealed(&gate, "2026-06-02", 2);
    fill_bucket(&gate, SITE, 4);
    // The limit is known as soon as the store has the bucket.
    eventually("the third day", || days(&gate).get(2).filter(|day| day["limit_qps"] == 10).cloned());

    let shown = days(&gate);
    let facts = |day: &Value| json!([day["date"], day["requests"], day["peak_qps"], day["peak_at"], day["limit_qps"]]);
    assert_eq!(facts(&shown[0]), json!(["2026-06-01", 115, 11.5, "2026-06-01T12:00:00+00:00", 10]));
    assert_eq!(facts(&shown[1]), json!(["2026-06-02", 50, 3.0, "2026-06-02T13:00:10+00:00", 10]));
    assert_eq!(facts(&shown[2]), json!(["2026-06-03", 4, 1.0, "2026-06-03T14:00:00+00:00", 10]));
    // Held from 12:00:10 to 12:00:10.
    let throttled: Vec<_> = shown.iter().map(|day| day["throttled_secs"].as_u64().unwrap()).collect();
    assert_eq!(throttled, [43_190, 43_210, 0]);
    let sealed: Vec<_> = shown.iter().map(|day| day["sealed"].as_bool().unwrap()).collect();
    assert_eq!(sealed, [true, true, false]);

    let text = usage(&gate, &["show", SITE]).stdout;
    for part in ["2026-06-01", "11.5", "11h 59m 50s", "open", "█", "(UTC)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = usage(&gate, &["show", "--date", "yesterday"]).stdout;
    assert!(text.contains(SITE) && text.contains("sealed") && text.contains("13:00:10"), "{text}");
    let text = usage(&gate, &["show"]).stdout;
    assert!(text.contains(SITE) && text.contains("so far"), "{text}");
    assert!(usage(&gate, &["show", SITE, "--to", "2026-05-31"]).stdout.contains("no requests"));

    let series = usage(&gate, &["show", SITE, "--series", "--to", "yesterday"]).stdout;
    assert_eq!(series.lines().count(), 1 + 2 * 360 + 1, "{series}");
    assert!(series.contains("\n2026-06-01T12:00:00+00:00,115,11.5\n2026-06-01T12:00:10+00:00,0,0.0\n"), "{series}");
    let series = parse(&usage(&gate, &["show", SITE, "--series", "--around", "2026-06-02 13:00", "--json"]));
    assert_eq!(series["counts"][360]["requests"], 20);

    let file = gate.config_file().with_file_name("export.csv");
    let csv = file.to_str().unwrap();
    assert_eq!(usage(&gate, &["export", "--output", csv]).code, 0);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
    let refused = usage(&gate, &["export", "--output", csv]);
    assert!(refused.code == 2 && refused.stderr.contains("--force"), "{}", refused.text());
    let replaced = usage(&gate, &["export", "--output", csv, "--force"]);
    assert_eq!((replaced.code, replaced.stdout), (0, format!("{csv}: 1 domain, 2 records\n")));
    let export = parse(&usage(&gate, &["export"]));
    assert_eq!(export["domains"][0]["head"]["record"], 2);
    assert_eq!(export["domains"][0]["records"][1]["hash"], shown[1]["hash"]);

    for args in [&["verify"][..], &["verify", SITE, "--against", csv]] {
        let verified = usage(&gate, args);
        assert_eq!(verified.code, 0, "{}", verified.text());
        assert!(verified.stdout.starts_with("1 domain, 2 records: sound"), "{}", verified.stdout);
    }
    let verified = parse(&usage(&gate, &["verify", "--json"]));
    assert_eq!(verified, json!({ "ok": true, "domains": 1, "records": 2, "flaws": [] }));
}

#[test]
fn usage_of_a_killed_process_has_what_only_the_journal_has() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped(NOON).start();
    // A start closes what had ended; after that no bucket closes any more, and nothing leaves the journal.
    std::thread::sleep(std::time::Duration::from_secs(1));
    gate.get_many(SITE, 42);
    eventually("42 requests", || days(&gate).first().filter(|day| day["requests"] == 42).cloned());
    gate.signal(Signal::KILL);
    gate.wait_for_end(PATIENCE);
    assert_eq!(days(&gate)[0]["peak_qps"], 4.2);
    // Whatever the database has of it, the journal alone is enough.
    for file in fs::read_dir(data_dir(&gate)).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().unwrap().to_str().unwrap().starts_with("lockgate.db") {
            fs::remove_file(file).unwrap();
        }
    }
    let [day] = &days(&gate)[..] else { panic!("one day") };
    assert_eq!((&day["requests"], &day["sealed"]), (&json!(42), &json!(false)));
    assert!(usage(&gate, &["show"]).stdout.contains("so far"));
}

#[rstest]
#[case::of_23_hours("2026-03-28 23:00:00", "2026-03-29 21:59:50", "2026-03-29", "2026-03-29T23:59:50+02:00")]
#[case::of_25_hours("2026-10-24 22:00:00", "2026-10-25 22:59:50", "2026-10-25", "2026-10-25T23:59:50+01:00")]
fn usage_of_days(#[case] first: &str, #[case] last: &str, #[case] date: &str, #[case] peak_at: &str) {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).set("timezone", "'Europe/Berlin'");
    let gate = setup.clock_stopped(first).start();
    fill_bucket(&gate, SITE, 5);
    gate.clock().stop_at(last);
    fill_bucket(&gate, SITE, 7);
    let day = await_sealed(&gate, date, 1);
    assert_eq!((&day["requests"], &day["peak_at"]), (&json!(12), &json!(peak_at)));
    assert_eq!(day["zone"], "Europe/Berlin");
    assert_eq!(days(&gate).len(), 1);
    // Without the configuration the zone is the one that was counted last.
    let mut command = Command::new(program());
    command.args(["usage", "show", "--json", "--date", date, "--data-dir"]).arg(data_dir(&gate));
    gate.clock().govern(&mut command);
    assert_eq!(parse(&run(&mut command))["domains"][0]["days"][0], day);
}

#[test]
fn usage_that_arrives_late_amends_the_day() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).clock_stopped(NOON).start();
    fill_bucket(&gate, SITE, 10);
    gate.clock().stop_at("2026-06-02 12:00:00");
    await_sealed(&gate, "2026-06-01", 1);
    // The clock goes back into the day that is sealed already. What was harvested in that very moment is sealed again by itself.
    gate.clock().stop_at("2026-06-01 13:00:00");
    fill_bucket(&gate, SITE, 25);
    let goes_on = |sealed: bool| {
        let whole = |day: &Value| day["sealed"] == sealed && day["requests"] == 35;
        eventually("the whole day", || days(&gate).into_iter().find(whole))
    };
    goes_on(false);
    gate.clock().stop_at("2026-06-02 12:00:10");
    let day = goes_on(true);
    let records = day["record"].as_u64().unwrap();
    assert!(records >= 2, "{day}");
    assert_eq!((&day["date"], &day["peak_qps"], &day["amended"]), (&json!("2026-06-01"), &json!(2.5), &json!(true)));
    assert!(usage(&gate, &["show", SITE]).stdout.contains(&format!("{records}, amended")));
    let exported = parse(&usage(&gate, &["export"]))["domains"][0]["records"].as_array().unwrap().len();
    assert_eq!(exported as u64, records);
    assert!(usage(&gate, &["verify"]).stdout.contains(&format!("1 domain, {records} records: sound")));
}

#[test]
fn usage_is_consistent_while_it_is_written() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).clock("2026-06-01 23:59:50").start();
    let mut least = 0;
    for round in 1..=12 {
        gate.get_many(SITE, 20);
        // Over midnight, and from the journal to the store, again and again.
        gate.clock().advance(if round % 4 == 0 { 86_400 } else { 7 });
        let sum = days(&gate).iter().map(|day| day["requests"].as_u64().unwrap()).sum();
        assert!(least <= sum && sum <= 20 * round, "{least} before, {sum} now");
        least = sum;
        let verified = usage(&gate, &["verify"]);
        assert_eq!(verified.code, 0, "{}", verified.text());
    }
    eventually("all requests", || {
        let sum: u64 = days(&gate).iter().map(|day| day["requests"].as_u64().unwrap()).sum();
        (sum == 240).then_some(())
    });
}

#[test]
fn usage_of_all_domains_on_one_day() {
    let books = Books::new("csv");
    let shown = books.usage(&["show", "--date", "2026-06-02"]);
    assert_eq!(shown.code, 0, "{}", shown.text());
    insta::assert_snapshot!(shown.stdout);
    insta::assert_snapshot!(books.usage(&["show", "--date", "2026-06-02", "--top", "1"]).stdout);
    insta::assert_snapshot!(books.usage(&["show", SITE, "--from", "2026-06-01", "--to", "2026-06-03"]).stdout);
    insta::assert_snapshot!(books.usage(&["show", "--date", "2026-06-04"]).stdout);
}

#[rstest]
#[case::bad_date(&["show", "--from", "01.06.2026"], 2, "2026-06-01")]
#[case::no_such_date(&["show", "--date", "2026-02-30"], 2, "not a date")]
#[case::the_wrong_way_round(&["show", "--from", "2026-06-02", "--to", "2026-06-01"], 2, "is after")]
#[case::export_the_wrong_way_round(&["export", "--from", "today", "--to", "yesterday"], 2, "is after")]
#[case::no_name(&["show", "https://www.example.test/"], 2, "is not a host name")]
#[case::unknown(&["show", "www.exampel.test"], 1, "did you mean `www.example.test`?")]
#[case::unknown_to_export(&["export", "elsewhere.test"], 1, "nothing was metered of `elsewhere.test`")]
#[case::unknown_to_verify(&["verify", "elsewhere.test"], 1, "nothing was metered of `elsewhere.test`")]
#[case::series_of_all(&["show", "--series"], 2, "one domain")]
#[case::no_time(&["show", SITE, "--to", "2026-06-03", "--series", "--around", "noon"], 2, "not a time")]
#[case::nothing_there(&["show", SITE, "--date", "2020-01-01", "--series"], 1, "no requests")]
#[case::unwritable(&["export", "--output", "/proc/nowhere/export.csv"], 1, "cannot be written")]
#[case::a_directory(&["export", "--output", "/"], 2, "is a directory")]
#[case::unknown_format(&["export", "--format", "xml"], 2, "xml")]
#[case::no_export(&["verify", "--against", "/nonexistent.csv"], 2, "/nonexistent.csv")]
#[case::garbage(&["verify", "--against", "/proc/self/exe"], 2, "no whole export")]
fn usage_used_wrongly_says_so(#[case] args: &[&str], #[case] code: i32, #[case] says: &str) {
    let books = Books::new("csv");
    let before = fs::read(books.data_dir().join("lockgate.db")).unwrap();
    let output = books.usage(args);
    assert_eq!(output.code, code, "{}", output.text());
    assert!(output.stderr.contains(says), "{}", output.text());
    assert_eq!(output.stdout, "");
    assert_eq!(fs::read(books.data_dir().join("lockgate.db")).unwrap(), before);
}

#[test]
fn usage_says_where_it_found_nothing() {
    let dir = TempDir::new().unwrap();
    let missing = usage_in(&dir.path().join("none"), &["show"]);
    assert!(missing.code == 2 && missing.stderr.contains("--data-dir"), "{}", missing.text());
    let no_file = run(Command::new(program()).args(["usage", "show", "-c", "/nonexistent/lockgate.toml"]));
    assert!(no_file.code == 2 && no_file.stderr.contains("/nonexistent/lockgate.toml"), "{}", no_file.text());
    for args in [&["show"][..], &["verify"], &["export"]] {
        let output = usage_in(dir.path(), args);
        assert_eq!(output.code, 0, "{}", output.text());
        assert!(output.text().contains("nothing has been metered yet in"), "{}", output.text());
    }
    let unknown = usage_in(dir.path(), &["show", SITE]);
    assert!(unknown.code == 1 && unknown.stderr.contains("nothing has been metered yet"), "{}", unknown.text());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn usage_is_read_also_when_the_rest_of_the_configuration_is_wrong() {
    let books = Books::new("csv");
    let file = books.dir.path().join("lockgate.toml");
    let show = |text: &str| {
        fs::write(&file, format!("data_dir = 'data'\n{text}\n")).unwrap();
        run(Command::new(program()).args(["usage", "show", SITE, "--date", "2026-06-01", "--json", "-c"]).arg(&file))
    };
    let day = parse(&show("timezone = 'Asia/Shanghai'\nnonsense = 7"));
    assert_eq!(day["domains"][0]["days"][0]["peak_at"], "2026-06-01T00:10:00+08:00");
    let wrong = show("timezone = 'Asia/Shangai'");
    assert!(wrong.code == 2 && wrong.stderr.contains("Asia/Shanghai"), "{}", wrong.text());
}

/// A backup, mounted read-only. Whoever runs this as root may write even there, and then it shows nothing new.
#[test]
fn usage_is_read_where_nothing_can_be_written() {
    let books = Books::new("csv");
    let allow = |mode| fs::set_permissions(books.data_dir(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let verified = books.usage(&["verify"]);
    allow(0o755);
    assert_eq!((verified.code, verified.stdout.as_str()), (0, "2 domains, 6 records: sound\n"), "{}", verified.stderr);
}

/// `export | head -1` ends without a word.
#[test]
fn usage_exports_to_a_reader_that_has_seen_enough() {
    let books = Books::new("csv");
    let script = format!(
        "'{}' usage export --format csv --data-dir '{}' | true; echo \"${{PIPESTATUS[0]}}\"",
        program().display(),
        books.data_dir().display()
    );
    let output = run(Command::new("bash").arg("-c").arg(script));
    assert_eq!((output.stdout.trim(), output.stderr.as_str()), ("0", ""));
}
