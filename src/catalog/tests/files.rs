use std::{fs, path::Path};

use crate::catalog::Catalog;

const STANZA: &str = r#"[[model]]
id = "maker/model"
name = "Model"
aliases = ["model"]
created = 1
owned_by = "maker"
status = "active"

[model.rules]
prompt = { max_chars = 10 }
n = { min = 1, max = 4, default = 1 }
size = { values = ["64x64", "128x64"], default = "64x64" }
quality = { values = ["low", "high"], default = "low" }
response_format = { values = ["url", "b64_json"], default = "url" }

[[model.routes]]
provider = "maker"
upstream_model = "model-1"
price.per_image = [
  { quality = "low", price = "0.01" },
  { quality = "high", sizes = ["64x64", "128x64"], price = "0.02" },
]
"#;

/// Loads a directory that holds these files.
fn load(files: &[(&str, &str)]) -> Result<Catalog, String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    Catalog::load(Some(directory.path())).map_err(|error| {
        let place = format!("{}/", directory.path().display());
        error.to_string().replace(&place, "")
    })
}

/// What loading says of the stanza with `from` replaced by `to`; an empty `from` adds `to` at the end.
fn check(from: &str, to: &str, expected: &str) {
    let text = if from.is_empty() {
        format!("{STANZA}{to}")
    } else {
        assert_eq!(STANZA.matches(from).count(), 1, "{from}");
        STANZA.replace(from, to)
    };
    let found = match load(&[("a.toml", &text)]) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error,
    };
    assert_eq!(found, expected, "{from} -> {to}");
}

#[test]
fn a_whole_stanza_loads() {
    check("Model\"\n", "Another\"\n", "ok");
    let catalog = load(&[("a.toml", STANZA), ("ignored.txt", "?")]).unwrap();
    let model = catalog.find("MODEL").unwrap();
    assert_eq!(model.id, "maker/model");
    assert_eq!(model.routes[0].images_per_call.get(), 1);
    assert!(!model.routes[0].streams);
    assert_eq!(catalog.models().last().unwrap().id, "maker/model");
}

#[test]
fn unknown_keys_are_refused_with_line_and_the_nearest_known_one() {
    check(
        "owned_by =",
        "ownedby =",
        "a.toml:6: unknown key 'ownedby', did you mean 'owned_by'? (known: id, name, aliases, \
         created, owned_by, status, shutdown_date, generates, rules, routes)",
    );
    check(
        "max_chars",
        "max_char",
        "a.toml:10: unknown key 'max_char', did you mean 'max_chars'? (known: max_chars)",
    );
    check(
        "{ quality = \"low\", price",
        "{ qualty = \"low\", price",
        "a.toml:20: unknown key 'qualty', did you mean 'quality'? (known: sizes, max_pixels, \
         quality, price)",
    );
    check(
        "upstream_model =",
        "upstream_modle =",
        "a.toml:18: unknown key 'upstream_modle', did you mean 'upstream_model'? (known: \
         provider, upstream_model, snapshots, serves, images_per_call, streams, translation, \
         markup_basis_points, price, edits, variations)",
    );
    check(
        "",
        "[[modle]]\n",
        "a.toml:23: unknown key 'modle', did you mean 'model'? (known: model)",
    );
    check(
        "price.per_image",
        "price.per_imge",
        "a.toml:19: unknown word 'per_imge', did you mean 'per_image'? (known: per_image, \
         per_megapixel, per_token)",
    );
}

#[test]
fn wrong_values_are_refused_with_their_line() {
    check(
        "\"0.01\"",
        "\"0.0000000001\"",
        "a.toml:20: '0.0000000001' is not an amount in USD: use plain decimals such as 12.50, at \
         most nine digits after the point",
    );
    check(
        "\"0.01\"",
        "0.01",
        "a.toml:20: invalid type: floating point '0.01', expected a string",
    );
    check(
        "[\"low\", \"high\"]",
        "[\"low\", \"higher\"]",
        "a.toml:13: 'higher' is not one of auto, standard, hd, low, medium, high, xhigh, max",
    );
    check(
        "\"128x64\"], default",
        "\"128*64\"], default",
        "a.toml:12: '128*64' is not one of auto, WIDTHxHEIGHT in pixels, ratios such as 16:9",
    );
    check(
        "max = 4",
        "max = 400",
        "a.toml:11: invalid value: integer '400', expected a nonzero u8",
    );
    check("created = 1", "", "a.toml:1: missing key 'created'");
    check(
        "\"active\"",
        "\"actve\"",
        "a.toml:7: unknown word 'actve', did you mean 'active'? (known: active, deprecated, \
         retired)",
    );
    check(
        "status = \"active\"",
        "status = \"retired\"\nshutdown_date = \"yesterday\"",
        "a.toml:8: input contains invalid characters",
    );
}

