//! Whether anything happens on a connection: exchanges are counted from the request's head to the last
//! piece of the answer's body, and a connection without any for long enough may be closed.
//!
//! The server's own timeout knows HTTP/1 only, and only once it knows that it is HTTP/1. Without this one,
//! who connects and says nothing keeps a slot for ever, and so does who asked once over HTTP/2.
//!
//! Over HTTP/2 a client can also take nothing of one answer while it takes others, which no socket shows: it
//! just opens no window. The HTTP library then no longer asks the answer's body for anything, so it is from
//! outside that such a body is given up, with the file and the memory behind it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// After an answer a connection may rest this many times longer than a first request may take.
const RESTS: u32 = 4;

/// How often in the time that an answer may stand still it is looked at.
const LOOKS: u32 = 4;

/// What goes to the HTTP library at once over HTTP/2. It asks for the next piece when all of this one is in the
/// client's window, so this is also what a client has to take to count as taking anything.
const PIECE: usize = 16 * 1024;

/// What happens on one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    has_asked: AtomicBool,
    changed: Notify,
    /// Answers over HTTP/2 that are under way.
    answers: Mutex<Vec<Weak<Mutex<Answer>>>>,
    answering: Notify,
}

/// An exchange that has not ended.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Activity>);

/// A body that ends its exchange when it is sent or given up.
struct Last {
    answer: Arc<Mutex<Answer>>,
    _exchange: Exchange,
}

/// The rest of an answer.
#[derive(Debug)]
struct Answer {
    /// `None` once it was given up.
    body: Option<Body>,
    /// Has left the body, and is not yet asked for.
    rest: Bytes,
    /// How much of it goes at once.
    piece: usize,
    /// Since when it is the client's turn to take something; `None` while there is nothing to take.
    waits: Option<Instant>,
}

impl Activity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.has_asked.store(true, Ordering::SeqCst);
        self.changed.notify_one();
        Exchange(Arc::clone(self))
    }

    /// Whether no exchange is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
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

    /// Gives up every answer of which the client has taken nothing for `patience`, and ends when nothing else
    /// is under way.
    pub(super) async fn stall(&self, patience: Duration) {
        loop {
            let answering = self.answering.notified();
            if locked(&self.answers).is_empty() {
                answering.await;
                continue;
            }
            sleep(patience / LOOKS).await;
            let given_up = self.give_up(patience);
            if given_up > 0 && given_up == self.in_flight.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// How many answers are given up and still not reset.
    fn give_up(&self, patience: Duration) -> usize {
        let mut answers = Vec::new();
        {
            let mut known = locked(&self.answers);
            known.retain(|answer| {
                let answer = answer.upgrade();
                let is_there = answer.is_some();
                answers.extend(answer);
                is_there
            });
        }
        let given_up = answers.iter().filter(|answer| {
            let mut answer = locked(answer);
            if answer
                .waits
                .is_some_and(|since| since.elapsed() >= patience)
            {
                answer.body = None;
                answer.rest = Bytes::new();
            }
            answer.body.is_none()
        });
        given_up.count()
    }
}

/// Nothing panics while it holds one of these locks but a body, whose answer is then over.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// The same answer; the exchange ends with its body.
    pub(super) fn ends_with(self, answer: Response, version: Version) -> Response {
        let is_shared = version == Version::HTTP_2;
        answer.map(|body| {
            let answer = Arc::new(Mutex::new(Answer {
                body: Some(body),
                rest: Bytes::new(),
                piece: if is_shared { PIECE } else { usize::MAX },
                // Its head may already find no window.
                waits: Some(Instant::now()),
            }));
            // Over HTTP/1 the socket has one answer at a time, and its own timeout.
            if is_shared {
                locked(&self.0.answers).push(Arc::downgrade(&answer));
                self.0.answering.notify_one();
            }
            Body::new(Last {
                answer,
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

/// What the HTTP library learns when it asks for the rest of an answer that was given up.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing of the answer for too long")]
struct GivenUp;

impl HttpBody for Last {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = locked(&self.answer);
        let answer = &mut *answer;
        let Some(body) = &mut answer.body else {
            return Poll::Ready(Some(Err(axum::Error::new(GivenUp))));
        };
        if answer.rest.is_empty() {
            let frame = Pin::new(body).poll_frame(context);
            answer.waits = frame.is_ready().then(Instant::now);
            match frame {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => answer.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        answer.waits = Some(Instant::now());
        let piece = answer.rest.split_to(answer.rest.len().min(answer.piece));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let answer = locked(&self.answer);
        answer.rest.is_empty() && answer.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let answer = locked(&self.answer);
        let ahead = answer.body.as_ref().map(HttpBody::size_hint);
        let ahead = ahead.unwrap_or_default();
        let rest = answer.rest.len() as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = ahead.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(ahead.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn answer(activity: &Arc<Activity>, guard: &Arc<()>) -> Body {
        let guard = Arc::clone(guard);
        let pieces = stream::repeat_with(move || {
            let held = Arc::clone(&guard);
            let piece = Bytes::from(vec![7; 3 * PIECE]);
            drop(held);
            Ok::<_, axum::Error>(piece)
        });
        let answer = Response::new(Body::from_stream(pieces.take(2)));
        activity
            .begin()
            .ends_with(answer, Version::HTTP_2)
            .into_body()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up_and_others_go_on() {
        let activity = Arc::new(Activity::default());
        let (stalled, taken) = (Arc::new(()), Arc::new(()));
        let mut stalling = answer(&activity, &stalled);
        let mut going_on = answer(&activity, &taken);
        assert!(stalling.frame().await.unwrap().is_ok());
        let mut bytes = 0;
        let take = async {
            while let Some(frame) = going_on.frame().await {
                bytes += frame.unwrap().into_data().unwrap().len();
                sleep(PATIENCE / 3 * 2).await;
            }
        };
        tokio::select! {
            () = take => {}
            () = activity.stall(PATIENCE) => panic!("something was still under way"),
        }
        assert_eq!(bytes, 6 * PIECE, "slow, but not stalled");
        assert_eq!(Arc::strong_count(&stalled), 1, "what is behind it is free");
        assert!(stalling.frame().await.unwrap().is_err());
        drop(going_on);
        timeout(PATIENCE, activity.stall(PATIENCE))
            .await
            .expect("nothing but what was given up is left");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_server_does_not_stall() {
        let activity = Arc::new(Activity::default());
        let body = Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>());
        let answer = activity
            .begin()
            .ends_with(Response::new(body), Version::HTTP_2);
        let mut body = answer.into_body();
        let asked = timeout(Duration::from_millis(1), body.frame()).await;
        assert!(asked.is_err(), "there is nothing yet");
        let stalled = timeout(PATIENCE * 10, activity.stall(PATIENCE)).await;
        assert!(stalled.is_err());
    }
}
