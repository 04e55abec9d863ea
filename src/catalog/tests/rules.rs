use proptest::prelude::*;

use super::{OPENAI, catalog, model, params, request};
use crate::catalog::{
    Background, Catalog, ImageSize, InputPicture, InputPictures, OutputFormat, Parameter, Params,
    Quality, ResponseFormat, Setting, SizeChoice, Unsupported, Value,
};

/// `Ok` for accepted, else the parameter at fault and the code.
type Verdict<'a> = Result<(), (&'a str, &'a str)>;

const UNKNOWN: &str = "unknown_parameter";
const INVALID: &str = "invalid_value";
const ABOVE: &str = "integer_above_max_value";
const BELOW: &str = "integer_below_min_value";

fn check(name: &str, input: &str, expected: Verdict<'_>) {
    let checked = model(name).rules.check(&params(input), Unsupported::Reject);
    let found = match &checked {
        Ok(_) => Ok(()),
        Err(violation) => Err((violation.parameter.as_str(), violation.code)),
    };
    assert_eq!(found, expected, "{name}: {input}");
}

fn check_message(name: &str, params: &Params, expected: &str) {
    let refused = model(name)
        .rules
        .check(params, Unsupported::Reject)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused.message, expected, "{name}");
}

#[test]
fn dall_e_2_takes_what_it_took() {
    for accepted in [
        "",
        "n=1",
        "n=10",
        "size=256x256",
        "size=512x512",
        "size=1024x1024",
        "quality=standard",
        "response_format=url",
        "response_format=b64_json",
        "user=u safety_identifier=s",
        // Easel's own: a stream of one event.
        "stream=true partial_images=0",
    ] {
        check("dall-e-2", accepted, Ok(()));
    }
    for (refused, parameter, code) in [
        ("n=0", "n", BELOW),
        ("n=-1", "n", BELOW),
        ("n=11", "n", ABOVE),
        ("n=300", "n", ABOVE),
        ("size=1792x1024", "size", INVALID),
        ("size=auto", "size", INVALID),
        ("size=1024X1024", "size", INVALID),
        ("quality=hd", "quality", INVALID),
        ("quality=auto", "quality", INVALID),
        ("response_format=base64", "response_format", INVALID),
        ("style=vivid", "style", UNKNOWN),
        ("background=auto", "background", UNKNOWN),
        ("moderation=auto", "moderation", UNKNOWN),
        ("output_format=png", "output_format", UNKNOWN),
        ("output_compression=100", "output_compression", UNKNOWN),
        ("complexity=low", "complexity", UNKNOWN),
        ("frame_count=9", "frame_count", UNKNOWN),
        ("svg=m", "svg", UNKNOWN),
    ] {
        check("dall-e-2", refused, Err((parameter, code)));
    }
}

#[test]
fn dall_e_3_takes_what_it_took() {
    for accepted in [
        "",
        "n=1",
        "size=1024x1024",
        "size=1792x1024",
        "size=1024x1792",
        "quality=standard",
        "quality=hd",
        "style=vivid",
        "style=natural quality=hd size=1024x1792 response_format=b64_json",
        "stream=true partial_images=3",
    ] {
        check("dall-e-3", accepted, Ok(()));
    }
    for (refused, parameter, code) in [
        ("n=2", "n", ABOVE),
        // OpenAI's own code for it (`contracts/openai-images.md`, section 6).
        ("size=512x512", "size", "invalid_size"),
        ("size=1536x1024", "size", "invalid_size"),
        ("quality=high", "quality", INVALID),
        ("style=Vivid", "style", INVALID),
        ("background=transparent", "background", UNKNOWN),
        ("partial_images=4", "partial_images", ABOVE),
    ] {
        check("dall-e-3", refused, Err((parameter, code)));
    }
}

/// `contracts/stability.md`, 7.2: the table of sizes.
#[test]
fn stability_takes_any_size_of_its_shapes_but_two() {
    for name in ["stable-image-ultra", "stable-image-core", "sd3.5-large"] {
        for accepted in [
            "",
            "size=auto",
            "size=1024x1024",
            "size=1536x1024",
            "size=1024x1536",
            "size=1792x1024",
            "size=1024x1792",
            "size=21:9",
            "size=64x64",
            "size=640x360",
            "size=3840x2160",
            "size=8000x8000",
            "size=1000x1019",
        ] {
            check(name, accepted, Ok(()));
        }
        for refused in [
            "size=256x256",
            "size=512x512",
            "size=1024x768",
            "size=1000x1021",
            "size=4:3",
        ] {
            check(name, refused, Err(("size", INVALID)));
        }
    }
}

