//! Whether a request may have reached the provider: the fact that decides if it may be sent elsewhere.
//!
//! hyper takes the pieces of a body one after another, the first when a connection is ready and the head is
//! about to be written. A body whose last piece was never asked for is a request that never went out whole,
//! and no provider can act on half a document whose length it knows; so "not sent" is sure, through
//! connecting, the TLS handshake, waiting for a connection, hyper's own resending over connections that turn
//! out closed, and the upload of all pictures but the end of the last. "Sent" is the careful answer for all
//! else: once hyper has the last piece nobody can tell how much of it arrived.
//!
//! A deadline may fall into the very moment in which another thread begins to write. Hence
//! [`Witness::withdraw`] settles the question in one atomic step: after it said "not sent", the body fails
//! instead of going out.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body, Frame, SizeHint};

use super::payload::{Payload, Piece, read_base64};
use crate::images::PictureStream;

const HELD: u8 = 0;
const RELEASED: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Knows whether the body it watches went out.
#[derive(Debug, Default, Clone)]
pub(super) struct Witness(Arc<AtomicU8>);

/// A body under watch.
pub(super) struct Watched {
    payload: Payload,
    /// The picture that is going out. (In a mutex that nobody locks: streams are not `Sync`, bodies are.)
    reading: Option<Mutex<PictureStream>>,
    left: u64,
    witness: Witness,
}

/// Why a body did not go out whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It was called back before.
    #[error("the request was called back")]
    Withdrawn,
    /// A client's picture is not to be had any more, or not as long as it was.
    #[error("an uploaded picture cannot be read")]
    Unreadable(#[source] io::Error),
}

impl Witness {
    /// Puts a body under watch. (One a witness: the witness cannot tell two apart.)
    pub(super) fn watch(&self, payload: impl Into<Payload>) -> Watched {
        let payload = payload.into();
        Watched {
            left: payload.size_bytes(),
            payload,
            reading: None,
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

    fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::SeqCst) == WITHDRAWN
    }
}

impl Watched {
    /// The next bytes, whoever gets them.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(stream) = &mut self.reading {
                let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
                match ready!(stream.poll_next_unpin(context)) {
                    Some(chunk) => return Poll::Ready(Some(chunk)),
                    None => self.reading = None,
                }
            }
            match self.payload.pieces.pop_front() {
                Some(Piece::Bytes(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Piece::Upload(upload)) => self.reading = Some(Mutex::new(upload.read())),
                Some(Piece::Base64(upload)) => {
                    self.reading = Some(Mutex::new(read_base64(&upload)));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Lets bytes go, unless they were called back.
    fn release(&mut self, bytes: &Bytes) -> Result<(), BodyError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| unreadable("it has grown"))?;
        let is_withdrawn = if self.left == 0 {
            self.witness.settle(RELEASED) == WITHDRAWN
        } else {
            self.witness.is_withdrawn()
        };
        if is_withdrawn {
            return Err(BodyError::Withdrawn);
        }
        Ok(())
    }
}

fn unreadable(why: &str) -> BodyError {
    BodyError::Unreadable(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let watched = self.get_mut();
        let frame = match ready!(watched.poll_bytes(context)) {
            Some(Ok(bytes)) => watched.release(&bytes).map(|()| Frame::data(bytes)),
            Some(Err(error)) => Err(BodyError::Unreadable(error)),
            None if watched.left > 0 => Err(unreadable("it has shrunk")),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{images::Upload, providers::testing::png};

    #[tokio::test]
    async fn a_body_goes_out_or_is_called_back() {
        let witness = Witness::default();
        let body = witness.watch("{}");
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
        assert!(witness.withdraw(), "too late");

        let witness = Witness::default();
        let body = witness.watch("{}");
        assert!(!witness.withdraw());
        assert!(body.collect().await.is_err(), "called back in time");
    }

    #[tokio::test]
    async fn half_a_body_is_no_request() {
        let parts = || {
            let mut payload = Payload::default();
            payload.bytes("head");
            payload.upload(&Upload::from_bytes(png(2, 2)).unwrap());
            payload.bytes("end");
            payload
        };
        let pieces = parts().pieces.len();
        for taken in 0..=pieces {
            let witness = Witness::default();
            let mut body = witness.watch(parts());
            for _ in 0..taken {
                body.frame().await.unwrap().unwrap();
            }
            let is_whole = taken == pieces;
            assert_eq!(body.is_end_stream(), is_whole);
            assert_eq!(witness.withdraw(), is_whole, "after {taken} pieces");
            if !is_whole {
                assert!(
                    body.frame().await.unwrap().is_err(),
                    "the rest is called back"
                );
            }
        }
    }
}
