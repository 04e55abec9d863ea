//! Every way a request can be refused, and the one place where that becomes a status and `OpenAI`'s
//! envelope (`contracts/openai-images.md`, section 6; design, section 6).

use std::{error::Error, net::IpAddr, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use chrono::SecondsFormat;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::answer::UsageJson;
use crate::{
    catalog::Violation,
    gateway::{DRAINING, GatewayError, UpstreamFailure},
    ids::GenerationId,
    images::LinkError,
    keys::KeyError,
    ledger::{GenerationStatus, LedgerError, SpendLimit},
    providers::{ErrorKind, ModerationDetails},
    telemetry::metrics::metrics,
};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No `Authorization` header.
    #[error("no API key")]
    NoKey,
    /// A key we do not know, or one that has ended. Holds what may be shown of it.
    #[error("unknown API key")]
    UnknownKey(String),
    /// The key is bound to networks, and the client is in none of them, or nobody knows where.
    #[error("the key may not be used from there")]
    ForbiddenAddress(Option<IpAddr>),
    /// No such path.
    #[error("no such path")]
    UnknownPath(Method, String),
    /// The path has other methods.
    #[error("method not allowed")]
    MethodNotAllowed(Method, String),
    /// Not the content type the endpoint takes, or none.
    #[error("unsupported content type")]
    ContentType(Option<String>),
    /// The same for an endpoint that takes uploads.
    #[error("unsupported content type")]
    UploadContentType(Option<String>),
    /// The body is encoded, as this.
    #[error("unsupported content encoding")]
    ContentEncoding(String),
    /// A form that cannot be read; where and what, without the content.
    #[error("malformed form")]
    Form(String),
    /// An upload took longer than this.
    #[error("the upload took longer than {0:?}")]
    UploadTimeout(Duration),
    /// Other uploads take all the room there is.
    #[error("no room for uploads")]
    UploadsFull,
    /// The client sends fewer bytes a second than this.
    #[error("the body comes slower than {0} bytes a second")]
    BodyTooSlow(u64),
    /// Other large bodies take all the room there is.
    #[error("no room for request bodies")]
    BodiesFull,
    /// An uploaded picture, by its field, is larger than the limit, in bytes.
    #[error("{0} is larger than {1} bytes")]
    PictureTooLarge(String, u64),
    /// The body is larger than the limit, in bytes.
    #[error("body larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body paused longer than this.
    #[error("the body paused for {0:?}")]
    BodyTimeout(Duration),
    /// The client stopped sending in the middle of the body.
    #[error("the body broke off")]
    BodyBroken,
    /// No request at all, by the HTTP library's words: 400, 414 or 431.
    #[error("not a request that can be read ({0})")]
    Unreadable(StatusCode),
    /// Not JSON; where and what, without the content.
    #[error("malformed JSON")]
    Json(String),
    /// JSON, but not an object.
    #[error("the body is not an object")]
    NotAnObject,
    /// A parameter is wrong in itself.
    #[error("{}", .0.message)]
    Parameter(Violation),
    /// No such generation in this account.
    #[error("no such generation")]
    NoGeneration(String),
    /// The key may have no webhooks.
    #[error("the key may have no webhooks")]
    WebhooksForbidden,
    /// The generation cannot be cancelled, since it has ended so.
    #[error("{0} has ended already")]
    GenerationFinished(GenerationId, GenerationStatus),
    /// No such model, for `GET /v1/models/{id}`.
    #[error("no such model")]
    NoModel(String),
    /// A link that does not open.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A link to a picture that is gone.
    #[error("the picture is gone")]
    PictureGone,
    /// The gateway's refusal.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Our own fault.
    #[error("internal error")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        Self::Gateway(error.into())
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::Gateway(error.into())
    }
}

pub(crate) const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";
const FORM_OR_JSON: &str =
    "This API method accepts 'multipart/form-data' and 'application/json' requests.";
const ONLY_JSON: &str = "This API method only accepts 'application/json' requests.";

