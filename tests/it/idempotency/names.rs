//! Requests that their client has named: one charge a name, and what a name may be.

use std::time::Duration;

use futures_util::{
    FutureExt as _,
    future::{join_all, select_all},
};
use reqwest::Method;
use serde_json::json;

use super::{PROMPT, is_replayed, named, small};
use crate::{
    edits::{BOUNDARY, EDITS, VARIATIONS, form, png, square, text},
    support::{Answer, App, Behaviour, Reply, usd},
};

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
