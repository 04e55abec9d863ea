use proptest::prelude::*;

use super::{OPENAI, catalog, model, request};
use crate::{
    catalog::{
        Charge, Delivered, ImageSize, Model, Parameter, Price, Quality, SizeChoice, TokenUsage,
        Unsupported,
    },
    money::NanoUsd,
};

fn price(model: &Model) -> &Price {
    &model.routes[0].price
}

fn usd(text: &str) -> NanoUsd {
    NanoUsd::parse(text).unwrap()
}

/// What the prompt "a cat" is charged as where nobody counts: five bytes at four a token, and 6 tokens around them.
const PROMPT_TOKENS: u64 = 8;

/// What `count` pictures of this request are charged without reported usage, and that the hold covers
/// them.
fn check(name: &str, input: &str, count: usize, expected: &str) {
    let model = model(name);
    let request = request(model, input);
    let square = ImageSize::new(1024, 1024).unwrap();
    let sizes = vec![request.size.value.exact().unwrap_or(square); count];
    let delivered = Delivered {
        sizes: &sizes,
        announced: count,
        usage: None,
        quality: None,
        partial_images: 0,
    };
    let charges = price(model).charges(&request, &delivered, 0).unwrap();
    assert_eq!(charges.len(), count);
    let sum = NanoUsd::sum(charges.iter().map(|charge| charge.cost)).unwrap();
    assert_eq!(sum, usd(expected), "{name}: {input}");
    let largest = price(model).largest(&request, 0).unwrap();
    assert!(sum <= largest, "{name}: {input}: {sum} above {largest}");
}

#[test]
fn dall_e_prices_are_exactly_the_published_ones() {
    for (input, each) in [
        ("", "0.040"),
        ("quality=standard size=1024x1024", "0.040"),
        ("size=1024x1792", "0.080"),
        ("size=1792x1024", "0.080"),
        ("quality=hd", "0.080"),
        ("quality=hd size=1024x1024", "0.080"),
        ("quality=hd size=1024x1792", "0.120"),
        ("quality=hd size=1792x1024", "0.120"),
    ] {
        check("dall-e-3", input, 1, each);
        let model = model("dall-e-3");
        assert_eq!(
            price(model).largest(&request(model, input), 0),
            Ok(usd(each)),
            "{input}"
        );
    }
    for (input, count, all) in [
        ("", 1, "0.020"),
        ("n=10", 10, "0.200"),
        ("n=4 size=512x512", 4, "0.072"),
        ("n=4 size=512x512", 3, "0.054"),
        ("size=256x256 quality=standard", 1, "0.016"),
        ("n=2 size=1024x1024", 0, "0"),
    ] {
        check("dall-e-2", input, count, all);
    }
}

// `contracts/openai-images.md`, sections 9 and 10: tokens times rate.
#[test]
fn every_size_and_quality_of_the_gpt_image_family_has_its_price() {
    let g1 = [
        ("low", 272, 408, 400),
        ("medium", 1056, 1584, 1568),
        ("high", 4160, 6240, 6208),
    ];
    let g2 = [
        ("low", 196, 158, 158),
        ("medium", 1756, 1372, 1372),
        ("high", 7024, 5488, 5488),
    ];
    for (name, table, text, per_million) in [
        ("gpt-image-1", g1, 5, 40_u64),
        ("gpt-image-1-mini", g1, 2, 8),
        ("gpt-image-1.5", g1, 5, 32),
        ("chatgpt-image-latest", g1, 5, 32),
        ("gpt-image-2", g2, 5, 30),
    ] {
        let cost = |tokens: u64| {
            let thousands = tokens * per_million + PROMPT_TOKENS * text;
            let cost = NanoUsd::from_nano(1_000).checked_mul(thousands);
            cost.unwrap().to_string()
        };
        for (quality, square, tall, wide) in table {
            for (size, tokens) in [
                ("1024x1024", square),
                ("1024x1536", tall),
                ("1536x1024", wide),
            ] {
                check(
                    name,
                    &format!("size={size} quality={quality}"),
                    1,
                    &cost(tokens),
                );
            }
        }
        // The size is that of the picture, and the quality may have been any.
        check(name, "", 1, &cost(table[2].1));
        check(name, "quality=low", 1, &cost(table[0].1));
    }
}

