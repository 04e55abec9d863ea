//! Webhooks: the end of a generation, told to an address of its client's.
//!
//! What is to be told is booked by the transaction that ends the generation, so that no crash loses it. Whichever
//! replica finds it due takes a lease on it, sends it without holding anything in the database, and writes down
//! what came of it. A replica that dies meanwhile lets its lease run out; so a message comes at least once, and
//! its id, which is that of the generation, tells it from another.
//!
//! Knows how messages are sent and signed. Knows no JSON of ours ([`Teller`]), no SQL and no money.

mod schedule;
mod signature;
mod targets;

use std::{collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::BoxFuture;
use http::header;
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::OnceCell,
    task::{Id, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::schedule::Schedule;
pub use self::targets::{Refusal, Targets};
pub(crate) use self::{signature::shown, targets::LONGEST_URL};
use crate::{
    addresses::NoAddress,
    clock::Clock,
    ids::KeyId,
    keys::Keys,
    ledger::{Delivery, DeliveryAttempt, DeliveryEnd, Generation, Ledger},
    telemetry::metrics::metrics,
};

/// How often to look for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is made of a message beside sending it may take this much more.
const PREPARING: Duration = Duration::from_secs(3);
/// A lease goes on for so long after nobody sends any more, so that two replicas never send the same at a time.
const LEASE_SLACK: Duration = Duration::from_secs(2);
/// One key has this share of what is sent at the same time, so that a receiver that is slow delays no others.
const SHARE_OF_ONE: usize = 4;
/// How long what is being sent may take when the process ends.
const GRACE: Duration = Duration::from_secs(5);
/// How often to delete what ended long ago, and how long ago that is.
const FORGET_EVERY: Duration = Duration::from_mins(10);
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);

/// What an operator decides about webhooks.
#[derive(Debug, Clone, Copy)]
pub struct WebhookSettings {
    /// How long one message may take.
    pub timeout: Duration,
    /// Messages at the same time.
    pub max_in_flight: usize,
    /// The pause after the first attempt that failed.
    pub first_retry: Duration,
    /// How long to try.
    pub retry_for: Duration,
}

/// Says what a generation looks like for its client.
pub trait Teller: fmt::Debug + Send + Sync {
    /// The object as JSON, with links that are good for a while from now on.
    fn tell<'a>(
        &'a self,
        generation: &'a Generation,
    ) -> BoxFuture<'a, Result<String, Box<dyn Error + Send + Sync>>>;
}

/// What is sent; the document of the API has it as `WebhookMessage`.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    /// When it happened (RFC 3339).
    timestamp: String,
    /// As it was told: amounts are exact there.
    data: Box<RawValue>,
}

/// Sends what is due, as one configuration has it.
#[derive(Debug)]
pub struct Webhooks {
    ledger: Ledger,
    keys: Keys,
    clock: Clock,
    targets: Targets,
    teller: Box<dyn Teller>,
    settings: WebhookSettings,
    /// Made when the first message is sent, since most operators never send any.
    client: OnceCell<reqwest::Client>,
}

/// A message that is this replica's until its lease runs out.
#[derive(Debug)]
struct Claimed {
    delivery: Delivery,
    /// Until when it may be sent.
    until: Instant,
}

/// Why nobody has taken a message: a word for the books and the figures.
struct Untaken {
    why: &'static str,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
}

impl Untaken {
    fn because(why: &'static str) -> Self {
        Self {
            why,
            status: None,
            retry_after: None,
        }
    }
}

impl Webhooks {
    /// Those of these books, as `teller` tells them.
    pub fn new(
        ledger: Ledger,
        keys: Keys,
        clock: Clock,
        targets: Targets,
        teller: Box<dyn Teller>,
        settings: WebhookSettings,
    ) -> Self {
        Self {
            ledger,
            keys,
            clock,
            targets,
            teller,
            settings,
            client: OnceCell::new(),
        }
    }

