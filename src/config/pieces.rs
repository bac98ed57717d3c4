//! A long file, read a piece at a time: the parser takes thirty times a text's length, and the time to fill that.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

/// About how long a piece is, in octets. Shorter files are read whole.
const PIECE_BYTES: usize = 64 * 1024;
/// What the line begins with before which a text may be cut.
const HEADER: &str = "[[domain]]";

/// Where `text` can be cut: the first piece holds everything that is not a domain's, all others hold domains alone.
/// `None`: it is read whole, because it is short, or not written in that order.
///
/// Nothing is understood of the text but its lines. A cut that is none, because it lies in a string or an array of
/// several lines, leaves behind a piece that is no TOML.
pub fn cut(text: &str) -> Option<Vec<Range<usize>>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while let Some(end) = next_cut(text, start) {
        pieces.push(start..end);
        start = end;
    }
    let (_, domains) = pieces.first().map(|first| text.split_at_checked(first.end))??;
    pieces.push(start..text.len());
    let is_a_domains = |line: &str| match line.trim_start().strip_prefix('[') {
        Some(header) => header.trim_start_matches('[').trim_start().starts_with("domain"),
        None => true,
    };
    domains.lines().all(is_a_domains).then_some(pieces)
}

/// The first piece of the file `path`, if it is cut at all. What cannot be read is told of by whoever reads all of it.
pub fn first_of(path: &Path) -> Option<String> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut octets = Vec::new();
    File::open(path).ok()?.take(2 * PIECE_BYTES as u64).read_to_end(&mut octets).ok()?;
    let octets = octets.utf8_chunks().next()?.valid();
    octets.get(..next_cut(octets, 0)?).map(str::to_owned)
}

fn next_cut(text: &str, start: usize) -> Option<usize> {
    let from = text.ceil_char_boundary(start.saturating_add(PIECE_BYTES));
    let (at, _) = text.get(from..)?.match_indices(HEADER).find(|(at, _)| {
        let before = from.saturating_add(*at);
        text.get(..before).is_some_and(|before| before.ends_with('\n'))
    })?;
    Some(from.saturating_add(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(n: usize) -> String {
        (0..n).map(|i| format!("[[domain]]\nname = 'shop-{i}.example.com'\norigin = 'http://127.0.0.1:80'\n")).collect()
    }

    #[test]
    fn pieces_begin_with_a_domain_and_are_all_of_the_text() {
        let text = format!("data_dir = 'x'\n[listen]\nhttps = ['127.0.0.1:443']\n{}", domains(20_000));
        let pieces = cut(&text).unwrap();
        assert!(pieces.len() > 4 && pieces.iter().all(|piece| piece.len() < 2 * PIECE_BYTES), "{pieces:?}");
        assert_eq!(pieces.iter().map(|piece| &text[piece.clone()]).collect::<String>(), text);
        assert!(pieces[1..].iter().all(|piece| text[piece.clone()].starts_with(HEADER)));
    }

    #[test]
    fn the_first_piece_is_read_without_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lockgate.toml");
        let text = format!("data_dir = '\u{e4}'\n{}", domains(20_000));
        std::fs::write(&file, &text).unwrap();
        assert_eq!(first_of(&file).as_deref(), cut(&text).unwrap().first().and_then(|first| text.get(first.clone())));
        std::fs::write(&file, domains(10)).unwrap();
        assert_eq!((first_of(&file), first_of(dir.path())), (None, None));
    }

    #[test]
    fn what_is_short_or_has_other_tables_among_its_domains_is_read_whole() {
        assert_eq!(cut(&domains(10)), None);
        assert_eq!(cut(""), None);
        assert_eq!(cut(&format!("{}[limits]\n{}", domains(10_000), domains(10_000))), None);
        assert!(cut(&format!("{}[domain.acme]\nstandby = false\n", domains(10_000))).is_some());
    }
}
