//! What [`Rules::to_json`] writes, for the document of the API.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::Rules;

/// The rule of one parameter.
struct ParameterRule;

impl JsonSchema for Rules {
    fn schema_name() -> Cow<'static, str> {
        "SupportedParameters".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "The parameters that the model takes, by name. What is not here is refused.",
            "additionalProperties": generator.subschema_for::<ParameterRule>(),
        })
    }
}

impl JsonSchema for ParameterRule {
    fn schema_name() -> Cow<'static, str> {
        "ParameterRule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let other = json!({
            "oneOf": [generator.subschema_for::<Self>(), {"type": "null"}],
            "description": "Another rule that holds at this endpoint; null: it does not take the parameter.",
        });
        let number = json!({"type": "number"});
        let count = json!({"type": "integer", "minimum": 0});
        let flag = json!({"type": "boolean"});
        let words = json!({"type": "array", "items": {"type": "string"}});
        json_schema!({
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {
                    "type": "string",
                    "enum": ["string", "integer", "number", "boolean", "object", "file"],
                },
                "required": {"type": ["boolean", "string", "array"]},
                "optional": words,
                "values": {"type": "array", "items": {"type": "string"}, "description": "The words there are."},
                "default": {"type": ["string", "number", "boolean"]},
                "minimum": number,
                "maximum": number,
                "min_characters": count,
                "max_characters": count,
                "free": {
                    "type": "object",
                    "description": "Sizes beside those in `values`.",
                    "properties": {
                        "multiple_of": count,
                        "min_edge": count,
                        "max_edge": count,
                        "min_pixels": count,
                        "max_pixels": count,
                        "max_ratio": {"type": "string"},
                    },
                },
                "ratios": {
                    "type": "object",
                    "description": "Sizes near one of these shapes.",
                    "properties": {
                        "values": words,
                        "tolerance_percent": count,
                        "except": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Sizes of such a shape that are refused all the same.",
                        },
                        "min_pixels": count,
                        "max_pixels": count,
                    },
                },
                "max_items": count,
                "formats": words,
                "max_bytes": count,
                "max_total_bytes": count,
                "max_pixels": count,
                "min_edge": count,
                "max_edge": count,
                "square": flag,
                "own_size": flag,
                "alpha": flag,
                "size": {"type": "string"},
                "conditions": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "When it can be given, in words.",
                },
                "endpoints": {
                    "type": "array",
                    "items": {"type": "string", "enum": ["edits", "variations"]},
                    "description": "The only endpoints that take it.",
                },
                "edits": other,
                "variations": other,
            },
        })
    }
}
