//! Logs: one line for each exchange, with what an operator looks for; and whatever is sent here, by clients, providers
//! or the operator, no line at any level repeats what is private.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    edits::{BOUNDARY, EDITS, form, png, post, square, text},
    later::{ended, later_with},
    support::{Answer, App, Behaviour, Key, Reply, pictures, until_some},
};

const GENERATIONS: &str = "/v1/images/generations";

/// The lines of all exchanges so far, by the exchange's id.
fn lines(app: &App) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in app.easel.stderr().lines() {
        // The last one may not be whole yet.
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if line["message"] == "answered" {
            let id = line["spans"][0]["request.id"].as_str().unwrap();
            all.entry(id.to_owned()).or_default().push(line.clone());
        }
    }
    all
}

/// An Easel that says one line of each exchange.
async fn start() -> App {
    let builder = App::builder().await.set("log.format", "json");
    builder.environment("RUST_LOG", "info").start().await
}

/// The line of the exchange that this answers. What a client has read to its end may not have been let go of yet.
async fn line(app: &App, answer: &Answer) -> Value {
    line_of(app, answer.header("x-request-id")).await
}

/// The line of the exchange with this id.
async fn line_of(app: &App, id: &str) -> Value {
    let lines = async || lines(app).remove(id);
    let lines = until_some(&format!("a line of {id}"), lines).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].clone()
}

