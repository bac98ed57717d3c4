//! Threads for everything that is not a request.

use std::hint::black_box;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

/// Threads for what must be done in time: buckets, days, alerts, whoever asks.
const OFFICE_THREADS: usize = 2;
/// So much nicer than others is a thread that gives way (nice(2)): where there is no processor left, it gets about a tenth
/// of what they do, and one that wakes up to answer a request need not wait for it.
const GIVING_WAY: i32 = 10;
/// Nobody is nicer than that.
const NICEST: i32 = 19;
/// How often memory that is free goes back to the system.
const TIDYING: Duration = Duration::from_secs(30);

/// Runs what must be done in time.
pub(super) fn open() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(OFFICE_THREADS).thread_name("lockgate-office").enable_all().build()
}

/// Runs what nobody waits for, and gives way to everything else: certificates are renewed here, which takes a processor
/// milliseconds each. What a handshake or a person waits for from the beginning is ordered in the office.
///
/// # Errors
/// If there is no thread.
pub fn open_quiet() -> io::Result<Runtime> {
    let niceness = giving_way();
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lockgate-quiet")
        .on_thread_start(move || give_way(niceness))
        .enable_all()
        .build()
}

/// How nice a thread is that gives way to the calling one and its likes.
pub fn giving_way() -> i32 {
    getpriority_process(None).unwrap_or_default().saturating_add(GIVING_WAY).min(NICEST)
}

/// The calling thread is so nice from now on. Linux keeps that for each thread of its own, whatever POSIX says; a thread
/// that it starts begins as nice, and so does a connection to the store that is opened on it.
pub fn give_way(niceness: i32) {
    // Whoever may not even that goes on as it is.
    _ = setpriority_process(None, niceness);
}

/// Gives memory back that has been free for a while, now and then. The allocator does so when a thread ends, and else only
/// in the course of ten thousand allocations, which a process that is idle after a reload does not make.
pub(super) async fn tidy() {
    let mut tick = interval(TIDYING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Only a thread that has allocated something has the allocator see its end.
        _ = thread::Builder::new().name("lockgate-tidy".to_owned()).spawn(|| drop(black_box(Box::new(0u8))));
    }
}