/// Who cannot stream answers with the final event alone, so that one client fits every model (design, 1).
#[test]
fn every_model_takes_a_stream() {
    for model in catalog().models() {
        for accepted in [
            "stream=false",
            "stream=true",
            "stream=true partial_images=0",
            "stream=true partial_images=3",
            "partial_images=3",
        ] {
            check(&model.id, accepted, Ok(()));
        }
        check(
            &model.id,
            "stream=true partial_images=4",
            Err(("partial_images", ABOVE)),
        );
        let edits = model.rules.edits();
        assert!(
            edits.is_none_or(
                |edits| edits.takes(Parameter::Stream) && edits.takes(Parameter::PartialImages)
            ),
            "{}",
            model.id
        );
        // A form of OpenAI's that never had it (`contracts/openai-images.md`, 4.3).
        if model.id.starts_with("openai/") {
            let variations = model.rules.variations();
            assert!(variations.is_none_or(|variations| !variations.takes(Parameter::Stream)));
        }
    }
}

#[test]
fn the_whole_gpt_image_family_shares_its_rules() {
    for name in OPENAI.iter().filter(|name| name.contains("gpt")) {
        for accepted in [
            "",
            "n=10 size=auto quality=auto",
            "size=1024x1024 quality=low",
            "size=1536x1024 quality=medium",
            "size=1024x1536 quality=high",
            "response_format=url",
            "response_format=b64_json",
            "background=transparent",
            "background=transparent output_format=png",
            "background=transparent output_format=webp",
            "background=opaque output_format=jpeg",
            "output_compression=0 output_format=jpeg",
            "output_compression=100 output_format=webp",
            "moderation=low",
            "stream=true partial_images=3",
            "partial_images=0",
            "user=u safety_identifier=s",
        ] {
            check(name, accepted, Ok(()));
        }
        for (refused, parameter, code) in [
            ("n=11", "n", ABOVE),
            ("quality=standard", "quality", INVALID),
            ("quality=hd", "quality", INVALID),
            ("style=vivid", "style", UNKNOWN),
            ("background=none", "background", INVALID),
            // 1.3, point 1.
            (
                "background=transparent output_format=jpeg",
                "background",
                INVALID,
            ),
            // 1.3, point 2; the format is png when none is asked for.
            ("output_compression=80", "output_compression", INVALID),
            (
                "output_compression=80 output_format=png",
                "output_compression",
                INVALID,
            ),
            (
                "output_compression=101 output_format=jpeg",
                "output_compression",
                ABOVE,
            ),
            (
                "output_compression=-1 output_format=jpeg",
                "output_compression",
                BELOW,
            ),
            ("moderation=high", "moderation", INVALID),
            ("partial_images=4 stream=true", "partial_images", ABOVE),
            ("output_format=bmp", "output_format", INVALID),
        ] {
            check(name, refused, Err((parameter, code)));
        }
    }
}

