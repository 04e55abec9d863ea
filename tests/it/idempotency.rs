//! One client request is one charge (I8), however often it comes and wherever.

use std::time::Duration;

use futures_util::{
    FutureExt as _,
    future::{join_all, select_all},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    edits::{BOUNDARY, EDITS, VARIATIONS, form, png, square, text},
    support::{
        Answer, App, Behaviour, Client, Key, Reply, model, raw::Raw, until, until_some, usd,
    },
};

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a heron that is painted once";
const REPLAYED: &str = "idempotent-replayed";

/// Posts it under a name.
async fn named(client: &Client, key: &Key, name: &str, body: &Value) -> Answer {
    post(client, key, &[("idempotency-key", name)], body).await
}

/// Posts it as an SDK does that has asked so often before.
async fn again(client: &Client, key: &Key, retry_count: u16, body: &Value) -> Answer {
    let retry_count = retry_count.to_string();
    post(
        client,
        key,
        &[("x-stainless-retry-count", &retry_count)],
        body,
    )
    .await
}

async fn post(client: &Client, key: &Key, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request).await
}

fn is_replayed(answer: &Answer) -> bool {
    answer.find_header(REPLAYED) == Some("true")
}

fn small(response_format: &str) -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": response_format})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_repeats_are_one_charge() {
    let app = App::start().await;
    app.keep_secret(PROMPT, "a prompt");
    let (second, third) = tokio::join!(app.start_replica(), app.start_replica());
    let clients = [&app.client, &second.client, &third.client];
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_secs(3)));
    let body = small("b64_json");
    let answers =
        join_all((0..1000).map(|number| named(clients[number % 3], &key, "heron", &body)));
    let answers = answers.await;
    let first = answers[0].clone().expect(200).json();
    for answer in &answers {
        assert_eq!(answer.clone().expect(200).json(), first);
        assert_eq!(
            answer.header("x-generation-id"),
            answers[0].header("x-generation-id")
        );
    }
    let replayed = answers.iter().filter(|answer| is_replayed(answer)).count();
    assert_eq!(replayed, 999);
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.charges().await, 1);
    assert_eq!(app.balance(&key).await, usd(984_000_000));
    second.stop().await;
    third.stop().await;
    app.finish().await;
}

/// Another name, or another key, is another request.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_good_for_one_key_and_one_request() {
    let app = App::start().await;
    let key = app.live_key("1");
    let other = app.live_key("1");
    let body = small("url");
    let first = named(&app.client, &key, "one", &body).await.expect(200);
    assert!(!is_replayed(&first));
    named(&app.client, &key, "two", &body).await.expect(200);
    named(&app.client, &other, "one", &body).await.expect(200);
    assert_eq!(app.openai.calls().len(), 3);
    let before = app.credits(&key).await;

    let larger = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512"});
    conflicts(&named(&app.client, &key, "one", &larger).await);
    assert_eq!(app.credits(&key).await, before);
    // The slash at the end makes no other request.
    let slash = app
        .client
        .request(Method::POST, "/v1/images/generations/")
        .bearer_auth(&key.secret)
        .header("idempotency-key", "one")
        .header("content-type", "application/json")
        .body(body.to_string());
    assert!(is_replayed(&app.client.send(slash).await.expect(200)));
    app.finish().await;
}

fn conflicts(answer: &Answer) {
    assert_eq!(answer.status, 409, "{:?}", answer.problem());
    let problem = answer.problem();
    assert_eq!(
        (problem.code(), problem.param()),
        ("idempotency_conflict", "Idempotency-Key")
    );
    assert_eq!(answer.header("x-should-retry"), "false");
}

/// The same parts ask for something else at another path.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_good_for_one_path() {
    let app = App::start().await;
    let key = app.live_key("1");
    let parts = [
        text("model", "dall-e-2"),
        text("size", "256x256"),
        png("image", &square()),
    ];
    let post = async |path: &str| {
        let request = app
            .client
            .request(Method::POST, path)
            .bearer_auth(&key.secret)
            .header("idempotency-key", "one")
            .header(
                "content-type",
                format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(form(&parts));
        app.client.send(request).await
    };
    let first = post(VARIATIONS).await.expect(200);
    assert!(!is_replayed(&first));
    let before = app.credits(&key).await;
    conflicts(&post(EDITS).await);
    assert!(is_replayed(&post(VARIATIONS).await.expect(200)));
    assert_eq!(app.credits(&key).await, before);
    assert_eq!(app.openai.calls().len(), 1);
    app.finish().await;
}