#[test]
fn a_model_without_a_price_does_not_load() {
    let price = &STANZA[STANZA.find("price.per_image").unwrap()..];
    check(
        price,
        "",
        "a.toml:1: model 'maker/model': route of provider 'maker': no 'price': a model without a \
         price is not served",
    );
    let routes = &STANZA[STANZA.find("[[model.routes]]").unwrap()..];
    check(
        routes,
        "",
        "a.toml:1: model 'maker/model': no [[model.routes]], so nobody serves it",
    );
    check(
        ", \"128x64\"], price",
        "], price",
        "a.toml:1: model 'maker/model': route of provider 'maker': no price for size 128x64 and \
         quality high",
    );
    check(
        "\"high\"], default = \"low\"",
        "\"high\"]",
        "a.toml:1: model 'maker/model': route of provider 'maker': no price for size 64x64 and \
         quality none",
    );
    check(
        "[\"64x64\", \"128x64\"], default = \"64x64\"",
        "[\"64x64\", \"auto\"], default = \"auto\"",
        "a.toml:1: model 'maker/model': route of provider 'maker': no price for size auto and \
         quality high",
    );
    check(
        "default = \"64x64\" }",
        "default = \"64x64\", ratios = { values = [\"1:1\"], tolerance_percent = 2, min_pixels = 1, \
         max_pixels = 9 } }",
        "a.toml:1: model 'maker/model': route of provider 'maker': no price for size of any \
         pixels and quality high",
    );
}

#[test]
fn rules_that_contradict_themselves_are_refused() {
    check(
        "default = \"64x64\"",
        "default = \"65x64\"",
        "a.toml:1: model 'maker/model': rule 'size': the default '65x64' is not among '64x64' and \
         '128x64'",
    );
    check(
        "default = \"low\"",
        "default = \"max\"",
        "a.toml:1: model 'maker/model': rule 'quality': the default 'max' is not among the values \
         'low' and 'high'",
    );
    check(
        "min = 1, max = 4",
        "min = 5, max = 4",
        "a.toml:1: model 'maker/model': rule 'n': min 5 is above max 4",
    );
    check(
        "[\"url\", \"b64_json\"]",
        "[\"url\", \"url\"]",
        "a.toml:1: model 'maker/model': rule 'response_format': 'url' is listed twice",
    );
    check(
        "[[model.routes]]",
        "cross = [{ parameter = \"quality\", is = [\"low\"], needs = { style = [\"vivid\"] } }]\n\
         [[model.routes]]",
        "a.toml:1: model 'maker/model': a cross-field rule of 'quality' speaks of 'style', for \
         which there is no rule",
    );
    check(
        "\"active\"",
        "\"active\"\nshutdown_date = \"2027-01-01\"",
        "a.toml:1: model 'maker/model': an active model has no 'shutdown_date'",
    );
    check(
        "\"active\"",
        "\"retired\"",
        "a.toml:1: model 'maker/model': a retired model needs its 'shutdown_date'",
    );
}

#[test]
fn names_are_unique_over_ids_and_aliases() {
    check(
        "",
        &STANZA
            .replace("maker/model", "maker/other")
            .replace("[\"model\"]", "[\"Model\"]"),
        "a.toml:23: model 'maker/other': the name 'Model' is taken by model 'maker/model' \
         (a.toml:1)",
    );
    let sandbox_begins = include_str!("../../../config/models/sandbox.toml")
        .lines()
        .position(|line| line == "[[model]]")
        .unwrap()
        + 1;
    check(
        "[\"model\"]",
        "[\"sandbox\"]",
        &format!(
            "a.toml:1: model 'maker/model': the name 'sandbox' is taken by model 'easel/sandbox' \
             (config/models/sandbox.toml:{sandbox_begins})"
        ),
    );
    let twice = load(&[("a.toml", STANZA), ("b.toml", STANZA)]);
    assert_eq!(
        twice.unwrap_err(),
        "b.toml:1: model 'maker/model': the name 'maker/model' is taken by model 'maker/model' \
         (a.toml:1)"
    );
}

