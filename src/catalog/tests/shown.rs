//! What `/v1/models` and the README show: goldens of one model with closed lists and a price per picture
//! and of one with everything else.

use insta::assert_json_snapshot;
use serde_json::json;

use super::{catalog, model};

fn check(name: &str) {
    let model = model(name);
    let shown = json!({
        "supported_parameters": model.rules.to_json(),
        "pricing": model.routes[0].price.to_json(0),
    });
    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false },
        { assert_json_snapshot!(name, shown) }
    );
}

#[test]
fn models_show_their_rules_and_prices() {
    check("dall-e-3");
    check("gpt-image-2.6-flare");
}

#[test]
fn the_markdown_table_names_every_model_with_its_price() {
    let table = catalog().markdown_table();
    let row = |start: &str| {
        table
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no row {start} in {table}"))
    };
    assert_eq!(table.lines().count(), catalog().models().len() + 2);
    assert_eq!(
        row("| `openai/dall-e-3`"),
        "| `openai/dall-e-3`, `dall-e-3` | retired 2026-05-12 | standard $0.04 (1024x1024), $0.08 \
         (1024x1792, 1792x1024); hd $0.08 (1024x1024), $0.12 (1024x1792, 1792x1024) |"
    );
    assert_eq!(
        row("| `openai/gpt-image-1-mini`"),
        "| `openai/gpt-image-1-mini`, `gpt-image-1-mini` | deprecated, ends 2026-12-01 | per million \
         tokens text in $2, text in cached $0.2, image in $2.5, image in cached $0.25, image out $8; \
         1024x1024 low $0.002176; medium $0.008448; high $0.03328 |"
    );
    assert!(row("| `openai/gpt-image-2.6-flare`").contains("1024x1024 at most low $0.05268; "));
    assert_eq!(
        row("| `easel/sandbox`"),
        "| `easel/sandbox`, `sandbox` | active | $0.001 |"
    );
}
