//! What each refusal says, and with which status: the words of [`ApiError`] and of the gateway's errors
//! (`contracts/openai-images.md`, section 6; design, sections 6 and 9). How they are sent is the parent's affair.

use std::time::Duration;

use chrono::SecondsFormat;
use http::StatusCode;

use super::{ApiError, INVALID, Parts, excerpt, seconds};
use crate::{
    api::params::WEBHOOK_URL,
    catalog::Violation,
    gateway::{DRAINING, GatewayError, UpstreamFailure},
    images::LinkError,
    ledger::SpendLimit,
    providers::ErrorKind,
};

const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";
const FORM_OR_JSON: &str =
    "This API method accepts 'multipart/form-data' and 'application/json' requests.";
const ONLY_JSON: &str = "This API method only accepts 'application/json' requests.";

impl ApiError {
    /// What this one looks like on the wire.
    pub(super) fn parts(&self) -> Parts {
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
            .param(WEBHOOK_URL),
            Self::WebhooksPending(most) => Parts::new(
                Status::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "webhook_queue_full",
                format!(
                    "{most} webhooks of this API key wait for their receivers to take them. Have the receivers answer \
                     with 2xx, or leave 'webhook_url' out and ask for the generation."
                ),
            )
            .param(WEBHOOK_URL)
            .finally(),
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