/// Also one that runs yet.
#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_name_of_a_running_one_is_refused() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    app.openai
        .next(Behaviour::AnswerAfter(Duration::from_secs(2)));
    let body = small("url");
    let other = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512"});
    let late = async {
        app.openai.wait_for_call().await;
        for client in [&app.client, &second.client] {
            let problem = named(client, &key, "one", &other)
                .await
                .expect(409)
                .problem();
            assert_eq!(problem.code(), "idempotency_conflict");
        }
    };
    let (first, ()) = tokio::join!(named(&app.client, &key, "one", &body), late);
    first.expect(200);
    second.stop().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_printable_and_of_bounded_length() {
    let app = App::start().await;
    let key = app.live_key("1");
    for name in ["", "tab\there", &"k".repeat(256)] {
        let answer = named(&app.client, &key, name, &small("url"))
            .await
            .expect(400);
        let problem = answer.problem();
        assert_eq!(
            (problem.code(), problem.param()),
            ("invalid_value", "Idempotency-Key")
        );
        assert!(problem.message.contains("1 to 255"), "{problem:?}");
    }
    named(&app.client, &key, &"k".repeat(255), &small("url"))
        .await
        .expect(200);
    app.finish().await;
}

/// The same answer: from this process, from another one, and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_is_told_again() {
    let mut app = App::start().await;
    app.keep_secret(PROMPT, "a prompt");
    let key = app.live_key("5");
    let requests = [
        (
            "links",
            json!({"model": "dall-e-3", "prompt": PROMPT, "user": "u-1"}),
        ),
        (
            "base64",
            json!({"model": "dall-e-3", "prompt": PROMPT, "response_format": "b64_json"}),
        ),
        (
            "tokens",
            json!({
                "model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low",
                "n": 2, "output_format": "jpeg", "background": "opaque",
            }),
        ),
    ];
    let mut first = Vec::new();
    for (name, body) in &requests {
        first.push(named(&app.client, &key, name, body).await.expect(200));
    }
    let charged = app.balance(&key).await;
    let calls = app.openai.calls().len();
    for round in 0..2 {
        for ((name, body), first) in requests.iter().zip(&first) {
            let again = named(&app.client, &key, name, body).await.expect(200);
            assert!(is_replayed(&again), "{name} {round}");
            for header in ["x-generation-id", "x-attempts"] {
                if let Some(value) = first.find_header(header) {
                    assert_eq!(again.header(header), value, "{name}");
                }
            }
            let (mut told, mut before) = (again.json(), first.json());
            if *name == "links" {
                let picture = app.open_link(&again.link(0)).await.expect(200).bytes;
                assert!(!picture.is_empty());
                for body in [&mut told, &mut before] {
                    let link = body["data"][0]["url"].take();
                    assert!(link.as_str().unwrap().contains("/files/img_"));
                }
            }
            assert_eq!(told, before, "{name} {round}");
        }
        if round == 0 {
            app.restart().await;
        }
    }
    assert_eq!(app.openai.calls().len(), calls);
    assert_eq!(app.balance(&key).await, charged);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_told_again_by_its_last_events() {
    let app = App::start().await;
    app.keep_secret(PROMPT, "a prompt");
    let key = app.live_key("1");
    let body = json!({
        "model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low", "stream": true,
        "partial_images": 1,
    });
    let first = named(&app.client, &key, "stream", &body).await.expect(200);
    let balance = app.balance(&key).await;
    let again = named(&app.client, &key, "stream", &body).await.expect(200);
    assert!(is_replayed(&again));
    assert_eq!(again.header("content-type"), "text/event-stream");
    assert_eq!(
        again.header("x-generation-id"),
        first.header("x-generation-id")
    );
    let completed = |answer: &Answer| -> Vec<Value> {
        let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap())
            .filter(|event: &Value| event["type"] == "image_generation.completed")
            .collect()
    };
    let (first, again) = (completed(&first), completed(&again));
    assert_eq!((first.len(), again.len()), (1, 1));
    for field in [
        "b64_json",
        "size",
        "quality",
        "background",
        "output_format",
        "usage",
    ] {
        assert_eq!(first[0][field], again[0][field], "{field}");
    }
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.balance(&key).await, balance);
    app.finish().await;
}

