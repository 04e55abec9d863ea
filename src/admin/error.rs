//! Every way an operator's request can be refused, as a status and `OpenAI`'s envelope.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{new_key::NewKeyError, words::MeaningError};
use crate::{
    api::{ApiError, INVALID, Parts, excerpt},
    keys::KeyError,
    ledger::LedgerError,
    money::MoneyError,
};

/// Why an operator's request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// No token.
    #[error("no admin token")]
    NoToken,
    /// Another token. Nothing of it is repeated.
    #[error("a wrong admin token")]
    WrongToken,
    /// Too many wrong tokens from there; for how long nothing more is read.
    #[error("too many wrong admin tokens")]
    TooManyFailures(Duration),
    /// A parameter or field that there is not; it and those that there are.
    #[error("unknown parameter '{name}'")]
    UnknownParameter {
        /// Its name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A field that must be there.
    #[error("missing parameter '{0}'")]
    MissingParameter(String),
    /// A parameter or field that cannot be used as it is.
    #[error("{name}: {why}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An update that changes nothing.
    #[error("nothing to change")]
    NothingToChange,
    /// No such thing.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// `key`, `generation`, `provider`, `model`.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The configuration on disk cannot be used, and why.
    #[error("the configuration is refused: {0}")]
    ConfigRefused(String),
    /// More rows than an answer has.
    #[error("more than {0} rows")]
    TooManyRows(u32),
    /// The ledger's refusal.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The keys' refusal.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What every surface refuses in the same way: bodies, paths, our own faults.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl AdminError {
    /// A parameter that can be read and means nothing here.
    pub(super) fn meaning(name: &str, error: &MeaningError) -> Self {
        Self::Parameter {
            name: name.to_owned(),
            why: error.to_string(),
        }
    }

    /// There is no such thing.
    pub(super) fn not_found(what: &'static str, name: &str) -> Self {
        Self::NotFound {
            what,
            name: name.to_owned(),
        }
    }
}

impl From<MoneyError> for AdminError {
    fn from(error: MoneyError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<NewKeyError> for AdminError {
    fn from(error: NewKeyError) -> Self {
        match error {
            NewKeyError::Ledger(error) => error.into(),
            NewKeyError::Key(error) => error.into(),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        use StatusCode as Status;
        let refuse = |status, code, message: String| Parts::new(status, INVALID, code, message);
        match self {
            Self::NoToken => refuse(
                Status::UNAUTHORIZED,
                "invalid_admin_token",
                "You didn't provide the admin token. Send it in an Authorization header using Bearer auth."
                    .to_owned(),
            ),
            Self::ConfigRefused(why) => refuse(
                Status::BAD_REQUEST,
                "config_refused",
                format!("The configuration on disk is refused and changes nothing: {why}"),
            ),
            Self::WrongToken => refuse(
                Status::UNAUTHORIZED,
                "invalid_admin_token",
                "Incorrect admin token provided. It is the one of [admin] token in the configuration."
                    .to_owned(),
            ),
            Self::TooManyFailures(wait) => refuse(
                Status::TOO_MANY_REQUESTS,
                "too_many_failed_attempts",
                "Too many wrong admin tokens came from your address. Nothing is read from there for a while."
                    .to_owned(),
            )
            .come_back(wait),
            Self::UnknownParameter { name, known } => {
                let known: Vec<String> = known.iter().map(|name| format!("'{name}'")).collect();
                let known = match known.as_slice() {
                    [] => "There are none here".to_owned(),
                    known => format!("Supported parameters are: {}", known.join(", ")),
                };
                let message = format!("Unknown parameter: '{}'. {known}.", excerpt(&name));
                refuse(Status::BAD_REQUEST, "unknown_parameter", message).param(&excerpt(&name))
            }
            Self::MissingParameter(name) => refuse(
                Status::BAD_REQUEST,
                "missing_required_parameter",
                format!("Missing required parameter: '{name}'."),
            )
            .param(&name),
            Self::Parameter { name, why } => refuse(
                Status::BAD_REQUEST,
                "invalid_value",
                format!("Invalid value for '{}': {}.", excerpt(&name), why.trim_end_matches('.')),
            )
            .param(&excerpt(&name)),
            Self::NothingToChange => refuse(
                Status::BAD_REQUEST,
                "nothing_to_change",
                "The body names nothing to change.".to_owned(),
            ),
            Self::NotFound { what, name } => not_found(what, &name),
            Self::TooManyRows(most) => refuse(
                Status::BAD_REQUEST,
                "too_many_rows",
                format!("There are more than {most} rows. Ask for a shorter span or fewer groups."),
            ),
            Self::Ledger(error) => return ledger(error),
            Self::Key(KeyError::NotFound(id)) => not_found("key", &id),
            Self::Key(KeyError::NoAccount(id)) => not_found("account", &id),
            Self::Key(error @ KeyError::Ended(_)) => {
                refuse(Status::CONFLICT, "key_ended", sentence(&error.to_string()))
            }
            Self::Key(error @ (KeyError::Inconsistent(_) | KeyError::Database { .. })) => {
                return ApiError::from(error).into_response();
            }
            Self::Api(error) => return error.into_response(),
        }
        .into_response()
    }
}

fn ledger(error: LedgerError) -> Response {
    use StatusCode as Status;
    if let LedgerError::NothingToBook | LedgerError::Money(_) = error {
        let name = "amount".to_owned();
        let why = error.to_string();
        return AdminError::Parameter { name, why }.into_response();
    }
    let text = sentence(&error.to_string());
    let refuse = |status, code| Parts::new(status, INVALID, code, text);
    match error {
        LedgerError::NoAccount(name) => not_found("account", &name),
        LedgerError::AmbiguousAccount { .. } => refuse(Status::CONFLICT, "ambiguous_account"),
        LedgerError::ReferenceTaken { .. } => {
            refuse(Status::CONFLICT, "reference_taken").param("reference")
        }
        LedgerError::InsufficientBalance { .. } => {
            refuse(Status::CONFLICT, "insufficient_balance").param("amount")
        }
        LedgerError::Unconfirmed { .. } => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an operator's change is unconfirmed"
            );
            Parts::new(
                Status::SERVICE_UNAVAILABLE,
                "service_unavailable_error",
                "unconfirmed",
                "The connection to the database broke while it committed: the change was made or not. Look \
                 before you repeat it; a booking may be repeated under the same 'reference'.",
            )
        }
        // No operator's request gets to the others but by our own fault.
        LedgerError::RateLimited { .. }
        | LedgerError::SpendLimited(_)
        | LedgerError::HoldEnded(_)
        | LedgerError::CaptureAboveHold { .. }
        | LedgerError::Saturated { .. }
        | LedgerError::Inconsistent(_)
        | LedgerError::NothingToBook
        | LedgerError::RetentionTooShort(_)
        | LedgerError::Money(_)
        | LedgerError::Repeated(_)
        | LedgerError::NotRepeated
        | LedgerError::NameTaken
        | LedgerError::Database { .. } => return ApiError::from(error).into_response(),
    }
    .into_response()
}

fn not_found(what: &'static str, name: &str) -> Parts {
    let code = format!("{what}_not_found");
    let message = format!("There is no {what} '{}'.", excerpt(name));
    Parts::new(StatusCode::NOT_FOUND, INVALID, &code, message)
}

/// An error's words as a sentence.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}.", characters.as_str())
}
