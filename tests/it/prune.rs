//! `easel prune`: what is old goes, no balance and no sum changes, nobody notices but who looks for the old.

use serde_json::json;

use crate::support::App;

const PROMPT: &str = "a drawer of old receipts";

#[tokio::test(flavor = "multi_thread")]
async fn old_requests_go_and_their_sums_stay() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "n": 2});
    let old = app.generate(&key, &body).await.expect(200);
    let path = |id: &str| format!("/v1/images/generations/{id}");
    let id = old.header("x-generation-id").to_owned();
    // Four hundred and one days go by.
    app.database.age(401).await;
    let young = app.generate(&key, &body).await.expect(200);
    let young = young.header("x-generation-id").to_owned();
    let usage = "/v1/usage?since=2020-01-01&group_by=model";
    let before = app.get(&key, usage).await.expect(200).json();
    let entries = ["accounts", "show", &key.account, "--json"];

    let refused = app.run(&["prune", "--older-than", "6d"]);
    let words = refused.expect_failure(1).stderr;
    assert!(words.contains("7days"), "{words}");
    let pruned = app.run(&["prune", "--older-than", "400d", "--json"]);
    let pruned = pruned.expect_success().json();
    assert_eq!(
        (&pruned["generations"], &pruned["charges"]),
        (&json!(1), &json!(1))
    );
    // The call that its attempt told of.
    app.lost_a_call();

    assert_eq!(app.get(&key, usage).await.expect(200).json(), before);
    assert_eq!(app.balance(&key).await, json!(0.92));
    app.get(&key, &path(&id)).await.expect(404);
    app.get(&key, &path(&young)).await.expect(200);
    let shown = app.run(&entries).expect_success().stdout;
    assert!(shown.contains("\"charges\""), "{shown}");
    let again = app.run(&["prune", "--older-than", "400d"]).expect_success();
    assert!(
        again.stdout.contains("pruned 0 requests"),
        "{}",
        again.stdout
    );
    app.finish().await;
}
