//! The main job: a request in, pictures out, in the form each model family has.

use serde_json::json;

use crate::support::{App, pictures};

#[tokio::test(flavor = "multi_thread")]
async fn a_dall_e_2_picture_comes_as_a_link_by_default() {
    let app = App::start().await;
    let key = app.live_key("1");
    let answer = app
        .generate(
            &key,
            &json!({"model": "dall-e-2", "prompt": "a lighthouse in the evening"}),
        )
        .await
        .expect(200);
    let file = app.open_link(&answer.link(0)).await.expect(200);
    assert_eq!(pictures::measure(&file.bytes).width, 1024);
    app.finish().await;
}