/// What a refusal looks like on the wire; for the operator's surface too.
pub(crate) struct Parts {
    status: StatusCode,
    error_type: String,
    code: Option<String>,
    param: Option<String>,
    message: String,
    /// What the provider's safety system says of its refusal.
    moderation: Option<ModerationDetails>,
    /// What was charged of it all the same.
    usage: Option<UsageJson>,
    retry_after: Option<Duration>,
    /// `x-should-retry`: overrides what the SDKs would conclude from the status.
    should_retry: Option<bool>,
}

impl Parts {
    pub(crate) fn new(
        status: StatusCode,
        error_type: &str,
        code: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error_type: error_type.to_owned(),
            code: Some(code.to_owned()),
            param: None,
            message: message.into(),
            moderation: None,
            usage: None,
            retry_after: None,
            // Whatever could be retried has been retried here; a repeat by the SDK would only cost more.
            should_retry: status.is_server_error().then_some(false),
        }
    }

    pub(crate) fn param(self, param: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..self
        }
    }

    /// Asking again is no use, whatever the SDKs would conclude from the status.
    fn finally(self) -> Self {
        Self {
            should_retry: Some(false),
            ..self
        }
    }

    /// The caller may come back after this time.
    pub(crate) fn come_back(self, after: Duration) -> Self {
        Self {
            retry_after: Some(after),
            should_retry: self.should_retry.map(|_| true),
            ..self
        }
    }
}

