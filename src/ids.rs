//! Names of our things: a prefix that says what it is, and a `UUIDv7` that sorts by age.
//!
//! Pure but for the clock reading inside a new `UUIDv7`. The text form (`gen_` and 32 lower-case hex
//! digits) is what users, logs and tables see; there is no second form.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an id of the form {prefix}_ followed by 32 hex digits")]
pub struct IdError {
    prefix: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; sorts after all that came before it.
            #[expect(clippy::new_without_default, reason = "a new id is not a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// When this id was made, to the millisecond.
            pub fn created_at(self) -> DateTime<Utc> {
                created_at(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse($prefix, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": concat!("^", $prefix, "_[0-9a-f]{32}$"),
                })
            }
        }
    };
}

id!(
    /// Who pays: an account with a live and a test balance.
    AccountId, "acc"
);
id!(
    /// An API key, not its secret.
    KeyId, "key"
);
id!(
    /// One client request for pictures.
    GenerationId, "gen"
);
id!(
    /// One reservation of money on a balance.
    HoldId, "hold"
);
id!(
    /// One immutable line of the ledger.
    EntryId, "ent"
);
id!(
    /// One delivered picture.
    ImageId, "img"
);
id!(
    /// One HTTP exchange with a client.
    RequestId, "req"
);
id!(
    /// One running Easel process.
    ReplicaId, "rep"
);

fn parse(prefix: &'static str, text: &str) -> Result<Uuid, IdError> {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        // One text form only: `try_parse` would also take upper case, hyphens and braces.
        .filter(|hex| {
            hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        .and_then(|hex| Uuid::try_parse(hex).ok())
        .ok_or_else(|| IdError {
            prefix,
            text: text.to_owned(),
        })
}

fn created_at(id: Uuid) -> DateTime<Utc> {
    id.get_timestamp()
        .and_then(|stamp| {
            let (seconds, nanos) = stamp.to_unix();
            DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_one_form_only() {
        let id = GenerationId::new();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for refused in [
            "",
            "gen_",
            "gen",
            &text.to_uppercase(),
            &text.replace("gen_", "img_"),
            &format!("{text}0"),
            &format!("gen_{}", Uuid::now_v7()),
        ] {
            assert!(refused.parse::<GenerationId>().is_err(), "{refused}");
        }
    }

    #[test]
    fn ids_sort_by_age() {
        let ids: Vec<ImageId> = (0..1000).map(|_| ImageId::new()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().map(ToString::to_string).is_sorted());
    }
}
