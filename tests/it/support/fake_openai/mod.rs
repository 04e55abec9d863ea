//! A strict fake of `OpenAI`'s images endpoint, on a real socket.
//!
//! It refuses what the real one refuses, answers in its exact shapes, records every request, and
//! misbehaves when told to. It knows nothing of Easel: a request that it refuses is either what the
//! test wanted or a fault of ours, and `App::finish` asks which.

mod answer;
mod behaviour;
mod edits;
mod form;
mod rules;
mod stream;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use self::rules::{Accepted, Refusal};
pub(crate) use self::{
    answer::{REVISED_PROMPT, input_tokens},
    behaviour::{Behaviour, Reply},
    form::Part,
    rules::Endpoint,
};
use crate::support::{pictures, until};

/// The account's key at this provider: the only one the fake takes.
pub(crate) const API_KEY: &str = "sk-fake-upstream-key-0123456789abcdefghijwxyz";
/// Another one of the same account, as there is while keys are exchanged.
pub(crate) const NEXT_API_KEY: &str = "sk-next-fake-upstream-key-0123456789abcdefghij";

/// The provider's name of our account; no client may ever see it.
pub(crate) const ORGANIZATION: &str = "org-easelfake";

/// The fake, until it is dropped.
pub(crate) struct FakeOpenAi {
    address: SocketAddr,
    state: Arc<Shared>,
    _server: JoinSet<()>,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) endpoint: Endpoint,
    pub(crate) headers: HeaderMap,
    /// The JSON, or the text fields of a form.
    pub(crate) body: Value,
    /// The files of a form.
    pub(crate) files: Vec<Part>,
    /// The refusal, when the request itself was wrong.
    pub(crate) refused: Option<Value>,
}

type Chooser = Arc<dyn Fn(&Call) -> Behaviour + Send + Sync>;
type Hook = Arc<dyn Fn(Call) -> BoxFuture<'static, ()> + Send + Sync>;

struct Shared {
    origin: String,
    calls: Mutex<Vec<Call>>,
    pictures_fetched: AtomicU64,
    queue: Mutex<VecDeque<Behaviour>>,
    always: Mutex<Behaviour>,
    chooser: Mutex<Option<Chooser>>,
    hook: Mutex<Option<Hook>>,
    answers: AtomicU64,
}

impl FakeOpenAi {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Shared {
            origin: format!("http://{address}"),
            calls: Mutex::default(),
            pictures_fetched: AtomicU64::new(0),
            queue: Mutex::default(),
            always: Mutex::new(Behaviour::Answer),
            chooser: Mutex::new(None),
            hook: Mutex::new(None),
            answers: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/v1/images/generations", post(generations))
            .route("/v1/images/edits", post(edits))
            .route("/v1/images/variations", post(variations))
            .route("/img/{size}/{name}", get(picture))
            .fallback(unknown_url)
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
        format!("{}/v1", self.state.origin)
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// How the next call ends; several are taken in order.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        self.state.queue.lock().unwrap().push_back(behaviour);
    }

    /// How every call ends that has nothing queued for it.
    pub(crate) fn always(&self, behaviour: Behaviour) {
        *self.state.always.lock().unwrap() = behaviour;
    }

    /// Who says how a call ends that has nothing queued for it.
    pub(crate) fn choose(&self, chooser: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) {
        *self.state.chooser.lock().unwrap() = Some(Arc::new(chooser));
    }

    /// Runs inside every call, before it is answered.
    pub(crate) fn on_call(
        &self,
        hook: impl Fn(Call) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        *self.state.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// Every request so far, refused ones included.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(crate) fn only_call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "calls at the fake");
        calls.remove(0)
    }

    /// Holds every call until there is a permit for it.
    pub(crate) fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        self.on_call(move |_| {
            let held = Arc::clone(&held);
            Box::pin(async move { held.acquire().await.unwrap().forget() })
        });
        gate
    }

    /// Waits until a request has come.
    pub(crate) async fn wait_for_call(&self) {
        self.wait_for_calls(1).await;
    }

    /// Waits until so many have.
    pub(crate) async fn wait_for_calls(&self, count: usize) {
        let what = format!("{count} calls at the fake");
        until(&what, async || self.calls().len() >= count).await;
    }

    /// How many of its own pictures were fetched by link.
    pub(crate) fn pictures_fetched(&self) -> u64 {
        self.state.pictures_fetched.load(Ordering::SeqCst)
    }
}

async fn generations(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, Endpoint::Generations, request).await
}

async fn edits(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, Endpoint::Edits, request).await
}

async fn variations(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, Endpoint::Variations, request).await
}

