//! Pictures that go through while they arrive: what the client sees, what is charged, and who waits for whom.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    sync::Semaphore,
    time::Instant,
};

use crate::support::{App, Behaviour, Key, Reply, pictures, raw::Raw, until};

const PATH: &str = "/v1/images/generations";
const AT_ONCE: Duration = Duration::ZERO;
/// Longer than anything else in a test takes.
const LONG: Duration = Duration::from_secs(2);

fn order(n: usize) -> Value {
    json!({"model": "gpt-image-1", "prompt": "a parcel in transit", "n": n, "quality": "low",
        "size": "1024x1024"})
}

const USAGE: &str = r#""usage":{"total_tokens":282,"input_tokens":10,"output_tokens":272,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}"#;

/// An answer with these texts as pictures, and its usage behind them.
fn answer(texts: &[&str]) -> String {
    let items = texts
        .iter()
        .map(|text| json!({"b64_json": text}).to_string());
    let items: Vec<String> = items.collect();
    format!(
        r#"{{"created":1795000000,"data":[{}],"size":"1024x1024",{USAGE}}}"#,
        items.join(",")
    )
}

fn text_of(picture: &Bytes) -> String {
    STANDARD.encode(picture)
}

fn reply(body: impl Into<Bytes>) -> Behaviour {
    Behaviour::Reply(Reply::raw(200, "application/json", body))
}

/// The first part at once, the rest after a pause.
fn in_two(body: &str, first: usize, pause: Duration) -> Vec<(Duration, Bytes)> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    vec![(AT_ONCE, body.slice(..first)), (pause, body.slice(first..))]
}

