//! A balance cannot be overdrawn, however many ask at once (I3).

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{App, Behaviour, usd};

const PROMPT: &str = "seven bridges over a quiet river";

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_requests_the_balance_pays_for_exactly_seven() {
    let app = App::start().await;
    let key = app.live_key("0.112");
    // Slow enough that all are there at the same time.
    app.openai
        .always(Behaviour::AnswerAfter(std::time::Duration::from_millis(
            300,
        )));
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let answers = join_all((0..200).map(|_| app.generate(&key, &request))).await;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in &answers {
        *statuses.entry(answer.status).or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 7), (402, 193)]));
    assert_eq!(app.balance(&key).await, json!(0));
    assert_eq!(app.openai.calls().len(), 7);
    app.finish().await;
}

/// Holds that are released make room again: nothing is lost to requests that failed.
#[tokio::test(flavor = "multi_thread")]
async fn failed_requests_give_their_holds_back() {
    let app = App::start().await;
    let key = app.live_key("0.112");
    app.openai
        .always(Behaviour::Reply(crate::support::Reply::server_error()));
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    for answer in join_all((0..20).map(|_| app.generate(&key, &request))).await {
        assert!(
            matches!(answer.status, 402 | 502 | 503),
            "{}",
            answer.status
        );
    }
    assert_eq!(app.balance(&key).await, usd(112_000_000));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_balance_says_what_is_needed_and_what_is_there() {
    let app = App::start().await;
    let key = app.live_key("0.03");
    let problem = app
        .refuse(&key, 402, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await;
    assert_eq!(problem.code(), "insufficient_balance");
    for amount in ["0.04", "0.03"] {
        assert!(problem.message.contains(amount), "{problem:?}");
    }
    assert!(app.openai.calls().is_empty(), "nobody was called");
    // What is affordable still is.
    app.generate(&key, &json!({"model": "dall-e-2", "prompt": PROMPT}))
        .await
        .expect(200);
    app.finish().await;
}

/// Keys of one account share its balance.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_account_share_the_balance() {
    let app = App::start().await;
    let first = app.live_key("0.04");
    let second = app.create_key(&["--account", &first.account]);
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    app.generate(&first, &request).await.expect(200);
    app.generate(&second, &request).await.expect(200);
    assert_eq!(
        app.refuse(&first, 402, &request).await.code(),
        "insufficient_balance"
    );
    assert_eq!(app.balance(&second).await, json!(0));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_show_what_is_held_meanwhile() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(std::time::Duration::from_millis(
            800,
        )));
    let request = json!({"model": "dall-e-3", "prompt": PROMPT});
    let watch = async {
        loop {
            let credits = app.credits(&key).await;
            if credits["held"] != json!(0) {
                break credits;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let (answer, credits) = tokio::join!(app.generate(&key, &request), watch);
    answer.expect(200);
    assert_eq!(
        credits,
        json!({"object": "credits", "currency": "USD", "balance": 1, "held": 0.04, "available": 0.96})
    );
    assert_eq!(app.balance(&key).await, json!(0.96));
    app.finish().await;
}