/// The boundary between the parts of a form is another each time, and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_told_again_whatever_the_boundary() {
    let app = App::start().await;
    let key = app.test_key("5");
    let post = async |boundary: &str, picture: &[u8]| {
        let parts = [
            text("model", "easel/sandbox"),
            text("prompt", PROMPT),
            png("image", picture),
        ];
        let body = form(&parts);
        let body = replace(&body, BOUNDARY.as_bytes(), boundary.as_bytes());
        let request = app
            .client
            .request(Method::POST, EDITS)
            .bearer_auth(&key.secret)
            .header("idempotency-key", "edit")
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(body);
        app.client.send(request).await
    };
    let first = post("first-boundary-1", &square()).await.expect(200);
    let again = post("other-boundary-22", &square()).await.expect(200);
    assert!(!is_replayed(&first) && is_replayed(&again));
    assert_eq!(
        first.header("x-generation-id"),
        again.header("x-generation-id")
    );
    let other = crate::support::pictures::paint("png", 512, 512, 8, false);
    post("first-boundary-1", &other).await.expect(409);
    assert_eq!(app.charges().await, 1);
    app.finish_with_other_upstreams().await;
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some(place) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend(&rest[..place]);
        replaced.extend(to);
        rest = &rest[place + from.len()..];
    }
    replaced.extend(rest);
    replaced
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_before_a_call_is_done_again() {
    let app = App::start().await;
    let key = app.live_key("0.01");
    let body = small("url");
    named(&app.client, &key, "poor", &body)
        .await
        .expect(402)
        .problem();
    app.run(&[
        "accounts",
        "credit",
        &key.account,
        "1",
        "--note",
        "more",
        "--reference",
        "r1",
    ])
    .expect_success();
    let answer = named(&app.client, &key, "poor", &body).await.expect(200);
    assert!(!is_replayed(&answer));
    app.finish().await;
}

/// A provider's trouble charges nothing and may be over by now; its refusal is the answer.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_tried_again_and_a_refusal_is_told_again() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let body = small("url");
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    named(&app.client, &key, "trouble", &body)
        .await
        .expect(502)
        .problem();
    named(&app.client, &key, "trouble", &body).await.expect(200);
    let calls = app.openai.calls().len();

    app.openai.next(Behaviour::Reply(Reply::moderation_gpt()));
    let first = named(&app.client, &key, "refused", &body).await.expect(400);
    let details = |answer: &Answer| answer.json()["error"]["moderation_details"].clone();
    assert!(details(&first).is_object());
    assert_eq!(app.openai.calls().len(), calls + 1);
    for round in 0..2 {
        let again = named(&app.client, &key, "refused", &body).await.expect(400);
        assert_eq!(again.problem(), first.problem(), "{round}");
        assert_eq!(details(&again), details(&first), "{round}");
        assert!(is_replayed(&again));
        assert_eq!(
            again.header("x-generation-id"),
            first.header("x-generation-id")
        );
        if round == 0 {
            app.restart().await;
        }
    }
    assert_eq!(app.openai.calls().len(), calls + 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_any_more_is_not_painted_again() {
    let app = App::start().await;
    let key = app.live_key("1");
    let body = small("b64_json");
    named(&app.client, &key, "gone", &body).await.expect(200);
    let balance = app.balance(&key).await;
    let removed = remove_pictures(&app);
    assert_eq!(removed, 1, "the picture was kept for its name");
    let answer = named(&app.client, &key, "gone", &body).await.expect(410);
    assert_eq!(answer.problem().code(), "replay_expired");
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.balance(&key).await, balance);
    app.finish().await;
}

