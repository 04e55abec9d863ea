//! Settlements: the one end of every hold (I2).

use std::time::Duration;

use super::hold::Hold;
use crate::{ids::ImageId, money::NanoUsd};

/// The end of a generation, as it will stand in the books.
#[derive(Debug)]
pub struct Settlement {
    /// The hold to end. It is borrowed by nobody else: whoever has it settles it.
    pub hold: Hold,
    /// How it ends.
    pub ending: Ending,
    /// Every upstream call that was made, in order.
    pub attempts: Vec<Attempt>,
}

/// How a generation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Pictures came: charge them, release the rest.
    Captured {
        /// Who served them.
        provider: String,
        /// The provider's name of the model.
        upstream_model: String,
        /// The pictures, in the order of the answer; at least one.
        pictures: Vec<Picture>,
        /// Why fewer came than asked, if fewer came: a code and a message without upstream text.
        shortfall: Option<(String, String)>,
        /// Tokens in, as reported; 0 for models priced per picture.
        input_tokens: u64,
        /// Tokens out, as reported.
        output_tokens: u64,
    },
    /// Nothing came: release everything.
    Released {
        /// The code of the error the caller got.
        error_code: String,
        /// Its message. Never contains the prompt.
        error_message: String,
    },
}

/// One delivered picture: the billing record, a row in `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its name in the store.
    pub id: ImageId,
    /// Its place in the answer, from 0.
    pub index: u8,
    /// `png`, `jpeg`, `webp`, `gif`, `svg`.
    pub format: String,
    /// Pixels; 0 when unknown (vector pictures).
    pub width: u32,
    /// Pixels; 0 when unknown.
    pub height: u32,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// What we owe the provider for it.
    pub upstream_cost: NanoUsd,
    /// What the caller pays for it.
    pub cost: NanoUsd,
    /// What the provider made of the prompt, if it says.
    pub revised_prompt: Option<String>,
    /// How long it is kept after the settlement.
    pub kept_for: Duration,
}

/// One upstream call: a row in `attempts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Who was called.
    pub provider: String,
    /// The provider's name of the model.
    pub upstream_model: String,
    /// When it began.
    pub started_at: super::Instant,
    /// How long it took.
    pub latency: Duration,
    /// The HTTP status, if there was one.
    pub upstream_status: Option<u16>,
    /// The provider's name for the exchange.
    pub upstream_request_id: Option<String>,
    /// The error's kind (`rate_limited`, `timeout`); `None` for success.
    pub error: Option<&'static str>,
    /// Pictures that arrived whole.
    pub images: u8,
    /// Whether we may owe the provider for it although it failed.
    pub maybe_charged: bool,
}
