//! What keys and accounts may do: exact over replicas, told on every answer, set by commands.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    edits::{EDITS, form, png, post, square, text},
    support::{Answer, App, Behaviour, Key, Reply},
};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a toll keeper who counts his coins";

/// 0.016 USD.
fn small() -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"})
}

/// Limits exact to the request under concurrency over 3 replicas: nothing is answered before all that are too many
/// have been refused, so all that are let in are in at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_exact_over_three_replicas() {
    const ASKED: usize = 24;
    let app = App::start().await;
    let replicas = [app.start_replica().await, app.start_replica().await];
    let clients = [
        app.client.clone(),
        replicas[0].client.clone(),
        replicas[1].client.clone(),
    ];
    let (open, gate) = watch::channel(false);
    app.openai.on_call(move |_| {
        let mut gate = gate.clone();
        Box::pin(async move {
            gate.wait_for(|is_open| *is_open).await.ok();
        })
    });
    for limit in [
        ["--rpm", "5"],
        ["--ipm", "5"],
        ["--max-in-flight", "5"],
        // Of a month, because days end at midnight.
        ["--spend-per-month", "0.09"],
    ] {
        for of_account in [false, true] {
            let name = format!("{limit:?} {of_account}");
            let mut create = vec!["accounts", "create", name.as_str()];
            if of_account {
                create.extend(limit);
            }
            app.run(&create).expect_success();
            let keys: Vec<Key> = (0..2)
                .map(|_| {
                    let mut create = vec!["--account", name.as_str(), "--credit", "1"];
                    if !of_account {
                        create.extend(limit);
                    }
                    app.create_key(&create)
                })
                .collect();
            open.send_replace(false);
            let mut asked: FuturesUnordered<_> = (0..ASKED)
                .map(|number| {
                    let key = if of_account {
                        &keys[number % 2]
                    } else {
                        &keys[0]
                    };
                    let client = &clients[(number * 7 + number / 3) % 3];
                    let body = small();
                    async move {
                        client
                            .post_json(GENERATIONS, Some(&key.secret), &body)
                            .await
                    }
                })
                .collect();
            for _ in 5..ASKED {
                let answer = asked.next().await.unwrap().expect(429);
                let message = answer.problem().message;
                let whose = if of_account {
                    "this account"
                } else {
                    "this API key"
                };
                assert!(message.contains(whose), "{name}: {message}");
            }
            open.send_replace(true);
            while let Some(answer) = asked.next().await {
                answer.expect(200);
            }
            assert_eq!(app.balance(&keys[0]).await, json!(1.92), "{name}");
        }
    }
    for replica in replicas {
        replica.stop().await;
    }
    app.finish().await;
}

