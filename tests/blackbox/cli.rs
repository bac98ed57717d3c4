//! The command line (SPEC 7): exit codes, what is said, and what is refused.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rstest::rstest;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::*;

const SITE: &str = "www.example.test";

/// `lockgate check` on this text.
fn check(text: &str) -> Output {
    let (_dir, file) = config(text);
    lockgate(&["check", "-c", file.to_str().unwrap()])
}

fn config(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("lockgate.toml");
    fs::write(&file, text).unwrap();
    (dir, file)
}

#[test]
fn it_says_what_it_is() {
    let version = lockgate(&["--version"]);
    assert_eq!((version.code, version.stdout.trim()), (0, concat!("lockgate ", env!("CARGO_PKG_VERSION"))));
    let help = lockgate(&["--help"]);
    assert_eq!(help.code, 0);
    for command in ["run", "check", "reload", "demo"] {
        assert!(help.stdout.contains(command), "{command} in {}", help.stdout);
        assert_eq!(lockgate(&[command, "--help"]).code, 0, "{command} --help");
    }
}

#[rstest]
#[case::nothing(&[])]
#[case::unknown_command(&["fly"])]
#[case::unknown_flag(&["check", "--fast"])]
#[case::missing_value(&["check", "-c"])]
fn wrong_usage_is_2(#[case] args: &[&str]) {
    let output = lockgate(args);
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(output.stderr.contains("Usage") || output.stderr.contains("--help"), "{}", output.stderr);
}

#[test]
fn a_good_configuration_is_0() {
    let output = Lockgate::serving(SITE, "http://127.0.0.1:1").plan("basic").check();
    assert_eq!(output.code, 0, "{}", output.text());
}

#[rstest]
#[case("check")]
#[case("run")]
fn a_missing_file_is_2_and_named(#[case] command: &str) {
    let output = lockgate(&[command, "-c", "/nonexistent/lockgate.toml"]);
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(output.stderr.contains("/nonexistent/lockgate.toml"), "{}", output.stderr);
}

/// Line 4 is wrong each time, and what is named is said.
#[rstest]
#[case::syntax("plan = = 'basic'", "")]
#[case::unknown_key("plam = 'basic'", "plam")]
#[case::unknown_plan("plan = 'platinum'", "platinum")]
#[case::wrong_type("plan = 7", "")]
#[case::bad_duration("timeouts = { connect = 'soon' }", "soon")]
#[case::bad_size("max_body = 'large'", "large")]
#[case::unknown_timeout("timeouts = { lunch = '1h' }", "lunch")]
#[case::bad_tenant("tenant = 7", "")]
#[case::bad_hsts("hsts = \"a\\u0000b\"", "hsts")]
#[case::missing_ca("origin_tls = { ca = 'nowhere.pem' }", "nowhere.pem")]
fn a_wrong_line_is_named(#[case] line: &str, #[case] names: &str) {
    let output = check(&format!("[[domain]]\nname = 'www.example.test'\norigin = ['https://127.0.0.1:1']\n{line}\n"));
    assert_eq!(output.code, 2, "{}", output.text());
    let said = output.text();
    assert!(said.contains("lockgate.toml:4") && said.contains(names), "{said}");
}

#[rstest]
#[case::two_stars("name = '*.*.example.test'")]
#[case::star_alone("name = '*'")]
#[case::star_within("name = 'w*.example.test'")]
#[case::empty("name = ''")]
#[case::spaces("name = 'www example test'")]
#[case::with_a_port("name = 'www.example.test:443'")]
#[case::a_url("name = 'https://www.example.test'")]
#[case::long_label("name = 'LONG.example.test'")]
fn a_name_that_is_none_is_named(#[case] line: &str) {
    let line = line.replace("LONG", &"x".repeat(64));
    let output = check(&format!("[[domain]]\n{line}\norigin = ['http://127.0.0.1:1']\n"));
    assert!(output.code == 2 && output.text().contains("lockgate.toml:2"), "{}", output.text());
}

#[rstest]
#[case::no_scheme("127.0.0.1:8080")]
#[case::unknown_scheme("gopher://127.0.0.1")]
#[case::no_host("http://")]
#[case::bad_port("http://127.0.0.1:99999")]
#[case::user("http://user@127.0.0.1")]
#[case::a_path("http://127.0.0.1/app")]
fn an_origin_that_is_none_is_named(#[case] origin: &str) {
    let output = check(&format!("[[domain]]\nname = 'www.example.test'\norigin = ['{origin}']\n"));
    assert!(output.code == 2 && output.text().contains("lockgate.toml:3"), "{}", output.text());
}

