//! Google's models, through the Gemini API and through Vertex, against the strict fake: what is painted,
//! refused and charged, and what goes wrong on the way.
//!
//! The expected amounts are computed here from `contracts/google-imagen.md`, section 5, in whole nano-USD,
//! not taken from Easel's catalog.

mod edits;
mod failures;
mod painting;
mod refusals;
mod strictness;
mod vertex;

use serde_json::{Value, json};

use crate::support::{
    Answer, App, Key,
    fake_google::{API_KEY, Behaviour, FakeGoogle, PROJECT, THOUGHT_TOKENS, input_tokens},
    usd,
};

const PROMPT: &str = "the lighthouse keeper's evening round";

/// Which ways in are configured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doors {
    Gemini,
    Vertex,
    Both,
}

/// An Easel in front of the fake.
struct Google {
    app: App,
    fake: FakeGoogle,
    key: Key,
    /// Calls that were made again within their attempt.
    repeated: usize,
}

impl Google {
    async fn start(doors: Doors) -> Self {
        Self::start_with(doors, &[]).await
    }

    /// With a `base_url` that is a host and nothing more.
    async fn start_at_origin(doors: Doors) -> Self {
        let fake = FakeGoogle::legacy().await;
        let origin = fake.origin().to_owned();
        Self::start_before(fake, doors, &[("base_url", &origin)]).await
    }

    /// With further settings of the provider.
    async fn start_with(doors: Doors, settings: &[(&str, &str)]) -> Self {
        Self::start_before(FakeGoogle::legacy().await, doors, settings).await
    }

    async fn start_before(fake: FakeGoogle, doors: Doors, settings: &[(&str, &str)]) -> Self {
        let mut builder = App::builder().await;
        let key_file = fake.key_file(builder.directory());
        if doors != Doors::Vertex {
            builder = builder
                .set("providers.google.base_url", fake.base_url())
                .set("providers.google.api_key", API_KEY);
        }
        if doors != Doors::Gemini {
            builder = builder
                .set("providers.vertex.base_url", fake.vertex_base_url())
                .set("providers.vertex.location", "us-central1")
                .set(
                    "providers.vertex.credentials_file",
                    key_file.to_str().unwrap(),
                );
        }
        for (name, value) in settings {
            let provider = if doors == Doors::Vertex {
                "vertex"
            } else {
                "google"
            };
            builder = builder.set(&format!("providers.{provider}.{name}"), *value);
        }
        let app = builder.start().await;
        app.keep_secret(API_KEY, "Google's key");
        app.keep_secret("ya29.fake-access-token", "an access token");
        app.keep_secret(
            FakeGoogle::private_key().lines().nth(3).unwrap(),
            "the service account's key",
        );
        let key = app.live_key("20");
        Self {
            app,
            fake,
            key,
            repeated: 0,
        }
    }

