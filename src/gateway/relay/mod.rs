//! Pictures on their way to the caller while they arrive.
//!
//! The task's end is the [`Outlet`], the caller's is [`Progress`]; between them is a [`pipe`] that is bounded
//! in bytes. Every picture goes through the store's writer as well, which alone decides what is whole, and a
//! piece of it is shown only after the writer has taken it.
//!
//! Three rules, each with a number of its own. Nothing is shown of a picture before more of it has come than
//! [`HELD_BACK`], or its proven end: until then everything can still become the right error, or another
//! route. The task waits for its caller no longer than [`PATIENCE`] in all: what the caller has not taken by
//! then it reads from the store later, at its own pace, so that who reads slowly keeps neither the provider's
//! connection nor memory; where there is no store to read from, the answer breaks off when the operator's
//! `body_idle_timeout` is used up. And what is charged follows from what the writer found whole, never from what
//! anybody has read.

mod flow;
mod outlet;
mod pipe;
mod text;

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use tokio_util::sync::DropGuard;

pub(super) use self::{
    flow::{Flow, Opening},
    outlet::{Outlet, Shows, Word},
    pipe::Pipe,
};
use super::{GatewayError, Generation};
use crate::{
    catalog::{Background, ImageRequest, OutputFormat, Quality, ResponseFormat, SizeChoice},
    ids::{GenerationId, ImageId},
    images::{PictureFormat, PictureInfo, Temporary},
    providers::About,
};

/// Characters of a picture, at most, that wait until more come or the picture has proved itself whole.
const HELD_BACK: usize = 64 * 1024;
/// How long a task waits for its caller to take something, all its waiting together. A caller on a slow line
/// uses it up and is served from the store from then on.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the caller of an accepted order gets.
#[derive(Debug)]
pub enum Delivery {
    /// It is finished and settled, and nothing has been shown of it yet.
    Whole(Box<Generation>),
    /// Its first picture is on its way.
    Begun(Progress),
}

/// A generation as it comes along, until it is settled or has failed.
#[derive(Debug)]
pub struct Progress {
    intro: Arc<Intro>,
    pipe: Arc<Pipe>,
    attempts: String,
    /// Dropped with this: that is how the task learns that nobody listens any more.
    _listening: Option<DropGuard>,
}

/// What is known of a generation before it begins.
#[derive(Debug, Clone)]
pub struct Intro {
    /// Its name.
    pub id: GenerationId,
    /// When it was asked for, in Unix seconds.
    pub created: i64,
    /// The catalog's id of the model that was asked for.
    pub model: String,
    /// Parameters that were left out because the model does not take them.
    pub dropped: Vec<&'static str>,
    /// How many pictures were asked for.
    pub n: NonZeroU8,
    /// The size asked for.
    pub size: SizeChoice,
    /// The quality asked for, or the model's default.
    pub quality: Option<Quality>,
    /// The background asked for, or the model's default.
    pub background: Option<Background>,
    /// The file format asked for, or the model's default.
    pub output_format: Option<OutputFormat>,
    /// How the answer carries the pictures.
    pub response_format: ResponseFormat,
}

/// One step of a [`Progress`]. A picture or draft is its opening, then `Text` and `Rest`, then `End`.
#[derive(Debug)]
pub enum Piece {
    /// A picture begins.
    Picture,
    /// A draft begins; the provider's number of it, from 0.
    Draft(u8),
    /// More of its base64: symbols and padding only.
    Text(bytes::Bytes),
    /// What remains of its base64 is to be read from the store.
    Rest {
        /// Its name there.
        id: ImageId,
        /// What its bytes are.
        format: PictureFormat,
        /// How much of its text has been shown.
        text_offset: u64,
        /// What keeps it there for as long as it is read, where nobody else does.
        temporary: Option<Temporary>,
    },
    /// It is complete.
    End {
        /// Its name in the store, whether or not it is kept there.
        id: ImageId,
        /// What its bytes are.
        info: PictureInfo,
    },
    /// What the provider says of what has just ended.
    About(Box<About>),
    /// What was being shown will never be complete; no answer that shows it can be.
    Torn,
    /// Everything is settled. The last piece.
    Settled(Box<Generation>),
    /// It failed, or is not settled in time. The last piece.
    Failed(GatewayError),
}

impl Intro {
    /// What could have been known of this one.
    pub fn of(generation: &Generation) -> Self {
        let pictures = generation
            .pictures
            .len()
            .saturating_add(generation.failed.len());
        let n = u8::try_from(pictures).unwrap_or(u8::MAX);
        Self {
            id: generation.id,
            created: generation.created,
            model: generation.model.clone(),
            dropped: generation.dropped.clone(),
            n: NonZeroU8::new(n).unwrap_or(NonZeroU8::MIN),
            size: generation.size.map_or(SizeChoice::Auto, SizeChoice::Exact),
            quality: generation.quality,
            background: generation.background,
            output_format: generation.output_format,
            response_format: generation.response_format,
        }
    }

    pub(super) fn new(
        id: GenerationId,
        model: &str,
        request: &ImageRequest,
        dropped: &[&'static str],
    ) -> Self {
        Self {
            id,
            created: id.created_at().timestamp(),
            model: model.to_owned(),
            dropped: dropped.to_vec(),
            n: request.n,
            size: request.size.value,
            quality: request.quality.map(|set| set.value),
            background: request.background.map(|set| set.value),
            output_format: request.output_format.map(|set| set.value),
            response_format: request.response_format,
        }
    }
}

impl Progress {
    pub(super) fn new(
        intro: Arc<Intro>,
        pipe: Arc<Pipe>,
        attempts: String,
        listening: DropGuard,
    ) -> Self {
        Self {
            intro,
            pipe,
            attempts,
            _listening: Some(listening),
        }
    }

    /// A generation that is over, as it would have come along; for who tells it step by step.
    pub fn of(intro: Intro, generation: Generation) -> Self {
        let pipe = Pipe::default();
        let attempts = generation.attempts.clone();
        for picture in &generation.pictures {
            pipe.push(Piece::Picture);
            pipe.push(match &picture.text {
                Some(text) => Piece::Text(text.clone()),
                None => Piece::Rest {
                    id: picture.id,
                    format: picture.info.format,
                    text_offset: 0,
                    temporary: None,
                },
            });
            pipe.push(Piece::End {
                id: picture.id,
                info: picture.info,
            });
        }
        pipe.push(Piece::Settled(Box::new(generation)));
        pipe.close();
        Self {
            intro: Arc::new(intro),
            pipe: Arc::new(pipe),
            attempts,
            _listening: None,
        }
    }

    /// What was known before it began.
    pub fn intro(&self) -> &Intro {
        &self.intro
    }

    /// The upstream calls that were made until there was something to see, in order, as `provider=outcome`;
    /// the last of them is the one that is being shown.
    pub fn attempts(&self) -> &str {
        &self.attempts
    }

    /// The next piece; `None` behind the last, or when the task has died of a bug.
    ///
    /// # Cancel safety
    /// May be dropped: no piece is lost.
    pub async fn next(&mut self) -> Option<Piece> {
        self.pipe.next().await
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.pipe.clear();
    }
}
