//! A strict fake of Google's image models, on a real socket: the Gemini API, Vertex, and the token server
//! (`contracts/google-imagen.md`, section 9).
//!
//! It refuses what the real ones refuse, answers in their exact shapes, verifies the service account's
//! signature, records every request, and misbehaves when told to. It knows nothing of Easel.

mod answer;
mod behaviour;
mod rules;
mod token;

use std::{
    collections::VecDeque,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Uri},
    response::Response,
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) use self::{
    answer::{INPUT_PICTURE_TOKENS, REVISED_PROMPT, THOUGHT_TOKENS, input_tokens},
    behaviour::{Behaviour, Reply, Shape},
};
use self::{
    rules::{Door, Refusal},
    token::Tokens,
};

/// The key of AI Studio that the fake takes.
pub(crate) const API_KEY: &str = "AIzaFakeGeminiKey-0123456789abcdefghij";

/// Where the service account may paint.
const LOCATIONS: &[&str] = &["us-central1", "global"];

/// The project that the service account belongs to; no client may ever see it.
pub(crate) const PROJECT: &str = "easel-fake-project";

/// The fake, until it is dropped.
pub(crate) struct FakeGoogle {
    origin: String,
    state: Arc<Shared>,
    _server: JoinSet<()>,
}

/// One request for pictures as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The refusal, when the request itself was wrong.
    pub(crate) refused: Option<Value>,
}

struct Shared {
    calls: Mutex<Vec<Call>>,
    queue: Mutex<VecDeque<Behaviour>>,
    /// Imagen is alive.
    legacy: Mutex<bool>,
    tokens: Tokens,
}

impl FakeGoogle {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Shared {
            calls: Mutex::default(),
            queue: Mutex::default(),
            legacy: Mutex::new(false),
            tokens: Tokens::new(format!("{origin}/token")),
        });
        let router = Router::new()
            .route("/v1beta/models/{call}", post(gemini))
            .route(
                "/v1/projects/{project}/locations/{location}/publishers/google/models/{call}",
                post(vertex),
            )
            .route("/token", post(token))
            .fallback(unknown_url)
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            origin,
            state,
            _server: server,
        }
    }

    /// The same, with Imagen alive.
    pub(crate) async fn legacy() -> Self {
        let fake = Self::start().await;
        *fake.state.legacy.lock().unwrap() = true;
        fake
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// What goes into the `base_url` of the Gemini API.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1beta", self.origin)
    }

    /// What goes into the `base_url` of Vertex.
    pub(crate) fn vertex_base_url(&self) -> String {
        format!("{}/v1", self.origin)
    }

    /// Writes the service account's key file.
    pub(crate) fn key_file(&self, directory: &FilePath) -> PathBuf {
        let path = directory.join("service-account.json");
        std::fs::write(&path, self.state.tokens.key_file().to_string()).unwrap();
        path
    }

    /// The private key, in the form in which it stands in the key file.
    pub(crate) fn private_key() -> &'static str {
        token::PRIVATE_KEY
    }

    /// How many tokens were given out.
    pub(crate) fn tokens_given(&self) -> usize {
        self.state.tokens.given()
    }

    /// From now on the token that was given out is refused.
    pub(crate) fn revoke_tokens(&self) {
        self.state.tokens.revoke();
    }

    /// From now on the account itself is refused.
    pub(crate) fn refuse_account(&self) {
        self.state.tokens.refuse();
    }

    /// From now on the token server says nothing.
    pub(crate) fn hang_token_server(&self) {
        self.state.tokens.hang();
    }

    /// The next requests for a token fail.
    pub(crate) fn fail_token_server(&self, times: usize) {
        self.state.tokens.fail(times);
    }

    /// How the next call ends; several are taken in order.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        self.state.queue.lock().unwrap().push_back(behaviour);
    }

    /// Every request for pictures so far, refused ones included.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }
}

async fn gemini(
    State(shared): State<Arc<Shared>>,
    Path(call): Path<String>,
    request: Request,
) -> Response {
    let key = request.headers().get("x-goog-api-key");
    let admitted = match key.map(|key| key == API_KEY) {
        _ if request.uri().query().is_some() => Err(rules::key_in_address()),
        Some(true) => Ok(()),
        Some(false) => Err(rules::wrong_key()),
        None => Err(rules::no_key()),
    };
    paint(&shared, Door::Gemini, admitted, &call, request).await
}

async fn vertex(
    State(shared): State<Arc<Shared>>,
    Path((project, location, call)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let admitted = if !shared.tokens.admits(request.headers()) {
        Err(rules::unauthenticated())
    } else if project != PROJECT || !LOCATIONS.contains(&&*location) {
        Err(rules::permission_denied())
    } else {
        Ok(())
    };
    paint(&shared, Door::Vertex, admitted, &call, request).await
}

async fn paint(
    shared: &Shared,
    door: Door,
    admitted: Result<(), Refusal>,
    call: &str,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    let body = serde_json::from_slice::<Value>(&bytes).unwrap_or(Value::Null);
    let legacy = *shared.legacy.lock().unwrap();
    let is_json = parts
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/json");
    let checked = admitted.and_then(|()| {
        if !is_json {
            return Err(rules::invalid("the body is no JSON"));
        }
        rules::check(door, call, &body, legacy)
    });
    shared.calls.lock().unwrap().push(Call {
        headers: parts.headers,
        path: parts.uri.to_string(),
        body,
        refused: checked.as_ref().err().map(|refusal| refusal.body.clone()),
    });
    match checked {
        Ok(accepted) => {
            let behaviour = Behaviour::named_in(&accepted.prompt)
                .or_else(|| shared.queue.lock().unwrap().pop_front())
                .unwrap_or(Behaviour::Answer);
            let (status, content_type, body) = behaviour.perform(&accepted).await;
            respond(status, &content_type, body)
        }
        Err(refusal) => respond(
            refusal.status,
            "application/json",
            Body::from(refusal.body.to_string()),
        ),
    }
}

async fn token(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.tokens.is_hanging() {
        std::future::pending::<()>().await;
    }
    if shared.tokens.fails() {
        return respond(503, "text/html", Body::from("<html>"));
    }
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let (status, body) = match shared.tokens.give(&parts.headers, &bytes) {
        Ok(answer) => (200, answer),
        Err(problem) => (
            400,
            json!({"error": "invalid_grant", "error_description": problem}),
        ),
    };
    respond(status, "application/json", Body::from(body.to_string()))
}

/// A wrong path or host answers with a page.
async fn unknown_url(uri: Uri) -> Response {
    let page = format!(
        "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title><p>The requested URL {} was not found.</html>",
        uri.path()
    );
    respond(404, "text/html; charset=UTF-8", Body::from(page))
}

fn respond(status: u16, content_type: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_str(content_type).unwrap());
    response
}
