//! Configuration as a user meets it: `check`, mistakes with file, line and key, environment and secrets.

use std::path::Path;

use crate::support::{App, Output, run_easel};

fn check(directory: &Path, file: &str, environment: &[(&str, &str)]) -> Output {
    std::fs::write(directory.join("easel.toml"), file).unwrap();
    run_easel(directory, &["check"], environment)
}

#[test]
fn check_lists_providers_models_routes_and_prices() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_easel(directory.path(), &["check"], &[]).expect_success();
    let text = &output.stdout;
    for word in [
        "openai",
        "stability",
        "sandbox",
        "OPENAI_API_KEY",
        "STABILITY_API_KEY",
        "openai/dall-e-3",
        "openai/gpt-image-2",
        "stability/stable-diffusion-3-large",
        "easel/sandbox",
        "0.04",
    ] {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
    // A retired model is said to be one.
    assert!(
        format!("{text}{}", output.stderr).contains("2026-05-12"),
        "{text}"
    );
    let with_key = run_easel(
        directory.path(),
        &["check"],
        &[("OPENAI_API_KEY", "sk-something-secret")],
    )
    .expect_success();
    assert!(
        !with_key.stdout.contains("sk-something-secret"),
        "a secret is printed"
    );
}

#[test]
fn mistakes_name_file_key_and_the_nearest_known() {
    let directory = tempfile::tempdir().unwrap();
    for (file, mentions) in [
        (
            "listen = \"127.0.0.1:0\"\nlisten_on = 1\n",
            &["easel.toml", "2", "listen_on", "listen"][..],
        ),
        (
            "[providers.openai]\ntimout = \"3s\"\n",
            &["easel.toml", "timout", "timeout"],
        ),
        (
            "[images]\nurl_ttl = \"soon\"\n",
            &["easel.toml", "url_ttl", "soon"],
        ),
        (
            "listen = \"nowhere\"\n",
            &["easel.toml", "listen", "nowhere"],
        ),
        (
            "[providers.x]\nadapter = \"teapot\"\n",
            &["teapot", "adapter"],
        ),
        ("models_dir = \"no/such/place\"\n", &["no/such/place"]),
        ("listen = \n", &["easel.toml"]),
    ] {
        let output = check(directory.path(), file, &[]);
        assert_eq!(output.status.code(), Some(1), "{file}: {output:?}");
        for word in mentions {
            assert!(output.stderr.contains(word), "{word} in {}", output.stderr);
        }
    }
    let output =
        run_easel(directory.path(), &["check", "--config", "absent.toml"], &[]).expect_failure(1);
    assert!(output.stderr.contains("absent.toml"), "{output:?}");
    let output = check(directory.path(), "", &[("EASEL__LISTEM", "127.0.0.1:1")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("EASEL__LISTEM"), "{output:?}");
}

/// A model that cannot be charged is not loaded.
#[test]
fn check_refuses_a_model_without_a_price() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("models")).unwrap();
    std::fs::write(
        directory.path().join("models/mine.toml"),
        "[[model]]\nid = \"mine/free\"\nname = \"Free\"\naliases = []\ncreated = 1\nowned_by = \"me\"\nstatus = \"active\"\n\
         [model.rules]\nprompt = { max_chars = 10 }\n\
         n = { min = 1, max = 1, default = 1 }\nsize = { values = [\"1x1\"], default = \"1x1\" }\n\
         response_format = { values = [\"url\"], default = \"url\" }\n[[model.routes]]\nprovider = \"openai\"\nupstream_model = \"free\"\nimages_per_call = 1\n",
    )
    .unwrap();
    let output = check(directory.path(), "models_dir = \"models\"\n", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for word in ["mine.toml", "price"] {
        assert!(output.stderr.contains(word), "{word} in {}", output.stderr);
    }
}

/// A configuration that is wrong does not start, and says so before anything is done.
#[test]
fn serve_refuses_what_check_refuses() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("easel.toml"), "listen_on = 1\n").unwrap();
    let output = run_easel(directory.path(), &["serve"], &[]).expect_failure(1);
    assert!(output.stderr.contains("listen_on"), "{output:?}");
    assert!(!directory.path().join("data").exists(), "nothing was made");
}

/// The provider's key may come from a mounted file, and the environment wins over the file.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_files_and_the_environment_wins() {
    let builder = App::builder().await;
    let secret = builder.directory().join("openai-key");
    std::fs::write(
        &secret,
        format!("{}\n", crate::support::fake_openai::API_KEY),
    )
    .unwrap();
    let app = builder
        .set(
            "providers.openai.api_key",
            format!("${{file:{}}}", secret.display()),
        )
        .set("default_model", "dall-e-3")
        .environment("EASEL__DEFAULT_MODEL", "dall-e-2")
        .start()
        .await;
    let key = app.live_key("1");
    let request = serde_json::json!({"prompt": "an envelope with a red seal"});
    let answer = app.generate(&key, &request).await.expect(200);
    assert_eq!(answer.json()["model"], "openai/dall-e-2");
    app.finish().await;
}
