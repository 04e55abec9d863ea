//! An answer as server-sent events (`contracts/openai-images.md`, section 3).
//!
//! A picture's event is opened when the picture begins and closed when what follows it is known: the one
//! closed at the end carries the whole bill, and is closed after the settlement (I6). Until the first byte a
//! refusal is plain HTTP; later it is an event of its own, or, inside of an open event, the connection's end.

use std::{collections::VecDeque, io, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;
use tracing::Span;

use super::{
    ApiError, App,
    answer::{self, Frame, UsageJson},
    deliver::Kind,
    source::Source,
};
use crate::{
    catalog::{Background, OutputFormat, Quality, ResponseFormat},
    gateway::{
        Delivery, FailedPicture, GatewayError, Generation, Intro, Order, Piece, Progress, Usage,
    },
    ids::ImageId,
    images::PictureInfo,
    providers::About,
    telemetry::metrics::{Broken, metrics},
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// A comment: both SDKs pass over it (section 3.2 there).
const KEEPALIVE: Bytes = Bytes::from_static(b": keepalive\n\n");
/// White space inside of an event's JSON, where a comment cannot stand.
const INNER_KEEPALIVE: Bytes = Bytes::from_static(b" ");
/// What a provider says of a draft comes with its end. A draft does not wait longer for it.
const ABOUT_PATIENCE: Duration = Duration::from_millis(20);

/// Has the order carried out and answers it as events.
///
/// # Errors
/// [`GatewayError`] when it comes before the first keep-alive.
pub(super) async fn answer(
    app: &App,
    order: Order,
    frame: Frame,
) -> Result<Response, GatewayError> {
    let accepted = app.gateway.accept(order)?;
    let answering = accepted.answering();
    let mut events = Events::new(app, accepted.intro().clone(), frame);
    let mut delivery: BoxFuture<'static, _> = Box::pin(accepted.deliver());
    match timeout(app.limits.keepalive, &mut delivery).await {
        Ok(delivery) => events.attempts = Some(events.begin(delivery?)),
        Err(_elapsed) => {
            // By now a repeat knows whom it joins, and its client is told.
            let id = answering.fix();
            events.is_replayed = id != events.intro.id;
            (events.intro.id, events.intro.created) = (id, id.created_at().timestamp());
            events.ready.push_back(KEEPALIVE);
            events.phase = Phase::Waiting(delivery);
        }
    }
    answer::announce(&events.intro);
    Ok(events.into_response())
}

/// A generation that is over, as events.
pub(super) fn generation(app: &App, generation: Box<Generation>, frame: Frame) -> Response {
    let mut events = Events::new(app, Intro::of(&generation), frame);
    events.attempts = Some(events.begin(Delivery::Whole(generation)));
    events.into_response()
}

/// The body on its way.
struct Events {
    app: App,
    frame: Frame,
    intro: Intro,
    is_replayed: bool,
    span: Span,
    phase: Phase,
    ready: VecDeque<Bytes>,
    open: Open,
    /// The end is ready to be sent.
    settled: Option<Box<Generation>>,
    /// The upstream calls, where they were known in time for the headers.
    attempts: Option<String>,
}

enum Phase {
    Waiting(BoxFuture<'static, Result<Delivery, GatewayError>>),
    Telling(Box<Source>),
    Over,
}

/// The event that is being written.
enum Open {
    Nothing,
    /// Within the picture's text.
    Text(Shown),
    /// Behind it.
    Ended {
        shown: Shown,
        id: ImageId,
        info: PictureInfo,
        about: Option<Box<About>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Picture,
    Draft(u8),
}

/// What stands behind the picture of an event.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventTail")]
struct Tail<'a> {
    created_at: i64,
    size: String,
    quality: Quality,
    background: Background,
    output_format: OutputFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_image_index: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<&'a str>,
    #[serde(flatten)]
    end: End<'a>,
}

// Written in pieces; this type is for the document.
/// A picture or a draft of one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ImageEvent")]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    kind: EventType,
    b64_json: String,
    #[serde(flatten)]
    tail: Tail<'a>,
}

/// Which endpoint was asked, and whether it is a draft.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "describes what is written in pieces")]
enum EventType {
    #[serde(rename = "image_generation.partial_image")]
    GenerationDraft,
    #[serde(rename = "image_generation.completed")]
    Generation,
    #[serde(rename = "image_edit.partial_image")]
    EditDraft,
    #[serde(rename = "image_edit.completed")]
    Edit,
}

/// The bill, where no picture's event can carry it: a draft came last.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SettledEvent")]
pub(super) struct Settled<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "easel.settled"))]
    event_type: &'static str,
    #[serde(flatten)]
    end: End<'a>,
}

/// What only completed pictures have; the last one of a stream all of it.
#[derive(Serialize, Default, JsonSchema)]
#[schemars(rename = "EventEnd")]
struct End<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    failed: &'a [FailedPicture],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageJson>,
    /// What `x-attempts` would have said, had it been known when the headers went out.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<&'a str>,
}

