//! The signals that end a process: SIGTERM from a supervisor, SIGINT from Ctrl-C. And SIGHUP, which has it read
//! its configuration again.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who wants the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A supervisor, which may have others to tell.
    Terminate,
    /// A person at a terminal.
    Interrupt,
}

/// Signals that have arrived since [`Signals::listen`]; none is lost between two calls.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("could not listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// SIGHUP, from now on.
    pub(super) fn hangups() -> anyhow::Result<Signal> {
        signal(SignalKind::hangup()).context("could not listen for signals")
    }

    /// The next signal.
    ///
    /// # Cancel safety
    /// May be dropped: no signal is lost.
    pub(super) async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Terminate,
            _ = self.interrupt.recv() => Ending::Interrupt,
        }
    }
}
