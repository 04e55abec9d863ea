//! Repeats without a name, as `OpenAI`'s SDKs make them: which of them join, and what they are told.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{GENERATIONS, PROMPT, REPLAYED, again, is_replayed, named, remove_pictures, small};
use crate::support::{App, Behaviour, Reply, raw::Raw, until};

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