// `contracts/openai-images.md`, section 10, the second table.
#[test]
fn the_patch_formula_gives_the_known_tokens() {
    for (size, low, medium, high) in [
        ("1024x1024", 196, 1756, 7024),
        ("1536x1024", 158, 1372, 5488),
        ("1024x1536", 158, 1372, 5488),
        ("1792x1024", 139, 1243, 5063),
        ("2048x2048", 397, 3568, 14272),
        ("2560x1440", 205, 1843, 7370),
        ("3840x2160", 371, 3336, 13342),
    ] {
        for (quality, tokens) in [("low", low), ("medium", medium), ("high", high)] {
            let thousands = tokens * 30 + PROMPT_TOKENS * 5;
            let expected = NanoUsd::from_nano(1_000).checked_mul(thousands).unwrap();
            check(
                "gpt-image-2",
                &format!("size={size} quality={quality}"),
                1,
                &expected.to_string(),
            );
        }
    }
}

#[test]
fn the_hold_for_a_free_choice_covers_the_largest_legal_picture() {
    // 2880x2880 is the largest square; nothing legal takes more tokens: 96·96·10294400/4000000.
    let model = model("gpt-image-2");
    let bound = |input: &str| {
        price(model)
            .usage_bound(&request(model, input))
            .unwrap()
            .unwrap()
    };
    assert_eq!(bound("").output_image, 23_719);
    assert_eq!(bound("quality=high").output_image, 23_719);
    assert_eq!(bound("quality=low").output_image, 659);
    assert_eq!(bound("size=1024x1024").output_image, 7024);
    assert_eq!(
        bound("partial_images=3 stream=true size=1024x1024").output_image,
        7324
    );
    // "a cat" is five bytes.
    assert_eq!(bound("").input_text, 5 + 64);
}

#[test]
fn no_legal_size_takes_more_than_the_largest() {
    let model = model("gpt-image-2");
    for quality in ["low", "medium", "high"] {
        let auto = request(model, &format!("quality={quality}"));
        let largest = price(model).largest(&auto, 0).unwrap();
        let mut asked = auto.clone();
        let mut found = NanoUsd::ZERO;
        for width in (16..=3840).step_by(16) {
            for height in (16..=3840).step_by(16) {
                let size = ImageSize::new(width, height).unwrap();
                if model.rules.size().free().unwrap().allows(size) {
                    asked.size.value = SizeChoice::Exact(size);
                    found = found.max(price(model).largest(&asked, 0).unwrap());
                }
            }
        }
        assert_eq!(found, largest, "{quality}");
    }
}

// A frame of an animation is small, its sheet is not (`contracts/openai-images.md`, 1.2).
#[test]
fn the_hold_for_an_animation_does_not_trust_the_frame_size() {
    let model = model("gpt-image-2.6-flare");
    let largest = |input: &str| price(model).largest(&request(model, input), 0).unwrap();
    let still = largest("quality=low size=816x816");
    let animated = largest("quality=low size=816x816 output_format=gif");
    assert!(animated > still);
    assert_eq!(animated, largest("quality=low size=auto"));
}

