//! The operator's API: every endpoint, its refusals, and that it says what the books say.

mod accounts;
mod door;
mod generations;
mod keys;
mod providers;
mod usage;

use std::ops::Deref;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, App, Key};

const TOKEN: &str = "operator-7f3a-of-these-tests";
const PROMPT: &str = "an office with a view of the harbour";

/// An Easel whose admin API is on, and its operator.
struct Office(App);

impl Deref for Office {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl Office {
    async fn open() -> Self {
        Self::with(App::builder().await.set("admin.token", TOKEN).start().await)
    }

    fn with(app: App) -> Self {
        app.keep_secret(TOKEN, "the admin token");
        Self(app)
    }

    async fn get(&self, path: &str) -> Answer {
        let path = format!("/admin/v1{path}");
        self.client.get(&path, Some(TOKEN)).await
    }

    /// The JSON of a success.
    async fn read(&self, path: &str) -> Value {
        self.get(path).await.expect(200).json()
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .client
            .request(method, &format!("/admin/v1{path}"))
            .bearer_auth(TOKEN)
            .header("content-type", "application/json")
            .body(body.to_string());
        self.client.send(request).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    /// A POST without a body.
    async fn act(&self, path: &str) -> Answer {
        let path = format!("/admin/v1{path}");
        let request = self.client.request(Method::POST, &path).bearer_auth(TOKEN);
        self.client.send(request).await
    }

    async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, body).await
    }

    /// Makes a key over HTTP.
    async fn make_key(&self, body: &Value) -> (Value, Key) {
        let made = self.post("/keys", body).await.expect(200).json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let key = Key {
            id: text("id"),
            secret: text("key"),
            account: text("account"),
        };
        self.keep_secret(&key.secret, "a key");
        (made, key)
    }

    /// All of a list, page by page, in pages of `limit`.
    async fn walk(&self, path: &str, limit: usize) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{separator}limit={limit}");
        let mut all = Vec::new();
        let mut page = self.read(&first).await;
        loop {
            assert_eq!(page["object"], "list", "{page}");
            let data = page["data"].as_array().unwrap();
            assert!(data.len() <= limit, "{page}");
            all.extend(data.iter().cloned());
            if page["has_more"] == json!(false) {
                assert!(page.get("next").is_none(), "{page}");
                return all;
            }
            assert_eq!(data.len(), limit, "{page}");
            let next = page["next"].as_str().unwrap();
            page = self.read(&format!("{first}&after={next}")).await;
        }
    }

    async fn finish(self) {
        self.0.finish().await;
    }
}

/// The ids of a list's items.
fn ids(items: &[Value]) -> Vec<&str> {
    let ids = items.iter().map(|item| item["id"].as_str().unwrap());
    ids.collect()
}

/// Refused as a mistake of the request, under this code, about this parameter.
fn assert_mistake(answer: &Answer, code: &str, param: &str) {
    assert_eq!(answer.status, 400, "{:?}", answer.bytes);
    let problem = answer.problem();
    assert_eq!(
        (problem.code(), problem.param()),
        (code, param),
        "{problem:?}"
    );
    assert!(problem.message.contains(param), "{problem:?}");
}
