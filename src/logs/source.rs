//! What a log is packed in: told by its first bytes, never by its name.

use std::io::{self, Cursor, ErrorKind, Read};

use flate2::read::MultiGzDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames without content, which parallel compressors put first: `0x184d2a50` to `0x184d2a5f`.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The plain text of `input`, which may be gzip of several members or zstd of several frames.
///
/// # Errors
/// If its beginning cannot be read.
pub fn unpacked<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::with_capacity(ZSTD.len());
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut first)?;
    let is_zstd = first == ZSTD || matches!(*first, [0x50..=0x5f, a, b, c] if [a, b, c] == ZSTD_SKIPPABLE);
    let is_gzip = first.starts_with(&GZIP);
    let whole = Cursor::new(first).chain(input);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    })
}

/// Why no more could be read, in words for a person.
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it breaks off in the middle: is it complete?".to_owned(),
        ErrorKind::IsADirectory => "it is a directory: name the files in it".to_owned(),
        // What the decompressors say; the system's own errors have a number.
        _ if error.raw_os_error().is_none() => format!("it is damaged: {error}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn read(input: &[u8]) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        match unpacked(input).and_then(|mut plain| plain.read_to_end(&mut text)) {
            Ok(_) => Ok(text),
            Err(error) => Err(explain(&error)),
        }
    }

    #[test]
    fn what_it_is_packed_in_is_seen_from_its_first_bytes() {
        let skippable = b"\x53\x2a\x4d\x18\x02\x00\x00\x00ab";
        for input in [
            b"one\ntwo\n".to_vec(),
            [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat(),
            [zstd(b"one\n"), zstd(b"two\n")].concat(),
            [skippable.to_vec(), zstd(b"one\ntwo\n")].concat(),
        ] {
            assert_eq!(read(&input).unwrap(), b"one\ntwo\n");
        }
        for short in [&b""[..], b"a", b"\x28\xb5", b"abc"] {
            assert_eq!(read(short).unwrap(), short);
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_says_so() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        for packed in [gzip(&text), zstd(&text)] {
            assert_eq!(read(&packed[..packed.len() / 2]).unwrap_err(), "it breaks off in the middle: is it complete?");
        }
        let mut damaged = gzip(&text);
        let end = damaged.len() - 8;
        damaged[end] ^= 1;
        assert!(read(&damaged).unwrap_err().starts_with("it is damaged: "));
    }
}