impl Events {
    fn new(app: &App, intro: Intro, frame: Frame) -> Self {
        Self {
            phase: Phase::Over,
            ready: VecDeque::new(),
            open: Open::Nothing,
            settled: None,
            attempts: None,
            span: Span::current(),
            app: app.clone(),
            frame,
            intro,
            is_replayed: false,
        }
    }

    fn into_response(self) -> Response {
        let id = self.intro.id.to_string();
        let is_replayed = self.is_replayed;
        let attempts = self.attempts.clone().unwrap_or_default();
        let (dropped, frame_dropped) = (self.intro.dropped.clone(), self.frame.dropped.clone());
        let body = stream::try_unfold(self, |mut events| async move {
            let next = events.next().await;
            Ok::<_, io::Error>(next?.map(|bytes| (bytes, events)))
        });
        let mut response = Body::from_stream(body).into_response();
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
            // nginx would wait for a buffer to fill.
            (X_ACCEL_BUFFERING, "no"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer::trace(headers, &id, &attempts);
        answer::say_replayed(headers, is_replayed);
        answer::say_dropped(headers, &dropped, &frame_dropped);
        response
    }

    /// Says which upstream calls it took to come this far.
    fn begin(&mut self, delivery: Delivery) -> String {
        let progress = match delivery {
            Delivery::Begun(progress) => progress,
            Delivery::Whole(generation) => {
                // A repeat is told of the one that it repeats.
                (self.intro.id, self.intro.created) = (generation.id, generation.created);
                self.is_replayed = generation.is_replayed;
                Progress::of(self.intro.clone(), *generation)
            }
        };
        let attempts = progress.attempts().to_owned();
        let store = self.app.gateway.rooms().store.clone();
        self.phase = Phase::Telling(Box::new(Source::new(progress, store)));
        attempts
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            let patience = self.patience();
            match &mut self.phase {
                Phase::Over => {
                    if let Some(generation) = self.settled.take() {
                        // The HTTP library asks for more once it has handed on the end.
                        self.app.gateway.delivered(&generation);
                    }
                    return Ok(None);
                }
                Phase::Waiting(delivery) => match timeout(patience, delivery).await {
                    Ok(Ok(delivery)) => drop(self.begin(delivery)),
                    Ok(Err(error)) => self.fail(error)?,
                    Err(_elapsed) => self.keep_alive(),
                },
                Phase::Telling(source) => match timeout(patience, source.next()).await {
                    Ok(Ok(piece)) => self.take(piece)?,
                    Ok(Err(error)) => return Err(self.broken(error)),
                    Err(_elapsed) if self.awaits_about() => self.close(None),
                    Err(_elapsed) => self.keep_alive(),
                },
            }
        }
    }