async fn generate(app: &App, key: &Key, body: Value) -> Answer {
    app.generate(key, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_one_line_that_says_how_it_went() {
    let app = start().await;
    let key = app.live_key("1");
    let poor = app.live_key("0.01");
    let prompt = "a line that nobody reads twice";
    let dalle = json!({"model": "dall-e-3", "prompt": prompt, "response_format": "url"});
    let hosted = generate(&app, &key, dalle.clone()).await.expect(200);
    let gpt =
        json!({"model": "gpt-image-1", "prompt": prompt, "quality": "low", "size": "1024x1024"});
    let relayed = generate(&app, &key, gpt.clone()).await.expect(200);
    let mut streamed = gpt.clone();
    streamed["stream"] = json!(true);
    streamed["partial_images"] = json!(1);
    let streamed = generate(&app, &key, streamed).await.expect(200);
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    let failed = generate(&app, &key, dalle.clone()).await.expect(502);
    let unpaid = generate(&app, &poor, dalle).await.expect(402);
    let unknown = json!({"model": "no-such-model", "prompt": prompt});
    let unknown = generate(&app, &key, unknown).await.expect(404);
    let nowhere = app.client.get("/nowhere/at/all", None).await.expect(404);
    let picture = app.open_link(&hosted.link(0)).await.expect(200);

    let painted = ["hold_ms", "upstream_ms", "settlement_ms"];
    for (what, answer, expected, times) in [
        (
            "hosted",
            &hosted,
            json!({"key.id": key.id, "model.id": "openai/dall-e-3", "provider.name": "openai", "cost_usd": "0.04",
                "generation.id": hosted.header("x-generation-id"), "http.route": GENERATIONS, "http.method": "POST"}),
            &painted[..],
        ),
        (
            "relayed",
            &relayed,
            json!({"key.id": key.id, "model.id": "openai/gpt-image-1", "provider.name": "openai",
                "cost_usd": relayed.json()["usage"]["cost"].to_string(),
                "generation.id": relayed.header("x-generation-id")}),
            &painted,
        ),
        (
            "streamed",
            &streamed,
            json!({"key.id": key.id, "model.id": "openai/gpt-image-1", "provider.name": "openai",
                "generation.id": streamed.header("x-generation-id")}),
            &painted,
        ),
        (
            "failed",
            &failed,
            json!({"key.id": key.id, "model.id": "openai/dall-e-3", "provider.name": "openai",
                "error.code": "upstream_error"}),
            &painted,
        ),
        (
            "unpaid",
            &unpaid,
            json!({"key.id": poor.id, "model.id": "openai/dall-e-3", "error.code": "insufficient_balance"}),
            &[],
        ),
        (
            "unknown",
            &unknown,
            json!({"key.id": key.id, "model.id": null, "error.code": "model_not_found"}),
            &[],
        ),
        (
            "nowhere",
            &nowhere,
            json!({"http.route": "none", "key.id": null}),
            &[],
        ),
        (
            "a picture",
            &picture,
            json!({"http.route": "/files/{name}", "http.method": "GET"}),
            &[],
        ),
    ] {
        let line = line(&app, answer).await;
        assert_eq!(line["http.status"], answer.status, "{what}: {line}");
        assert_eq!(line["ending"], "whole", "{what}: {line}");
        assert!(line["latency_ms"].as_u64() <= line["duration_ms"].as_u64());
        assert!(line["latency_ms"].is_u64(), "{what}: {line}");
        let request = &line["spans"][0];
        for (name, expected) in expected.as_object().unwrap() {
            assert_eq!(&request[name], expected, "{what}: {name} in {line}");
        }
        for name in painted {
            let is_told = request[name].is_u64();
            assert_eq!(is_told, times.contains(&name), "{what}: {name} in {line}");
        }
        if what == "streamed" {
            let cost = request["cost_usd"].as_str().unwrap();
            assert!(cost.parse::<f64>().unwrap() > 0.01, "{line}");
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_said_to_have_left() {
    let app = start().await;
    let key = app.live_key("1");
    app.openai
        .next(Behaviour::EventsEvery(Duration::from_secs(2)));
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(
            json!({"model": "gpt-image-1", "prompt": "a guest who leaves early", "quality": "low",
                "size": "1024x1024", "stream": true, "partial_images": 2})
            .to_string(),
        );
    let mut response = request.send().await.unwrap();
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    response.chunk().await.unwrap().expect("a draft");
    drop(response);
    let line = line_of(&app, &id).await;
    assert_eq!(line["ending"], "left", "{line}");
    app.finish().await;
}

/// A word that is found nowhere else.
fn canary(app: &App, number: &mut u32, what: &'static str) -> String {
    *number += 1;
    let word = format!(
        "canary{number:03}sings{}",
        number.wrapping_mul(2_654_435_761)
    );
    app.keep_secret(&word, what);
    word
}

/// Everything that can be asked of Easel is asked once, well and badly, with a word in every place that is a client's
/// or a provider's. `finish` looks for each of them in all that was logged at `trace`.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_nothing_private_is_logged() {
    const TOKEN: &str = "operator-of-the-canaries-7f3a";
    let app = App::builder()
        .await
        .set("log.format", "json")
        .set("admin.token", TOKEN)
        .start()
        .await;
    app.keep_secret(TOKEN, "the admin token");
    let key = app.live_key("5");
    let number = &mut 0;
    let mut exchanges = 0;
    let mut count = |answer: Answer, statuses: &[u16]| {
        exchanges += 1;
        assert!(
            statuses.contains(&answer.status),
            "{} is none of {statuses:?}: {answer:?}",
            answer.status
        );
        answer
    };

    // Paintings, in every way an answer can take.
    let gpt = |word: &str| {
        json!({"model": "gpt-image-1", "prompt": format!("a bird: {word}"), "user": format!("user {word}"),
            "quality": "low", "size": "1024x1024"})
    };
    let dalle = |word: &str| json!({"model": "dall-e-3", "prompt": format!("a bird: {word}")});
    for (more, statuses) in [
        (json!({}), [200]),
        (json!({"stream": true, "partial_images": 2}), [200]),
        (json!({"n": 2}), [200]),
        (json!({"n": 0}), [400]),
        (json!({"size": "7x7"}), [400]),
        (
            json!({"prompt": canary(&app, number, "a long prompt").repeat(3000)}),
            [400],
        ),
        (
            json!({"prompt": [canary(&app, number, "no prompt")]}),
            [400],
        ),
        (json!({"model": canary(&app, number, "a model")}), [404]),
        (
            json!({"background": canary(&app, number, "a background")}),
            [400],
        ),
    ] {
        let mut body = gpt(&canary(&app, number, "a prompt"));
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        count(app.generate(&key, &body).await, &statuses);
    }
    let hosted = dalle(&canary(&app, number, "a prompt"));
    let hosted = count(app.generate(&key, &hosted).await, &[200]);
    count(app.open_link(&hosted.link(0)).await, &[200]);
    let forged = canary(&app, number, "a signature");
    let link = hosted.link(0);
    let link = link.strip_prefix(&app.easel.origin()).unwrap();
    let (path, _) = link.split_once("signature=").unwrap();
    let forged = format!("{path}signature={forged}");
    count(app.client.get(&forged, None).await, &[403]);

    // Providers that repeat what they were told.
    for (reply, statuses) in [
        (400, [400, 502]),
        (401, [400, 502]),
        (429, [429, 502]),
        (500, [500, 502]),
    ] {
        let word = canary(&app, number, "a prompt that the provider repeats");
        let error = json!({"message": format!("your prompt 'a bird: {word}' for key {word} is bad"), "type": word,
            "param": word, "code": format!("a bird: {word}")});
        app.openai
            .next(Behaviour::Reply(Reply::error(reply, &error)));
        // One that no other route is tried for.
        count(app.generate(&key, &dalle(&word)).await, &statuses);
    }
    let word = canary(&app, number, "a body of the provider's");
    for reply in [
        Behaviour::Reply(Reply::raw(200, "text/html", word.clone())),
        Behaviour::Reply(Reply::raw(200, "application/json", format!("{{\"{word}"))),
        Behaviour::NotAPicture,
        Behaviour::NotBase64,
        Behaviour::BrokenPicture(0),
        Behaviour::CutAfter(3000),
        Behaviour::Reset,
    ] {
        app.openai.next(reply);
        count(app.generate(&key, &dalle(&word)).await, &[502, 504]);
    }

    // Bodies and heads that are none.
    let raw = |method: Method, path: &str| {
        app.client
            .request(method, path)
            .header("content-type", "application/json")
    };
    let word = canary(&app, number, "half a body");
    let half = format!("{{\"prompt\": \"{word}");
    let request = raw(Method::POST, GENERATIONS).bearer_auth(&key.secret);
    count(app.client.send(request.body(half)).await, &[400]);
    let word = canary(&app, number, "a content type");
    let request = app.client.request(Method::POST, GENERATIONS);
    let request = request
        .bearer_auth(&key.secret)
        .header("content-type", &word);
    count(app.client.send(request.body(word)).await, &[400, 415]);
    for (header, what) in [
        ("authorization", "a wrong key"),
        ("x-api-key", "a key in another header"),
        ("cookie", "a cookie"),
        ("prefer", "a preference"),
        ("idempotency-key", "a name"),
        ("traceparent", "a trace"),
        ("baggage", "baggage"),
    ] {
        let word = canary(&app, number, what);
        let mut request = raw(Method::POST, GENERATIONS);
        if header == "authorization" {
            request = request.bearer_auth(format!("ek_live_{word}abcdefghijklmnop"));
        } else {
            request = request.bearer_auth(&key.secret).header(header, &word);
        }
        let body = dalle(&canary(&app, number, "a prompt")).to_string();
        count(app.client.send(request.body(body)).await, &[200, 400, 401]);
    }
    let word = canary(&app, number, "a path and a query");
    for path in [
        format!("/{word}"),
        format!("/v1/models/{word}"),
        format!("/v1/models?api_key={word}"),
        format!("/v1/images/generations/{word}"),
        format!("/files/{word}.png?signature={word}"),
        format!("/admin/v1/{word}"),
    ] {
        count(
            app.client.get(&path, Some(&key.secret)).await,
            &[200, 400, 401, 403, 404],
        );
    }

    // Edits, as forms and as JSON.
    let noise = pictures::noise(96, 3);
    let base64 = STANDARD.encode(&noise);
    app.keep_secret(&base64[60..100], "an uploaded picture");
    let word = canary(&app, number, "a prompt");
    let parts = [
        text("model", "gpt-image-1"),
        text("prompt", &word),
        text("quality", "low"),
        text("size", "1024x1024"),
    ];
    let whole = [&parts[..], &[png("image", &square())]].concat();
    count(post(&app, &key, EDITS, form(&whole)).await, &[200]);
    let lie = [&parts[..], &[png("image", word.as_bytes())]].concat();
    count(post(&app, &key, EDITS, form(&lie)).await, &[400]);
    let name = canary(&app, number, "a field");
    let strange = [&whole[..], &[text(&name, &name)]].concat();
    count(post(&app, &key, EDITS, form(&strange)).await, &[400]);
    let mut torn = form(&whole);
    torn.truncate(torn.len() / 2);
    count(post(&app, &key, EDITS, torn).await, &[400]);
    let edit = json!({"model": "gpt-image-1", "prompt": word, "quality": "low", "size": "1024x1024",
        "images": [{"image_url": format!("data:image/png;base64,{base64}")}]});
    count(
        app.client.post_json(EDITS, Some(&key.secret), &edit).await,
        &[200],
    );
    let link = canary(&app, number, "a client's link");
    let edit = json!({"model": "gpt-image-1", "prompt": word,
        "images": [{"image_url": format!("https://pictures.example/{link}?signature={link}")}]});
    count(
        app.client.post_json(EDITS, Some(&key.secret), &edit).await,
        &[400],
    );
    let request = app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&key.secret);
    let request = request
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(format!("--{BOUNDARY}\r\n{word}\r\n\r\n{word}"));
    count(app.client.send(request).await, &[400]);

    // Later, and looked at again.
    let body = dalle(&canary(&app, number, "a prompt"));
    let begun = count(later_with(&app.client, &key, &[], &body).await, &[202]);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(state["status"], "completed");
    for path in [
        "/v1/images/generations",
        "/v1/models",
        "/v1/credits",
        "/v1/usage",
        "/openapi.json",
        "/docs",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        count(app.get(&key, path).await, &[200]);
    }

    // The operator.
    let admin =
        |method: Method, path: &str| raw(method, &format!("/admin/v1{path}")).bearer_auth(TOKEN);
    let guess = canary(&app, number, "a wrong admin token");
    count(app.client.get("/admin/v1/keys", Some(&guess)).await, &[401]);
    let made = admin(Method::POST, "/keys").body(json!({"name": "of the operator"}).to_string());
    let made = count(app.client.send(made).await, &[200, 201]).json();
    app.keep_secret(made["key"].as_str().unwrap(), "a key that was made");
    let rotate = format!("/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = count(
        app.client
            .send(admin(Method::POST, &rotate).body("{}"))
            .await,
        &[200],
    )
    .json();
    app.keep_secret(rotated["key"].as_str().unwrap(), "a key that was rotated");
    let word = canary(&app, number, "half of an operator's body");
    let half = admin(Method::POST, "/accounts").body(format!("{{\"name\": \"{word}"));
    count(app.client.send(half).await, &[400]);
    for path in [
        "/accounts",
        "/keys",
        "/generations",
        "/images",
        "/usage?group_by=day",
        "/providers",
        "/models",
        "/config",
    ] {
        count(app.client.send(admin(Method::GET, path)).await, &[200]);
    }
    count(
        app.client.send(admin(Method::POST, "/reload")).await,
        &[200],
    );

    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let lines = lines(&app);
        let more_than_one: Vec<_> = lines.values().filter(|lines| lines.len() > 1).collect();
        assert!(more_than_one.is_empty(), "{more_than_one:#?}");
        if lines.len() >= exchanges {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {exchanges} lines",
            lines.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.finish().await;
}
