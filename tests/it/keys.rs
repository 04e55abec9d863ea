//! Keys: who may do what, and that only a hash of the secret is kept.

use serde_json::json;

use crate::support::{App, until};

const PROMPT: &str = "a locksmith counting his keys";

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_valid_key_are_401() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    let stranger = format!("ek_live_{}", "0".repeat(40));
    let (all_but_one, last) = key.secret.split_at(key.secret.len() - 1);
    let almost = format!("{all_but_one}{}", if last == "x" { "y" } else { "x" });
    for secret in [
        None,
        Some(""),
        Some("nonsense"),
        Some(stranger.as_str()),
        Some(almost.as_str()),
        Some("sk-proj-0123456789abcdefghijkl"),
    ] {
        for path in [
            "/v1/images/generations",
            "/v1/models",
            "/v1/credits",
            "/v1/usage",
        ] {
            let answer = match path {
                "/v1/images/generations" => app.client.post_json(path, secret, &request).await,
                _ => app.client.get(path, secret).await,
            };
            let problem = answer.expect(401).problem();
            assert_eq!(
                (problem.kind.as_str(), problem.code()),
                ("invalid_request_error", "invalid_api_key"),
                "{path}"
            );
            assert!(
                secret.is_none_or(|secret| secret.len() < 9 || !problem.message.contains(secret)),
                "the key is repeated: {problem:?}"
            );
        }
    }
    let basic = app
        .client
        .request(reqwest::Method::GET, "/v1/credits")
        .header("authorization", format!("Basic {}", key.secret));
    app.client.send(basic).await.expect(401);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_opens_nothing() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.get(&key, "/v1/credits").await.expect(200);
    app.run(&["keys", "revoke", &key.id]).expect_success();
    // A cache may remember it for a moment, not longer.
    until("it opens nothing", async || {
        app.get(&key, "/v1/credits").await.status == 401
    })
    .await;
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    assert_eq!(
        app.generate(&key, &request)
            .await
            .expect(401)
            .problem()
            .code(),
        "invalid_api_key"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_expires() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--expires", "1s"]);
    until("it opens nothing", async || {
        app.get(&key, "/v1/credits").await.status == 401
    })
    .await;
    let past = app.run(&[
        "keys",
        "create",
        "--json",
        "--name",
        "late",
        "--expires",
        "2020-01-01T00:00:00Z",
    ]);
    assert!(
        !past.status.success(),
        "an end that is past is a mistake: {past:?}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_bound_to_models() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--models", "dall-e-2,openai/gpt-image-1"]);
    app.generate(&key, &json!({"model": "openai/dall-e-2", "prompt": PROMPT}))
        .await
        .expect(200);
    app.generate(
        &key,
        &json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low"}),
    )
    .await
    .expect(200);
    let problem = app
        .refuse(&key, 403, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await;
    assert_eq!(problem.kind, "invalid_request_error");
    assert!(problem.message.contains("dall-e-3"), "{problem:?}");
    let listed = app.get(&key, "/v1/models").await.expect(200).json();
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["openai/dall-e-2", "openai/gpt-image-1"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_hash_of_the_secret_is_kept() {
    let app = App::start().await;
    let live = app.live_key("1");
    let test = app.test_key("1");
    assert!(live.secret.starts_with("ek_live_") && test.secret.starts_with("ek_test_"));
    for key in [&live, &test] {
        // 160 random bits are at least 27 characters of base 62.
        assert!(
            key.secret.len() >= 8 + 27,
            "{} characters",
            key.secret.len()
        );
        let random = &key.secret[8..];
        let rows = app
            .database
            .number(&format!(
                "select count(*) from api_keys where api_keys::text like '%{random}%'"
            ))
            .await;
        assert_eq!(rows, 0, "the secret is in the database");
        let hashed = app
            .database
            .number(&format!(
                "select count(*) from api_keys where secret_hash = sha256('{}'::bytea)",
                key.secret
            ))
            .await;
        assert_eq!(hashed, 1, "SHA-256 of the secret finds the key");
    }
    app.finish().await;
}

/// At most so many requests a minute; refused ones cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_limits() {
    let app = App::start().await;
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "n": 2});
    for (arguments, allowed) in [(["--rpm", "3"], 3), (["--ipm", "5"], 2)] {
        let key = app.create_key(&[&["--credit", "1"][..], &arguments[..]].concat());
        for _ in 0..allowed {
            app.generate(&key, &request).await.expect(200);
        }
        let answer = app.generate(&key, &request).await.expect(429);
        assert_eq!(
            answer.problem().code(),
            "rate_limit_exceeded",
            "{arguments:?}"
        );
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        app.balance(&key).await;
    }
    app.finish().await;
}

/// A refused request costs nothing and counts only against requests per minute (design, section 9).
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_count_against_requests_per_minute() {
    let app = App::start().await;
    let good = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let limits = ["--rpm", "5", "--ipm", "1", "--models", "dall-e-2"];
    let key = app.create_key(&[&["--credit", "1"][..], &limits[..]].concat());
    for (status, request) in [
        (
            400,
            json!({"model": "dall-e-2", "prompt": PROMPT, "size": "17x17"}),
        ),
        (
            400,
            json!({"model": "dall-e-2", "prompt": PROMPT, "n": "two"}),
        ),
        (400, json!(["no object"])),
        (403, json!({"model": "dall-e-3", "prompt": PROMPT})),
    ] {
        app.generate(&key, &request).await.expect(status);
    }
    app.generate(&key, &good).await.expect(200);
    for request in [good, json!({"model": "dall-e-2"})] {
        let problem = app.generate(&key, &request).await.expect(429).problem();
        assert!(
            problem.message.contains("5 requests per minute"),
            "{problem:?}"
        );
    }
    app.finish().await;
}
