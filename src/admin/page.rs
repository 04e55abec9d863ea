//! The one form of lists: a page, and where the next one begins.

use std::str::FromStr;

use axum::Json;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::extract::Text;

const DEFAULT_LENGTH: u32 = 20;
const LONGEST: u32 = 100;

/// How many to list: `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(u32);

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListOf{T}")]
pub(super) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
    /// What `after` takes to get the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let length = text.parse().ok();
        length
            .filter(|length| (1..=LONGEST).contains(length))
            .map(Self)
            .ok_or_else(|| format!("expected an integer from 1 to {LONGEST}"))
    }
}

impl JsonSchema for Length {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Length".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "minimum": 1,
            "maximum": LONGEST,
            "default": DEFAULT_LENGTH,
        })
    }
}

impl Length {
    pub(super) fn of(asked: Option<Text<Self>>) -> Self {
        asked.map_or(Self(DEFAULT_LENGTH), |Text(length)| length)
    }

    /// One more than the page has tells whether there is another.
    pub(super) fn and_one_more(self) -> u32 {
        self.0.saturating_add(1)
    }
}

impl<T> List<T> {
    /// The page of this length out of what [`Length::and_one_more`] found.
    pub(super) fn page<R>(
        mut found: Vec<R>,
        Length(length): Length,
        cursor: impl FnOnce(&R) -> String,
        show: impl FnMut(R) -> T,
    ) -> Json<Self> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let has_more = found.len() > length;
        found.truncate(length);
        let last = found.last().filter(|_| has_more);
        Json(Self {
            object: "list",
            next: last.map(cursor),
            data: found.into_iter().map(show).collect(),
            has_more,
        })
    }

    /// A list that the configuration bounds, and that comes whole.
    pub(super) fn whole(data: Vec<T>) -> Json<Self> {
        Json(Self {
            object: "list",
            data,
            has_more: false,
            next: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_begins() {
        let page = |found: Vec<u32>| {
            let Json(page) = List::page(found, Length(2), u32::to_string, |number| number);
            serde_json::to_string(&page).unwrap()
        };
        assert_eq!(
            page(vec![9, 8, 7]),
            r#"{"object":"list","data":[9,8],"has_more":true,"next":"8"}"#
        );
        assert_eq!(
            page(vec![7]),
            r#"{"object":"list","data":[7],"has_more":false}"#
        );
    }

    #[test]
    fn lengths() {
        for (text, expected) in [
            ("1", true),
            ("100", true),
            ("0", false),
            ("101", false),
            ("-1", false),
            ("ten", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Length>().is_ok(), expected, "{text}");
        }
    }
}
