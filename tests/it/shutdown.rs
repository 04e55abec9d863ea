//! Stopping: what runs is finished, what is new is refused, and a killed process leaves nothing that
//! blocks its accounts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    s3::on,
    support::{
        App, Behaviour, Key, model, pictures,
        s3::{S3Server, Trouble},
        until, usd,
    },
};

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
    let gate = app.openai.gate();
    let request = json!({"model": "dall-e-3", "prompt": PROMPT});
    let meanwhile = async {
        app.openai.wait_for_call().await;
        app.easel.signal(Signal::TERM);
        // Until it has heard of it, what is wrong is refused for that.
        let wrong = json!({"model": "dall-e-3", "prompt": PROMPT, "size": "1x1"});
        let wrong = wrong.to_string();
        until("nothing new is taken", async || {
            let request = app
                .client
                .request(reqwest::Method::POST, "/v1/images/generations")
                .bearer_auth(&key.secret)
                .header("content-type", "application/json")
                .body(wrong.clone());
            let answer = app.client.try_send(request).await;
            answer.is_err() || answer.is_ok_and(|answer| answer.status == 503)
        })
        .await;
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
        gate.add_permits(2);
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

/// For as long as balancers need to learn of it, a process that is about to go serves as before.
#[tokio::test(flavor = "multi_thread")]
async fn during_the_delay_everything_but_readiness_goes_on() {
    let app = App::builder().await.set("shutdown.drain_delay", "1h");
    let mut app = app.start().await;
    let key = app.live_key("1");
    app.client.get("/readyz", None).await.expect(200);
    app.easel.signal(Signal::TERM);
    let mut ready = app.client.get("/readyz", None).await;
    while ready.status == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ready = app.client.get("/readyz", None).await;
    }
    assert_eq!(ready.expect(503).json()["reason"], "draining");
    let request = json!({"model": "dall-e-3", "prompt": PROMPT});
    let answer = app.generate(&key, &request).await.expect(200);
    assert_eq!(answer.header("connection"), "close");
    app.client.get("/healthz", None).await.expect(200);
    // Who does not want to wait says so.
    app.easel.signal(Signal::TERM);
    let status = app.easel.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_ends_by_itself_and_a_person_does_not_wait_for_it() {
    for (delay, signal) in [("300ms", Signal::TERM), ("1h", Signal::INT)] {
        let app = App::builder().await.set("shutdown.drain_delay", delay);
        let mut app = app.start().await;
        let begun = std::time::Instant::now();
        app.easel.signal(signal);
        let status = app.easel.ended(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
        if signal == Signal::TERM {
            assert!(begun.elapsed() >= Duration::from_millis(300));
        }
        app.finish().await;
    }
}

/// Whoever is still in flight when the time is over is settled by what has arrived whole, and told.
#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_drain_is_settled_by_what_has_come() {
    let mut app = App::builder()
        .await
        .models(&model("0.030", 1))
        .set("shutdown.drain_timeout", "500ms")
        .start()
        .await;
    let (half, nothing) = (app.live_key("1"), app.live_key("1"));
    app.openai.always(Behaviour::Never);
    app.openai.next(Behaviour::Answer);
    let two = json!({"model": "pilot", "prompt": PROMPT, "n": 2});
    let one = json!({"model": "dall-e-3", "prompt": PROMPT});
    let stop = async {
        app.openai.wait_for_calls(2).await;
        // The first answer has to be here, and kept.
        until("it is kept", async || !app.kept_pictures().is_empty()).await;
        let third = async {
            app.openai.wait_for_calls(3).await;
            app.easel.signal(Signal::TERM);
        };
        tokio::join!(app.generate(&nothing, &one), third).0
    };
    let (got_one, got_none) = tokio::join!(app.generate(&half, &two), stop);
    let answer = got_one.expect(200).json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["usage"]["cost"], json!(0.03));
    let problem = got_none.expect(503).problem();
    assert_eq!(problem.code(), "server_is_draining");
    assert!(
        problem.message.contains("Nothing was charged"),
        "{problem:?}"
    );
    let status = app.easel.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    app.openai.always(Behaviour::Answer);
    app.start_again().await;
    assert_eq!(app.balance(&half).await, json!(0.97));
    assert_eq!(app.balance(&nothing).await, json!(1));
    app.finish().await;
}

const GENERATIONS: &str = "/v1/images/generations";

/// What one of many was told it paid, in nano-USD; nothing when it was told that it failed, or saw its answer break.
async fn told_cost(app: &App, key: &Key, body: &Value) -> i64 {
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    let Ok(answer) = app.client.try_send(request).await else {
        return 0;
    };
    if answer.status == 503 {
        assert_eq!(answer.problem().code(), "server_is_draining");
        return 0;
    }
    let answer = answer.expect(200).json();
    let pictures = answer["data"].as_array().unwrap().len();
    let each = if body["model"] == "pilot" { 30 } else { 40 } * 1_000_000;
    let cost = i64::try_from(pictures).unwrap() * each;
    assert_eq!(answer["usage"]["cost"], usd(cost));
    cost
}

