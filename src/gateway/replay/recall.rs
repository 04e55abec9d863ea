//! Repeats of requests that would be refused today: their model is switched off or gone, it has other rules, the key
//! may not use it any longer. What was served and charged before is told again all the same; a refusal would hide from
//! its client what it has paid for.

use tokio::time::Instant;

use super::{Answering, Before, Repeater, Told};
use crate::{
    catalog::{Parameter, ResponseFormat, Value},
    gateway::{Gateway, GatewayError, Generation, Order, admit::LONGEST_GENERATION},
    ids::{GenerationId, HoldId, RequestId},
    ledger::{Caller, Gauge, LedgerError, NewHold, RequestHash},
    money::NanoUsd,
    telemetry::metrics::metrics,
};

/// What finds the answer of a request again.
#[derive(Debug, Clone)]
pub struct Recall {
    request: RequestId,
    caller: Caller,
    gauge: Gauge,
    name: Option<String>,
    hash: RequestHash,
    retry_count: u16,
    /// Where the request says it itself.
    response_format: Option<ResponseFormat>,
}

impl Recall {
    /// `None` for a request that cannot be a repeat.
    pub fn of(order: &Order) -> Option<Self> {
        let hash = order.request_hash?;
        if order.idempotency_key.is_none() && order.retry_count == 0 {
            return None;
        }
        let response_format = match order.params.get(&Parameter::ResponseFormat) {
            Some(Value::Text(word)) => word.parse().ok(),
            _ => None,
        };
        Some(Self {
            request: order.request,
            caller: Caller::from(&order.key),
            gauge: order.gauge.clone(),
            name: order.idempotency_key.clone(),
            hash,
            retry_count: order.retry_count,
            response_format,
        })
    }

    /// A hold that nobody gets.
    fn look(&self) -> NewHold {
        NewHold {
            id: HoldId::new(),
            generation: Gateway::new_generation(),
            request: self.request,
            caller: self.caller,
            model: String::new(),
            images: 1,
            amount: NanoUsd::ZERO,
            cheaper: Vec::new(),
            gauge: self.gauge.clone(),
            user: None,
            idempotency_key: self.name.clone(),
            request_hash: Some(self.hash),
            retry_count: self.retry_count,
            webhook_url: None,
            joins: true,
            only_repeats: true,
        }
    }
}

impl Gateway {
    /// The generation whose request this one repeats, if there is one. Then the request has been counted.
    ///
    /// # Errors
    /// [`GatewayError::IdempotencyConflict`], [`GatewayError::RateLimited`], [`GatewayError::DatabaseUnavailable`].
    ///
    /// # Cancel safety
    /// May be dropped.
    pub async fn find_repeated(
        &self,
        recall: &Recall,
    ) -> Result<Option<GenerationId>, GatewayError> {
        match self.rooms.ledger.hold_one(&recall.look()).await {
            Err(LedgerError::Repeated(generation)) => Ok(Some(generation)),
            Err(LedgerError::NotRepeated) => Ok(None),
            Err(refused) => {
                if let LedgerError::RateLimited { .. } = &refused {
                    metrics().rate_limited();
                }
                Err(refused.into())
            }
            Ok(hold) => Err(GatewayError::Internal(
                format!("{} was placed though only looked for", hold.id).into(),
            )),
        }
    }

    /// The answer of that generation, once it has ended. `None`: there is nothing to tell.
    ///
    /// # Errors
    /// The same as that one's; [`GatewayError::ReplayExpired`] when its pictures are gone.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub async fn recall(
        &self,
        recall: Recall,
        generation: GenerationId,
    ) -> Result<Option<Box<Generation>>, GatewayError> {
        // Who waits is waited for when the process stops.
        let _counted = self.shared.tasks.token();
        let repeater = Repeater {
            caller: recall.caller,
            gauge: recall.gauge,
            name: recall.name,
            model: String::new(),
            response_format: recall.response_format,
            dropped: Vec::new(),
            deadline: Instant::now() + LONGEST_GENERATION,
        };
        let answering = Answering::new(generation);
        let told = self.repeat(&repeater, Before::Booked(generation), &answering);
        Ok(match told.await? {
            Told::Answer(generation) => Some(generation),
            Told::Nothing | Told::Gone => None,
        })
    }
}
