//! One method of one path, described.

use serde_json::{Map, Value as Json, json};

use super::Schemas;

/// One method of one path.
pub(crate) struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    tag: &'static str,
    security: Security,
    parameters: Vec<Json>,
    body: Option<Json>,
    answers: Map<String, Json>,
}

/// What opens an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Nothing is needed.
    Open,
    /// An API key.
    Key,
    /// The admin token.
    Admin,
}

impl Security {
    pub(super) fn schemes() -> Json {
        json!({
            "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key of this server: `ek_live_…`, or `ek_test_…` for play money and painted samples.",
            },
            "admin": {
                "type": "http",
                "scheme": "bearer",
                "description": "The operator's token, `[admin] token` of the configuration.",
            },
        })
    }

    fn requirement(self) -> Json {
        match self {
            Self::Open => json!([]),
            Self::Key => json!([{"key": []}]),
            Self::Admin => json!([{"admin": []}]),
        }
    }
}

/// How the caller stands against its limits per minute: on answers to POSTs for pictures, but those from before the
/// request was counted.
pub(super) const LIMITS: &[&str] = &[
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-images",
    "x-ratelimit-remaining-images",
    "x-ratelimit-reset-images",
];

/// What every answer has.
const ALWAYS: &str = "x-request-id";

impl Operation {
    /// `id` is what generated clients call it. The path is written as in the document: `{id}`, without a `*`.
    pub(crate) fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        let security = match tag {
            "Admin" => Security::Admin,
            "Images" | "Models" | "Account" => Security::Key,
            _ => Security::Open,
        };
        let in_path = path.split('{').skip(1).filter_map(|rest| {
            let (name, _) = rest.split_once('}')?;
            Some(json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": {"type": "string"},
            }))
        });
        Self {
            method,
            path,
            id,
            summary,
            description: None,
            tag,
            security,
            parameters: in_path.collect(),
            body: None,
            answers: Map::new(),
        }
    }

    /// Adds what does not fit in a line.
    pub(crate) fn says(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// Says what the variable part of the path is.
    pub(crate) fn named_by(mut self, description: &str) -> Self {
        if let Some(parameter) = self.parameters.first_mut() {
            parameter["description"] = json!(description);
        }
        self
    }

    /// Takes these parameters too.
    pub(crate) fn takes(mut self, parameters: impl IntoIterator<Item = Json>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Takes a body, by content type, with an example of each that has one.
    pub(crate) fn body(mut self, is_required: bool, content: Json) -> Self {
        let mut body = field("content", content);
        body["required"] = json!(is_required);
        self.body = Some(body);
        self
    }

    /// Takes a JSON body.
    pub(crate) fn json_body(self, schema: Json) -> Self {
        self.body(true, json_content(schema))
    }

    /// Answers so when all went well.
    pub(crate) fn answers(
        mut self,
        status: u16,
        description: &str,
        headers: &[&str],
        content: Json,
    ) -> Self {
        let mut answer = json!({
            "description": description,
            "headers": header_references(headers),
        });
        if !content.is_null() {
            answer["content"] = content;
        }
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// Answers with this JSON when all went well.
    pub(crate) fn answers_json(self, description: &str, schema: Json) -> Self {
        self.answers(200, description, &[], json_content(schema))
    }

    /// May refuse with these statuses, in the envelope.
    pub(crate) fn refuses(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            self.answers.insert(
                status.to_string(),
                json!({"$ref": format!("#/components/responses/{status}")}),
            );
        }
        self
    }

    /// Path, method and the operation object.
    pub(super) fn into_parts(self) -> (String, &'static str, Json) {
        let mut described = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "security": self.security.requirement(),
            "responses": self.answers,
        });
        if let Some(description) = self.description {
            described["description"] = json!(description);
        }
        if !self.parameters.is_empty() {
            described["parameters"] = Json::Array(self.parameters);
        }
        if let Some(body) = self.body {
            described["requestBody"] = body;
        }
        (self.path.to_owned(), self.method, described)
    }
}

