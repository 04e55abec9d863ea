//! A strict fake of Replicate's predictions, on real sockets, after `contracts/replicate.md`, section 9.
//!
//! It knows each model's schema, runs a state machine a prediction, honours `Prefer` and `Cancel-After`,
//! and serves files from a second host name, where it looks for tokens that have no business there. It knows
//! nothing of Easel: a request that it refuses is either what the test wanted or a fault of ours, and
//! [`FakeReplicate::prove`] asks which.

mod inputs;
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
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) use self::schema::COMMUNITY_MODEL;
use self::schema::{Accepted, Refusal};
pub(crate) use self::script::{
    Behaviour, E005, End, Files, NOT_STARTED, NSFW, OUT_OF_MEMORY, Script, Shape, UNKNOWN,
    insufficient_credit, low_credit,
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
    /// By way of a version.
    pub(crate) by_version: bool,
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
    files: Mutex<inputs::Files>,
    uploads: Mutex<usize>,
    /// How the next uploads are refused.
    file_refusals: Mutex<VecDeque<Refusal>>,
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
            files: Mutex::new(Some(HashMap::new())),
            uploads: Mutex::default(),
            file_refusals: Mutex::default(),
        });
        let api_router = Router::new()
            .route("/v1/models/{owner}/{name}/predictions", post(create))
            .route("/v1/predictions", post(create_version))
            .route("/v1/files", post(upload).layer(DefaultBodyLimit::disable()))
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

    /// From now on it has no files.
    pub(crate) fn without_files(&self) {
        *self.state.files.lock().unwrap() = None;
    }

    /// How the next upload is refused; several are taken in order, and then all are taken.
    pub(crate) fn refuse_upload(&self, status: u16, body: Value) {
        let mut refusals = self.state.file_refusals.lock().unwrap();
        refusals.push_back((status, body));
    }

    /// How often somebody tried to upload a file.
    pub(crate) fn uploads(&self) -> usize {
        *self.state.uploads.lock().unwrap()
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
        let trapped: Vec<_> = fetched
            .iter()
            .filter(|(path, _)| path.starts_with("/trap/"))
            .collect();
        assert!(trapped.is_empty(), "`urls` was believed: {trapped:?}");
    }
}

/// An official model's own route.
async fn create(
    State(shared): State<Arc<Shared>>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let (parts, body) = whole(request).await;
    begin(&shared, format!("{owner}/{name}"), false, &parts, &body).await
}

/// The route of everybody's models, which says in the body which one.
async fn create_version(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = whole(request).await;
    let version = body["version"].as_str().unwrap_or_default();
    let model = version.split(':').next().unwrap_or_default().to_owned();
    begin(&shared, model, true, &parts, &body).await
}

