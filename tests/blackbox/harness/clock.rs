//! Wall time as the program under test sees it, moved by libfaketime while it runs. Monotonic time is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::process::preload;

const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// Unix seconds of a UTC date as tests write it: `2026-06-01 12:00:00`.
#[track_caller]
pub fn utc(date: &str) -> i64 {
    let at: jiff::Timestamp = format!("{date}Z").parse().expect("a date like 2026-06-01 12:00:00");
    at.as_second()
}

/// A wall clock of one process: it stands until it is moved, or flows from where it was put.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Stopped { ms: i64 },
    Flowing { offset_ms: i64 },
}

impl Clock {
    /// A clock kept in `dir`, standing at `date`.
    pub fn stopped(dir: &Path, date: &str) -> Self {
        let clock = Self { file: dir.join("clock"), state: Mutex::new(State::Stopped { ms: 0 }) };
        clock.stop_at(date);
        clock
    }

    /// A clock kept in `dir`, flowing from `date`.
    pub fn flowing(dir: &Path, date: &str) -> Self {
        let clock = Self::stopped(dir, date);
        clock.flow_from(date);
        clock
    }

    /// Puts the clock to `date`, where it stands.
    #[track_caller]
    pub fn stop_at(&self, date: &str) {
        self.set(State::Stopped { ms: utc(date) * 1000 });
    }

    /// Puts the clock to `date`, from where it flows.
    #[track_caller]
    pub fn flow_from(&self, date: &str) {
        self.set(State::Flowing { offset_ms: utc(date) * 1000 - real_ms() });
    }

    /// Moves the clock by `secs`, standing or flowing as it was.
    pub fn advance(&self, secs: i64) {
        let now = self.state();
        self.set(match now {
            State::Stopped { ms } => State::Stopped { ms: ms + secs * 1000 },
            State::Flowing { offset_ms } => State::Flowing { offset_ms: offset_ms + secs * 1000 },
        });
    }

    /// Unix milliseconds, as the program reads them at this moment.
    pub fn now_ms(&self) -> i64 {
        match self.state() {
            State::Stopped { ms } => ms,
            State::Flowing { offset_ms } => real_ms() + offset_ms,
        }
    }

    /// Lets `command` live by this clock.
    pub fn govern(&self, command: &mut Command) {
        let library = LIBRARIES.iter().find(|path| Path::new(path).exists()).expect("libfaketime (apt: faketime)");
        preload(command, Path::new(library));
        command
            .env("TZ", "UTC")
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }

    fn state(&self) -> State {
        *self.state.lock().expect("clock")
    }

    /// The file is renamed into place: it is never read half-written.
    fn set(&self, state: State) {
        let text = match state {
            State::Stopped { ms } => {
                let at = jiff::Timestamp::from_millisecond(ms).expect("a date that exists");
                at.strftime("%Y-%m-%d %H:%M:%S").to_string()
            }
            State::Flowing { offset_ms } => {
                let sign = if offset_ms < 0 { '-' } else { '+' };
                format!("{sign}{}.{:03}", offset_ms.abs() / 1000, offset_ms.abs() % 1000)
            }
        };
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, text).expect("clock file");
        fs::rename(&fresh, &self.file).expect("clock file");
        *self.state.lock().expect("clock") = state;
    }
}

fn real_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
}
