//! The catalog: which models there are, what each takes, what each costs, and who serves it.
//!
//! Pure data and arithmetic. Files are read once, by [`Catalog::load`]; after that there is no I/O and
//! no async, and nothing here knows who asks. Adding a model is adding a stanza to
//! `config/models/*.toml`.

mod decimal;
mod file;
mod load;
mod markdown;
mod model;
mod price;
mod ratio;
mod request;
mod rules;
#[cfg(test)]
mod tests;
mod translation;
mod vocabulary;

pub use self::{
    decimal::Decimal,
    load::{Catalog, CatalogError},
    model::{Model, Route, RouteEdits, Status},
    price::{Charge, Price, PriceError},
    ratio::Ratio,
    request::{
        Delivered, ImageRequest, Parameter, ParameterKind, Params, Setting, SvgOptions, TokenUsage,
        Value,
    },
    rules::{InputImages, InputPicture, InputPictures, Rules, Unsupported, Violation, nearest},
    translation::{PictureTranslation, RatioTranslation, SizeTranslation, Translation},
    vocabulary::{
        Background, Complexity, ImageSize, InputFidelity, Moderation, OutputFormat, Quality,
        ResponseFormat, SizeChoice, Style, StylePreset, WordError,
    },
};
