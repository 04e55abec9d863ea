//! Ways to a picture without paying for it, each closed: what somebody was shown whole is charged (I5).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::support::{App, Behaviour, Key, Reply, pictures, raw::Raw, until};

const PATH: &str = "/v1/images/generations";
const AT_ONCE: Duration = Duration::ZERO;
const USAGE: &str = r#""usage":{"total_tokens":282,"input_tokens":10,"output_tokens":272,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}"#;

fn order(more: &Value) -> Value {
    let mut order = json!({"model": "gpt-image-1", "prompt": "the crown jewels", "quality": "low",
        "size": "1024x1024"});
    let order_map = order.as_object_mut().unwrap();
    order_map.extend(more.as_object().unwrap().clone());
    order
}

fn answer(picture: &[u8]) -> String {
    let text = STANDARD.encode(picture);
    format!(
        r#"{{"created":1795000000,"data":[{{"b64_json":"{text}"}}],"size":"1024x1024",{USAGE}}}"#
    )
}

/// The events of drafts, and then an error in place of the picture.
fn drafts_then_refusal(drafts: &[Bytes]) -> String {
    let mut body = String::new();
    for (index, draft) in drafts.iter().enumerate() {
        let data = json!({"type": "image_generation.partial_image", "partial_image_index": index,
            "b64_json": STANDARD.encode(draft)});
        body.push_str("event: image_generation.partial_image\n");
        body.push_str(&["data: ", &data.to_string(), "\n\n"].concat());
    }
    let error = json!({"type": "error", "error": {"type": "image_generation_user_error",
        "code": "moderation_blocked", "message": "blocked"}});
    body + &format!("event: error\ndata: {error}\n\n")
}

async fn kept(app: &App, key: &Key) -> Value {
    let newest = "select id from generations order by created_at desc limit 1";
    let id = app.database.texts(newest).await.remove(0);
    let path = format!("{PATH}/{id}?response_format=b64_json");
    app.get(key, &path).await.expect(200).json()
}

/// A client with little room for what it has not read.
async fn slow_client(app: &App, key: &Key, order: &Value) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address = ([127, 0, 0, 1], app.easel.port()).into();
    let mut stream = socket.connect(address).await.unwrap();
    let request = Raw::post(PATH, &key.secret, &order.to_string());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads so little at a time.
