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

/// `# or key = value`, each time instead of the `# e.g.` line above it: as many texts as there are alternatives.
fn alternatives_written(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_alternative = |(_, line): &(usize, &&str)| line.starts_with("# or ");
    let alternatives = lines.iter().enumerate().filter(is_alternative).map(|(at, line)| {
        let mut lines = lines.clone();
        let replaced = (0..at).rev().find(|above| lines[*above].starts_with("# e.g. ")).unwrap();
        lines[replaced] = line.strip_prefix("# or ").unwrap();
        lines.join("\n")
    });
    alternatives.collect()
}

#[test]
fn its_examples_are_right() {
    let ca = rcgen::generate_simple_self_signed(["origin.example.org".to_owned()]).unwrap().cert.pem();
    let is_right = |text: &str| {
        let text = examples_written(&defaults_written(text));
        let dir = files(&[
            ("lockgate.toml", &text),
            ("certs/origin-ca.pem", &ca),
            ("certs/acme-root.pem", &ca),
            ("certs/vault-root.pem", &ca),
            ("tsig.key", "secret"),
            ("eab.key", "secret"),
            ("vault.key", "secret"),
            ("vault.token", "secret"),
            ("dns.token", "secret"),
        ]);
        assert_eq!(check_in(&dir), "fine");
    };
    is_right(EXAMPLE);
    let alternatives = alternatives_written(EXAMPLE);
    assert!(alternatives.len() > 5, "{alternatives:?}");
    alternatives.iter().for_each(|text| is_right(text));
}

#[test]
fn every_key_is_in_it() {
    let text = examples_written(&defaults_written(EXAMPLE)).replace("# or ", "");
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
    // What can stand in `dns` can stand in `[acme.dns]`.
    let dns = tables[keys::DNS.table].clone();
    tables.get_mut(keys::ACME_DNS.table).unwrap().push_str(&dns);
    for keys in keys::ALL {
        for key in keys.known {
            // A key for tables is there by their headers.
            let header = |header: &String| header.trim_matches(['[', ']']).split('.').any(|part| part == *key);
            let is_there = tables[keys.table].lines().any(|line| line.trim().starts_with(&format!("{key} =")));
            assert!(is_there || tables.keys().any(header), "`{key}` of `{}` is not in the example", keys.table);
        }
    }
}
