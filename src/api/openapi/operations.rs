//! Every operation but the operator's, in the order of the router.

use serde_json::{Value as Json, json};

use super::{
    Operation, Schemas,
    operation::{LIMITS, query},
    requests::{self, edit, generation, of_a_repeat},
    schemas::reference,
};
use crate::api::{
    answer, credits, error, files, health, history,
    models::{self, ModelJson},
    object::GenerationJson,
    stream,
};

/// Headers of an answer with pictures.
const PICTURES: &[&str] = &[
    "x-generation-id",
    "x-attempts",
    "x-dropped-parameters",
    "idempotent-replayed",
    "cache-control",
    "x-accel-buffering",
    "location",
    "preference-applied",
];

/// Headers of an answer that says that another may be asked for later.
const LATER: &[&str] = &[
    "x-generation-id",
    "x-attempts",
    "x-dropped-parameters",
    "idempotent-replayed",
    "location",
    "preference-applied",
    "retry-after",
];
const BEGUN: &str = "It has begun, and runs on: the answer that `Prefer: respond-async` asks for.";

/// Refusals of everything that makes pictures.
const MAKING: &[u16] = &[
    400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 429, 500, 502, 503, 504,
];

/// Refusals of everything that is read with a key.
const READING: &[u16] = &[400, 401, 403, 404, 405, 429, 500, 503];

pub(super) fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    schemas.answer::<error::Envelope<'_>>();
    let mut all = images(schemas);
    all.extend(reading(schemas));
    all.extend(machines(schemas));
    all
}

fn images(schemas: &mut Schemas) -> Vec<Operation> {
    let pictures = pictures(schemas);
    let painted = [PICTURES, LIMITS].concat();
    let ordered = [LATER, LIMITS].concat();
    let begun = schemas.json::<GenerationJson>();
    vec![
        Operation::new(
            "post",
            "/v1/images/generations",
            "createImage",
            "Images",
            "Make pictures from a prompt",
        )
        .says(
            "With or without a slash at the end. With `stream` the answer is a stream of server-sent events; a refusal \
             before the first of them is plain JSON with its status.",
        )
        .takes(of_a_repeat())
        .body(true, generation(schemas))
        .answers(200, "The pictures that came, and what they cost.", &painted, pictures.clone())
        .answers(202, BEGUN, &ordered, begun.clone())
        .refuses(MAKING),
        Operation::new(
            "get",
            "/v1/images/generations",
            "listGenerations",
            "Images",
            "Earlier requests of the account, newest first",
        )
        .takes(schemas.query::<history::Filter>())
        .answers_json("A page of them.", schemas.answer::<history::Page>())
        .refuses(READING),
        Operation::new(
            "get",
            "/v1/images/generations/{id}",
            "getGeneration",
            "Images",
            "What became of a request",
        )
        .says("With the pictures that are still kept: as fresh links, or as base64.")
        .named_by("Its `x-generation-id`.")
        .takes([query(
            "response_format",
            "How the pictures are shown; `url` unless said otherwise.",
            requests::response_format(),
        )])
        .answers(
            200,
            "Its state, cost and pictures; while it runs, when to ask again.",
            &["retry-after"],
            begun.clone(),
        )
        .refuses(READING),
        Operation::new(
            "delete",
            "/v1/images/generations/{id}",
            "cancelGeneration",
            "Images",
            "Cancel a generation that runs",
        )
        .says("What somebody has been shown is finished and charged; everything else is not.")
        .named_by("Its `x-generation-id`.")
        .answers(
            200,
            "It is canceled, by this request or by an earlier one.",
            LATER,
            begun.clone(),
        )
        .answers(202, "It still runs.", LATER, begun.clone())
        .refuses(&[400, 401, 403, 404, 405, 409, 429, 500, 503]),
        Operation::new(
            "post",
            "/v1/images/edits",
            "editImage",
            "Images",
            "Make pictures from pictures and a prompt",
        )
        .says("As a form, or as JSON with pictures in base64.")
        .takes(of_a_repeat())
        .body(true, edit(schemas, "Edit", true))
        .answers(200, "The pictures that came, and what they cost.", &painted, pictures.clone())
        .answers(202, BEGUN, &ordered, begun.clone())
        .refuses(MAKING),
        Operation::new(
            "post",
            "/v1/images/variations",
            "varyImage",
            "Images",
            "Make pictures like a picture",
        )
        .takes(of_a_repeat())
        .body(true, edit(schemas, "Variation", false))
        .answers(200, "The pictures that came, and what they cost.", &painted, pictures)
        .answers(202, BEGUN, &ordered, begun.clone())
        .refuses(MAKING),
    ]
}