#[test]
fn generations_of_gpt_image_differ_where_the_contract_says() {
    let family = |part: &'static str| OPENAI.iter().filter(move |name| name.contains(part));
    for name in OPENAI {
        let free =
            ["-2", "2.5", "2.6"].iter().any(|part| name.contains(part)) && !name.contains("dall-e");
        let sizes = if free { Ok(()) } else { Err(("size", INVALID)) };
        for size in [
            "2048x2048",
            "3840x2160",
            "2160x3840",
            "2880x2880",
            "1792x1024",
        ] {
            if !name.contains("dall-e") {
                check(name, &format!("size={size}"), sizes);
            }
        }
        let many = if name.contains("2.5") || name.contains("2.6") {
            Ok(())
        } else {
            Err(("quality", INVALID))
        };
        check(name, "quality=xhigh", many);
        check(name, "quality=max", many);
    }
    for name in family("gpt").filter(|name| !name.contains("2.6")) {
        check(name, "output_format=gif", Err(("output_format", INVALID)));
        check(name, "output_format=svg", Err(("output_format", INVALID)));
        check(name, "complexity=low", Err(("complexity", UNKNOWN)));
        check(name, "frame_count=9", Err(("frame_count", UNKNOWN)));
        check(
            name,
            "frame_duration_ms=200",
            Err(("frame_duration_ms", UNKNOWN)),
        );
        check(name, "svg=m", Err(("svg", UNKNOWN)));
    }
    for name in family("2.6") {
        for (input, expected) in [
            ("complexity=high", Ok(())),
            ("complexity=max", Err(("complexity", INVALID))),
            // 1.3, point 5.
            ("output_format=gif", Ok(())),
            (
                "output_format=gif frame_count=2 frame_duration_ms=20",
                Ok(()),
            ),
            ("output_format=gif frame_count=16 stream=false", Ok(())),
            ("frame_count=9", Err(("frame_count", INVALID))),
            (
                "frame_duration_ms=200 output_format=png",
                Err(("frame_duration_ms", INVALID)),
            ),
            (
                "output_format=gif frame_count=1",
                Err(("frame_count", BELOW)),
            ),
            (
                "output_format=gif frame_count=17",
                Err(("frame_count", ABOVE)),
            ),
            (
                "output_format=gif frame_duration_ms=19",
                Err(("frame_duration_ms", BELOW)),
            ),
            (
                "output_format=gif frame_duration_ms=655351",
                Err(("frame_duration_ms", ABOVE)),
            ),
            (
                "output_format=gif stream=true",
                Err(("output_format", INVALID)),
            ),
            (
                "output_format=gif partial_images=1",
                Err(("output_format", INVALID)),
            ),
            (
                "output_format=gif output_compression=80",
                Err(("output_compression", INVALID)),
            ),
            // 1.3, point 6.
            ("output_format=svg", Ok(())),
            ("output_format=svg svg=gpt-6", Ok(())),
            ("svg=gpt-6", Err(("svg", INVALID))),
            ("output_format=svg n=2", Err(("output_format", INVALID))),
            (
                "output_format=svg stream=true",
                Err(("output_format", INVALID)),
            ),
            (
                "output_format=svg partial_images=1",
                Err(("output_format", INVALID)),
            ),
            (
                "output_format=svg output_compression=80",
                Err(("output_compression", INVALID)),
            ),
            (
                "output_format=svg background=transparent",
                Err(("background", INVALID)),
            ),
        ] {
            check(name, input, expected);
        }
    }
}

// `contracts/openai-images.md`, 1.2.
#[test]
fn free_sizes_have_limits() {
    for name in [
        "gpt-image-2",
        "gpt-image-2.5-flare",
        "gpt-image-2.6-sunburst",
    ] {
        for (size, legal) in [
            ("1024x640", true),
            ("1024x624", false),
            ("512x512", false),
            ("816x816", true),
            ("800x800", false),
            ("3840x2160", true),
            ("3840x2176", false),
            ("3856x1600", false),
            ("1792x936", false),
            ("1000x1024", false),
            ("3072x1024", true),
            ("3088x1024", false),
            ("1024x3072", true),
            ("1024x3088", false),
            ("99999x99999", false),
            ("1024", false),
            ("", false),
        ] {
            let expected = if legal {
                Ok(())
            } else {
                Err(("size", INVALID))
            };
            check(name, &format!("size={size}"), expected);
        }
    }
}

#[test]
fn the_sandbox_takes_nearly_everything() {
    for accepted in [
        "size=640x480 n=10 quality=hd style=natural",
        "size=auto quality=low output_format=webp background=transparent output_compression=50",
        "size=4096x4096",
    ] {
        check("sandbox", accepted, Ok(()));
    }
    check("sandbox", "size=8x8", Err(("size", INVALID)));
    check("sandbox", "size=4097x16", Err(("size", INVALID)));
    check(
        "sandbox",
        "output_format=gif",
        Err(("output_format", INVALID)),
    );
}

