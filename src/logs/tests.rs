use super::*;
use proptest::prelude::*;

/// What was counted of these logs, by host's name and bucket.
fn counted(logs: &[(&str, &[u8])], max_hosts: usize, max_counts: usize) -> (Vec<(String, i64, u64)>, ReadLines) {
    let mut reader = Reader::with_limits(Vec::new(), max_hosts, max_counts);
    logs.iter().for_each(|(name, log)| reader.read(name, name, *log).unwrap());
    all_of(reader)
}

fn all_of(reader: Reader) -> (Vec<(String, i64, u64)>, ReadLines) {
    let mut harvest = reader.finish().unwrap();
    let mut all = Vec::new();
    while let Some((host, bucket, count)) = harvest.pop().unwrap() {
        all.push((harvest.name(host).to_owned(), bucket.0, count));
    }
    all.sort_unstable();
    (all, harvest.read)
}

fn common(secs: i64) -> String {
    let at = jiff::Timestamp::from_second(secs).unwrap().strftime("%d/%b/%Y:%H:%M:%S %z");
    format!("192.0.2.1 - - [{at}] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"\n")
}

#[test]
fn formats_may_be_mixed_and_garbage_is_counted_with_its_place() {
    let log = [
        common(1_700_000_000).as_bytes(),
        b"\n",
        b"www.example.com:443 192.0.2.1 - - [14/Nov/2023:22:13:25 +0000] \"GET / HTTP/1.1\" 200 5\r\n",
        b"{\"ts\":1700000005.5,\"request\":{\"host\":\"WWW.Example.com\"},\"duration\":0.25,\"status\":200}\n",
        b"{\"ts\":\"2023-11-14T22:13:29.999Z\",\"domain\":\"www.example.com\",\"client\":\"192.0.2.1\"}\n",
        b"\x00\xff\n",
        "x".repeat(70_000).as_bytes(),
        b"\n",
        b"{\"ts\":1e15,\"request\":{\"host\":\"a b\"}}\n",
        b"{\"ts\":1700000000,\"request\":{\"host\":\"a.test\"},\"duration\":1e200}",
    ]
    .concat();
    let (counts, read) = counted(&[("access.log", &log)], 10, 10);
    let www = "www.example.com".to_owned();
    assert_eq!(counts, [("access.log".to_owned(), 170_000_000, 1), (www, 170_000_000, 3)]);
    assert_eq!((read.lines, read.skipped, read.passed_over), (9, 4, 1));
    let places: Vec<_> = read.places.iter().map(|place| (&*place.log, place.line, place.why)).collect();
    let at = |line, why| ("access.log", line, why);
    assert_eq!(places, [at(6, Why::Unknown), at(7, Why::TooLong), at(8, Why::NoHost), at(9, Why::NoTime)]);
}

#[test]
fn only_the_first_places_are_kept() {
    let (_, read) = counted(&[("a", "x\n".repeat(1000).as_bytes())], 10, 10);
    assert_eq!((read.skipped, read.places.len()), (1000, MAX_SKIPPED_SHOWN));
}

#[test]
fn hosts_that_are_too_many_are_skipped_lines() {
    let line = |host| format!("{host}:443 {}", common(0));
    let log = ["a.test", "b.test", "c.test", "a.test"].map(line).concat();
    let (counts, read) = counted(&[("x", log.as_bytes())], 2, 10);
    assert_eq!(counts, [("a.test".to_owned(), 0, 2), ("b.test".to_owned(), 0, 1)]);
    assert_eq!((read.skipped, read.places[0].why), (1, Why::TooManyHosts));
}

#[test]
fn what_stands_before_the_end_of_a_broken_log_counts() {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..5000).for_each(|i| gzip.write_all(common(i * 7919).as_bytes()).unwrap());
    let packed = gzip.finish().unwrap();
    let mut reader = Reader::new(Vec::new());
    let error = reader.read("a.gz", "a", &packed[..packed.len() / 2]).unwrap_err();
    assert_eq!(error.to_string(), "it breaks off in the middle: is it complete?");
    let read = reader.finish().unwrap().read;
    assert!((1000..4000).contains(&read.lines) && read.skipped == 0, "{read:?}");
}

proptest! {
    /// Lines of two servers in any order and cut anywhere into files, in little memory or much.
    #[test]
    fn the_order_of_lines_does_not_matter(
        (requests, shuffled) in prop::collection::vec((0usize..3, 0i64..2000), 1..80)
            .prop_flat_map(|requests| (Just(requests.clone()), Just(requests).prop_shuffle())),
        cut in 0usize..80,
        max_counts in 1usize..30,
    ) {
        let text = |requests: &[(usize, i64)]| -> String {
            requests.iter().map(|(host, secs)| format!("{} {}", ["a.test", "b.test:80", "C.test"][*host], common(*secs))).collect()
        };
        let (first, second) = shuffled.split_at(cut.min(shuffled.len()));
        let (first, second, whole) = (text(first), text(second), text(&requests));
        let parts = counted(&[("1", first.as_bytes()), ("2", second.as_bytes())], 100, max_counts);
        prop_assert_eq!(parts, counted(&[("1", whole.as_bytes())], 100, usize::MAX));
    }

    #[test]
    fn no_octets_do_harm(log in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut reader = Reader::with_limits(Vec::new(), 10, 10);
        // What begins as if it were packed is said to be damaged.
        let is_packed = log.starts_with(&[0x1f, 0x8b]) || log.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        prop_assert!(reader.read("a", "a", &*log).is_ok() || is_packed);
        let (counts, read) = all_of(reader);
        prop_assert_eq!(read.lines, read.skipped + read.passed_over + counts.iter().map(|(_, _, count)| count).sum::<u64>());
    }
}
