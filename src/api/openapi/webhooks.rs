//! What this server sends by itself: the `webhooks` of the document. Their headers and signatures are those of Standard
//! Webhooks 1.0.0 (<https://www.standardwebhooks.com>).

use serde_json::{Value as Json, json};

use super::{
    Schemas,
    operation::{field, json_content},
    schemas::reference,
};
use crate::ledger::GenerationStatus;

/// What `type` of a message begins with; its end is how the generation ended.
const EVENT: &str = "image.generation.";

/// All of them, by name.
pub(super) fn webhooks(schemas: &mut Schemas) -> Json {
    let events = [
        GenerationStatus::Completed,
        GenerationStatus::Failed,
        GenerationStatus::Abandoned,
    ]
    .map(|status| format!("{EVENT}{}", status.as_str()));
    let message = schemas.written(
        "WebhookMessage",
        json!({
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"type": "string", "enum": events},
                "timestamp": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the generation ended.",
                },
                "data": reference("Generation"),
            },
        }),
    );
    let header = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "header",
            "required": true,
            "description": description,
            "schema": {"type": "string"},
        })
    };
    let mut body = field("content", json_content(message));
    body["required"] = json!(true);
    json!({"generationEnded": {"post": {
        "operationId": "generationEnded",
        "tags": ["Images"],
        "summary": "A generation has ended",
        "description": "Sent to the `webhook_url` of the request as Standard Webhooks say. A message comes at least once, \
                        for about a day until it is taken; its `webhook-id` is the same every time. Links in it are \
                        fresh.",
        "parameters": [
            header("webhook-id", "The name of the message: who has seen it need not see it again."),
            header("webhook-timestamp", "When it was sent, in Unix seconds."),
            header(
                "webhook-signature",
                "`v1,` and the base64 of an HMAC-SHA256 of id, timestamp and body, with a dot between them; several \
                 with a space between them while a secret is being changed.",
            ),
        ],
        "requestBody": body,
        "responses": {
            "2XX": {"description": "It is taken."},
            "410": {"description": "Have no more of it."},
            "default": {"description": "It comes again, not before `Retry-After` is over."},
        },
    }}})
}
