//! The types carry what Stability, Replicate and Google need: stanzas shaped like theirs load, check,
//! translate and price right.

use serde_json::json;

use super::request;
use crate::{
    catalog::{
        Charge, Delivered, ImageSize, Model, Parameter, SizeChoice, TokenUsage, Unsupported, file,
    },
    money::NanoUsd,
};

const RULES: &str = r#"
name = "M"
created = 1
owned_by = "m"
status = "active"
[model.rules]
prompt = { max_chars = 10000 }
n = { min = 1, max = 10, default = 1 }
response_format = { values = ["url", "b64_json"], default = "url" }
"#;

fn model(id: &str, rest: &str) -> Model {
    let text = format!("[[model]]\nid = \"{id}\"{RULES}{rest}");
    match file::parse(&text) {
        Ok(mut stanzas) => stanzas.remove(0).model,
        Err(fault) => panic!("{fault:?}"),
    }
}

/// `line: problem` of a stanza that does not load.
fn fault(rest: &str) -> Option<String> {
    file::parse(&format!("[[model]]\nid = \"x\"{RULES}{rest}"))
        .err()
        .map(|fault| format!("{}: {}", fault.line, fault.problem))
}

fn size(text: &str) -> ImageSize {
    text.parse().unwrap()
}

fn says(model: &Model, asked: &str) -> Option<serde_json::Value> {
    let choice: SizeChoice = asked.parse().unwrap();
    let fields = model.routes[0].translation.size.fields(choice)?;
    Some(serde_json::Value::Object(fields.into_owned()))
}

fn accepts(model: &Model, asked: &str) -> bool {
    model
        .rules
        .check(&super::params(asked), Unsupported::Reject)
        .is_ok()
}

// `contracts/stability.md`, 2.2, 5 and 7.2.
#[test]
fn stability_maps_sizes_to_ratios_at_one_price() {
    let ratios = r#"["21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21"]"#;
    let large = model(
        "stability/sd3.5-large",
        &format!(
            r#"
size = {{ values = ["1024x1024", "auto"], default = "auto", ratios = {{ values = {ratios}, tolerance_percent = 2, min_pixels = 655360, max_pixels = 2097152 }} }}
[[model.routes]]
provider = "stability"
upstream_model = "sd3.5-large"
translation.size.ratio = {{ field = "aspect_ratio", values = {ratios}, tolerance_percent = 2 }}
translation.names = {{ output_format = "format" }}
translation.words = {{ output_format = {{ jpeg = "jpg" }} }}
translation.fixed = {{ mode = "text-to-image" }}
price.per_image = [{{ price = "0.065" }}]
"#
        ),
    );
    for (asked, ratio) in [
        ("1024x1024", "1:1"),
        ("1536x1024", "3:2"),
        ("1024x1536", "2:3"),
        ("1792x1024", "16:9"),
    ] {
        assert!(accepts(&large, &format!("size={asked}")), "{asked}");
        assert_eq!(
            says(&large, asked),
            Some(json!({ "aspect_ratio": ratio })),
            "{asked}"
        );
    }
    for refused in ["512x512", "1024x768", "4096x4096"] {
        assert!(!accepts(&large, &format!("size={refused}")), "{refused}");
    }
    assert_eq!(says(&large, "auto"), Some(json!({})));
    let route = &large.routes[0];
    assert_eq!(route.translation.name(Parameter::OutputFormat), "format");
    assert_eq!(route.translation.name(Parameter::Prompt), "prompt");
    assert_eq!(
        route.translation.word(Parameter::OutputFormat, "jpeg"),
        "jpg"
    );
    assert_eq!(
        route.translation.word(Parameter::OutputFormat, "png"),
        "png"
    );
    let three = request(&large, "n=3 size=1536x1024");
    assert_eq!(
        route.price.largest(&three, 0),
        NanoUsd::parse("0.195").map_err(Into::into)
    );
}

