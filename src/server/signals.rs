//! What the operating system tells the process.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to Lockgate.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM or SIGINT: finish what runs, and go.
    End,
}

impl Signals {
    /// Listens from now on. Must be called within a runtime.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
        }
    }

    /// Waits for SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What comes of `work`; `None` if the process is told to end before it is done.
    pub async fn unless_end<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.end() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Raised, getpid, kill_process};

    #[tokio::test]
    async fn the_end_is_seen_while_work_goes_on() {
        let mut signals = Signals::listen().unwrap();
        assert_eq!(signals.unless_end(async { 7 }).await, Some(7));
        kill_process(getpid(), Raised::TERM).unwrap();
        assert_eq!(signals.unless_end(std::future::pending::<()>()).await, None);
    }
}
