//! Why a request was refused, in `OpenAI`'s codes and words.
//!
//! Every message names the parameter, the value and what is allowed, and none contains the prompt (I10):
//! only the values of closed sets and numbers are quoted, cut to [`QUOTED_CHARS`].

use std::fmt;

use crate::catalog::{
    decimal::Decimal,
    request::{Parameter, Value},
};

/// Longer values are cut to this many characters in messages.
const QUOTED_CHARS: usize = 64;
/// Longer words are not compared with known ones; those are much shorter.
const LONGEST_SLIP_BYTES: usize = 256;
/// How alike a slip and the word that was meant are at least (Jaro-Winkler, 1 is the same).
const CLOSE_ENOUGH: f64 = 0.85;

/// Why a request was refused; becomes a 400 as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The parameter at fault, as the client wrote it.
    pub parameter: String,
    /// `OpenAI`'s code for it (`contracts/openai-images.md`, section 6).
    pub code: &'static str,
    /// Names the parameter, the value and what is allowed. Never contains the prompt.
    pub message: String,
}

impl Violation {
    fn new(parameter: Parameter, code: &'static str, message: String) -> Self {
        Self {
            parameter: parameter.as_str().to_owned(),
            code,
            message,
        }
    }

    /// A refusal of something that is no [`Parameter`].
    pub fn named(name: &str, code: &'static str, message: String) -> Self {
        Self {
            parameter: name.to_owned(),
            code,
            message,
        }
    }

    /// Something required that is no [`Parameter`].
    pub fn missing_named(name: &str) -> Self {
        let message = format!("Missing required parameter: '{name}'.");
        Self::named(name, "missing_required_parameter", message)
    }

    /// An edit that the model keeps no closer than it does (`contracts/openai-images.md`, section 6).
    pub(super) fn no_input_fidelity() -> Self {
        Self::new(
            Parameter::InputFidelity,
            "invalid_input_fidelity_model",
            "This model does not support the 'input_fidelity' parameter.".to_owned(),
        )
    }

    /// A name that the model does not take; `taken` are those it does.
    pub(super) fn unknown_parameter(name: &str, taken: &[&str]) -> Self {
        let nearest = nearest(name, taken.iter().copied())
            .map(|nearest| format!(" Did you mean '{nearest}'?"))
            .unwrap_or_default();
        let taken = quoted_list(taken, "and");
        let name = cut(name);
        Self {
            message: format!(
                "Unknown parameter: '{name}'. This model does not take it.{nearest} It takes {taken}."
            ),
            parameter: name,
            code: "unknown_parameter",
        }
    }

    pub(super) fn missing(parameter: Parameter) -> Self {
        Self::new(
            parameter,
            "missing_required_parameter",
            format!("Missing required parameter: '{}'.", parameter.as_str()),
        )
    }

    pub(super) fn wrong_type(parameter: Parameter, expected: &str, given: &Value) -> Self {
        let given = match given {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Decimal(_) => "a number",
            Value::Flag(_) => "a boolean",
            Value::Svg(_) => "an object",
        };
        Self::new(
            parameter,
            "invalid_type",
            format!(
                "Invalid type for '{}': expected {expected}, but got {given} instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn empty(parameter: Parameter) -> Self {
        Self::new(
            parameter,
            "empty_string",
            format!(
                "Invalid '{}': empty string. Expected a string with minimum length 1, but got an empty \
                 string instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn too_long(parameter: Parameter, max_chars: usize, chars: usize) -> Self {
        Self::new(
            parameter,
            "string_above_max_length",
            format!(
                "Invalid '{}': string too long. Expected a string with maximum length {max_chars}, but \
                 got a string with length {chars} instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn above(parameter: Parameter, max: i64, given: i64) -> Self {
        Self::new(
            parameter,
            "integer_above_max_value",
            format!(
                "Invalid '{}': integer above maximum value. Expected a value <= {max}, but got {given} \
                 instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn below(parameter: Parameter, min: i64, given: i64) -> Self {
        Self::new(
            parameter,
            "integer_below_min_value",
            format!(
                "Invalid '{}': integer below minimum value. Expected a value >= {min}, but got {given} \
                 instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn decimal_above(parameter: Parameter, max: Decimal, given: Decimal) -> Self {
        Self::new(
            parameter,
            "decimal_above_max_value",
            format!(
                "Invalid '{}': decimal above maximum value. Expected a value <= {max}, but got {given} \
                 instead.",
                parameter.as_str()
            ),
        )
    }

    pub(super) fn decimal_below(parameter: Parameter, min: Decimal, given: Decimal) -> Self {
        Self::new(
            parameter,
            "decimal_below_min_value",
            format!(
                "Invalid '{}': decimal below minimum value. Expected a value >= {min}, but got {given} \
                 instead.",
                parameter.as_str()
            ),
        )
    }

    /// A word outside a closed set; `supported` is a sentence part such as `'a' and 'b'`.
    pub(super) fn unsupported_value(parameter: Parameter, given: &str, supported: &str) -> Self {
        Self::new(
            parameter,
            "invalid_value",
            format!(
                "Invalid value for '{}': '{}'. Supported values are: {supported}.",
                parameter.as_str(),
                cut(given)
            ),
        )
    }

    /// A value that is allowed, but not together with another parameter's.
    pub(super) fn combination(
        parameter: Parameter,
        value: &impl fmt::Display,
        reason: &str,
    ) -> Self {
        Self::new(
            parameter,
            "invalid_value",
            format!(
                "Invalid value for '{}': {value}. {reason}",
                parameter.as_str()
            ),
        )
    }
}

/// `'a', 'b', and 'c'`, as `OpenAI` writes lists.
pub(in crate::catalog) fn quoted_list(items: &[impl fmt::Display], conjunction: &str) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("'{item}'")).collect();
    joined_list(&quoted, conjunction)
}

/// `a, b, and c`.
pub(super) fn joined_list(items: &[String], conjunction: &str) -> String {
    match items {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [one, other] => format!("{one} {conjunction} {other}"),
        [head @ .., last] => format!("{}, {conjunction} {last}", head.join(", ")),
    }
}

/// The known word that `unknown` is probably a slip of. A long text is nobody's slip, and comparing it
/// would take a while that grows with its length.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if unknown.len() > LONGEST_SLIP_BYTES {
        return None;
    }
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(unknown, word), word))
        .filter(|(similarity, _)| *similarity >= CLOSE_ENOUGH)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_short() {
        let known = ["prompt", "size"];
        assert_eq!(nearest("promt", known), Some("prompt"));
        assert_eq!(nearest("zzz", known), None);
        let long = format!("prompt{}", "t".repeat(LONGEST_SLIP_BYTES));
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
