//! Who is let in.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Office, TOKEN, assert_mistake};
use crate::support::{App, Contract};

/// Every method and path that the document has here.
fn endpoints() -> Vec<(Method, String)> {
    let paths = Contract::of_easel().document()["paths"].as_object();
    let own = paths
        .unwrap()
        .iter()
        .filter(|(path, _)| path.starts_with("/admin/v1/"));
    let endpoints: Vec<_> = own
        .flat_map(|(path, methods)| {
            let path = path
                .replace("/models/{id}", "/models/dall-e-2")
                .replace("/providers/{name}", "/providers/openai")
                .replace("{id}", "a");
            assert!(!path.contains('{'), "{path}");
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase().parse().unwrap(), path.clone()))
        })
        .collect();
    assert!(endpoints.len() > 25, "{endpoints:?}");
    endpoints
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_in_the_configuration_there_is_no_admin_api() {
    let app = App::start().await;
    for (method, path) in endpoints() {
        let request = app.client.request(method, &path).bearer_auth(TOKEN);
        let answer = app.client.send(request).await.expect(404);
        assert_eq!(answer.problem().code(), "unknown_url", "{path}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_opens_anything() {
    let office = Office::open().await;
    let key = office.live_key("1");
    for (method, path) in endpoints() {
        let knock = || office.client.request(method.clone(), &path);
        let answer = office.client.send(knock()).await.expect(401);
        assert_eq!(answer.problem().code(), "invalid_admin_token", "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        // Not counted as guesses: these never carry a token.
        let basic = knock().header("authorization", "Basic YTpi");
        office.client.send(basic).await.expect(401).problem();
    }
    // Neither does a customer's key, which is a guess like any other.
    let answer = office
        .client
        .get("/admin/v1/accounts", Some(&key.secret))
        .await;
    answer.expect(401).problem();
    let answer = office.get("/accounts").await.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    // And the token is no key.
    let answer = office.client.get("/v1/credits", Some(TOKEN)).await;
    assert!(!answer.expect(401).problem().message.contains("of-these"));
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed() {
    let office = Office::open().await;
    let mut statuses = Vec::new();
    for guess in 0..8 {
        let token = format!("guess-number-{guess}-of-many");
        office.keep_secret(&token, "a guessed admin token");
        let answer = office.client.get("/admin/v1/config", Some(&token)).await;
        let problem = answer.problem();
        if answer.status == 429 {
            assert_eq!(problem.code(), "too_many_failed_attempts");
            let seconds: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    // Nothing is read from there for a while, not even the right token.
    office.get("/config").await.expect(429);
    // It holds nobody else up: the rest of the server is open to this address too.
    office.client.get("/healthz", None).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    office.get("/config").await.expect(200);
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_by_name() {
    let office = Office::open().await;
    let account = office.live_key("1").account;
    for path in ["/nothing", "/accounts/a/b/c", ""] {
        let answer = office.get(path).await.expect(404);
        assert_eq!(answer.problem().code(), "unknown_url", "{path}");
    }
    let answer = office.send(Method::DELETE, "/accounts", &json!({})).await;
    assert_eq!(answer.expect(405).problem().code(), "method_not_allowed");

    for path in ["/accounts", "/keys", "/generations", "/images", "/usage"] {
        let answer = office.get(&format!("{path}?colour=red")).await;
        assert_mistake(&answer, "unknown_parameter", "colour");
    }
    for path in [
        "/accounts",
        "/keys",
        "/generations",
        "/images",
        "/accounts/tests/entries",
    ] {
        for (name, value) in [("limit", "0"), ("limit", "101"), ("after", "yesterday")] {
            let answer = office.get(&format!("{path}?{name}={value}")).await;
            assert_mistake(&answer, "invalid_value", name);
        }
    }
    for (method, path) in [
        (Method::POST, "/accounts".to_owned()),
        (Method::PATCH, format!("/accounts/{account}")),
        (Method::POST, format!("/accounts/{account}/credit")),
        (Method::POST, "/keys".to_owned()),
        (Method::POST, "/providers/openai/rest".to_owned()),
    ] {
        let body = json!({"colour": "red"});
        let answer = office.send(method.clone(), &path, &body).await;
        assert_mistake(&answer, "unknown_parameter", "colour");
        for (body, code) in [("[]", None), ("{", None)] {
            let request = office
                .client
                .request(method.clone(), &format!("/admin/v1{path}"))
                .bearer_auth(TOKEN)
                .header("content-type", "application/json")
                .body(body);
            let answer = office.client.send(request).await.expect(400);
            assert_eq!(answer.problem().code, code, "{path} {body}");
        }
        let request = office
            .client
            .request(method, &format!("/admin/v1{path}"))
            .bearer_auth(TOKEN)
            .body("colour=red");
        let answer = office.client.send(request).await.expect(415);
        assert_eq!(answer.problem().code(), "unsupported_content_type");
    }
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_its_secrets() {
    let office = Office::open().await;
    let answer = office.get("/config").await.expect(200);
    let shown = answer.json();
    assert_eq!(shown["object"], "config");
    assert_eq!(shown["admin"]["token"], "****");
    assert_eq!(shown["database"]["url"], "****");
    assert_eq!(shown["providers"]["openai"]["api_key"], "****");
    assert_eq!(
        shown["providers"]["openai"]["base_url"],
        office.openai.base_url()
    );
    assert_eq!(shown["providers"]["stability"]["api_key"], Value::Null);
    assert_eq!(
        shown["file"],
        office.config_file().to_str().unwrap(),
        "{shown}"
    );
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    for secret in [TOKEN, crate::support::fake_openai::API_KEY] {
        assert!(!text.contains(secret), "{text}");
    }
    office.finish().await;
}