// `contracts/stability.md`, 2.2 and 7.2.
#[test]
fn stability_takes_fields_of_its_own() {
    for accepted in [
        "seed=0",
        "seed=4294967294",
        "style_preset=3d-model",
        "cfg_scale=1",
        "cfg_scale=9.999",
        "cfg_scale=10",
        "negative_prompt=fog",
        "aspect_ratio=21:9",
        "size=9:21",
        "size=1:1",
    ] {
        check("sd3.5-flash", accepted, Ok(()));
    }
    for (refused, parameter, code) in [
        ("seed=-1", "seed", BELOW),
        ("seed=4294967295", "seed", ABOVE),
        ("style_preset=vivid", "style_preset", INVALID),
        ("cfg_scale=0.999", "cfg_scale", "decimal_below_min_value"),
        (
            "cfg_scale=10.000001",
            "cfg_scale",
            "decimal_above_max_value",
        ),
        ("aspect_ratio=4:3", "aspect_ratio", INVALID),
        ("size=4:3", "size", INVALID),
        ("aspect_ratio=1:1 size=1024x1024", "aspect_ratio", INVALID),
    ] {
        check("sd3.5-flash", refused, Err((parameter, code)));
    }
    let core = "stable-image-core";
    check(core, "cfg_scale=4", Err(("cfg_scale", UNKNOWN)));
    for stranger in [
        "seed=1",
        "aspect_ratio=1:1",
        "negative_prompt=x",
        "cfg_scale=4",
    ] {
        let name = stranger.split_once('=').unwrap().0;
        check("gpt-image-1", stranger, Err((name, UNKNOWN)));
    }
    check("gpt-image-1", "size=1:1", Err(("size", INVALID)));
    let wide = request(model(core), "aspect_ratio=16:9");
    assert_eq!(wide.size.value.to_string(), "16:9");
    assert!(wide.size.given);
}

