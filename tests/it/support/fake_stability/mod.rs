//! A strict fake of Stability's v2beta image endpoints, on a real socket: ultra, core, sd3 and inpaint.
//!
//! It refuses what the real one refuses, answers in its exact shapes, records every request, and
//! misbehaves when told to. Written from `contracts/stability.md` alone; it knows nothing of Easel.

mod behaviour;
mod form;
mod rules;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) use self::behaviour::{Behaviour, Reply};

/// The account's key: the only one with credits.
pub(crate) const API_KEY: &str = "sk-fake-stability-key-0123456789abcdefghijwxyz";

/// A key whose account is empty.
pub(crate) const BROKE_KEY: &str = "sk-broke-stability-key-0123456789abcdefghijw";

/// The fake, until it is dropped.
pub(crate) struct FakeStability {
    address: SocketAddr,
    state: Arc<Shared>,
    _server: JoinSet<()>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The last part of the path.
    pub(crate) endpoint: String,
    /// The part before it: `generate` or `edit`.
    pub(crate) family: String,
    pub(crate) headers: HeaderMap,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, Bytes>,
    /// The status of the refusal, when the request itself was wrong.
    pub(crate) refused: Option<u16>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    queue: Mutex<VecDeque<Behaviour>>,
    /// After a 429, until the minute is over.
    locked_out: AtomicBool,
    answers: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl FakeStability {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Shared::default());
        let router = Router::new()
            .route("/v2beta/stable-image/{family}/{endpoint}", post(generate))
            .fallback(unknown_path)
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            state,
            _server: server,
        }
    }

    /// What goes into `base_url`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How the next call ends; several are taken in the order of arrival.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        self.state.queue.lock().unwrap().push_back(behaviour);
    }

    /// Locks the account out, as 150 requests within 10 s do.
    pub(crate) fn lock_out(&self) {
        self.state.locked_out.store(true, Ordering::SeqCst);
    }

    /// Moves the fake's time on by the length of a lock-out.
    pub(crate) fn let_a_minute_pass(&self) {
        self.state.locked_out.store(false, Ordering::SeqCst);
    }

    /// Every request so far, refused ones included.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last_call(&self) -> Call {
        self.calls().pop().expect("the fake was called")
    }

    /// How many requests were being answered at the same time, at most.
    pub(crate) fn most_in_flight(&self) -> u64 {
        self.state.most_in_flight.load(Ordering::SeqCst)
    }
}

async fn generate(
    State(shared): State<Arc<Shared>>,
    Path((family, endpoint)): Path<(String, String)>,
    request: Request,
) -> Response {
    let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
    let response = answer(&shared, family, endpoint, request).await;
    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    response
}

async fn answer(shared: &Shared, family: String, endpoint: String, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    let form = form::read(&parts.headers, &bytes);
    let path = (family.as_str(), endpoint.as_str());
    let checked = rules::check(path, &parts.headers, &bytes, form.as_deref());
    let (texts, files): (Vec<_>, Vec<_>) = form
        .unwrap_or_default()
        .into_iter()
        .partition(|part| part.content_type.is_none());
    let text = |part: form::Part| (part.name.clone(), part.text().unwrap_or("?").to_owned());
    shared.calls.lock().unwrap().push(Call {
        endpoint,
        family,
        headers: parts.headers,
        fields: texts.into_iter().map(text).collect(),
        files: files
            .into_iter()
            .map(|part| (part.name, part.content))
            .collect(),
        refused: checked.as_ref().err().map(|refusal| refusal.status),
    });
    let number = shared.answers.fetch_add(1, Ordering::SeqCst);
    match checked {
        Ok(_) if shared.locked_out.load(Ordering::SeqCst) => {
            let (status, headers, body) = Reply::rate_limited().into_parts();
            respond(number, status, headers, body)
        }
        Ok(accepted) => {
            let behaviour = Behaviour::named_in(&accepted.prompt)
                .or_else(|| shared.queue.lock().unwrap().pop_front())
                .unwrap_or(Behaviour::Answer);
            if accepted
                .prompt
                .split_whitespace()
                .any(|word| word == "RATE")
            {
                shared.locked_out.store(true, Ordering::SeqCst);
            }
            let (status, headers, body) = behaviour.perform(&accepted, number).await;
            respond(number, status, headers, body)
        }
        Err(refusal) => {
            let (status, headers, body) = refusal.into_parts();
            respond(number, status, headers, body)
        }
    }
}

/// Adds what every answer has (section 3).
fn respond(number: u64, status: u16, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    let id = HeaderValue::from_str(&format!("{number:032x}")).unwrap();
    response.headers_mut().insert("x-request-id", id);
    response
}

/// The credentials are looked at before the path (section 4).
async fn unknown_path(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let refusal = rules::authorize(request.headers())
        .err()
        .unwrap_or_else(Reply::not_found);
    shared.calls.lock().unwrap().push(Call {
        endpoint: request.uri().path().to_owned(),
        family: String::new(),
        headers: request.headers().clone(),
        fields: BTreeMap::new(),
        files: BTreeMap::new(),
        refused: Some(refusal.status),
    });
    let (status, headers, body) = refusal.into_parts();
    respond(0, status, headers, body)
}