// Measured or reported tokens of models without a published table (`contracts/openai-images.md`, 10).
#[test]
fn the_bounds_of_unpublished_tables_hold_for_what_was_measured() {
    for (name, input, measured) in [
        ("gpt-image-2.5-flare", "quality=low size=1024x1024", 196),
        ("gpt-image-2.5-flare", "size=1024x1024", 5_800),
        (
            "gpt-image-2.5-sunburst",
            "quality=high size=3840x2160",
            3_336,
        ),
        ("gpt-image-2.6-flare", "quality=low size=1536x1024", 664),
        ("gpt-image-2.6-flare", "quality=high size=1536x1024", 1_353),
        (
            "gpt-image-2.6-sunburst",
            "quality=high size=3840x2160",
            3_337,
        ),
        ("gpt-image-2.6-flare", "size=1024x1024", 5_800),
    ] {
        let model = model(name);
        let bound = price(model).usage_bound(&request(model, input)).unwrap();
        assert!(bound.unwrap().output_image >= measured, "{name}: {input}");
    }
    // Asking for more never holds less.
    for name in OPENAI.iter().filter(|name| name.contains("gpt")) {
        let model = model(name);
        let bounds: Vec<NanoUsd> = ["low", "medium", "high", "xhigh", "max"]
            .iter()
            .map(|quality| super::params(&format!("quality={quality} size=1024x1024")))
            .filter_map(|params| model.rules.check(&params, Unsupported::Reject).ok())
            .map(|(request, _)| price(model).largest(&request, 0).unwrap())
            .collect();
        assert!(bounds.len() >= 3);
        assert!(bounds.is_sorted(), "{name}: {bounds:?}");
    }
}

/// The charges of `kept` whole pictures out of `announced`, with this usage.
fn charged(
    name: &str,
    usage: TokenUsage,
    kept: usize,
    announced: usize,
    markup: u32,
) -> Vec<Charge> {
    let model = model(name);
    let sizes = vec![ImageSize::new(1024, 1024).unwrap(); kept];
    let delivered = Delivered {
        sizes: &sizes,
        announced,
        usage: Some(&usage),
        quality: None,
        partial_images: 0,
    };
    let request = request(model, "n=4 quality=low size=1024x1024");
    price(model).charges(&request, &delivered, markup).unwrap()
}

/// A picture that came is charged, and the books stay able to add up, whatever the provider says of it.
#[test]
fn reports_beyond_belief_are_countable() {
    let million = usd("1000000");
    for tokens in [u64::MAX, 230_000_000_000_000, 25_000_000_001] {
        let usage = TokenUsage {
            output_image: tokens,
            ..TokenUsage::default()
        };
        for markup in [0, u32::MAX] {
            let charges = charged("gpt-image-1", usage, 1, 1, markup);
            let expected = Charge {
                upstream_cost: million,
                cost: million,
            };
            assert_eq!(charges, [expected], "{tokens} tokens, markup {markup}");
        }
    }
    // As many announced as nobody can list.
    let usage = TokenUsage {
        output_image: 4160,
        ..TokenUsage::default()
    };
    assert_eq!(charged("gpt-image-1", usage, 2, usize::MAX, 0).len(), 2);
}

#[test]
fn reported_usage_is_priced_exactly_and_shared() {
    // 20 text tokens, 5 of them cached, 30 image tokens in, 10 of them cached, 4160 out:
    // 15·5000 + 5·1250 + 20·10000 + 10·2500 + 4160·40000 nano-USD.
    let usage = TokenUsage {
        input_text: 20,
        cached_text: 5,
        input_image: 30,
        cached_image: 10,
        output_text: 7,
        output_image: 4160,
    };
    let whole = 75_000 + 6_250 + 200_000 + 25_000 + 166_400_000;
    let nano = |charges: &[Charge]| -> Vec<i64> {
        charges.iter().map(|charge| charge.cost.nano()).collect()
    };
    // gpt-image-1 has no rate for text out, so text out is free.
    assert_eq!(nano(&charged("gpt-image-1", usage, 1, 1, 0)), [whole]);
    // 166706250 = 4·41676562 + 2: the first two shares are a nano-USD larger; three are charged.
    assert_eq!(
        nano(&charged("gpt-image-1", usage, 3, 4, 0)),
        [41_676_563, 41_676_563, 41_676_562]
    );
    // Fewer announced than arrived is not believed.
    assert_eq!(charged("gpt-image-1", usage, 2, 0, 0).len(), 2);
    // Markup rounds half up, once a picture.
    assert_eq!(
        nano(&charged("gpt-image-1", usage, 3, 4, 2_500)),
        [52_095_704, 52_095_704, 52_095_703]
    );
    assert_eq!(
        charged("gpt-image-1", usage, 1, 1, 2_500)[0]
            .upstream_cost
            .nano(),
        whole
    );
    // 1.5 has one: 7·10000 more, at its own rates.
    assert_eq!(
        nano(&charged("gpt-image-1.5", usage, 1, 1, 0)),
        [75_000 + 6_250 + 160_000 + 20_000 + 133_120_000 + 70_000]
    );
    // Priced per picture: tokens do not matter.
    let flat = model("dall-e-2");
    let sizes = [ImageSize::new(1024, 1024).unwrap(); 2];
    let delivered = Delivered {
        sizes: &sizes,
        announced: 4,
        usage: Some(&usage),
        quality: None,
        partial_images: 0,
    };
    let charges = price(flat)
        .charges(&request(flat, "n=4"), &delivered, 0)
        .unwrap();
    assert_eq!(nano(&charges), [20_000_000, 20_000_000]);
}

