//! The official SDKs against the real binary. The assertions live in the scripts under `tests/sdk`;
//! a script that fails prints what it saw.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{
    App, Proxy,
    fake_google::{self, FakeGoogle},
    fake_replicate::{self, FakeReplicate},
    fake_stability::{self, FakeStability},
    until,
};

fn python() -> PathBuf {
    let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    assert!(
        interpreter.exists(),
        "the Python SDK is not installed: start the tests with `tests/run`"
    );
    interpreter
}

fn node() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/node/node_modules/openai");
    assert!(
        modules.exists(),
        "the Node SDK is not installed: start the tests with `tests/run`"
    );
    PathBuf::from("node")
}

/// An interpreter that is to run a script of ours.
fn command(interpreter: PathBuf, script: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    let mut command = Command::new(interpreter);
    command
        .arg(scripts.join(script))
        .env_remove("OPENAI_API_KEY")
        .env_remove("OPENAI_BASE_URL")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Waits for its end, which is a good one.
async fn succeed(mut command: Command, script: &str) {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .expect("the interpreter starts");
    assert!(
        output.status.success(),
        "{script} failed\n--- stdout\n{}\n--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs one script with the addresses and keys it needs.
async fn run(interpreter: PathBuf, script: &str) {
    let builder = App::builder().await;
    let stability = FakeStability::start().await;
    let google = FakeGoogle::legacy().await;
    let replicate = FakeReplicate::start().await;
    let authority = builder.openai().authority();
    let app = builder
        .set("providers.openai.timeout", "5s")
        .set("providers.openai.result_hosts", json!([authority]))
        .set("providers.stability.base_url", stability.base_url())
        .set("providers.stability.api_key", fake_stability::API_KEY)
        .set("providers.google.base_url", google.base_url())
        .set("providers.google.api_key", fake_google::API_KEY)
        .set("providers.replicate.base_url", replicate.base_url())
        .set("providers.replicate.api_key", fake_replicate::TOKEN)
        .set(
            "providers.replicate.result_hosts",
            json!([replicate.file_host()]),
        )
        .start()
        .await;
    let mut command = command(interpreter, script);
    command
        .env("EASEL_BASE_URL", format!("{}/v1", app.easel.origin()))
        .env("EASEL_KEY", &app.live_key("100").secret)
        .env("EASEL_TEST_KEY", &app.test_key("100").secret)
        .env("EASEL_POOR_KEY", &app.live_key("0.001").secret)
        .env(
            "EASEL_BOUND_KEY",
            &app.create_key(&["--credit", "1", "--models", "dall-e-2"])
                .secret,
        )
        .env(
            "EASEL_LIMITED_KEY",
            &app.create_key(&["--credit", "1", "--rpm", "1"]).secret,
        );
    succeed(command, script).await;
    replicate.prove();
    app.finish().await;
}

/// The client's connection breaks twice while its picture is painted, and it asks again by itself: that is one call
/// and one charge, and the picture is there.
async fn retry(interpreter: PathBuf, script: &str) {
    let app = App::start().await;
    let key = app.live_key("1");
    let between = Proxy::before_port(app.easel.port()).await;
    let mut command = command(interpreter, script);
    for name in [
        "EASEL_KEY",
        "EASEL_TEST_KEY",
        "EASEL_POOR_KEY",
        "EASEL_BOUND_KEY",
        "EASEL_LIMITED_KEY",
    ] {
        command.env(name, &key.secret);
    }
    command.env("EASEL_BASE_URL", format!("{}/v1", between.origin()));
    let gate = app.openai.gate();
    let weather = async {
        app.openai.wait_for_call().await;
        for repeats in 1..=2 {
            between.cut(1);
            until("it is asked for again", async || {
                let joined = "select count(*) from generation_repeats";
                app.database.number(joined).await == repeats
            })
            .await;
        }
        gate.add_permits(1);
    };
    tokio::join!(succeed(command, script), weather);
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.charges().await, 1);
    assert_eq!(app.balance(&key).await, json!(0.984));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_images() {
    run(python(), "python/images.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_images_async() {
    run(python(), "python/images_async.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_errors() {
    run(python(), "python/errors.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_models() {
    run(python(), "python/models.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_stability() {
    run(python(), "python/stability.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_google() {
    run(python(), "python/google.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_flux() {
    run(python(), "python/flux.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_images() {
    run(node(), "node/images.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_errors() {
    run(node(), "node/errors.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_models() {
    run(node(), "node/models.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_stability() {
    run(node(), "node/stability.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_google() {
    run(node(), "node/google.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_flux() {
    run(node(), "node/flux.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_streams() {
    run(python(), "python/streams.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_edits() {
    run(python(), "python/edits.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_streams() {
    run(node(), "node/streams.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_later() {
    run(python(), "python/later.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_later() {
    run(node(), "node/later.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_edits() {
    run(node(), "node/edits.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_retry() {
    retry(python(), "python/retry.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_retry() {
    retry(node(), "node/retry.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_edits() {
    run(PathBuf::from("bash"), "curl/edits.sh").await;
}