impl ApiError {
    fn parts(&self) -> Parts {
        use StatusCode as Status;
        match self {
            Self::NoKey => Parts::new(
                Status::UNAUTHORIZED,
                INVALID,
                "invalid_api_key",
                "You didn't provide an API key. Send it in an Authorization header using Bearer auth \
                 (Authorization: Bearer ek_...).",
            ),
            Self::UnknownKey(shown) => Parts::new(
                Status::UNAUTHORIZED,
                INVALID,
                "invalid_api_key",
                format!("Incorrect API key provided: {shown}. It is unknown, expired or revoked."),
            ),
            Self::ForbiddenAddress(client) => Parts::new(
                Status::FORBIDDEN,
                INVALID,
                "ip_not_allowed",
                match client {
                    Some(client) => {
                        format!("This API key may not be used from the IP address {client}.")
                    }
                    None => "This API key may be used from certain IP addresses only, and yours is not known."
                        .to_owned(),
                },
            ),
            Self::UnknownPath(method, path) => Parts::new(
                Status::NOT_FOUND,
                INVALID,
                "unknown_url",
                format!("Invalid URL ({} {path}).", excerpt(method.as_str())),
            ),
            Self::MethodNotAllowed(method, path) => Parts::new(
                Status::METHOD_NOT_ALLOWED,
                INVALID,
                "method_not_allowed",
                format!("Not allowed to {} on {path}.", excerpt(method.as_str())),
            ),
            Self::ContentType(given) => Parts::new(
                Status::UNSUPPORTED_MEDIA_TYPE,
                INVALID,
                "unsupported_content_type",
                match given {
                    Some(given) => format!("Unsupported content type: '{given}'. {ONLY_JSON}"),
                    None => format!("The request has no 'Content-Type' header. {ONLY_JSON}"),
                },
            ),
            Self::UploadContentType(given) => Parts::new(
                Status::UNSUPPORTED_MEDIA_TYPE,
                INVALID,
                "unsupported_content_type",
                match given {
                    Some(given) => format!("Unsupported content type: '{given}'. {FORM_OR_JSON}"),
                    None => format!("The request has no 'Content-Type' header. {FORM_OR_JSON}"),
                },
            ),
            Self::ContentEncoding(given) => Parts::new(
                Status::UNSUPPORTED_MEDIA_TYPE,
                INVALID,
                "unsupported_content_encoding",
                format!(
                    "Unsupported content encoding: '{given}'. Send the request body as it is, without a \
                     'Content-Encoding' header."
                ),
            ),
            Self::Form(what) => Parts::new(
                Status::BAD_REQUEST,
                INVALID,
                "invalid_form",
                format!("We could not parse the multipart/form-data body of your request: {what}."),
            ),
            Self::UploadTimeout(limit) => Parts::new(
                Status::REQUEST_TIMEOUT,
                INVALID,
                "request_timeout",
                format!("The request body took longer than {} seconds.", limit.as_secs_f32()),
            ),
            Self::UploadsFull => Parts::new(
                Status::SERVICE_UNAVAILABLE,
                "service_unavailable_error",
                "server_is_overloaded",
                "Too many uploads are in flight. Please try again shortly.",
            )
            .come_back(Duration::from_secs(1)),
            Self::BodyTooSlow(rate) => Parts::new(
                Status::REQUEST_TIMEOUT,
                INVALID,
                "request_timeout",
                format!("The request body came slower than {rate} bytes a second."),
            ),
            Self::BodiesFull => Parts::new(
                Status::SERVICE_UNAVAILABLE,
                "service_unavailable_error",
                "server_is_overloaded",
                "Too many large requests are being read. Please try again shortly.",
            )
            .come_back(Duration::from_secs(1)),
            Self::PictureTooLarge(name, limit) => Parts::new(
                Status::PAYLOAD_TOO_LARGE,
                INVALID,
                "file_above_max_size",
                format!("Invalid file '{name}': it is larger than the {limit} bytes this server accepts."),
            )
            .param(name),
            Self::BodyTooLarge(limit) => Parts::new(
                Status::PAYLOAD_TOO_LARGE,
                INVALID,
                "request_too_large",
                format!(
                    "The request body is larger than the {limit} bytes this API method accepts."
                ),
            ),
            Self::BodyTimeout(limit) => Parts::new(
                Status::REQUEST_TIMEOUT,
                INVALID,
                "request_timeout",
                format!(
                    "The request body paused for more than {} seconds.",
                    limit.as_secs_f32()
                ),
            ),
            Self::BodyBroken => Parts::new(
                Status::BAD_REQUEST,
                INVALID,
                "incomplete_body",
                "The request body broke off before its end.",
            ),
            Self::Unreadable(status) => {
                let (code, message) = match *status {
                    Status::URI_TOO_LONG => ("url_too_long", "The URL is longer than this server takes."),
                    Status::REQUEST_HEADER_FIELDS_TOO_LARGE => (
                        "headers_too_large",
                        "The headers of the request are larger, or more, than this server takes.",
                    ),
                    _ => ("unreadable_request", "This is no HTTP request that this server can read."),
                };
                Parts::new(*status, INVALID, code, message)
            }
            Self::Json(what) => Parts {
                code: None,
                ..Parts::new(
                    Status::BAD_REQUEST,
                    INVALID,
                    "",
                    format!("We could not parse the JSON body of your request: {what}."),
                )
            },
            Self::NotAnObject => Parts {
                code: None,
                ..Parts::new(
                    Status::BAD_REQUEST,
                    INVALID,
                    "",
                    "We could not use the JSON body of your request: it must be an object such as \
                     {\"prompt\": \"a red fox\"}.",
                )
            },
            Self::Parameter(violation) => violation_parts(violation),
            Self::NoGeneration(id) => Parts::new(
                Status::NOT_FOUND,
                INVALID,
                "generation_not_found",
                format!("There is no generation '{id}' in this account."),
            ),
            Self::WebhooksForbidden => Parts::new(
                Status::FORBIDDEN,
                INVALID,
                "webhooks_not_allowed",
                "This API key may not use 'webhook_url'. Ask the operator to allow it webhooks, or leave the \
                 parameter out and ask for the generation.",
            )
            .param(super::params::WEBHOOK_URL),
            Self::GenerationFinished(id, status) => Parts::new(
                Status::CONFLICT,
                INVALID,
                "generation_finished",
                format!(
                    "The generation '{id}' cannot be canceled: it has ended already and is {status}. GET \
                     /v1/images/generations/{id} has it."
                ),
            )
            .finally(),
            Self::NoModel(id) => no_model(id, None),
            Self::Link(LinkError::Forged) => Parts::new(
                Status::FORBIDDEN,
                INVALID,
                "invalid_signature",
                "The signature does not fit this link. Use the link exactly as it was returned.",
            ),
            Self::Link(LinkError::Expired) | Self::PictureGone => Parts::new(
                Status::GONE,
                INVALID,
                "link_expired",
                "This link has expired. Fetch a fresh one from the generation, or generate the image again.",
            ),
            Self::Gateway(error) => gateway_parts(error),
            Self::Internal(_) => internal(),
        }
    }
}