    /// Sends what is due, as `current` has it at that moment, until `stop`; then waits a moment for what is being
    /// sent.
    pub async fn run(current: impl Fn() -> Arc<Self>, stop: CancellationToken) {
        let mut sending = JoinSet::new();
        let mut keys: HashMap<Id, KeyId> = HashMap::new();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forgotten_at: Option<Instant> = None;
        let mut is_behind = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                Some(ended) = sending.join_next_with_id() => {
                    let id = match ended {
                        Ok((id, ())) => id,
                        Err(panicked) => panicked.id(),
                    };
                    keys.remove(&id);
                    if !is_behind {
                        continue;
                    }
                }
            }
            let webhooks = current();
            let most = webhooks.settings.max_in_flight;
            if forgotten_at.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
                forgotten_at = Some(Instant::now());
                webhooks.forget().await;
            }
            is_behind = loop {
                let free = most.saturating_sub(sending.len());
                let share = (most / SHARE_OF_ONE).max(1);
                let (busy, room) = standing(keys.values(), share);
                let wanted = free.min(room);
                if wanted == 0 {
                    break true;
                }
                let due = webhooks.claim(&busy, wanted).await;
                let came = due.len();
                for claimed in due {
                    let key = claimed.delivery.key;
                    let sender = Arc::clone(&webhooks);
                    let task = sending.spawn(async move { sender.deliver(claimed).await });
                    keys.insert(task.id(), key);
                }
                if came < wanted {
                    // What is due of a key that has its share is looked for when one of its own has ended.
                    break !busy.is_empty();
                }
            };
        }
        let rest = async { while sending.join_next().await.is_some() {} };
        // What is not done by then is done again when its lease has run out.
        drop(timeout(GRACE, rest).await);
    }

    async fn claim(&self, busy: &[KeyId], at_most: usize) -> Vec<Claimed> {
        let may_take = self.settings.timeout.saturating_add(PREPARING);
        let lease = may_take.saturating_add(LEASE_SLACK);
        // Before the database begins to count, so that it ends here first.
        let asked_at = Instant::now();
        match self.ledger.claim_deliveries(busy, at_most, lease).await {
            Ok(due) => {
                let until = asked_at.checked_add(may_take).unwrap_or(asked_at);
                let claimed = due.into_iter();
                claimed
                    .map(|delivery| Claimed { delivery, until })
                    .collect()
            }
            Err(error) => {
                // Whoever beats says that the database is away.
                tracing::debug!(
                    error = &error as &dyn Error,
                    "could not look for webhooks that are due"
                );
                Vec::new()
            }
        }
    }

    async fn forget(&self) {
        match self.ledger.forget_deliveries(KEPT_FOR).await {
            Ok(0) => {}
            Ok(deliveries) => tracing::debug!(deliveries, "forgot webhooks that ended long ago"),
            Err(error) => tracing::debug!(
                error = &error as &dyn Error,
                "could not forget old webhooks"
            ),
        }
    }

    /// Sends one and writes down what came of it.
    async fn deliver(&self, Claimed { delivery, until }: Claimed) {
        let started_at = self.clock.now();
        let began = Instant::now();
        let sent = timeout_at(until, self.send(&delivery, started_at)).await;
        let sent = sent.unwrap_or_else(|_| Err(Untaken::because("timeout")));
        let latency = began.elapsed();
        let schedule = Schedule {
            first_retry: self.settings.first_retry,
            retry_for: self.settings.retry_for,
        };
        let end = match &sent {
            Ok(_) => DeliveryEnd::Delivered,
            Err(untaken) if untaken.status == Some(StatusCode::GONE) => DeliveryEnd::Gone,
            Err(untaken) => {
                let age = delivery.age.saturating_add(latency);
                let chance = rand::random::<f64>();
                let pause = schedule.pause(delivery.attempt, age, untaken.retry_after, chance);
                pause.map_or(DeliveryEnd::GivenUp, DeliveryEnd::Again)
            }
        };
        let (status, error) = match &sent {
            Ok(status) => (Some(*status), None),
            Err(untaken) => (untaken.status, Some(untaken.why)),
        };
        let attempt = DeliveryAttempt {
            started_at,
            latency,
            status: status.map(|status| status.as_u16()),
            error: error.map(str::to_owned),
        };
        let outcome = match end {
            DeliveryEnd::Delivered => "delivered",
            DeliveryEnd::Gone => "gone",
            DeliveryEnd::GivenUp => "given_up",
            DeliveryEnd::Again(_) => "retried",
        };
        metrics().webhook_sent(outcome, latency);
        tracing::info!(
            generation.id = %delivery.generation,
            attempt.number = delivery.attempt,
            http.status = attempt.status,
            error.kind = error,
            outcome,
            "sent a webhook"
        );
        if let Err(error) = self.ledger.end_delivery(&delivery, &attempt, end).await {
            tracing::warn!(
                error = &error as &dyn Error,
                generation.id = %delivery.generation,
                "the end of a webhook could not be written down; it is sent again"
            );
        }
    }

    async fn send(
        &self,
        delivery: &Delivery,
        sent_at: DateTime<Utc>,
    ) -> Result<StatusCode, Untaken> {
        let internal = |error: &(dyn Error + 'static)| {
            tracing::warn!(error, generation.id = %delivery.generation, "a webhook could not be made");
            Untaken::because("internal")
        };
        // The setting may have changed since it was asked for.
        let url = self.targets.check(&delivery.url);
        let url = url.map_err(|_| Untaken::because("refused"))?;
        let found = self.ledger.find_generation(delivery.generation).await;
        let found = found.map_err(|error| internal(&error))?;
        let generation = found.ok_or_else(|| Untaken::because("internal"))?;
        let told = self.teller.tell(&generation).await;
        let data = told.map_err(|error| internal(&*error))?;
        let ended_at = generation.finished_at.unwrap_or(sent_at);
        let message = Message {
            event: &delivery.event,
            timestamp: ended_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            data: RawValue::from_string(data).map_err(|error| internal(&error))?,
        };
        let body = serde_json::to_string(&message).map_err(|error| internal(&error))?;
        let secrets = self.keys.webhook_secrets(delivery.key).await;
        let secrets = secrets.map_err(|error| internal(&error))?;
        let id = message_id(delivery);
        let signature = signature::sign(&secrets, &id, sent_at, body.as_bytes());
        let request = self
            .client
            .get_or_try_init(|| async { self.targets.client(self.settings.timeout) })
            .await
            .map_err(|error| internal(&error))?
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", sent_at.timestamp())
            .header("webhook-signature", signature)
            .body(body);
        // What the answer says besides its head is nobody's business here, and not read.
        let answer = request.send().await.map_err(|error| untaken(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(status);
        }
        Err(Untaken {
            why: "status",
            status: Some(status),
            retry_after: retry_after(answer.headers(), sent_at),
        })
    }
}