    fn take(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Picture => self.open(Shown::Picture),
            Piece::Draft(index) => self.open(Shown::Draft(index)),
            Piece::Text(text) => self.ready.push_back(text),
            Piece::End { id, info } => {
                if let Open::Text(shown) = self.open {
                    self.ready.push_back(Bytes::from_static(b"\""));
                    self.open = Open::Ended {
                        shown,
                        id,
                        info,
                        about: None,
                    };
                }
            }
            Piece::About(said) => {
                if let Open::Ended { about, .. } = &mut self.open {
                    *about = Some(said);
                }
                if self.shows_draft() {
                    self.close(None);
                }
            }
            Piece::Settled(generation) => {
                if matches!(self.open, Open::Ended { .. }) {
                    self.close(Some(&generation));
                } else {
                    // A draft came after the last picture, and the picture of it never did.
                    self.settle_apart(&generation);
                }
                self.span.in_scope(|| answer::record(&generation));
                self.settled = Some(generation);
                self.phase = Phase::Over;
            }
            Piece::Failed(error) => self.fail(error)?,
            // These have become text, or an error.
            Piece::Rest { .. } | Piece::Torn => {}
        }
        Ok(())
    }

    fn open(&mut self, shown: Shown) {
        self.close(None);
        let name = self.event_name(shown);
        let head = format!("event: {name}\ndata: {{\"type\":\"{name}\",\"b64_json\":\"");
        self.ready.push_back(head.into());
        self.open = Open::Text(shown);
    }

    /// Ends the event that is open; with the bill, once there is one.
    fn close(&mut self, generation: Option<&Generation>) {
        let Open::Ended {
            shown,
            id,
            info,
            about,
        } = std::mem::replace(&mut self.open, Open::Nothing)
        else {
            return;
        };
        let about = about.unwrap_or_default();
        let (index, end) = match shown {
            Shown::Draft(index) => (Some(index), End::default()),
            Shown::Picture => (None, self.end(generation)),
        };
        let reported = generation.and_then(|generation| {
            let picture = generation.pictures.iter().find(|picture| picture.id == id);
            picture.and_then(|picture| picture.revised_prompt.as_deref())
        });
        let tail = Tail {
            created_at: (about.created_at).unwrap_or_else(|| self.app.clock.now().timestamp()),
            size: match info.size.or(about.size) {
                Some(size) => size.to_string(),
                None => self.intro.size.to_string(),
            },
            quality: (about.quality)
                .or_else(|| generation.and_then(|generation| generation.quality))
                .or(self.intro.quality)
                .filter(|quality| answer::is_tier(*quality))
                .unwrap_or(Quality::Auto),
            background: (about.background)
                .or_else(|| generation.and_then(|generation| generation.background))
                .or(self.intro.background)
                .unwrap_or(Background::Auto),
            output_format: info.format.into(),
            partial_image_index: index,
            url: self.link(shown, id, info),
            revised_prompt: about.revised_prompt.as_deref().or(reported),
            end,
        };
        let json = serde_json::to_string(&tail).expect("plain fields always serialise");
        // The fields go on the object that was opened.
        let text = format!(",{}\n\n", json.trim_start_matches('{'));
        self.ready.push_back(text.into());
    }

    fn end<'a>(&'a self, generation: Option<&'a Generation>) -> End<'a> {
        let Some(generation) = generation else {
            // Pictures before the last one: the type wants a usage, and the bill is sent once.
            return End {
                usage: Some(UsageJson::from(&Usage::default())),
                ..End::default()
            };
        };
        let safety_identifier = self.frame.safety_identifier.as_deref();
        End {
            safety_identifier: answer::told_identifier(generation, safety_identifier),
            model: Some(&generation.model),
            provider: Some(&generation.provider),
            failed: &generation.failed,
            usage: Some(UsageJson::from(&generation.usage)),
            attempts: Some(generation.attempts.as_str())
                .filter(|attempts| self.attempts.is_none() && !attempts.is_empty()),
        }
    }

    /// The types of the SDKs want `b64_json` in every event, so a link stands beside it.
    fn link(&self, shown: Shown, id: ImageId, info: PictureInfo) -> Option<String> {
        let is_asked = shown == Shown::Picture && self.intro.response_format == ResponseFormat::Url;
        let gateway = &self.app.gateway;
        let ttl = chrono::TimeDelta::from_std(gateway.settings().url_ttl);
        let now = self.app.clock.now();
        let expires_at = now.checked_add_signed(ttl.ok()?)?;
        is_asked.then(|| gateway.rooms().links.link(id, info.format, expires_at, now))
    }

    fn settle_apart(&mut self, generation: &Generation) {
        let end = serde_json::to_string(&self.end(Some(generation)))
            .expect("plain fields always serialise");
        let name = "easel.settled";
        let event = format!(
            "event: {name}\ndata: {{\"type\":\"{name}\",{}\n\n",
            end.trim_start_matches('{')
        );
        self.ready.push_back(event.into());
    }

    /// Says what went wrong, where that can still be said.
    fn fail(&mut self, error: GatewayError) -> io::Result<()> {
        if self.shows_draft() {
            // All of it was sent; what was to be said of it is that it has no successor.
            self.close(None);
        }
        if !matches!(self.open, Open::Nothing) {
            return Err(self.broken(io::Error::other(error)));
        }
        let error = ApiError::from(error);
        let is_late = self.attempts.is_none();
        let event = self.span.in_scope(|| error.event(is_late));
        self.ready.push_back(event.into());
        self.phase = Phase::Over;
        Ok(())
    }

    fn keep_alive(&mut self) {
        match self.open {
            Open::Nothing => self.ready.push_back(KEEPALIVE),
            Open::Ended { .. } => self.ready.push_back(INNER_KEEPALIVE),
            // Nothing can stand within a picture's text but more of it.
            Open::Text(_) => {}
        }
    }

    fn patience(&self) -> Duration {
        if self.awaits_about() {
            ABOUT_PATIENCE
        } else {
            self.app.limits.keepalive
        }
    }

    fn shows_draft(&self) -> bool {
        matches!(
            self.open,
            Open::Ended {
                shown: Shown::Draft(_),
                ..
            }
        )
    }

    fn awaits_about(&self) -> bool {
        self.shows_draft()
    }

    fn event_name(&self, shown: Shown) -> &'static str {
        match (self.frame.kind, shown) {
            (Kind::Generation, Shown::Draft(_)) => "image_generation.partial_image",
            (Kind::Generation, Shown::Picture) => "image_generation.completed",
            (Kind::Edit, Shown::Draft(_)) => "image_edit.partial_image",
            (Kind::Edit, Shown::Picture) => "image_edit.completed",
        }
    }

    fn broken(&self, error: io::Error) -> io::Error {
        metrics().answer_broke(Broken::Stream);
        self.span.in_scope(|| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a stream broke off on its way"
            );
        });
        error
    }
}