#[test]
fn a_report_without_output_is_no_free_picture() {
    let empty = charged("gpt-image-1", TokenUsage::default(), 2, 2, 0);
    let costs: Vec<i64> = empty.iter().map(|charge| charge.cost.nano()).collect();
    let each = 272 * 40_000 + 8 * 5_000;
    assert_eq!(costs, [each, each]);
}

/// Drafts whose picture never came: 100 tokens each (`contracts/openai-images.md`, section 1.1).
#[test]
fn drafts_alone_cost_their_own_tokens() {
    let drafts = |name: &str, input: &str, count, markup| {
        let model = model(name);
        let request = request(model, input);
        let found = price(model).drafts(&request, count, markup);
        let largest = price(model).largest(&request, markup).unwrap();
        found.inspect(|(_, charge)| assert!(charge.cost < largest, "{name}: {input}"))
    };
    let cost = |nano: i64| NanoUsd::from_nano(nano);
    let two = "stream=true partial_images=2";
    let (tokens, charge) = drafts("gpt-image-1", two, 2, 0).unwrap();
    assert_eq!((tokens, charge.cost), (200, cost(8_000_000)));
    assert_eq!(charge.upstream_cost, charge.cost);
    let (_, charge) = drafts("gpt-image-1", two, 1, 1_500).unwrap();
    assert_eq!(charge.upstream_cost, cost(4_000_000));
    assert_eq!(charge.cost, cost(4_600_000));
    // No more than were asked for, whatever a provider sends.
    assert_eq!(drafts("gpt-image-1", two, 1_000_000, 0).unwrap().0, 200);
    let three_pictures = "stream=true partial_images=2 n=3";
    let (tokens, _) = drafts("gpt-image-1", three_pictures, 5, 0).unwrap();
    assert_eq!(tokens, 500);
    assert_eq!(drafts("gpt-image-1", two, 0, 0), None);
    assert_eq!(drafts("gpt-image-1", "partial_images=2", 2, 0), None);
    // Priced as pictures alone, or painted without drafts.
    assert_eq!(drafts("dall-e-3", two, 2, 0), None);
    assert_eq!(drafts("flux-2-pro", two, 2, 0), None);
    assert_eq!(drafts("gemini-nano-banana-2.1", two, 2, 0), None);
}

#[test]
fn a_cap_never_charges_more_than_the_hold() {
    let charge = |text: &str| Charge {
        upstream_cost: usd(text),
        cost: usd(text),
    };
    let capped = |limit: &str| -> Vec<String> {
        let mut charges = [charge("0.3"), charge("0.3"), charge("0.3")];
        Charge::cap(&mut charges, usd(limit));
        assert!(
            charges
                .iter()
                .all(|charge| charge.upstream_cost == usd("0.3"))
        );
        charges
            .iter()
            .map(|charge| charge.cost.to_string())
            .collect()
    };
    assert_eq!(capped("1"), ["0.3", "0.3", "0.3"]);
    assert_eq!(capped("0.9"), ["0.3", "0.3", "0.3"]);
    assert_eq!(capped("0.5"), ["0.3", "0.2", "0"]);
    assert_eq!(capped("0"), ["0", "0", "0"]);
}