/// After `replay_ttl` there is nothing to tell again; a link is good for `url_ttl` all the same, and so is its repeat.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_kept_for_their_time() {
    let app = App::builder()
        .await
        .set("images.replay_ttl", "1s")
        .start()
        .await;
    let key = app.live_key("1");
    let (inline, linked) = (small("b64_json"), small("url"));
    let link = named(&app.client, &key, "linked", &linked).await;
    let link = link.expect(200).link(0);
    let first = named(&app.client, &key, "inline", &inline).await;
    let first = first.expect(200);
    let balance = app.balance(&key).await;
    let expired = until_some("the picture's time is over", async || {
        let again = named(&app.client, &key, "inline", &inline).await;
        (again.status != 200).then_some(again)
    })
    .await;
    assert_eq!(expired.expect(410).problem().code(), "replay_expired");
    let path = format!("{GENERATIONS}/{}", first.header("x-generation-id"));
    let shown = app.get(&key, &path).await.expect(200).json();
    assert_eq!(
        (&shown["status"], &shown["data"]),
        (&json!("completed"), &json!([]))
    );
    assert_eq!(shown["cost"], first.json()["usage"]["cost"]);

    app.open_link(&link).await.expect(200);
    let again = named(&app.client, &key, "linked", &linked).await;
    assert!(is_replayed(&again.expect(200)));
    assert_eq!(app.openai.calls().len(), 2);
    assert_eq!(app.balance(&key).await, balance);
    app.finish().await;
}

/// A link ends after `url_ttl`, its picture after `replay_ttl`: until then there are fresh links to it.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_outlive_their_links() {
    let app = App::builder()
        .await
        .set("images.url_ttl", "2s")
        .start()
        .await;
    let key = app.live_key("1");
    let body = small("url");
    let first = named(&app.client, &key, "linked", &body).await.expect(200);
    let path = format!("{GENERATIONS}/{}", first.header("x-generation-id"));
    until("the link ends", async || {
        app.open_link(&first.link(0)).await.status == 410
    })
    .await;
    until("a fresh link opens", async || {
        let again = named(&app.client, &key, "linked", &body).await.expect(200);
        assert!(is_replayed(&again));
        app.open_link(&again.link(0)).await.status == 200
    })
    .await;
    until("the link of GET opens", async || {
        let shown = app.get(&key, &path).await.expect(200);
        app.open_link(&shown.link(0)).await.status == 200
    })
    .await;
    assert_eq!(app.charges().await, 1);
    app.finish().await;
}

/// Returns how many.
fn remove_pictures(app: &App) -> usize {
    let pictures = app.kept_files();
    for picture in &pictures {
        std::fs::remove_file(picture).unwrap();
    }
    pictures.len()
}

/// An SDK that asks again says that it has no picture. Where there is none to give it, one is painted, however many
/// there were before.
#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_gets_its_picture_though_no_copy_is_kept() {
    for has_copies in [false, true] {
        let app = App::builder()
            .await
            .set("images.relay_copies", has_copies)
            .start()
            .await;
        let key = app.live_key("1");
        let body = small("b64_json");
        for _ in 0..10 {
            again(&app.client, &key, 0, &body).await.expect(200);
        }
        assert_eq!(remove_pictures(&app), if has_copies { 10 } else { 0 });
        let painted = again(&app.client, &key, 1, &body).await.expect(200);
        assert!(!is_replayed(&painted));
        assert!(!painted.picture(0).is_empty());
        assert_eq!(app.charges().await, 11);
        if has_copies {
            let next = again(&app.client, &key, 2, &body).await.expect(200);
            assert!(is_replayed(&next), "that one is there");
            assert_eq!(
                next.header("x-generation-id"),
                painted.header("x-generation-id")
            );
        }
        app.finish().await;
    }
}

