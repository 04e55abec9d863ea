//! Keys that are bound to networks, and where a client is behind a proxy.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, App, Key};

const PROMPT: &str = "a drawbridge that is up";

async fn ask(app: &App, key: &Key, method: Method, path: &str, forwarded: &[&str]) -> Answer {
    let mut request = app
        .client
        .request(method.clone(), path)
        .bearer_auth(&key.secret);
    for line in forwarded {
        request = request.header("x-forwarded-for", *line);
    }
    if method == Method::POST {
        let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
        request = request
            .header("content-type", "application/json")
            .body(body.to_string());
    }
    app.client.send(request).await
}

/// Refused on every endpoint before anything moves, and counted nowhere: a stolen key costs its owner nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_nothing_from_elsewhere() {
    let app = App::start().await;
    let limits = ["--credit", "1", "--rpm", "1", "--ips", "10.0.0.0/8,::1"];
    let key = app.create_key(&limits);
    for (method, path) in [
        (Method::POST, "/v1/images/generations"),
        (Method::POST, "/v1/images/edits"),
        (Method::POST, "/v1/images/variations"),
        (Method::GET, "/v1/images/generations"),
        (
            Method::GET,
            "/v1/images/generations/gen_01a1fe32b777739c91b21b08859a8a04",
        ),
        (Method::GET, "/v1/models"),
        (Method::GET, "/v1/models/dall-e-2"),
        (Method::GET, "/v1/credits"),
        (Method::GET, "/v1/usage"),
    ] {
        // No proxy is trusted here, so nobody is believed who says where he is.
        for forwarded in [&[][..], &["10.1.2.3"]] {
            let answer = ask(&app, &key, method.clone(), path, forwarded).await;
            let problem = answer.expect(403).problem();
            assert_eq!(problem.code(), "ip_not_allowed", "{path}");
            assert!(problem.message.contains("127.0.0.1"), "{problem:?}");
        }
    }
    let held = app.database.number("select count(*) from holds").await;
    let counted = app
        .database
        .number("select count(*) from key_seconds")
        .await;
    assert_eq!((held, counted), (0, 0));
    app.run(&["keys", "update", &key.id, "--ips", "127.0.0.1"])
        .expect_success();
    let path = "/v1/images/generations";
    ask(&app, &key, Method::POST, path, &[]).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_where_the_client_is() {
    let app = App::builder()
        .await
        .set("trusted_proxies", json!(["127.0.0.0/8", "10.0.0.0/8"]))
        .set("admin.token", "operator-of-the-drawbridge")
        .start()
        .await;
    app.keep_secret("operator-of-the-drawbridge", "the admin token");
    let key = app.create_key(&["--credit", "1", "--ips", "198.51.100.0/24,2001:db8::/32"]);
    for (forwarded, status) in [
        (&["198.51.100.7"][..], 200),
        (&["203.0.113.9, 198.51.100.7, 10.0.0.1"], 200),
        (&["203.0.113.9", "198.51.100.7:4711"], 200),
        (&["[2001:db8::7]:443"], 200),
        (&["::ffff:198.51.100.7"], 200),
        (&[], 403),
        (&["203.0.113.9"], 403),
        // What the client writes itself stands further to the left.
        (&["198.51.100.7, 203.0.113.9"], 403),
        (&["198.51.100.7", "203.0.113.9"], 403),
        (&["198.51.100.7, unknown"], 403),
    ] {
        let answer = ask(&app, &key, Method::GET, "/v1/credits", forwarded).await;
        assert_eq!(answer.status, status, "{forwarded:?}");
    }
    // Who guesses the admin token is slowed where he is, and nobody else behind the same proxy.
    let knock = async |token: &str, client: &str| {
        let request = app
            .client
            .request(Method::GET, "/admin/v1/config")
            .bearer_auth(token)
            .header("x-forwarded-for", client);
        app.client.send(request).await.status
    };
    app.keep_secret("a-guess-of-many-guesses", "a guessed admin token");
    for _ in 0..5 {
        assert_eq!(knock("a-guess-of-many-guesses", "203.0.113.9").await, 401);
    }
    assert_eq!(knock("a-guess-of-many-guesses", "203.0.113.9").await, 429);
    assert_eq!(
        knock("operator-of-the-drawbridge", "203.0.113.8").await,
        200
    );
    app.finish().await;
}
