//! From JSON to types: the body of a generation request, checked field by field for name and type.
//! What the values may be is the model's affair, not this file's.

use serde_json::{Map, Value as Json};

use super::error::excerpt;
use crate::{
    catalog::{Decimal, Parameter, ParameterKind, Params, SvgOptions, Value, Violation, nearest},
    keys::UnsupportedParameters,
    money::NanoUsd,
    routing::{Preferences, Sort},
};

/// A generation request, typed.
pub(super) struct GenerationBody {
    pub(super) model: Option<String>,
    pub(super) params: Params,
    pub(super) preferences: Preferences,
    /// Where the end is to be told.
    pub(super) webhook_url: Option<String>,
    /// Fields that no image endpoint knows, left out because the key asks for that; the first few, as
    /// much of them as fits a header.
    pub(super) dropped: Vec<String>,
}

/// More names than this are not listed: they go into a header, and the client knows what it sent.
const MOST_DROPPED_NAMES: usize = 16;
/// More characters of a name than this are not, either.
const LONGEST_DROPPED_NAME: usize = 64;

impl GenerationBody {
    fn drop_field(&mut self, name: &str) {
        if self.dropped.len() < MOST_DROPPED_NAMES {
            // A header cannot carry everything that a JSON name can.
            let plain = |character: char| {
                if character.is_ascii_graphic() {
                    character
                } else {
                    '?'
                }
            };
            self.dropped
                .push(name.chars().take(LONGEST_DROPPED_NAME).map(plain).collect());
        }
    }
}

/// Where the end of a generation is to be told.
pub(super) const WEBHOOK_URL: &str = "webhook_url";

const PROVIDER_FIELDS: &[&str] = &[
    "order",
    "only",
    "ignore",
    "allow_fallbacks",
    "sort",
    "max_price",
    "require_parameters",
];
pub(super) const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Reads a body. `null` means that a field was not given.
///
/// # Errors
/// A [`Violation`] for a field that is unknown or of the wrong type.
pub(super) fn parse(
    object: Map<String, Json>,
    unsupported: UnsupportedParameters,
) -> Result<GenerationBody, Violation> {
    let mut body = GenerationBody {
        model: None,
        params: Params::new(),
        preferences: Preferences::default(),
        webhook_url: None,
        dropped: Vec::new(),
    };
    for (name, value) in object {
        if value.is_null() {
            continue;
        }
        match name.as_str() {
            "model" => body.model = Some(text(&name, value)?),
            "provider" => body.preferences = preferences(value)?,
            WEBHOOK_URL => body.webhook_url = Some(text(&name, value)?),
            _ => match (Parameter::from_name(&name), unsupported) {
                (Some(parameter), _) => {
                    body.params.insert(parameter, typed(parameter, value)?);
                }
                (None, UnsupportedParameters::Drop) => body.drop_field(&name),
                (None, UnsupportedParameters::Reject) => return Err(unknown_field(&name)),
            },
        }
    }
    Ok(body)
}

fn typed(parameter: Parameter, value: Json) -> Result<Value, Violation> {
    let name = parameter.as_str();
    match parameter.kind() {
        ParameterKind::Text => text(name, value).map(Value::Text),
        ParameterKind::Integer => integer(name, &value).map(Value::Integer),
        ParameterKind::Decimal => decimal(name, &value).map(Value::Decimal),
        ParameterKind::Flag => flag(name, &value).map(Value::Flag),
        ParameterKind::Svg => svg(value).map(Value::Svg),
    }
}

fn text(name: &str, value: Json) -> Result<String, Violation> {
    match value {
        Json::String(text) => Ok(text),
        other => Err(wrong_type(name, "a string", &other)),
    }
}

