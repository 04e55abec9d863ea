//! What refusals say, by status. The words are those of [`error`](super::super::error) and of the operator's errors.

use serde_json::{Map, Value as Json, json};

use super::{
    operation::{LIMITS, header_references},
    schemas::reference,
};

struct Refusal {
    status: u16,
    means: &'static str,
    /// What `code` can be; nothing where providers have words of their own.
    codes: &'static [&'static str],
    headers: &'static [&'static str],
    example: &'static str,
}

/// Of those that come after a hold, and that a repeat is told again.
const TRACED: &[&str] = &[
    "x-generation-id",
    "x-attempts",
    "idempotent-replayed",
    "x-should-retry",
];
const LATER: &[&str] = &[
    "x-generation-id",
    "x-attempts",
    "idempotent-replayed",
    "x-should-retry",
    "retry-after",
    "retry-after-ms",
];

const REFUSALS: &[Refusal] = &[
    Refusal {
        status: 400,
        means: "The request is not one that can be served: `param` and `message` say what is wrong and what is \
                allowed. A provider's own refusal (`moderation_blocked`, `content_policy_violation` and others) \
                keeps the provider's code. Nothing was charged, but for drafts that had been shown.",
        codes: &[],
        headers: TRACED,
        example: "Invalid value: 'huge'. Supported values are: '1024x1024', '1536x1024', '1024x1536', and 'auto'.",
    },
    Refusal {
        status: 401,
        means: "No key, or one that is unknown, expired or revoked.",
        codes: &["invalid_api_key", "invalid_admin_token"],
        headers: &["www-authenticate"],
        example: "Incorrect API key provided: ek_live_****ghij. It is unknown, expired or revoked.",
    },
    Refusal {
        status: 402,
        means: "The balance does not cover the highest possible price of the request.",
        codes: &["insufficient_balance"],
        headers: &[],
        example: "The balance is too short: this request can cost up to 0.25 USD, and 0.1 USD is available. What is \
                  not used of it is given back at once.",
    },
    Refusal {
        status: 403,
        means: "The key may not use the model or webhooks, or may not be used from there, or the signature does not fit \
                the link.",
        codes: &[
            "model_not_allowed",
            "webhooks_not_allowed",
            "ip_not_allowed",
            "invalid_signature",
        ],
        headers: &[],
        example: "This API key may not use the model 'openai/dall-e-3'. It may use: openai/gpt-image-1.",
    },
    Refusal {
        status: 404,
        means: "No such thing, or none that this key may see.",
        codes: &[
            "unknown_url",
            "model_not_found",
            "model_unavailable",
            "generation_not_found",
            "account_not_found",
            "key_not_found",
            "provider_not_found",
        ],
        headers: TRACED,
        example: "The model 'dall-e-4' does not exist or you do not have access to it. Did you mean 'dall-e-3'? \
                  GET /v1/models lists the models there are.",
    },
    Refusal {
        status: 405,
        means: "The path has other methods.",
        codes: &["method_not_allowed"],
        headers: &[],
        example: "Not allowed to PUT on /v1/images/generations.",
    },
    Refusal {
        status: 408,
        means: "The body took too long to arrive.",
        codes: &["request_timeout"],
        headers: &[],
        example: "The request body paused for more than 30 seconds.",
    },
    Refusal {
        status: 409,
        means: "It contradicts something that is already so.",
        codes: &[
            "idempotency_conflict",
            "generation_finished",
            "canceled",
            "ambiguous_account",
            "reference_taken",
            "insufficient_balance",
            "key_ended",
        ],
        headers: TRACED,
        example: "This Idempotency-Key was used with another request within the last 24 hours. Nothing was charged. \
                  Use a new key for a new request.",
    },
    Refusal {
        status: 410,
        means: "It was here, and its time is over.",
        codes: &["link_expired", "replay_expired"],
        headers: &["x-should-retry"],
        example: "This link has expired. Fetch a fresh one from the generation, or generate the image again.",
    },
    Refusal {
        status: 413,
        means: "The body, or a picture in it, is larger than this server takes.",
        codes: &["request_too_large", "file_above_max_size"],
        headers: &[],
        example: "The request body is larger than the 1048576 bytes this API method accepts.",
    },
    Refusal {
        status: 415,
        means: "The body has a type or an encoding that is not taken here.",
        codes: &["unsupported_content_type", "unsupported_content_encoding"],
        headers: &[],
        example: "Unsupported content type: 'text/plain'. This API method only accepts 'application/json' requests.",
    },
    Refusal {
        status: 429,
        means: "A limit of the key or its account, or every provider's own, is reached.",
        codes: &[
            "rate_limit_exceeded",
            "spend_limit_exceeded",
            "webhook_queue_full",
            "upstream_rate_limited",
            "too_many_failed_attempts",
        ],
        headers: LATER,
        example: "Rate limit reached for this API key: 60 requests per minute. Please try again in 12 s.",
    },
    Refusal {
        status: 500,
        means: "This server's own fault. Nothing was charged.",
        codes: &["internal_error"],
        headers: TRACED,
        example: "The server had an error while processing your request. Nothing was charged.",
    },
    Refusal {
        status: 502,
        means: "No provider delivered, or what was delivered could not be stored. Nothing was charged, but \
                for drafts that had been shown.",
        codes: &["upstream_error", "storage_error"],
        headers: TRACED,
        example: "No image was delivered: the provider answered with an error (HTTP 500). Nothing was charged.",
    },
    Refusal {
        status: 503,
        means: "Not now: too much is in flight, the server shuts down, or its database is away.",
        codes: &[
            "server_is_overloaded",
            "server_is_draining",
            "database_unavailable",
            "generation_abandoned",
            "settlement_pending",
            "unconfirmed",
        ],
        headers: LATER,
        example: "Too many requests are in flight. Please try again shortly.",
    },
    Refusal {
        status: 504,
        means: "The provider did not answer in time. Nothing was charged, but for drafts that had been shown.",
        codes: &["upstream_timeout"],
        headers: TRACED,
        example: "The provider did not answer in time. Nothing was charged.",
    },
];

/// All of them, named by their status.
pub(super) fn responses() -> Json {
    let responses = REFUSALS.iter().map(|refusal| {
        let kind = match refusal.status {
            402 => "insufficient_quota",
            429 => "rate_limit_error",
            500 => "server_error",
            502 | 504 => "upstream_error",
            503 => "service_unavailable_error",
            _ => "invalid_request_error",
        };
        let code = refusal.codes.first().copied().unwrap_or("invalid_value");
        let mut description = refusal.means.to_owned();
        if !refusal.codes.is_empty() {
            description.push_str("\n\n`code` is one of: ");
            let codes: Vec<String> = refusal
                .codes
                .iter()
                .map(|code| format!("`{code}`"))
                .collect();
            description.push_str(&codes.join(", "));
            description.push('.');
        }
        // These are refused before anything is counted.
        let limits: &[&str] = match refusal.status {
            401 | 405 => &[],
            _ => LIMITS,
        };
        let mut response = json!({
            "description": description,
            // The last on those of `/files`.
            "headers": header_references(&[refusal.headers, limits, &["x-content-type-options"]].concat()),
            "content": {"application/json": {
                "schema": reference("ErrorAnswer"),
                "example": {"error": {
                    "message": refusal.example,
                    "type": kind,
                    "param": null,
                    "code": code,
                }},
            }},
        });
        if !refusal.codes.is_empty() {
            response["x-error-codes"] = json!(refusal.codes);
        }
        (refusal.status.to_string(), response)
    });
    Json::Object(responses.collect::<Map<String, Json>>())
}
