//! What a model takes: one rule a parameter, and rules across parameters.

use super::request::{ImageRequest, Parameter, Params};

/// What to do with a parameter that exists but that the model does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsupported {
    /// Refuse the request, by the parameter's name.
    #[default]
    Reject,
    /// Leave the parameter out and say so.
    Drop,
}

/// Why a request was refused; becomes a 400 as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The parameter at fault, as the client wrote it.
    pub parameter: String,
    /// `OpenAI`'s code for it.
    pub code: &'static str,
    /// Names the parameter, the value and what is allowed. Never contains the prompt.
    pub message: String,
}

/// The rules of one model.
#[derive(Debug, Clone)]
pub struct Rules {}

impl Rules {
    /// Checks `params` against these rules and fills in the defaults. Also returns the parameters that
    /// were left out under [`Unsupported::Drop`].
    ///
    /// # Errors
    /// The first [`Violation`], in the order of [`Parameter::ALL`], cross-field rules last.
    pub fn check(
        &self,
        params: &Params,
        unsupported: Unsupported,
    ) -> Result<(ImageRequest, Vec<Parameter>), Violation> {
        let _ = (params, unsupported);
        todo!()
    }

    /// `supported_parameters` of `/v1/models`: values, range and default of each parameter.
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
}
