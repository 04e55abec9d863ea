//! What goes in and what comes out: an [`Order`] from the surface, a settled [`Generation`] back to it.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    catalog::{Background, ImageSize, OutputFormat, Params, Quality, ResponseFormat},
    ids::{GenerationId, ImageId, RequestId},
    images::{PictureInfo, Undelivered},
    keys::ApiKey,
    ledger::{Gauge, RequestHash},
    money::NanoUsd,
    providers::Task,
    routing::Preferences,
};

/// One authenticated request, parsed into types but not yet checked against a model.
#[derive(Clone)]
pub struct Order {
    /// The exchange it came in.
    pub request: RequestId,
    /// Who asks.
    pub key: ApiKey,
    /// The model it names, if it names one.
    pub model: Option<String>,
    /// Its parameters.
    pub params: Params,
    /// What it is to be painted from.
    pub task: Task,
    /// What it wishes of the route.
    pub preferences: Preferences,
    /// The client's name for the effect.
    pub idempotency_key: Option<String>,
    /// What it asks, by which a repeat is recognised.
    pub request_hash: Option<RequestHash>,
    /// How often the client says that it has asked before.
    pub retry_count: u16,
    /// Who gets the answer.
    pub reader: Reader,
    /// Where to leave how its limits per minute stand.
    pub gauge: Gauge,
    /// Where its end is to be told too.
    pub webhook_url: Option<String>,
}

/// Who gets the answer of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Who asked, on the same connection.
    Waits,
    /// Who asked, by the generation's name and later.
    ComesBack,
}

/// A finished, settled generation: everything the answer says.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// When it was asked for, in Unix seconds.
    pub created: i64,
    /// The catalog's id of the model.
    pub model: String,
    /// Who served it.
    pub provider: String,
    /// What arrived, in order; at least one.
    pub pictures: Vec<DeliveredPicture>,
    /// What was asked for and did not arrive.
    pub failed: Vec<FailedPicture>,
    /// What it used and cost.
    pub usage: Usage,
    /// How the answer carries the pictures.
    pub response_format: ResponseFormat,
    /// The size, when all pictures share one.
    pub size: Option<ImageSize>,
    /// The quality, as resolved.
    pub quality: Option<Quality>,
    /// The background, as resolved.
    pub background: Option<Background>,
    /// The file format, when the model lets one choose.
    pub output_format: Option<OutputFormat>,
    /// Parameters that were left out because the model does not take them.
    pub dropped: Vec<&'static str>,
    /// The upstream calls it took, in order, as `provider=outcome`.
    pub attempts: String,
    /// Whether it is told again, to a repeat of its request.
    pub is_replayed: bool,
    /// What becomes of its copies when it does not reach its client.
    pub undelivered: Option<Undelivered>,
    /// How long its steps took; `None` where it is told again.
    pub times: Option<Times>,
}

/// How long the steps of a generation took, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Until its price was held.
    pub hold: Duration,
    /// All upstream calls, and keeping what they brought.
    pub upstream: Duration,
    /// Until the settlement was committed.
    pub settlement: Duration,
}

/// One picture of the answer.
#[derive(Debug, Clone)]
pub struct DeliveredPicture {
    /// Its name in the store.
    pub id: ImageId,
    /// What its bytes are.
    pub info: PictureInfo,
    /// How many they are.
    pub size_bytes: u64,
    /// Its base64, where all of it is at hand; otherwise it is in the store.
    pub text: Option<Bytes>,
    /// Whether it is kept only until its answer was delivered and others need the room.
    pub is_copy: bool,
    /// A signed link, when links were asked for.
    pub url: Option<String>,
    /// What the provider made of the prompt.
    pub revised_prompt: Option<String>,
}

/// One picture that was asked for and did not arrive; costs nothing.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct FailedPicture {
    /// Its place in what was asked for, from 0; behind those that arrived.
    pub index: u8,
    /// A code such as `content_policy_violation` or `upstream_error`.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// What a generation used and cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Text tokens in; 0 for models priced per image.
    pub input_text_tokens: u64,
    /// Image tokens in.
    pub input_image_tokens: u64,
    /// Text tokens out.
    pub output_text_tokens: u64,
    /// Image tokens out.
    pub output_image_tokens: u64,
    /// Exactly what was captured (I6).
    pub cost: NanoUsd,
}

impl Usage {
    /// All tokens in.
    pub fn input_tokens(&self) -> u64 {
        self.input_text_tokens
            .saturating_add(self.input_image_tokens)
    }

    /// All tokens out.
    pub fn output_tokens(&self) -> u64 {
        self.output_text_tokens
            .saturating_add(self.output_image_tokens)
    }
}
