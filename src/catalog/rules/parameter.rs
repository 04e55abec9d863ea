//! One rule a parameter, by kind: text, a closed list of words, a range of whole numbers, a flag, the
//! `svg` object. What a rule is comes from the catalog file; nothing here knows a model.

use std::{fmt::Display, num::NonZeroU8, str::FromStr};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::violation::{Violation, quoted_list};
use crate::catalog::{
    decimal::Decimal,
    request::{Parameter, Setting, SvgOptions, Value},
};

/// What the rule of any parameter can do.
pub(super) trait Rule {
    /// What a value becomes that has passed.
    type Checked;

    /// Checks what the client gave, or fills in the default.
    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation>;
}

/// The part of a rule that listings and the loader need, whatever its kind.
pub(super) trait Describe {
    /// The rule as it stands in `/v1/models`.
    fn describe(&self) -> Json;

    /// Refuses a rule that contradicts itself.
    fn validate(&self) -> Result<(), String>;
}

/// The prompt: required, never empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromptRule {
    /// In Unicode scalar values.
    max_chars: usize,
}

impl Rule for PromptRule {
    type Checked = String;

    fn check(&self, parameter: Parameter, given: Option<&Value>) -> Result<String, Violation> {
        match given {
            None => Err(Violation::missing(parameter)),
            Some(Value::Text(text)) if text.is_empty() => Err(Violation::empty(parameter)),
            Some(Value::Text(text)) => {
                check_length(parameter, text, self.max_chars)?;
                Ok(text.clone())
            }
            Some(other) => Err(Violation::wrong_type(parameter, "a string", other)),
        }
    }
}

impl Describe for PromptRule {
    fn describe(&self) -> Json {
        json!({
            "type": "string",
            "required": true,
            "min_characters": 1,
            "max_characters": self.max_chars,
        })
    }

    fn validate(&self) -> Result<(), String> {
        (self.max_chars > 0)
            .then_some(())
            .ok_or_else(|| "max_chars must be at least 1".to_owned())
    }
}

/// Free text that may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRule {
    /// In Unicode scalar values; absent: only the body's size limits it.
    max_chars: Option<usize>,
}

impl Rule for TextRule {
    type Checked = Option<String>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        match given {
            None => Ok(None),
            Some(Value::Text(text)) => {
                if let Some(max_chars) = self.max_chars {
                    check_length(parameter, text, max_chars)?;
                }
                Ok(Some(text.clone()))
            }
            Some(other) => Err(Violation::wrong_type(parameter, "a string", other)),
        }
    }
}

impl Describe for TextRule {
    fn describe(&self) -> Json {
        let mut described = json!({ "type": "string" });
        if let Some(max_chars) = self.max_chars {
            described["max_characters"] = json!(max_chars);
        }
        described
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

fn check_length(parameter: Parameter, text: &str, max_chars: usize) -> Result<(), Violation> {
    // A text of so few bytes cannot have more characters; counting is for the others.
    if text.len() <= max_chars {
        return Ok(());
    }
    let chars = text.chars().count();
    if chars > max_chars {
        return Err(Violation::too_long(parameter, max_chars, chars));
    }
    Ok(())
}

/// One word of a closed list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WordRule<W> {
    pub(super) values: Vec<W>,
    pub(super) default: Option<W>,
}

impl<W: Copy + PartialEq + Display + FromStr> Rule for WordRule<W> {
    type Checked = Option<Setting<W>>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        match given {
            None => Ok(self.default.map(|value| Setting {
                value,
                given: false,
            })),
            Some(Value::Text(text)) => text
                .parse()
                .ok()
                .filter(|word| self.values.contains(word))
                .map(|value| Some(Setting { value, given: true }))
                .ok_or_else(|| {
                    let supported = quoted_list(&self.values, "and");
                    Violation::unsupported_value(parameter, text, &supported)
                }),
            Some(other) => Err(Violation::wrong_type(parameter, "a string", other)),
        }
    }
}

