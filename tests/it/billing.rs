//! What is charged: exactly the published price of what was delivered, and nothing else.
//!
//! The expected amounts are computed here from the contract's price tables (`contracts/openai-images.md`,
//! sections 9 and 10), in whole nano-USD, not taken from Easel's catalog.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, Key, Reply, fake_openai::input_tokens, pictures, usd};

const PROMPT: &str = "an orchard behind the old mill";

/// Generates, and proves that the answer, the balance and the books name the same amount.
async fn check_cost(app: &App, key: &Key, request: &Value, expected_nano: i64) {
    let before = app.balance(key).await;
    let answer = app.generate(key, request).await.expect(200);
    assert_eq!(
        answer.json()["usage"]["cost"],
        usd(expected_nano),
        "{request}"
    );
    let id = answer.header("x-generation-id").to_owned();
    let captured = app
        .database
        .number(&format!(
            "select captured_nano_usd from holds where generation_id = '{id}'"
        ))
        .await;
    assert_eq!(captured, expected_nano, "{request}");
    let amount = app
        .database
        .number(&format!(
            "select amount_nano_usd from holds where generation_id = '{id}'"
        ))
        .await;
    assert!(
        captured <= amount,
        "a capture never exceeds its hold: {captured} of {amount}"
    );
    let charged = app
        .database
        .number(&format!(
            "select -sum(amount_nano_usd)::bigint from ledger_entries where generation_id = '{id}'"
        ))
        .await;
    assert_eq!(charged, expected_nano, "{request}");
    let pictures = app.database.number(&format!("select coalesce(sum(cost_nano_usd), 0)::bigint from images where generation_id = '{id}'")).await;
    assert_eq!(
        pictures, expected_nano,
        "the billing records of the pictures: {request}"
    );
    let after = app.balance(key).await;
    let difference = before.as_f64().unwrap() - after.as_f64().unwrap();
    assert!(
        (difference * 1e9 - usd(expected_nano).as_f64().unwrap() * 1e9).abs() < 1.0,
        "{before} - {after}"
    );
}

/// Where nobody reports usage, the picture's own size says what it cost, and its quality if that is known: not
/// the largest picture that the request could have brought.
#[tokio::test(flavor = "multi_thread")]
async fn a_picture_without_reported_usage_costs_what_its_own_size_does() {
    let app = App::start().await;
    let key = app.live_key("5");
    let picture = STANDARD.encode(pictures::paint("png", 1024, 1024, 1, false));
    let request = json!({"model": "gpt-image-2", "prompt": PROMPT});
    // The prompt at four bytes a token and 6 around it; it was held at a byte a token and 64.
    let text = 5_000 * (i64::try_from(PROMPT.len().div_ceil(4)).unwrap() + 6);
    for (more, tokens) in [
        (json!({}), 7_024),
        (json!({"quality": "low"}), 196),
        (json!({"quality": "auto"}), 7_024),
    ] {
        let mut answer = json!({"created": 1, "data": [{"b64_json": picture}]});
        for (name, value) in more.as_object().unwrap() {
            answer[name] = value.clone();
        }
        let reply = Reply::raw(200, "application/json", answer.to_string());
        app.openai.next(Behaviour::Reply(reply));
        check_cost(&app, &key, &request, 30_000 * tokens + text).await;
    }
    app.finish().await;
}