async fn whole(request: Request) -> (Parts, Value) {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 32 * 1024 * 1024).await.unwrap_or_default();
    (parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn begin(
    shared: &Arc<Shared>,
    model: String,
    by_version: bool,
    parts: &Parts,
    body: &Value,
) -> Response {
    let checked = check_token(&parts.headers).and_then(|()| {
        let files = shared.files.lock().unwrap();
        let accepted = schema::check(&model, by_version, body, &files)?;
        Ok((accepted, Times::read(&parts.headers)?))
    });
    // Accounts without credit are a matter of the token, not of the request.
    let is_wrong = |refusal: &Refusal| !matches!(refusal.0, 402 | 429);
    shared.creates.lock().unwrap().push(Create {
        model: model.clone(),
        by_version,
        headers: parts.headers.clone(),
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
        Behaviour::Never | Behaviour::Drip(..) | Behaviour::StallAfter(_) => Script::default(),
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
    let mut answer = describe(shared, &id, &prediction);
    let waited = times.wait.is_some() && patience >= whole;
    if let Some(lagging) = prediction.script.lagging.filter(|_| waited) {
        answer["status"] = json!(lagging);
    }
    // Whoever did not ask to wait gets it at once; an unfinished answer to one who did is a 202.
    let status = match times.wait {
        _ if waited => prediction.script.created,
        Some(_) => 202,
        None => 201,
    };
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
        Behaviour::StallAfter(bytes) => stall(status, &answer, bytes),
        _ => {
            let mut response = reply(status, &answer);
            if !waited {
                // As treacherous as `urls`.
                let location = answer["urls"]["get"].as_str().unwrap().parse().unwrap();
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
    }
}

/// A file that can stand in inputs from now on.
async fn upload(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    *shared.uploads.lock().unwrap() += 1;
    if let Err(refusal) = check_token(&parts.headers) {
        return refuse(&refusal);
    }
    let body = to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    if let Some(refusal) = shared.file_refusals.lock().unwrap().pop_front() {
        return refuse(&refusal);
    }
    let mut files = shared.files.lock().unwrap();
    let Some(files) = files.as_mut() else {
        return refuse(&schema::not_found());
    };
    let Some(picture) = inputs::uploaded(&parts.headers, &body) else {
        return refuse(&(400, json!({"detail": "no such form", "status": 400})));
    };
    let id = format!("file{:022}", files.len());
    let link = format!("{}/v1/files/{id}", shared.api);
    let size = picture.len();
    files.insert(link.clone(), picture);
    reply(
        201,
        &json!({"id": id, "size": size, "urls": {"get": link}, "metadata": {}}),
    )
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
        return refuse(&prediction.script.question_failure);
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
                let seconds = match text {
                    "wait" => Some(60),
                    _ => text.strip_prefix("wait=").and_then(|it| it.parse().ok()),
                };
                let seconds = seconds.filter(|seconds| (1..=60).contains(seconds));
                Some(Duration::from_secs(seconds.ok_or_else(|| wrong("prefer"))?))
            }
        };
        let cancel_after = match header("cancel-after") {
            None => Duration::from_mins(30),
            Some(text) => {
                let seconds = seconds(text).filter(|seconds| *seconds >= 5);
                Duration::from_secs(seconds.ok_or_else(|| wrong("cancel-after"))?)
            }
        };
        Ok(Self { wait, cancel_after })
    }
}

/// `90`, `90s`, `1h30m45s`.
fn seconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let mut rest = text;
    let mut sum = 0;
    for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, tail)) = rest.split_once(unit) {
            sum += number.parse::<u64>().ok()? * seconds;
            rest = tail;
        }
    }
    rest.is_empty().then_some(sum)
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
            End::FailedObject(text) => ("failed", None, json!({"message": text, "status": 500})),
            End::SucceededOddly => ("succeeded", Some(n), Value::Null),
            End::Canceled => ("canceled", None, Value::Null),
            End::Aborted => ("aborted", None, Value::Null),
        }
    };
    let mut output = output.map_or(Value::Null, |count| outputs(shared, id, prediction, count));
    if matches!(end, End::SucceededOddly) && !output.is_null() {
        output = json!({ "images": output, "seed": 7 });
    }
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
            Files::SecondCut if index == 1 => "cut",
            Files::There | Files::Elsewhere | Files::SecondExpired | Files::SecondCut => "xezq",
            Files::Cut => "cut",
            Files::CutOnce => "cutonce",
            Files::BusyOnce => "busyonce",
            Files::Moved => "moved",
            Files::MovedElsewhere => "movedelsewhere",
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
    Path((kind, id, size, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let with_token = headers.contains_key("authorization");
    let is_first = {
        let mut fetched = shared.fetched.lock().unwrap();
        let path = format!("/{kind}/{id}/{name}");
        let is_first = fetched.iter().all(|(earlier, _)| *earlier != path);
        fetched.push((path, with_token));
        is_first
    };
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
    let moved = |host: &str| {
        let location = format!("http://{host}/xezq/{id}/{size}/{name}");
        (StatusCode::FOUND, [("location", location)]).into_response()
    };
    match kind.as_str() {
        "xezq" => (headers, picture).into_response(),
        "cutonce" | "busyonce" if !is_first => (headers, picture).into_response(),
        "busyonce" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "moved" => moved(&shared.file_host),
        "movedelsewhere" => moved(&shared.file_host.replace("localhost", "127.0.0.1")),
        "drip" => {
            let piece = picture.len() / 10 + 1;
            let body = drip(&picture, piece, Duration::from_millis(40));
            (headers, body).into_response()
        }
        "cut" | "cutonce" => {
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

fn stall(status: u16, answer: &Value, bytes: usize) -> Response {
    let beginning = Bytes::from(answer.to_string()).slice(..bytes);
    let silent = stream::once(async { Ok::<_, Infallible>(beginning) }).chain(stream::pending());
    let status = StatusCode::from_u16(status).unwrap();
    (status, Body::from_stream(silent)).into_response()
}

fn reply(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let headers = [("content-type", "application/json"), ("cf-ray", "fake-AMS")];
    (status, headers, body.to_string()).into_response()
}

fn refuse((status, body): &Refusal) -> Response {
    reply(*status, body)
}
