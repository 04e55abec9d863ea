//! A small HTTP client whose verbs take the status they expect.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

use super::{
    contract::{Contract, Seen},
    secrets::Secrets,
};

/// Speaks to one server; keeps what must not be logged.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    origin: String,
    secrets: Arc<Secrets>,
    /// What its answers are held to, where they are.
    contract: Option<&'static Contract>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    asked: String,
}

/// `OpenAI`'s error envelope, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) kind: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<String>,
}

impl Client {
    /// Speaks to whoever is there.
    pub(crate) fn new(origin: String, secrets: Arc<Secrets>) -> Self {
        // Fails only when it is installed already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            // Some servers of tests have certificates that nobody vouches for; tls.rs says which are right.
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        Self {
            http,
            origin,
            secrets,
            contract: None,
        }
    }

    /// The same, with every answer held to the document of the API.
    pub(crate) fn held_to_the_document(self) -> Self {
        Self {
            contract: Some(Contract::of_easel()),
            ..self
        }
    }

    /// The same client, speaking to another server.
    pub(crate) fn at(&self, origin: String) -> Self {
        Self {
            origin,
            ..self.clone()
        }
    }

    /// What every address here begins with.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// A request to be refined by the caller.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.origin))
    }

    /// Sends it and reads the answer to its end.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    pub(crate) async fn try_send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let asked = format!("{method} {path}");
        let response = self.http.execute(request).await?;
        let answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes: response.bytes().await?,
            asked,
        };
        if let Ok(body) = serde_json::from_slice(&answer.bytes) {
            self.secrets.add_answer(&body);
        }
        let seen = Seen {
            method: &method,
            path: &path,
            status: answer.status,
            headers: &answer.headers,
            body: &answer.bytes,
        };
        let faults = self.contract.map(|contract| contract.faults(&seen));
        let faults = faults.unwrap_or_default();
        assert!(
            faults.is_empty(),
            "{} ({}) is not what the document says: {faults:#?}\n{}",
            answer.asked,
            answer.status,
            answer.excerpt()
        );
        Ok(answer)
    }

    pub(crate) async fn get(&self, path: &str, key: Option<&str>) -> Answer {
        let mut request = self.request(Method::GET, path);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        self.send(request).await
    }

    pub(crate) async fn post_json(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.secrets.add_request(body);
        let mut request = self
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        self.send(request).await
    }
}

impl Answer {
    /// Fails unless this is the status; says what came instead.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.excerpt());
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.find_header(name)
            .unwrap_or_else(|| panic!("{}: no header {name} in {:?}", self.asked, self.headers))
    }

    pub(crate) fn find_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            "application/json",
            "{}",
            self.asked
        );
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{}: no JSON ({error}): {}", self.asked, self.excerpt()))
    }

    /// The error of a refusal: the envelope with its four keys and nothing beside it, under a request id.
    pub(crate) fn problem(&self) -> Problem {
        assert!(
            self.header("x-request-id").len() > 8,
            "{}: x-request-id",
            self.asked
        );
        let body = self.json();
        let mut members = keys(&body);
        // Of one that was charged for its drafts.
        members.retain(|name| *name != "usage");
        assert_eq!(members, ["error"], "{}: {body}", self.asked);
        let error = &body["error"];
        let mut names = keys(error);
        // `OpenAI`'s own extra member.
        names.retain(|name| *name != "moderation_details");
        assert_eq!(
            names,
            ["code", "message", "param", "type"],
            "{}: {body}",
            self.asked
        );
        let optional = |name: &str| match &error[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => panic!("{}: {name} is {other}", self.asked),
        };
        let message = optional("message").unwrap_or_default();
        assert!(
            !message.is_empty(),
            "{}: an error has a message",
            self.asked
        );
        Problem {
            message,
            kind: optional("type").expect("an error has a type"),
            param: optional("param"),
            code: optional("code"),
        }
    }

    /// The picture at `index`, out of base64.
    pub(crate) fn picture(&self, index: usize) -> Vec<u8> {
        let body = self.json();
        let text = body["data"][index]["b64_json"]
            .as_str()
            .unwrap_or_else(|| panic!("no b64_json at {index}: {}", self.excerpt()));
        STANDARD.decode(text).expect("b64_json is standard base64")
    }

    /// The link at `index`.
    pub(crate) fn link(&self, index: usize) -> String {
        let body = self.json();
        body["data"][index]["url"]
            .as_str()
            .unwrap_or_else(|| panic!("no url at {index}: {}", self.excerpt()))
            .to_owned()
    }

    fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.chars().take(2000).collect()
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .expect("a JSON object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

impl Problem {
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    pub(crate) fn param(&self) -> &str {
        self.param.as_deref().unwrap_or_default()
    }
}