/// Pictures as JSON or as events; or what became of them, for whoever asks again and does not wait.
fn pictures(schemas: &mut Schemas) -> Json {
    let answer = schemas.answer::<answer::Whole<'_>>();
    let ended = schemas.answer::<GenerationJson>();
    schemas.answer::<stream::Event<'_>>();
    schemas.answer::<stream::Settled<'_>>();
    schemas.answer::<error::EventBody<'_>>();
    let event = schemas.written(
        "StreamEvent",
        json!({
            "description": "What `data:` of an event is; `event:` is its `type`. Comments (`: keepalive`) come while a \
                            model paints. The last event of a stream carries the bill, unless it is an error.",
            "oneOf": [reference("ImageEvent"), reference("SettledEvent"), reference("ErrorEvent")],
        }),
    );
    json!({
        "application/json": {
            "schema": {
                "description": "The pictures; for a repeat with `Prefer: respond-async` the generation, which has ended.",
                "anyOf": [answer, ended],
            },
            "example": {
                "created": 1_795_000_000,
                "data": [{"url": "https://images.example/files/img_0….png?expires=…&signature=…"}],
                "model": "openai/dall-e-3",
                "provider": "openai",
                "usage": {
                    "total_tokens": 0,
                    "input_tokens": 0,
                    "output_tokens": 0,
                    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
                    "cost": 0.04,
                },
            },
        },
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "Server-sent events.",
                "contentMediaType": "text/event-stream",
                "contentSchema": event,
            },
        },
    })
}

fn reading(schemas: &mut Schemas) -> Vec<Operation> {
    vec![
        Operation::new(
            "get",
            "/v1/models",
            "listModels",
            "Models",
            "The models that the key may use",
        )
        .takes(schemas.query::<models::Filter>())
        .answers_json(
            "Them, with rules, prices and providers.",
            schemas.answer::<models::List>(),
        )
        .refuses(READING),
        Operation::new("get", "/v1/models/{id}", "getModel", "Models", "One model")
            .named_by("Its id, with the slash in it as it is, or another of its names.")
            .answers_json(
                "It, with its rules, price and providers.",
                schemas.answer::<ModelJson>(),
            )
            .refuses(READING),
        Operation::new(
            "get",
            "/v1/credits",
            "getCredits",
            "Account",
            "What the account has",
        )
        .says("The live or the test balance, by the mode of the key.")
        .answers_json("Its balance.", schemas.answer::<credits::Credits>())
        .refuses(READING),
        Operation::new(
            "get",
            "/v1/usage",
            "getUsage",
            "Account",
            "What the account used",
        )
        .takes(schemas.query::<credits::UsageQuery>())
        .answers_json(
            "Sums by group, and their total.",
            schemas.answer::<credits::Usage>(),
        )
        .refuses(READING),
        Operation::new(
            "get",
            "/files/{name}",
            "getFile",
            "Files",
            "A hosted picture",
        )
        .says("The link is the secret: use it exactly as it was returned.")
        .named_by("The picture's id, a dot, and its format.")
        .takes(schemas.query::<files::Signed>())
        .answers(
            200,
            "The picture.",
            &[
                "cache-control",
                "content-disposition",
                "content-security-policy",
                "cross-origin-resource-policy",
                "referrer-policy",
                "x-content-type-options",
            ],
            json!({"image/*": {"schema": {"type": "string", "contentMediaType": "image/*"}}}),
        )
        .refuses(&[400, 403, 404, 405, 410, 500]),
    ]
}

fn machines(schemas: &mut Schemas) -> Vec<Operation> {
    let page = |kind: &str| json!({kind: {"schema": {"type": "string"}}});
    let guarded = &[
        "cache-control",
        "content-security-policy",
        "etag",
        "x-content-type-options",
    ];
    let ready = schemas.json::<health::Readiness>();
    vec![
        Operation::new(
            "get",
            "/healthz",
            "isAlive",
            "Operation",
            "Whether the process lives",
        )
        .answers_json("It does.", schemas.answer::<health::Liveness>()),
        Operation::new(
            "get",
            "/readyz",
            "isReady",
            "Operation",
            "Whether the process can serve",
        )
        .answers(200, "It can.", &[], ready.clone())
        .answers(503, "It cannot; `reason` says why.", &[], ready),
        Operation::new(
            "get",
            "/metrics",
            "getMetrics",
            "Operation",
            "Figures for Prometheus",
        )
        .says("On the address of `[metrics] listen` alone, where that is set.")
        .answers(
            200,
            "In the text form of OpenMetrics.",
            &[],
            page("application/openmetrics-text"),
        )
        .refuses(&[404]),
        Operation::new(
            "get",
            "/openapi.json",
            "getOpenApi",
            "Operation",
            "This document",
        )
        .answers(
            200,
            "It.",
            guarded,
            json!({"application/json": {"schema": {"type": "object"}}}),
        )
        .answers(304, "It has not changed.", guarded, Json::Null),
        Operation::new(
            "get",
            "/docs",
            "getDocs",
            "Operation",
            "This document, for people",
        )
        .answers(
            200,
            "A page that needs no network but this server.",
            guarded,
            page("text/html"),
        )
        .answers(304, "It has not changed.", guarded, Json::Null),
        Operation::new(
            "get",
            "/docs/{file}",
            "getDocsFile",
            "Operation",
            "What that page is made of",
        )
        .answers(
            200,
            "Style, script, or the terms of both.",
            guarded,
            json!({
                "text/css": {"schema": {"type": "string"}},
                "text/javascript": {"schema": {"type": "string"}},
                "text/plain": {"schema": {"type": "string"}},
            }),
        )
        .answers(304, "It has not changed.", guarded, Json::Null)
        .refuses(&[404]),
    ]
}
