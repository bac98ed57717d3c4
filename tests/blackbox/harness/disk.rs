//! The disk as the program under test sees it: it fails when a test says so, by a library that stands between the
//! program and its system calls. Concerned is what writes below one directory: `write`, `fsync`, `ftruncate` and their
//! kin, and opening a file that may be made.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use super::process::{preload, run};

/// The disk below one directory, for one process.
#[derive(Debug)]
pub struct Disk {
    /// The directory, which need not be there yet.
    concerned: PathBuf,
    library: PathBuf,
    control_file: PathBuf,
    /// Four integers, mapped by the library: see `disk.c`.
    control: File,
}

/// What an integer of the control file tells.
#[derive(Debug, Clone, Copy)]
enum Field {
    Mode = 0,
    Countdown = 1,
    Error = 2,
    Calls = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well = 0,
    AllFail = 1,
    NthFails = 2,
    NthTears = 3,
}

impl Disk {
    /// A disk that is well, below `dir/concerned`; `dir` keeps what it needs.
    #[track_caller]
    pub fn new(dir: &Path, concerned: &str) -> Self {
        // The library compares paths as the system resolves them.
        let dir = dir.canonicalize().expect("a directory that is there");
        let [source, library, control_file] = ["disk.c", "disk.so", "disk.control"].map(|name| dir.join(name));
        fs::write(&source, include_str!("disk.c")).expect("source");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let compiled = run(&mut compiler);
        assert_eq!(compiled.code, 0, "cc: {}", compiled.text());
        fs::write(&control_file, [0; 32]).expect("control file");
        let control = File::options().read(true).write(true).open(&control_file).expect("control file");
        Self { concerned: dir.join(concerned), library, control_file, control }
    }

    /// Lets `command` live with this disk.
    pub fn govern(&self, command: &mut Command) {
        preload(command, &self.library);
        command.env("DISK_DIR", &self.concerned).env("DISK_CONTROL", &self.control_file);
    }

    /// Nothing fails any more.
    pub fn well(&self) {
        self.set(Field::Mode, Mode::Well as i64);
    }

    /// Everything fails for want of space.
    pub fn full(&self) {
        self.fail(Mode::AllFail, 0, Errno::NOSPC);
    }

    /// Everything fails because nothing may be written, as after the system met an error in the file system.
    pub fn read_only(&self) {
        self.fail(Mode::AllFail, 0, Errno::ROFS);
    }

    /// Everything fails as on a device that is about to die.
    pub fn broken(&self) {
        self.fail(Mode::AllFail, 0, Errno::IO);
    }

    /// The `n`th call from now fails, the first being 1; no other.
    pub fn fail_nth(&self, n: i64, errno: Errno) {
        self.fail(Mode::NthFails, n, errno);
    }

    /// Like [`Self::fail_nth`]; but if it writes, half of it is written, and the rest fails.
    pub fn tear_nth(&self, n: i64, errno: Errno) {
        self.fail(Mode::NthTears, n, errno);
    }

    /// Whether a failure is still to come: everything fails, or the nth call was not made yet.
    pub fn is_armed(&self) -> bool {
        self.get(Field::Mode) != Mode::Well as i64
    }

    /// Calls so far, failed ones too.
    pub fn calls(&self) -> i64 {
        self.get(Field::Calls)
    }

    /// The mode goes last: by then the others say what it needs.
    fn fail(&self, mode: Mode, countdown: i64, errno: Errno) {
        self.well();
        self.set(Field::Countdown, countdown);
        self.set(Field::Error, errno.raw_os_error().into());
        self.set(Field::Mode, mode as i64);
    }

    fn set(&self, field: Field, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), field as u64 * 8).expect("control file");
    }

    fn get(&self, field: Field) -> i64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, field as u64 * 8).expect("control file");
        i64::from_ne_bytes(bytes)
    }
}
