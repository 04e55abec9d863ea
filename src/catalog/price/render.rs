//! Prices as `/v1/models` shows them, and as people read them.

use serde_json::{Map, Value as Json, json};

use super::{
    Kind, PerImage,
    megapixels::PerMegapixel,
    tokens::{PerToken, Rates},
};
use crate::{
    catalog::vocabulary::{ImageSize, Quality},
    money::NanoUsd,
};

pub(super) fn json(kind: &Kind, markup_basis_points: u32) -> Json {
    let usd = Usd {
        markup_basis_points,
    };
    match kind {
        Kind::Image(price) => per_image_json(price, usd),
        Kind::Megapixel(price) => per_megapixel_json(price, usd),
        Kind::Token(price) => per_token_json(price, usd),
    }
}

/// What [`json()`] writes.
impl schemars::JsonSchema for super::Price {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pricing".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let amount = json!({"type": ["number", "null"], "description": "USD"});
        let key = json!({
            "size": {"type": "string"},
            "max_pixels": {"type": "integer"},
            "quality": {"type": "string"},
        });
        let row = |fields: &[(&str, Json)]| {
            let mut properties = key.clone();
            for (name, schema) in fields {
                properties[*name] = schema.clone();
            }
            json!({"type": "object", "properties": properties})
        };
        let named = |name: &str, words: Json| {
            json!({
                "type": "object",
                "required": [name, "price"],
                "properties": {name: {"type": "string", "enum": words}, "price": amount},
            })
        };
        let kind = |unit: &str, fields: &[(&str, Json)]| {
            let mut properties = json!({
                "currency": {"type": "string", "const": "USD"},
                "unit": {"type": "string", "const": unit},
            });
            let mut required = vec!["currency", "unit"];
            for (name, schema) in fields {
                properties[*name] = schema.clone();
                required.push(name);
            }
            json!({"type": "object", "required": required, "properties": properties})
        };
        let list = |items: Json| json!({"type": "array", "items": items});
        let tokens = json!({"type": "integer"});
        schemars::json_schema!({
            "description": "The published price with this server's markup on top.",
            "oneOf": [
                kind("image", &[("table", list(row(&[("price", amount.clone())])))]),
                kind("megapixel", &[
                    ("pixels_per_megapixel", json!({"type": "integer"})),
                    ("rounding", json!({"type": "string", "const": "up"})),
                    ("table", list(named("megapixel", json!(["first", "next", "input"])))),
                ]),
                kind("million_tokens", &[
                    ("table", list(named("tokens", json!([
                        "text_in", "text_in_cached", "image_in", "image_in_cached", "image_out", "text_out",
                    ])))),
                    ("output_tokens", json!({
                        "type": "array",
                        "description": "What a picture comes to, or at most comes to where the provider decides.",
                        "items": row(&[
                            ("tokens", tokens.clone()),
                            ("price", amount.clone()),
                            ("max_tokens", tokens),
                            ("max_price", amount.clone()),
                        ]),
                    })),
                ]),
            ],
        })
    }
}

/// Says amounts with the markup on top.
#[derive(Clone, Copy)]
struct Usd {
    markup_basis_points: u32,
}

impl Usd {
    /// A JSON number, or null beyond the countable range. `serde_json`'s tree keeps it as the nearest
    /// double, whose shortest decimal is the amount again up to 15 digits in all; prices have fewer.
    fn json(self, amount: NanoUsd) -> Json {
        amount
            .with_markup(self.markup_basis_points)
            .map_or(Json::Null, |amount| json!(amount))
    }
}

fn per_image_json(price: &PerImage, usd: Usd) -> Json {
    let table: Vec<Json> = price
        .table
        .expanded()
        .map(|(size, row)| {
            let mut listed = key(size, row.max_pixels, row.quality);
            listed.insert("price".to_owned(), usd.json(row.value));
            Json::Object(listed)
        })
        .collect();
    json!({ "currency": "USD", "unit": "image", "table": table })
}

fn per_megapixel_json(price: &PerMegapixel, usd: Usd) -> Json {
    let rates = [
        ("first", Some(price.first)),
        ("next", Some(price.next)),
        ("input", price.input),
    ];
    let table: Vec<Json> = rates
        .into_iter()
        .filter_map(|(name, rate)| Some(json!({ "megapixel": name, "price": usd.json(rate?) })))
        .collect();
    json!({
        "currency": "USD",
        "unit": "megapixel",
        "pixels_per_megapixel": price.megapixel,
        "rounding": "up",
        "table": table,
    })
}

