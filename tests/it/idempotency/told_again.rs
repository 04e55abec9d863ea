//! What is told again, in which form, for how long, and whatever has changed since.

use std::time::Duration;

use serde_json::{Value, json};

use super::{GENERATIONS, PROMPT, again, is_replayed, named, post, remove_pictures, small};
use crate::support::{Answer, App, Behaviour, model, until, until_some};

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