#[rstest]
#[case::timezone("timezone = 'Mars/Olympus'", "Mars/Olympus")]
#[case::grace("shutdown_grace = 'later'", "later")]
#[case::broken("on_broken_certificate = 'cry'", "cry")]
#[case::address("listen.https = ['everywhere']", "everywhere")]
#[case::default_site("listen.default = 'unknown.test'", "unknown.test")]
#[case::zero_limit("plans.free.max_qps = 0", "")]
#[case::negative_limit("plans.free.max_qps = -1", "")]
#[case::unknown_table("[turbo]", "turbo")]
#[case::trusted("listen.trusted_proxies = ['10.0.0.0/99']", "10.0.0.0/99")]
fn a_wrong_setting_is_named(#[case] line: &str, #[case] names: &str) {
    let output = check(&format!("{line}\n"));
    let said = output.text();
    assert!(output.code == 2 && said.contains("lockgate.toml:1") && said.contains(names), "{said}");
}

#[test]
fn several_faults_are_reported_together_each_with_its_line() {
    let output =
        check("timezone = 'Mars/Olympus'\n[[domain]]\nname = '*.*.test'\norigin = ['ftp://x']\nplan = 'platinum'\n");
    assert_eq!(output.code, 2);
    for line in [1, 3, 4, 5] {
        assert!(output.text().contains(&format!("lockgate.toml:{line}")), "line {line} in {}", output.text());
    }
}

#[test]
fn a_domain_written_twice_is_reported_with_both_places() {
    let domain = |name| format!("[[domain]]\nname = '{name}'\norigin = ['http://127.0.0.1:1']\n");
    let output = check(&(domain("www.example.test") + &domain("WWW.EXAMPLE.TEST.")));
    let said = output.text();
    assert!(output.code == 2 && said.contains("lockgate.toml:5") && said.contains(SITE), "{said}");
}

#[test]
fn a_key_that_does_not_fit_is_reported_before_anything_runs() {
    let pki = Pki::new();
    let (leaf, other) = (pki.leaf(SITE), pki.leaf(SITE));
    fs::copy(&other.key, &leaf.key).unwrap();
    let setup = Lockgate::under(&pki).domain(SITE, "http://127.0.0.1:1").certificate(&leaf);
    let output = setup.check();
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(output.text().contains(leaf.key.file_stem().unwrap().to_str().unwrap()), "{}", output.text());
}

#[test]
fn included_files_are_read_and_blamed_by_name() {
    let (dir, file) = config("include = ['domains.d/*.toml']\n");
    let file = file.to_str().unwrap();
    fs::create_dir(dir.path().join("domains.d")).unwrap();
    let one = dir.path().join("domains.d/one.toml");
    fs::write(&one, "[[domain]]\nname = 'one.test'\norigin = ['http://127.0.0.1:1']\n").unwrap();
    assert_eq!(lockgate(&["check", "-c", file]).code, 0);
    fs::write(&one, "[[domain]]\nname = 'one.test'\norigin = ['http://127.0.0.1:1']\nplan = 'platinum'\n").unwrap();
    let output = lockgate(&["check", "-c", file]);
    assert!(output.code == 2 && output.text().contains("one.toml:4"), "{}", output.text());
}

#[test]
fn a_second_process_on_one_data_dir_is_refused() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    let second = run(command.arg("run").arg("-c").arg(gate.config_file()));
    assert_eq!(second.code, 1, "{}", second.text());
    assert!(second.text().contains("data"), "{}", second.text());
    assert_eq!(gate.get(SITE).text(), "hello", "the first is not harmed");
}

#[test]
fn what_is_in_the_data_dir_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let data_dir = gate.config_file().with_file_name("data");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(data_dir.clone()), mode(data_dir.join("control.sock"))), (0o700, 0o600));
}

#[rstest]
#[case("listen.https", "['ADDRESS']")]
#[case("listen.http", "['ADDRESS']")]
#[case("listen.admin", "'ADDRESS'")]
fn a_port_in_use_is_named(#[case] key: &str, #[case] value: &str) {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        Lockgate::serving(SITE, "http://127.0.0.1:1").set(key, &value.replace("ADDRESS", &address)).fail_to_start();
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(output.text().contains(&address), "{}", output.text());
}

