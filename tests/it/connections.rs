//! The edges of HTTP: paths, methods, bodies and their pace. Every refusal has the envelope.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, raw::Raw, until, until_some};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a clockmaker asleep at his bench";

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_have_the_envelope() {
    let app = App::start().await;
    let key = app.live_key("1");
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/v1", 404),
        (Method::POST, "/v1/images/generation", 404),
        (Method::POST, "/images/generations", 404),
        (Method::POST, "/v1/chat/completions", 404),
        (Method::PUT, GENERATIONS, 405),
        (Method::DELETE, GENERATIONS, 405),
        (Method::POST, "/v1/models", 405),
        (Method::DELETE, "/v1/models/dall-e-3", 405),
        (Method::POST, "/v1/credits", 405),
    ] {
        let request = app
            .client
            .request(method.clone(), path)
            .bearer_auth(&key.secret);
        let answer = app.client.send(request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let problem = answer.problem();
        assert_eq!(problem.kind, "invalid_request_error");
        if status == 405 {
            assert!(!answer.header("allow").is_empty(), "{method} {path}");
        }
    }
    app.finish().await;
}

/// What the HTTP library refuses by itself has the envelope too, on a new connection and behind an answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_in_the_envelope() {
    let app = App::start().await;
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: easel\r\n\r\n",
        "a".repeat(70_000)
    );
    let headers: Vec<String> = (0..101)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect();
    let many = format!("GET / HTTP/1.1\r\nhost: easel\r\n{}\r\n", headers.concat());
    for (says, status, code) in [
        (
            "a parcel without an address\r\n\r\n",
            400,
            "unreadable_request",
        ),
        ("GET /healthz HTTP/9.9\r\n\r\n", 400, "unreadable_request"),
        (&long, 414, "url_too_long"),
        (&many, 431, "headers_too_large"),
    ] {
        for first in ["", "GET /healthz HTTP/1.1\r\nhost: easel\r\n\r\n"] {
            let mut raw = Raw::connect(app.easel.port()).await;
            raw.send(first).await;
            let mut answered = String::new();
            while !first.is_empty() && !answered.ends_with("\"ok\"}") {
                answered += &raw.read(4096).await;
            }
            raw.send(says).await;
            let heard = raw.read_to_end(Duration::from_secs(30)).await;
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
            for line in [
                "x-request-id: req_",
                "connection: close",
                "content-type: application/json",
                &format!("content-length: {}", body.len()),
            ] {
                assert!(head.contains(&format!("\r\n{line}")), "{line}: {heard}");
            }
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], code, "{heard}");
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_object_are_refused() {
    let app = App::start().await;
    let key = app.live_key("1");
    for body in [
        "",
        "{",
        "{\"prompt\": \"a clockmaker asleep at his bench\"",
        "not json",
        "[]",
        "\"text\"",
        "1",
        "null",
        "{\"prompt\": \"\u{0}\"}",
        "{\"a\":1} trailing",
        "{\"n\":1,\"n\":2}",
        "{\"model\":\"dall-e-2\",\"provider\":{\"sort\":\"price\",\"sort\":\"price\"}}",
    ] {
        let request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .body(body);
        let problem = app.client.send(request).await.expect(400).problem();
        assert_eq!(problem.kind, "invalid_request_error", "{body}");
        assert!(
            !problem.message.contains("clockmaker"),
            "the body is repeated: {problem:?}"
        );
    }
    let deep = format!("{}{}", "{\"provider\":".repeat(5000), "}".repeat(5000));
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(deep);
    app.client.send(request).await.expect(400).problem();
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(b"{\"prompt\": \"\xff\xfe\"}".to_vec());
    app.client.send(request).await.expect(400).problem();
    app.finish().await;
}