async fn begin(app: &App, key: &Key, order: &Value) -> Response {
    let request = app.client.request(Method::POST, PATH);
    let request = request.bearer_auth(&key.secret);
    let request = request.header("content-type", "application/json");
    let answer = request.body(order.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

async fn id_of_the_only_generation(app: &App) -> String {
    app.database
        .texts("select id from generations")
        .await
        .remove(0)
}

/// What is kept of the only generation, as base64.
async fn kept(app: &App, key: &Key) -> Value {
    let id = id_of_the_only_generation(app).await;
    let path = format!("{PATH}/{id}?response_format=b64_json");
    app.get(key, &path).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_picture_flows_before_its_end_and_the_bill_follows_the_settlement() {
    let app = App::start().await;
    let key = app.live_key("1");
    let picture = pictures::noise(400, 1);
    let body = answer(&[&text_of(&picture)]);
    let tail = body.len() - 300;
    app.openai
        .next(Behaviour::Pieces(in_two(&body, tail, LONG), true));
    let began_at = Instant::now();
    let mut response = begin(&app, &key, &order(1)).await;
    assert!(response.headers().get("content-length").is_none());
    assert!(response.headers().contains_key("x-generation-id"));
    let mut seen = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        seen.extend_from_slice(&chunk);
        if seen.len() > tail - 100_000 && began_at.elapsed() < LONG {
            assert_eq!(app.charges().await, 0, "nothing is whole yet");
        }
        if chunk.windows(6).any(|window| window == b"\"cost\"") {
            // I6: who reads the price finds it in the books.
            assert_eq!(app.charges().await, 1);
        }
    }
    let whole: Value = serde_json::from_slice(&seen).unwrap();
    assert_eq!(whole["data"][0]["b64_json"], json!(text_of(&picture)));
    assert_eq!(whole["provider"], "openai");
    assert_eq!(whole["usage"]["output_tokens"], 272);
    let cost = whole["usage"]["cost"].as_f64().unwrap();
    let left = app.balance(&key).await.as_f64().unwrap();
    assert!((1.0 - cost - left).abs() < 1e-9, "{cost} of 1, {left} left");
    // The copy can be fetched.
    let kept = kept(&app, &key).await;
    assert_eq!(kept["data"][0]["b64_json"], json!(text_of(&picture)));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_answer_has_a_length() {
    let app = App::start().await;
    let key = app.live_key("1");
    let texts: Vec<String> = (0..2)
        .map(|seed| text_of(&pictures::noise(60, seed)))
        .collect();
    app.openai.next(reply(answer(&[&texts[0], &texts[1]])));
    let whole = app.generate(&key, &order(2)).await.expect(200);
    assert_eq!(
        whole.header("content-length"),
        whole.bytes.len().to_string()
    );
    let whole = whole.json();
    assert_eq!(whole["data"][0]["b64_json"], json!(texts[0]));
    assert_eq!(whole["data"][1]["b64_json"], json!(texts[1]));
    app.finish().await;
}

/// Whatever the provider's chunks and escapes are, the answer is the same.
#[tokio::test(flavor = "multi_thread")]
async fn any_split_of_any_spelling_is_the_same_answer() {
    let app = App::start().await;
    let key = app.live_key("5");
    let texts: Vec<String> = (0..2)
        .map(|seed| text_of(&pictures::noise(170, seed)))
        .collect();
    let plain = answer(&[&texts[0], &texts[1]]);
    let escaped = plain.replace('/', "\\/");
    let unicode = plain.replace('/', "\\u002f");
    let lines = plain.replace("AA", "A\\r\\nA");
    let usage_first = format!(
        r#"{{{USAGE},"data":[{{"b64_json":"{}","b64_json":"x"}},{{"b64_json":"{}","revised_prompt":"ein Päckchen 📦 \ud83d\udce6"}}]}}"#,
        texts[0], texts[1]
    );
    for body in [plain, escaped, unicode, lines, usage_first] {
        for size in [1, 3, 4096, 70_001] {
            let pieces = if size < 10 {
                // Byte by byte where everything but the pictures is, and around their beginnings.
                let (head, rest) = body.as_bytes().split_at(600);
                let (middle, tail) = rest.split_at(rest.len() - 600);
                let pieces = head.chunks(size).chain([middle]).chain(tail.chunks(size));
                pieces.collect::<Vec<_>>()
            } else {
                body.as_bytes().chunks(size).collect()
            };
            let pieces = pieces.into_iter().map(Bytes::copy_from_slice);
            let pieces = pieces.map(|piece| (AT_ONCE, piece)).collect();
            app.openai.next(Behaviour::Pieces(pieces, true));
            let whole = app.generate(&key, &order(2)).await.expect(200).json();
            for (index, text) in texts.iter().enumerate() {
                assert_eq!(
                    whole["data"][index]["b64_json"].as_str(),
                    Some(text.as_str()),
                    "in pieces of {size}"
                );
            }
            if body.contains("revised_prompt") {
                assert_eq!(whole["data"][1]["revised_prompt"], "ein Päckchen 📦 📦");
            }
            assert_eq!(whole["usage"]["output_tokens"], 272, "{}", whole["usage"]);
        }
    }
    app.finish().await;
}

/// What the provider made of the prompt comes with each picture, not only with the last one.
#[tokio::test(flavor = "multi_thread")]
async fn every_picture_keeps_its_revised_prompt() {
    let app = App::start().await;
    let key = app.live_key("1");
    let texts: Vec<String> = (0..3)
        .map(|seed| text_of(&pictures::noise(240, seed)))
        .collect();
    // One says it before its picture, one behind it, one not at all.
    let body = format!(
        r#"{{"data":[{{"revised_prompt":"a first \"parcel\"","b64_json":"{}"}},{{"b64_json":"{}","revised_prompt":"a second"}},{{"b64_json":"{}"}}],{USAGE}}}"#,
        texts[0], texts[1], texts[2]
    );
    for size in [7_001, 1_000_000] {
        let pieces = body.as_bytes().chunks(size).map(Bytes::copy_from_slice);
        let pieces = pieces.map(|piece| (AT_ONCE, piece)).collect();
        app.openai.next(Behaviour::Pieces(pieces, true));
        let answer = app.generate(&key, &order(3)).await.expect(200);
        assert!(answer.headers.get("content-length").is_none(), "relayed");
        let whole = answer.json();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(whole["data"][index]["b64_json"], json!(text));
        }
        let told = |index: usize| &whole["data"][index]["revised_prompt"];
        assert_eq!(told(0), "a first \"parcel\"");
        assert_eq!(told(1), "a second");
        assert!(told(2).is_null());
    }
    app.finish().await;
}

/// A torso on its way is never taken for an answer, and costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_on_its_way_breaks_the_answer_and_is_not_charged() {
    let app = App::builder()
        .await
        .set("images.max_size", "600 KiB")
        .start()
        .await;
    let key = app.live_key("1");
    let good = text_of(&pictures::noise(300, 1));
    let mut not_base64 = good.clone();
    not_base64.replace_range(150_000..150_001, "~");
    let mut quoted = good.clone();
    quoted.replace_range(150_001..150_002, "\\\"");
    let endless = text_of(&pictures::noise(600, 1));
    let half = good[..200_000].to_owned();
    let cut_at = answer(&[&good]);
    let cut_at = Bytes::copy_from_slice(&cut_at.as_bytes()[..250_000]);
    // What is found in the same read as the beginning is found before anything was shown. So the rest comes when
    // the answer has begun.
    let gate = Arc::new(Semaphore::new(0));
    let gated = |body: &str| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Behaviour::Gated(
            body.slice(..100_000),
            Arc::clone(&gate),
            body.slice(100_000..),
        )
    };
    for (what, behaviour) in [
        (
            "a connection that breaks",
            Behaviour::Pieces(vec![(AT_ONCE, cut_at.clone())], false),
        ),
        (
            "a body that ends early",
            Behaviour::Pieces(vec![(AT_ONCE, cut_at)], true),
        ),
        (
            "invalid base64 in the middle",
            gated(&answer(&[&not_base64])),
        ),
        ("a quotation mark in the middle", gated(&answer(&[&quoted]))),
        ("half a picture", reply(answer(&[&half]))),
        ("a picture that never ends", reply(answer(&[&endless]))),
    ] {
        let is_gated = matches!(behaviour, Behaviour::Gated(..));
        app.openai.next(behaviour);
        let response = begin(&app, &key, &order(1)).await;
        gate.add_permits(usize::from(is_gated));
        let broken = response.bytes().await;
        assert!(broken.is_err(), "{what}: the body breaks off");
        app.wait_until_settled().await;
        assert_eq!(app.charges().await, 0, "{what}");
    }
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}

