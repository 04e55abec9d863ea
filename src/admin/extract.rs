//! Paths, queries and bodies as typed values; what is not known in them is refused by name.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use http_body::Body as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use super::{Desk, error::AdminError};
use crate::{
    api::{ApiError, describe, excerpt, json_bytes},
    money::NanoUsd,
};

/// The one variable part of a path, percent-decoded.
pub(super) struct Named(pub(super) String);

/// A query, whose parameters are texts.
pub(super) struct Asked<T>(pub(super) T);

/// A body, which is one JSON object.
pub(super) struct Sent<T>(pub(super) T);

/// A body that may as well be absent.
pub(super) struct SentOrNot<T>(pub(super) T);

/// A value that is written as text.
pub(super) struct Text<T>(pub(super) T);

/// A value that an update may take away with `null`.
pub(super) struct OrNull<T>(pub(super) Option<T>);

/// An amount in USD, as a JSON number or as a decimal string; exact either way.
#[derive(Clone, Copy)]
pub(super) struct Usd(pub(super) NanoUsd);

impl Named {
    /// As an id or word; what is none names nothing that there is.
    pub(super) fn parse<T: FromStr>(&self, what: &'static str) -> Result<T, AdminError> {
        let parsed = self.0.parse();
        parsed.map_err(|_| AdminError::not_found(what, &self.0))
    }
}

impl FromRequestParts<Desk> for Named {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, AdminError> {
        let path = Path::<String>::from_request_parts(parts, desk).await;
        path.map(|Path(text)| Self(text)).map_err(|_| {
            let path = excerpt(parts.uri.path());
            ApiError::UnknownPath(parts.method.clone(), path).into()
        })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Desk> for Asked<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &Desk) -> Result<Self, AdminError> {
        query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Desk> for Sent<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, desk: &Desk) -> Result<Self, AdminError> {
        let bytes = json_bytes(request, &desk.app).await?;
        body(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Desk> for SentOrNot<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, desk: &Desk) -> Result<Self, AdminError> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        let Sent(body) = Sent::from_request(request, desk).await?;
        Ok(Self(body))
    }
}

fn query<T: DeserializeOwned>(text: &str) -> Result<T, AdminError> {
    let uri = format!("/?{text}").parse().unwrap_or_default();
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri);
    let Query(pairs) = pairs.map_err(|_| AdminError::Parameter {
        name: "query".to_owned(),
        why: "it cannot be read".to_owned(),
    })?;
    let pairs = pairs.into_iter().map(|(name, value)| (name, Value(value)));
    let map = MapDeserializer::<_, de::value::Error>::new(pairs);
    serde_path_to_error::deserialize(map)
        .map_err(|error| refused(&error.path().to_string(), &error.into_inner().to_string()))
}

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    // A struct would be taken from a list as well.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(match serde_json::from_slice::<de::IgnoredAny>(bytes) {
            Ok(_) => ApiError::NotAnObject.into(),
            Err(error) => ApiError::Json(describe(&error)).into(),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let text = inner.to_string();
            let why = text.split(" at line ").next().unwrap_or_default();
            refused(&path, why)
        } else {
            ApiError::Json(describe(&inner)).into()
        }
    })?;
    match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(ApiError::Json(describe(&error)).into()),
    }
}

/// What serde says of the value at `path`, in our words.
fn refused(path: &str, why: &str) -> AdminError {
    let quoted = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    if why.starts_with("unknown field `") {
        let (unknown, known) = why.split_once("`, ").unwrap_or((why, ""));
        let name = unknown.trim_start_matches("unknown field `");
        return AdminError::UnknownParameter {
            name: name.to_owned(),
            known: quoted(known),
        };
    }
    if why.starts_with("missing field `") {
        return AdminError::MissingParameter(quoted(why).concat());
    }
    let name = if why.starts_with("duplicate field `") {
        quoted(why).concat()
    } else {
        path.to_owned()
    };
    let mut why = why.to_owned();
    if let Some((end, _)) = why.char_indices().nth(LONGEST_REASON_CHARS) {
        why.truncate(end);
        why.push('…');
    }
    AdminError::Parameter { name, why }
}

/// Reasons repeat what was sent.
const LONGEST_REASON_CHARS: usize = 300;

/// A value of a query. Unlike serde's own strings it can be an `Option`.
struct Value(String);

