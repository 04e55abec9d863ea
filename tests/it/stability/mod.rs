//! Stability, through a real socket against a strict fake: every model, several pictures, refusals in both
//! of its ways, and everything that can go wrong; each charged to the nano-USD, with nothing held after it.
//!
//! Prices and fields are those of `contracts/stability.md`, not of Easel's catalog.

mod edits;
mod failures;
mod painting;
mod refusals;
mod strictness;

use serde_json::{Value, json};

use crate::support::{
    Answer, App, Key,
    fake_stability::{API_KEY, BROKE_KEY, Behaviour, Call, FakeStability},
    usd,
};

const PROMPT: &str = "the organ builder listens to the wind";
const LARGE: &str = "stability/stable-diffusion-3-large";
/// sd3.5-large: 6.5 credits of 0.01 USD.
const LARGE_NANO: i64 = 65_000_000;

struct Studio {
    app: App,
    stability: FakeStability,
    key: Key,
    /// Requests that the fake was meant to refuse.
    meant: usize,
}

impl Studio {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_models(settings, "").await
    }

    /// With models of its own besides.
    async fn with_models(settings: &[(&str, &str)], models: &str) -> Self {
        let stability = FakeStability::start().await;
        let mut builder = App::builder()
            .await
            .models(models)
            .set("providers.stability.base_url", stability.base_url())
            .set("providers.stability.api_key", API_KEY);
        for (key, value) in settings {
            builder = builder.set(key, *value);
        }
        let app = builder.start().await;
        app.keep_secret(API_KEY, "Stability's key");
        app.keep_secret(BROKE_KEY, "Stability's other key");
        let key = app.live_key("2");
        Self {
            app,
            stability,
            key,
            meant: 0,
        }
    }

    /// Generates; the answer, the balance and the books name the same amount.
    async fn paint(&self, request: &Value, expected_nano: i64) -> Value {
        let before = self.app.balance(&self.key).await;
        let answer = self.app.generate(&self.key, request).await.expect(200);
        self.prove_charge(&before, &answer, expected_nano).await;
        answer.json()
    }

    /// The answer, the balance and the books name the same amount.
    async fn prove_charge(&self, before: &Value, answer: &Answer, expected_nano: i64) {
        let body = answer.json();
        assert_eq!(body["usage"]["cost"], usd(expected_nano), "{body}");
        let id = answer.header("x-generation-id").to_owned();
        for (what, sql) in [
            ("the capture", "select captured_nano_usd from holds where"),
            (
                "the charge",
                "select -sum(amount_nano_usd)::bigint from ledger_entries where",
            ),
            (
                "the pictures",
                "select sum(cost_nano_usd)::bigint from images where",
            ),
        ] {
            let sql = format!("{sql} generation_id = '{id}'");
            let booked = self.app.database.number(&sql).await;
            assert_eq!(booked, expected_nano, "{what}: {body}");
        }
        let after = self.app.balance(&self.key).await;
        let spent = before.as_f64().unwrap() - after.as_f64().unwrap();
        let expected = usd(expected_nano).as_f64().unwrap();
        assert!((spent - expected).abs() < 1e-9, "{before} - {after}");
    }

    /// One call that ends so: what the caller sees is `STATUS CODE TYPE`; nothing is charged or held.
    async fn fails(&self, behaviour: Behaviour) -> String {
        let described = format!("{behaviour:?}");
        let calls = self.stability.calls().len();
        let before = self.app.balance(&self.key).await;
        self.stability.next(behaviour);
        let answer = self.app.generate(&self.key, &one()).await;
        assert_eq!(self.app.balance(&self.key).await, before, "{described}");
        assert_eq!(self.stability.calls().len(), calls + 1, "{described}");
        let problem = answer.problem();
        for leak in ["purchase", "platform.stability.ai", "cloudflare", PROMPT] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        let seen = format!("{} {} {}", answer.status, problem.code(), problem.kind);
        match answer.find_header("retry-after") {
            Some(seconds) => format!("{seen} after {seconds}"),
            None => seen,
        }
    }

    /// How the last attempt stands in the books: `ERROR maybe_charged`.
    async fn last_attempt(&self) -> String {
        let sql = "select concat_ws(' ', error, upstream_status, maybe_charged) from attempts \
                   where provider = 'stability' order by started_at desc limit 1";
        self.app.database.texts(sql).await.remove(0)
    }

    async fn finish(self) {
        let calls = self.stability.calls();
        let refused: Vec<&Call> = calls.iter().filter(|call| call.refused.is_some()).collect();
        assert_eq!(refused.len(), self.meant, "refused: {refused:#?}");
        let sql = "select count(*) from attempts where provider = 'stability'";
        let attempts = self.app.database.number(sql).await;
        assert_eq!(usize::try_from(attempts).unwrap(), calls.len());
        self.app.finish().await;
    }
}

fn one() -> Value {
    json!({"model": LARGE, "prompt": PROMPT})
}
