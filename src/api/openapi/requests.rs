//! What the image endpoints take. Their bodies are read field by field (see [`params`](super::super::params)), so
//! no type has them all; every [`Parameter`] is here, or this does not compile.

use schemars::JsonSchema as _;
use serde_json::{Map, Value as Json, json};

use super::{super::params::WEBHOOK_URL, Schemas, schemas::reference};
use crate::{
    catalog::{
        Background, Complexity, InputFidelity, Moderation, OutputFormat, Parameter, Quality,
        ResponseFormat, Style, StylePreset,
    },
    routing::Sort,
    webhooks::LONGEST_URL,
};

/// Parameters that several operations take, as components.
pub(super) fn shared_parameters() -> Json {
    json!({
        "Idempotency-Key": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Your name for one intended effect, kept for 24 hours: a repeat gets the same answer and is \
                            not charged again; another request under the same key is refused with 409.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        },
        "Prefer": {
            "name": "Prefer",
            "in": "header",
            "description": "`respond-async` has the request answered with 202 as soon as it is held for; what became of it \
                            is told by `GET /v1/images/generations/{id}`.",
            "schema": {"type": "string", "examples": ["respond-async"]},
        },
        "x-stainless-retry-count": {
            "name": "x-stainless-retry-count",
            "in": "header",
            "description": "OpenAI's SDKs count their repeats here; one above 0 joins the request that it repeats.",
            "schema": {"type": "integer", "minimum": 0},
        },
    })
}

/// What every POST that makes pictures takes beside its body.
pub(super) fn of_a_repeat() -> [Json; 3] {
    ["Idempotency-Key", "Prefer", "x-stainless-retry-count"]
        .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}))
}

/// The body of a generation.
pub(super) fn generation(schemas: &mut Schemas) -> Json {
    let provider = preferences(schemas);
    let mut fields = Map::new();
    fields.insert("model".to_owned(), model());
    for parameter in Parameter::ALL {
        if is_of_generations(*parameter) {
            fields.insert(parameter.as_str().to_owned(), nullable(field(*parameter)));
        }
    }
    fields.insert("provider".to_owned(), provider);
    fields.insert(WEBHOOK_URL.to_owned(), webhook_url());
    // Nobody means to paint nothing.
    fields["prompt"] = field(Parameter::Prompt);
    let schema = schemas.written(
        "GenerationRequest",
        json!({
            "type": "object",
            "description": "What a model takes of it, and its defaults, are in `supported_parameters` of \
                            `GET /v1/models`; what it does not take is refused by name. `null` is as good as absent.",
            "required": ["prompt"],
            "properties": fields,
        }),
    );
    json!({"application/json": {
        "schema": schema,
        "examples": {
            "simple": {
                "summary": "One picture",
                "value": {"model": "gpt-image-1", "prompt": "a red fox in the snow", "size": "1024x1024"},
            },
            "links": {
                "summary": "Links instead of base64, the cheapest route first",
                "value": {
                    "model": "black-forest-labs/flux-1-schnell",
                    "prompt": "a red fox in the snow",
                    "n": 2,
                    "response_format": "url",
                    "provider": {"sort": "price", "max_price": {"image": 0.05}},
                },
            },
            "stream": {
                "summary": "Drafts while it paints",
                "value": {
                    "model": "gpt-image-1",
                    "prompt": "a red fox in the snow",
                    "stream": true,
                    "partial_images": 2,
                },
            },
        },
    }})
}

