//! The disk that fails on demand does so: as it says, when it is told to, and nowhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::harness::{Disk, Lockgate, Output, Scripted, run};

const SITE: &str = "www.disk.test";

/// A disk, and `dd` on it.
struct Bench {
    dir: TempDir,
    disk: Disk,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let disk = Disk::new(dir.path(), "data");
        Self { dir, disk }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Makes a file by four calls: `open`, two of `write` with 1000 bytes each, `fdatasync`.
    fn write(&self, file: &Path) -> Output {
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "bs=1000", "count=2", "conv=notrunc,fdatasync"]);
        dd.arg(format!("of={}", file.display())).current_dir(self.path("data"));
        self.disk.govern(&mut dd);
        run(dd.env("LC_ALL", "C"))
    }
}

fn length(file: &Path) -> Option<u64> {
    fs::metadata(file).ok().map(|file| file.len())
}

#[test]
fn a_disk_that_is_well_only_counts() {
    let bench = Bench::new();
    assert_eq!(bench.write(&bench.path("data/a")).code, 0);
    assert_eq!((length(&bench.path("data/a")), bench.disk.calls()), (Some(2000), 4));
    assert_eq!(bench.write(Path::new("b")).code, 0);
    assert_eq!((length(&bench.path("data/b")), bench.disk.calls()), (Some(2000), 8));
}

#[rstest]
#[case(Disk::full, "No space left on device")]
#[case(Disk::read_only, "Read-only file system")]
#[case(Disk::broken, "Input/output error")]
fn a_disk_fails_until_it_is_well(#[case] fall: fn(&Disk), #[case] message: &str) {
    let bench = Bench::new();
    symlink(bench.path("data"), bench.path("link")).unwrap();
    symlink(bench.path("data"), bench.path("data-2")).unwrap();
    fall(&bench.disk);
    for file in ["data/a", "link/a", "data-2/a", "link/../data/a"] {
        let output = bench.write(&bench.path(file));
        assert!(output.code != 0 && output.stderr.contains(message), "{}", output.text());
    }
    assert!(bench.write(Path::new("a")).code != 0);
    assert!(bench.disk.is_armed() && length(&bench.path("data/a")).is_none());
    // Elsewhere nothing fails.
    assert_eq!((bench.write(&bench.path("a")).code, bench.write(&bench.path("database")).code), (0, 0));
    bench.disk.well();
    assert!(!bench.disk.is_armed());
    assert_eq!(bench.write(&bench.path("data/a")).code, 0);
}

#[rstest]
#[case(1, None, None)]
#[case(2, Some(0), Some(500))]
#[case(3, Some(1000), Some(1500))]
#[case(4, Some(2000), Some(2000))]
fn one_call_fails_or_tears(#[case] n: i64, #[case] failed: Option<u64>, #[case] torn: Option<u64>) {
    for (fail, left) in [(Disk::fail_nth as fn(&Disk, _, _), failed), (Disk::tear_nth, torn)] {
        let bench = Bench::new();
        fail(&bench.disk, n, Errno::IO);
        let output = bench.write(&bench.path("data/a"));
        assert!(output.code != 0 && output.stderr.contains("Input/output error"), "{}", output.text());
        assert_eq!((length(&bench.path("data/a")), bench.disk.is_armed()), (left, false));
        assert_eq!(bench.write(&bench.path("data/b")).code, 0);
    }
    let bench = Bench::new();
    bench.disk.fail_nth(n + 4, Errno::IO);
    assert_eq!(bench.write(&bench.path("data/a")).code, 0);
    assert!(bench.disk.is_armed());
}

#[test]
fn a_proxy_lives_with_such_a_disk_and_with_a_moved_clock() {
    let setup = Lockgate::serving(SITE, Scripted::ok("hello")).clock("2026-06-01 12:00:00").disk();
    let gate = setup.start();
    assert!(gate.disk().calls() >= 2, "its lock file is made and written: {}", gate.disk().calls());
    gate.disk().full();
    assert_eq!(gate.get(SITE).text(), "hello");
    gate.clock().advance(60);
    gate.disk().well();
}