async fn serve(shared: Arc<Shared>, endpoint: Endpoint, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 256 * 1024 * 1024).await.unwrap_or_default();
    let files = form::read(&parts.headers, &bytes).map(|parts| {
        let mut files = parts;
        files.retain(|part| part.file_name.is_some());
        files
    });
    let checked = check_envelope(endpoint, &parts.headers)
        .and_then(|()| check_body(endpoint, &parts.headers, &bytes));
    let call = Call {
        endpoint,
        headers: parts.headers,
        body: match &checked {
            Ok((body, _)) => body.clone(),
            Err(_) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        },
        files: files.unwrap_or_default(),
        refused: checked.as_ref().err().map(|refusal| refusal.error.clone()),
    };
    shared.calls.lock().unwrap().push(call.clone());
    let hook = shared.hook.lock().unwrap().clone();
    if let Some(hook) = hook {
        hook(call.clone()).await;
    }
    match checked {
        Ok((_, accepted)) => {
            let behaviour = Behaviour::named_in(&accepted.prompt)
                .or_else(|| shared.queue.lock().unwrap().pop_front())
                .or_else(|| Some(shared.chooser.lock().unwrap().clone()?(&call)))
                .unwrap_or_else(|| shared.always.lock().unwrap().clone());
            let (status, headers, body) = behaviour.perform(&accepted, &shared.origin).await;
            respond(&shared, status, headers, body)
        }
        Err(refusal) => refuse(&shared, &refusal),
    }
}

fn check_body(
    endpoint: Endpoint,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<(Value, Accepted), Refusal> {
    if endpoint == Endpoint::Generations {
        let body = read_json(bytes)?;
        let accepted = rules::check(endpoint, body.as_object().ok_or_else(malformed)?)?;
        return Ok((body, accepted));
    }
    // No SDK sends such a form in chunks (contract, section 4.1).
    let length = headers.get("content-length").ok_or_else(malformed_form)?;
    assert_eq!(length.to_str().unwrap(), bytes.len().to_string());
    let parts = form::read(headers, bytes).ok_or_else(malformed_form)?;
    let (fields, accepted) = edits::check(endpoint, &parts)?;
    Ok((Value::Object(fields), accepted))
}

fn malformed_form() -> Refusal {
    Refusal {
        status: 400,
        error: json!({"message": "Could not parse multipart form", "type": "invalid_request_error", "param": null, "code": null}),
    }
}

fn check_envelope(endpoint: Endpoint, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |status: u16, error: Value| Err(Refusal { status, error });
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match header("authorization") {
        None => {
            return refuse(
                401,
                json!({"message": "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).", "type": "invalid_request_error", "param": null, "code": null}),
            );
        }
        Some(given)
            if ![API_KEY, NEXT_API_KEY]
                .map(|key| format!("Bearer {key}"))
                .contains(&given.to_owned()) =>
        {
            return refuse(
                401,
                json!({"message": "Incorrect API key provided: ****. You can find your API key at https://platform.openai.com/account/api-keys.", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}),
            );
        }
        Some(_) => {}
    }
    let content_type = header("content-type").unwrap_or_default();
    let wanted = match endpoint {
        Endpoint::Generations => "application/json",
        // The JSON form of edits (contract, section 4.2) is none that Easel sends.
        Endpoint::Edits | Endpoint::Variations => "multipart/form-data",
    };
    if content_type.split(';').next().unwrap_or_default().trim() != wanted {
        return refuse(
            400,
            json!({"message": format!("Unsupported content type: '{content_type}'. This API method only accepts '{wanted}' requests, but you specified the header 'Content-Type: {content_type}'. Please try again with a supported content type."), "type": "invalid_request_error", "param": null, "code": "unsupported_content_type"}),
        );
    }
    Ok(())
}

fn read_json(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes).map_err(|_| malformed())
}

fn malformed() -> Refusal {
    Refusal {
        status: 400,
        error: json!({"message": "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)", "type": "invalid_request_error", "param": null, "code": null}),
    }
}

fn refuse(shared: &Shared, refusal: &Refusal) -> Response {
    let reply = Reply::refusal(refusal);
    let headers = HeaderMap::from_iter([(
        axum::http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )]);
    respond(shared, reply.status, headers, Body::from(reply.body))
}

/// Adds the headers that every answer of the real one has (contract, section 7).
fn respond(shared: &Shared, status: u16, headers: HeaderMap, body: Body) -> Response {
    let number = shared.answers.fetch_add(1, Ordering::SeqCst);
    let mut response = Response::new(body);
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    for (name, value) in [
        ("x-request-id", format!("req_fake{number:08}")),
        ("openai-version", "2020-10-01".to_owned()),
        ("openai-organization", ORGANIZATION.to_owned()),
        ("openai-processing-ms", "12".to_owned()),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_str(&value).unwrap());
    }
    response
}

/// The pictures behind the fake's own links.
async fn picture(
    State(shared): State<Arc<Shared>>,
    Path((size, name)): Path<(String, String)>,
) -> Response {
    shared.pictures_fetched.fetch_add(1, Ordering::SeqCst);
    let (width, height) = answer::edges(&size);
    let (index, extension) = name.split_once('.').unwrap();
    let seed = u8::try_from(index.parse::<usize>().unwrap() * 20 + 10).unwrap();
    let (format, media_type) = match extension {
        "jpeg" => ("jpeg", "image/jpeg"),
        "webp" => ("webp", "image/webp"),
        _ => ("png", "image/png"),
    };
    let mut response = Response::new(Body::from(pictures::paint(
        format, width, height, seed, false,
    )));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(media_type));
    response
}

async fn unknown_url(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    refuse(
        &shared,
        &Refusal {
            status: 404,
            error: json!({"message": format!("Invalid URL ({method} {})", uri.path()), "type": "invalid_request_error", "param": null, "code": null}),
        },
    )
}
