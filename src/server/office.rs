//! Threads for everything that is not a request.

use std::hint::black_box;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::nice;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

/// Threads for what must be done in time: buckets, days, alerts, whoever asks.
const OFFICE_THREADS: usize = 2;
/// So much nicer than others is a thread that gives way (nice(2)): where there is no processor left, it gets about a tenth
/// of what they do, and one that wakes up to answer a request need not wait for it.
const GIVING_WAY: i32 = 10;
/// How often memory that is free goes back to the system.
const TIDYING: Duration = Duration::from_secs(30);

/// Runs what must be done in time.
pub(super) fn open() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(OFFICE_THREADS).thread_name("lockgate-office").enable_all().build()
}

/// Runs what nobody waits for, and gives way to everything else: certificates are renewed here, which takes a processor
/// milliseconds each. What a handshake or a person waits for is ordered in the office.
///
/// # Errors
/// If there is no thread.
pub fn open_quiet() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("lockgate-quiet")
        .on_thread_start(give_way)
        .enable_all()
        .build()
}

/// The calling thread gives way from now on. Linux keeps that for each thread of its own, whatever POSIX says.
pub fn give_way() {
    // Whoever may not even that goes on as it is.
    _ = nice(GIVING_WAY);
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