/// Also a stream that has to begin before there is anything to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_joins_says_whose_it_is() {
    let app = App::builder()
        .await
        .set("limits.keepalive", "100ms")
        .start()
        .await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let body = json!({"model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low", "stream": true});
    let gate = app.openai.gate();
    let joins = async {
        app.openai.wait_for_call().await;
        let joins = [&app.client, &second.client].map(async |client| {
            let request = client
                .request(Method::POST, GENERATIONS)
                .bearer_auth(&key.secret)
                .header("content-type", "application/json")
                .header("idempotency-key", "stream")
                .body(body.to_string());
            let mut joined = request.send().await.unwrap();
            let begin = joined.chunk().await.unwrap().unwrap();
            assert!(begin.starts_with(b": keepalive"));
            joined
        });
        let joined = join_all(joins).await;
        gate.add_permits(1);
        joined
    };
    let (first, joined) = tokio::join!(named(&app.client, &key, "stream", &body), joins);
    let first = first.expect(200);
    assert!(!is_replayed(&first));
    for joined in joined {
        assert_eq!(joined.status(), 200);
        assert_eq!(joined.headers()[REPLAYED], "true");
        assert_eq!(
            joined.headers()["x-generation-id"],
            first.header("x-generation-id")
        );
        let rest = joined.text().await.unwrap();
        assert!(rest.contains("event: image_generation.completed\n"));
    }
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.charges().await, 1);
    second.stop().await;
    app.finish().await;
}

/// And then it is nobody else's: what comes of none, or of one whose pictures are nowhere, ends with an error and costs
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_said_whose_it_is_is_not_painted_for_itself() {
    let app = App::builder()
        .await
        .set("limits.keepalive", "1s")
        .set("images.relay_copies", false)
        .start()
        .await;
    app.keep_secret(PROMPT, "a prompt");
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let body = json!({"model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low", "stream": true});
    for (round, (behaviour, code)) in [
        (
            Behaviour::Reply(Reply::server_error()),
            "generation_abandoned",
        ),
        (Behaviour::Answer, "replay_expired"),
    ]
    .into_iter()
    .enumerate()
    {
        app.openai.next(behaviour);
        let joins = async {
            while app.openai.calls().len() == round {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let joined = second
                .client
                .request(Method::POST, GENERATIONS)
                .bearer_auth(&key.secret)
                .header("content-type", "application/json")
                .header("x-stainless-retry-count", "1")
                .body(body.to_string());
            // It has begun before there is anything to tell.
            let joined = joined.send().await.unwrap();
            gate.add_permits(1);
            joined
        };
        let (first, joined) = tokio::join!(again(&app.client, &key, 0, &body), joins);
        let first = first.expect(200);
        assert!(!is_replayed(&first));
        assert_eq!(joined.headers()[REPLAYED], "true");
        assert_eq!(
            joined.headers()["x-generation-id"],
            first.header("x-generation-id")
        );
        let told = joined.text().await.unwrap();
        assert!(told.contains("\nevent: error\n"), "{told}");
        assert!(told.contains(&format!("\"code\":\"{code}\"")), "{told}");
        assert_eq!(app.openai.calls().len(), round + 1);
    }
    assert_eq!(app.charges().await, 1);
    second.stop().await;
    app.finish().await;
}

/// What a provider said of the pictures that are missing is said again, and is not kept with the generation.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_again() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Fewer(1));
    let mut body = small("b64_json");
    body["n"] = json!(2);
    let first = named(&app.client, &key, "some", &body).await.expect(200);
    assert_eq!(first.json()["failed"].as_array().unwrap().len(), 1);
    let again = named(&app.client, &key, "some", &body).await.expect(200);
    assert!(is_replayed(&again));
    assert_eq!(again.json(), first.json());
    let kept = "select count(*) from generations where answer::text like '%failed%'";
    assert_eq!(app.database.number(kept).await, 0);
    assert_eq!(
        app.database
            .number("select count(*) from answer_words")
            .await,
        1
    );
    app.finish().await;
}

