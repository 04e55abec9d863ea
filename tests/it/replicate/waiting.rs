//! Predictions that take their time: how often they are asked about, and when they are given up.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Studio, base64, several};
use crate::support::{
    fake_replicate::{Behaviour, Files, Script, Shape},
    pictures::measure,
    until,
};

/// `Prefer: wait` may end before the prediction does; a partial output until then is no result.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_prediction_is_asked_about_until_it_ends() {
    let studio = Studio::open().await;
    for shape in [Shape::Links, Shape::DataUrls, Shape::Mixed] {
        let before = studio.replicate.questions();
        studio.replicate.next(Behaviour::Run(Script {
            starting: Duration::from_millis(100),
            processing: Duration::from_millis(1_200),
            patience: Duration::from_millis(200),
            partial: 2,
            shape,
            ..Script::default()
        }));
        let answer = studio.paint(&several(3)).await;
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), 3, "{shape:?}");
        let mut files: Vec<_> = data.iter().map(|one| one["b64_json"].as_str()).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), 3, "each came once: {shape:?}");
        assert!(studio.replicate.questions() > before, "{shape:?}");
    }
    assert!(studio.replicate.cancelled().is_empty());
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_fail_are_asked_again() {
    let studio = Studio::open().await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_millis(300),
        patience: Duration::from_millis(50),
        failing_questions: 2,
        ..Script::default()
    }));
    studio.paint(&several(1)).await;
    assert_eq!(studio.replicate.questions(), 3);
    assert_eq!(studio.replicate.creates().len(), 1, "created once");
    // Whatever they answer: a server that has not heard of it yet, one that is busy, one that is confused.
    for status in [404, 410, 422, 429, 500] {
        let before = studio.replicate.questions();
        let body = json!({"detail": "Expected available in 1 second.", "status": status});
        studio.replicate.next(Behaviour::Run(Script {
            processing: Duration::from_millis(100),
            patience: Duration::from_millis(50),
            failing_questions: 1,
            question_failure: (status, body),
            ..Script::default()
        }));
        let began_at = Instant::now();
        studio.paint(&several(1)).await;
        assert_eq!(studio.replicate.questions() - before, 2, "{status}");
        let rested = began_at.elapsed() >= Duration::from_millis(1_300);
        assert!(rested || status != 429, "it asked to be left alone");
    }
    assert_eq!(studio.replicate.creates().len(), 6, "each created once");
    studio.close().await;
}

/// A token that stops working while a prediction runs.
#[tokio::test(flavor = "multi_thread")]
async fn questions_refused_for_our_account_are_not_repeated() {
    for (status, kind) in [(401, "auth"), (403, "auth"), (402, "quota_exhausted")] {
        let studio = Studio::open().await;
        studio.replicate.next(Behaviour::Run(Script {
            processing: Duration::from_mins(1),
            patience: Duration::from_millis(50),
            failing_questions: 100,
            question_failure: (status, json!({"title": "Unauthenticated"})),
            ..Script::default()
        }));
        let failure = studio.fail(&several(1)).await;
        assert_eq!(failure, (502, "upstream_error".to_owned()));
        assert_eq!(studio.replicate.questions(), 1);
        let condition = format!("maybe_charged and error = '{kind}'");
        assert_eq!(studio.attempts(&condition).await, 1, "{status}");
        // What we can still do, we do.
        until("it is cancelled", async || {
            studio.replicate.cancelled().len() == 1
        })
        .await;
        studio.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_that_nobody_can_tell_about_is_given_up() {
    let studio = Studio::open().await;

    // It is cancelled; it may have been painted.
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        patience: Duration::from_millis(50),
        failing_questions: 100,
        ..Script::default()
    }));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 1, "and not again");
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    until("it is cancelled", async || {
        studio.replicate.cancelled().len() == 1
    })
    .await;
    studio.close().await;
}

/// A creation whose answer is lost is not repeated: it may be running, and paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_without_an_answer_is_not_repeated() {
    let studio = Studio::with(&[("timeout", json!("1s"))]).await;
    studio.replicate.next(Behaviour::Never);
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (504, "upstream_timeout".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 1);
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    assert_eq!(
        studio.replicate.creates()[0].headers["cancel-after"],
        "5s",
        "the least it may say"
    );
    studio.close().await;
}

/// One that broke off after its name was there is asked about instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_asked_for_again_if_it_had_a_name() {
    let studio = Studio::with(&[("idle_timeout", json!("500ms"))]).await;
    // Before the output, and in the middle of a picture.
    for (bytes, shape) in [(250, Shape::Links), (2_000, Shape::DataUrls)] {
        let before = studio.replicate.questions();
        studio.replicate.next(Behaviour::CutAfter(bytes, shape));
        let answer = studio.paint(&several(2)).await;
        for picture in answer["data"].as_array().unwrap() {
            assert_eq!(measure(&base64(&picture["b64_json"])).width, 1024);
        }
        assert_eq!(studio.replicate.questions() - before, 1);
    }
    // Or one that stops in the middle, when it has been silent for too long.
    let before = studio.replicate.questions();
    studio.replicate.next(Behaviour::StallAfter(250));
    studio.paint(&several(2)).await;
    assert_eq!(studio.replicate.questions() - before, 1);
    assert_eq!(studio.replicate.creates().len(), 3);

    studio.replicate.next(Behaviour::CutAfter(20, Shape::Links));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (502, "upstream_error".to_owned()));
    assert_eq!(studio.replicate.creates().len(), 4);
    assert_eq!(
        studio
            .attempts("maybe_charged and error = 'transport_after_sending'")
            .await,
        1
    );
    studio.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_and_files_arrive() {
    let studio = Studio::with(&[("idle_timeout", json!("500ms"))]).await;
    let pause = Duration::from_millis(40);
    studio.replicate.next(Behaviour::Drip(40, pause));
    studio.paint(&several(1)).await;
    studio.replicate.next(Script::with_files(Files::Drip));
    studio.paint(&several(2)).await;
    studio.close().await;
}

/// What takes too long is given up and cancelled at the provider.
#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_beyond_the_deadline_is_cancelled() {
    let studio = Studio::with(&[("timeout", json!("1500ms"))]).await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        patience: Duration::from_millis(50),
        ..Script::default()
    }));
    let failure = studio.fail(&several(1)).await;
    assert_eq!(failure, (504, "upstream_timeout".to_owned()));
    until("it is cancelled", async || {
        studio.replicate.cancelled().len() == 1
    })
    .await;
    assert_eq!(studio.attempts("maybe_charged").await, 1);
    studio.close().await;
}
