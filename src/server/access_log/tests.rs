//! The writer against a disk that takes a part, or nothing: a pipe of 64 KiB that says so instead of waiting.

use std::io::PipeReader;
use std::os::fd::OwnedFd;

use super::*;

const LINES: u64 = 5000;

fn writer() -> (Writer, PipeReader, Arc<Counters>) {
    let (reader, pipe) = io::pipe().unwrap();
    let file = File::from(OwnedFd::from(pipe));
    fcntl_setfl(&file, OFlags::NONBLOCK).unwrap();
    let counters = Arc::new(Counters::register(&prometheus::Registry::new()).unwrap());
    let writer = Writer {
        file,
        target: Target::Stdout,
        queue: Arc::new(Queue::new(Arc::clone(&counters))),
        progress: Arc::default(),
        before: None,
        is_first: true,
        failing_since: None,
        is_within_line: false,
    };
    (writer, reader, counters)
}

/// Lines of 100 bytes, `first` and following, as a piece.
fn piece(first: u64, lines: u64) -> Piece {
    let text: String = (first..first + lines).map(|n| format!("{n:099}\n")).collect();
    Piece { bytes: text.into_bytes().into(), lines }
}

#[test]
fn what_is_taken_in_parts_is_written_whole() {
    let (mut writer, mut reader, counters) = writer();
    let reading = thread::spawn(move || {
        let mut read = String::new();
        thread::sleep(RETRY / 2);
        reader.read_to_string(&mut read).unwrap();
        read
    });
    writer.write_piece(&piece(0, LINES));
    drop(writer);
    assert_eq!(reading.join().unwrap().as_bytes(), &*piece(0, LINES).bytes);
    assert_eq!((counters.access_log_lines.get(), counters.access_log_dropped_lines.get()), (LINES, 0));
}

#[test]
fn a_line_that_was_given_up_is_ended_before_the_next() {
    let (mut writer, mut reader, counters) = writer();
    writer.progress.is_closing.store(true, Ordering::Relaxed);
    writer.write_piece(&piece(0, LINES));
    let mut taken = vec![0; 64 * 1024];
    reader.read_exact(&mut taken).unwrap();
    writer.write_piece(&piece(LINES, 1));
    drop(writer);
    reader.read_to_end(&mut taken).unwrap();
    let text = String::from_utf8(taken).unwrap();
    let whole = text.lines().filter(|line| line.len() == 99).count() as u64;
    assert!(text.ends_with(&format!("\n{LINES:099}\n")) && text.lines().count() as u64 == whole + 1, "{text}");
    let dropped = counters.access_log_dropped_lines.get();
    assert_eq!((counters.access_log_lines.get(), whole + dropped), (whole, LINES + 1));
}
