//! Lines as they are written, byte by byte.

use http::{HeaderValue, Request};
use proptest::prelude::*;
use rstest::rstest;

use super::*;

const ARRIVAL: UnixTime = UnixTime::from_ms(1_780_315_200_123);

fn end(now: Instant) -> End<'static> {
    End {
        domain: "*.example.com",
        port: 443,
        tenant: Some("acme-gmbh"),
        client: b"192.0.2.1",
        status: 200,
        bytes: 123,
        now,
        throttled: false,
    }
}

fn head(uri: &str, fields: &[(&'static str, &[u8])]) -> request::Parts {
    let mut request = Request::builder().uri(uri).body(()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.into_parts().0
}

fn line(format: Format, head: &request::Parts, change: impl FnOnce(&mut End<'static>)) -> String {
    let began = Instant::now();
    let mut note = Note::blank(began);
    note.take(ARRIVAL, began, "a.example.com", head);
    let mut end = end(began + Duration::from_micros(1234));
    change(&mut end);
    let mut line = Vec::new();
    note.write(format, &end, &mut line);
    String::from_utf8(line).unwrap()
}

fn json(head: &request::Parts) -> serde_json::Value {
    serde_json::from_str(&line(Format::Json, head, |_| {})).unwrap()
}

#[test]
fn a_json_line_has_every_key_in_its_order() {
    let fields: [(_, &[u8]); 2] = [("referer", b"https://example.org/"), ("user-agent", b"curl/8")];
    let full = head("/path?query", &fields);
    assert_eq!(
        line(Format::Json, &full, |_| {}),
        concat!(
            r#"{"ts":"2026-06-01T12:00:00.123Z","domain":"*.example.com","host":"a.example.com","tenant":"acme-gmbh","#,
            r#""client":"192.0.2.1","method":"GET","uri":"/path?query","protocol":"HTTP/1.1","status":200,"bytes":123,"#,
            r#""duration_ms":1.234,"throttled":false,"referer":"https://example.org/","user_agent":"curl/8"}"#,
            "\n"
        )
    );
}

#[test]
fn what_was_not_sent_is_left_out() {
    let bare = line(Format::Json, &head("/", &[]), |end| {
        end.tenant = None;
        end.status = 429;
        end.bytes = u64::MAX;
        end.throttled = true;
    });
    assert_eq!(
        bare,
        concat!(
            r#"{"ts":"2026-06-01T12:00:00.123Z","domain":"*.example.com","host":"a.example.com","client":"192.0.2.1","#,
            r#""method":"GET","uri":"/","protocol":"HTTP/1.1","status":429,"bytes":18446744073709551615,"#,
            r#""duration_ms":1.234,"throttled":true}"#,
            "\n"
        )
    );
    assert_eq!(json(&head("/", &[("user-agent", b"")]))["user_agent"], "");
}

#[rstest]
#[case(br#"a "quoted" \ word"#, r#"a \"quoted\" \\ word"#)]
#[case("Grüße\t€".as_bytes(), r"Grüße\t€")]
#[case(b"Gr\xfc\xdfe", r"Gr\ufffd\ufffde")]
#[case(b"half \xe2\x82", r"half \ufffd")]
#[case("\u{9b}31m".as_bytes(), r"\u009B31m")]
fn json_escapes_what_it_must(#[case] sent: &[u8], #[case] written: &str) {
    let line = line(Format::Json, &head("/", &[("user-agent", sent)]), |_| {});
    assert!(line.ends_with(&format!("\"user_agent\":\"{written}\"}}\n")), "{line}");
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["user_agent"], String::from_utf8_lossy(sent).as_ref());
}

#[rstest]
#[case("example.com", "example.com:443")]
#[case("*.example.com", "*.example.com:443")]
#[case("2001:db8::1", "[2001:db8::1]:443")]
fn a_combined_line_is_apaches_vhost_combined(#[case] domain: &'static str, #[case] shown: &str) {
    let fields: [(_, &[u8]); 2] = [("referer", b"https://example.org/?q=\"\\"), ("user-agent", b"M\xfcller\t1")];
    let line = line(Format::Combined, &head("/x?y", &fields), |end| end.domain = domain);
    assert_eq!(
        line,
        format!(
            r#"{shown} 192.0.2.1 - - [01/Jun/2026:12:00:00 +0000] "GET /x?y HTTP/1.1" 200 123 "https://example.org/?q=\x22\x5C" "M\xFCller\x091""#
        ) + "\n"
    );
}

#[test]
fn a_combined_line_says_what_was_not_sent() {
    let line = line(Format::Combined, &head("/", &[("referer", b"")]), |_| {});
    assert!(line.ends_with("200 123 \"-\" \"-\"\n"), "{line}");
}

#[test]
fn long_values_are_cut_between_characters() {
    let long = [b"x".repeat(MAX_FIELD_BYTES - 1), "€uro".into()].concat();
    let read = json(&head(&format!("/{}", "u".repeat(5000)), &[("user-agent", &long), ("referer", &long[1..])]));
    assert_eq!(read["uri"].as_str().unwrap().len(), MAX_URI_BYTES);
    assert_eq!(read["user_agent"], "x".repeat(MAX_FIELD_BYTES - 1));
    assert_eq!(read["referer"], "x".repeat(MAX_FIELD_BYTES - 2));
    // What is no UTF-8 anyway is cut where the limit is, or a little before.
    let odd = [0x80; 600];
    assert!(cut(&odd, MAX_FIELD_BYTES).len() >= MAX_FIELD_BYTES - 3);
    assert_eq!(cut(b"abc", 3), b"abc");
}

#[test]
fn a_note_forgets_the_request_before() {
    let began = Instant::now();
    let mut note = Note::blank(began);
    note.take(ARRIVAL, began, "long.example.com", &head("/long?long", &[("user-agent", b"long")]));
    let mut second = head("/2", &[]);
    second.version = Version::HTTP_2;
    second.method = http::Method::from_bytes(b"VERSION-CONTROL").unwrap();
    note.take(UnixTime::from_ms(5), began, "b.test", &second);
    let mut line = Vec::new();
    note.write(Format::Json, &End { tenant: None, ..end(began) }, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        concat!(
            r#"{"ts":"1970-01-01T00:00:00.005Z","domain":"*.example.com","host":"b.test","client":"192.0.2.1","#,
            r#""method":"VERSION-CONTROL","uri":"/2","protocol":"HTTP/2.0","status":200,"bytes":123,"#,
            r#""duration_ms":0.000,"throttled":false}"#,
            "\n"
        )
    );
}

#[rstest]
#[case(-1, "1969-12-31T23:59:59.999Z", "31/Dec/1969:23:59:59 +0000")]
#[case(951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000")]
#[case(i64::MAX, "@9223372036854775", "01/Jan/0000:00:00:00 +0000")]
fn times(#[case] ms: i64, #[case] json: &str, #[case] combined: &str) {
    let (mut line, at) = (Vec::new(), UnixTime::from_ms(ms));
    push_rfc3339(&mut line, at);
    line.push(b' ');
    push_combined_time(&mut line, at);
    assert_eq!(String::from_utf8(line).unwrap(), format!("{json} {combined}"));
}

proptest! {
    #[test]
    fn whatever_is_sent_a_line_is_one_line(sent in prop::collection::vec(any::<u8>(), 0..700)) {
        let Ok(value) = HeaderValue::from_bytes(&sent) else { return Ok(()) };
        let head = head("/", &[("user-agent", value.as_bytes())]);
        let json = line(Format::Json, &head, |_| {});
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read["user_agent"].as_str().unwrap(), String::from_utf8_lossy(cut(&sent, MAX_FIELD_BYTES)));
        let combined = line(Format::Combined, &head, |_| {});
        for line in [json, combined] {
            prop_assert_eq!(line.bytes().filter(|b| *b == b'\n').count(), 1);
            prop_assert!(!line.trim_end_matches('\n').contains(char::is_control));
        }
    }

    #[test]
    fn numbers_are_numbers(n in any::<u64>(), width in 1usize..21) {
        let mut line = Vec::new();
        push_number(&mut line, n, width);
        prop_assert_eq!(String::from_utf8(line).unwrap(), format!("{n:0width$}"));
    }
}