/// The headers of an answer: these, and what every answer has.
pub(super) fn header_references(names: &[&str]) -> Json {
    let names = std::iter::once(&ALWAYS).chain(names);
    let references = names.map(|name| {
        (
            (*name).to_owned(),
            json!({"$ref": format!("#/components/headers/{name}")}),
        )
    });
    Json::Object(references.collect())
}

/// Every header that an answer can have, beside those of HTTP itself.
pub(super) fn headers() -> Json {
    let text =
        |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let count = |description: &str| json!({"description": description, "schema": {"type": "integer", "minimum": 0}});
    let word = |description: &str, words: &[&str]| json!({"description": description, "schema": {"type": "string", "enum": words}});
    json!({
        "x-request-id": text("The name of this exchange, `req_…`; in the server's log too."),
        "x-generation-id": text(
            "The generation that this answer belongs to: `GET /v1/images/generations/{id}` has it."
        ),
        "x-attempts": text(
            "Which upstream calls it took: `openai=rate_limited, reseller=ok`. An answer whose head goes out before \
             they are known has it in its last event."
        ),
        "x-dropped-parameters": text(
            "Parameters that were left out because the model takes none of them, for keys with \
             `unsupported_parameters` `drop`."
        ),
        "idempotent-replayed": word(
            "The answer was given before and is told again; nothing was charged again.", &["true"]
        ),
        "location": text("Where to ask for what became of it."),
        "preference-applied": word("The wish that was granted.", &["respond-async"]),
        "retry-after": json!({
            "description": "Seconds after which asking again may help.",
            "schema": {"type": "integer", "minimum": 1},
        }),
        "retry-after-ms": json!({
            "description": "The same in milliseconds; OpenAI's SDKs look for it first.",
            "schema": {"type": "integer", "minimum": 1},
        }),
        "x-ratelimit-limit-requests": count("Requests per minute; absent where they are not limited."),
        "x-ratelimit-remaining-requests": count("How many of them are left."),
        "x-ratelimit-reset-requests": text("When all of them are there again: `6m0s`, `59.25s`, `120ms`."),
        "x-ratelimit-limit-images": count("Pictures per minute; absent where they are not limited."),
        "x-ratelimit-remaining-images": count("How many of them are left."),
        "x-ratelimit-reset-images": text("When all of them are there again."),
        "x-should-retry": word(
            "Whether asking again may help; OpenAI's SDKs obey it.", &["true", "false"]
        ),
        "www-authenticate": word("How to authenticate.", &["Bearer"]),
        "x-accel-buffering": word("Tells nginx to hand on events as they come.", &["no"]),
        "x-content-type-options": word("Browsers shall not guess.", &["nosniff"]),
        "cache-control": text("Whether and for how long the answer may be kept."),
        "etag": text("Names this version; `If-None-Match` with it is answered with 304."),
        "content-security-policy": text("What the page may do in a browser."),
        "referrer-policy": word("What a browser tells where the picture leads to.", &["no-referrer"]),
        "cross-origin-resource-policy": word(
            "Pages of which sites may show the picture.", &["cross-origin"]
        ),
        "content-disposition": text("How a browser shows the picture."),
    })
}

/// A parameter of the query, written by hand.
pub(crate) fn query(name: &str, description: &str, schema: Json) -> Json {
    let mut parameter = field("schema", schema);
    parameter["name"] = json!(name);
    parameter["in"] = json!("query");
    parameter["description"] = json!(description);
    parameter
}

impl Schemas {
    /// The content of an answer in JSON.
    pub(crate) fn json<T: schemars::JsonSchema>(&mut self) -> Json {
        json_content(self.answer::<T>())
    }
}

/// The content of a body that is JSON of this schema.
pub(crate) fn json_content(schema: Json) -> Json {
    field("application/json", field("schema", schema))
}

/// An object of one field.
pub(super) fn field(name: &str, value: Json) -> Json {
    Json::Object(Map::from_iter([(name.to_owned(), value)]))
}
