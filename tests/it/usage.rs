//! What was spent: `GET /v1/usage` for the app developer, `easel usage` for the operator.

use serde_json::{Value, json};

use crate::support::{App, Behaviour, Reply};

const PROMPT: &str = "the bookkeeper at the end of the day";

async fn spend(app: &App, key: &crate::support::Key) {
    for request in [
        json!({"model": "dall-e-2", "prompt": PROMPT, "n": 3, "size": "256x256"}),
        json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512"}),
        json!({"model": "dall-e-3", "prompt": PROMPT, "quality": "hd"}),
    ] {
        app.generate(key, &request).await.expect(200);
    }
}

/// The amounts of a list of rows, added up; rows may name a cost as number or decimal string.
fn total(rows: &Value, field: &str) -> f64 {
    let rows = rows
        .as_array()
        .unwrap_or_else(|| panic!("a list of rows: {rows}"));
    rows.iter()
        .map(|row| match &row[field] {
            Value::Number(number) => number.as_f64().unwrap(),
            Value::String(text) => text.parse().unwrap(),
            other => panic!("{field} is {other} in {row}"),
        })
        .sum()
}

fn assert_amount(actual: f64, expected: f64) {
    assert!(
        (actual - expected).abs() < 1e-9,
        "{actual}, expected {expected}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_sees_what_it_spent() {
    let app = App::start().await;
    let key = app.live_key("1");
    let other = app.live_key("1");
    spend(&app, &key).await;
    spend(&app, &other).await;
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    app.generate(&key, &json!({"model": "dall-e-2", "prompt": PROMPT}))
        .await
        .expect(502);
    let usage = app.get(&key, "/v1/usage").await.expect(200).json();
    assert_amount(total(&usage["data"], "cost"), 0.048 + 0.018 + 0.08);
    assert_amount(total(&usage["data"], "images"), 5.0);
    assert_eq!(app.balance(&key).await, json!(0.854));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_was_spent() {
    let app = App::start().await;
    let key = app.live_key("1");
    spend(&app, &key).await;
    let report = app
        .run(&[
            "usage",
            "--json",
            "--account",
            &key.account,
            "--group-by",
            "model",
        ])
        .expect_success()
        .json();
    assert_amount(total(&report, "cost"), 0.146);
    let models: Vec<&str> = report
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["model"].as_str().unwrap())
        .collect();
    assert!(
        models.contains(&"openai/dall-e-2") && models.contains(&"openai/dall-e-3"),
        "{models:?}"
    );
    let only = app
        .run(&["usage", "--json", "--model", "dall-e-3"])
        .expect_success()
        .json();
    assert_amount(total(&only, "cost"), 0.08);
    let nothing = app
        .run(&["usage", "--json", "--until", "2020-01-01"])
        .expect_success()
        .json();
    assert_amount(total(&nothing, "cost"), 0.0);

    let csv = app
        .run(&["usage", "--csv", "--group-by", "model"])
        .expect_success()
        .stdout;
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert!(header.contains(&"model"), "{header:?}");
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), 2, "{csv}");
    assert!(
        rows.iter()
            .all(|row| row.split(',').count() == header.len()),
        "{csv}"
    );
    assert!(csv.contains("0.066") && csv.contains("0.08"), "{csv}");

    let table = app.run(&["usage"]).expect_success().stdout;
    assert!(
        table.lines().count() >= 2 && table.contains("0.146"),
        "a table for people:\n{table}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_every_call_to_a_provider() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    app.generate(&key, &request).await.expect(200);
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    let failed = app.generate(&key, &request).await.expect(502);
    let generation = failed.header("x-generation-id").to_owned();

    let list = |arguments: &[&str]| {
        let line = [&["usage", "--attempts"], arguments].concat();
        app.run(&line).expect_success()
    };
    let all = list(&["--json", "--account", &key.account]).json();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    let newest = &all[0];
    assert_eq!(newest["generation"], generation.as_str());
    assert_eq!(
        (&newest["provider"], &newest["upstream_model"]),
        (&json!("openai"), &json!("dall-e-2"))
    );
    assert_eq!(
        (&newest["status"], &newest["error"]),
        (&json!(500), &json!("overloaded"))
    );
    assert_eq!(
        (&newest["images"], &newest["maybe_charged"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(
        (&all[1]["images"], &all[1]["error"]),
        (&json!(1), &Value::Null)
    );

    // What the provider's support asks for, however the call ended.
    assert_eq!(all[1]["status"], 200);
    for attempt in all.as_array().unwrap() {
        let id = attempt["upstream_request_id"].as_str().unwrap_or_default();
        assert!(id.starts_with("req_fake"), "{attempt}");
    }

    let one = list(&["--generation", &generation, "--csv"]).stdout;
    assert_eq!(one.lines().count(), 2, "{one}");
    let table = list(&["--provider", "openai", "--limit", "1"]);
    assert!(table.stdout.contains(&generation), "{}", table.stdout);
    assert!(table.stderr.contains("newest 1"), "{}", table.stderr);
    for refused in [
        &["usage", "--generation", &generation][..],
        &["usage", "--attempts", "--group-by", "day"],
        &["usage", "--attempts", "--generation", "gen_1"],
        &["usage", "--attempts", "--limit", "0"],
    ] {
        app.run(refused).expect_failure(2);
    }
    app.finish().await;
}