impl<'de> Deserializer<'de> for Value {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => text,
            Err(_) => raw.get().to_owned(),
        };
        NanoUsd::parse(&text).map(Self).map_err(de::Error::custom)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNull<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

/// What the text means.
impl<T: JsonSchema> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for OrNull<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Option<T>>()
    }
}

impl JsonSchema for Usd {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Usd".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "USD, as a number or as a decimal string; exact either way",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?$"},
            ],
            "examples": ["12.50"],
        })
    }
}

/// For fields of an update: what is there changes something, also when it is `null`.
pub(super) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Mode;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        mode: Option<Text<Mode>>,
        amount: Option<Usd>,
        #[serde(default, deserialize_with = "given")]
        limit: Option<OrNull<u32>>,
    }

    impl Thing {
        fn summary(&self) -> (&str, Option<Mode>) {
            (&self.name, self.mode.as_ref().map(|Text(mode)| *mode))
        }
    }

    fn told<T>(outcome: Result<T, AdminError>) -> String {
        match outcome {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn bodies() {
        for (text, expected) in [
            (
                r#"{"name":"a","mode":"test","amount":1,"limit":null}"#,
                "fine",
            ),
            (r#"{"nam":"a"}"#, "unknown parameter 'nam'"),
            (r#"{"mode":"test"}"#, "missing parameter 'name'"),
            (r#"{"name":"a","name":"b"}"#, "name: duplicate field `name`"),
            (
                r#"{"name":5}"#,
                "name: invalid type: integer `5`, expected a string",
            ),
            (
                r#"{"name":"a","mode":"life"}"#,
                "mode: 'life' is neither live nor test",
            ),
            (
                r#"{"name":"a","amount":1e3}"#,
                "amount: '1e3' is not an amount in USD: use plain decimals such as 12.50, at most nine digits after the point",
            ),
            (
                r#"{"name":"a","limit":-1}"#,
                "limit: invalid value: integer `-1`, expected u32",
            ),
            ("[1]", "the body is not an object"),
            ("5", "the body is not an object"),
            ("{", "malformed JSON"),
            ("x", "malformed JSON"),
            ("", "malformed JSON"),
            (r#"{"name":"a"} x"#, "malformed JSON"),
        ] {
            assert_eq!(told(body::<Thing>(text.as_bytes())), expected, "{text}");
        }
    }

    #[test]
    fn values_arrive() {
        let sent: Thing = body(br#"{"name":"a","mode":"test"}"#).unwrap_or_else(|_| panic!());
        assert_eq!(sent.summary(), ("a", Some(Mode::Test)));
        let asked: Thing = query("name=a%26+b").unwrap_or_else(|_| panic!());
        assert_eq!(asked.summary(), ("a& b", None));
    }

    #[test]
    fn amounts_are_exact_as_numbers_and_as_texts() {
        for amount in ["123456789.123456789", r#""123456789.123456789""#] {
            let text = format!(r#"{{"name":"a","amount":{amount}}}"#);
            let thing: Thing = body(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            let nano = thing.amount.map(|amount| amount.0.nano());
            assert_eq!(nano, Some(123_456_789_123_456_789));
        }
    }

    #[test]
    fn null_is_not_absent_in_an_update() {
        let limit = |text: &str| {
            let thing: Thing = body(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            match thing.limit {
                None => "absent".to_owned(),
                Some(OrNull(limit)) => format!("{limit:?}"),
            }
        };
        assert_eq!(limit(r#"{"name":"a"}"#), "absent");
        assert_eq!(limit(r#"{"name":"a","limit":null}"#), "None");
        assert_eq!(limit(r#"{"name":"a","limit":0}"#), "Some(0)");
    }

    #[test]
    fn queries() {
        for (text, expected) in [
            ("name=a%20b&mode=live", "fine"),
            ("name=a&other=b", "unknown parameter 'other'"),
            ("mode=live", "missing parameter 'name'"),
            ("name=a&mode=", "mode: '' is neither live nor test"),
            ("name=a&name=b", "name: duplicate field `name`"),
        ] {
            assert_eq!(told(query::<Thing>(text)), expected, "{text}");
        }
        let unknown = query::<Thing>("othe=b").map(|_| ());
        let Err(AdminError::UnknownParameter { known, .. }) = unknown else {
            panic!("{unknown:?}");
        };
        assert_eq!(known, ["name", "mode", "amount", "limit"]);
    }
}
