//! A body that says how it ended, once: when its last byte was handed on, when it broke, or when nobody wanted the
//! rest.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::middleware::Ending;

/// The body, and whom to tell.
pub(super) struct Followed<Tell: FnOnce(Ending)> {
    body: Body,
    /// What has not been handed on of an answer whose length was announced: the HTTP library asks for no more than
    /// that.
    left: Option<u64>,
    tell: Option<Tell>,
}

impl<Tell: FnOnce(Ending)> Followed<Tell> {
    /// Follows this body, of so many bytes if that is known.
    pub(super) fn new(body: Body, length: Option<u64>, tell: Tell) -> Self {
        Self {
            body,
            left: length,
            tell: Some(tell),
        }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(tell) = self.tell.take() {
            tell(ending);
        }
    }
}

impl<Tell: FnOnce(Ending) + Unpin> HttpBody for Followed<Tell> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.left = this.left.map(|left| left.saturating_sub(bytes));
            }
            Poll::Ready(Some(Err(_))) => this.end(Ending::Broken),
            Poll::Ready(None) => this.end(Ending::Whole),
            Poll::Pending => {}
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

impl<Tell: FnOnce(Ending)> Drop for Followed<Tell> {
    fn drop(&mut self) {
        let ending = match self.left {
            Some(0) => Ending::Whole,
            Some(_) | None => Ending::Left,
        };
        self.end(ending);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, io, rc::Rc};

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    /// What is told of a body of these pieces, of which so many are asked for.
    async fn told(
        pieces: Vec<Result<&'static str, io::Error>>,
        length: Option<u64>,
        asked: usize,
    ) -> Vec<Ending> {
        let told = Rc::new(Cell::new(Vec::new()));
        let tell = |ending| {
            let mut all = told.take();
            all.push(ending);
            told.set(all);
        };
        let mut body = Followed::new(Body::from_stream(stream::iter(pieces)), length, tell);
        for _ in 0..asked {
            drop(body.frame().await);
        }
        drop(body);
        told.take()
    }

    #[tokio::test]
    async fn a_body_ends_once() {
        let pieces = || vec![Ok("abc"), Ok("def")];
        for (length, asked, expected) in [
            (None, 3, Ending::Whole),
            (None, 9, Ending::Whole),
            // Nobody asks for the end of what has its length.
            (Some(6), 2, Ending::Whole),
            (Some(6), 1, Ending::Left),
            (None, 2, Ending::Left),
            (None, 0, Ending::Left),
        ] {
            let told = told(pieces(), length, asked).await;
            assert_eq!(told, [expected], "{length:?}, {asked} pieces");
        }
        let broken = vec![Ok("abc"), Err(io::Error::other("cut"))];
        assert_eq!(told(broken, None, 3).await, [Ending::Broken]);
    }

    #[tokio::test]
    async fn it_is_the_same_body() {
        let pieces = ["abc", "def"].map(Ok::<_, Infallible>);
        let body = Body::from_stream(stream::iter(pieces));
        let followed = Followed::new(body, None, drop);
        let bytes = followed.collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "abcdef");
    }
}
