//! The shared HTTP client: sending, deadlines, size limits, redaction, mirrored result links.
//!
//! Adapters translate, the client talks. It knows nothing of any provider's JSON. Everything that can grow
//! is bounded here: calls at the same time, time, silence, bytes. Secrets travel in headers marked
//! sensitive, never in addresses; errors name no address.
//!
//! HTTP/1.1 only, on purpose: over HTTP/2 all calls to a provider share a connection, whose stream limit
//! (100 or so) would queue the rest behind pictures that take a minute each.

mod body;
mod connections;
mod deadline;
mod form;
mod hosts;
mod inspect;
mod job;
mod mirror;
mod payload;
mod pictures;
mod retry_after;
mod witness;

use std::{
    error::Error,
    num::NonZeroU8,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

pub(super) use self::{
    body::AnswerBody, form::Form, mirror::Mirrored, payload::Payload, pictures::Pictures,
    retry_after::retry_after,
};
use self::{
    connections::{Connections, SendError},
    deadline::Deadline,
    hosts::{Lookup, Resolver, ResultHosts},
    witness::{BodyError, Witness},
};
use super::{ErrorKind, PictureEvent, PictureSink, ProviderError, Report};
use crate::{config::ProviderConfig, telemetry::traces};

/// Room in a successful answer for all that is no picture: usage, revised prompts, fields nobody knows.
const ANSWER_SLACK_BYTES: u64 = 1024 * 1024;
/// What calls want to hear.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Base64 is four thirds of a picture; the rest is room for escapes.
const BYTES_PER_PICTURE_BYTE: u64 = 2;

/// A provider's connections and limits.
pub(super) struct HttpClient {
    name: String,
    connections: Connections,
    /// For result links; made when the first one comes, since most providers never send any.
    mirror: OnceLock<Connections>,
    hosts: Arc<ResultHosts>,
    lookup: Lookup,
    base_url: Url,
    headers: HeaderMap,
    timeout: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    max_picture_bytes: u64,
    max_in_flight: usize,
    in_flight: Semaphore,
}

/// An answer whose body is still coming.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: AnswerBody,
}

/// One call's place among those in flight, and its clock.
pub(super) struct Attempt<'client> {
    client: &'client HttpClient,
    deadline: Deadline,
    /// How the last thing that was posted was answered.
    head: Mutex<Option<Head>>,
    _permit: SemaphorePermit<'client>,
}

/// What an answer says before its body.
#[derive(Debug, Clone)]
struct Head {
    status: u16,
    request_id: Option<String>,
}

/// An `Authorization: Bearer` header that no log shows.
///
/// # Errors
/// When the secret has characters that no header can carry.
pub(super) fn bearer(secret: &SecretString) -> Result<HeaderMap, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", secret.expose_secret().trim()))
        .map_err(|_| "api_key has characters that a header cannot carry".to_owned())?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}

