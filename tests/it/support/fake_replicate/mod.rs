//! A strict fake of Replicate's predictions, on real sockets, after `contracts/replicate.md`, section 9.
//!
//! It knows each model's schema, runs a state machine a prediction, honours `Prefer` and `Cancel-After`,
//! and serves files from a second host name, where it looks for tokens that have no business there. It knows
//! nothing of Easel: a request that it refuses is either what the test wanted or a fault of ours, and
//! [`FakeReplicate::prove`] asks which.

mod schema;
mod script;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use self::schema::{Accepted, Refusal};
pub(crate) use self::script::{
    Behaviour, E005, End, Files, NSFW, OUT_OF_MEMORY, Script, Shape, insufficient_credit,
    low_credit,
};
use crate::support::pictures;

/// The account's token at this provider.
pub(crate) const TOKEN: &str = "r8_fakeUpstreamToken0123456789abcdefgh";
/// The token of an account without credit.
pub(crate) const BROKE_TOKEN: &str = "r8_brokeUpstreamToken0123456789abcdef";
/// The token of an account with little credit.
pub(crate) const LOW_TOKEN: &str = "r8_lowUpstreamToken0123456789abcdefghi";

/// The fake, until it is dropped.
pub(crate) struct FakeReplicate {
    state: Arc<Shared>,
    _servers: JoinSet<()>,
}

/// One creation as it came.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    pub(crate) model: String,
    pub(crate) headers: HeaderMap,
    pub(crate) input: Value,
    /// The refusal, when the request itself was wrong.
    pub(crate) refused: Option<Refusal>,
}

struct Shared {
    /// `http://127.0.0.1:PORT`
    api: String,
    /// `localhost:PORT`
    file_host: String,
    creates: Mutex<Vec<Create>>,
    predictions: Mutex<HashMap<String, Prediction>>,
    questions: Mutex<Vec<String>>,
    cancelled: Mutex<Vec<String>>,
    /// What was fetched, and whether with a token.
    fetched: Mutex<Vec<(String, bool)>>,
    queue: Mutex<VecDeque<Behaviour>>,
}

#[derive(Debug, Clone)]
struct Prediction {
    model: String,
    input: Value,
    accepted: Accepted,
    script: Script,
    began_at: Instant,
    /// By `Cancel-After`.
    ends_at: Instant,
    cancelled: bool,
}

impl FakeReplicate {
    pub(crate) async fn start() -> Self {
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(Shared {
            api: format!("http://{}", api.local_addr().unwrap()),
            file_host: format!("localhost:{}", files.local_addr().unwrap().port()),
            creates: Mutex::default(),
            predictions: Mutex::default(),
            questions: Mutex::default(),
            cancelled: Mutex::default(),
            fetched: Mutex::default(),
            queue: Mutex::default(),
        });
        let api_router = Router::new()
            .route("/v1/models/{owner}/{name}/predictions", post(create))
            .route("/v1/predictions/{id}", get(question))
            .route("/v1/predictions/{id}/cancel", post(cancel))
            .fallback(|| async { refuse(&schema::not_found()) })
            .with_state(Arc::clone(&state));
        let file_router = Router::new()
            .route("/{kind}/{id}/{size}/{name}", get(file))
            .with_state(Arc::clone(&state));
        let mut servers = JoinSet::new();
        servers.spawn(async move { axum::serve(api, api_router).await.unwrap() });
        servers.spawn(async move { axum::serve(files, file_router).await.unwrap() });
        Self {
            state,
            _servers: servers,
        }
    }

