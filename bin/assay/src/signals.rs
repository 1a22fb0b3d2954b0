//! The signals that ask a process to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure, Outcome};

/// Hears them.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Interrupted,
    Terminated,
}

impl Signals {
    /// From now on the process ends only when its command says so.
    pub(crate) fn listen() -> Outcome<Self> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Failed, "signals cannot be heard").why(error))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupted,
            _ = self.terminate.recv() => Stop::Terminated,
        }
    }
}

impl Stop {
    /// What a shell reports for a process that this signal ended.
    pub(crate) fn code(self) -> u8 {
        match self {
            Stop::Interrupted => 130,
            Stop::Terminated => 143,
        }
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stop::Interrupted => "interrupted",
            Stop::Terminated => "asked to stop",
        })
    }
}