impl HttpClient {
    /// A client for the provider `name`. `headers` go with every call to `base_url` and nowhere else.
    ///
    /// # Errors
    /// A sentence naming the key that is wrong.
    pub(super) fn new(
        name: &str,
        base_url: &str,
        headers: HeaderMap,
        config: &ProviderConfig,
        max_picture_bytes: u64,
    ) -> Result<Self, String> {
        let base_url = parse_base_url(base_url)?;
        let hosts = ResultHosts::new(&base_url, &config.result_hosts)?;
        let lookup = crate::addresses::system_lookup;
        let anybody = Resolver {
            hosts: None,
            lookup,
        };
        // Where no certificates are needed, none are read.
        let with_tls = base_url.scheme() != "http";
        let connections = Connections::new(anybody, config.connect_timeout, with_tls)
            .map_err(|error| format!("the HTTP client cannot be set up: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            connections,
            mirror: OnceLock::new(),
            hosts: Arc::new(hosts),
            lookup,
            base_url,
            headers,
            timeout: config.timeout,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            max_picture_bytes,
            max_in_flight: config.max_in_flight,
            in_flight: Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// With names of result links looked up in another way.
    #[cfg(test)]
    pub(super) fn with_lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = lookup;
        self
    }

    /// What the provider is called in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where calls go.
    pub(super) fn base_url(&self) -> &Url {
        &self.base_url
    }

    /// Calls that are being made now.
    pub(super) fn calls_in_flight(&self) -> usize {
        let all = self.max_in_flight.min(Semaphore::MAX_PERMITS);
        all.saturating_sub(self.in_flight.available_permits())
    }

    /// Begins a call that ends at `deadline` or after the provider's own timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] at once when as many calls as allowed are in flight: waiting here would
    /// only hide the load.
    pub(super) fn begin(&self, deadline: Instant) -> Result<Attempt<'_>, ProviderError> {
        let permit = self.in_flight.try_acquire().map_err(|_| {
            ProviderError::new(
                ErrorKind::Overloaded { retry_after: None },
                format!(
                    "{} calls to {} are in flight, which is its max_in_flight",
                    self.max_in_flight, self.name
                ),
            )
        })?;
        Ok(Attempt {
            client: self,
            deadline: Deadline::new(self.timeout, deadline),
            head: Mutex::default(),
            _permit: permit,
        })
    }

    /// What an answer with so many pictures may weigh, in bytes.
    fn answer_cap(&self, pictures: NonZeroU8) -> u64 {
        self.max_picture_bytes
            .saturating_mul(BYTES_PER_PICTURE_BYTE)
            .saturating_mul(u64::from(pictures.get()))
            .saturating_add(ANSWER_SLACK_BYTES)
    }

    fn endpoint(&self, path: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

impl Attempt<'_> {
    /// Posts a JSON body to `base_url/path` and returns the answer once its head is there. Redirects are
    /// not followed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] and [`ErrorKind::Transport`]. `sent: false` is sure: the body never left
    /// whole (see [`witness`]). [`ErrorKind::Storage`] when a client's picture cannot be read any more.
    pub(super) async fn post_json(
        &self,
        path: &[&str],
        body: Bytes,
        pictures: NonZeroU8,
    ) -> Result<Answer, ProviderError> {
        self.post(path, "application/json", HeaderMap::new(), body, pictures)
            .await
    }

    /// The same with a body of any type, and with headers of this call alone, such as a key that changes
    /// by the hour; they replace the usual ones of the same name.
    ///
    /// # Errors
    /// As [`Attempt::post_json`].
    pub(super) async fn post(
        &self,
        path: &[&str],
        content_type: &str,
        headers: HeaderMap,
        body: impl Into<Payload>,
        pictures: NonZeroU8,
    ) -> Result<Answer, ProviderError> {
        let witness = Witness::default();
        let client = self.client;
        let content_type =
            HeaderValue::from_str(content_type).expect("a media type has plain characters only");
        let mut all = client.headers.clone();
        all.insert(header::CONTENT_TYPE, content_type);
        all.insert(header::ACCEPT, JSON);
        // Replaces those of the same name.
        all.extend(headers);
        all.extend(traces::outgoing());
        let (url, body) = (client.endpoint(path), witness.watch(body));
        let request = client.connections.send(Method::POST, &url, all, body);
        let outcome = tokio::time::timeout_at(self.deadline.at(), request).await;
        match outcome {
            Ok(Ok(response)) => {
                *self.head() = Some(Head {
                    status: response.status().as_u16(),
                    request_id: request_id(response.headers()),
                });
                Ok(Answer::new(response, client.answer_cap(pictures)))
            }
            Ok(Err(error)) => Err(send_error(&error, witness.withdraw())),
            Err(_elapsed) => Err(ProviderError::new(
                ErrorKind::Timeout {
                    sent: witness.withdraw(),
                },
                "the provider did not answer in time",
            )),
        }
    }

    /// Puts into the outcome of a call what the head of its answer said, for the books and for the
    /// provider's support. What the adapter has put there itself stays.
    pub(super) fn sign(
        &self,
        outcome: Result<Report, ProviderError>,
    ) -> Result<Report, ProviderError> {
        let head = self.head().take();
        let status = head.as_ref().map(|head| head.status);
        let request_id = head.and_then(|head| head.request_id);
        match outcome {
            Ok(report) => Ok(Report {
                upstream_status: report.upstream_status.or(status),
                upstream_request_id: report.upstream_request_id.or(request_id),
                ..report
            }),
            Err(error) => Err(ProviderError {
                upstream_status: error.upstream_status.or(status),
                upstream_request_id: error.upstream_request_id.or(request_id),
                ..error
            }),
        }
    }

    fn head(&self) -> std::sync::MutexGuard<'_, Option<Head>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a picture may weigh within an answer, in bytes.
    pub(super) fn picture_cap(&self) -> u64 {
        self.client.answer_cap(NonZeroU8::MIN)
    }

    /// When the call ends, whatever happens.
    pub(super) fn ends_at(&self) -> Instant {
        self.deadline.at()
    }

    /// Hands an event to the sink. The clock stands meanwhile: a slow reader is no slow provider.
    pub(super) async fn deliver(
        &mut self,
        sink: &mut dyn PictureSink,
        event: PictureEvent,
    ) -> Result<(), ProviderError> {
        let began_at = Instant::now();
        let outcome = sink.accept(event).await;
        self.deadline.extend(began_at.elapsed());
        outcome
    }
}

impl Answer {
    fn new(response: Response<Incoming>, cap: u64) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: AnswerBody::new(body, cap),
        }
    }

    /// Whether it says that it is a page for people: a proxy's, or a wrong address.
    pub(super) fn is_html(&self) -> bool {
        self.is_called("text/html")
    }

    /// Whether it says that it is a stream of events.
    pub(super) fn is_event_stream(&self) -> bool {
        self.is_called("text/event-stream")
    }

    fn is_called(&self, media_type: &str) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|text| {
                text.trim_start()
                    .to_ascii_lowercase()
                    .starts_with(media_type)
            })
    }
}

/// The provider's name for the exchange, if it can stand in a log line.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let is_plain = id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| id.to_owned())
}

fn parse_base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("base_url '{text}' is no URL: {error}"))?;
    let problem = if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        "must begin with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        // Not quoted: it holds a secret.
        return Err("base_url must not hold a user name or password".to_owned());
    } else if url.query().is_some() || url.fragment().is_some() {
        "must end with its path"
    } else {
        return Ok(url);
    };
    Err(format!("base_url '{text}' {problem}"))
}

/// What a failed sending means.
fn send_error(error: &SendError, sent: bool) -> ProviderError {
    if has_unreadable_body(error) {
        let message = "an uploaded picture cannot be read any more";
        return ProviderError {
            // Half a request was sent, which nobody can act on.
            maybe_charged: false,
            ..ProviderError::new(ErrorKind::Storage, message)
        };
    }
    let kind = if error.is_timeout() {
        ErrorKind::Timeout { sent }
    } else {
        ErrorKind::Transport { sent }
    };
    let what = if error.is_connect() {
        "the provider cannot be reached"
    } else if sent {
        "the connection to the provider broke before its answer"
    } else {
        "the request could not be sent to the provider"
    };
    ProviderError {
        cause: Some(cause(error)),
        ..ProviderError::new(kind, what)
    }
}

fn has_unreadable_body(error: &SendError) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if matches!(error.downcast_ref(), Some(BodyError::Unreadable(_))) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost reason of an error: what the system or the TLS library says, which names no address.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut source = error.source();
    let mut text = "unknown reason".to_owned();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}
