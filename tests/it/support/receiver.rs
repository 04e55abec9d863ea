//! An app that takes webhooks, strict about what Standard Webhooks say
//! (<https://github.com/standard-webhooks/standard-webhooks>, the specification's "Verifying signatures").
//! Its way of checking is its own: it shares no line with what it checks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

/// How far a sender's clock may be off.
const TOLERANCE_SECONDS: i64 = 300;

/// A running receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<Inbox>>,
    _server: JoinSet<()>,
}

/// A message that was taken or not.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) body: Value,
    /// How many signatures there were.
    pub(crate) signatures: usize,
    /// By which of the secrets it is signed.
    pub(crate) signed_by: Vec<String>,
    /// What it was answered.
    pub(crate) status: u16,
}

#[derive(Default)]
struct Inbox {
    secrets: Vec<String>,
    messages: Vec<Message>,
    answers: VecDeque<Answer>,
}

/// How a message is answered instead of 204.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) after: Duration,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            after: Duration::ZERO,
        }
    }
}

impl Receiver {
    /// One that knows no secret yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Inbox::default()));
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// `host:port`, for `[webhooks] hosts`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=otter", self.address)
    }

    /// Takes messages that are signed with this one too.
    pub(crate) fn trust(&self, secret: &str) {
        self.state.lock().unwrap().secrets.push(secret.to_owned());
    }

    /// How the next message is answered; several are taken in order.
    pub(crate) fn next(&self, answer: Answer) {
        self.state.lock().unwrap().answers.push_back(answer);
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.state.lock().unwrap().messages.clone()
    }

    /// The messages, once there are so many.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Message> {
        for _ in 0..2400 {
            let messages = self.messages();
            if messages.len() >= count {
                return messages;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{count} messages did not come: {:#?}", self.messages());
    }
}

async fn take(
    State(state): State<Arc<Mutex<Inbox>>>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let answer = {
        let mut inbox = state.lock().unwrap();
        let message = read(&inbox.secrets, &headers, &body);
        let answer = match &message {
            Ok(_) => inbox.answers.pop_front(),
            Err(_) => None,
        };
        let message = message.unwrap_or_else(|why| Message {
            id: why,
            body: Value::Null,
            signatures: 0,
            signed_by: Vec::new(),
            status: 400,
        });
        let answer = answer.unwrap_or_else(|| Answer::status(message.status));
        inbox.messages.push(Message {
            status: answer.status,
            ..message
        });
        answer
    };
    tokio::time::sleep(answer.after).await;
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        headers.insert(name, value.parse().unwrap());
    }
    (StatusCode::from_u16(answer.status).unwrap(), headers)
}

fn read(secrets: &[String], headers: &HeaderMap, body: &[u8]) -> Result<Message, String> {
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value.to_str().unwrap().to_owned()),
            (None, _) => Err(format!("no {name}")),
            (Some(_), Some(_)) => Err(format!("several {name}")),
        }
    };
    let (id, timestamp) = (text("webhook-id")?, text("webhook-timestamp")?);
    let signature = text("webhook-signature")?;
    if text("content-type")? != "application/json" {
        return Err("no JSON".to_owned());
    }
    if id.is_empty() || id.contains('.') {
        return Err("a bad id".to_owned());
    }
    let seconds: i64 = timestamp.parse().map_err(|_| "no time")?;
    let now = chrono::DateTime::<Utc>::from(SystemTime::now()).timestamp();
    if (now - seconds).abs() > TOLERANCE_SECONDS {
        return Err("another time".to_owned());
    }
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signatures: Vec<&str> = signature.split(' ').collect();
    let mut signed_by = Vec::new();
    for secret in secrets {
        let key = secret
            .strip_prefix("whsec_")
            .ok_or("a secret without its prefix")?;
        let key = STANDARD
            .decode(key)
            .map_err(|_| "a secret that is no base64")?;
        if !(24..=64).contains(&key.len()) {
            return Err("a secret of a wrong length".to_owned());
        }
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let fits = |signature: &&str| {
            let Some(code) = signature.strip_prefix("v1,") else {
                return false;
            };
            let code = STANDARD.decode(code).unwrap_or_default();
            ring::hmac::verify(&key, &signed, &code).is_ok()
        };
        if signatures.iter().any(fits) {
            signed_by.push(secret.clone());
        }
    }
    if signed_by.is_empty() {
        return Err("no signature fits".to_owned());
    }
    Ok(Message {
        id,
        body: serde_json::from_slice(body).map_err(|_| "no JSON")?,
        signatures: signatures.len(),
        signed_by,
        status: 204,
    })
}