/// The client left; its SDK comes again, twice, while the provider works and afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn the_repeats_of_an_sdk_join() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let body = small("url");
    app.openai
        .next(Behaviour::AnswerAfter(Duration::from_secs(2)));
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&Raw::post(GENERATIONS, &key.secret, &body.to_string()))
        .await;
    app.openai.wait_for_call().await;
    drop(raw);
    let first = again(&app.client, &key, 1, &body).await.expect(200);
    let other = again(&second.client, &key, 2, &body).await.expect(200);
    assert!(is_replayed(&first) && is_replayed(&other));
    assert_eq!(
        first.header("x-generation-id"),
        other.header("x-generation-id")
    );
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.charges().await, 1);
    // Another body is no repeat, and neither is what does not say so.
    app.openai.always(Behaviour::Answer);
    let larger = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512"});
    assert!(!is_replayed(
        &again(&app.client, &key, 1, &larger).await.expect(200)
    ));
    assert!(!is_replayed(
        &again(&app.client, &key, 0, &body).await.expect(200)
    ));
    second.stop().await;
    app.finish().await;
}

/// Two requests that are equal on purpose, each repeated: two charges, and each generation told once a count.
#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_with_their_repeats_stay_two() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let body = small("url");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_secs(1)));
    let mut left = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(app.easel.port()).await;
        raw.send(&Raw::post(GENERATIONS, &key.secret, &body.to_string()))
            .await;
        left.push(raw);
    }
    app.openai.wait_for_calls(2).await;
    drop(left);
    for count in [1, 2] {
        let (one, other) = tokio::join!(
            again(&app.client, &key, count, &body),
            again(&second.client, &key, count, &body)
        );
        let (one, other) = (one.expect(200), other.expect(200));
        assert_ne!(
            one.header("x-generation-id"),
            other.header("x-generation-id")
        );
    }
    assert_eq!(app.openai.calls().len(), 2);
    assert_eq!(app.charges().await, 2);
    // A third client's repeat, whose first request never arrived.
    assert!(!is_replayed(
        &again(&app.client, &key, 1, &body).await.expect(200)
    ));
    second.stop().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_one_is_done_again_for_an_sdk() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    let body = small("url");
    again(&app.client, &key, 0, &body)
        .await
        .expect(502)
        .problem();
    assert!(!is_replayed(
        &again(&app.client, &key, 1, &body).await.expect(200)
    ));
    assert!(is_replayed(
        &again(&app.client, &key, 2, &body).await.expect(200)
    ));
    assert_eq!(app.charges().await, 1);
    app.finish().await;
}

/// A repeat counts as a request, and as nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn repeats_count_as_requests_only() {
    let app = App::start().await;
    let key = app.create_key(&["--credit", "1", "--rpm", "3", "--ipm", "1"]);
    let body = small("url");
    named(&app.client, &key, "one", &body).await.expect(200);
    named(&app.client, &key, "one", &body).await.expect(200);
    named(&app.client, &key, "one", &body).await.expect(200);
    let problem = named(&app.client, &key, "one", &body)
        .await
        .expect(429)
        .problem();
    assert!(
        problem.message.contains("requests per minute"),
        "{problem:?}"
    );
    app.finish().await;
}

/// One account's repeats leave places for those of others. One that gets none counts as a request, too.
#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_one_account_do_not_take_all_places() {
    let app = App::builder()
        .await
        .set("limits.max_in_flight", 4)
        .start()
        .await;
    let keys = [(); 2].map(|()| app.create_key(&["--credit", "1", "--rpm", "3"]));
    let gate = app.openai.gate();
    let body = small("url");
    let repeats = async {
        while app.openai.calls().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut waiting = Vec::new();
        for key in &keys {
            let both = [(); 2].map(|()| named(&app.client, key, "heron", &body).boxed());
            let (refused, _, mut rest) = select_all(both).await;
            assert_eq!(refused.expect(503).problem().code(), "server_is_overloaded");
            waiting.append(&mut rest);
        }
        for key in &keys {
            let problem = named(&app.client, key, "heron", &body).await.expect(429);
            assert_eq!(problem.problem().code(), "rate_limit_exceeded");
        }
        gate.add_permits(2);
        join_all(waiting).await
    };
    let [one, other] = keys
        .each_ref()
        .map(|key| named(&app.client, key, "heron", &body));
    let (one, other, repeats) = tokio::join!(one, other, repeats);
    for (first, repeat) in [one, other].into_iter().zip(repeats) {
        let (first, repeat) = (first.expect(200), repeat.expect(200));
        assert!(!is_replayed(&first) && is_replayed(&repeat));
        assert_eq!(
            first.header("x-generation-id"),
            repeat.header("x-generation-id")
        );
    }
    assert_eq!(app.charges().await, 2);
    app.finish().await;
}