/// The bodies of an edit (`has_mask`) or of a variation: a form, or JSON.
pub(super) fn edit(schemas: &mut Schemas, name: &str, has_mask: bool) -> Json {
    let mut fields = Map::new();
    fields.insert("model".to_owned(), model());
    for parameter in Parameter::ALL {
        let is_prompt = *parameter == Parameter::Prompt;
        if is_of_edits(*parameter) && (has_mask || !is_prompt) {
            fields.insert(parameter.as_str().to_owned(), nullable(field(*parameter)));
        }
    }
    fields.insert("provider".to_owned(), reference("ProviderPreferences"));
    fields.insert(WEBHOOK_URL.to_owned(), webhook_url());
    let mut form = fields.clone();
    let file = json!({"type": "string", "contentMediaType": "application/octet-stream"});
    let pictures = if has_mask {
        json!({
            "description": "The pictures to work from, as repeated `image[]` (or `image`) parts.",
            "anyOf": [file, {"type": "array", "items": file}],
        })
    } else {
        let mut file = file.clone();
        file["description"] = json!("The picture to vary.");
        file
    };
    form.insert("image".to_owned(), pictures);
    let reference_of = json!({
        "type": "object",
        "required": ["image_url"],
        "properties": {"image_url": {
            "type": "string",
            "description": "A `data:` URL with base64; a link where the operator allows it.",
        }, "file_id": {"type": "null", "description": "Files are not kept here."}},
    });
    fields.insert(
        "images".to_owned(),
        json!({"type": "array", "minItems": 1, "items": reference_of}),
    );
    if has_mask {
        let mut mask = file;
        mask["description"] =
            json!("A PNG of the size of the first picture, transparent where to edit.");
        form.insert("mask".to_owned(), mask);
        fields.insert("mask".to_owned(), nullable(reference_of));
    }
    let required = |pictures: &str| {
        if has_mask {
            json!([pictures, "prompt"])
        } else {
            json!([pictures])
        }
    };
    let form = schemas.written(
        &format!("{name}Form"),
        json!({
            "type": "object",
            "description": "Objects are written with brackets: `provider[sort]`, `svg[model]`.",
            "required": required("image"),
            "properties": form,
        }),
    );
    let document = schemas.written(
        &format!("{name}Request"),
        json!({"type": "object", "required": required("images"), "properties": fields}),
    );
    let mut example = json!({
        "model": "gpt-image-1",
        "images": [{"image_url": "data:image/png;base64,iVBORw0KGgo…"}],
    });
    if has_mask {
        example["prompt"] = json!("put a hat on the fox");
    } else {
        example["model"] = json!("dall-e-2");
    }
    json!({
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": document, "example": example},
    })
}

fn model() -> Json {
    json!({
        "type": ["string", "null"],
        "description": "The id, an alias or a dated snapshot of a model of `GET /v1/models`. Absent: the server's \
                        default, if it has one.",
        "examples": ["gpt-image-1", "openai/dall-e-3"],
    })
}

fn webhook_url() -> Json {
    json!({
        "type": ["string", "null"],
        "maxLength": LONGEST_URL,
        "description": "Where the end of the generation is to be told (see `webhooks` of this document): `https`, and a \
                        public address. For keys that may have webhooks, with `Prefer: respond-async`.",
        "examples": ["https://app.example/pictures"],
    })
}

/// The `provider` object.
fn preferences(schemas: &mut Schemas) -> Json {
    let sorts: Vec<&str> = Sort::ALL.iter().map(|sort| sort.as_str()).collect();
    let names = |description: &str| {
        json!({
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": description,
        })
    };
    let flag = |description: &str| json!({"type": ["boolean", "null"], "default": true, "description": description});
    schemas.written(
        "ProviderPreferences",
        json!({
            "type": ["object", "null"],
            "description": "What you wish of the route. Providers are named as in `providers` of `GET /v1/models`.",
            "properties": {
                "order": names("Try these first, in this order."),
                "only": names("Try no others than these."),
                "ignore": names("Never try these."),
                "allow_fallbacks": flag("Whether others than the first, or those in `order`, may be tried."),
                "sort": {
                    "type": ["string", "null"],
                    "enum": sorts.iter().map(|sort| json!(sort)).chain([Json::Null]).collect::<Vec<_>>(),
                    "description": "What the rest is sorted by.",
                },
                "max_price": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": {"image": {
                        "type": ["number", "string", "null"],
                        "description": "The most that one picture may cost, in USD.",
                    }},
                },
                "require_parameters": flag("Always so: what a model does not take is refused."),
            },
            "additionalProperties": false,
        }),
    )
}

/// Whether the endpoint of generations has it at all.
fn is_of_generations(parameter: Parameter) -> bool {
    !matches!(
        parameter,
        Parameter::InputFidelity | Parameter::Strength | Parameter::GrowMask
    )
}

fn is_of_edits(parameter: Parameter) -> bool {
    !matches!(parameter, Parameter::Style)
}

