//! What Google or Easel refuses: the caller's affair, with a code, and never charged.

use serde_json::json;

use super::{Doors, Google, PROMPT, banana, imagen};
use crate::support::{
    App,
    fake_google::{API_KEY, Behaviour, FakeGoogle, Reply, Shape},
};

/// Refusals inside of successes, in every shape: the caller's, 400, and never charged.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_the_callers() {
    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start(doors).await;
        let mut gemini = vec![
            Shape::BlockedPromptWithMessage,
            Shape::EmptyContent,
            Shape::PartsNull,
        ];
        for reason in [
            "SAFETY",
            "PROHIBITED_CONTENT",
            "BLOCKLIST",
            "OTHER",
            "IMAGE_SAFETY",
            "MODEL_ARMOR",
            "JAILBREAK",
        ] {
            gemini.push(Shape::BlockedPrompt(reason));
        }
        for reason in [
            "SAFETY",
            "IMAGE_SAFETY",
            "PROHIBITED_CONTENT",
            "IMAGE_PROHIBITED_CONTENT",
            "RECITATION",
            "IMAGE_RECITATION",
            "BLOCKLIST",
            "SPII",
            "MODEL_ARMOR",
        ] {
            gemini.push(Shape::Finished(reason));
        }
        let imagen_shapes = [Shape::RaiAll, Shape::RaiEmpty, Shape::RaiEmptyList];
        let cases = gemini
            .into_iter()
            .map(|shape| (shape, banana()))
            .chain(imagen_shapes.map(|shape| (shape, imagen(2))));
        for (shape, request) in cases {
            let problem = google
                .fails(Behaviour::Shape(shape), &request, 400, "moderation_blocked")
                .await;
            assert_eq!(problem["type"], "image_generation_user_error", "{shape:?}");
            let message = problem["message"].as_str().unwrap();
            match shape {
                Shape::BlockedPrompt(reason) | Shape::Finished(reason) => {
                    assert!(message.contains(reason), "{message}");
                }
                Shape::RaiAll => assert!(message.contains("39322892"), "{message}"),
                _ => {}
            }
        }
        let refused = Behaviour::Reply(Reply::prompt_refused());
        let problem = google
            .fails(refused, &imagen(1), 400, "moderation_blocked")
            .await;
        assert!(problem["message"].as_str().unwrap().contains("42876398"));
        google.finish().await;
    }
}

/// What only Google's validator finds is the caller's, and goes to no other route.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_stays_with_the_caller() {
    let google = Google::start(Doors::Both).await;
    let reply = Reply::raw(
        400,
        "application/json",
        r#"{"error":{"code":400,"message":"The prompt has too many tokens.","status":"INVALID_ARGUMENT"}}"#,
    );
    let problem = google
        .fails(Behaviour::Reply(reply), &banana(), 400, "invalid_value")
        .await;
    assert_eq!(problem["message"], "The prompt has too many tokens.");
    google.finish().await;
}

/// What Google cannot paint is refused by name, and nobody is called.
#[tokio::test(flavor = "multi_thread")]
async fn what_google_cannot_paint_is_refused_by_name() {
    let google = Google::start(Doors::Gemini).await;
    for (model, parameter, value) in [
        ("imagen-3", "quality", json!("hd")),
        ("imagen-3", "style", json!("vivid")),
        ("imagen-3", "size", json!("1536x1024")),
        ("gemini-nano-banana-2.1", "quality", json!("high")),
        ("gemini-nano-banana-2.1", "size", json!("512x512")),
        ("gemini-nano-banana-2.1", "background", json!("transparent")),
        ("gemini-nano-banana-2.1", "n", json!(11)),
    ] {
        let mut request = json!({"model": model, "prompt": PROMPT});
        request[parameter] = value;
        let problem = google.app.refuse(&google.key, 400, &request).await;
        assert_eq!(problem.param(), parameter, "{problem:?}");
    }
    assert!(google.fake.calls().is_empty());
    google.finish().await;
}

/// Imagen as it is since August 2026.
#[tokio::test(flavor = "multi_thread")]
async fn a_retired_model_is_said_to_be_one() {
    let fake = FakeGoogle::start().await;
    let app = App::builder()
        .await
        .set("providers.google.base_url", fake.base_url())
        .set("providers.google.api_key", API_KEY)
        .start()
        .await;
    let key = app.live_key("1");
    let model = app
        .get(&key, "/v1/models/imagen-4")
        .await
        .expect(200)
        .json();
    assert_eq!(model["status"], "retired");
    assert_eq!(model["shutdown_date"], "2026-08-17");
    let request = json!({"model": "imagen-4", "prompt": PROMPT});
    let answer = app.generate(&key, &request).await.expect(404);
    let problem = answer.problem();
    assert_eq!(problem.code(), "model_not_found");
    assert!(
        problem.message.contains("retired on 2026-08-17"),
        "{problem:?}"
    );
    assert_eq!(app.balance(&key).await, json!(1));
    app.finish().await;
}