    /// What goes into `base_url`.
    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1", self.state.api)
    }

    /// What goes into `result_hosts`.
    pub(crate) fn file_host(&self) -> String {
        self.state.file_host.clone()
    }

    /// How the next creation goes; several are taken in order, and then all go well.
    pub(crate) fn next(&self, behaviour: Behaviour) {
        self.state.queue.lock().unwrap().push_back(behaviour);
    }

    /// Every creation so far, refused ones included.
    pub(crate) fn creates(&self) -> Vec<Create> {
        self.state.creates.lock().unwrap().clone()
    }

    /// How often somebody asked how a prediction is doing.
    pub(crate) fn questions(&self) -> usize {
        self.state.questions.lock().unwrap().len()
    }

    /// The predictions that somebody cancelled.
    pub(crate) fn cancelled(&self) -> Vec<String> {
        self.state.cancelled.lock().unwrap().clone()
    }

    /// How many files were fetched.
    pub(crate) fn files_fetched(&self) -> usize {
        self.state.fetched.lock().unwrap().len()
    }

    /// No request was wrong, and no token went where the files are.
    pub(crate) fn prove(&self) {
        let creates = self.creates();
        let refused: Vec<_> = creates.iter().filter(|one| one.refused.is_some()).collect();
        assert!(refused.is_empty(), "refused by Replicate: {refused:#?}");
        let fetched = self.state.fetched.lock().unwrap();
        let leaked: Vec<_> = fetched.iter().filter(|(_, token)| *token).collect();
        assert!(leaked.is_empty(), "a token went to the files: {leaked:?}");
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 1024 * 1024).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let model = format!("{owner}/{name}");
    let checked = check_token(&parts.headers).and_then(|()| {
        let accepted = schema::check(&model, &body)?;
        Ok((accepted, Times::read(&parts.headers)?))
    });
    // Accounts without credit are a matter of the token, not of the request.
    let is_wrong = |refusal: &Refusal| !matches!(refusal.0, 402 | 429);
    shared.creates.lock().unwrap().push(Create {
        model: model.clone(),
        headers: parts.headers,
        input: body["input"].clone(),
        refused: checked.as_ref().err().filter(|one| is_wrong(one)).cloned(),
    });
    let (accepted, times) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return refuse(&refusal),
    };
    let behaviour = Behaviour::named_in(&accepted.prompt)
        .or_else(|| shared.queue.lock().unwrap().pop_front())
        .unwrap_or_else(|| Behaviour::Run(Script::default()));
    let script = match &behaviour {
        Behaviour::Refuse(status, body) => return refuse(&(*status, body.clone())),
        Behaviour::Page => {
            let page = "<html><body>Just a moment…</body></html>";
            return ([("content-type", "text/html")], page).into_response();
        }
        Behaviour::Run(script) => script.clone(),
        Behaviour::CutAfter(_, shape) => Script {
            shape: *shape,
            ..Script::default()
        },
        Behaviour::Never | Behaviour::Drip(..) => Script::default(),
    };
    let now = Instant::now();
    let id = format!("fake{:022}", shared.creates.lock().unwrap().len());
    let prediction = Prediction {
        model,
        input: body["input"].clone(),
        accepted,
        began_at: now,
        ends_at: now + times.cancel_after,
        cancelled: false,
        script,
    };
    let whole = prediction.script.starting + prediction.script.processing;
    let patience = times
        .wait
        .unwrap_or_default()
        .min(prediction.script.patience);
    let predictions = || shared.predictions.lock().unwrap();
    predictions().insert(id.clone(), prediction.clone());
    tokio::time::sleep(patience.min(whole)).await;
    let mut answer = describe(&shared, &id, &prediction);
    let waited = times.wait.is_some() && patience >= whole;
    if prediction.script.status_lags && waited {
        answer["status"] = json!("processing");
    }
    let status = if waited { 201 } else { 202 };
    match behaviour {
        Behaviour::Never => std::future::pending().await,
        Behaviour::CutAfter(bytes, _) => cut(status, &answer, bytes),
        Behaviour::Drip(piece, pause) => {
            let body = drip(&Bytes::from(answer.to_string()), piece, pause);
            (
                StatusCode::CREATED,
                [("content-type", "application/json")],
                body,
            )
                .into_response()
        }
        _ => reply(status, &answer),
    }
}

async fn question(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = check_token(&headers) {
        return refuse(&refusal);
    }
    shared.questions.lock().unwrap().push(id.clone());
    let mut predictions = shared.predictions.lock().unwrap();
    let Some(prediction) = predictions.get_mut(&id) else {
        return refuse(&schema::not_found());
    };
    if prediction.script.failing_questions > 0 {
        prediction.script.failing_questions -= 1;
        return refuse(&(503, json!({"detail": "temporarily unavailable"})));
    }
    reply(200, &describe(&shared, &id, prediction))
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = check_token(&headers) {
        return refuse(&refusal);
    }
    let mut predictions = shared.predictions.lock().unwrap();
    let Some(prediction) = predictions.get_mut(&id) else {
        return refuse(&schema::not_found());
    };
    prediction.cancelled = true;
    shared.cancelled.lock().unwrap().push(id.clone());
    reply(200, &describe(&shared, &id, prediction))
}