/// The same for every attempt: receivers tell by it what they have had.
fn message_id(delivery: &Delivery) -> String {
    let id = delivery.generation.to_string();
    format!("msg_{}", id.trim_start_matches("gen_"))
}

/// The keys that have their share, and how much one of the others may be given at once: all that is due may be of the
/// one that has most.
fn standing<'a>(sending: impl Iterator<Item = &'a KeyId>, share: usize) -> (Vec<KeyId>, usize) {
    let mut counts: HashMap<KeyId, usize> = HashMap::new();
    for key in sending {
        *counts.entry(*key).or_default() += 1;
    }
    let most = counts.values().filter(|count| **count < share).max();
    let room = share - most.unwrap_or(&0);
    let full = counts.into_iter().filter(|(_, count)| *count >= share);
    (full.map(|(key, _)| key).collect(), room)
}

fn untaken(error: &reqwest::Error) -> Untaken {
    Untaken::because(if NoAddress::caused(error) {
        "refused"
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "transport"
    })
}

/// In seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &header::HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.with_timezone(&Utc) - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_given_more_than_its_share() {
        let [one, other] = [KeyId::new(), KeyId::new()];
        for (sending, busy, room) in [
            (vec![], vec![], 8),
            (vec![one; 7], vec![], 1),
            (vec![one; 8], vec![one], 8),
            ([vec![one; 8], vec![other; 3]].concat(), vec![one], 5),
            ([vec![one; 2], vec![other; 3]].concat(), vec![], 5),
        ] {
            assert_eq!(standing(sending.iter(), 8), (busy, room), "{sending:?}");
        }
    }
}
