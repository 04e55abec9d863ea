//! The catalog: which models there are, what each takes, what each costs, and who serves it.
//!
//! Pure data and arithmetic. Files are read once, by [`Catalog::load`]; after that there is no I/O and
//! no async, and nothing here knows who asks. Adding a model is adding a stanza to
//! `config/models/*.toml`.

mod model;
mod price;
mod request;
mod rules;
mod vocabulary;

pub use self::{
    model::{Catalog, CatalogError, Model, Route, SizeTranslation, Status, Translation},
    price::{Charge, Price, PriceError},
    request::{
        Delivered, ImageRequest, Parameter, ParameterKind, Params, Setting, SvgOptions, TokenUsage,
        Value,
    },
    rules::{Rules, Unsupported, Violation},
    vocabulary::{
        Background, Complexity, ImageSize, Moderation, OutputFormat, Quality, ResponseFormat,
        SizeChoice, Style, WordError,
    },
};
