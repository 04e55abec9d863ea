//! The way through Google Cloud: signing in, and stepping in for the other way.

use serde_json::json;

use super::{Doors, Google, banana, banana_cost};
use crate::support::fake_google::{Behaviour, PROJECT, Reply, Shape};

/// One token for many calls; one that is refused is replaced within the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn vertex_signs_in_once_and_again_when_refused() {
    let mut google = Google::start(Doors::Vertex).await;
    let mut request = banana();
    request["n"] = json!(4);
    google.paints(&request, 4 * banana_cost()).await;
    google.paints(&banana(), banana_cost()).await;
    assert_eq!(google.fake.tokens_given(), 1);
    let call = google.fake.calls().remove(0);
    assert_eq!(
        call.path,
        format!(
            "/v1/projects/{PROJECT}/locations/us-central1/publishers/google/models/gemini-nano-banana-2.1:generateContent"
        )
    );
    assert!(call.headers.get("x-goog-api-key").is_none());

    google.fake.revoke_tokens();
    google.repeated = 1;
    google.paints(&banana(), banana_cost()).await;
    assert_eq!(google.fake.tokens_given(), 2);

    // A new token that is refused as well is the account's trouble, and not asked for a third time.
    google.fake.next(Behaviour::Reply(Reply::unauthenticated()));
    google.fake.next(Behaviour::Reply(Reply::unauthenticated()));
    let answer = google.app.generate(&google.key, &banana()).await;
    assert_eq!(
        (answer.status, answer.problem().code()),
        (502, "upstream_error")
    );
    assert_eq!(google.fake.tokens_given(), 3);
    assert_eq!(google.marked().await, 0);
    google.repeated = 2;
    google.finish().await;
}

/// A token server that stumbles is asked again, and the call goes out.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_may_stumble() {
    let google = Google::start(Doors::Vertex).await;
    google.fake.fail_token_server(2);
    google.paints(&banana(), banana_cost()).await;
    assert_eq!(google.fake.tokens_given(), 1);
    google.finish().await;
}

/// The place is in the address, and an address without a version gets Google's.
#[tokio::test(flavor = "multi_thread")]
async fn the_location_is_in_the_address() {
    let google = Google::start_with(Doors::Vertex, &[("location", "global")]).await;
    google.paints(&banana(), banana_cost()).await;
    let path = google.fake.calls().remove(0).path;
    let prefix = format!("/v1/projects/{PROJECT}/locations/global/publishers/google/models/");
    assert!(path.starts_with(&prefix), "{path}");
    google.finish().await;

    for doors in [Doors::Gemini, Doors::Vertex] {
        let google = Google::start_at_origin(doors).await;
        google.paints(&banana(), banana_cost()).await;
        google.finish().await;
    }
}

/// The Gemini API first, and Vertex when it fails; a refusal of the content goes nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn vertex_steps_in_for_the_gemini_api() {
    for reply in [
        Reply::overloaded(),
        Reply::no_quota(),
        Reply::wrong_key(),
        Reply::html_404(),
    ] {
        let google = Google::start(Doors::Both).await;
        let described = format!("{reply:?}");
        google.fake.next(Behaviour::Reply(reply));
        let body = google.paints(&banana(), banana_cost()).await;
        assert_eq!(body["provider"], "vertex", "{described}");
        google.finish().await;
    }
    let google = Google::start(Doors::Both).await;
    let refused = Behaviour::Shape(Shape::Finished("IMAGE_SAFETY"));
    google
        .fails(refused, &banana(), 400, "moderation_blocked")
        .await;
    google.finish().await;
}
