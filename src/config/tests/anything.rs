//! Whatever is written, the reader answers.

use proptest::prelude::*;

use super::super::keys;
use super::check;

/// Pieces that files are made of, so that random ones get past the first line.
fn piece() -> impl Strategy<Value = String> {
    let known = keys::ALL.iter().flat_map(|keys| keys.known.iter().copied()).collect::<Vec<_>>();
    prop_oneof![
        proptest::sample::select(known).prop_map(|key| format!("{key} = ")),
        proptest::sample::select(keys::ALL.map(|keys| format!("\n{}\n", keys.table)).to_vec()),
        proptest::sample::select(vec![
            "[", "]", "{", "}", "=", ",", ".", "\n", "\r\n", "\"", "'''", "#", "\t", "\u{feff}"
        ])
        .prop_map(str::to_owned),
        proptest::sample::select(vec![
            "\"30s\"\n",
            "\"[::]:443\"\n",
            "\"http://a:1\"\n",
            "[\"x\"]\n",
            "true\n",
            "-1\n"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        any::<i64>().prop_map(|n| format!("{n}\n")),
    ]
}

proptest! {
    #[test]
    fn nothing_written_panics(pieces in proptest::collection::vec(piece(), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn no_slip_in_a_good_file_panics(at in 0..4096_usize, drop in 0..30_usize, put in piece()) {
        let mut text: Vec<char> = include_str!("../../../config/lockgate.toml").replace("# ", "").chars().collect();
        let at = at.min(text.len());
        text.splice(at..(at + drop).min(text.len()), put.chars());
        let text: String = text.into_iter().collect();
        check(&text);
    }
}
