//! Secrets of any kind, in the places that the configuration names.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::super::places::read_trimmed;
use super::*;

#[rstest]
#[case::plain("token", "token")]
#[case::a_line("token\r\n", "token")]
#[case::white_space_inside("two words\n\n", "two words")]
#[case::white_space_before(" token\t", " token")]
fn white_space_at_the_end_does_not_belong_to_a_secret(#[case] written: &str, #[case] secret: &str) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, written).unwrap();
    let directory = dir.path().as_os_str().to_owned();
    let env = |name: &str| match name {
        "SECRET" => Some(OsString::from(written)),
        "CREDENTIALS_DIRECTORY" => Some(directory.clone()),
        _ => None,
    };
    let sources =
        [SecretSource::File(path), SecretSource::Env("SECRET".into()), SecretSource::Credential("secret".into())];
    for source in sources {
        assert_eq!(read_trimmed(&source, env).unwrap().as_slice(), secret.as_bytes(), "{source}");
    }
}

/// Files in a directory, and a name in it; what is wrong, and what would be right.
#[rstest]
#[case::missing("missing", "cannot be read: No such file", "readable for Lockgate's user alone")]
#[case::a_directory("directory", "is not a regular file", "name one that holds the secret")]
#[case::a_pipe("pipe", "is not a regular file", "name one that holds the secret")]
#[case::empty("empty", "is empty", "put the secret there")]
#[case::blank("blank", "is empty", "put the secret there")]
#[case::large("large", "has more than 65536 octets", "the secret and nothing else")]
fn a_file_that_holds_no_secret_says_why(#[case] name: &str, #[case] wrong: &str, #[case] right: &str) {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("blank"), " \n").unwrap();
    fs::write(dir.path().join("large"), vec![b'x'; 64 * 1024 + 1]).unwrap();
    let path = dir.path().join(name);
    let error = read_secret(&SecretSource::File(path.clone())).unwrap_err().to_string();
    assert!(error.starts_with(&format!("the file {} {wrong}", path.display())) && error.contains(right), "{error}");
}

#[rstest]
#[case::unset(SecretSource::Env("NO".into()), "the environment variable NO is not set: set it")]
#[case::empty(SecretSource::Env("EMPTY".into()), "the environment variable EMPTY is empty")]
#[case::blank(SecretSource::Env("BLANK".into()), "the environment variable BLANK is empty")]
#[case::large(SecretSource::Env("LARGE".into()), "the environment variable LARGE has more than 65536 octets")]
#[case::no_credentials(SecretSource::Credential("it".into()), "the systemd credential it is not there, for $CREDENTIALS")]
#[case::a_path(SecretSource::Credential("../it".into()), "the systemd credential ../it has a name that no")]
#[case::parent(SecretSource::Credential("..".into()), "the systemd credential .. has a name that no")]
fn a_place_without_a_secret_says_so(#[case] source: SecretSource, #[case] wrong: &str) {
    let env = |name: &str| match name {
        "EMPTY" => Some(OsString::new()),
        "BLANK" => Some(OsString::from(" ")),
        "LARGE" => Some(OsString::from("x".repeat(64 * 1024 + 1))),
        _ => None,
    };
    let error = read_trimmed(&source, env).unwrap_err();
    assert_eq!(error.place, source);
    assert!(error.to_string().starts_with(wrong), "{error}");
}

#[test]
fn the_environment_is_the_processs() {
    // Whoever runs tests has one.
    let secret = read_secret(&SecretSource::Env("PATH".to_owned())).unwrap();
    assert_eq!(secret.as_slice(), std::env::var("PATH").unwrap().trim_end().as_bytes());
}

#[rstest]
#[case(0o600, None)]
#[case(0o400, None)]
#[case(0o620, None)]
#[case(0o640, Some("its group"))]
#[case(0o440, Some("its group"))]
#[case(0o644, Some("everybody on this machine"))]
#[case(0o604, Some("everybody on this machine"))]
fn whoever_else_can_read_a_secret_is_named(#[case] mode: u32, #[case] readers: Option<&str>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let shown = path.display();
    let right = readers.map(|readers| {
        format!("{shown} holds a secret, and {readers} can read it (mode {mode:04o}): chmod 600 {shown}")
    });
    assert_eq!(exposure(&path), right);
    assert_eq!(exposure(&dir.path().join("missing")), None);
}
