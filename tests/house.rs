//! The floors of `src/lib.rs`, held by machine: a room uses only what lies on its own floor or below.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor, the ground first.
const FLOORS: [&[&str]; 6] = [
    &["clock", "name", "text"],
    &[
        "access",
        "advice",
        "alert",
        "certificate",
        "challenge",
        "checkup",
        "issuance",
        "meter",
        "on_demand",
        "plan",
        "probes",
        "refusal",
        "remedy",
        "secret",
        "site",
        "snapshot",
        "throttle",
        "usage",
    ],
    &["dns", "issuer", "journal", "logs", "origin", "pairs", "store", "vault"],
    &["control"],
    &["admin", "proxy", "upkeep"],
    &["cli", "config", "server"],
];
const RULES: usize = 1;
const WALKS: usize = 4;

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The room that a file below `src` belongs to.
fn room_of(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a `use crate::` line or a path in the code names.
fn used(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn no_room_uses_a_floor_above_its_own_and_the_walks_do_not_know_each_other() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        let inside = file.strip_prefix(&src).unwrap();
        let room = room_of(inside);
        if room == "lib" || room == "main" {
            continue;
        }
        let floor = floor_of(&room).unwrap_or_else(|| panic!("{room} is on no floor: give it one, here and in lib.rs"));
        // Tests may stand anywhere in the house.
        if inside.components().any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == "tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            for other in used(line).into_iter().filter(|other| *other != room) {
                let Some(other_floor) = floor_of(other) else { continue };
                // The entrance is one floor of rooms that may use each other; so are ground, rules and doors.
                // The request's way knows the rules and its origins, so that it goes on when everything else is down.
                let is_too_much = room == "proxy" && other_floor > RULES && other != "origin";
                if other_floor > floor || (floor == WALKS && other_floor == WALKS) || is_too_much {
                    wrong.push(format!("{}:{}: {room} uses {other}", inside.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_asks_for_wall_time() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let asking =
        rust_files(&src).into_iter().filter(|file| fs::read_to_string(file).unwrap().contains("SystemTime::now"));
    assert_eq!(asking.collect::<Vec<_>>(), [src.join("clock.rs")]);
}