fn integer(name: &str, value: &Json) -> Result<i64, Violation> {
    match value {
        // Beyond i64 is beyond every range too; the range check says so.
        Json::Number(number) if number.is_u64() => Ok(number.as_i64().unwrap_or(i64::MAX)),
        Json::Number(number) => number
            .as_i64()
            .ok_or_else(|| wrong_type(name, "an integer", value)),
        _ => Err(wrong_type(name, "an integer", value)),
    }
}

fn decimal(name: &str, value: &Json) -> Result<Decimal, Violation> {
    value
        .as_f64()
        .map(Decimal::nearest)
        .ok_or_else(|| wrong_type(name, "a number", value))
}

fn flag(name: &str, value: &Json) -> Result<bool, Violation> {
    value
        .as_bool()
        .ok_or_else(|| wrong_type(name, "a boolean", value))
}

fn object(name: &str, value: Json) -> Result<Map<String, Json>, Violation> {
    match value {
        Json::Object(object) => Ok(object),
        other => Err(wrong_type(name, "an object", &other)),
    }
}

fn texts(name: &str, value: Json) -> Result<Vec<String>, Violation> {
    match value {
        Json::Array(items) => items.into_iter().map(|item| text(name, item)).collect(),
        other => Err(wrong_type(name, "an array of strings", &other)),
    }
}

/// `{"model": …, "reasoning": {"effort": …}}` (contracts/openai-images.md, 1.1).
fn svg(value: Json) -> Result<SvgOptions, Violation> {
    let mut model = None;
    let mut effort = None;
    for (name, value) in object("svg", value)? {
        match (name.as_str(), value) {
            (_, Json::Null) => {}
            ("model", value) => model = Some(text("svg.model", value)?),
            ("reasoning", value) => {
                for (name, value) in object("svg.reasoning", value)? {
                    match (name.as_str(), value) {
                        (_, Json::Null) => {}
                        ("effort", value) => {
                            let word = text("svg.reasoning.effort", value)?;
                            one_of("svg.reasoning.effort", &word, EFFORTS)?;
                            effort = Some(word);
                        }
                        _ => return Err(unknown_field(&format!("svg.reasoning.{name}"))),
                    }
                }
            }
            _ => return Err(unknown_field(&format!("svg.{name}"))),
        }
    }
    let model = model.ok_or_else(|| Violation {
        parameter: "svg.model".to_owned(),
        code: "missing_required_parameter",
        message: "Missing required parameter: 'svg.model'.".to_owned(),
    })?;
    Ok(SvgOptions { model, effort })
}

fn preferences(value: Json) -> Result<Preferences, Violation> {
    let mut wishes = Preferences::default();
    for (name, value) in object("provider", value)? {
        if value.is_null() {
            continue;
        }
        let field = format!("provider.{}", excerpt(&name));
        match name.as_str() {
            "order" => wishes.order = texts(&field, value)?,
            "only" => wishes.only = Some(texts(&field, value)?),
            "ignore" => wishes.ignore = texts(&field, value)?,
            "allow_fallbacks" => wishes.allow_fallbacks = flag(&field, &value)?,
            "sort" => wishes.sort = Some(sort(&field, value)?),
            "max_price" => wishes.max_price = max_price(value)?,
            // Always so: what a model does not take is refused before a route is chosen.
            "require_parameters" => {
                flag(&field, &value)?;
            }
            _ => {
                return Err(Violation {
                    parameter: field.clone(),
                    code: "unknown_parameter",
                    message: format!(
                        "Unknown parameter: '{field}'. The 'provider' object takes: {}.",
                        PROVIDER_FIELDS.join(", ")
                    ),
                });
            }
        }
    }
    Ok(wishes)
}

fn sort(field: &str, value: Json) -> Result<Sort, Violation> {
    let word = text(field, value)?;
    Sort::ALL
        .iter()
        .find(|sort| sort.as_str() == word)
        .copied()
        .ok_or_else(|| {
            let words: Vec<&str> = Sort::ALL.iter().map(|sort| sort.as_str()).collect();
            not_one_of(field, &word, &words)
        })
}