fn check_token(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |detail: &str| {
        let body = json!({"title": "Unauthenticated", "detail": detail, "status": 401});
        Err((401, body))
    };
    let given = headers.get("authorization").and_then(|it| it.to_str().ok());
    match given.map(|text| text.strip_prefix("Bearer ").unwrap_or_default()) {
        Some(TOKEN) => Ok(()),
        Some(BROKE_TOKEN) => Err(insufficient_credit()),
        Some(LOW_TOKEN) => Err(low_credit()),
        Some(_) => refuse("You did not pass a valid authentication token"),
        None => refuse("You did not pass an authentication token"),
    }
}

/// `Prefer` and `Cancel-After` (contract, section 2.1).
struct Times {
    wait: Option<Duration>,
    cancel_after: Duration,
}

impl Times {
    fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let wrong = |name: &str| {
            let detail = format!("{name} is not as documented");
            (400, json!({"detail": detail, "status": 400}))
        };
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        if header("content-type") != Some("application/json") {
            return Err(wrong("content-type"));
        }
        let wait = match header("prefer") {
            None => None,
            Some(text) => {
                let seconds = text.strip_prefix("wait=").and_then(|it| it.parse().ok());
                let seconds = seconds.filter(|seconds| (1..=60).contains(seconds));
                Some(Duration::from_secs(seconds.ok_or_else(|| wrong("prefer"))?))
            }
        };
        let cancel_after = match header("cancel-after") {
            None => Duration::from_mins(30),
            Some(text) => {
                let seconds = text.strip_suffix('s').and_then(|it| it.parse().ok());
                let seconds = seconds.filter(|seconds| *seconds >= 5);
                Duration::from_secs(seconds.ok_or_else(|| wrong("cancel-after"))?)
            }
        };
        Ok(Self { wait, cancel_after })
    }
}

/// The prediction as it is now (contract, section 2.3), with fields that nobody documents.
fn describe(shared: &Shared, id: &str, prediction: &Prediction) -> Value {
    let Script {
        starting,
        processing,
        end,
        partial,
        ..
    } = &prediction.script;
    let age = prediction.began_at.elapsed();
    let n = prediction.accepted.n;
    let (status, output, error) = if prediction.cancelled {
        ("canceled", None, Value::Null)
    } else if Instant::now() >= prediction.ends_at && age < *starting {
        ("aborted", None, Value::Null)
    } else if Instant::now() >= prediction.ends_at && age < *starting + *processing {
        ("canceled", None, Value::Null)
    } else if age < *starting {
        ("starting", None, Value::Null)
    } else if age < *starting + *processing {
        let shown = (*partial > 0).then_some(*partial);
        ("processing", shown, Value::Null)
    } else {
        match end {
            End::Succeeded(count) => ("succeeded", Some(count.unwrap_or(n)), Value::Null),
            End::Removed => ("succeeded", None, Value::Null),
            End::Failed(text) => ("failed", None, json!(text)),
            End::Canceled => ("canceled", None, Value::Null),
            End::Aborted => ("aborted", None, Value::Null),
        }
    };
    let output = output.map_or(Value::Null, |count| outputs(shared, id, prediction, count));
    json!({
        "id": id,
        "model": prediction.model,
        "version": "hidden",
        "input": prediction.input,
        "logs": "Using seed: 7\n",
        "output": output,
        "data_removed": matches!(end, End::Removed),
        "error": error,
        "source": "api",
        "status": status,
        "created_at": "2026-11-20T10:00:00.123456Z",
        "metrics": {"predict_time": 0.01, "x": [{}]},
        "a_field_nobody_knows": {"output": ["no"], "status": "no", "error": 7},
        // Whoever follows these with the token loses it.
        "urls": {
            "get": format!("http://{}/trap/{id}/1x1/get", shared.file_host),
            "cancel": format!("http://{}/trap/{id}/1x1/cancel", shared.file_host),
        },
    })
}

