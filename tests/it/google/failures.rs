//! What goes wrong at Google or on the way there: nothing is charged, and the books know the risk.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Doors, Google, PROMPT, banana, banana_cost, decoded, imagen, unreported_banana_cost};
use crate::support::{
    fake_google::{Behaviour, Reply, Shape},
    pictures::measure,
};

/// No picture, and no judgement of the content either: what may be a whim is asked for once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_picture_is_a_failure() {
    for (shape, calls) in [
        (Shape::Finished("NO_IMAGE"), 2),
        (Shape::Finished("IMAGE_OTHER"), 2),
        (Shape::Finished("OTHER"), 2),
        (Shape::Finished("MALFORMED_RESPONSE"), 2),
        (Shape::Finished("MAX_TOKENS"), 2),
        (Shape::Finished("NOBODY_KNOWS"), 1),
        (Shape::TextOnly, 1),
        (Shape::OnlyDraft, 1),
        (Shape::NotAPicture, 1),
    ] {
        let mut google = Google::start(Doors::Gemini).await;
        let behaviours = vec![Behaviour::Shape(shape); calls];
        google
            .fails_after(behaviours, &banana(), 502, "upstream_error")
            .await;
        assert_eq!(google.marked().await, 1, "{shape:?}");
        google.repeated = calls - 1;
        google.finish().await;
    }
}

/// Contract, 2.4: no picture is no verdict. The second answer counts, and is the only one that costs.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_try_may_paint() {
    let mut google = Google::start(Doors::Gemini).await;
    google
        .fake
        .next(Behaviour::Shape(Shape::Finished("NO_IMAGE")));
    google.paints(&banana(), banana_cost()).await;
    google.repeated = 1;
    google.finish().await;
}