#[test]
fn a_free_size_of_the_sandbox_costs_what_every_picture_does() {
    check("sandbox", "size=640x480 n=3", 3, "0.003");
    check("sandbox", "size=auto quality=hd", 1, "0.001");
}

#[test]
fn listed_prices_are_exact_numbers() {
    for model in catalog().models() {
        let json = price(model).to_json(0);
        assert_eq!(json["currency"], "USD", "{}", model.id);
        let table = json["table"].as_array().unwrap();
        assert!(!table.is_empty());
        for row in table {
            // What JSON says, read back as text, is an amount.
            let text = row["price"].to_string();
            let text = text.strip_suffix(".0").unwrap_or(&text);
            assert!(usd(text) > NanoUsd::ZERO, "{}: {text}", model.id);
        }
    }
    let d3 = price(model("dall-e-3")).to_json(0);
    assert_eq!(d3["unit"], "image");
    assert_eq!(
        d3["table"][0].to_string(),
        r#"{"price":0.04,"quality":"standard","size":"1024x1024"}"#
    );
    assert_eq!(
        price(model("dall-e-3")).to_json(2_500)["table"][0]["price"].to_string(),
        "0.05"
    );
    assert_eq!(
        price(model("sandbox")).to_json(0)["table"].to_string(),
        r#"[{"price":0.001}]"#
    );
}

#[test]
fn statuses_are_those_of_the_contract() {
    for (name, status, shutdown) in [
        ("dall-e-2", "retired", Some("2026-05-12")),
        ("dall-e-3", "retired", Some("2026-05-12")),
        ("gpt-image-1", "retired", Some("2026-10-23")),
        ("gpt-image-1-mini", "deprecated", Some("2026-12-01")),
        ("gpt-image-1.5", "deprecated", Some("2026-12-01")),
        ("gpt-image-1.5-2025-12-16", "deprecated", Some("2026-12-01")),
        ("chatgpt-image-latest", "deprecated", Some("2026-12-01")),
        ("gpt-image-2", "active", None),
        ("gpt-image-2-2026-04-21", "active", None),
        ("gpt-image-2.5-flare", "active", None),
        ("gpt-image-2.5-flare-2026-09-08", "active", None),
        ("gpt-image-2.5-sunburst", "active", None),
        ("gpt-image-2.5-sunburst-2026-09-08", "active", None),
        ("gpt-image-2.6-flare", "active", None),
        ("gpt-image-2.6-sunburst", "active", None),
        ("sandbox", "active", None),
    ] {
        let model = model(name);
        assert_eq!(model.status.as_str(), status, "{name}");
        let date = model.status.shutdown_date().map(|date| date.to_string());
        assert_eq!(date.as_deref(), shutdown, "{name}");
    }
}

