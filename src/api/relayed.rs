//! An answer in JSON whose pictures go through while they arrive.
//!
//! The same fields as any answer, in an order that lets them: first the pictures, then what is known at the
//! end. The tail comes from the settled generation (I6); without one the body breaks off.

use std::{collections::VecDeque, io};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use tracing::Span;

use super::{
    App,
    answer::{self, Frame},
    source::Source,
};
use crate::{
    gateway::{Generation, Piece, Progress},
    telemetry::metrics::{Broken, metrics},
};

/// The answer of a generation that has begun.
pub(super) fn answer(app: &App, progress: Progress, frame: Frame) -> Response {
    let intro = progress.intro();
    let head = answer::head(intro.created);
    let (id, dropped) = (intro.id, intro.dropped.clone());
    let attempts = progress.attempts().to_owned();
    answer::announce(intro);
    let relay = Relay {
        source: Source::new(progress, app.gateway.rooms().store.clone()),
        ready: VecDeque::from([head.into()]),
        pictures: 0,
        is_open: false,
        revised_prompt: None,
        settled: None,
        span: Span::current(),
        app: app.clone(),
        frame,
    };
    let frame_dropped = relay.frame.dropped.clone();
    let body = stream::try_unfold(relay, |mut relay| async move {
        let next = relay.next().await;
        Ok::<_, io::Error>(next?.map(|bytes| (bytes, relay)))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer::trace(headers, &id.to_string(), &attempts);
    answer::say_dropped(headers, &dropped, &frame_dropped);
    response
}

/// The body on its way.
struct Relay {
    app: App,
    frame: Frame,
    span: Span,
    source: Source,
    ready: VecDeque<Bytes>,
    /// How many have been begun.
    pictures: usize,
    /// Whether the object of the last one waits for its end.
    is_open: bool,
    /// What was said of the last one.
    revised_prompt: Option<String>,
    /// The end is ready to be sent.
    settled: Option<Box<Generation>>,
}

impl Relay {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if let Some(generation) = self.settled.take() {
                // The HTTP library asks for more once it has handed on the tail.
                self.app.gateway.delivered(&generation);
                return Ok(None);
            }
            let piece = match self.source.next().await {
                Ok(piece) => piece,
                Err(error) => return Err(self.broken(error)),
            };
            self.take(piece)?;
        }
    }

    fn take(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Picture => {
                self.close(None);
                let comma = if self.pictures == 0 { "" } else { "," };
                self.ready
                    .push_back(format!("{comma}{{\"b64_json\":\"").into());
                self.pictures += 1;
                self.is_open = true;
            }
            Piece::Text(text) => self.ready.push_back(text),
            Piece::About(about) => self.revised_prompt = about.revised_prompt,
            Piece::Settled(generation) => {
                let last = self.pictures.checked_sub(1);
                let last = last.and_then(|last| generation.pictures.get(last));
                self.close(last.and_then(|picture| picture.revised_prompt.clone()));
                let tail = answer::tail(&generation, self.frame.safety_identifier.as_deref());
                self.ready.push_back(tail.into());
                self.span.in_scope(|| answer::record(&generation));
                self.settled = Some(generation);
            }
            Piece::Failed(error) => return Err(self.broken(io::Error::other(error))),
            // Where a picture ends shows when the next piece comes. Drafts are for streams.
            Piece::End { .. } | Piece::Draft(_) | Piece::Rest { .. } | Piece::Torn => {}
        }
        Ok(())
    }

    /// Ends the object of the last picture; what the provider's report says of it comes after what it said
    /// of it at once.
    fn close(&mut self, reported: Option<String>) {
        let revised = self.revised_prompt.take().or(reported);
        if std::mem::take(&mut self.is_open) {
            self.ready
                .push_back(answer::end_of_picture(revised.as_deref()).into());
        }
    }

    fn broken(&self, error: io::Error) -> io::Error {
        metrics().answer_broke(Broken::Json);
        self.span.in_scope(|| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an answer broke off on its way"
            );
        });
        error
    }
}