impl<W: PartialEq + Display> Describe for WordRule<W> {
    fn describe(&self) -> Json {
        let mut described = json!({
            "type": "string",
            "values": self.values.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        if let Some(default) = &self.default {
            described["default"] = json!(default.to_string());
        }
        described
    }

    fn validate(&self) -> Result<(), String> {
        validate_list(&self.values)?;
        validate_default(&self.values, self.default.as_ref())
    }
}

/// A list that is not empty and says nothing twice.
pub(super) fn validate_list<T: PartialEq + Display>(values: &[T]) -> Result<(), String> {
    if values.is_empty() {
        return Err("values must not be empty".to_owned());
    }
    match values
        .iter()
        .enumerate()
        .find(|(index, value)| values[..*index].contains(value))
    {
        Some((_, twice)) => Err(format!("'{twice}' is listed twice")),
        None => Ok(()),
    }
}

fn validate_default<T: PartialEq + Display>(
    values: &[T],
    default: Option<&T>,
) -> Result<(), String> {
    match default {
        Some(default) if !values.contains(default) => Err(format!(
            "the default '{default}' is not among the values {}",
            quoted_list(values, "and")
        )),
        _ => Ok(()),
    }
}

/// A whole number that fits the field of a request.
pub(super) trait Whole: Copy {
    fn to_i64(self) -> i64;
    fn from_i64(value: i64) -> Option<Self>;
}

impl Whole for u8 {
    fn to_i64(self) -> i64 {
        self.into()
    }

    fn from_i64(value: i64) -> Option<Self> {
        value.try_into().ok()
    }
}

impl Whole for u32 {
    fn to_i64(self) -> i64 {
        self.into()
    }

    fn from_i64(value: i64) -> Option<Self> {
        value.try_into().ok()
    }
}

impl Whole for NonZeroU8 {
    fn to_i64(self) -> i64 {
        self.get().into()
    }

    fn from_i64(value: i64) -> Option<Self> {
        u8::try_from(value).ok().and_then(Self::new)
    }
}

/// A whole number between two others, both allowed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IntegerRule<T> {
    min: T,
    max: T,
    default: Option<T>,
}

impl<T: Whole> Rule for IntegerRule<T> {
    type Checked = Option<Setting<T>>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        let (min, max) = (self.min.to_i64(), self.max.to_i64());
        match given {
            None => Ok(self.default.map(|value| Setting {
                value,
                given: false,
            })),
            Some(Value::Integer(value)) if *value < min => {
                Err(Violation::below(parameter, min, *value))
            }
            Some(Value::Integer(value)) => T::from_i64(*value)
                .filter(|_| *value <= max)
                .map(|value| Some(Setting { value, given: true }))
                .ok_or_else(|| Violation::above(parameter, max, *value)),
            Some(other) => Err(Violation::wrong_type(parameter, "an integer", other)),
        }
    }
}

impl<T: Whole> Describe for IntegerRule<T> {
    fn describe(&self) -> Json {
        let mut described = json!({
            "type": "integer",
            "minimum": self.min.to_i64(),
            "maximum": self.max.to_i64(),
        });
        if let Some(default) = self.default {
            described["default"] = json!(default.to_i64());
        }
        described
    }

    fn validate(&self) -> Result<(), String> {
        let (min, max) = (self.min.to_i64(), self.max.to_i64());
        if min > max {
            return Err(format!("min {min} is above max {max}"));
        }
        match self.default.map(T::to_i64) {
            Some(default) if !(min..=max).contains(&default) => Err(format!(
                "the default {default} is not between {min} and {max}"
            )),
            _ => Ok(()),
        }
    }
}

/// A number between two others, both allowed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecimalRule {
    min: Decimal,
    max: Decimal,
    default: Option<Decimal>,
}

impl Rule for DecimalRule {
    type Checked = Option<Setting<Decimal>>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        let value = match given {
            None => {
                return Ok(self.default.map(|value| Setting {
                    value,
                    given: false,
                }));
            }
            Some(Value::Decimal(value)) => *value,
            Some(other) => return Err(Violation::wrong_type(parameter, "a number", other)),
        };
        if value < self.min {
            return Err(Violation::decimal_below(parameter, self.min, value));
        }
        if value > self.max {
            return Err(Violation::decimal_above(parameter, self.max, value));
        }
        Ok(Some(Setting { value, given: true }))
    }
}

impl Describe for DecimalRule {
    fn describe(&self) -> Json {
        let mut described = json!({ "type": "number", "minimum": self.min, "maximum": self.max });
        if let Some(default) = self.default {
            described["default"] = json!(default);
        }
        described
    }

    fn validate(&self) -> Result<(), String> {
        if self.min > self.max {
            return Err(format!("min {} is above max {}", self.min, self.max));
        }
        match self.default {
            Some(default) if !(self.min..=self.max).contains(&default) => Err(format!(
                "the default {default} is not between {} and {}",
                self.min, self.max
            )),
            _ => Ok(()),
        }
    }
}

/// `true` or `false`, `false` when left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlagRule {}

impl Rule for FlagRule {
    type Checked = bool;

    fn check(&self, parameter: Parameter, given: Option<&Value>) -> Result<bool, Violation> {
        match given {
            None => Ok(false),
            Some(Value::Flag(flag)) => Ok(*flag),
            Some(other) => Err(Violation::wrong_type(parameter, "a boolean", other)),
        }
    }
}

impl Describe for FlagRule {
    fn describe(&self) -> Json {
        json!({ "type": "boolean", "default": false })
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The `svg` object; its inside was checked when it was parsed, because no model changes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SvgRule {}

impl Rule for SvgRule {
    type Checked = Option<SvgOptions>;

    fn check(
        &self,
        parameter: Parameter,
        given: Option<&Value>,
    ) -> Result<Self::Checked, Violation> {
        match given {
            None => Ok(None),
            Some(Value::Svg(options)) => Ok(Some(options.clone())),
            Some(other) => Err(Violation::wrong_type(parameter, "an object", other)),
        }
    }
}

impl Describe for SvgRule {
    fn describe(&self) -> Json {
        json!({ "type": "object", "required": ["model"], "optional": ["reasoning"] })
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
