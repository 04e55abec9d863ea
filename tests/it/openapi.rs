//! The document of the API and the page that shows it; and that real answers are what it says, as [`Contract`] finds.

use std::{path::Path, process::Command};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use crate::support::{App, Contract, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_told_as_it_is_printed() {
    let app = App::start().await;
    let told = app.client.get("/openapi.json", None).await.expect(200);
    let mut printed = app.run(&["openapi"]).expect_success().json();
    let mut document = told.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{"url": app.easel.origin()}]));
    printed["servers"] = Value::Null;
    document["servers"] = Value::Null;
    assert_eq!(document, printed);
    assert_eq!(told.header("cache-control"), "public, max-age=300");
    let again = app
        .client
        .request(Method::GET, "/openapi.json")
        .header("if-none-match", told.header("etag"));
    let again = app.client.send(again).await.expect(304);
    assert!(again.bytes.is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_where_clients_reach_it() {
    let app = App::builder()
        .await
        .set("public_url", "https://images.example/easel")
        .start()
        .await;
    let document = app.client.get("/openapi.json", None).await.json();
    assert_eq!(
        document["servers"],
        json!([{"url": "https://images.example/easel"}])
    );
    app.finish().await;
}

/// The router knows every operation of the document: what is asked may be refused, but not for the path or the
/// method.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_documented_is_served() {
    let app = App::builder()
        .await
        .set("admin.token", "operator-of-the-document-5f1d")
        .start()
        .await;
    let contract = Contract::of_easel();
    let paths = contract.document()["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path
                .replace("/docs/{file}", "/docs/start.js")
                .replace(
                    "/files/{name}",
                    "/files/img_00000000000000000000000000000000.png",
                )
                .replace("{id}", "x")
                .replace("{name}", "x");
            let request = app.client.request(method.clone(), &path);
            let answer = app.client.send(request).await;
            let refusal = matches!(answer.status, 404 | 405).then(|| answer.problem());
            assert!(
                refusal.as_ref().is_none_or(|problem| {
                    !["unknown_url", "method_not_allowed"].contains(&problem.code())
                        || path.starts_with("/files/")
                }),
                "{method} {path}: {refusal:?}"
            );
        }
    }
    app.finish().await;
}

/// What an app meets on an ordinary day.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_is_described() {
    let app = App::start().await;
    let key = app.live_key("5");
    let client = &app.client;
    let generations = "/v1/images/generations";
    let asked = [
        (
            json!({"model": "dall-e-3", "prompt": "a ledger of brass"}),
            200,
        ),
        (
            json!({"model": "gpt-image-1", "prompt": "a ledger of tin"}),
            200,
        ),
        (
            json!({"model": "gpt-image-1", "prompt": "a ledger of ink", "stream": true, "partial_images": 1}),
            200,
        ),
        (
            json!({"model": "dall-e-33", "prompt": "a ledger of air"}),
            404,
        ),
        (
            json!({"model": "dall-e-3", "prompt": "a ledger", "size": "huge"}),
            400,
        ),
    ];
    for (body, status) in asked {
        client
            .post_json(generations, Some(&key.secret), &body)
            .await
            .expect(status);
    }
    let poor = app.live_key("0.001");
    let body = json!({"model": "dall-e-3", "prompt": "a ledger of gold"});
    client
        .post_json(generations, Some(&poor.secret), &body)
        .await
        .expect(402);
    client.get("/v1/credits", None).await.expect(401);
    for path in [
        generations,
        "/v1/models",
        "/v1/models/openai/dall-e-2",
        "/v1/credits",
        "/v1/usage?group_by=model",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        client.get(path, Some(&key.secret)).await.expect(200);
    }
    client
        .get("/v1/models/none/such", Some(&key.secret))
        .await
        .expect(404);
    app.finish().await;
}