/// Many are cut at once, each somewhere else on its way: what they were told they paid is what they paid.
#[tokio::test(flavor = "multi_thread")]
async fn what_many_are_told_when_they_are_cut_is_what_they_pay() {
    const CLIENTS: usize = 32;
    let mut app = App::builder()
        .await
        .models(&model("0.030", 1))
        .set("shutdown.drain_timeout", "400ms")
        .start()
        .await;
    let key = app.live_key("100");
    let text = STANDARD.encode(pictures::noise(300, 3));
    let body = json!({"created": 1_795_000_000, "data": [{"b64_json": text}]}).to_string();
    let end_of_picture = body.find(&text).unwrap() + text.len();
    let body = Bytes::from(body);
    let shut = Arc::new(Semaphore::new(0));
    let up_to =
        move |end: usize| Behaviour::Gated(body.slice(..end), Arc::clone(&shut), body.slice(end..));
    let turn = AtomicU32::new(0);
    app.openai.choose(move |_| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        match turn % 5 {
            0 => Behaviour::Never,
            1 => up_to(100_000),
            // All of the picture, of which nobody says that it ends.
            2 => up_to(end_of_picture),
            3 => Behaviour::Answer,
            // Some before the end, some behind it, and some just then.
            _ => Behaviour::AnswerAfter(
                Duration::from_millis(100) + Duration::from_millis(20) * turn,
            ),
        }
    });
    let orders = (0..CLIENTS).map(|place| match place % 3 {
        0 => json!({"model": "dall-e-3", "prompt": PROMPT, "response_format": "b64_json"}),
        1 => json!({"model": "dall-e-3", "prompt": PROMPT, "response_format": "url"}),
        _ => json!({"model": "pilot", "prompt": PROMPT, "n": 3}),
    });
    let orders: Vec<Value> = orders.collect();
    let stop = async {
        app.openai.wait_for_calls(CLIENTS).await;
        app.easel.signal(Signal::TERM);
    };
    let told = join_all(orders.iter().map(|order| told_cost(&app, &key, order)));
    let (told, ()) = tokio::join!(told, stop);
    let status = app.easel.ended(Duration::from_mins(1)).await;
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    let open = "select count(*) from holds where status = 'open'";
    assert_eq!(app.database.number(open).await, 0);
    app.start_again().await;
    let paid: i64 = told.iter().sum();
    assert_eq!(app.balance(&key).await, usd(100_000_000_000 - paid));
    let failed = "select count(*) from generations where error_code = 'server_is_draining'";
    assert!(app.database.number(failed).await > 0, "somebody was cut");
    app.finish().await;
}

/// What is whole is only kept when the bucket has it; no settlement waits for a bucket that says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_silent_does_not_hold_up_the_last_settlements() {
    let s3 = S3Server::start().await;
    let settings = [
        ("images.s3.timeout", "2m"),
        ("shutdown.drain_timeout", "200ms"),
    ];
    let mut app = on(&s3, &settings).await;
    let key = app.live_key("1");
    let body = json!({"created": 1_795_000_000, "data": [{"b64_json": STANDARD.encode(pictures::noise(60, 3))}]});
    let body = Bytes::from(body.to_string());
    let end = body.len() - 4;
    // One is on its way into the bucket when the time is over; of the other nobody has said yet that it is whole.
    app.openai.next(Behaviour::Answer);
    app.openai.next(Behaviour::Gated(
        body.slice(..end),
        Arc::new(Semaphore::new(0)),
        body.slice(end..),
    ));
    s3.trouble(Method::PUT, Trouble::Silence, usize::MAX);
    let order = json!({"model": "dall-e-3", "prompt": PROMPT, "response_format": "url"});
    let stop = async {
        while !s3
            .requests()
            .iter()
            .any(|(method, path)| method == Method::PUT && path.contains("img_"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let other = async {
            app.openai.wait_for_calls(2).await;
            app.easel.signal(Signal::TERM);
        };
        tokio::join!(app.generate(&key, &order), other).0
    };
    let (one, other) = tokio::join!(app.generate(&key, &order), stop);
    for answer in [one, other] {
        assert_eq!(answer.expect(503).problem().code(), "server_is_draining");
    }
    // Nor need anybody wait for the last uploads, who says so.
    let pid = Pid::from_raw(i32::try_from(app.easel.pid()).unwrap()).unwrap();
    let impatience = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            kill_process(pid, Signal::TERM).ok();
        }
    };
    let status = tokio::select! {
        status = app.easel.ended(Duration::from_mins(1)) => status,
        () = impatience => unreachable!(),
    };
    assert_eq!(status.code(), Some(0), "{}", app.easel.stderr());
    let released = "select count(*) from holds where status = 'released'";
    assert_eq!(app.database.number(released).await, 2);

    s3.calm();
    app.start_again().await;
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}
