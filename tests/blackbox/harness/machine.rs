//! A machine of its own for one test: a network with nothing but a loopback interface, where every port is free, and a
//! `resolv.conf` that nobody else reads.

use std::env;
use std::fs;
use std::process::Command;

use tempfile::TempDir;

/// Set in the environment of a test that has a machine of its own.
const INSIDE: &str = "LOCKGATE_TEST_MACHINE";

/// Namespaces of the kernel's. Tests that need one call [`Machine::run_alone`] unless they are inside.
pub struct Machine;

impl Machine {
    pub fn is_inside() -> bool {
        env::var_os(INSIDE).is_some()
    }

    /// Runs the test of this name again, inside, with that `resolv.conf`. Where this user may make no namespaces, says so
    /// and does nothing.
    #[track_caller]
    pub fn run_alone(test: &str, resolv_conf: &str) {
        let dir = TempDir::new().expect("temporary folder");
        let file = dir.path().join("resolv.conf");
        fs::write(&file, resolv_conf).expect("resolv.conf");
        let furnish =
            format!("ip link set lo up && mount --bind '{}' \"$(realpath /etc/resolv.conf)\"", file.display());
        let unshared = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--net", "--mount", "sh", "-c", script]);
            command
        };
        let tried = unshared(&furnish).output();
        if let Some(why) = match &tried {
            Err(error) => Some(error.to_string()),
            Ok(tried) => (!tried.status.success()).then(|| String::from_utf8_lossy(&tried.stderr).into_owned()),
        } {
            return eprintln!("skipped: {test}: no network namespace can be made here: {}", why.trim());
        }
        let mut command = unshared(&format!("{furnish} && exec \"$0\" --exact \"$1\" --nocapture"));
        command.arg(env::current_exe().expect("the tests")).arg(test).env(INSIDE, "1");
        let done = command.output().expect("unshare");
        let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
    }
}