fn field(parameter: Parameter) -> Json {
    let words = |words: Json, description: &str| json!({"type": "string", "enum": words, "description": description});
    let whole = |minimum: u64, description: &str| json!({"type": "integer", "minimum": minimum, "description": description});
    match parameter {
        Parameter::Prompt => json!({
            "type": "string",
            "minLength": 1,
            "description": "What to paint. How long it may be is the model's affair.",
        }),
        Parameter::N => json!({
            "type": "integer",
            "minimum": 1,
            "default": 1,
            "description": "How many pictures. One that does not come is not charged.",
        }),
        Parameter::Size => json!({
            "type": "string",
            "description": "`1024x1024`, a ratio such as `16:9` where the model takes it, or `auto`.",
            "examples": ["1024x1024", "auto"],
        }),
        Parameter::AspectRatio => json!({
            "type": "string",
            "description": "The shape alone.",
            "examples": ["16:9"],
        }),
        Parameter::Quality => words(json!(Quality::ALL), "How much work goes into a picture."),
        Parameter::ResponseFormat => words(
            json!(ResponseFormat::ALL),
            "How the answer carries the pictures. Default `url`, but `b64_json` on the gpt-image family.",
        ),
        Parameter::Style => words(json!(Style::ALL), "DALL·E 3's mood."),
        Parameter::Background => words(
            json!(Background::ALL),
            "Whether the background shows through.",
        ),
        Parameter::OutputFormat => words(json!(OutputFormat::ALL), "The file format."),
        Parameter::OutputCompression => json!({
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "description": "Percent, for jpeg and webp.",
        }),
        Parameter::Moderation => words(
            json!(Moderation::ALL),
            "How strictly the provider moderates.",
        ),
        Parameter::InputFidelity => words(
            json!(InputFidelity::ALL),
            "How closely an edit keeps to the pictures it is made from.",
        ),
        Parameter::Stream => json!({
            "type": "boolean",
            "default": false,
            "description": "Answer as server-sent events.",
        }),
        Parameter::PartialImages => whole(0, "How many drafts a stream shows."),
        Parameter::Complexity => words(
            json!(Complexity::ALL),
            "How much planning goes before painting.",
        ),
        Parameter::FrameCount => whole(1, "Frames of an animated picture."),
        Parameter::FrameDurationMs => whole(1, "How long each frame stands, in milliseconds."),
        Parameter::Svg => json!({
            "type": "object",
            "description": "Options of a vector picture.",
            "required": ["model"],
            "additionalProperties": false,
            "properties": {
                "model": {"type": "string", "description": "The model that writes the SVG."},
                "reasoning": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": {"effort": {
                        "type": ["string", "null"],
                        "enum": super::super::params::EFFORTS
                            .iter()
                            .map(|effort| json!(effort))
                            .chain([Json::Null])
                            .collect::<Vec<_>>(),
                    }},
                },
            },
        }),
        Parameter::NegativePrompt => json!({
            "type": "string",
            "description": "What the picture must not show.",
        }),
        Parameter::Seed => whole(
            0,
            "Where the randomness begins; 0 leaves it to the provider.",
        ),
        Parameter::StylePreset => words(json!(StylePreset::ALL), "A look by name."),
        Parameter::CfgScale => json!({
            "type": "number",
            "description": "How closely the picture follows the prompt.",
        }),
        Parameter::Strength => json!({
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "How far an edit may go from the picture it is made from.",
        }),
        Parameter::GrowMask => whole(
            0,
            "By how many pixels the edges of a mask are moved outwards.",
        ),
        Parameter::SafetyIdentifier => json!({
            "type": "string",
            "description": "A stable name of your end user, for the provider's safety team.",
        }),
        Parameter::User => json!({
            "type": "string",
            "description": "The older form of `safety_identifier`; lists of generations can be filtered by it.",
        }),
    }
}

/// The same where `null` is as good as absent.
fn nullable(mut field: Json) -> Json {
    let kind = field["type"].take();
    field["type"] = json!([kind, "null"]);
    if let Some(values) = field.get_mut("enum").and_then(Json::as_array_mut) {
        values.push(Json::Null);
    }
    field
}

/// A schema that is written where it is used.
pub(super) fn response_format() -> Json {
    let mut generator = schemars::SchemaGenerator::default();
    ResponseFormat::json_schema(&mut generator).to_value()
}