/// Before it is shown, the same is an error with its status.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_before_it_is_shown_is_an_error() {
    let app = App::start().await;
    let key = app.live_key("1");
    let small = answer(&[&text_of(&pictures::noise(60, 1))]);
    let cut = Bytes::copy_from_slice(&small.as_bytes()[..8_000]);
    app.openai
        .next(Behaviour::Pieces(vec![(AT_ONCE, cut)], false));
    let problem = app.refuse(&key, 502, &order(1)).await;
    assert_eq!(problem.code(), "upstream_error");
    assert_eq!(
        problem.message,
        "No image was delivered: the provider's answer broke off. Nothing was charged."
    );
    // The connection's end is in the books, and how its answer began.
    let attempts = "select concat_ws(' ', error, upstream_status) from attempts";
    assert_eq!(app.database.texts(attempts).await, ["malformed 200"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_the_whole_one_is_charged_when_the_other_breaks() {
    let app = App::start().await;
    let key = app.live_key("1");
    let texts: Vec<String> = (0..2)
        .map(|seed| text_of(&pictures::noise(300, seed)))
        .collect();
    let body = answer(&[&texts[0], &texts[1]]);
    let cut = Bytes::copy_from_slice(&body.as_bytes()[..body.len() - 100_000]);
    app.openai
        .next(Behaviour::Pieces(vec![(AT_ONCE, cut)], false));
    let response = begin(&app, &key, &order(2)).await;
    assert!(response.bytes().await.is_err());
    app.wait_until_settled().await;
    assert_eq!(app.database.number("select count(*) from images").await, 1);
    let kept = kept(&app, &key).await;
    assert_eq!(kept["status"], "completed");
    assert_eq!(kept["data"][0]["b64_json"], json!(texts[0]));
    assert!(kept["cost"].as_f64().unwrap() > 0.0, "{}", kept["cost"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_midway_finds_the_whole_picture_later() {
    let app = App::start().await;
    let key = app.live_key("1");
    let picture = pictures::noise(400, 1);
    let body = answer(&[&text_of(&picture)]);
    app.openai.next(Behaviour::Pieces(
        in_two(&body, 300_000, Duration::from_millis(500)),
        true,
    ));
    let mut response = begin(&app, &key, &order(1)).await;
    response.chunk().await.unwrap().expect("the beginning");
    drop(response);
    app.wait_until_settled().await;
    assert_eq!(app.charges().await, 1);
    let kept = kept(&app, &key).await;
    assert_eq!(kept["data"][0]["b64_json"], json!(text_of(&picture)));
    app.finish().await;
}

/// The provider is not kept waiting by a reader, and the reader misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_long_after_the_provider_was_done() {
    let app = App::start().await;
    let key = app.live_key("1");
    // More than the system's buffers hold on both sides.
    let picture = pictures::noise(1800, 1);
    app.openai.next(reply(answer(&[&text_of(&picture)])));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address = ([127, 0, 0, 1], app.easel.port()).into();
    let mut stream = socket.connect(address).await.unwrap();
    let request = Raw::post(PATH, &key.secret, &order(1).to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    // Nothing is read, and yet it is settled.
    app.wait_until_settled().await;
    assert_eq!(app.charges().await, 1);
    let text = text_of(&picture);
    let mut seen = Vec::with_capacity(text.len() * 2);
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the answer ended early, after {}", seen.len());
        seen.extend_from_slice(&chunk[..read]);
        if seen.ends_with(b"\r\n0\r\n\r\n") {
            break;
        }
    }
    let body = unchunk(&seen);
    let whole: Value = serde_json::from_slice(&body).unwrap();
    assert!(whole["data"][0]["b64_json"] == json!(text), "byte for byte");
    assert!(whole["usage"]["cost"].as_f64().unwrap() > 0.0);
    app.finish().await;
}

/// Takes the chunks of a body (RFC 9112, section 7.1) apart.
fn unchunk(answer: &[u8]) -> Vec<u8> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let mut rest = &answer[head.unwrap() + 4..];
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let length = std::str::from_utf8(&rest[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
}

/// An operator may do without copies: then there is nothing to fetch, and nothing on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn without_copies_the_answer_is_the_same_and_nothing_is_kept() {
    let app = App::builder()
        .await
        .set("images.relay_copies", false)
        .start()
        .await;
    let key = app.live_key("1");
    let picture = pictures::noise(400, 1);
    app.openai.next(reply(answer(&[&text_of(&picture)])));
    let whole = app.generate(&key, &order(1)).await.expect(200).json();
    assert_eq!(whole["data"][0]["b64_json"], json!(text_of(&picture)));
    let kept = kept(&app, &key).await;
    assert_eq!(kept["status"], "completed");
    assert_eq!(kept["data"], json!([]));
    assert!(app.kept_pictures().is_empty());
    app.finish().await;
}

/// Delivered copies make room for newer ones.
#[tokio::test(flavor = "multi_thread")]
async fn delivered_copies_stay_within_their_budget() {
    let app = App::builder()
        .await
        .set("images.replay_budget", "1200 KiB")
        .start()
        .await;
    let key = app.live_key("1");
    for seed in 0..3 {
        app.openai
            .next(reply(answer(&[&text_of(&pictures::noise(400, seed))])));
        app.generate(&key, &order(1)).await.expect(200);
    }
    // Each has 480 KB.
    until("the oldest goes", async || app.kept_pictures().len() == 2).await;
    let listed = app.get(&key, PATH).await.expect(200).json();
    let kept = |index: usize| listed["data"][index]["data"].as_array().unwrap().len();
    assert_eq!([kept(0), kept(1), kept(2)], [1, 1, 0]);
    app.finish().await;
}