/// What Google says when it fails, what the caller hears of it, and whether Google may charge us for it.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_google() {
    for (reply, status, code, retry_after) in [
        (Reply::wrong_key(), 502, "upstream_error", None),
        (Reply::unauthenticated(), 502, "upstream_error", None),
        (Reply::no_key(), 502, "upstream_error", None),
        (Reply::location(), 502, "upstream_error", None),
        (Reply::payment_required(), 502, "upstream_error", None),
        (Reply::permission_denied(), 502, "upstream_error", None),
        (Reply::service_disabled(), 502, "upstream_error", None),
        (Reply::retired(), 502, "upstream_error", None),
        (Reply::entity_not_found(), 502, "upstream_error", None),
        (Reply::html_404(), 502, "upstream_error", None),
        (Reply::no_quota(), 502, "upstream_error", None),
        (
            Reply::rate_limited("37s"),
            429,
            "upstream_rate_limited",
            Some("37"),
        ),
        (
            Reply::rate_limited("57.238747106s").in_a_list(),
            429,
            "upstream_rate_limited",
            Some("58"),
        ),
        (Reply::vertex_quota(), 429, "upstream_rate_limited", None),
        (Reply::no_capacity(), 502, "upstream_error", None),
        (Reply::internal(), 502, "upstream_error", None),
        (Reply::overloaded().in_a_list(), 502, "upstream_error", None),
        (Reply::out_of_time(), 502, "upstream_error", None),
        (
            Reply::raw(200, "text/html", "<html>"),
            502,
            "upstream_error",
            None,
        ),
        (
            Reply::raw(200, "application/json", ""),
            502,
            "upstream_error",
            None,
        ),
    ] {
        // One Easel each: what fails rests.
        let google = Google::start(Doors::Gemini).await;
        let described = format!("{reply:?}");
        // Answers that say neither yes nor no.
        let may_cost = matches!(reply.status, 200 | 504);
        let problem = google
            .fails(Behaviour::Reply(reply), &banana(), status, code)
            .await;
        if let Some(seconds) = retry_after {
            assert_eq!(problem["retry_after"], seconds, "{described}");
        }
        assert_eq!(google.marked().await, i64::from(may_cost), "{described}");
        google.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_that_falls_silent_is_given_up() {
    for (settings, behaviour) in [
        ([("timeout", "700ms")], Behaviour::Never),
        ([("timeout", "700ms")], Behaviour::StallAfter(600)),
        ([("idle_timeout", "500ms")], Behaviour::StallAfter(600)),
    ] {
        let google = Google::start_with(Doors::Gemini, &settings).await;
        google
            .fails(behaviour, &banana(), 504, "upstream_timeout")
            .await;
        assert_eq!(google.marked().await, 1, "Google may charge us for it");
        google.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_none_and_a_slow_one_arrives() {
    for bytes in [10, 3000] {
        let google = Google::start(Doors::Gemini).await;
        google
            .fails(Behaviour::CutAfter(bytes), &banana(), 502, "upstream_error")
            .await;
        assert_eq!(google.marked().await, 1);
        google.finish().await;
    }
    // The picture came whole, and only what stands behind it is missing: it is one, at the price of the prompt
    // and of its own tokens, since nobody said what it took beyond them.
    let google = Google::start(Doors::Gemini).await;
    google.fake.next(Behaviour::CutBeforeEnd(5));
    google.paints(&banana(), unreported_banana_cost()).await;
    google.fake.next(Behaviour::CutBeforeEnd(1));
    google.paints(&imagen(2), 80_000_000).await;
    google.finish().await;

    let google = Google::start_with(Doors::Gemini, &[("idle_timeout", "500ms")]).await;
    google
        .fake
        .next(Behaviour::Drip(20, Duration::from_millis(50)));
    let body = google.paints(&banana(), banana_cost()).await;
    assert_eq!(measure(&decoded(&body["data"][0])).width, 1024);
    google.finish().await;
}

/// Nothing was sent, so nothing can be charged: where nobody listens, where nobody says a word of TLS, and
/// where no token is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_never_went_out_is_not_marked() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute_url = format!("https://{}/v1beta", mute.local_addr().unwrap());
    let free_url = format!("http://{}/v1beta", free.local_addr().unwrap());
    drop(free);
    for (base_url, status, code) in [
        (mute_url, 504, "upstream_timeout"),
        (free_url, 502, "upstream_error"),
    ] {
        let settings = [("base_url", &*base_url), ("connect_timeout", "300ms")];
        let google = Google::start_with(Doors::Gemini, &settings).await;
        never_sent(google, status, code).await;
    }

    let google = Google::start(Doors::Vertex).await;
    google.fake.refuse_account();
    never_sent(google, 502, "upstream_error").await;

    let google = Google::start_with(Doors::Vertex, &[("timeout", "700ms")]).await;
    google.fake.hang_token_server();
    never_sent(google, 504, "upstream_timeout").await;

    let google = Google::start(Doors::Vertex).await;
    google.fake.fail_token_server(3);
    never_sent(google, 502, "upstream_error").await;
}

async fn never_sent(google: Google, status: u16, code: &str) {
    let answer = google.app.generate(&google.key, &banana()).await;
    assert_eq!((answer.status, answer.problem().code()), (status, code));
    assert_eq!(google.app.balance(&google.key).await, json!(20));
    assert_eq!(google.marked().await, 0);
    assert!(google.fake.calls().is_empty());
    google.app.finish().await;
}

/// On a full disk nothing is bought that could not be kept: Gemini may take a picture back until its last byte, so it
/// has to be in the store until then, whatever the client asked for. Imagen's fan out, and DALL·E's need no store.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_bought_that_cannot_be_kept() {
    let google = Google::start(Doors::Gemini).await;
    let app = &google.app;
    let images = app.directory().join("data/images");
    let away = app.directory().join("data/away");
    std::fs::rename(&images, &away).unwrap();
    std::fs::write(&images, "where a directory was").unwrap();
    // The first one finds out.
    let dalle = |format: &str| json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": format});
    let problem = app.generate(&google.key, &dalle("url")).await;
    assert_eq!(problem.problem().code(), "storage_error");
    assert_eq!(app.openai.calls().len(), 1);
    let (generations, credits) = (
        "select count(*) from generations",
        app.credits(&google.key).await,
    );
    assert_eq!(app.database.number(generations).await, 1);
    let named = async |body: &Value| {
        let request = app
            .client
            .request(reqwest::Method::POST, "/v1/images/generations")
            .bearer_auth(&google.key.secret)
            .header("content-type", "application/json")
            .header("idempotency-key", "kept for a repeat");
        app.client.send(request.body(body.to_string())).await
    };
    for refused in [
        app.generate(&google.key, &dalle("url")).await,
        app.generate(&google.key, &banana()).await,
        app.generate(&google.key, &imagen(2)).await,
        named(&dalle("b64_json")).await,
    ] {
        assert_eq!(refused.status, 502, "{:?}", refused.problem());
        assert_eq!(refused.problem().code(), "storage_error");
    }
    assert_eq!(app.database.number(generations).await, 1, "before the hold");
    assert_eq!(app.credits(&google.key).await, credits);
    assert_eq!(google.fake.calls().len(), 0);
    assert_eq!(app.openai.calls().len(), 1);
    // What goes through needs no disk.
    app.generate(&google.key, &dalle("b64_json"))
        .await
        .expect(200);

    std::fs::remove_file(&images).unwrap();
    std::fs::rename(&away, &images).unwrap();
    google.paints(&banana(), banana_cost()).await;
    app.generate(&google.key, &dalle("url")).await.expect(200);
    google.finish().await;
}
