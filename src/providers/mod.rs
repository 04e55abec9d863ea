//! Providers: the outside companies and servers that paint, one folder per adapter.
//!
//! A [`Provider`] turns one neutral, validated [`Call`] into pictures, which it pushes chunk by chunk
//! into a [`PictureSink`]; it never holds a whole one. It knows nothing of accounts, holds, prices or
//! SQL. Sending, deadlines, size limits and redaction exist once, in [`http`]; adapters translate.
//!
//! Adding an adapter is a folder here and one line in [`registry`].

pub mod error;
pub mod google;
pub mod http;
mod mask;
pub mod openai;
pub mod registry;
pub mod replicate;
pub mod sandbox;
mod sse;
pub mod stability;
#[cfg(test)]
mod testing;
mod wording;

use std::{num::NonZeroU8, sync::Arc};

use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use self::error::{ErrorKind, ModerationDetails, ModerationStage, ProviderError};
// The adapters know it as a part of this room.
use crate::json;
use crate::{
    catalog::{
        Background, ImageRequest, ImageSize, Model, OutputFormat, Quality, Route, TokenUsage,
    },
    images::Upload,
};

/// One upstream call: `n` pictures of a request on one route.
#[derive(Clone)]
pub struct Call {
    /// What to paint, checked against the model's rules.
    pub request: Arc<ImageRequest>,
    /// What to paint it from.
    pub task: Task,
    /// How many pictures this call shall bring; a fan-out asks for fewer than `request.n`.
    pub n: NonZeroU8,
    /// The number of the first of them within the request, from 0. (The sandbox paints it.)
    pub first: u8,
    /// The model asked for.
    pub model: Arc<Model>,
    /// The route to take: upstream name and translation.
    pub route: Arc<Route>,
    /// When the caller gives up; the provider's own `timeout` may end the call earlier.
    pub deadline: Instant,
    /// Whether somebody may want it stopped while it runs, and nobody waits for every second of it: a provider
    /// that can stop what it does has to be able to say what.
    pub may_be_stopped: bool,
}

/// What a picture is made from.
#[derive(Clone)]
pub enum Task {
    /// From the prompt alone.
    Generate,
    /// From the prompt and pictures of the client's.
    Edit(Arc<Inputs>),
    /// From a picture alone; the prompt is empty.
    Vary(Arc<Upload>),
}

/// The pictures of an edit, within what the model takes. A route that is tried after another reads them
/// again.
pub struct Inputs {
    /// What to edit or refer to, in the client's order; never empty.
    pub images: Vec<Upload>,
    /// Where to edit the first of them: its fully transparent pixels
    /// (`contracts/openai-images.md`, section 4.1). Of the size of the first picture.
    pub mask: Option<Upload>,
}

/// How the bytes of a picture are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The file's own bytes.
    Raw,
    /// Standard base64 without a data-URL prefix, JSON escapes already undone.
    Base64,
}

/// A piece of the stream of pictures. Pictures come one after another, never interleaved.
#[derive(Debug, Clone)]
pub enum PictureEvent {
    /// A picture begins, and is one: an answer that shows it may begin. It can break off, but is never
    /// taken back.
    Begin(Encoding),
    /// A picture begins, as far as one can tell: what follows it in the answer may still say that it was
    /// none (see [`PictureEvent::Abandon`]), so that it is not shown before its end.
    Perhaps(Encoding),
    /// A draft begins: the picture as far as it is painted by now. Its data and end follow as a picture's
    /// do; it is shown to who asked for drafts, and neither kept nor charged.
    Draft {
        /// The provider's number of it, from 0.
        index: u8,
        /// How its bytes are written.
        encoding: Encoding,
    },
    /// Some of its bytes, in order; any chunking.
    Data(Bytes),
    /// It is complete: the provider sent its end.
    End,
    /// What the provider says of the picture or draft that has just ended. Comes before the next begins, if
    /// it comes.
    About(Box<About>),
    /// It is none after all, and whatever came of it is dropped: what follows it in the answer says that it
    /// was a draft, or it broke off and may come again.
    Abandon,
}