// `contracts/replicate.md`, sections 5 and 7.2.
#[test]
fn flux_2_is_priced_by_begun_megapixels_in_and_out() {
    let flux = model(
        "black-forest-labs/flux-2-pro",
        r#"
size = { values = ["1024x1024", "auto"], default = "auto", free = { multiple_of = 32, min_edge = 256, max_edge = 2048, min_pixels = 65536, max_pixels = 4194304, max_ratio = "8:1" } }
edits = { images = { max = 8 } }
[[model.routes]]
provider = "replicate"
upstream_model = "black-forest-labs/flux-2-pro"
price.per_megapixel = { first = "0.03", next = "0.015", input = "0.015", megapixel = 1048576 }
"#,
    );
    let inputs = flux.rules.input_images().unwrap();
    assert_eq!((inputs.max.get(), flux.rules.takes_mask()), (8, false));
    let price = &flux.routes[0].price;
    let largest = |asked: &str, inputs: &[ImageSize]| {
        let request = request(&flux, asked);
        price
            .largest_image(&request, inputs, 0)
            .unwrap()
            .to_string()
    };
    assert_eq!(largest("size=1024x1024", &[]), "0.03");
    assert_eq!(largest("size=512x512", &[]), "0.03");
    assert_eq!(largest("size=1056x1024", &[]), "0.045");
    assert_eq!(largest("size=2048x2048", &[]), "0.075");
    assert_eq!(largest("size=auto", &[]), "0.075");
    assert_eq!(
        largest("size=1024x1024", &[size("10x10"), size("1025x1024")]),
        "0.075"
    );
    assert!(!accepts(&flux, "size=1000x1000"));
    assert!(!accepts(&flux, "size=224x1024"));
    // The real sizes are charged.
    let sizes = [size("1024x1024"), size("2048x1024")];
    let delivered = Delivered {
        sizes: &sizes,
        announced: 2,
        usage: None,
        quality: None,
        partial_images: 0,
    };
    let request = request(&flux, "n=2");
    let costs = |charges: Vec<Charge>| -> Vec<String> {
        charges
            .iter()
            .map(|charge| charge.cost.to_string())
            .collect()
    };
    assert_eq!(
        costs(price.charges(&request, &delivered, 1_000).unwrap()),
        ["0.033", "0.0495"]
    );
    assert_eq!(
        costs(
            price
                .charges_from(&request, &[size("64x64")], &delivered, 0)
                .unwrap()
        ),
        ["0.045", "0.06"]
    );
    assert_eq!(
        price.to_json(0),
        json!({
            "currency": "USD",
            "unit": "megapixel",
            "pixels_per_megapixel": 1_048_576,
            "rounding": "up",
            "table": [
                { "megapixel": "first", "price": 0.03 },
                { "megapixel": "next", "price": 0.015 },
                { "megapixel": "input", "price": 0.015 },
            ],
        })
    );
}

// `contracts/replicate.md`, 7.2, the column of schnell.
#[test]
fn a_table_says_sizes_in_several_fields() {
    let rest = r#"
size = { values = ["512x512", "1024x1024"], default = "1024x1024" }
[[model.routes]]
provider = "replicate"
upstream_model = "black-forest-labs/flux-schnell"
images_per_call = 4
translation.size.table = [
  ["1024x1024", { aspect_ratio = "1:1", megapixels = "1" }],
  ["512x512", { aspect_ratio = "1:1", megapixels = "0.25" }],
]
price.per_image = [{ price = "0.003" }]
"#;
    let schnell = model("black-forest-labs/flux-1-schnell", rest);
    assert_eq!(
        says(&schnell, "512x512"),
        Some(json!({ "aspect_ratio": "1:1", "megapixels": "0.25" }))
    );
    assert_eq!(says(&schnell, "256x256"), None);
    let unsayable = rest.replace(
        "values = [\"512x512\"",
        "values = [\"256x256\", \"512x512\"",
    );
    assert_eq!(
        fault(&unsayable).unwrap(),
        "1: model 'x': route of provider 'replicate': the translation has no way to say size \
         256x256"
    );
}