/// `{"image": 0.03}`, number or decimal string.
fn max_price(value: Json) -> Result<Option<NanoUsd>, Violation> {
    let mut limit = None;
    for (name, value) in object("provider.max_price", value)? {
        let field = "provider.max_price.image";
        if name != "image" {
            return Err(Violation {
                parameter: format!("provider.max_price.{}", excerpt(&name)),
                code: "unknown_parameter",
                message: format!(
                    "Unknown parameter: 'provider.max_price.{}'. It takes: image.",
                    excerpt(&name)
                ),
            });
        }
        let text = match value {
            Json::Null => continue,
            Json::String(text) => text,
            // The shortest decimal that is this number: what the client wrote, for any price a person
            // would write.
            Json::Number(number) => number.to_string(),
            other => return Err(wrong_type(field, "a number or a decimal string", &other)),
        };
        // No price is as long as what is cut off here.
        let price = NanoUsd::parse(&excerpt(&text)).map_err(|error| Violation {
            parameter: field.to_owned(),
            code: "invalid_value",
            message: format!("Invalid value for '{field}': {error}."),
        })?;
        limit = Some(price);
    }
    Ok(limit)
}

fn one_of(field: &str, word: &str, words: &[&str]) -> Result<(), Violation> {
    if words.contains(&word) {
        Ok(())
    } else {
        Err(not_one_of(field, word, words))
    }
}

fn not_one_of(field: &str, word: &str, words: &[&str]) -> Violation {
    Violation {
        parameter: field.to_owned(),
        code: "invalid_value",
        message: format!(
            "Invalid value for '{field}': '{}'. Supported values are: '{}'.",
            excerpt(word),
            words.join("', '")
        ),
    }
}

pub(super) fn wrong_type(name: &str, expected: &str, value: &Json) -> Violation {
    let got = match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(number) if number.is_f64() => "a decimal number",
        Json::Number(_) => "an integer",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    Violation {
        parameter: name.to_owned(),
        code: "invalid_type",
        message: format!("Invalid type for '{name}': expected {expected}, but got {got} instead."),
    }
}