fn per_token_json(price: &PerToken, usd: Usd) -> Json {
    let table: Vec<Json> = rates(&price.rates)
        .into_iter()
        .map(|(name, rate)| json!({ "tokens": name, "price": usd.json(rate) }))
        .collect();
    // A bound must not be mistaken for a price.
    let (tokens, amount) = if price.estimated {
        ("max_tokens", "max_price")
    } else {
        ("tokens", "price")
    };
    let output_tokens: Vec<Json> = price
        .listing()
        .into_iter()
        .map(|row| {
            let mut listed = key(row.size, row.max_pixels, row.quality);
            listed.insert(tokens.to_owned(), json!(row.tokens));
            listed.insert(amount.to_owned(), usd.json(row.price));
            Json::Object(listed)
        })
        .collect();
    json!({
        "currency": "USD",
        "unit": "million_tokens",
        "table": table,
        "output_tokens": output_tokens,
    })
}

fn key(
    size: Option<ImageSize>,
    max_pixels: Option<u64>,
    quality: Option<Quality>,
) -> Map<String, Json> {
    let entries = [
        ("size", size.map(|size| json!(size))),
        ("max_pixels", max_pixels.map(|pixels| json!(pixels))),
        ("quality", quality.map(|quality| json!(quality))),
    ];
    entries
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// USD per million tokens, by name.
fn rates(rates: &Rates) -> Vec<(&'static str, NanoUsd)> {
    let all = [
        ("text_in", Some(rates.text_in)),
        ("text_in_cached", rates.text_in_cached),
        ("image_in", rates.image_in),
        ("image_in_cached", rates.image_in_cached),
        ("image_out", Some(rates.image_out)),
        ("text_out", rates.text_out),
    ];
    all.into_iter()
        .filter_map(|(name, rate)| Some((name, rate?.per_million().ok()?)))
        .collect()
}

/// `$0.04 (1024x1024), $0.08 (1024x1792, 1792x1024)`, one clause a quality.
pub(super) fn words(kind: &Kind) -> String {
    match kind {
        Kind::Image(price) => grouped(
            price
                .table
                .expanded()
                .map(|(size, row)| (row.quality, size, row.max_pixels, row.value)),
        ),
        Kind::Megapixel(price) => {
            let input = price
                .input
                .map(|input| format!(", ${input} an input megapixel"))
                .unwrap_or_default();
            format!(
                "${} the first megapixel, ${} each further one{input}",
                price.first, price.next
            )
        }
        Kind::Token(price) => per_token_words(price),
    }
}

fn per_token_words(price: &PerToken) -> String {
    let rates: Vec<String> = rates(&price.rates)
        .into_iter()
        .map(|(name, rate)| format!("{} ${rate}", name.replace('_', " ")))
        .collect();
    // The first size stands for the others: the full table is in `/v1/models`.
    let listing = price.listing();
    let size = listing.first().and_then(|row| row.size);
    let pictures = grouped(
        listing
            .iter()
            .filter(|row| row.size == size)
            .map(|row| (row.quality, None, row.max_pixels, row.price)),
    );
    let what = size.map_or("a picture".to_owned(), |size| size.to_string());
    let at_most = if price.estimated { " at most" } else { "" };
    format!(
        "per million tokens {}; {what}{at_most} {pictures}",
        rates.join(", ")
    )
}

type Cell = (Option<Quality>, Option<ImageSize>, Option<u64>, NanoUsd);

/// A price and the sizes that have it.
type Group = (NanoUsd, Vec<String>);

/// Neighbours of one quality make a clause, neighbours of one price in it a group of sizes.
fn grouped(cells: impl Iterator<Item = Cell>) -> String {
    let mut clauses: Vec<(Option<Quality>, Vec<Group>)> = Vec::new();
    for (quality, size, max_pixels, price) in cells {
        let size = size.map(|size| size.to_string());
        let size = size.or(max_pixels.map(|pixels| format!("up to {pixels} pixels")));
        if clauses.last().is_none_or(|(last, _)| *last != quality) {
            clauses.push((quality, Vec::new()));
        }
        let Some((_, groups)) = clauses.last_mut() else {
            continue;
        };
        match groups.last_mut() {
            Some((last, sizes)) if *last == price => sizes.extend(size),
            _ => groups.push((price, size.into_iter().collect())),
        }
    }
    let clauses: Vec<String> = clauses
        .into_iter()
        .map(|(quality, groups)| {
            let groups: Vec<String> = groups
                .into_iter()
                .map(|(price, sizes)| match sizes.as_slice() {
                    [] => format!("${price}"),
                    sizes => format!("${price} ({})", sizes.join(", ")),
                })
                .collect();
            match quality {
                Some(quality) => format!("{quality} {}", groups.join(", ")),
                None => groups.join(", "),
            }
        })
        .collect();
    clauses.join("; ")
}