/// `limit remaining` of requests and of images, where they are told; and that the reset is in `OpenAI`'s form.
fn told(answer: &Answer) -> (String, String) {
    let figures = |of: &str| {
        let header = |what: &str| answer.find_header(&format!("x-ratelimit-{what}-{of}"));
        let Some(limit) = header("limit") else {
            assert_eq!((header("remaining"), header("reset")), (None, None));
            return "none".to_owned();
        };
        let reset = header("reset").unwrap();
        let figures = reset
            .trim_end_matches("ms")
            .trim_end_matches('s')
            .replace("1m", "");
        assert!(
            reset.ends_with('s') && figures.parse::<f64>().is_ok_and(|figure| figure < 1000.0),
            "{reset}"
        );
        format!("{limit} {}", header("remaining").unwrap())
    };
    (figures("requests"), figures("images"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_how_the_limits_stand() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--rpm", "11", "--ipm", "30"]);
    let check = |answer: &Answer, requests: &str, images: &str| {
        let expected = (requests.to_owned(), images.to_owned());
        assert_eq!(told(answer), expected, "{:?}", answer.headers);
    };
    let with = |more: Value| {
        let mut body = small();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let generate =
        async |status: u16, more: Value| app.generate(&key, &with(more)).await.expect(status);
    let links = generate(200, json!({"n": 2})).await;
    check(&links, "11 10", "30 28");
    let relayed = generate(200, json!({"response_format": "b64_json"})).await;
    check(&relayed, "11 9", "30 27");
    let streamed = generate(200, json!({"stream": true})).await;
    assert_eq!(streamed.header("content-type"), "text/event-stream");
    check(&streamed, "11 8", "30 26");
    let refused = generate(400, json!({"size": "17x17"})).await;
    check(&refused, "11 7", "30 26");
    let no_object = json!([1]);
    let unreadable = app
        .client
        .post_json(GENERATIONS, Some(&key.secret), &no_object)
        .await;
    check(&unreadable.expect(400), "11 6", "30 26");
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    let failed = generate(502, json!({})).await;
    check(&failed, "11 5", "30 25");

    let parts = [
        text("model", "dall-e-2"),
        text("prompt", PROMPT),
        text("size", "256x256"),
        png("image", &square()),
    ];
    let edited = post(&app, &key, EDITS, form(&parts)).await.expect(200);
    check(&edited, "11 4", "30 24");
    let named = || {
        let request = app
            .client
            .request(reqwest::Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .body(small().to_string());
        app.client.send(request)
    };
    check(&named().await.expect(200), "11 3", "30 23");
    let replayed = named().await.expect(200);
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    check(&replayed, "11 2", "30 23");
    let many = json!({"n": 10});
    for remaining in ["11 1", "11 0"] {
        let answer = app.generate(&key, &with(many.clone())).await;
        check(
            &answer,
            remaining,
            if remaining == "11 1" { "30 13" } else { "30 3" },
        );
    }
    let limited = generate(429, json!({})).await;
    check(&limited, "11 0", "30 3");
    assert_eq!(limited.problem().code(), "rate_limit_exceeded");
    let whole: u64 = limited.header("retry-after").parse().unwrap();
    let ms: u64 = limited.header("retry-after-ms").parse().unwrap();
    assert!(
        (1..=60).contains(&whole) && ms.div_ceil(1000) == whole,
        "{whole} s, {ms} ms"
    );

    // What makes no pictures has no such limits, and neither has a key without any.
    check(
        &app.get(&key, GENERATIONS).await.expect(200),
        "none",
        "none",
    );
    check(
        &app.get(&key, "/v1/credits").await.expect(200),
        "none",
        "none",
    );
    let free = app.live_key("1");
    check(
        &app.generate(&free, &small()).await.expect(200),
        "none",
        "none",
    );
    let only_images = app.create_key(&["--credit", "1", "--ipm", "3"]);
    let refused = app
        .generate(&only_images, &json!({"model": "dall-e-2"}))
        .await;
    check(&refused.expect(400), "none", "3 3");
    app.finish().await;
}

/// Whatever the request of a key is refused for, it is counted, and told how its limits stand then. A stranger, and
/// who holds a key in a place where it is not good, are told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_how_the_limits_stand() {
    let app = App::builder()
        .await
        .set("limits.json_body", "4 KiB")
        .start()
        .await;
    let limits = [
        "--rpm",
        "100",
        "--ipm",
        "50",
        "--models",
        "dall-e-2,dall-e-3",
    ];
    let key = app.create_key(&[&["--credit", "0.02"], &limits[..]].concat());
    let client = app.client.clone();
    let post = async |headers: &[(&str, &str)], body: String| {
        let request = client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret);
        let mut request = request
            .header("content-type", "application/json")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client.send(request).await
    };
    let with = |more: Value| {
        let mut body = small();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body.to_string()
    };
    let later = ("prefer", "respond-async");
    let none: &[(&str, &str)] = &[];
    let mut left = 100;
    for (status, code, headers, body) in [
        (400, "invalid_value", none, with(json!({"size": "17x17"}))),
        (400, "", none, "{".to_owned()),
        (
            400,
            "missing_required_parameter",
            none,
            json!({"model": "dall-e-2"}).to_string(),
        ),
        (
            400,
            "unknown_parameter",
            none,
            with(json!({"colour": "red"})),
        ),
        (
            400,
            "no_route",
            none,
            with(json!({"provider": {"only": ["stability"]}})),
        ),
        (
            400,
            "invalid_value",
            &[("idempotency-key", "")][..],
            with(json!({})),
        ),
        (
            400,
            "invalid_value",
            &[later][..],
            with(json!({"stream": true})),
        ),
        (
            400,
            "invalid_value",
            none,
            with(json!({"webhook_url": "https://a.example"})),
        ),
        (
            403,
            "webhooks_not_allowed",
            &[later][..],
            with(json!({"webhook_url": "https://a.example"})),
        ),
        (402, "insufficient_balance", none, with(json!({"n": 4}))),
        (
            402,
            "insufficient_balance",
            &[later][..],
            with(json!({"n": 4})),
        ),
        (
            403,
            "model_not_allowed",
            none,
            with(json!({"model": "gpt-image-1"})),
        ),
        (
            404,
            "model_not_found",
            none,
            with(json!({"model": "dall-e-9"})),
        ),
        (
            413,
            "request_too_large",
            none,
            with(json!({"prompt": "x".repeat(5000)})),
        ),
    ] {
        let answer = post(headers, body.clone()).await.expect(status);
        left -= 1;
        let expected = (format!("100 {left}"), "50 50".to_owned());
        assert_eq!(
            (answer.problem().code(), told(&answer)),
            (code, expected),
            "{body}"
        );
    }
    let typed = client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "text/plain")
        .body("a fox");
    let untyped = client.send(typed).await.expect(415);
    assert_eq!(told(&untyped).0, "100 85");

    // The name of another, while that is painted and afterwards.
    let gate = app.openai.gate();
    let name = [("idempotency-key", "mine")];
    let first = post(&name, with(json!({})));
    let conflicts = async {
        app.openai.wait_for_call().await;
        let during = post(&name, with(json!({"n": 2}))).await.expect(409);
        gate.add_permits(1);
        during
    };
    let (first, during) = tokio::join!(first, conflicts);
    assert_eq!(
        told(&first.expect(200)),
        ("100 84".to_owned(), "50 49".to_owned())
    );
    assert_eq!(told(&during), ("100 83".to_owned(), "50 49".to_owned()));
    let after = post(&name, with(json!({"n": 2}))).await.expect(409);
    assert_eq!(told(&after), ("100 82".to_owned(), "50 49".to_owned()));

    let nobody = client
        .post_json(GENERATIONS, Some("ek_live_nobody"), &small())
        .await;
    assert_eq!(told(&nobody.expect(401)).0, "none");
    app.run(&["keys", "update", &key.id, "--ips", "203.0.113.7"])
        .expect_success();
    while client.get("/v1/credits", Some(&key.secret)).await.status != 403 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let elsewhere = post(none, with(json!({}))).await.expect(403);
    assert_eq!(elsewhere.problem().code(), "ip_not_allowed");
    assert_eq!(told(&elsewhere).0, "none");
    app.finish().await;
}

/// 429 as for every limit, but nothing that an SDK should try again in a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_spend_limit_holds_until_its_period_ends() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--spend-per-month", "0.05"]);
    for _ in 0..3 {
        app.generate(&key, &small()).await.expect(200);
    }
    let answer = app.generate(&key, &small()).await.expect(429);
    let problem = answer.problem();
    assert_eq!(
        (problem.kind.as_str(), problem.code()),
        ("insufficient_quota", "spend_limit_exceeded")
    );
    for part in [
        "0.05 USD per month",
        "0.048 USD are spent",
        "up to 0.016 USD",
        "-01T00:00:00Z",
    ] {
        assert!(problem.message.contains(part), "{part}: {problem:?}");
    }
    assert_eq!(answer.header("x-should-retry"), "false");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=31 * 24 * 3600).contains(&seconds), "{seconds}");
    let parts = [
        text("model", "dall-e-2"),
        text("prompt", PROMPT),
        png("image", &square()),
    ];
    let edit = post(&app, &key, EDITS, form(&parts)).await.expect(429);
    assert_eq!(edit.problem().code(), "spend_limit_exceeded");
    assert_eq!(app.balance(&key).await, json!(0.952));

    let shown = |arguments: &[&str]| app.run(arguments).expect_success().json();
    let raised = shown(&[
        "keys",
        "update",
        &key.id,
        "--json",
        "--spend-per-month",
        "0.07",
    ]);
    assert_eq!(raised["limits"]["spend_per_month"], json!(0.07));
    // What comes to nothing is not spent.
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    app.generate(&key, &small()).await.expect(502);
    app.generate(&key, &small()).await.expect(200);
    app.generate(&key, &small()).await.expect(429);
    shown(&[
        "accounts",
        "update",
        &key.account,
        "--json",
        "--spend-per-month",
        "0.064",
    ]);
    shown(&[
        "keys",
        "update",
        &key.id,
        "--json",
        "--spend-per-month",
        "none",
    ]);
    let problem = app.generate(&key, &small()).await.expect(429).problem();
    assert!(
        problem
            .message
            .contains("this account: 0.064 USD per month"),
        "a new limit knows what was spent before: {problem:?}"
    );
    shown(&[
        "accounts",
        "update",
        &key.account,
        "--json",
        "--spend-per-month",
        "none",
    ]);
    app.generate(&key, &small()).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_shown() {
    let app = App::start().await;
    let options = [
        "--rpm",
        "6",
        "--ipm",
        "7",
        "--max-in-flight",
        "8",
        "--spend-per-day",
        "9.5",
        "--spend-per-month",
        "100",
    ];
    let expected = json!({
        "requests_per_minute": 6, "images_per_minute": 7, "max_in_flight": 8, "spend_per_day": 9.5,
        "spend_per_month": 100,
    });
    let read = |arguments: &[&str]| app.run(arguments).expect_success().json();
    let account = read(&[&["accounts", "create", "shop", "--json"], &options[..]].concat());
    assert_eq!(account["limits"], expected);
    let networks = ["--ips", "127.0.0.0/8,2001:db8::/32"];
    let own = [&["--account", "shop"], &options[..], &networks[..]].concat();
    let key = app.create_key(&own);
    let shown = read(&["keys", "show", &key.id, "--json"]);
    assert_eq!(
        (&shown["limits"], &shown["account_limits"]),
        (&expected, &expected)
    );
    assert_eq!(
        shown["allowed_ips"],
        json!(["127.0.0.0/8", "2001:db8::/32"])
    );
    for (command, parts) in [
        (
            "keys",
            &[
                "6 requests/min",
                "9.5 USD/day",
                "account: 100 USD/month",
                "2001:db8::/32",
            ][..],
        ),
        ("accounts", &["8 in flight", "100 USD/month"]),
    ] {
        let table = app.run(&[command, "list"]).expect_success().stdout;
        for part in parts {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
    let none = json!({
        "requests_per_minute": null, "images_per_minute": null, "max_in_flight": null, "spend_per_day": null,
        "spend_per_month": null,
    });
    let away: Vec<&str> = options
        .chunks(2)
        .flat_map(|option| [option[0], "none"])
        .collect();
    let update = ["keys", "update", &key.id, "--json", "--ips", "any"];
    let changed = read(&[&update[..], &away].concat());
    assert_eq!(
        (&changed["limits"], &changed["allowed_ips"]),
        (&none, &Value::Null)
    );
    let changed = read(&[&["accounts", "update", "shop", "--json"][..], &away].concat());
    assert_eq!(changed["limits"], none);
    for (option, value) in [
        ("--spend-per-day", "-1"),
        ("--spend-per-month", "much"),
        ("--ips", "10.1.2.3/8"),
        ("--ips", "here"),
    ] {
        let output = app.run(&["keys", "create", option, value]);
        assert!(!output.status.success(), "{option} {value}");
        assert!(output.stderr.contains(value), "{}", output.stderr);
    }
    app.finish().await;
}

/// A place that gets free is free at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_in_flight_is_free_with_the_answer() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--max-in-flight", "1"]);
    for _ in 0..5 {
        app.generate(&key, &small()).await.expect(200);
    }
    app.finish().await;
}
