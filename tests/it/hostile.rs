//! Answers that mean harm: they take no memory, get the right error, and cost what was delivered.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, Behaviour, Key, Reply, pictures, usd};

const USAGE: &str = r#""usage":{"total_tokens":282,"input_tokens":10,"output_tokens":272,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}"#;
/// 10 tokens in at USD 5 a million, 272 out at 40.
const COST: i64 = 10 * 5_000 + 272 * 40_000;
const DOLLAR: i64 = 1_000_000_000;

fn order() -> Value {
    json!({"model": "gpt-image-1", "prompt": "a parcel that ticks", "quality": "low", "size": "1024x1024"})
}

/// The most memory that the process has had so far, in bytes.
fn peak(app: &App) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.easel.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// Posts it, and reads what comes; `false` when the answer broke off.
async fn read(app: &App, key: &Key) -> bool {
    let request = app.client.request(Method::POST, "/v1/images/generations");
    let request = request
        .bearer_auth(&key.secret)
        .header("content-type", "application/json");
    let mut response = request.body(order().to_string()).send().await.unwrap();
    loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Two gigabytes of a file that begins like a PNG and has a chunk of that size.
fn two_gigabytes() -> Vec<(Duration, Bytes)> {
    let mut beginning = pictures::paint("png", 64, 64, 1, false)[..33].to_vec();
    beginning.extend(2_000_000_000_u32.to_be_bytes());
    beginning.extend(b"zzZz\0");
    assert_eq!(beginning.len() % 3, 0);
    let head = format!(
        r#"{{"created":1795000000,"data":[{{"b64_json":"{}"#,
        STANDARD.encode(beginning)
    );
    let more = Bytes::from(vec![b'A'; 1 << 20]);
    let tail = Bytes::from(format!("\"}}],{USAGE}}}"));
    let pieces = std::iter::repeat_n(more, 2048);
    std::iter::once(head.into())
        .chain(pieces)
        .chain([tail])
        .map(|piece| (Duration::ZERO, piece))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gigabytes_in_one_picture_take_no_memory() {
    let app = App::builder()
        .await
        .set("images.max_size", "16 MiB")
        .start()
        .await;
    let key = app.live_key("1");
    let good = Reply::raw(200, "application/json", small_answer());
    app.openai.next(Behaviour::Reply(good.clone()));
    assert!(read(&app, &key).await);
    let before = peak(&app);
    for _ in 0..2 {
        app.openai.next(Behaviour::Pieces(two_gigabytes(), true));
        assert!(!read(&app, &key).await, "a torso is no answer");
        app.wait_until_settled().await;
    }
    let grown = peak(&app).saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    assert_eq!(app.charges().await, 1);
    app.openai.next(Behaviour::Reply(good));
    assert!(read(&app, &key).await);
    assert_eq!(app.balance(&key).await, usd(DOLLAR - 2 * COST));
    app.finish().await;
}

fn small_answer() -> String {
    let text = STANDARD.encode(pictures::noise(60, 1));
    format!(r#"{{"created":1795000000,"data":[{{"b64_json":"{text}"}}],{USAGE}}}"#)
}

/// Objects without end around, before and behind the pictures.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_json_take_no_memory() {
    let app = App::start().await;
    let key = app.live_key("1");
    let good = small_answer();
    let reply = |body: String| Behaviour::Reply(Reply::raw(200, "application/json", body));
    app.openai.next(reply(good.clone()));
    assert!(read(&app, &key).await);
    let before = peak(&app);
    let wide = r#"{"a":[1,{"b":"c"},null]},"#.repeat(400_000);
    let long = "x".repeat(10_000_000);
    for (body, status) in [
        // Nothing that we know, and the picture after it.
        (
            good.replacen('{', &format!("{{\"wide\":[{wide}0],"), 1),
            200,
        ),
        (
            good.replacen('{', &format!("{{\"long\":\"{long}\","), 1),
            200,
        ),
        (good.replacen('{', &format!("{{\"{long}\":1,"), 1), 200),
        (
            good.replacen(
                '{',
                &format!("{{\"number\":1{},", "0".repeat(10_000_000)),
                1,
            ),
            200,
        ),
        // Deeper than anybody answers.
        (
            good.replacen('{', &format!("{{\"deep\":{}", "[".repeat(10_000_000)), 1),
            502,
        ),
        (
            good.replacen(
                '{',
                &format!("{{\"deep\":{}", "{\"a\":".repeat(2_000_000)),
                1,
            ),
            502,
        ),
    ] {
        let charged = app.charges().await;
        app.openai.next(reply(body));
        let answer = app.generate(&key, &order()).await.expect(status);
        if status == 200 {
            assert_eq!(answer.json()["usage"]["cost"], usd(COST));
        }
        assert_eq!(app.charges().await, charged + i64::from(status == 200));
    }
    let grown = peak(&app).saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    app.finish().await;
}

/// Of names that stand there twice the first picture is delivered and charged, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_there_twice_counts_once() {
    let app = App::start().await;
    let key = app.live_key("1");
    let [one, other] = [1, 2].map(|seed| STANDARD.encode(pictures::noise(60, seed)));
    let item = |text: &str| format!(r#"{{"b64_json":"{text}"}}"#);
    for (round, body) in [
        format!(
            r#"{{"data":[{}],"data":[{}],{USAGE}}}"#,
            item(&one),
            item(&other)
        ),
        format!(r#"{{{USAGE},"data":[{{"b64_json":"{one}","b64_json":"{other}"}}],{USAGE}}}"#),
        format!(r#"{{{USAGE},"data":[{},{}]}}"#, item(&one), item(&other)),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = Reply::raw(200, "application/json", body);
        app.openai.next(Behaviour::Reply(reply));
        let answer = app.generate(&key, &order()).await.expect(200).json();
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), 1);
        assert_eq!(data[0]["b64_json"], one, "round {round}");
        let charged = i64::try_from(round).unwrap() + 1;
        assert_eq!(app.charges().await, charged);
        assert!(answer["usage"]["cost"].as_f64().unwrap() > 0.0);
    }
    let charged = "select sum(-amount_nano_usd)::bigint from ledger_entries where kind = 'charge'";
    let charged = app.database.number(charged).await;
    assert!(charged <= 3 * COST, "{charged}");
    app.finish().await;
}