#[test]
fn the_demo_serves_without_being_told_anything() {
    let home = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.args(["demo", "--https-port", "0", "--admin-port", "0"]).current_dir(home.path()).env("HOME", home.path());
    let mut demo = Process::spawn(&mut command);
    let line = demo
        .wait_for_line("the curl line", PATIENCE, |line| line.contains("curl ") && line.contains("https://localhost:"));
    let words: Vec<_> = line.split_whitespace().skip_while(|word| *word != "curl").collect();
    let page = eventually("the line works as printed", || {
        let page = run(Command::new("sh").arg("-c").arg(words.join(" ")));
        (page.code == 0 && !page.stdout.is_empty()).then_some(page)
    });
    assert!(!page.stdout.contains("502"), "{}", page.stdout);
    demo.signal(Signal::INT);
    let status = demo.wait(Duration::from_secs(5)).expect("Ctrl-C ends it");
    assert_eq!(status.code(), Some(0), "{}", demo.lines().join("\n"));
}

/// What a line that the demo prints says behind its title.
fn printed(demo: &Process, title: &str) -> String {
    let line = demo.wait_for_line(title, Duration::from_secs(60), |line| line.trim_start().starts_with(title));
    line.trim_start().trim_start_matches(title).trim().to_owned()
}

#[test]
fn the_demo_with_an_authority_shows_a_certificate_of_its_own() {
    let home = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    command.args(["demo", "--acme", "--https-port", "0", "--admin-port", "0"]);
    command.current_dir(home.path()).env("HOME", home.path());
    let mut demo = Process::spawn(&mut command);
    let sh = |line: &str| run(Command::new("sh").arg("-c").arg(line));
    let curl = printed(&demo, "Try it");
    let page = eventually_within(Duration::from_secs(60), "the line works as printed", || {
        let page = sh(&curl);
        (page.code == 0 && page.stdout.contains("Hello from the origin")).then_some(page)
    });
    assert!(page.stdout.contains("host: demo.localhost"), "{}", page.stdout);
    let issuer = sh(&format!("{curl} -v -o /dev/null"));
    assert!(issuer.stderr.contains("issuer: CN=Pebble Intermediate CA"), "{}", issuer.stderr);
    let list = sh(&printed(&demo, "Certificates"));
    let row = list.stdout.lines().find(|line| line.contains("demo.localhost")).unwrap_or_default();
    assert!(list.code == 0 && row.contains("issued") && row.contains("Pebble Intermediate CA"), "{}", list.text());
    let renewed = sh(&printed(&demo, "Renew it"));
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    let watched = sh(&printed(&demo, "Watch it"));
    assert!(
        watched.stdout.contains("lockgate_certificate_fallback_active{domain=\"demo.localhost\"} 0"),
        "{}",
        watched.text()
    );
    demo.signal(Signal::INT);
    let status = demo.wait(Duration::from_secs(20)).expect("Ctrl-C ends it");
    assert_eq!(status.code(), Some(0), "{}", demo.lines().join("\n"));
    let root = curl.split(' ').skip_while(|word| *word != "--cacert").nth(1).unwrap();
    assert!(!PathBuf::from(root).exists(), "it leaves nothing behind");
}

#[test]
fn a_configuration_without_domains_runs() {
    let gate = Lockgate::setup().start();
    assert_eq!(gate.admin_get("/healthz").status, 200);
    assert!(gate.tls(SITE).connect().is_err());
}

#[test]
fn health_does_not_depend_on_what_the_file_says_by_now() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let health = |gate: &Lockgate| lockgate(&["health", "-c", gate.config_file().to_str().unwrap()]);
    assert_eq!(health(&gate).code, 0);
    let text = fs::read_to_string(gate.config_file()).unwrap();
    gate.rewrite_raw(&(text + "[[domain]]\nname = '*.*.test'\norigin = ['nonsense']\n"));
    assert_eq!(health(&gate).code, 0, "{}", health(&gate).text());
    gate.restore();
    gate.signal(Signal::TERM);
    gate.wait_for_end(PATIENCE);
    let gone = health(&gate);
    assert_eq!(gone.code, 1, "{}", gone.text());
    assert!(gone.stderr.contains("control.sock"), "{}", gone.stderr);
}
