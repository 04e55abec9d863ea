//! Every way a request can be refused, and the one place where that becomes an answer in `OpenAI`'s envelope
//! (`contracts/openai-images.md`, section 6; design, section 6). What each of them says is in [`words`].

mod words;

use std::{error::Error, net::IpAddr, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::answer::UsageJson;
use crate::{
    catalog::Violation,
    gateway::GatewayError,
    ids::GenerationId,
    images::LinkError,
    keys::KeyError,
    ledger::{GenerationStatus, LedgerError},
    providers::ModerationDetails,
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
    /// The key has so many webhooks that nobody has taken yet.
    #[error("{0} webhooks of the key are pending")]
    WebhooksPending(usize),
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
    use crate::{
        gateway::UpstreamFailure,
        ids::GenerationId,
        providers::{ErrorKind, ProviderError},
    };

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
