//! The models of Black Forest Labs through Replicate: what is asked for, what comes, what it costs, and
//! everything that can go wrong on the way. After every test the books are proved, and that no token went
//! where it should not.

mod edits;
mod failures;
mod leaving;
mod painting;
mod waiting;

use serde_json::{Value, json};

use crate::support::{
    App, Key,
    fake_replicate::{self, FakeReplicate},
};

const PROMPT: &str = "the glassblower's quiet apprentice";
const SCHNELL: &str = "black-forest-labs/flux-1-schnell";

/// An Easel whose Replicate is the fake, and a key with ten dollars.
struct Studio {
    app: App,
    replicate: FakeReplicate,
    key: Key,
}

impl Studio {
    async fn open() -> Self {
        Self::with(&[]).await
    }

    /// With these keys of `[providers.replicate]` besides.
    async fn with(settings: &[(&str, Value)]) -> Self {
        Self::with_models(settings, "").await
    }

    /// And with these models besides the built-in ones.
    async fn with_models(settings: &[(&str, Value)], models: &str) -> Self {
        let replicate = FakeReplicate::start().await;
        let mut builder = App::builder().await.models(models);
        let usual = [
            ("base_url", json!(replicate.base_url())),
            ("api_key", json!(fake_replicate::TOKEN)),
            ("result_hosts", json!([replicate.file_host()])),
        ];
        for (name, value) in usual.iter().chain(settings) {
            builder = builder.set(&format!("providers.replicate.{name}"), value.clone());
        }
        let app = builder.start().await;
        app.keep_secret(fake_replicate::TOKEN, "Replicate's token");
        let key = app.live_key("10");
        Self {
            app,
            replicate,
            key,
        }
    }

    /// A request that succeeds: the answer, after the balance has been compared with `usage.cost`.
    async fn paint(&self, request: &Value) -> Value {
        let before = self.balance().await;
        let answer = self.app.generate(&self.key, request).await.expect(200);
        let answer = answer.json();
        assert_eq!(answer["provider"], "replicate");
        let cost = nano(&answer["usage"]["cost"]);
        assert_eq!(self.balance().await, before - cost, "charged as said");
        answer
    }

    /// A request that fails: status and code, after nothing was charged and nothing is held.
    async fn fail(&self, request: &Value) -> (u16, String) {
        let before = self.balance().await;
        let answer = self.app.generate(&self.key, request).await;
        let problem = answer.problem();
        for leak in [
            "replicate.com",
            "r8_",
            "billing",
            "localhost",
            "CUDA",
            PROMPT,
        ] {
            assert!(!problem.message.contains(leak), "{leak}: {problem:?}");
        }
        assert_eq!(self.balance().await, before, "a failure costs nothing");
        (answer.status, problem.code().to_owned())
    }

    async fn balance(&self) -> i64 {
        nano(&self.app.balance(&self.key).await)
    }

    /// How many attempts in the books are as this condition says.
    async fn attempts(&self, condition: &str) -> i64 {
        let query =
            format!("select count(*) from attempts where provider = 'replicate' and {condition}");
        self.app.database.number(&query).await
    }

    async fn close(self) {
        self.replicate.prove();
        let attempts = self.attempts("true").await;
        let creates = self.replicate.creates().len();
        assert_eq!(usize::try_from(attempts).unwrap(), creates, "attempts");
        self.app.finish().await;
    }
}

/// An amount as answers write it, in nano-USD.
fn nano(usd: &Value) -> i64 {
    let text = usd.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{fraction:0<9}").parse().unwrap()
}

fn request(model: &str) -> Value {
    json!({"model": model, "prompt": PROMPT})
}

fn several(n: u8) -> Value {
    json!({"model": SCHNELL, "prompt": PROMPT, "n": n, "response_format": "b64_json"})
}

fn base64(value: &Value) -> Vec<u8> {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}