/// A client that gets its connection closed while it writes sees no answer, and an SDK asks again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_far_too_large_is_refused_with_an_answer() {
    let app = App::start().await;
    let key = app.live_key("1");
    for mebibytes in [2, 24] {
        let request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .body(vec![b' '; mebibytes << 20]);
        let problem = app.client.send(request).await.expect(413).problem();
        assert_eq!(problem.code(), "request_too_large");
    }
    app.finish().await;
}

/// Whatever stands in a query, it is refused by name or it is served.
#[tokio::test(flavor = "multi_thread")]
async fn queries_are_refused_by_the_parameters_name() {
    let app = App::start().await;
    let key = app.live_key("1");
    for (path, param, word) in [
        ("/v1/images/generations?limit=x", "limit", "1 to 100"),
        ("/v1/images/generations?limit=", "limit", "1 to 100"),
        ("/v1/images/generations?limit=0", "limit", "1 to 100"),
        (
            "/v1/images/generations?limit=4294967297",
            "limit",
            "1 to 100",
        ),
        ("/v1/images/generations?limit=1&limit=2", "query", "`limit`"),
        ("/v1/images/generations?after=x", "after", "gen_"),
        ("/v1/usage?since=yesterday", "since", "RFC 3339"),
        ("/v1/usage?since=-262143-01-01", "since", "RFC 3339"),
        ("/v1/usage?until=%2B10000-01-01", "until", "RFC 3339"),
        ("/v1/usage?group_by=colour", "group_by", "'model'"),
    ] {
        let problem = app.get(&key, path).await.expect(400).problem();
        assert_eq!(problem.param.as_deref(), Some(param), "{path}: {problem:?}");
        assert!(problem.message.contains(word), "{path}: {problem:?}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_is_taken() {
    let app = App::start().await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"}).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
    ] {
        let mut request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .body(body.clone());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let problem = app.client.send(request).await.expect(415).problem();
        assert_eq!(problem.code(), "unsupported_content_type");
        assert!(
            problem
                .message
                .contains(content_type.unwrap_or("no 'Content-Type'")),
            "{problem:?}"
        );
        assert!(problem.message.contains("application/json"), "{problem:?}");
    }
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
    ] {
        let request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", content_type)
            .body(body.clone());
        app.client.send(request).await.expect(200);
    }
    app.finish().await;
}

/// A byte order mark is no part of the document, and an encoded body is refused by name.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_taken_as_they_are() {
    let app = App::start().await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"}).to_string();
    let post = async |path: &str, encoding: &str| {
        let request = app
            .client
            .request(Method::POST, path)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .body(format!("\u{FEFF}{body}"));
        app.client.send(request).await
    };
    post(GENERATIONS, "identity").await.expect(200);
    for (path, encoding) in [
        (GENERATIONS, "gzip"),
        ("/v1/images/edits", "br"),
        ("/v1/images/variations", "zstd"),
    ] {
        let problem = post(path, encoding).await.expect(415).problem();
        assert_eq!(problem.code(), "unsupported_content_encoding");
        assert!(problem.message.contains(encoding), "{problem:?}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_one_mebibyte() {
    let app = App::start().await;
    let key = app.live_key("1");
    let body = |bytes: usize| {
        let frame = json!({"model": "dall-e-2", "prompt": ""}).to_string().len();
        json!({"model": "dall-e-2", "prompt": "x".repeat(bytes - frame)}).to_string()
    };
    let send = async |body: String| {
        let request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .body(body);
        app.client.send(request).await
    };
    // As large as allowed: read, and refused for the prompt's length only.
    let problem = send(body(1024 * 1024)).await.expect(400).problem();
    assert_eq!(problem.code(), "string_above_max_length");
    let problem = send(body(1024 * 1024 + 1)).await.expect(413).problem();
    assert!(problem.message.contains("1048576"), "{problem:?}");
    // Announced in chunks, without a length.
    let chunks = futures_util::stream::iter(
        (0..40).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 32 * 1024]))),
    );
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(chunks));
    app.client.send(request).await.expect(413).problem();
    app.finish().await;
}