/// Tokens beyond belief are not what we owe, nor what anybody is told.
#[tokio::test(flavor = "multi_thread")]
async fn usage_beyond_belief_is_as_good_as_none() {
    let app = App::start().await;
    let key = app.live_key("5");
    let picture = STANDARD.encode(pictures::paint("png", 1024, 1024, 1, false));
    let request =
        json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024"});
    let text = 5_000 * (i64::try_from(PROMPT.len().div_ceil(4)).unwrap() + 6);
    for tokens in [u64::MAX, 230_000_000_000_000, 2_000_000] {
        let usage = json!({"input_tokens": 10, "output_tokens": tokens, "total_tokens": tokens,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}});
        let answer = json!({"created": 1, "data": [{"b64_json": picture}], "usage": usage});
        let reply = Reply::raw(200, "application/json", answer.to_string());
        app.openai.next(Behaviour::Reply(reply));
        check_cost(&app, &key, &request, 272 * 40_000 + text).await;
    }
    let owed = "select sum(upstream_cost_nano_usd)::bigint from generations";
    assert_eq!(app.database.number(owed).await, 3 * (272 * 40_000 + text));
    let counted = "select sum(output_tokens)::bigint from generations";
    assert_eq!(app.database.number(counted).await, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dall_e_costs_what_its_table_says() {
    let app = App::start().await;
    let key = app.live_key("10");
    for (model, quality, size, n, nano) in [
        ("dall-e-2", None, "1024x1024", 1, 20_000_000),
        ("dall-e-2", None, "512x512", 1, 18_000_000),
        ("dall-e-2", Some("standard"), "256x256", 1, 16_000_000),
        ("dall-e-2", None, "256x256", 10, 160_000_000),
        ("dall-e-3", Some("standard"), "1024x1024", 1, 40_000_000),
        ("dall-e-3", None, "1024x1792", 1, 80_000_000),
        ("dall-e-3", None, "1792x1024", 1, 80_000_000),
        ("dall-e-3", Some("hd"), "1024x1024", 1, 80_000_000),
        ("dall-e-3", Some("hd"), "1024x1792", 1, 120_000_000),
        ("dall-e-3", Some("hd"), "1792x1024", 1, 120_000_000),
    ] {
        let mut request = json!({"model": model, "prompt": PROMPT, "size": size, "n": n});
        if let Some(quality) = quality {
            request["quality"] = json!(quality);
        }
        check_cost(&app, &key, &request, nano).await;
    }
    // Without a size and a quality the defaults are charged.
    check_cost(
        &app,
        &key,
        &json!({"model": "dall-e-2", "prompt": PROMPT}),
        20_000_000,
    )
    .await;
    check_cost(
        &app,
        &key,
        &json!({"model": "dall-e-3", "prompt": PROMPT}),
        40_000_000,
    )
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpt_image_costs_the_tokens_it_reports() {
    let app = App::start().await;
    let key = app.live_key("20");
    let text = i64::try_from(input_tokens(PROMPT)).unwrap();
    // Nano-USD per token of text in and image out; output tokens.
    for (model, quality, size, n, text_rate, image_rate, tokens) in [
        ("gpt-image-1", "low", "1024x1024", 1, 5_000, 40_000, 272),
        ("gpt-image-1", "medium", "1024x1536", 1, 5_000, 40_000, 1584),
        ("gpt-image-1", "high", "1536x1024", 2, 5_000, 40_000, 6208),
        ("gpt-image-1-mini", "low", "1536x1024", 1, 2_000, 8_000, 400),
        (
            "gpt-image-1.5",
            "medium",
            "1024x1024",
            3,
            5_000,
            32_000,
            1056,
        ),
        (
            "chatgpt-image-latest",
            "low",
            "1024x1024",
            1,
            5_000,
            32_000,
            272,
        ),
        ("gpt-image-2", "low", "1024x1024", 1, 5_000, 30_000, 196),
        ("gpt-image-2", "high", "1536x1024", 1, 5_000, 30_000, 5488),
        ("gpt-image-2", "medium", "1792x1024", 2, 5_000, 30_000, 1243),
        (
            "gpt-image-2.5-flare",
            "low",
            "1024x1024",
            1,
            5_000,
            30_000,
            196,
        ),
        (
            "gpt-image-2.5-sunburst",
            "high",
            "2048x2048",
            1,
            5_000,
            30_000,
            3568,
        ),
        (
            "gpt-image-2.6-flare",
            "low",
            "1024x1024",
            1,
            5_000,
            30_000,
            196,
        ),
        (
            "gpt-image-2.6-sunburst",
            "high",
            "1024x1024",
            1,
            5_000,
            30_000,
            1756,
        ),
    ] {
        let request = json!({"model": model, "prompt": PROMPT, "quality": quality, "size": size, "n": n, "output_format": "jpeg"});
        check_cost(
            &app,
            &key,
            &request,
            n * (text * text_rate + tokens * image_rate),
        )
        .await;
    }
    app.finish().await;
}

/// `auto` is held at the dearest resolution and charged at the one that came.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_the_provider_is_charged_as_it_came() {
    let app = App::start().await;
    let key = app.live_key("5");
    let text = i64::try_from(input_tokens(PROMPT)).unwrap();
    let request = json!({"model": "gpt-image-1", "prompt": PROMPT, "output_format": "jpeg"});
    check_cost(&app, &key, &request, text * 5_000 + 6208 * 40_000).await;
    let request = json!({"model": "gpt-image-2", "prompt": PROMPT, "output_format": "jpeg"});
    check_cost(&app, &key, &request, text * 5_000 + 5488 * 30_000).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_markup_is_added_once_per_picture() {
    // 12.5 % on 0.018 is 0.02025.
    let app = App::builder()
        .await
        .set("providers.openai.markup_basis_points", 1250)
        .start()
        .await;
    let key = app.live_key("5");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512", "n": 2});
    check_cost(&app, &key, &request, 40_500_000).await;
    let upstream = app
        .database
        .number("select upstream_cost_nano_usd from generations")
        .await;
    assert_eq!(upstream, 36_000_000);
    app.finish().await;
}

/// What was agreed with an account goes before the markup of models and providers, in the price list, the hold
/// and the charge, from the next request on; other accounts do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_markup_goes_before_the_providers() {
    let app = App::builder()
        .await
        .set("providers.openai.markup_basis_points", 1250)
        .start()
        .await;
    let account = app
        .run(&[
            "accounts", "create", "reseller", "--markup", "2500", "--json",
        ])
        .expect_success()
        .json();
    assert_eq!(account["markup_basis_points"], 2500);
    let id = account["id"].as_str().unwrap();
    let live = app.create_key(&["--account", id, "--credit", "5"]);
    let test = app.create_key(&["--account", id, "--test", "--credit", "5"]);
    let stranger = app.live_key("5");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512", "n": 2});
    // Two of 0.018 with 25 %, 12.5 %, nothing and 0.01 % on top.
    for (markup, nano) in [
        ("2500", 45_000_000),
        ("none", 40_500_000),
        ("0", 36_000_000),
        ("1", 36_003_600),
    ] {
        app.run(&["accounts", "update", "reseller", "--markup", markup])
            .expect_success();
        for key in [&live, &test] {
            check_cost(&app, key, &request, nano).await;
            check_listed_price(&app, key, nano / 2).await;
        }
        check_cost(&app, &stranger, &request, 40_500_000).await;
        check_listed_price(&app, &stranger, 20_250_000).await;
    }
    let held = app
        .database
        .number("select count(*) from holds where amount_nano_usd <> captured_nano_usd")
        .await;
    assert_eq!(held, 0, "the holds have the same markup");
    app.finish().await;
}

/// Asserts what one picture of dall-e-2 at 512x512 costs by the price list of this key.
async fn check_listed_price(app: &App, key: &Key, expected_nano: i64) {
    let model = app.get(key, "/v1/models/dall-e-2").await.expect(200).json();
    let rows = model["pricing"]["table"].as_array().unwrap();
    let row = rows.iter().find(|row| row["size"] == "512x512").unwrap();
    assert_eq!(row["price"], usd(expected_nano), "{}", model["pricing"]);
}

/// Asked 4, got 3: three are charged and returned, and the answer says so (I5).
#[tokio::test(flavor = "multi_thread")]
async fn of_four_pictures_three_arrive() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Fewer(3));
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "n": 4, "size": "1024x1024", "response_format": "b64_json"});
    let answer = app.generate(&key, &request).await.expect(200);
    let body = answer.json();
    assert_eq!(body["data"].as_array().unwrap().len(), 3);
    assert_eq!(body["usage"]["cost"], usd(60_000_000));
    let failed = body["failed"]
        .as_array()
        .expect("the answer says what is missing");
    assert_eq!(failed.len(), 1);
    assert!(
        failed[0]["index"].is_u64()
            && failed[0]["code"].is_string()
            && failed[0]["message"].is_string(),
        "{failed:?}"
    );
    assert_eq!(app.balance(&key).await, usd(940_000_000));
    app.finish().await;
}

