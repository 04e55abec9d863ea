//! Stopping: what runs is finished, what is new is refused, and a killed process leaves nothing that
//! blocks its accounts.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{App, Behaviour};

const PROMPT: &str = "the last train leaves the station";

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_generations_finish() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(800)));
    let request = json!({"model": "dall-e-3", "prompt": PROMPT, "response_format": "b64_json"});
    let stop = async {
        app.openai.wait_for_call().await;
        app.easel.signal(Signal::TERM);
    };
    let (answer, ()) = tokio::join!(app.generate(&key, &request), stop);
    assert_eq!(answer.expect(200).json()["usage"]["cost"], json!(0.04));
    let status = app.easel.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    app.start_again().await;
    assert_eq!(app.balance(&key).await, json!(0.96));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_process_takes_nothing_new() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(1500)));
    let request = json!({"model": "dall-e-3", "prompt": PROMPT});
    let meanwhile = async {
        app.openai.wait_for_call().await;
        app.easel.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Refused at the door or with 503; never accepted and then lost.
        let late = app
            .client
            .request(reqwest::Method::POST, "/v1/images/generations")
            .bearer_auth(&key.secret);
        let late = late
            .header("content-type", "application/json")
            .body(request.to_string());
        match app.client.try_send(late).await {
            Ok(answer) => {
                assert_eq!(answer.status, 503);
                assert!(answer.find_header("retry-after").is_some());
            }
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    };
    let (answer, ()) = tokio::join!(app.generate(&key, &request), meanwhile);
    answer.expect(200);
    assert_eq!(app.openai.calls().len(), 1);
    app.finish().await;
}

/// After a crash the restarted process releases what the dead one held, at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_no_hold() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    app.openai.always(Behaviour::Never);
    let request = app
        .client
        .request(reqwest::Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(json!({"model": "dall-e-3", "prompt": PROMPT}).to_string());
    let crash = async {
        app.openai.wait_for_call().await;
        app.easel.signal(Signal::KILL);
    };
    let (lost, ()) = tokio::join!(app.client.try_send(request), crash);
    assert!(lost.is_err(), "nobody can answer any more");
    app.easel.ended(Duration::from_secs(5)).await;
    let open = app
        .database
        .number("select count(*) from holds where status = 'open'")
        .await;
    assert_eq!(open, 1, "the hold outlives the process");

    app.openai.always(Behaviour::Answer);
    app.start_again().await;
    let id = app
        .database
        .texts("select id from generations")
        .await
        .remove(0);
    let mut state = json!(null);
    for _ in 0..400 {
        state = app
            .get(&key, &format!("/v1/images/generations/{id}"))
            .await
            .expect(200)
            .json();
        if state["status"] != "in_progress" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(state["status"], "abandoned", "{state}");
    assert_eq!(app.balance(&key).await, json!(1));
    app.generate(&key, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await
        .expect(200);
    // The call of the dead process was never written down.
    app.lost_a_call();
    app.finish().await;
}
