//! Whether a request may have reached the provider: the fact that decides if it may be sent elsewhere.
//!
//! hyper takes the first piece of a body when a connection is ready and the head is about to be written.
//! A body that was never asked for is a request that never went out whole, and no provider can act on half
//! a JSON document; so "not sent" is sure, through connecting, the TLS handshake, waiting for a connection
//! and hyper's own resending over connections that turn out closed. "Sent" is the careful answer for all
//! else: once hyper has the body nobody can tell how much of it arrived.
//!
//! A deadline may fall into the very moment in which another thread begins to write. Hence
//! [`Witness::withdraw`] settles the question in one atomic step: after it said "not sent", the body fails
//! instead of going out.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const HELD: u8 = 0;
const RELEASED: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Knows whether the body it watches went out.
#[derive(Debug, Default, Clone)]
pub(super) struct Witness(Arc<AtomicU8>);

/// A body of one piece under watch.
#[derive(Debug)]
pub(super) struct Watched {
    bytes: Bytes,
    witness: Witness,
}

/// The body was called back before it went out.
#[derive(Debug, thiserror::Error)]
#[error("the request was called back")]
pub(super) struct Withdrawn;

impl Witness {
    /// Puts a body under watch. (One a witness: the witness cannot tell two apart.)
    pub(super) fn watch(&self, bytes: Bytes) -> Watched {
        Watched {
            bytes,
            witness: self.clone(),
        }
    }

    /// Calls the body back. True when it was too late: the request may have reached the provider.
    pub(super) fn withdraw(&self) -> bool {
        self.settle(WITHDRAWN) == RELEASED
    }

    /// Settles on `state` unless it is settled; says on what it is.
    fn settle(&self, state: u8) -> u8 {
        match self
            .0
            .compare_exchange(HELD, state, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => state,
            Err(settled) => settled,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        if self.witness.settle(RELEASED) == WITHDRAWN {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        let bytes = std::mem::take(&mut self.get_mut().bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_goes_out_or_is_called_back() {
        let witness = Witness::default();
        let body = witness.watch(Bytes::from_static(b"{}"));
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
        assert!(witness.withdraw(), "too late");

        let witness = Witness::default();
        let body = witness.watch(Bytes::from_static(b"{}"));
        assert!(!witness.withdraw());
        assert!(body.collect().await.is_err(), "called back in time");
    }
}