    /// Generates, and proves that the answer, the balance and the books name the same amount.
    async fn paints(&self, request: &Value, expected_nano: i64) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.app.generate(&self.key, request).await;
        self.proves(&answer, &before, expected_nano, request).await
    }

    /// That this answer, the balance and the books name the same amount.
    async fn proves(
        &self,
        answer: &Answer,
        before: &Value,
        expected_nano: i64,
        request: &Value,
    ) -> Value {
        let body = answer.json();
        assert_eq!(answer.status, 200, "{request}: {body}");
        assert_eq!(body["usage"]["cost"], usd(expected_nano), "{request}");
        let id = answer.header("x-generation-id").to_owned();
        for (what, query) in [
            ("captured", "select captured_nano_usd from holds"),
            (
                "charged",
                "select -sum(amount_nano_usd)::bigint from ledger_entries",
            ),
            (
                "of the pictures",
                "select sum(cost_nano_usd)::bigint from images",
            ),
        ] {
            let query = format!("{query} where generation_id = '{id}'");
            let amount = self.app.database.number(&query).await;
            assert_eq!(amount, expected_nano, "{what}: {request}");
        }
        let held = self
            .app
            .database
            .number(&format!(
                "select amount_nano_usd from holds where generation_id = '{id}'"
            ))
            .await;
        assert!(expected_nano <= held, "{expected_nano} of {held}");
        let after = self.app.balance(&self.key).await;
        let difference = before.as_f64().unwrap() - after.as_f64().unwrap();
        let expected = usd(expected_nano).as_f64().unwrap();
        assert!((difference - expected).abs() < 1e-9, "{before} - {after}");
        body
    }

    /// Fails with this status and code after one call; nothing is charged, nothing held, nothing told.
    async fn fails(&self, behaviour: Behaviour, request: &Value, status: u16, code: &str) -> Value {
        self.fails_after(vec![behaviour], request, status, code)
            .await
    }

    /// The same after a call for each of these.
    async fn fails_after(
        &self,
        behaviours: Vec<Behaviour>,
        request: &Value,
        status: u16,
        code: &str,
    ) -> Value {
        let described = format!("{behaviours:?}");
        let calls = self.fake.calls().len() + behaviours.len();
        let before = self.app.balance(&self.key).await;
        for behaviour in behaviours {
            self.fake.next(behaviour);
        }
        let answer = self.app.generate(&self.key, request).await;
        let problem = answer.problem();
        assert_eq!(
            (answer.status, problem.code()),
            (status, code),
            "{described}: {problem:?}"
        );
        assert_eq!(self.app.balance(&self.key).await, before, "{described}");
        assert_eq!(self.fake.calls().len(), calls, "{described}");
        for leak in [PROJECT, API_KEY, "googleapis.com", PROMPT] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        json!({
            "message": problem.message,
            "type": problem.kind,
            "retry_after": answer.find_header("retry-after"),
        })
    }

    /// How many attempts are marked as perhaps charged.
    async fn marked(&self) -> i64 {
        self.app
            .database
            .number("select count(*) from attempts where maybe_charged")
            .await
    }

    /// What must hold after every test: the fake refused nothing, and the books know every call.
    async fn finish(self) {
        let calls = self.fake.calls();
        let refused: Vec<_> = calls
            .iter()
            .filter(|call| call.refused.is_some())
            .skip(self.repeated)
            .collect();
        assert!(
            refused.is_empty(),
            "requests that Google refuses: {refused:#?}"
        );
        let attempts = self
            .app
            .database
            .number("select count(*) from attempts where provider in ('google', 'vertex')")
            .await;
        assert_eq!(
            usize::try_from(attempts).unwrap(),
            calls.len() - self.repeated,
            "attempts in the books, calls at the fake"
        );
        self.app.finish().await;
    }
}

fn banana() -> Value {
    json!({"model": "gemini-nano-banana-2.1", "prompt": PROMPT, "size": "1024x1024", "response_format": "b64_json"})
}

fn imagen(n: usize) -> Value {
    json!({"model": "imagen-3", "prompt": PROMPT, "n": n, "response_format": "b64_json"})
}

/// What a picture of Gemini costs; rates in nano-USD per token.
fn gemini_cost(text_in: i64, text_out: i64, image_out: i64, image_tokens: i64) -> i64 {
    let prompt = i64::try_from(input_tokens(PROMPT)).unwrap();
    let thoughts = i64::try_from(THOUGHT_TOKENS).unwrap();
    prompt * text_in + thoughts * text_out + image_tokens * image_out
}

fn banana_cost() -> i64 {
    gemini_cost(1_500, 7_500, 30_000, 1120)
}

/// What one costs whose usage nobody reports: the prompt at four bytes a token and 6 around it, and the picture's
/// own tokens.
fn unreported_banana_cost() -> i64 {
    1_500 * (i64::try_from(PROMPT.len().div_ceil(4)).unwrap() + 6) + 30_000 * 1120
}

fn decoded(item: &Value) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(item["b64_json"].as_str().unwrap()).unwrap()
}