/// Where a provider is hung up on when its client leaves, a repeat that waits is a client too.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_waits_keeps_the_provider_at_work() {
    let app = App::builder()
        .await
        .set("providers.openai.on_disconnect", "cancel")
        .start()
        .await;
    let key = app.live_key("1");
    let body = small("url");
    let gate = app.openai.gate();
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&Raw::post(GENERATIONS, &key.secret, &body.to_string()))
        .await;
    app.openai.wait_for_call().await;
    let leave = async {
        until("the repeat has joined", async || {
            let joined = "select count(*) from generation_repeats";
            app.database.number(joined).await == 1
        })
        .await;
        drop(raw);
        // Nothing shows that its leaving was noticed; it is in this time, and would have stopped the provider.
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.add_permits(100);
    };
    let (joined, ()) = tokio::join!(again(&app.client, &key, 1, &body), leave);
    assert!(is_replayed(&joined.expect(200)));
    assert_eq!(app.openai.calls().len(), 1);

    // Nobody waits: it is dropped, and done again for who comes later.
    app.openai.next(Behaviour::Never);
    let other = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "512x512"});
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&Raw::post(GENERATIONS, &key.secret, &other.to_string()))
        .await;
    app.openai.wait_for_calls(2).await;
    drop(raw);
    let failed = "select count(*) from generations where status = 'failed'";
    while app.database.number(failed).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!is_replayed(
        &again(&app.client, &key, 1, &other).await.expect(200)
    ));
    app.finish().await;
}