fn gateway_parts(error: &GatewayError) -> Parts {
    use StatusCode as Status;
    match error {
        GatewayError::Violation(violation) => violation_parts(violation),
        GatewayError::MissingModel => Parts::new(
            Status::BAD_REQUEST,
            INVALID,
            "missing_required_parameter",
            "Missing required parameter: 'model'. GET /v1/models lists the models there are.",
        )
        .param("model"),
        GatewayError::ModelNotFound { name, nearest } => no_model(name, nearest.as_deref()),
        GatewayError::ModelUnavailable { model, reasons } => Parts::new(
            Status::NOT_FOUND,
            INVALID,
            "model_unavailable",
            format!(
                "The model '{model}' is known but not served here: {}.",
                list(reasons)
            ),
        )
        .param("model"),
        GatewayError::ModelForbidden { model, allowed } => Parts::new(
            Status::FORBIDDEN,
            INVALID,
            "model_not_allowed",
            format!(
                "This API key may not use the model '{model}'. It may use: {}.",
                allowed.join(", ")
            ),
        )
        .param("model"),
        GatewayError::UnknownProvider { field, name, known } => Parts::new(
            Status::BAD_REQUEST,
            INVALID,
            "invalid_value",
            format!(
                "Invalid value for '{field}': '{}' is no provider. Known providers are: {}.",
                excerpt(name),
                known.join(", ")
            ),
        )
        .param(field),
        GatewayError::NoRoute(refused) => Parts::new(
            Status::BAD_REQUEST,
            INVALID,
            "no_route",
            format!(
                "The 'provider' object leaves no route: {}.",
                list(&refused.reasons)
            ),
        )
        .param("provider"),
        GatewayError::InsufficientBalance { needed, available } => Parts::new(
            Status::PAYMENT_REQUIRED,
            "insufficient_quota",
            "insufficient_balance",
            format!(
                "The balance is too short: this request can cost up to {needed} USD, and {available} USD \
                 is available. What is not used of it is given back at once."
            ),
        ),
        GatewayError::RateLimited {
            whose,
            what,
            limit,
            retry_after,
        } => Parts::new(
            Status::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "rate_limit_exceeded",
            format!(
                "Rate limit reached for this {whose}: {limit} {what}. Please try again in {} s.",
                seconds(*retry_after)
            ),
        )
        .come_back(*retry_after),
        GatewayError::SpendLimited(limit) => spend_parts(limit),
        GatewayError::Upstream(failure) => {
            let parts = upstream_parts(failure);
            match &failure.drafts {
                None => parts,
                // Charged, so that it is told the same to every repeat.
                Some(drafts) => Parts {
                    usage: Some(drafts.into()),
                    retry_after: None,
                    ..parts.finally()
                },
            }
        }
        GatewayError::Saturated => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "server_is_overloaded",
            "Too many requests are in flight. Please try again shortly.",
        )
        .come_back(Duration::from_secs(1)),
        GatewayError::Draining => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            DRAINING,
            "This server is shutting down. Please try again.",
        )
        .come_back(Duration::from_secs(1)),
        GatewayError::DatabaseUnavailable(_) => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "database_unavailable",
            "The server's database cannot be used at the moment. Nothing was charged. Please try again shortly.",
        )
        .come_back(Duration::from_secs(1)),
        GatewayError::StoreUnavailable => Parts::new(
            Status::BAD_GATEWAY,
            SERVER,
            "storage_error",
            "Images cannot be stored at the moment. Nothing was charged.",
        ),
        GatewayError::HoldLost => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "generation_abandoned",
            "The generation was abandoned and nothing was charged. Please try again.",
        )
        .come_back(Duration::from_secs(1)),
        GatewayError::Abandoned => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "generation_abandoned",
            "The generation that this request repeats was abandoned and nothing was charged. Please try again.",
        )
        .come_back(Duration::from_secs(1)),
        GatewayError::Unsettled => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "settlement_pending",
            "The generation is finished, but its settlement is not recorded yet. Fetch it from \
             GET /v1/images/generations instead of asking again.",
        ),
        GatewayError::IdempotencyConflict => Parts::new(
            Status::CONFLICT,
            INVALID,
            "idempotency_conflict",
            "This Idempotency-Key was used with another request within the last 24 hours. Nothing was charged. \
             Use a new key for a new request.",
        )
        .param("Idempotency-Key")
        .finally(),
        GatewayError::ReplayExpired { generation } => Parts::new(
            Status::GONE,
            INVALID,
            "replay_expired",
            format!(
                "This request was answered before, by {generation}, and its images are not kept any more. \
                 Nothing was charged again. To have new images made, use a new Idempotency-Key."
            ),
        )
        .finally(),
        GatewayError::Panicked | GatewayError::Internal(_) => internal(),
    }
}

