//! Files that a configuration names, and the configuration file itself.

use std::path::Path;

use insta::assert_snapshot;

use super::super::load::load_text;
use super::super::{Target, load};
use super::{check_in, domain, files, origin};
use crate::access::Format;

#[test]
fn included_files_hold_domains() {
    let dir = files(&[
        ("lockgate.toml", "include = [\"domains.d/*.toml\", \"more.toml\", \"domains.d/a.toml\", \"none.d/*\"]"),
        ("more.toml", &domain("").replace("www", "more")),
        ("domains.d/b.toml", &domain("").replace("www", "b")),
        ("domains.d/a.toml", &domain("certificate = [{ cert = \"a.pem\", key = \"/keys/a.key\" }]")),
        ("domains.d/.#a.toml", "an editor's"),
        ("domains.d/a.txt", "another's"),
    ]);
    let loaded = load(&dir.path().join("lockgate.toml")).unwrap();
    let names: Vec<_> = loaded.config.domains.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["www.example.com", "b.example.com", "more.example.com"]);
    assert_eq!(loaded.pairs[0].pair.cert, dir.path().join("domains.d/a.pem"));
    assert_eq!(loaded.pairs[0].pair.key, Path::new("/keys/a.key"));
}

#[test]
fn what_is_wrong_with_included_files_is_said_where_it_is() {
    let dir = files(&[
        (
            "lockgate.toml",
            "include = [\"missing.toml\", \"d\", \"[a\", \"d/*.toml\", \"*.toml\"]\n[listen]\ndefault = \"a.example\"\n",
        ),
        ("d/a.toml", "include = [\"more.toml\"]\n[plans.x]\nmax_qps = 1\n[colour]\n[[domain]]\nname = \"a.example\"\n"),
        ("d/b.toml", &domain("plan = \"x\"")),
    ]);
    std::fs::write(dir.path().join("d/c.toml"), b"a\nb = '\xff'").unwrap();
    assert_snapshot!(check_in(&dir), @r#"
    error: the included file is not UTF-8 text
    --> /etc/d/c.toml:2
     = help: save it as UTF-8

    error: the included file `/etc/missing.toml` cannot be read: No such file or directory (os error 2)
     --> /etc/lockgate.toml:1:12
      |
    1 | include = ["missing.toml", "d", "[a", "d/*.toml", "*.toml"]
      |            ^^^^^^^^^^^^^^
      |
      = help: create it, or correct the path

    error: the included file `/etc/d` is a directory
     --> /etc/lockgate.toml:1:28
      |
    1 | include = ["missing.toml", "d", "[a", "d/*.toml", "*.toml"]
      |                            ^^^
      |
      = help: name its files with a pattern, as in "domains.d/*.toml"

    error: `[a` is not a pattern of files: invalid range pattern
     --> /etc/lockgate.toml:1:33
      |
    1 | include = ["missing.toml", "d", "[a", "d/*.toml", "*.toml"]
      |                                 ^^^^
      |
      = help: write one as in "domains.d/*.toml"

    error: `*.toml` includes the file that it is written in
     --> /etc/lockgate.toml:1:51
      |
    1 | include = ["missing.toml", "d", "[a", "d/*.toml", "*.toml"]
      |                                                   ^^^^^^^^
      |
      = help: keep the included files in a directory of their own: "domains.d/*.toml"

    error: `include` in an included file
     --> /etc/d/a.toml:1:1
      |
    1 | include = ["more.toml"]
      | ^^^^^^^
      |
      = help: included files hold only `[[domain]]` and `[[certificate]]` tables: write it in the main file

    error: `plans` in an included file
     --> /etc/d/a.toml:2:2
      |
    2 | [plans.x]
      |  ^^^^^
      |
      = help: included files hold only `[[domain]]` and `[[certificate]]` tables: write it in the main file

    error: `colour` in an included file
     --> /etc/d/a.toml:4:2
      |
    4 | [colour]
      |  ^^^^^^
      |
      = help: included files hold only `[[domain]]` and `[[certificate]]` tables

    error: `origin` is missing in `[[domain]]`
     --> /etc/d/a.toml:5:1
      |
    5 | [[domain]]
      | ^^^^^^^^^^
      |
      = help: write `origin = "http://10.0.0.2:8080"`

    error: no plan is called `x`
     --> /etc/d/b.toml:4:8
      |
    4 | plan = "x"
      |        ^^^
      |
      = help: there are `basic`, `enterprise` and `pro`
    "#);
}

#[test]
fn the_file_itself_must_be_readable() {
    let dir = files(&[]);
    assert_snapshot!(check_in(&dir), @r#"
    error: the configuration file cannot be read: No such file or directory (os error 2)
    --> /etc/lockgate.toml
     = help: create it, or correct the path
    "#);
    std::fs::create_dir(dir.path().join("lockgate.toml")).unwrap();
    assert_snapshot!(check_in(&dir), @r#"
    error: the configuration file is a directory
    --> /etc/lockgate.toml
     = help: name a file in it
    "#);
    let dir = files(&[]);
    std::fs::write(dir.path().join("lockgate.toml"), b"# fine\ntimezone = \"M\xfcnchen\"").unwrap();
    assert_snapshot!(check_in(&dir), @r#"
    error: the configuration file is not UTF-8 text
    --> /etc/lockgate.toml:2
     = help: save it as UTF-8
    "#);
}

#[test]
fn the_roots_of_an_origin_are_read() {
    let ca = rcgen::generate_simple_self_signed(["origin.example".to_owned()]).unwrap().cert.pem();
    let tls = |ca: &str| origin("\"https://origin.example\"") + &format!("origin_tls = {{ ca = \"{ca}\" }}\n");
    let dir = files(&[("lockgate.toml", &tls("ca.pem")), ("ca.pem", &format!("{ca}\n{ca}"))]);
    let loaded = load(&dir.path().join("lockgate.toml")).unwrap();
    assert_eq!(loaded.config.domains[0].origin.tls.ca.as_ref().unwrap().len(), 2);

    let named = |ca: &str, name: &str| tls(ca).replace("www", name);
    let all = ["missing.pem", "empty.pem", "damaged.pem", "other.pem"].map(|ca| named(ca, &ca.replace(".pem", "")));
    let dir = files(&[
        ("lockgate.toml", &all.concat()),
        ("empty.pem", "nothing"),
        ("damaged.pem", &ca.replace("-----END", "!----END")),
        ("other.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ]);
    assert_snapshot!(check_in(&dir), @r#"
    error: the CA file `/etc/missing.pem` cannot be read: No such file or directory (os error 2)
     --> /etc/lockgate.toml:4:21
      |
    4 | origin_tls = { ca = "missing.pem" }
      |                     ^^^^^^^^^^^^^
      |
      = help: create it, or correct the path

    error: the CA file `/etc/empty.pem` holds no certificate
     --> /etc/lockgate.toml:8:21
      |
    8 | origin_tls = { ca = "empty.pem" }
      |                     ^^^^^^^^^^^
      |
      = help: name a file of PEM certificates (-----BEGIN CERTIFICATE-----)

    error: the CA file `/etc/damaged.pem` is damaged: a section has no end
      --> /etc/lockgate.toml:12:21
       |
    12 | origin_tls = { ca = "damaged.pem" }
       |                     ^^^^^^^^^^^^^
       |
       = help: name a file of PEM certificates (-----BEGIN CERTIFICATE-----)

    error: the CA file `/etc/other.pem` holds, as number 1, what is no X.509 certificate
      --> /etc/lockgate.toml:16:21
       |
    16 | origin_tls = { ca = "other.pem" }
       |                     ^^^^^^^^^^^
       |
       = help: name a file of PEM certificates (-----BEGIN CERTIFICATE-----)
    "#);
}

#[test]
fn two_domains_of_one_name_in_two_files_are_shown_together() {
    let dir = files(&[
        ("lockgate.toml", &("include = [\"d/*.toml\"]\n".to_owned() + &domain(""))),
        ("d/a.toml", &domain("plan = basic")),
    ]);
    assert_snapshot!(check_in(&dir), @r#"
    error: two domains are called `www.example.com`
     --> /etc/d/a.toml:2:8
      |
    2 | name = "www.example.com"
      |        ^^^^^^^^^^^^^^^^^ again here
      |
     ::: /etc/lockgate.toml:3:8
      |
    3 | name = "www.example.com"
      |        ----------------- first here
      |
      = help: make them one `[[domain]]`

    error: the text `basic` is not in quotes
     --> /etc/d/a.toml:4:8
      |
    4 | plan = basic
      |        ^^^^^
      |
      = help: write "basic"
    "#);
}

#[test]
fn the_access_log_is_relative_to_its_file_unless_it_is_standard_output() {
    let target = |text: &str| {
        let loaded = load_text(Path::new("/etc/lockgate/lockgate.toml"), text.to_owned()).unwrap();
        loaded.config.access_log.unwrap()
    };
    let file = |path: &str| Target::File(path.into());
    let log = target("[access_log]\npath = \"logs/access.log\"\nformat = \"combined\"");
    assert_eq!((log.target, log.format), (file("/etc/lockgate/logs/access.log"), Format::Combined));
    let log = target("[access_log]\npath = \"/var/log/access.log\"");
    assert_eq!((log.target, log.format), (file("/var/log/access.log"), Format::Json));
    assert_eq!(target("[access_log]\npath = \"stdout\"").target, Target::Stdout);
    assert_eq!(target("[access_log]\npath = \"./stdout\"").target, file("/etc/lockgate/./stdout"));
}