#[test]
fn a_snapshot_pins_the_model_to_the_routes_that_know_it() {
    let second = "\n[[model.routes]]\nprovider = \"reseller\"\nupstream_model = \"model-1\"\n\
                  price.per_image = [{ price = \"0.03\" }]\n";
    let third = second
        .replace("reseller", "mirror")
        .replace("price.", "snapshots = [\"Model-Day\"]\nprice.");
    let snapshots = "\"model-1\"\nsnapshots = [\"Model-Day\", \"model-eve\"]";
    let stanza = STANZA.replace("\"model-1\"", snapshots);
    let catalog = load(&[("a.toml", &format!("{stanza}{second}{third}"))]).unwrap();
    let routes = |name: &str| -> Vec<String> {
        let model = catalog.find(name).unwrap();
        assert_eq!(
            (model.id.as_str(), model.name.as_str()),
            ("maker/model", "Model")
        );
        assert_eq!(
            model.names().collect::<Vec<_>>(),
            ["maker/model", "model", "Model-Day", "model-eve"]
        );
        let routes = model.routes.iter();
        routes
            .map(|route| format!("{} {}", route.provider, route.upstream_model))
            .collect()
    };
    let floating = ["maker model-1", "reseller model-1", "mirror model-1"];
    assert_eq!(routes("maker/model"), floating);
    assert_eq!(routes("model"), floating);
    assert_eq!(routes("Model-Day"), ["maker Model-Day", "mirror Model-Day"]);
    assert_eq!(routes("MODEL-DAY"), routes("Model-Day"));
    assert_eq!(routes("model-eve"), ["maker model-eve"]);
    let listed = catalog.models().iter();
    assert_eq!(listed.filter(|model| model.id == "maker/model").count(), 1);
}

#[test]
fn a_snapshot_is_a_name_like_any_other() {
    let snapshots = |names: &str| format!("\"model-1\"\nsnapshots = {names}");
    check(
        "\"model-1\"",
        &snapshots("[\"MODEL\"]"),
        "a.toml:1: model 'maker/model': the name 'MODEL' is taken by model 'maker/model' (a.toml:1)",
    );
    check(
        "\"model-1\"",
        &snapshots("[\" model-day\"]"),
        "a.toml:1: model 'maker/model': ' model-day' is not a name",
    );
}

#[test]
fn a_file_replaces_a_compiled_in_model_whole() {
    let replacement = STANZA
        .replace("maker/model", "openai/dall-e-3")
        .replace("[\"model\"]", "[\"painter\"]");
    let catalog = load(&[("a.toml", &replacement)]).unwrap();
    let built_in = Catalog::load(None).unwrap();
    let ids = |catalog: &Catalog| -> Vec<String> {
        catalog
            .models()
            .iter()
            .map(|model| model.id.clone())
            .collect()
    };
    assert_eq!(ids(&catalog), ids(&built_in));
    assert_eq!(catalog.find("painter").unwrap().id, "openai/dall-e-3");
    assert!(catalog.find("dall-e-3").is_none());
    assert_eq!(
        catalog.find("openai/dall-e-3").unwrap().routes[0].provider,
        "maker"
    );
}

#[test]
fn a_models_dir_that_cannot_be_read_is_an_error() {
    let error = Catalog::load(Some(Path::new("/nowhere/models"))).unwrap_err();
    assert_eq!(error.file, "/nowhere/models");
    assert!(
        error.problem.starts_with("models_dir cannot be read: "),
        "{error}"
    );
}

#[test]
fn every_file_of_config_models_is_compiled_in() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models");
    let built_in = Catalog::load(None).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id = ") {
                assert!(built_in.find(id.trim_matches('"')).is_some(), "{id}");
            }
        }
    }
}

#[test]
fn models_are_found_by_id_and_alias_whatever_the_capitals() {
    let catalog = Catalog::load(None).unwrap();
    for name in ["openai/dall-e-3", "dall-e-3", "DALL-E-3", "OpenAI/DALL-E-3"] {
        assert_eq!(catalog.find(name).unwrap().id, "openai/dall-e-3", "{name}");
    }
    for name in ["", "dall-e", "openai", "openai/"] {
        assert!(catalog.find(name).is_none(), "{name}");
    }
}