/// A limit that is reached until tomorrow, or next month: 429 like any limit, and the only one that the SDKs must not
/// repeat by themselves, which they would within seconds (`contracts/openai-images.md`, 8.3).
fn spend_parts(reached: &SpendLimit) -> Parts {
    let SpendLimit {
        whose,
        period,
        limit,
        spent,
        needed,
        resets_at,
        resets_in,
    } = reached;
    let parts = Parts::new(
        StatusCode::TOO_MANY_REQUESTS,
        "insufficient_quota",
        "spend_limit_exceeded",
        format!(
            "Spend limit reached for this {whose}: {limit} USD per {period}, of which {spent} USD are spent or held, \
             and this request can cost up to {needed} USD. Nothing was charged. The next {period} begins at {}.",
            resets_at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
    );
    parts.come_back(*resets_in).finally()
}

/// `design`, section 9, "Routing and failures".
fn upstream_parts(failure: &UpstreamFailure) -> Parts {
    use StatusCode as Status;
    let (error, code) = (&failure.error, failure.code());
    // Drafts are the only thing that is ever charged of a failure.
    let charged = match failure.drafts {
        None => "Nothing was charged",
        Some(_) => "Only the drafts that were shown are charged",
    };
    if let Some(day) = failure.retired_on {
        return Parts::new(
            Status::NOT_FOUND,
            INVALID,
            code,
            format!(
                "The model '{}' was retired on {day}, and no provider here serves it any more. Nothing was \
                 charged. GET /v1/models lists the models there are.",
                failure.model
            ),
        )
        .param("model");
    }
    match error.kind {
        ErrorKind::InvalidRequest | ErrorKind::ContentRefused => Parts {
            param: error.param.clone(),
            moderation: error.moderation.clone(),
            ..Parts::new(
                Status::BAD_REQUEST,
                error.error_type.as_deref().unwrap_or(INVALID),
                code,
                error.message.clone(),
            )
        },
        ErrorKind::RateLimited { retry_after } => Parts::new(
            Status::TOO_MANY_REQUESTS,
            "rate_limit_error",
            code,
            "Every provider of this model is rate limited. Please try again later.",
        )
        .come_back(retry_after.unwrap_or(Duration::from_secs(1))),
        ErrorKind::Timeout { .. } => Parts::new(
            Status::GATEWAY_TIMEOUT,
            UPSTREAM,
            code,
            format!("The provider did not answer in time. {charged}."),
        ),
        ErrorKind::Storage => Parts::new(
            Status::BAD_GATEWAY,
            SERVER,
            code,
            format!("The image could not be stored. {charged}."),
        ),
        ErrorKind::ModelUnavailable => Parts::new(
            Status::BAD_GATEWAY,
            UPSTREAM,
            code,
            format!(
                "The provider '{}' does not know the model '{}' by the name it is asked for. {charged}; \
                 please tell the operator.",
                failure.provider, failure.model
            ),
        ),
        ErrorKind::Auth | ErrorKind::QuotaExhausted => Parts::new(
            Status::BAD_GATEWAY,
            UPSTREAM,
            code,
            format!(
                "The provider does not serve this server's account. {charged}; please tell the operator."
            ),
        ),
        ErrorKind::Cancelled if code == DRAINING => Parts::new(
            Status::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            code,
            format!("This server is shutting down and could not finish the request. {charged}. Please try again."),
        )
        .come_back(Duration::from_secs(1)),
        ErrorKind::Cancelled => Parts::new(
            Status::CONFLICT,
            INVALID,
            code,
            format!("The generation was canceled before it was finished. {charged}."),
        )
        .finally(),
        ErrorKind::Overloaded { .. } | ErrorKind::Transport { .. } | ErrorKind::Malformed => {
            Parts::new(
                Status::BAD_GATEWAY,
                UPSTREAM,
                code,
                format!("No image was delivered: {}. {charged}.", error.message),
            )
        }
    }
}

fn violation_parts(violation: &Violation) -> Parts {
    Parts::new(
        StatusCode::BAD_REQUEST,
        INVALID,
        violation.code,
        violation.message.clone(),
    )
    .param(&violation.parameter)
}

fn no_model(name: &str, nearest: Option<&str>) -> Parts {
    let hint = nearest.map_or_else(String::new, |nearest| format!(" Did you mean '{nearest}'?"));
    Parts::new(
        StatusCode::NOT_FOUND,
        INVALID,
        "model_not_found",
        format!(
            "The model '{}' does not exist or you do not have access to it.{hint} GET /v1/models lists \
             the models there are.",
            excerpt(name)
        ),
    )
    .param("model")
}

fn internal() -> Parts {
    Parts::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        SERVER,
        "internal_error",
        "The server had an error while processing your request. Nothing was charged.",
    )
}