#[test]
fn prompts_are_counted_in_characters() {
    for model in catalog().models() {
        let max = model.rules.to_json()["prompt"]["max_characters"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap();
        let prompt = |text: String| {
            model
                .rules
                .check(
                    &Params::from([(Parameter::Prompt, Value::Text(text))]),
                    Unsupported::Reject,
                )
                .map(|_| ())
                .map_err(|violation| violation.code)
        };
        // Four bytes a character, and one scalar value outside the basic plane.
        assert_eq!(prompt("🐈".repeat(max)), Ok(()), "{}", model.id);
        assert_eq!(
            prompt("🐈".repeat(max + 1)),
            Err("string_above_max_length"),
            "{}",
            model.id
        );
        assert_eq!(prompt("x".repeat(max)), Ok(()));
        assert_eq!(prompt(String::new()), Err("empty_string"));
        let none = model.rules.check(&Params::new(), Unsupported::Reject);
        assert_eq!(
            none.map(|_| ()).unwrap_err().code,
            "missing_required_parameter"
        );
    }
    for (name, max) in [
        ("dall-e-2", 1000),
        ("dall-e-3", 4000),
        ("gpt-image-2", 32_000),
    ] {
        let json = model(name).rules.to_json();
        assert_eq!(json["prompt"]["max_characters"], max, "{name}");
    }
}

#[test]
fn messages_say_what_value_and_what_instead() {
    for (name, input, expected) in [
        (
            "gpt-image-1",
            "quality=standard",
            "Invalid value for 'quality': 'standard'. Supported values are: 'low', 'medium', 'high', \
             and 'auto'.",
        ),
        (
            "dall-e-2",
            "n=11",
            "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 instead.",
        ),
        (
            "dall-e-2",
            "n=0",
            "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
        (
            "dall-e-2",
            "style=vivid",
            "Unknown parameter: 'style'. This model does not take it. It takes 'prompt', 'n', 'size', \
             'quality', 'response_format', 'stream', 'partial_images', 'safety_identifier', and 'user'.",
        ),
        (
            "gpt-image-2",
            "size=1792x936",
            "Invalid value for 'size': '1792x936'. Supported values are: '1024x1024', '1536x1024', \
             '1024x1536', 'auto', and any WIDTHxHEIGHT with both sides divisible by 16, no side above \
             3840, 655360 to 8294400 pixels in all, and no slimmer than 3:1.",
        ),
        (
            "gpt-image-1",
            "background=transparent output_format=jpeg",
            "Invalid value for 'background': 'transparent'. It needs 'output_format' to be 'png' or \
             'webp', but that is 'jpeg'.",
        ),
        (
            "gpt-image-1",
            "output_compression=80",
            "Invalid value for 'output_compression': 80. It needs 'output_format' to be 'jpeg' or \
             'webp', but that is 'png' by default.",
        ),
        (
            "gpt-image-2.6-flare",
            "svg=gpt-6",
            "Invalid value for 'svg': an object. It needs 'output_format' to be 'svg', but that is 'png' by \
             default.",
        ),
    ] {
        check_message(name, &params(input), expected);
    }
    check_message(
        "dall-e-3",
        &Params::new(),
        "Missing required parameter: 'prompt'.",
    );
    check_message(
        "dall-e-3",
        &Params::from([(Parameter::Prompt, Value::Text("é".repeat(4001)))]),
        "Invalid 'prompt': string too long. Expected a string with maximum length 4000, but got a \
         string with length 4001 instead.",
    );
    check_message(
        "dall-e-3",
        &Params::from([(Parameter::Prompt, Value::Integer(5))]),
        "Invalid type for 'prompt': expected a string, but got an integer instead.",
    );
    let mut long = params("");
    long.insert(Parameter::Quality, Value::Text("é".repeat(65)));
    check_message(
        "dall-e-3",
        &long,
        &format!(
            "Invalid value for 'quality': '{}…'. Supported values are: 'standard' and 'hd'.",
            "é".repeat(64)
        ),
    );
}

#[test]
fn names_nobody_knows_are_refused_in_the_same_words() {
    let refused = model("dall-e-2").rules.unknown_parameter("qualty");
    assert_eq!(refused.code, UNKNOWN);
    assert_eq!(refused.parameter, "qualty");
    assert_eq!(
        refused.message,
        "Unknown parameter: 'qualty'. This model does not take it. Did you mean 'quality'? It takes \
         'prompt', 'n', 'size', 'quality', 'response_format', 'stream', 'partial_images', \
         'safety_identifier', and 'user'."
    );
}

#[test]
fn the_first_violation_is_the_first_in_order() {
    check("dall-e-2", "user=u style=vivid n=99", Err(("n", ABOVE)));
    check(
        "dall-e-2",
        "moderation=low style=vivid",
        Err(("style", UNKNOWN)),
    );
    check(
        "gpt-image-1",
        "output_compression=80 partial_images=9",
        Err(("partial_images", ABOVE)),
    );
}

#[test]
fn only_parameters_without_a_rule_are_dropped() {
    let dropping = |name: &str, input: &str| {
        model(name)
            .rules
            .check(&params(input), Unsupported::Drop)
            .map(|(_, dropped)| dropped)
            .map_err(|violation| violation.code)
    };
    assert_eq!(
        dropping("dall-e-2", "style=vivid moderation=low stream=true n=2"),
        Ok(vec![Parameter::Style, Parameter::Moderation])
    );
    assert_eq!(dropping("dall-e-2", "style=vivid n=11"), Err(ABOVE));
    assert_eq!(dropping("dall-e-2", "quality=hd"), Err(INVALID));
    assert_eq!(
        dropping("gpt-image-1", "background=transparent output_format=jpeg"),
        Err(INVALID)
    );
    assert_eq!(dropping("gpt-image-1", ""), Ok(Vec::new()));
}

#[test]
fn defaults_are_filled_in_and_known_as_such() {
    let dall_e_3 = request(model("dall-e-3"), "");
    assert_eq!(dall_e_3.n.get(), 1);
    assert_eq!(dall_e_3.response_format, ResponseFormat::Url);
    assert_eq!(
        dall_e_3.quality,
        Some(Setting {
            value: Quality::Standard,
            given: false
        })
    );
    assert_eq!(dall_e_3.size.value.to_string(), "1024x1024");
    assert!(!dall_e_3.size.given);
    assert_eq!(dall_e_3.background, None);

    let gpt = request(model("gpt-image-2"), "quality=low stream=true user=me");
    assert_eq!(gpt.response_format, ResponseFormat::B64Json);
    assert_eq!(gpt.size.value, SizeChoice::Auto);
    assert_eq!(
        gpt.quality,
        Some(Setting {
            value: Quality::Low,
            given: true
        })
    );
    assert_eq!(
        gpt.background.and_then(Setting::if_given),
        None::<Background>
    );
    assert_eq!(gpt.output_format.unwrap().value, OutputFormat::Png);
    assert_eq!(gpt.output_compression.unwrap().value, 100);
    assert!(gpt.stream);
    assert_eq!(gpt.user.as_deref(), Some("me"));
    assert_eq!(gpt.style, None);
}

#[test]
fn base64_is_the_default_of_the_gpt_image_family_alone() {
    for model in catalog().models() {
        let expected = if model.id.contains("gpt") {
            ResponseFormat::B64Json
        } else {
            ResponseFormat::Url
        };
        assert_eq!(request(model, "").response_format, expected, "{}", model.id);
        assert_eq!(
            request(model, "response_format=url").response_format,
            ResponseFormat::Url
        );
    }
}

#[test]
fn a_request_without_a_model_gets_the_documented_one() {
    for (input, expected) in [
        ("", "dall-e-2"),
        ("n=2 size=512x512 quality=standard user=u", "dall-e-2"),
        ("style=vivid", "dall-e-2"),
        ("background=auto", "gpt-image-1"),
        ("stream=true", "gpt-image-1"),
        ("moderation=low", "gpt-image-1"),
        ("output_format=webp", "gpt-image-1"),
    ] {
        assert_eq!(Catalog::default_model(&params(input)), expected, "{input}");
    }
    // The list of parameters agrees with the rules: what sends a request to gpt-image-1 is taken by
    // some model of its family and by no DALL·E, but for streams: those of DALL·E are Easel's own.
    let streams = [Parameter::Stream, Parameter::PartialImages];
    for parameter in streams {
        let alone = Params::from([(parameter, Value::Flag(true))]);
        assert_eq!(Catalog::default_model(&alone), "gpt-image-1");
    }
    for &parameter in Parameter::ALL
        .iter()
        .filter(|other| !streams.contains(other))
    {
        let alone = Params::from([(parameter, Value::Flag(true))]);
        let taken_by = |part: &str| {
            catalog()
                .models()
                .iter()
                .any(|model| model.id.contains(part) && model.rules.takes(parameter))
        };
        assert_eq!(
            Catalog::default_model(&alone) == "gpt-image-1",
            taken_by("gpt-image") && !taken_by("dall-e"),
            "{}",
            parameter.as_str()
        );
    }
}

proptest! {
    // Said again in the contract's words rather than the rule's.
    #[test]
    fn free_sizes_are_those_of_the_contract(width in 1_u32..4200, height in 1_u32..4200, snap in any::<bool>()) {
        let snapped = |edge: u32| if snap { (edge / 16 * 16).max(16) } else { edge };
        let (width, height) = (snapped(width), snapped(height));
        let legal = width % 16 == 0
            && height % 16 == 0
            && width.max(height) <= 3840
            && width.max(height) <= 3 * width.min(height)
            && (655_360..=8_294_400).contains(&(width * height));
        let size = ImageSize::new(width, height).unwrap();
        let found = model("gpt-image-2").rules.check(&params(&format!("size={size}")), Unsupported::Reject);
        prop_assert_eq!(found.is_ok(), legal, "{}", size);
    }
}

/// Stability's body holds the picture and the mask (contract, section 7.2), and what inpaint takes has 9,437,184 pixels
/// whoever says where to edit (section 2.4); Google's body holds all pictures (contract, section 6).
#[test]
fn pictures_are_weighed_together() {
    let picture = |size: &str, size_bytes| InputPicture {
        format: OutputFormat::Png,
        size: Some(size.parse().unwrap()),
        size_bytes,
        has_alpha: Some(true),
    };
    let check = |name: &str, images: &[InputPicture], mask: Option<&InputPicture>| {
        let model = model(name);
        let rules = model.rules.edits().unwrap();
        let params = params("");
        let (request, _) = rules.check(&params, Unsupported::Reject).unwrap();
        let pictures = InputPictures { images, mask };
        let checked = rules.check_pictures(&pictures, &params, &request);
        checked.map_err(|violation| (violation.parameter, violation.code))
    };
    let too_much = Err(("image".to_owned(), "file_above_max_size"));
    let core = "stability/stable-image-core";
    let (image, mask) = (
        picture("1024x1024", 10_000_000),
        picture("1024x1024", 354_688),
    );
    assert_eq!(check(core, &[image], Some(&mask)), Ok(()));
    let mask = picture("1024x1024", 354_689);
    assert_eq!(check(core, &[image], Some(&mask)), too_much.clone());
    assert_eq!(check(core, &[picture("3072x3072", 1000)], None), Ok(()));
    let too_large = Err(("image".to_owned(), "invalid_image_size"));
    assert_eq!(check(core, &[picture("3073x3072", 1000)], None), too_large);
    let google = "google/gemini-nano-banana-2.1";
    let half = picture("1024x1024", 7_500_000);
    assert_eq!(check(google, &[half, half], None), Ok(()));
    let more = picture("1024x1024", 7_500_001);
    assert_eq!(check(google, &[half, more], None), too_much);
}