#[test]
fn openai_routes_say_what_the_adapter_must_send() {
    for name in OPENAI {
        let model = model(name);
        assert_eq!(model.id, format!("openai/{name}"));
        let [route] = model.routes.as_slice() else {
            panic!("{name} has one route");
        };
        assert_eq!(route.provider, "openai");
        assert_eq!(route.upstream_model, *name);
        for snapshot in &route.snapshots {
            assert!(snapshot.starts_with(&format!("{name}-20")), "{snapshot}");
            let pinned = super::model(snapshot);
            assert_eq!(pinned.id, model.id);
            assert_eq!(pinned.routes[0].upstream_model, *snapshot);
        }
        let dall_e = name.starts_with("dall-e");
        assert_eq!(route.streams, !dall_e);
        assert_eq!(
            route.translation.response_format.is_some(),
            dall_e,
            "{name}"
        );
        let sent: Vec<&str> = Parameter::ALL
            .iter()
            .filter(|parameter| route.translation.sends_default(**parameter))
            .map(|parameter| parameter.as_str())
            .collect();
        let expected: &[&str] = match *name {
            "dall-e-2" => &["size"],
            "dall-e-3" => &["size", "quality"],
            _ => &[],
        };
        assert_eq!(sent, expected, "{name}");
        let per_call = if *name == "dall-e-3" { 1 } else { 10 };
        assert_eq!(route.images_per_call.get(), per_call, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked of whatever model: as long as the provider reports what the bound foresees,
    /// the charges stay within the hold, and without a report they do too.
    #[test]
    fn charges_never_exceed_the_hold(
        index in 0_usize..64,
        size in 0_usize..6,
        quality in 0_usize..6,
        n in 1_u8..=10,
        partial_images in 0_u8..=3,
        kept in 0_usize..=10,
        markup in 0_u32..30_000,
        shares in prop::array::uniform6(0_u64..=1000),
        prompt in "\\PC{1,40}",
        painted in 0_usize..6,
        reported in prop::option::of(0_usize..6),
        drafts in 0_usize..40,
    ) {
        let models = catalog().models();
        let model = &models[index % models.len()];
        let mut params = super::params("");
        let mut asked = vec![
            format!("n={n}"),
            format!("partial_images={partial_images}"),
            format!("stream={}", drafts % 2 == 0),
            format!("size={}", ["auto", "1024x1024", "1536x1024", "512x512", "3072x1024", "2880x2880"][size]),
            format!("quality={}", Quality::ALL[quality]),
        ];
        // Leave out what this model does not take; the rest is a legal request.
        asked.retain(|word| model.rules.check(&super::params(word), Unsupported::Reject).is_ok());
        params.extend(super::params(&asked.join(" ")));
        params.insert(crate::catalog::Parameter::Prompt, crate::catalog::Value::Text(prompt));
        let (request, _) = model.rules.check(&params, Unsupported::Reject).unwrap();

        let announced = usize::from(request.n.get());
        let bound = price(model).usage_bound(&request).unwrap();
        // Megapixels are charged as they came, which only the cap keeps within the hold.
        let side = if bound.is_some() { [1024, 512, 1536, 2048, 2880, 4096][painted] } else { 1024 };
        let sizes = vec![ImageSize::new(1024, side).unwrap(); kept.min(announced)];
        let usage = bound.map(|bound| {
            let part = |most: u64, share: u64| most * u64::from(request.n.get()) * share / 1000;
            let input_text = part(bound.input_text, shares[0]);
            let input_image = part(bound.input_image, shares[1]);
            TokenUsage {
                input_text,
                input_image,
                cached_text: input_text * shares[4] / 1000,
                cached_image: input_image * shares[5] / 1000,
                output_text: part(bound.output_text, shares[2]),
                output_image: part(bound.output_image, shares[3]),
            }
        });
        let largest = price(model).largest(&request, markup).unwrap();
        for usage in [usage.as_ref(), None] {
            let delivered = Delivered {
                sizes: &sizes,
                announced,
                usage,
                quality: reported.map(|quality| Quality::ALL[quality]),
                partial_images: drafts,
            };
            let charges = price(model).charges(&request, &delivered, markup).unwrap();
            prop_assert_eq!(charges.len(), sizes.len());
            let sum = NanoUsd::sum(charges.iter().map(|charge| charge.cost)).unwrap();
            prop_assert!(sum <= largest, "{} of {}: {sum} above {largest}", model.id, asked.join(" "));
        }
    }
}

/// Without a report the picture itself says what it cost: its size, its quality and the drafts before it.
#[test]
fn a_picture_without_a_report_costs_what_its_own_size_does() {
    let costs = |name: &str, input: &str, sizes: &[&str], quality, partial_images| -> Vec<i64> {
        let model = model(name);
        let sizes: Vec<ImageSize> = sizes.iter().map(|size| size.parse().unwrap()).collect();
        let delivered = Delivered {
            sizes: &sizes,
            announced: sizes.len(),
            usage: None,
            quality,
            partial_images,
        };
        let charges = price(model).charges(&request(model, input), &delivered, 0);
        let charges = charges.unwrap();
        charges.iter().map(|charge| charge.cost.nano()).collect()
    };
    let text = 8 * 5_000;
    // Size and quality left to the provider (`contracts/openai-images.md`, section 10, the second table).
    let sizes = ["1024x1024", "1536x1024", "2048x2048"];
    for (input, quality, tokens) in [
        ("n=3", None, [7_024, 5_488, 14_272]),
        ("n=3", Some(Quality::Auto), [7_024, 5_488, 14_272]),
        ("n=3", Some(Quality::Medium), [1_756, 1_372, 3_568]),
        ("n=3 quality=low", None, [196, 158, 397]),
        // Words of other models say nothing, and nothing is charged beyond what was held.
        ("n=3 quality=low", Some(Quality::Hd), [196, 158, 397]),
        ("n=3 quality=low", Some(Quality::High), [659, 659, 659]),
        ("n=3 quality=high", Some(Quality::Low), [196, 158, 397]),
    ] {
        let expected = tokens.map(|tokens| tokens * 30_000 + text);
        let found = costs("gpt-image-2", input, &sizes, quality, 0);
        assert_eq!(found, expected, "{input} {quality:?}");
    }
    // More than the size asked for is the provider's affair, and a size that no row knows is the largest.
    let larger = costs(
        "gpt-image-2",
        "size=1024x1024 quality=low",
        &["2048x2048"],
        None,
        0,
    );
    assert_eq!(larger, [196 * 30_000 + text]);
    let odd = costs("gpt-image-1", "quality=low", &["1000x1000"], None, 0);
    assert_eq!(odd, [408 * 40_000 + text]);
    // The frame of an animation says nothing of its sheet.
    let frame = costs(
        "gpt-image-2.6-flare",
        "output_format=gif quality=low",
        &["64x64"],
        None,
        0,
    );
    let sheet = price(model("gpt-image-2.6-flare"))
        .usage_bound(&request(model("gpt-image-2.6-flare"), "quality=low"))
        .unwrap()
        .unwrap();
    let sheet = i64::try_from(sheet.output_image).unwrap();
    assert!(frame[0] > sheet * 30_000, "{frame:?} {sheet}");
    // A hundred tokens for each draft that came and was asked for, shared among the pictures.
    for (input, came, drafts) in [
        ("quality=low stream=true partial_images=3", 3, 3),
        ("quality=low stream=true partial_images=3", 2, 2),
        ("quality=low stream=true partial_images=3", 0, 0),
        ("quality=low stream=true partial_images=2", 9, 2),
        ("quality=low partial_images=3", 3, 0),
    ] {
        let found = costs("gpt-image-2", input, &["1024x1024"], None, came);
        assert_eq!(
            found,
            [(196 + 100 * drafts) * 30_000 + text],
            "{input}: {came}"
        );
    }
}

#[test]
fn drafts_cost_nothing_where_none_are_painted() {
    for model in catalog().models() {
        for route in &model.routes {
            let largest = |input: &str| route.price.largest(&request(model, input), 0).unwrap();
            let asked = largest("stream=true partial_images=3");
            assert_eq!(largest("partial_images=3"), largest(""), "{}", model.id);
            let is_dearer =
                route.streams && route.price.usage_bound(&request(model, "")) != Ok(None);
            assert_eq!(asked > largest(""), is_dearer, "{}", model.id);
        }
    }
}

#[test]
fn a_price_per_token_does_not_cover_what_is_billed_apart() {
    for (name, input, expected) in [
        ("gpt-image-2.6-flare", "output_format=svg", false),
        ("gpt-image-2.6-flare", "output_format=gif", true),
        ("gpt-image-2.6-flare", "", true),
        ("gpt-image-2", "output_format=webp", true),
        ("dall-e-2", "", true),
    ] {
        let model = model(name);
        let request = request(model, input);
        assert_eq!(
            model.routes[0].price.covers(&request),
            expected,
            "{name} {input}"
        );
    }
}
