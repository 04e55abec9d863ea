//! What web pages may do with answers: nothing, unless the operator says so; and what browsers are told.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, App, Contract};

const PAGE: &str = "https://app.example.com";
const TOKEN: &str = "operator-9d4e-of-the-page-tests";

/// What a browser asks before it sends a request with a key.
async fn preflight(app: &App, path: &str, origin: &str) -> Answer {
    let request = app
        .client
        .request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,x-stainless-os",
        );
    app.client.send(request).await
}

async fn get_from(app: &App, path: &str, origin: &str) -> Answer {
    let request = app
        .client
        .request(Method::GET, path)
        .header("origin", origin);
    app.client.send(request).await
}

/// What the document says of answers that is meant for apps, and that browsers would keep from pages.
fn headers_for_apps() -> Vec<String> {
    let for_browsers_and_proxies = [
        "cache-control",
        "content-disposition",
        "content-security-policy",
        "cross-origin-resource-policy",
        "etag",
        "referrer-policy",
        "www-authenticate",
        "x-accel-buffering",
        "x-content-type-options",
    ];
    let document = Contract::of_easel().document();
    let names = document["components"]["headers"]
        .as_object()
        .unwrap()
        .keys();
    names
        .filter(|name| !for_browsers_and_proxies.contains(&name.as_str()))
        .cloned()
        .collect()
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.find_header("access-control-allow-origin")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_let_in_by_name_and_never_to_the_operators_surface() {
    let mut app = App::builder().await.set("admin.token", TOKEN).start().await;
    assert_eq!(
        allowed(&preflight(&app, "/v1/images/generations", PAGE).await),
        None
    );
    assert_eq!(allowed(&get_from(&app, "/v1/models", PAGE).await), None);

    app.configure(|settings| {
        settings.set("cors.origins", json!([PAGE, "http://localhost:5173"]));
    });
    app.reload().await;
    for origin in [PAGE, "http://localhost:5173"] {
        let answer = preflight(&app, "/v1/images/generations", origin)
            .await
            .expect(200);
        assert_eq!(allowed(&answer), Some(origin));
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, "authorization,content-type,x-stainless-os");
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("POST")
        );
        assert!(
            answer
                .find_header("access-control-allow-credentials")
                .is_none()
        );
        // An error is an answer too.
        let answer = get_from(&app, "/v1/models", origin).await.expect(401);
        assert_eq!(allowed(&answer), Some(origin));
        assert!(answer.header("vary").contains("origin"));
        let exposed = answer.header("access-control-expose-headers");
        for name in headers_for_apps() {
            assert!(
                exposed.split(',').any(|exposed| exposed.trim() == name),
                "{name} in {exposed}"
            );
        }
        // A page may cancel what it has asked for.
        let methods = preflight(&app, "/v1/images/generations/gen_1", origin).await;
        assert!(
            methods
                .header("access-control-allow-methods")
                .contains("DELETE")
        );
    }
    for (path, origin) in [
        ("/v1/images/generations", "https://evil.example.com"),
        ("/admin/v1/keys", PAGE),
        ("/metrics", PAGE),
    ] {
        assert_eq!(
            allowed(&preflight(&app, path, origin).await),
            None,
            "{path}"
        );
        assert_eq!(allowed(&get_from(&app, path, origin).await), None, "{path}");
    }

    app.configure(|settings| {
        settings.set("cors.origins", json!(["*"]));
    });
    app.reload().await;
    let answer = preflight(&app, "/v1/models", "https://anybody.example").await;
    assert_eq!(allowed(&answer), Some("*"));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosted_pictures_and_their_errors_can_only_be_shown() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request =
        json!({"model": "dall-e-2", "prompt": "a picture behind glass", "size": "256x256"});
    let link = app.generate(&key, &request).await.expect(200).link(0);
    let picture = app.open_link(&link).await.expect(200);
    let path = link.strip_prefix(&app.easel.origin()).unwrap();
    let (path, _) = path.split_once('?').unwrap();
    let forged = app.client.get(path, None).await.expect(403);
    for answer in [picture, forged] {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "cross-origin"),
        ] {
            assert_eq!(answer.header(name), value);
        }
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("sandbox"),
            "{policy}"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_at_the_end_changes_nothing() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-3", "prompt": "a slash of red paint"});
    let answer = app.generate(&key, &request).await.expect(200);
    let generation = answer.header("x-generation-id");
    for path in [
        "/v1/models".to_owned(),
        "/v1/models/openai/dall-e-3".to_owned(),
        "/v1/credits".to_owned(),
        "/v1/usage".to_owned(),
        "/v1/images/generations".to_owned(),
        format!("/v1/images/generations/{generation}"),
    ] {
        let plain = app.get(&key, &path).await.expect(200).json();
        let slashed = app.get(&key, &format!("{path}/")).await.expect(200).json();
        // Of a moment that each says anew, and with fresh links.
        let is_of_now = ["/v1/usage", "/v1/images/generations"].contains(&path.as_str());
        if !path.ends_with(generation) && !is_of_now {
            assert_eq!(plain, slashed, "{path}");
        }
    }
    app.finish().await;
}