/// Admission is for what is new. What was served and charged is told again though its provider is switched off by now,
/// its model is not in the catalog or not the key's any longer, and no money is left; but never to a key that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_is_told_again_whatever_has_changed_since() {
    let builder = App::builder().await.models(&model("0.02", 10));
    let mut app = builder.start().await;
    app.keep_secret(PROMPT, "a prompt");
    let key = app.live_key("1");
    let client = app.client.clone();
    let tokens =
        json!({"model": "gpt-image-1", "prompt": PROMPT, "size": "1024x1024", "quality": "low"});
    let streamed = {
        let mut body = tokens.clone();
        body["stream"] = json!(true);
        body
    };
    let pilot = json!({"model": "pilot", "prompt": PROMPT});
    let requests = [
        ("links", small("url")),
        ("base64", small("b64_json")),
        ("as the model likes", tokens),
        ("events", streamed),
        ("a model that goes", pilot.clone()),
    ];
    let mut first = Vec::new();
    for (name, body) in &requests {
        first.push(named(&client, &key, name, body).await.expect(200));
    }
    let by_count = again(&client, &key, 0, &pilot).await.expect(200);
    let later = [("prefer", "respond-async"), ("idempotency-key", "links")];
    let calls = app.openai.calls().len();

    let mut retries = 0;
    let mut told_again = async |app: &App, change: &str, refusals: &[(&Value, &str)]| {
        for (body, code) in refusals {
            let refused = named(&client, &key, change, body).await;
            assert_eq!(refused.problem().code(), *code, "{change}");
        }
        for ((name, body), first) in requests.iter().zip(&first) {
            let answer = named(&client, &key, name, body).await.expect(200);
            assert!(is_replayed(&answer), "{change}: {name}");
            for header in ["x-generation-id", "x-attempts", "content-type"] {
                let same = (answer.find_header(header), first.find_header(header));
                assert!(
                    same.1.is_none() || same.0 == same.1,
                    "{change}: {name}: {same:?}"
                );
            }
            if *name == "events" {
                let text = String::from_utf8_lossy(&answer.bytes).into_owned();
                assert!(
                    text.contains("event: image_generation.completed"),
                    "{change}"
                );
                continue;
            }
            let (mut told, mut before) = (answer.json(), first.json());
            for picture in [&mut told, &mut before] {
                if let Some(link) = picture["data"][0].get_mut("url") {
                    let path = link.as_str().unwrap().replace(&app.easel.origin(), "");
                    client.get(&path, None).await.expect(200);
                    link.take();
                }
            }
            assert_eq!(told, before, "{change}: {name}");
        }
        retries += 1;
        let joined = again(&client, &key, retries, &pilot).await.expect(200);
        assert!(is_replayed(&joined), "{change}");
        let ids = [
            by_count.header("x-generation-id"),
            first[4].header("x-generation-id"),
        ];
        assert!(ids.contains(&joined.header("x-generation-id")), "{change}");
        let shown = post(&client, &key, &later, &requests[0].1)
            .await
            .expect(200);
        assert_eq!(shown.json()["id"], first[0].header("x-generation-id"));
        assert_eq!(shown.header("preference-applied"), "respond-async");
        // Whoever means something else by the name is told so, whatever the model.
        let other = json!({"model": "pilot", "prompt": "another"});
        let conflict = named(&client, &key, "links", &other).await.expect(409);
        assert_eq!(conflict.problem().code(), "idempotency_conflict");
    };

    app.configure(|settings| {
        settings.set("providers.openai.enabled", false);
    });
    app.reload().await;
    let off = [
        (&pilot, "model_unavailable"),
        (&requests[2].1, "model_unavailable"),
    ];
    told_again(&app, "switched off", &off).await;

    std::fs::remove_file(app.directory().join("models/test.toml")).unwrap();
    app.configure(|settings| {
        settings.set("providers.openai.enabled", true);
    });
    app.reload().await;
    told_again(&app, "removed", &[(&pilot, "model_not_found")]).await;

    app.run(&["keys", "update", &key.id, "--models", "dall-e-3"])
        .expect_success();
    let models = async || client.get("/v1/models", Some(&key.secret)).await.json();
    while models().await.to_string().contains("dall-e-2") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let forbidden = small("url");
    let forbidden = [(&forbidden, "model_not_allowed")];
    told_again(&app, "not the key's", &forbidden).await;

    let rest = app.balance(&key).await.to_string();
    let debit = ["accounts", "debit", &key.account, &rest, "--note", "spent"];
    app.run(&debit).expect_success();
    let dear = json!({"model": "dall-e-3", "prompt": PROMPT});
    told_again(&app, "poor", &[(&dear, "insufficient_balance")]).await;
    assert_eq!(app.openai.calls().len(), calls);
    assert_eq!(app.balance(&key).await, json!(0));

    app.run(&["keys", "revoke", &key.id]).expect_success();
    while client.get("/v1/credits", Some(&key.secret)).await.status != 401 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (name, body) in &requests {
        let refused = named(&client, &key, name, body).await.expect(401);
        assert_eq!(refused.problem().code(), "invalid_api_key");
    }
    app.finish().await;
}

/// What is still being painted is waited for, though nobody could order it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_waited_for_after_its_provider_was_switched_off() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let client = app.client.clone();
    let body = small("url");
    let first = named(&client, &key, "slow", &body);
    let rest = async {
        app.openai.wait_for_call().await;
        app.configure(|settings| {
            settings.set("providers.openai.enabled", false);
        });
        app.reload().await;
        let again = named(&client, &key, "slow", &body);
        let open = async {
            let waits = "select count(*) from generations where status = 'in_progress'";
            assert_eq!(app.database.number(waits).await, 1);
            gate.add_permits(1);
        };
        tokio::join!(again, open).0
    };
    let (first, again) = tokio::join!(first, rest);
    let (first, again) = (first.expect(200), again.expect(200));
    assert!(is_replayed(&again));
    assert_eq!(
        first.header("x-generation-id"),
        again.header("x-generation-id")
    );
    assert_eq!(app.openai.calls().len(), 1);
    app.finish().await;
}
