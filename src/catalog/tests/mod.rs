//! Tables of what the compiled-in catalog accepts, refuses and charges; one `check` an area.

mod files;
mod next_providers;
mod prices;
mod rules;
mod shown;

use std::sync::LazyLock;

use super::{
    Catalog, ImageRequest, Model, Parameter, ParameterKind, Params, SvgOptions, Unsupported, Value,
};

/// The compiled-in catalog.
fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::load(None).unwrap());
    &CATALOG
}

fn model(name: &str) -> &'static Model {
    catalog()
        .find(name)
        .unwrap_or_else(|| panic!("no model {name}"))
}

/// Every picture-maker of `OpenAI`, by the name its clients use.
const OPENAI: &[&str] = &[
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "chatgpt-image-latest",
    "gpt-image-2",
    "gpt-image-2.5-flare",
    "gpt-image-2.5-sunburst",
    "gpt-image-2.6-flare",
    "gpt-image-2.6-sunburst",
];

/// `"n=2 size=1024x1024"` as parameters, with a prompt unless one is written. Values are read by the
/// kind of their parameter; `svg=MODEL` is an `svg` object.
fn params(text: &str) -> Params {
    let mut params = Params::from([(Parameter::Prompt, Value::Text("a cat".to_owned()))]);
    for word in text.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap();
        let parameter = Parameter::from_name(name).unwrap();
        let value = match parameter.kind() {
            ParameterKind::Text => Value::Text(value.to_owned()),
            ParameterKind::Integer => Value::Integer(value.parse().unwrap()),
            ParameterKind::Decimal => Value::Decimal(value.parse().unwrap()),
            ParameterKind::Flag => Value::Flag(value.parse().unwrap()),
            ParameterKind::Svg => Value::Svg(SvgOptions {
                model: value.to_owned(),
                effort: None,
            }),
        };
        params.insert(parameter, value);
    }
    params
}

/// The request that `text` becomes on this model.
fn request(model: &Model, text: &str) -> ImageRequest {
    match model.rules.check(&params(text), Unsupported::Reject) {
        Ok((request, _)) => request,
        Err(violation) => panic!("{} {text}: {}", model.id, violation.message),
    }
}