/// A picture that broke off is none, the others are.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_picture_is_not_charged() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::BrokenPicture(1));
    // As links: of base64 the client has seen the beginning, and its answer breaks off (relay.rs).
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "n": 3, "size": "1024x1024", "response_format": "url"});
    let answer = app.generate(&key, &request).await.expect(200);
    let body = answer.json();
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    let failed = body["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(body["usage"]["cost"], usd(40_000_000));
    app.finish().await;
}

/// A provider that reports usage for three of four pictures is paid for three.
#[tokio::test(flavor = "multi_thread")]
async fn of_four_token_priced_pictures_three_arrive() {
    let app = App::start().await;
    let key = app.live_key("5");
    app.openai.next(Behaviour::Fewer(3));
    let text = i64::try_from(input_tokens(PROMPT)).unwrap();
    let request = json!({"model": "gpt-image-1", "prompt": PROMPT, "n": 4, "quality": "low", "size": "1024x1024"});
    check_cost(&app, &key, &request, 3 * (text * 5_000 + 272 * 40_000)).await;
    app.finish().await;
}

/// The per-picture records add up to the charge, to the last nano-USD, and say what was delivered.
#[tokio::test(flavor = "multi_thread")]
async fn every_picture_has_a_billing_record() {
    let app = App::start().await;
    let key = app.live_key("5");
    let request = json!({"model": "gpt-image-1", "prompt": PROMPT, "n": 3, "quality": "low", "size": "1024x1536", "output_format": "jpeg"});
    app.generate(&key, &request).await.expect(200);
    let rows = app
        .database
        .texts("select concat_ws(' ', position, format, width, height) from images where size_bytes > 0 and cost_nano_usd > 0 order by position")
        .await;
    assert_eq!(
        rows,
        ["0 jpeg 1024 1536", "1 jpeg 1024 1536", "2 jpeg 1024 1536"]
    );
    app.finish().await;
}

/// No provider is called before its hold is committed (I1): seen from inside the provider.
#[tokio::test(flavor = "multi_thread")]
async fn the_hold_is_committed_before_the_call() {
    let app = App::start().await;
    let key = app.live_key("1");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let pool = app.database.pool().clone();
    app.openai.on_call(move |_| {
        let (pool, sender) = (pool.clone(), sender.clone());
        Box::pin(async move {
            let held: i64 = sqlx::query_scalar(
                "select coalesce(sum(amount_nano_usd), 0)::bigint from holds where status = 'open'",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            sender.send(held).unwrap();
        })
    });
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "n": 2, "size": "1024x1024"});
    app.generate(&key, &request).await.expect(200);
    assert_eq!(receiver.recv().await, Some(40_000_000));
    app.finish().await;
}
