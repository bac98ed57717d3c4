//! config/lockgate.toml, which is documentation that must not lie.

use std::collections::HashMap;

use super::super::keys;
use super::{check_in, config, files};

const EXAMPLE: &str = include_str!("../../../config/lockgate.toml");

/// `# key = value` and `# [table]` without their `# `.
fn defaults_written(text: &str) -> String {
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let is_table = |line: &str| line.starts_with('[') && line.ends_with(']') && !line.contains(' ');
    let written = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) || is_table(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| written(line) + "\n").collect()
}

/// `# e.g. key = value` without its `# e.g. `.
fn examples_written(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("# e.g. ").unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn its_defaults_are_the_defaults() {
    let written = defaults_written(EXAMPLE);
    assert!(written.lines().filter(|line| !line.starts_with('#')).count() > 40, "{written}");
    assert_eq!(config(&written), config(EXAMPLE));
}

#[test]
fn its_examples_are_right() {
    let ca = rcgen::generate_simple_self_signed(["origin.example.org".to_owned()]).unwrap().cert.pem();
    let text = examples_written(&defaults_written(EXAMPLE));
    let dir = files(&[("lockgate.toml", &text), ("certs/origin-ca.pem", &ca)]);
    assert_eq!(check_in(&dir), "fine");
}

#[test]
fn every_key_is_in_it() {
    let text = examples_written(&defaults_written(EXAMPLE));
    let mut tables: HashMap<String, String> = HashMap::new();
    let mut table = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            table = line.replace("plans.basic", "plans.NAME");
        } else if let Some((key, values)) = line.split_once(" = {") {
            tables.entry(key.to_owned()).or_default().push_str(&format!("\n{}", values.replace([',', '{'], "\n")));
        }
        tables.entry(table.clone()).or_default().push_str(&format!("\n{line}"));
    }
    for keys in keys::ALL {
        for key in keys.known {
            // A key for tables is there by their headers.
            let header = |header: &String| header.trim_matches(['[', ']']).split('.').any(|part| part == *key);
            let is_there = tables[keys.table].lines().any(|line| line.trim().starts_with(&format!("{key} = ")));
            assert!(is_there || tables.keys().any(header), "`{key}` of `{}` is not in the example", keys.table);
        }
    }
}