// `contracts/google-imagen.md`, 2.1, 5 and 7.2.
#[test]
fn gemini_has_ratios_tiers_and_several_rates() {
    let ratios = r#"["1:1", "3:2", "2:3", "16:9", "9:16"]"#;
    let banana = model(
        "google/gemini-nano-banana-2.1",
        &format!(
            r#"
size = {{ values = ["1024x1024", "2048x2048", "auto"], default = "auto", ratios = {{ values = {ratios}, tolerance_percent = 2, min_pixels = 655360, max_pixels = 17000000 }} }}
[[model.routes]]
provider = "google"
upstream_model = "gemini-nano-banana-2.1"
[model.routes.translation.size.ratio]
field = "aspectRatio"
values = {ratios}
tolerance_percent = 2
tiers = [
  {{ max_pixels = 1906501, fields = {{ imageSize = "1K" }} }},
  {{ max_pixels = 7626006, fields = {{ imageSize = "2K" }} }},
  {{ max_pixels = 17000000, fields = {{ imageSize = "4K" }} }},
]
[model.routes.price.per_token]
rates = {{ text_in = "1.50", image_in = "1.50", image_out = "30.00", text_out = "7.50" }}
max_text_out_tokens = 4096
input_image_tokens = 1120
output_tokens = [
  {{ max_pixels = 1906501, tokens = 1120 }},
  {{ max_pixels = 7626006, tokens = 1680 }},
  {{ tokens = 3767 }},
]
"#
        ),
    );
    for (asked, expected) in [
        (
            "1024x1024",
            json!({ "aspectRatio": "1:1", "imageSize": "1K" }),
        ),
        (
            "2048x2048",
            json!({ "aspectRatio": "1:1", "imageSize": "2K" }),
        ),
        (
            "4096x4096",
            json!({ "aspectRatio": "1:1", "imageSize": "4K" }),
        ),
        (
            "1792x1024",
            json!({ "aspectRatio": "16:9", "imageSize": "1K" }),
        ),
    ] {
        assert!(accepts(&banana, &format!("size={asked}")), "{asked}");
        assert_eq!(says(&banana, asked), Some(expected));
    }
    let price = &banana.routes[0].price;
    // (69·1500 + 1120·30000 + 4096·7500) nano-USD for five bytes of prompt.
    let largest = |asked: &str, inputs: &[ImageSize]| {
        let request = request(&banana, asked);
        price.largest_image(&request, inputs, 0).unwrap().nano()
    };
    let text = 69 * 1_500 + 4_096 * 7_500;
    assert_eq!(largest("size=1024x1024", &[]), text + 1_120 * 30_000);
    assert_eq!(largest("size=2048x2048", &[]), text + 1_680 * 30_000);
    assert_eq!(largest("", &[]), text + 3_767 * 30_000);
    assert_eq!(
        largest("size=1024x1024", &[size("64x64"); 2]),
        text + 1_120 * 30_000 + 2 * (1_120 + 64) * 1_500
    );
    let usage = TokenUsage {
        input_text: 9,
        output_text: 800,
        output_image: 1_120,
        ..TokenUsage::default()
    };
    let sizes = [size("1024x1024")];
    let delivered = Delivered {
        sizes: &sizes,
        announced: 1,
        usage: Some(&usage),
        quality: None,
        partial_images: 0,
    };
    let charges = price.charges(&request(&banana, ""), &delivered, 0).unwrap();
    assert_eq!(
        charges[0].cost.nano(),
        9 * 1_500 + 800 * 7_500 + 1_120 * 30_000
    );
    assert_eq!(
        price.to_json(0)["output_tokens"],
        json!([
            { "max_pixels": 1_906_501, "tokens": 1_120, "price": 0.0336 },
            { "max_pixels": 7_626_006, "tokens": 1_680, "price": 0.0504 },
            { "tokens": 3_767, "price": 0.11301 },
        ])
    );
}

#[test]
fn rates_are_whole_nano_usd_a_token() {
    let rest = |rate: &str, rows: &str| {
        format!(
            r#"
size = {{ values = ["1024x1024"], default = "1024x1024" }}
[[model.routes]]
provider = "p"
upstream_model = "u"
price.per_token = {{ rates = {{ text_in = "{rate}", text_in_cached = "1", image_out = "30.00" }}, {rows} }}
"#
        )
    };
    let table = "output_tokens = [{ tokens = 1 }]";
    for (rate, rows, expected) in [
        ("1.5", table, None),
        (
            "1.0005",
            table,
            Some("16: '1.0005' USD per million tokens is not a whole number of nano-USD per token"),
        ),
        (
            "0.5",
            table,
            Some(
                "1: model 'x': route of provider 'p': 'text_in_cached' is above the rate of tokens not cached",
            ),
        ),
        (
            "1.5",
            "partial_image_tokens = 1",
            Some(
                "1: model 'x': route of provider 'p': a price per token has either 'output_tokens' or 'patches'",
            ),
        ),
        (
            "1.5",
            r#"output_tokens = [{ sizes = ["512x512"], tokens = 1 }]"#,
            Some(
                "1: model 'x': route of provider 'p': no output tokens for size 1024x1024 and quality none",
            ),
        ),
    ] {
        let found = fault(&rest(rate, rows));
        assert_eq!(found.as_deref(), expected, "{rate} {rows}");
    }
}
