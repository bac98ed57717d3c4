use super::*;
use crate::proxy::counters::Counters;
use crate::proxy::held::Clients;
use rstest::rstest;
use tokio::sync::Semaphore;

/// A connection whose handshake may take 10 s, a head 20 s, and silence 60 s; and the pulse that it lives by.
fn connection() -> (Connection, Arc<Pulse>) {
    let limits = Limits {
        handshake_timeout: Duration::from_secs(10),
        header_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let counters = Arc::new(Counters::register(&prometheus::Registry::new()).unwrap());
    let entry = Arc::new(Clients::default()).enter([127, 0, 0, 1].into(), None).unwrap();
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let pulse = Arc::new(Pulse::default());
    (Connection::new(Arc::clone(&pulse), &limits, Held::new(counters, Some(entry), place)), pulse)
}

/// What can happen to a connection; `Pass` is time, in seconds.
#[derive(Debug, Clone, Copy)]
enum Event {
    Http1,
    Http2,
    Read(usize),
    Begin,
    End,
    Stall,
    Write,
    HandOver,
    HandEmpty,
    Tunnel,
    Touch,
    Drain,
    Pass(u64),
}
use Event::*;

const PREFACE: Event = Read(33);

#[rstest]
// The handshake.
#[case(&[Pass(9)], Wish::Nothing)]
#[case(&[Pass(10)], Wish::End)]
#[case(&[Drain], Wish::End)]
// HTTP/1.1: the first head is due at once, later ones from their first byte.
#[case(&[Http1, Pass(19)], Wish::Nothing)]
#[case(&[Http1, Pass(20)], Wish::End)]
#[case(&[Http1, Pass(15), Read(1), Pass(5)], Wish::End)]
#[case(&[Http1, Read(1), Begin, Pass(3600)], Wish::Nothing)]
#[case(&[Http1, Read(1), Begin, End, Pass(59)], Wish::Nothing)]
#[case(&[Http1, Read(1), Begin, End, Pass(60)], Wish::Finish)]
#[case(&[Http1, Read(1), Begin, End, Pass(50), Read(1), Pass(19)], Wish::Nothing)]
#[case(&[Http1, Read(1), Begin, End, Pass(50), Read(1), Pass(20)], Wish::End)]
// HTTP/2: a preface is due, then requests; what is read between them is no head.
#[case(&[Http2, Read(20), Pass(20)], Wish::End)]
#[case(&[Http2, PREFACE, Pass(59)], Wish::Nothing)]
#[case(&[Http2, PREFACE, Pass(59), Read(17), Pass(1)], Wish::Finish)]
#[case(&[Http2, PREFACE, Begin, Begin, End, Pass(3600)], Wish::Nothing)]
// A client that does not take what waits for it.
#[case(&[Http1, Begin, Stall, Pass(59)], Wish::Nothing)]
#[case(&[Http1, Begin, Stall, Pass(60)], Wish::End)]
#[case(&[Http1, Begin, Stall, Pass(59), Write, Stall, Pass(59)], Wish::Nothing)]
#[case(&[Http1, Begin, Stall, Pass(30), Stall, Pass(30)], Wish::End)]
#[case(&[Http1, Begin, End, Stall, Pass(59)], Wish::Nothing)]
// A client whose HTTP/2 window is closed: when every answer waits for it.
#[case(&[Http2, PREFACE, Begin, HandOver, Pass(60)], Wish::End)]
#[case(&[Http2, PREFACE, Begin, HandOver, Pass(59), HandEmpty, HandOver, Pass(59)], Wish::Nothing)]
#[case(&[Http2, PREFACE, Begin, Begin, HandOver, Pass(60)], Wish::Nothing)]
// Draining: what runs goes on, what is silent ends.
#[case(&[Http1, Drain], Wish::End)]
#[case(&[Http1, Read(1), Drain, Pass(19)], Wish::Nothing)]
#[case(&[Http1, Read(1), Drain, Pass(20)], Wish::End)]
#[case(&[Http1, Read(1), Drain, Begin, Pass(3600)], Wish::Nothing)]
#[case(&[Http1, Begin, End, Drain], Wish::Nothing)]
#[case(&[Http1, Begin, End, Drain, Pass(1)], Wish::End)]
#[case(&[Http1, Begin, Drain, Pass(3600)], Wish::Nothing)]
#[case(&[Http1, Begin, Drain, Pass(10), End, Stall, Pass(30)], Wish::Nothing)]
#[case(&[Http2, Drain], Wish::End)]
#[case(&[Http2, PREFACE, Drain, Begin, Pass(30)], Wish::Nothing)]
#[case(&[Http2, PREFACE, Begin, Drain, End, Write], Wish::Nothing)]
#[case(&[Http2, PREFACE, Begin, Drain, End, Pass(1)], Wish::End)]
// A tunnel may be silent for its own time, and a drain lets it be.
#[case(&[Http1, Begin, End, Tunnel, Pass(29)], Wish::Nothing)]
#[case(&[Http1, Begin, End, Tunnel, Pass(29), Touch, Pass(29)], Wish::Nothing)]
#[case(&[Http1, Begin, End, Tunnel, Pass(30)], Wish::End)]
#[case(&[Http1, Begin, End, Tunnel, Drain, Pass(29)], Wish::Nothing)]
fn a_connections_time_is_up_when_its_state_says_so(#[case] events: &[Event], #[case] wish: Wish) {
    let (connection, pulse) = connection();
    for event in events {
        match *event {
            Http1 => connection.begin_http1(),
            Http2 => connection.begin_http2(),
            Read(bytes) => connection.has_read(bytes),
            Begin => connection.begin_request(),
            End => connection.end_request(),
            Stall => connection.has_written(false),
            Write => connection.has_written(true),
            HandOver => connection.hand_over(),
            HandEmpty => connection.hand_empty(),
            Tunnel => connection.begin_tunnel(Duration::from_secs(30)),
            Touch => connection.touch(),
            Drain => connection.finish(),
            Pass(secs) => pulse.set(pulse.now_ms() + secs * 1000),
        }
    }
    assert_eq!(connection.due(), wish);
}