pub(super) fn unknown_field(name: &str) -> Violation {
    let names = Parameter::ALL.iter().map(|parameter| parameter.as_str());
    let hint = nearest(name, names.chain(["model", "provider", WEBHOOK_URL]))
        .map_or_else(String::new, |known| format!(" Did you mean '{known}'?"));
    Violation {
        parameter: excerpt(name),
        code: "unknown_parameter",
        message: format!("Unknown parameter: '{}'.{hint}", excerpt(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(body: Json) -> (String, &'static str, String) {
        let Json::Object(object) = body else {
            panic!("an object")
        };
        match parse(object, UnsupportedParameters::Reject) {
            Ok(_) => panic!("accepted"),
            Err(violation) => (violation.parameter, violation.code, violation.message),
        }
    }

    fn accepted(body: Json) -> GenerationBody {
        let Json::Object(object) = body else {
            panic!("an object")
        };
        match parse(object, UnsupportedParameters::Reject) {
            Ok(body) => body,
            Err(violation) => panic!("{}", violation.message),
        }
    }

    #[test]
    fn null_means_absent() {
        let body = accepted(json!({
            "prompt": "a fox", "model": null, "n": null, "size": null, "provider": null, "svg": null
        }));
        assert_eq!(body.params.len(), 1);
        assert_eq!(body.model, None);
    }

    #[test]
    fn names_and_types_are_checked() {
        for (body, parameter, code, message) in [
            (
                json!({"promt": "x"}),
                "promt",
                "unknown_parameter",
                "Unknown parameter: 'promt'. Did you mean 'prompt'?",
            ),
            (
                json!({"zzz": 1}),
                "zzz",
                "unknown_parameter",
                "Unknown parameter: 'zzz'.",
            ),
            (
                json!({"n": "2"}),
                "n",
                "invalid_type",
                "Invalid type for 'n': expected an integer, but got a string instead.",
            ),
            (
                json!({"n": 1.5}),
                "n",
                "invalid_type",
                "Invalid type for 'n': expected an integer, but got a decimal number instead.",
            ),
            (
                json!({"prompt": ["x"]}),
                "prompt",
                "invalid_type",
                "Invalid type for 'prompt': expected a string, but got an array instead.",
            ),
            (
                json!({"stream": "true"}),
                "stream",
                "invalid_type",
                "Invalid type for 'stream': expected a boolean, but got a string instead.",
            ),
            (
                json!({"provider": {"sorted": "price"}}),
                "provider.sorted",
                "unknown_parameter",
                "Unknown parameter: 'provider.sorted'. The 'provider' object takes: order, only, ignore, \
                 allow_fallbacks, sort, max_price, require_parameters.",
            ),
            (
                json!({"provider": {"sort": "beauty"}}),
                "provider.sort",
                "invalid_value",
                "Invalid value for 'provider.sort': 'beauty'. Supported values are: 'price', 'latency', \
                 'throughput'.",
            ),
            (
                json!({"provider": {"order": "openai"}}),
                "provider.order",
                "invalid_type",
                "Invalid type for 'provider.order': expected an array of strings, but got a string \
                 instead.",
            ),
            (
                json!({"svg": {"reasoning": {}}}),
                "svg.model",
                "missing_required_parameter",
                "Missing required parameter: 'svg.model'.",
            ),
        ] {
            let expected = (parameter.to_owned(), code, message.to_owned());
            assert_eq!(refused(body), expected);
        }
    }

    #[test]
    fn prices_are_numbers_or_decimal_strings() {
        for (price, expected) in [
            (json!(0.03), "0.03"),
            (json!("0.030"), "0.03"),
            (json!(1), "1"),
        ] {
            let body = accepted(json!({"provider": {"max_price": {"image": price}}}));
            assert_eq!(
                body.preferences.max_price,
                Some(NanoUsd::parse(expected).unwrap())
            );
        }
        let (parameter, code, _) = refused(json!({"provider": {"max_price": {"image": -1}}}));
        assert_eq!(
            (parameter.as_str(), code),
            ("provider.max_price.image", "invalid_value")
        );
    }

    #[test]
    fn a_lenient_key_drops_unknown_fields() {
        let Json::Object(object) = json!({"prompt": "x", "steps": 7}) else {
            panic!("an object")
        };
        let Ok(body) = parse(object, UnsupportedParameters::Drop) else {
            panic!("accepted")
        };
        assert_eq!(body.dropped, ["steps"]);
    }

    #[test]
    fn what_a_client_wrote_is_repeated_in_part_only() {
        const LONG: usize = 100_000;
        let long = "x".repeat(LONG);
        for body in [
            json!({ long.clone(): 1 }),
            json!({"provider": { long.clone(): 1 }}),
            json!({"provider": {"sort": long.clone()}}),
            json!({"provider": {"max_price": { long.clone(): 1 }}}),
            json!({"provider": {"max_price": {"image": "1".repeat(LONG)}}}),
            json!({"svg": { long.clone(): 1 }}),
        ] {
            let (parameter, _, message) = refused(body);
            assert!(parameter.len() < 200, "{} bytes", parameter.len());
            assert!(message.len() < 1000, "{} bytes", message.len());
        }
        let fields = (0..100).map(|number| (format!("é\n{number}{long}"), json!(1)));
        let Ok(body) = parse(fields.collect(), UnsupportedParameters::Drop) else {
            panic!("accepted")
        };
        assert_eq!(body.dropped.len(), MOST_DROPPED_NAMES);
        assert!(
            body.dropped
                .iter()
                .all(|name| name.len() <= LONGEST_DROPPED_NAME)
        );
        let header = body.dropped.join(", ");
        assert!(http::HeaderValue::from_str(&header).is_ok(), "{header}");
    }
}
