//! What is no TOML, and what can be said beside it.

use insta::assert_snapshot;

use super::{check, wrong};

#[test]
fn what_is_no_toml_is_reported_beside_the_rest() {
    assert_snapshot!(check(r#"
data_dir = /var/lib/lockgate
timezone = "Mars/Olympus"
workers =
[[domain]]
name = www.example.com
origin = "http://10.0.0.2:8080
plan = "basic"
plan = "pro"
"#), @r#"
    error: the text `/var/lib/lockgate` is not in quotes
     --> lockgate.toml:2:12
      |
    2 | data_dir = /var/lib/lockgate
      |            ^^^^^^^^^^^^^^^^^
      |
      = help: write "/var/lib/lockgate"

    error: no time zone is called `Mars/Olympus`
     --> lockgate.toml:3:12
      |
    3 | timezone = "Mars/Olympus"
      |            ^^^^^^^^^^^^^^
      |
      = help: write an IANA name such as "Asia/Shanghai", "Europe/Berlin" or "UTC"

    error: a key without a value
     --> lockgate.toml:4:10
      |
    4 | workers =
      |          ^
      |
      = help: write `key = value`, or begin the line with `#`

    error: the text `www.example.com` is not in quotes
     --> lockgate.toml:6:8
      |
    6 | name = www.example.com
      |        ^^^^^^^^^^^^^^^
      |
      = help: write "www.example.com"

    error: the text in quotes does not end on its line, or has a character that must be escaped
     --> lockgate.toml:7:31
      |
    7 | origin = "http://10.0.0.2:8080
      |                               ^
      |
      = help: end it with the quote that it begins with

    error: `plan` is written twice
     --> lockgate.toml:9:1
      |
    9 | plan = "pro"
      | ^^^^
      |
      = help: write it once; tables that may repeat have two brackets, as in `[[domain]]`
    "#);
}

#[test]
fn an_unclosed_bracket_is_found() {
    assert_snapshot!(check("[listen\nhttps = [\"[::]:443\"\n[[domain]]\nname = \"a.example\"\n"), @r#"
    error: not TOML: unclosed table
     --> lockgate.toml:1:8
      |
    1 | [listen
      |        ^
      |
      = help: expected here: `]`

    error: not TOML: missing comma between array elements
     --> lockgate.toml:3:1
      |
    3 | [[domain]]
      | ^
      |
      = help: expected here: `,`

    error: not TOML: missing comma between array elements
     --> lockgate.toml:4:1
      |
    4 | name = "a.example"
      | ^
      |
      = help: expected here: `,`
    "#);
}

#[test]
fn what_follows_from_a_fault_is_not_reported_beside_it() {
    // The plan may be the one in the line that is no TOML, and so may the origin.
    let text = "[plans.gold\nmax_qps = 1\n[[domain]]\nname = \"a.example\"\nplan = \"gold\"\n";
    assert_eq!(wrong(text).0, "not TOML: unclosed table");
    assert_eq!(wrong("[[domain]]\nname = \"a.example\"\norgin = \"http://a\"").1, "did you mean `origin`?");
}