fn list(reasons: &[(String, String)]) -> String {
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(provider, why)| format!("{provider}: {why}"))
        .collect();
    reasons.join("; ")
}

/// The start of what a client wrote, short enough to repeat.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whole milliseconds, rounded up.
fn milliseconds(duration: Duration) -> u64 {
    let whole = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(whole).unwrap_or(u64::MAX).max(1)
}

/// Whole seconds, rounded up: coming back too early would be refused again.
fn seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
        .max(1)
}

/// `OpenAI`'s error body: all four members, always, in its order; and what it adds to its refusals. Beside it the
/// bill, where there is one.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorAnswer")]
pub(super) struct Envelope<'a> {
    error: EnvelopeError<'a>,
    /// What the drafts cost that were shown before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a UsageJson>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
struct EnvelopeError<'a> {
    /// For people.
    message: &'a str,
    /// What kind of error it is, such as `invalid_request_error`.
    #[serde(rename = "type")]
    error_type: &'a str,
    /// The parameter at fault.
    param: Option<&'a str>,
    /// For programs.
    code: Option<&'a str>,
    /// What the provider's safety system says of its refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    moderation_details: Option<&'a ModerationDetails>,
}

/// The same as an event within a stream: the form that both SDKs raise
/// (`contracts/openai-images.md`, section 3.3).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorEvent")]
pub(super) struct EventBody<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "error"))]
    event_type: &'static str,
    #[serde(flatten)]
    envelope: Envelope<'a>,
    /// The upstream calls, where the head of the answer went out before they were known.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<&'a str>,
}

/// No code of ours is as long.
const LONGEST_LOGGED_CODE: usize = 64;

