//! Clients that behave as `OpenAI`'s SDKs do (contracts/openai-images.md, section 8): two retries with a growing,
//! jittered pause, a count of them in a header, and what the server says about asking again goes before the status.
//! Each try goes to any of the replicas, as behind a balancer.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::Origins;
use crate::support::{Answer, App, Client, Key};

const GENERATIONS: &str = "/v1/images/generations";
const MOST_RETRIES: u16 = 2;
/// An answer takes no longer than a hold, a provider, a settlement, and the sweep of a dead one before it.
const PATIENCE: Duration = Duration::from_mins(1);
/// What some clients set, too short.
const IMPATIENCE: Duration = Duration::from_millis(150);

/// Everybody who asks.
pub(super) struct Crowd {
    client: Client,
    key: Key,
    origins: Origins,
}

/// One request of a client, from its first try to its last.
#[derive(Debug)]
pub(super) struct Story {
    /// Stands in its prompt, and as the end user in the books.
    pub(super) name: String,
    pub(super) tries: u16,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    Pictures {
        generation: String,
        cost: Value,
        /// The links in place of base64.
        links: Vec<String>,
    },
    Refused(String),
    NoAnswer,
}

impl Crowd {
    pub(super) fn new(app: &App, key: &Key, origins: Origins) -> Self {
        Self {
            client: app.client.clone(),
            key: key.clone(),
            origins,
        }
    }

    /// Asks for one thing after the other until the storm is over.
    pub(super) async fn play(
        self: Arc<Self>,
        number: u64,
        mut dice: StdRng,
        over: CancellationToken,
    ) -> Vec<Story> {
        let mut stories = Vec::new();
        while !over.is_cancelled() {
            let name = format!("client-{number:02}-wish-{:04}", stories.len());
            stories.push(self.ask(name, &mut dice).await);
            sleep(Duration::from_millis(dice.random_range(20..400))).await;
        }
        stories
    }

    async fn ask(&self, name: String, dice: &mut StdRng) -> Story {
        let body = wish(&name, dice);
        let idempotency_key = dice.random_bool(0.5).then(|| name.clone());
        let patience = if dice.random_ratio(1, 15) {
            IMPATIENCE
        } else {
            PATIENCE
        };
        let mut tries = 0;
        loop {
            let answer = self.try_once(&body, idempotency_key.as_deref(), tries, patience, dice);
            let answer = answer.await;
            tries += 1;
            if let Some(pictures) = answer.as_ref().and_then(read) {
                return Story {
                    name,
                    tries,
                    end: pictures,
                };
            }
            if tries > MOST_RETRIES || !answer.as_ref().is_none_or(should_retry) {
                let end = match answer {
                    Some(answer) => End::Refused(answer.problem().code().to_owned()),
                    None => End::NoAnswer,
                };
                return Story { name, tries, end };
            }
            sleep(pause(answer.as_ref(), tries, dice)).await;
        }
    }

    /// The answer, unless there was none, or only a part of one.
    async fn try_once(
        &self,
        body: &Value,
        idempotency_key: Option<&str>,
        retry_count: u16,
        patience: Duration,
        dice: &mut StdRng,
    ) -> Option<Answer> {
        let origin = {
            let origins = self.origins.lock().unwrap();
            origins[dice.random_range(0..origins.len())].clone()
        };
        let client = self.client.at(origin);
        let mut request = client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&self.key.secret)
            .header("content-type", "application/json")
            .header("x-stainless-retry-count", retry_count.to_string())
            .body(body.to_string());
        if let Some(name) = idempotency_key {
            request = request.header("idempotency-key", name);
        }
        let answer = timeout(patience, client.try_send(request)).await;
        answer.ok().and_then(Result::ok)
    }

    /// Every link still opens, at a replica that may not be the one that gave it out.
    pub(super) async fn open_links(&self, stories: &[Story], first: usize) {
        let links = stories.iter().filter_map(|story| match &story.end {
            End::Pictures { links, .. } => links.first(),
            End::Refused(_) | End::NoAnswer => None,
        });
        let origins = self.origins.lock().unwrap().clone();
        // A hundred tell as much as all.
        for (number, link) in links.skip(first).step_by(7).take(100).enumerate() {
            let client = self.client.at(origins[number % origins.len()].clone());
            let path = link.split_once("/files/").unwrap().1;
            let picture = client.get(&format!("/files/{path}"), None).await;
            assert!(!picture.expect(200).bytes.is_empty());
        }
    }
}

fn wish(name: &str, dice: &mut StdRng) -> Value {
    let prompt = format!("a ship in the storm for {name}");
    if dice.random_ratio(1, 5) {
        return json!({"model": "gpt-image-1", "prompt": prompt, "user": name, "quality": "low",
            "size": "1024x1024"});
    }
    let response_format = if dice.random_bool(0.5) {
        "url"
    } else {
        "b64_json"
    };
    json!({"model": "dall-e-2", "prompt": prompt, "user": name, "size": "256x256",
        "response_format": response_format})
}

fn read(answer: &Answer) -> Option<End> {
    if answer.status != 200 {
        return None;
    }
    let body = answer.json();
    let data = body["data"].as_array().unwrap();
    assert_eq!(data.len(), 1, "one picture: {body}");
    let links = data.iter().filter_map(|item| item["url"].as_str());
    let links: Vec<String> = links.map(str::to_owned).collect();
    if links.is_empty() {
        assert!(answer.picture(0).len() > 100);
    }
    Some(End::Pictures {
        generation: answer.header("x-generation-id").to_owned(),
        cost: body["usage"]["cost"].clone(),
        links,
    })
}

fn should_retry(answer: &Answer) -> bool {
    match answer.find_header("x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(answer.status, 408 | 409 | 429 | 500..),
    }
}

fn pause(answer: Option<&Answer>, tries: u16, dice: &mut StdRng) -> Duration {
    let asked = answer.and_then(|answer| answer.find_header("retry-after")?.parse().ok());
    if let Some(seconds @ 1..=60) = asked {
        return Duration::from_secs(seconds);
    }
    let longest = Duration::from_millis(500) * 2_u32.pow(u32::from(tries - 1));
    longest
        .min(Duration::from_secs(8))
        .mul_f64(1.0 - dice.random_range(0.0..0.25))
}