/// A client that announces a body and does not send it does not keep a place for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_pauses_is_given_up() {
    let app = App::builder()
        .await
        .set("limits.body_idle_timeout", "300ms")
        .start()
        .await;
    let key = app.live_key("1");
    let whole = Raw::post(
        GENERATIONS,
        &key.secret,
        &json!({"model": "dall-e-2", "prompt": PROMPT}).to_string(),
    );
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&whole[..whole.len() - 5]).await;
    let answer = raw.read_to_end(Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"param\":null"), "{answer}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_pauses_is_given_up() {
    let app = App::builder()
        .await
        .set("limits.header_timeout", "300ms")
        .start()
        .await;
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send("POST /v1/images/generations HTTP/1.1\r\nhost: easel\r\nx-slow: ")
        .await;
    let answer = raw.read_to_end(Duration::from_secs(10)).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    app.finish().await;
}

/// A client that trickles its body is served, as long as it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_read() {
    let app = App::builder()
        .await
        .set("limits.body_idle_timeout", "2s")
        .start()
        .await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"}).to_string();
    let pieces: Vec<bytes::Bytes> = body
        .as_bytes()
        .chunks(8)
        .map(bytes::Bytes::copy_from_slice)
        .collect();
    let stream = futures_util::StreamExt::then(futures_util::stream::iter(pieces), async |piece| {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok::<_, std::io::Error>(piece)
    });
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(stream));
    app.client.send(request).await.expect(200);
    app.finish().await;
}

/// A body that breaks off is not a request: nobody is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_costs_nothing() {
    let app = App::start().await;
    let key = app.live_key("1");
    let whole = Raw::post(
        GENERATIONS,
        &key.secret,
        &json!({"model": "dall-e-2", "prompt": PROMPT}).to_string(),
    );
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&whole[..whole.len() - 5]).await;
    drop(raw);
    assert_eq!(app.balance(&key).await, json!(1));
    assert!(app.openai.calls().is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again() {
    let app = App::start().await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"}).to_string();
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&Raw::post(GENERATIONS, &key.secret, &body)).await;
    raw.send(&Raw::post(GENERATIONS, &key.secret, &body).replacen(
        "\r\n",
        "\r\nconnection: close\r\n",
        1,
    ))
    .await;
    let answers = raw.read_to_end(Duration::from_secs(20)).await;
    assert_eq!(
        answers.matches("HTTP/1.1 200").count(),
        2,
        "{}",
        &answers[..200]
    );
    app.finish().await;
}

/// At the bound a request is refused at once and told when to come back; nobody queues.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_requests_are_refused() {
    let app = App::builder()
        .await
        .set("limits.max_in_flight", 2)
        .start()
        .await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let mut asked: FuturesUnordered<_> = (0..5).map(|_| app.generate(&key, &request)).collect();
    for _ in 0..3 {
        let answer = asked.next().await.unwrap().expect(503);
        answer.problem();
        assert!(answer.header("retry-after").parse::<u64>().is_ok());
        assert_ne!(answer.find_header("x-should-retry"), Some("false"));
    }
    gate.add_permits(3);
    while let Some(answer) = asked.next().await {
        answer.expect(200);
    }
    drop(asked);
    app.generate(&key, &request).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key() {
    let app = App::start().await;
    for path in ["/healthz", "/readyz"] {
        app.client.get(path, None).await.expect(200);
    }
    app.finish().await;
}

/// Every answer has a request id of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_own_request_id() {
    let app = App::start().await;
    let key = app.live_key("1");
    let mut ids = std::collections::BTreeSet::new();
    for path in [
        "/v1/models",
        "/v1/credits",
        "/nowhere",
        "/healthz",
        "/v1/models",
    ] {
        ids.insert(app.get(&key, path).await.header("x-request-id").to_owned());
    }
    assert_eq!(ids.len(), 5);
    app.finish().await;
}