impl Parts {
    /// For the exchange's line in the log. A refusal has its provider's own code, and who knows what it writes there.
    fn record(&self) {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if let Some(code) = &self.code {
            let is_code = code.len() <= LONGEST_LOGGED_CODE && code.bytes().all(is_plain);
            let code = if is_code { code } else { "other" };
            tracing::Span::current().record("error.code", code);
        }
    }

    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            error: EnvelopeError {
                message: &self.message,
                error_type: &self.error_type,
                param: self.param.as_deref(),
                code: self.code.as_deref(),
                moderation_details: self.moderation.as_ref(),
            },
            usage: self.usage.as_ref(),
        }
    }
}

impl ApiError {
    /// The error as the last event of a stream that has begun; with the upstream calls, where the headers went
    /// out before any was known.
    pub(super) fn event(&self, with_attempts: bool) -> String {
        let parts = self.parts();
        self.log();
        parts.record();
        let failure = match self {
            Self::Gateway(GatewayError::Upstream(failure)) => Some(failure),
            _ => None,
        };
        let attempts = failure.map(|failure| failure.attempts.as_str());
        let body = EventBody {
            event_type: "error",
            envelope: parts.envelope(),
            attempts: attempts.filter(|_| with_attempts),
        };
        let json = serde_json::to_string(&body).expect("plain fields always serialise");
        format!("event: error\ndata: {json}\n\n")
    }

    /// Logged once, where it is handled: the causes of our own faults are for the log only.
    fn log(&self) {
        match self {
            Self::Internal(cause) | Self::Gateway(GatewayError::Internal(cause)) => {
                tracing::error!(error = &**cause as &dyn Error, "internal error");
            }
            Self::Gateway(GatewayError::DatabaseUnavailable(cause)) => {
                tracing::error!(
                    error = &**cause as &dyn Error,
                    "the database cannot be used"
                );
            }
            Self::UploadsFull => overloaded("upload_spool"),
            Self::BodiesFull => overloaded("request_bodies"),
            Self::Gateway(GatewayError::Saturated) => overloaded("max_in_flight"),
            _ => {}
        }
        let span = tracing::Span::current();
        if let Self::Gateway(GatewayError::Upstream(failure)) = self {
            span.record("generation.id", tracing::field::display(failure.generation));
            // Of a refusal that is told again nobody knows it any more.
            if !failure.model.is_empty() {
                span.record("model.id", &failure.model);
            }
            span.record("provider.name", &failure.provider);
            if let Some(drafts) = &failure.drafts {
                span.record("cost_usd", tracing::field::display(drafts.cost));
            }
            super::answer::record_times(failure.times);
        }
    }
}

/// All are `server_is_overloaded` for the client; which bound it was is for whoever set it, by its name.
fn overloaded(limit: &'static str) {
    metrics().overloaded(limit);
    tracing::info!(limit, "refused because a bound of this replica is reached");
}