/// A field, a header, a status or a code that is not in the document is found.
#[test]
fn what_is_not_described_is_found() {
    let contract = Contract::of_easel();
    let faults = |status: u16, headers: &[(&'static str, &'static str)], body: &Value| {
        let mut all = HeaderMap::new();
        all.insert("content-type", "application/json".parse().unwrap());
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        contract
            .faults(&Seen {
                method: &Method::GET,
                path: "/v1/credits",
                status,
                headers: &all,
                body: body.to_string().as_bytes(),
            })
            .join("; ")
    };
    let credits = |more: &Value| {
        let mut credits = json!({
            "object": "credits", "currency": "USD", "balance": 5, "held": 0, "available": 5,
        });
        for (name, value) in more.as_object().unwrap() {
            credits[name] = value.clone();
        }
        credits
    };
    let refusal = |code: &str| json!({"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": code}});
    let fine = [("x-request-id", "req_1")];
    assert_eq!(faults(200, &fine, &credits(&json!({}))), "");
    assert_eq!(faults(401, &fine, &refusal("invalid_api_key")), "");
    for (found, expected) in [
        (faults(200, &fine, &credits(&json!({"debt": 1}))), "debt"),
        (faults(200, &fine, &credits(&json!({"held": "0"}))), "held"),
        (faults(200, &fine, &json!({"object": "credits"})), "balance"),
        (
            faults(200, &[("x-debt", "1")], &credits(&json!({}))),
            "x-debt",
        ),
        (faults(201, &fine, &credits(&json!({}))), "201"),
        (faults(401, &fine, &refusal("no_way")), "no_way"),
    ] {
        assert!(found.contains(expected), "{expected} in {found:?}");
    }
}

/// Another reader of the standard than the one that made it.
#[test]
fn the_document_is_openapi_3_1() {
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    assert!(
        interpreter.exists(),
        "openapi-spec-validator is not installed: start the tests with `tests/run`"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("openapi.json");
    std::fs::write(&file, Contract::of_easel().document().to_string()).unwrap();
    let output = Command::new(interpreter)
        .args(["-m", "openapi_spec_validator", "--schema", "3.1"])
        .arg(file)
        .output()
        .expect("the interpreter starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Words for people, without what only a reader of the source knows.
#[test]
fn descriptions_are_for_its_readers() {
    fn check(node: &Value, place: &str) {
        match node {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let place = format!("{place}/{name}");
                    if let ("description" | "summary", Some(text)) = (name.as_str(), field.as_str())
                    {
                        for word in ["`None`", "[`", "::", "ek_live_a"] {
                            assert!(!text.contains(word), "{word} at {place}: {text}");
                        }
                    }
                    check(field, &place);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, place)),
            _ => {}
        }
    }
    check(Contract::of_easel().document(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_other_server() {
    let app = App::start().await;
    let page = app.client.get("/docs", None).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    let text = String::from_utf8(page.bytes.to_vec()).unwrap();
    assert!(!text.contains("//") && !text.contains("<style"), "{text}");
    let named = |attribute: &str| -> Vec<String> {
        let values = text.split(attribute).skip(1);
        let values = values.filter_map(|rest| rest.split('"').next());
        values
            .filter(|value| !value.starts_with("data:"))
            .map(|value| format!("/{value}"))
            .collect()
    };
    for file in [named("src=\""), named("href=\"")].concat() {
        let plain = app.client.get(&file, None).await.expect(200);
        assert!(plain.bytes.len() > 100, "{file}");
        if file == "/openapi.json" {
            continue;
        }
        assert_eq!(plain.header("content-security-policy"), policy, "{file}");
        assert_eq!(plain.header("x-content-type-options"), "nosniff", "{file}");
        let packed = app
            .client
            .request(Method::GET, &file)
            .header("accept-encoding", "gzip");
        let packed = app.client.send(packed).await.expect(200);
        if packed.find_header("content-encoding") == Some("gzip") {
            assert!(packed.bytes.len() * 2 < plain.bytes.len(), "{file}");
        }
    }
    for file in ["/docs/LICENSE", "/docs/NOTICE"] {
        app.client.get(file, None).await.expect(200);
    }
    let unknown = app.client.get("/docs/Cargo.toml", None).await.expect(404);
    assert_eq!(unknown.problem().code(), "unknown_url");
    app.finish().await;
}