/// What a provider says of one picture. All of it is also in the [`Report`] of the call, as far as that has
/// a place for it; here it comes in time for an answer that is on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What it made of the prompt.
    pub revised_prompt: Option<String>,
    /// When it made the picture, in Unix seconds.
    pub created_at: Option<i64>,
    /// The size it says the picture has.
    pub size: Option<ImageSize>,
    /// The quality it resolved.
    pub quality: Option<Quality>,
    /// The background it resolved.
    pub background: Option<Background>,
    /// The format it says the file has.
    pub output_format: Option<OutputFormat>,
}

/// Where pictures go. What it does with them (store, relay) is none of the provider's business; its
/// slowness is: awaiting it is the backpressure.
pub trait PictureSink: Send {
    /// Takes one event.
    ///
    /// # Errors
    /// [`ProviderError`] of kind [`ErrorKind::Malformed`] when the bytes are no picture, of kind
    /// [`ErrorKind::Storage`] when we cannot keep them. The call ends with that error.
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>>;
}

/// What a call brought besides the pictures.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many pictures the answer contained.
    pub announced: usize,
    /// When the provider says it made them, in Unix seconds.
    pub created: Option<i64>,
    /// The usage it reported.
    pub usage: Option<TokenUsage>,
    /// `revised_prompt` of each picture, in order; shorter than `announced` when absent.
    pub revised_prompts: Vec<Option<String>>,
    /// `size` as the provider resolved it.
    pub size: Option<ImageSize>,
    /// `quality` as the provider resolved it.
    pub quality: Option<Quality>,
    /// `background` as the provider resolved it.
    pub background: Option<Background>,
    /// `output_format` as the provider resolved it.
    pub output_format: Option<OutputFormat>,
    /// Pictures that were announced and did not come, each with the reason: the provider held it back,
    /// or its result link opens nothing.
    pub refused: Vec<ProviderError>,
    /// The HTTP status of the answer, if there was one.
    pub upstream_status: Option<u16>,
    /// The provider's name for this exchange (`x-request-id`), for its support.
    pub upstream_request_id: Option<String>,
}

/// What a provider says of our account.
#[derive(Debug, Clone)]
pub struct AccountReport {
    /// What was found, as half a sentence.
    pub found: String,
    /// What an operator should look at, though it works.
    pub warning: Option<String>,
    /// How far our clock is ahead of the provider's, if it says what time it is there.
    pub clock_ahead: Option<TimeDelta>,
}

/// One adapter with its settings, ready to be called.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// Makes one upstream call and pushes its pictures into `sink`.
    ///
    /// # Errors
    /// The call's end in one typed kind. Pictures that the sink has taken whole by then stay delivered.
    ///
    /// # Cancel safety
    /// Dropping the future closes the upstream connection; whether the provider goes on painting and
    /// charging is the provider's affair.
    fn generate<'a>(
        &'a self,
        call: &'a Call,
        sink: &'a mut dyn PictureSink,
    ) -> BoxFuture<'a, Result<Report, ProviderError>>;

    /// Whether its pictures commonly come as [`PictureEvent::Perhaps`]: then they have to be kept somewhere
    /// until their end, also where nobody would have to keep them otherwise.
    fn doubts_pictures(&self) -> bool {
        false
    }

    /// Whether the provider can be told to stop this call, so that it neither paints nor charges on for nobody.
    /// Hanging up on it does not count.
    fn can_stop(&self, _call: &Call) -> bool {
        false
    }

    /// Asks whether our account works, by a question that is free.
    ///
    /// # Errors
    /// Why it does not, or why nobody can tell.
    fn check_account(&self) -> BoxFuture<'_, Result<AccountReport, ProviderError>>;

    /// Calls that are being made now.
    fn in_flight(&self) -> usize {
        0
    }

    /// Waits for what goes on behind calls that have ended, such as telling the provider to stop a job.
    /// Bounded to seconds; for the end of the process, when no call is made any more.
    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