/// What both SDKs look for before `retry-after`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl IntoResponse for Parts {
    fn into_response(self) -> Response {
        self.record();
        let mut response = (self.status, Json(self.envelope())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(after)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds(after)));
        }
        if let Some(should_retry) = self.should_retry {
            let value = if should_retry { "true" } else { "false" };
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static(value));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let parts = self.parts();
        self.log();
        let mut response = parts.into_response();
        if let Self::Gateway(GatewayError::Upstream(failure)) = &self {
            let generation = failure.generation.to_string();
            super::answer::trace(response.headers_mut(), &generation, &failure.attempts);
            super::answer::say_replayed(response.headers_mut(), failure.is_replayed);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{ids::GenerationId, providers::ProviderError};

    async fn text(error: ApiError) -> String {
        let body = error.into_response().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_envelope_has_its_four_members_in_openais_order() {
        assert_eq!(
            text(ApiError::UnknownPath(Method::GET, "/nope".to_owned())).await,
            r#"{"error":{"message":"Invalid URL (GET /nope).","type":"invalid_request_error","param":null,"code":"unknown_url"}}"#
        );
        let violation = Violation {
            parameter: "n".to_owned(),
            code: "invalid_type",
            message: "No \"n\".".to_owned(),
        };
        assert_eq!(
            text(ApiError::Parameter(violation)).await,
            r#"{"error":{"message":"No \"n\".","type":"invalid_request_error","param":"n","code":"invalid_type"}}"#
        );
        assert_eq!(
            text(ApiError::Json("syntax error at line 1 column 2".to_owned())).await,
            r#"{"error":{"message":"We could not parse the JSON body of your request: syntax error at line 1 column 2.","type":"invalid_request_error","param":null,"code":null}}"#
        );
    }

    /// The SDKs repeat a request on `x-should-retry: true` and let a 500 without it be.
    #[test]
    fn a_database_that_is_away_is_worth_another_try_and_our_own_mistake_is_not() {
        let seen = |error: ApiError| {
            let response = error.into_response();
            let header = |name: &str| {
                let value = response.headers().get(name)?;
                value.to_str().ok().map(str::to_owned)
            };
            (
                response.status().as_u16(),
                header("x-should-retry"),
                header("retry-after"),
            )
        };
        let action = "place holds";
        let away = (503, Some("true".to_owned()), Some("1".to_owned()));
        let mistake = (500, Some("false".to_owned()), None);
        let reset = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        for (error, expected) in [
            (
                ApiError::from(LedgerError::Database {
                    action,
                    source: reset().into(),
                }),
                &away,
            ),
            (
                ApiError::from(LedgerError::Unconfirmed {
                    action,
                    source: reset().into(),
                }),
                &away,
            ),
            (
                ApiError::from(KeyError::Database {
                    action,
                    source: sqlx::Error::PoolTimedOut,
                }),
                &away,
            ),
            (
                ApiError::from(LedgerError::Saturated {
                    action,
                    waiting: 32_768,
                }),
                &away,
            ),
            (
                ApiError::from(LedgerError::Database {
                    action,
                    source: sqlx::Error::RowNotFound.into(),
                }),
                &mistake,
            ),
            (
                ApiError::from(KeyError::Inconsistent("a row".to_owned())),
                &mistake,
            ),
        ] {
            let told = format!("{error:?}");
            assert_eq!(&seen(error), expected, "{told}");
        }
    }

    /// A model that is gone for good is the caller's to change; one that only we cannot reach is the operator's.
    #[tokio::test]
    async fn providers_that_do_not_know_the_model_are_named_with_it() {
        let failure = |retired_on| {
            ApiError::Gateway(GatewayError::Upstream(Box::new(UpstreamFailure {
                generation: GenerationId::new(),
                attempts: "openai=model_unavailable".to_owned(),
                provider: "openai".to_owned(),
                model: "openai/dall-e-3".to_owned(),
                retired_on,
                error: ProviderError::new(
                    ErrorKind::ModelUnavailable,
                    "the provider does not serve this model (HTTP 404)",
                ),
                drafts: None,
                is_replayed: false,
                times: None,
            })))
        };
        let day = chrono::NaiveDate::from_ymd_opt(2026, 5, 12);
        assert_eq!(
            text(failure(day)).await,
            r#"{"error":{"message":"The model 'openai/dall-e-3' was retired on 2026-05-12, and no provider here serves it any more. Nothing was charged. GET /v1/models lists the models there are.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        );
        assert_eq!(failure(day).into_response().status(), StatusCode::NOT_FOUND);
        assert_eq!(
            text(failure(None)).await,
            r#"{"error":{"message":"The provider 'openai' does not know the model 'openai/dall-e-3' by the name it is asked for. Nothing was charged; please tell the operator.","type":"upstream_error","param":null,"code":"upstream_error"}}"#
        );
        assert_eq!(
            failure(None).into_response().status(),
            StatusCode::BAD_GATEWAY
        );
    }

    #[tokio::test]
    async fn what_the_client_wrote_is_cut() {
        let method = Method::from_bytes("M".repeat(5000).as_bytes()).unwrap();
        let text = text(ApiError::MethodNotAllowed(method, "/".to_owned())).await;
        assert!(text.len() < 300, "{text}");
    }
}
