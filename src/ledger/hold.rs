//! Holds: money reserved before a provider is called (I1).

use crate::{
    ids::{AccountId, GenerationId, HoldId, KeyId, RequestId},
    keys::{KeyLimits, Mode},
    money::NanoUsd,
};

/// A generation that wants its money reserved. Also opens the row in `generations`.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// The generation it is for.
    pub generation: GenerationId,
    /// The exchange that asked for it.
    pub request: RequestId,
    /// Who pays.
    pub account: AccountId,
    /// With which key.
    pub key: KeyId,
    /// From which balance.
    pub mode: Mode,
    /// The catalog's id of the model.
    pub model: String,
    /// How many pictures were asked for.
    pub images: u8,
    /// The largest possible price.
    pub amount: NanoUsd,
    /// The key's limits, counted in the same transaction.
    pub limits: KeyLimits,
    /// The end user, as the request named them.
    pub user: Option<String>,
    /// The client's name for the effect, if it gave one.
    pub idempotency_key: Option<String>,
}

/// Money that is reserved. Must be settled; a crash leaves it to the sweeper.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an open hold blocks the caller's money until it is settled"]
pub struct Hold {
    /// The row in `holds`.
    pub id: HoldId,
    /// What it is for.
    pub generation: GenerationId,
    /// Who pays.
    pub account: AccountId,
    /// From which balance.
    pub mode: Mode,
    /// How much.
    pub amount: NanoUsd,
}