async fn trickle(stream: &mut TcpStream, how_long: Duration) {
    let began_at = Instant::now();
    let mut some = [0; 4 * 1024];
    while began_at.elapsed() < how_long {
        if stream.read(&mut some).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads to the end of the connection; whether the body was said to be complete.
async fn read_all(stream: &mut TcpStream) -> bool {
    let mut end = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => end.extend_from_slice(&chunk[..read]),
        }
        if end.ends_with(b"\r\n0\r\n\r\n") {
            return true;
        }
        let surplus = end.len().saturating_sub(16);
        end.drain(..surplus);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_when_almost_all_was_shown_pays_where_leaving_cancels() {
    let app = App::builder()
        .await
        .set("providers.openai.on_disconnect", "cancel")
        .start()
        .await;
    let key = app.live_key("1");
    let picture = pictures::noise(400, 1);
    let body = Bytes::from(answer(&picture));
    let (most, rest) = (
        body.slice(..body.len() - 400),
        body.slice(body.len() - 400..),
    );
    let pieces = vec![(AT_ONCE, most), (Duration::from_secs(1), rest)];
    app.openai.next(Behaviour::Pieces(pieces, true));
    let request = app.client.request(Method::POST, PATH);
    let request = request.bearer_auth(&key.secret);
    let request = request.header("content-type", "application/json");
    let request = request.body(order(&json!({})).to_string());
    let mut response = request.send().await.unwrap();
    let mut seen = 0;
    while seen < body.len() - 50_000 {
        seen += response.chunk().await.unwrap().expect("more").len();
    }
    drop(response);
    app.wait_until_settled().await;
    assert_eq!(app.charges().await, 1);
    let kept = kept(&app, &key).await;
    assert_eq!(
        kept["data"][0]["b64_json"],
        json!(STANDARD.encode(&picture))
    );
    app.finish().await;
}

/// There is nowhere that it could be read from later, and the provider is not kept waiting for ever.
#[tokio::test(flavor = "multi_thread")]
async fn without_copies_who_reads_too_slowly_loses_the_answer_and_pays() {
    let app = App::builder()
        .await
        .set("images.relay_copies", false)
        .set("limits.body_idle_timeout", "1s")
        .start()
        .await;
    let key = app.live_key("1");
    let body = answer(&pictures::noise(1800, 1));
    app.openai
        .next(Behaviour::Reply(Reply::raw(200, "application/json", body)));
    let mut stream = slow_client(&app, &key, &order(&json!({}))).await;
    // It takes something all the time, so that its connection stands, and would be at it for a minute.
    let ((), settled) = tokio::join!(
        trickle(&mut stream, Duration::from_secs(10)),
        timeout(Duration::from_secs(9), app.wait_until_settled())
    );
    settled.expect("settled while the client reads");
    assert_eq!(app.charges().await, 1);
    assert!(
        !read_all(&mut stream).await,
        "no torso is said to be complete"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_behind_the_last_byte_of_its_picture_is_charged() {
    let app = App::start().await;
    let key = app.live_key("1");
    for (count, (side, is_clean)) in [(400, false), (400, true), (60, false), (60, true)]
        .into_iter()
        .enumerate()
    {
        let picture = pictures::noise(side, 1);
        let body = answer(&picture);
        let end = body.find("\"}],").unwrap();
        let cut = Bytes::copy_from_slice(&body.as_bytes()[..end]);
        app.openai
            .next(Behaviour::Pieces(vec![(AT_ONCE, cut)], is_clean));
        let whole = app.generate(&key, &order(&json!({}))).await.expect(200);
        let whole = whole.json();
        assert_eq!(
            whole["data"][0]["b64_json"],
            json!(STANDARD.encode(&picture))
        );
        assert!(
            whole["usage"]["cost"].as_f64().unwrap() > 0.0,
            "{}",
            whole["usage"]
        );
        assert_eq!(app.charges().await, i64::try_from(count).unwrap() + 1);
        let kept = kept(&app, &key).await;
        assert_eq!(
            kept["data"][0]["b64_json"],
            json!(STANDARD.encode(&picture))
        );
        let failures = "select count(*) from attempts where error is not null and images = 1";
        assert_eq!(
            app.database.number(failures).await,
            i64::try_from(count).unwrap() + 1
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_behind_the_end_of_a_picture_does_not_make_it_free() {
    let app = App::start().await;
    let key = app.live_key("1");
    for (count, side) in [400, 60].into_iter().enumerate() {
        let picture = pictures::noise(side, 1);
        for surplus in [&b"\n"[..], &[b'x'; 1000]] {
            let body = answer(&[&picture[..], surplus].concat());
            app.openai
                .next(Behaviour::Reply(Reply::raw(200, "application/json", body)));
            let whole = app.generate(&key, &order(&json!({}))).await.expect(200);
            let shown = whole.json()["data"][0]["b64_json"]
                .as_str()
                .unwrap()
                .to_owned();
            let shown = STANDARD.decode(shown).unwrap();
            let rest = shown.strip_prefix(&picture[..]).unwrap();
            assert!(
                rest.len() < 3,
                "at most to the end of its group of four characters"
            );
            let kept = kept(&app, &key).await;
            assert_eq!(
                kept["data"][0]["b64_json"],
                json!(STANDARD.encode(&picture))
            );
        }
        assert_eq!(app.charges().await, i64::try_from(count).unwrap() * 2 + 2);
    }
    app.finish().await;
}

/// What a slow reader has not taken of a draft is there until it has, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn drafts_that_are_read_slowly_are_not_kept() {
    let app = App::start().await;
    let key = app.live_key("1");
    let drafts = [pictures::noise(1800, 1), pictures::noise(400, 2)];
    let refusal = drafts_then_refusal(&drafts);
    let stream = order(&json!({"stream": true, "partial_images": 2}));
    for reads_all in [true, false] {
        let reply = Reply::raw(200, "text/event-stream", refusal.clone());
        app.openai.next(Behaviour::Reply(reply));
        let mut client = slow_client(&app, &key, &stream).await;
        tokio::join!(
            trickle(&mut client, Duration::from_secs(3)),
            app.wait_until_settled()
        );
        assert!(!app.kept_files().is_empty(), "it is read from there");
        if reads_all {
            assert!(read_all(&mut client).await);
        }
        drop(client);
        until("they go", async || app.kept_files().is_empty()).await;
    }
    app.finish().await;
}