/// Uploads that are refused before they are read: who sends all of it before it looks gets the answer, not a
/// broken pipe, and the connection serves the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_read_on() {
    const UPLOAD: usize = 8 << 20;
    let app = App::start().await;
    let key = app.live_key("1");
    let body = "x".repeat(UPLOAD);
    for (method, path, secret, status) in [
        ("POST", "/v1/images/edits", "ek_live_nobody", "401"),
        ("POST", "/v1/images/generations", "ek_live_nobody", "401"),
        ("POST", "/nov1/images/edits", &*key.secret, "404"),
        ("PUT", "/v1/images/edits", &*key.secret, "405"),
        ("POST", "/v1/images/edits", &*key.secret, "415"),
        ("POST", "/v1/images/generations", &*key.secret, "413"),
    ] {
        let content_type = if status == "415" {
            "text/plain"
        } else {
            "application/json"
        };
        let mut raw = Raw::connect(app.easel.port()).await;
        raw.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: easel\r\nauthorization: Bearer {secret}\r\n\
             content-type: {content_type}\r\ncontent-length: {UPLOAD}\r\n\r\n"
        ))
        .await;
        raw.send(&body).await;
        raw.send("GET /healthz HTTP/1.1\r\nhost: easel\r\nconnection: close\r\n\r\n")
            .await;
        let answers = raw.read_to_end(Duration::from_secs(20)).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answers.starts_with(&expected), "{path}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    }
    app.finish().await;
}

/// The answer does not wait for the rest of the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_before_the_upload_ends() {
    let app = App::start().await;
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(
        "POST /v1/images/edits HTTP/1.1\r\nhost: easel\r\nauthorization: Bearer ek_live_nobody\r\n\
         content-type: application/json\r\ncontent-length: 8388608\r\n\r\nthe beginning",
    )
    .await;
    let answer = raw.read(1024).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // And who never sends the rest is not waited for.
    raw.read_to_end(Duration::from_secs(10)).await;
    app.finish().await;
}

/// Who always sends a little does not keep memory for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_takes_too_long_is_given_up() {
    let app = App::builder()
        .await
        .set("limits.body_timeout", "1s")
        .start()
        .await;
    let key = app.live_key("1");
    let whole = Raw::post(GENERATIONS, &key.secret, &"[".repeat(1000));
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&whole[..whole.len() - 900]).await;
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.send("[").await;
    }
    let answer = raw.read_to_end(Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("longer than 1 seconds"), "{answer}");
    app.finish().await;
}

/// Half-sent large bodies take room from other large ones, and from nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_being_read_are_bounded_together() {
    let app = App::builder()
        .await
        .set("limits.request_bodies", "1 MiB")
        .start()
        .await;
    let (key, other) = (app.live_key("1"), app.live_key("1"));
    let large = json!({"model": "dall-e-2", "prompt": "a".repeat(900_000)}).to_string();
    let mut half = Raw::connect(app.easel.port()).await;
    let sent = Raw::post(GENERATIONS, &key.secret, &large);
    half.send(&sent[..sent.len() - 10]).await;

    let post = |body: String| {
        let request = app
            .client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&other.secret)
            .header("content-type", "application/json")
            .body(body);
        app.client.send(request)
    };
    // Read, it is refused for its prompt.
    let full = until_some("the half is being read", async || {
        let answer = post(large.clone()).await;
        (answer.status != 400).then_some(answer)
    })
    .await
    .expect(503);
    assert_eq!(full.problem().code(), "server_is_overloaded");
    assert_eq!(full.header("retry-after"), "1");
    let figures = app.figures().await;
    let counted = "easel_overloads_total{limit=\"request_bodies\"} 1";
    assert!(figures.contains(counted), "{figures}");
    let small = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    post(small.to_string()).await.expect(200);

    drop(half);
    until("there is room again", async || {
        post(large.clone()).await.status == 400
    })
    .await;
    app.finish().await;
}