fn outputs(shared: &Shared, id: &str, prediction: &Prediction, count: usize) -> Value {
    let Accepted {
        width,
        height,
        extension,
        is_list,
        ..
    } = &prediction.accepted;
    let script = &prediction.script;
    let output = |index: usize| {
        let as_link = match script.shape {
            Shape::Links => true,
            Shape::DataUrls => false,
            Shape::Mixed => index == 0,
        };
        if !as_link {
            let picture = paint(extension, *width, *height, index);
            return json!(format!(
                "data:image/{extension};base64,{}",
                STANDARD.encode(picture)
            ));
        }
        let host = match script.files {
            Files::Elsewhere => shared.file_host.replace("localhost", "127.0.0.1"),
            _ => shared.file_host.clone(),
        };
        let kind = match script.files {
            Files::Expired => "gone",
            Files::SecondExpired if index == 1 => "gone",
            Files::There | Files::Elsewhere | Files::SecondExpired => "xezq",
            Files::Cut => "cut",
            Files::Drip => "drip",
            Files::NoPicture => "text",
        };
        json!(format!(
            "http://{host}/{kind}/{id}/{width}x{height}/out-{index}.{extension}"
        ))
    };
    let mut outputs: Vec<Value> = (0..count).map(output).collect();
    if *is_list || outputs.is_empty() {
        Value::Array(outputs)
    } else {
        outputs.remove(0)
    }
}

fn paint(extension: &str, width: u32, height: u32, index: usize) -> Bytes {
    let format = match extension {
        "png" => "png",
        "jpg" => "jpeg",
        _ => "webp",
    };
    let seed = u8::try_from(index * 20 + 10).unwrap();
    pictures::paint(format, width, height, seed, false)
}

/// The files, on the second host.
async fn file(
    State(shared): State<Arc<Shared>>,
    Path((kind, _, size, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let with_token = headers.contains_key("authorization");
    let fetched = (format!("/{kind}/{name}"), with_token);
    shared.fetched.lock().unwrap().push(fetched);
    let Some((index, extension)) = name
        .strip_prefix("out-")
        .and_then(|name| name.split_once('.'))
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (width, height) = size.split_once('x').unwrap();
    let picture = paint(
        extension,
        width.parse().unwrap(),
        height.parse().unwrap(),
        index.parse().unwrap(),
    );
    // The type of the file's name, as the real ones; the bytes count.
    let headers = [("content-type", format!("image/{extension}"))];
    match kind.as_str() {
        "xezq" => (headers, picture).into_response(),
        "drip" => {
            let piece = picture.len() / 10 + 1;
            let body = drip(&picture, piece, Duration::from_millis(40));
            (headers, body).into_response()
        }
        "cut" => {
            let half = picture.slice(..picture.len() / 2);
            (headers, broken_after(half)).into_response()
        }
        "text" => (headers, "this is no picture, only a sentence").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn drip(bytes: &Bytes, piece: usize, pause: Duration) -> Body {
    let pieces: Vec<Bytes> = bytes
        .chunks(piece)
        .map(|chunk| bytes.slice_ref(chunk))
        .collect();
    Body::from_stream(stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(piece)
    }))
}

fn broken_after(beginning: Bytes) -> Body {
    let broken = stream::once(async {
        // The beginning is on its way before the break.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("the fake breaks the connection"))
    });
    Body::from_stream(stream::iter([Ok(beginning)]).chain(broken))
}

fn cut(status: u16, answer: &Value, bytes: usize) -> Response {
    let text = Bytes::from(answer.to_string());
    assert!(
        bytes < text.len(),
        "the whole answer has {} bytes",
        text.len()
    );
    let status = StatusCode::from_u16(status).unwrap();
    (status, broken_after(text.slice(..bytes))).into_response()
}

fn reply(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let headers = [("content-type", "application/json"), ("cf-ray", "fake-AMS")];
    (status, headers, body.to_string()).into_response()
}

fn refuse((status, body): &Refusal) -> Response {
    reply(*status, body)
}
