//! Whether anything happens on a connection: exchanges are counted from the request's head to the last
//! piece of the answer's body, and a connection without any for long enough may be closed.
//!
//! The server's own timeout knows HTTP/1 only, and only once it knows that it is HTTP/1. Without this one,
//! who connects and says nothing keeps a slot for ever, and so does who asked once over HTTP/2.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::Notify, time::timeout};

/// After an answer a connection may rest this many times longer than a first request may take.
const RESTS: u32 = 4;

/// What happens on one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    has_asked: AtomicBool,
    changed: Notify,
}

/// An exchange that has not ended.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Activity>);

/// A body that ends its exchange when it is sent or given up.
struct Last {
    body: Body,
    _exchange: Exchange,
}

impl Activity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.has_asked.store(true, Ordering::SeqCst);
        self.changed.notify_one();
        Exchange(Arc::clone(self))
    }

    /// Ends when nothing was asked for `patience`, or, once something was, for [`RESTS`] times that.
    pub(super) async fn silence(&self, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.in_flight.load(Ordering::SeqCst) > 0 {
                changed.await;
                continue;
            }
            let rests = if self.has_asked.load(Ordering::SeqCst) {
                RESTS
            } else {
                1
            };
            if timeout(patience.saturating_mul(rests), changed)
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

impl Exchange {
    /// The same answer; the exchange ends with its body.
    pub(super) fn ends_with(self, answer: Response) -> Response {
        answer.map(|body| {
            Body::new(Last {
                body,
                _exchange: self,
            })
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

impl HttpBody for Last {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
