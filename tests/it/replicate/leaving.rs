//! Clients that leave, and processes that stop, while a prediction runs.

use std::time::Duration;

use serde_json::json;

use super::{Studio, several};
use crate::support::{
    fake_replicate::{Behaviour, FakeReplicate, Script},
    raw::Raw,
    until,
};

/// Posts a request whose prediction takes so long, and hangs up once the fake has seen this.
async fn post_and_leave(
    studio: &Studio,
    processing: Duration,
    seen: impl Fn(&FakeReplicate) -> bool,
) {
    studio.replicate.next(Behaviour::Run(Script {
        processing,
        ..Script::default()
    }));
    let mut raw = Raw::connect(studio.app.easel.port()).await;
    let request = several(1).to_string();
    raw.send(&Raw::post(
        "/v1/images/generations",
        &studio.key.secret,
        &request,
    ))
    .await;
    until("it is so far", async || seen(&studio.replicate)).await;
    drop(raw);
}

/// Whoever asks about a prediction knows its name.
fn a_question(replicate: &FakeReplicate) -> bool {
    replicate.questions() > 0
}

fn a_creation(replicate: &FakeReplicate) -> bool {
    !replicate.creates().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_where_the_operator_wants_it() {
    let studio = Studio::with(&[("on_disconnect", json!("cancel"))]).await;
    post_and_leave(&studio, Duration::from_mins(1), a_question).await;
    until("it is cancelled", async || {
        studio.replicate.cancelled().len() == 1
    })
    .await;
    let create = studio.replicate.creates().remove(0);
    assert!(
        !create.headers.contains_key("prefer"),
        "its name must be known while it runs"
    );
    studio.app.wait_until_settled().await;
    assert_eq!(studio.attempts("error = 'cancelled'").await, 1);
    assert_eq!(studio.balance().await, 10_000_000_000);

    // Without haste it paints as ever.
    studio.paint(&several(2)).await;
    studio.close().await;
}

/// Even if everything ends right then.
#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_for_the_cancellation() {
    let studio = Studio::with(&[("on_disconnect", json!("cancel"))]).await;
    post_and_leave(&studio, Duration::from_mins(1), a_question).await;
    let Studio { app, replicate, .. } = studio;
    app.finish().await;
    assert_eq!(replicate.cancelled().len(), 1);
    replicate.prove();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_pays_where_the_operator_does_not() {
    let studio = Studio::open().await;
    post_and_leave(&studio, Duration::from_millis(900), a_creation).await;
    studio.app.wait_until_settled().await;
    assert!(studio.replicate.cancelled().is_empty());
    assert_eq!(studio.balance().await, 9_997_000_000);
    studio.close().await;
}

/// Whoever does not wait can have it stopped, whatever becomes of clients that leave: its name is known while
/// it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_generation_is_cancelled_at_the_provider() {
    let studio = Studio::open().await;
    studio.replicate.next(Behaviour::Run(Script {
        processing: Duration::from_mins(1),
        ..Script::default()
    }));
    let id = crate::later::later(&studio.app.client, &studio.key, &several(1)).await;
    until("it is asked about", async || a_question(&studio.replicate)).await;
    let delete = studio
        .app
        .client
        .request(
            reqwest::Method::DELETE,
            &format!("/v1/images/generations/{id}"),
        )
        .bearer_auth(&studio.key.secret);
    let state = studio.app.client.send(delete).await.expect(200).json();
    assert_eq!(state["error"]["code"], "canceled", "{state}");
    until("it is cancelled", async || {
        studio.replicate.cancelled().len() == 1
    })
    .await;
    assert_eq!(studio.attempts("error = 'cancelled'").await, 1);
    assert_eq!(studio.balance().await, 10_000_000_000);
    studio.close().await;
}
