//! What a refusal leaves unread of a request's body is read on behind the answer, and forgotten.
//!
//! A connection that closes with bytes unread is reset, and then a client that is still writing sees a broken
//! pipe instead of the answer; SDKs take that for a fault of the network and send the whole upload again. So
//! a body that is dropped before its end goes on in a task of its own, within bounds, while the answer goes
//! out. Knows nothing of what the body or the answer is.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::{Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};

/// How much is read on: who has no key may send that, too. As much as the largest upload by default.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// How long that may take in all.
const LONGEST: Duration = Duration::from_secs(20);
/// How long the client may pause: then it has sent what it wanted to, or has seen the answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The same request; what nobody reads of its body is read on.
pub(super) fn read_on(request: Request) -> Request {
    // From HTTP/2 on an exchange ends without its connection.
    if request.version() >= Version::HTTP_2 {
        return request;
    }
    let waits = request.headers().contains_key(header::EXPECT);
    request.map(|body| {
        Body::new(ReadOn {
            body,
            is_over: false,
            waits,
        })
    })
}

/// A body that is read on when it is dropped.
struct ReadOn {
    body: Body,
    is_over: bool,
    /// The client sends nothing before it is told to; that happens when the body is first asked for.
    waits: bool,
}

impl HttpBody for ReadOn {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits = false;
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.is_over = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        if self.is_over || self.waits || self.body.is_end_stream() {
            return;
        }
        // Without a runtime nobody is there to be answered.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(discard(mem::take(&mut self.body)));
        }
    }
}

/// Reads to the end, or until a bound is met.
async fn discard(mut body: Body) {
    let mut left = MOST_BYTES;
    let all = async {
        // A broken body ends it as well: the client is gone.
        while let Ok(Some(Ok(frame))) = timeout(LONGEST_PAUSE, body.frame()).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else {
                return;
            };
            left = rest;
        }
    };
    // Whichever bound is met first, there is nothing left to do for this client.
    let _ = timeout_at(Instant::now() + LONGEST, all).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::{StreamExt as _, stream};

    use super::*;

    const PIECE: usize = 1024 * 1024;

    /// A request whose body counts the pieces that are taken of it, and then ends or pauses.
    fn request(pieces: usize, ends: bool) -> (http::request::Builder, Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let pieces = stream::iter(0..pieces).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(Bytes::from(vec![0; PIECE]))
        });
        let rest = stream::iter((!ends).then(stream::pending)).flatten();
        let body = Body::from_stream(pieces.chain(rest));
        (http::Request::builder(), body, taken)
    }

    /// How many pieces are taken of a body that is dropped, and how long that takes.
    async fn after_drop(request: Request, taken: &AtomicUsize) -> (usize, Duration) {
        let start = Instant::now();
        drop(read_on(request));
        let metrics = Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (taken.load(Ordering::SeqCst), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_read_within_bounds() {
        let (builder, body, taken) = request(5, true);
        let (pieces, _) = after_drop(builder.body(body).unwrap(), &taken).await;
        assert_eq!(pieces, 5);

        let (builder, body, taken) = request(1000, true);
        let (pieces, _) = after_drop(builder.body(body).unwrap(), &taken).await;
        assert_eq!(pieces, MOST_BYTES / PIECE + 1);

        let (builder, body, taken) = request(2, false);
        let (pieces, lasted) = after_drop(builder.body(body).unwrap(), &taken).await;
        assert_eq!(pieces, 2);
        assert!(lasted >= LONGEST_PAUSE && lasted < LONGEST_PAUSE * 2);

        let trickle = stream::unfold((), async |()| {
            tokio::time::sleep(LONGEST_PAUSE / 2).await;
            Some((
                Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")),
                (),
            ))
        });
        let (builder, _, taken) = request(0, true);
        let body = Body::from_stream(trickle);
        let (_, lasted) = after_drop(builder.body(body).unwrap(), &taken).await;
        assert!(lasted >= LONGEST && lasted < LONGEST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_to_be_told_is_not_told() {
        let (builder, body, taken) = request(5, true);
        let request = builder.header(header::EXPECT, "100-continue");
        let (pieces, _) = after_drop(request.body(body).unwrap(), &taken).await;
        assert_eq!(pieces, 0);
    }
}
