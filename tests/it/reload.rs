//! A configuration that changes while Easel runs: what is in flight keeps what it began with, what is bad
//! changes nothing, and nobody is cut off.

use std::{os::unix::fs::symlink, path::Path, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{App, Behaviour, FakeOpenAi, Reply, fake_openai, model};

const PROMPT: &str = "a harbour pilot changes ships at full speed";
const TOKEN: &str = "operator-5b1c-of-the-reload-tests";

fn request() -> Value {
    json!({"model": "dall-e-3", "prompt": PROMPT})
}

async fn readiness(app: &App) -> Value {
    app.client.get("/readyz", None).await.expect(200).json()
}

async fn admin(app: &App, method: Method, path: &str, token: &str) -> crate::support::Answer {
    let path = format!("/admin/v1{path}");
    let request = app.client.request(method, &path).bearer_auth(token);
    app.client.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_keeps_the_old_prices() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let client = app.client.clone();
    let old = async {
        let path = "/v1/images/generations";
        let answer = client.post_json(path, Some(&key.secret), &request()).await;
        answer.expect(200).json()["usage"]["cost"].clone()
    };
    let new = async {
        app.openai.wait_for_call().await;
        app.configure(|settings| {
            settings.set("providers.openai.markup_basis_points", 5000);
        });
        app.reload().await;
        gate.add_permits(2);
        let answer = app.generate(&key, &request()).await;
        answer.expect(200).json()["usage"]["cost"].clone()
    };
    let (old, new) = tokio::join!(old, new);
    assert_eq!((old, new), (json!(0.04), json!(0.06)));
    assert_eq!(app.balance(&key).await, json!(0.9));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_says_so() {
    let app = App::builder().await.set("admin.token", TOKEN);
    let mut app = app.start().await;
    let key = app.live_key("1");
    let before = readiness(&app).await["config"].clone();
    assert_eq!(before["state"], "applied", "{before}");

    for (setting, value, why) in [
        (
            "limits.json_body",
            json!("much"),
            "limits.json_body: 'much' is not",
        ),
        (
            "default_model",
            json!("dall-e-9"),
            "there is no model 'dall-e-9'",
        ),
        ("models_dir", json!("no/such/place"), "no/such/place"),
        (
            "providers.openai.api_key",
            json!("a\u{1}b"),
            "control character",
        ),
        (
            "providers.openai.result_hosts",
            json!(["a b"]),
            "result_hosts",
        ),
        (
            "admin.token",
            json!("${file:no/such/secret}"),
            "no/such/secret",
        ),
    ] {
        app.configure(|settings| {
            // The one change that a good file would have made.
            settings
                .set("providers.openai.markup_basis_points", 5000)
                .set(setting, value);
        });
        let refused = app.reloads("refused").await;
        app.easel.signal(Signal::HUP);
        app.wait_for_reload("refused", refused).await;
        let config = readiness(&app).await["config"].clone();
        assert_eq!(config["state"], "refused", "{config}");
        assert_eq!(config["applied_at"], before["applied_at"], "{config}");
        // Anybody may read this, so it does not quote the file.
        assert!(!config.to_string().contains(why), "{config}");
        let shown = admin(&app, Method::GET, "/config", TOKEN).await;
        let shown = shown.expect(200).json();
        let reason = shown["reload"]["last"]["refused"]["why"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
        assert!(
            app.easel
                .stderr()
                .contains("is refused and changes nothing")
        );
        let provider = &shown["providers"]["openai"];
        assert_eq!(provider["markup_basis_points"], 0, "{provider}");
        app.configure(|settings| {
            settings
                .set("providers.openai.markup_basis_points", 0)
                .set("admin.token", TOKEN)
                .set("providers.openai.api_key", fake_openai::API_KEY)
                .remove("limits.json_body")
                .remove("default_model")
                .remove("models_dir")
                .remove("providers.openai.result_hosts");
        });
    }
    let figures = app.figures().await;
    assert!(
        figures.contains("\neasel_config_reload_successful 0\n"),
        "{figures}"
    );
    let answer = app.generate(&key, &request()).await.expect(200);
    assert_eq!(answer.json()["usage"]["cost"], json!(0.04));

    app.reload().await;
    let config = readiness(&app).await["config"].clone();
    assert_eq!(config["state"], "applied", "{config}");
    assert!(config.get("message").is_none(), "{config}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_exchanged_by_a_link_is_read_again() {
    let builder = App::builder().await;
    // As Kubernetes mounts secrets: names lead through a link to a directory that is exchanged whole.
    let mount = builder.directory().join("mount");
    let write = |version: &str, secret: &str| {
        let directory = mount.join(version);
        std::fs::create_dir_all(&directory).unwrap();
        // With the line end that tools write.
        std::fs::write(directory.join("openai"), format!("{secret}\n")).unwrap();
        let beside = mount.join("..new");
        symlink(Path::new(version), &beside).unwrap();
        std::fs::rename(beside, mount.join("..data")).unwrap();
    };
    write("1", fake_openai::API_KEY);
    symlink("..data/openai", mount.join("openai")).unwrap();
    let file = format!("${{file:{}}}", mount.join("openai").display());
    let app = builder
        .set("providers.openai.api_key", file)
        .set("reload.watch_interval", "50ms")
        .start()
        .await;
    app.keep_secret(fake_openai::NEXT_API_KEY, "the provider's next key");
    app.openai.next(Behaviour::Reply(Reply::wrong_key()));
    let key = app.live_key("1");
    app.generate(&key, &request()).await.expect(502);
    let rests = "easel_route_resting{provider=\"openai\",upstream_model=\"\"} 1";
    assert!(app.figures().await.contains(rests));

    let before = app.reloads("applied").await;
    write("2", fake_openai::NEXT_API_KEY);
    app.wait_for_reload("applied", before).await;
    // What the old key met says nothing about the new one.
    assert!(!app.figures().await.contains(rests));
    app.generate(&key, &request()).await.expect(200);
    let calls = app.openai.calls();
    let last = calls.last().unwrap().headers["authorization"].clone();
    assert_eq!(last, format!("Bearer {}", fake_openai::NEXT_API_KEY));
    assert_eq!(calls.len(), 2);
    // Nothing else has changed, so nothing more is read.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(app.reloads("applied").await, before + 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_change_and_go_with_their_files() {
    let builder = App::builder().await;
    let models = builder.directory().join("models");
    std::fs::create_dir(&models).unwrap();
    let app = builder
        .set("models_dir", models.to_str().unwrap())
        .set("reload.watch_interval", "50ms")
        .start()
        .await;
    let key = app.live_key("1");
    let order = json!({"model": "pilot", "prompt": PROMPT});
    app.refuse(&key, 404, &order).await;
    let mut reloads = app.reloads("applied").await;
    for price in ["0.015", "0.025"] {
        std::fs::write(models.join("pilot.toml"), model(price, 10)).unwrap();
        app.wait_for_reload("applied", reloads).await;
        reloads = app.reloads("applied").await;
        let answer = app.generate(&key, &order).await.expect(200).json();
        assert_eq!(answer["usage"]["cost"].to_string(), price);
    }
    // Half a file: the prices stay.
    let refused = app.reloads("refused").await;
    std::fs::write(models.join("pilot.toml"), &model("0.5", 10)[..200]).unwrap();
    app.wait_for_reload("refused", refused).await;
    let answer = app.generate(&key, &order).await.expect(200).json();
    assert_eq!(answer["usage"]["cost"], json!(0.025));

    std::fs::remove_file(models.join("pilot.toml")).unwrap();
    app.wait_for_reload("applied", reloads).await;
    app.refuse(&key, 404, &order).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_applied() {
    let mut app = App::builder().await.set("admin.token", TOKEN).start().await;
    let key = app.live_key("1");
    app.configure(|settings| {
        settings
            .set("listen", "127.0.0.1:1")
            .set("limits.max_in_flight", 7)
            .set("log.format", "json")
            .set("default_model", "dall-e-3");
    });
    app.reload().await;
    let config = readiness(&app).await["config"].clone();
    assert_eq!(config["state"], "applied", "{config}");
    let expected = json!(["listen", "limits.max_in_flight", "log.format"]);
    assert_eq!(config["needs_restart"], expected, "{config}");
    let words = "settings that only a restart can change";
    assert!(app.easel.stderr().contains(words));
    let figures = app.figures().await;
    assert!(
        figures.contains("\neasel_config_reload_needs_restart 3\n"),
        "{figures}"
    );

    // What is shown is what is in force.
    let shown = admin(&app, Method::GET, "/config", TOKEN)
        .await
        .expect(200)
        .json();
    assert_eq!(shown["default_model"], "dall-e-3");
    assert_eq!(shown["limits"]["max_in_flight"], 8192);
    assert_eq!(shown["log"]["format"], "pretty");
    assert_eq!(shown["public_url"], json!(app.easel.origin()));
    let answer = app.generate(&key, &json!({"prompt": PROMPT})).await;
    assert_eq!(answer.expect(200).json()["model"], "openai/dall-e-3");

    app.configure(|settings| {
        settings
            .set("listen", "127.0.0.1:0")
            .remove("limits.max_in_flight")
            .remove("log.format");
    });
    app.reload().await;
    let config = readiness(&app).await["config"].clone();
    assert!(config.get("needs_restart").is_none(), "{config}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_come_and_go_and_those_that_stay_keep_what_is_known_of_them() {
    let mut app = App::builder().await.set("admin.token", TOKEN).start().await;
    let key = app.live_key("1");
    app.generate(&key, &request()).await.expect(200);
    let latency = async |app: &App| {
        let shown = admin(app, Method::GET, "/providers/openai", TOKEN).await;
        let shown = shown.expect(200).json();
        shown["routes"][0]["latency_ms"].clone()
    };
    let known = latency(&app).await;
    assert!(known.is_u64(), "{known}");

    let other = FakeOpenAi::start().await;
    app.configure(|settings| {
        settings
            .set("providers.other.adapter", "openai")
            .set("providers.other.base_url", other.base_url())
            .set("providers.other.api_key", fake_openai::API_KEY);
    });
    app.reload().await;
    admin(&app, Method::GET, "/providers/other", TOKEN)
        .await
        .expect(200);
    assert_eq!(latency(&app).await, known);

    // Another key is another account, of which nothing is known.
    app.configure(|settings| {
        settings.remove("providers.other").set(
            "providers.openai.api_key",
            "sk-another-key-of-another-account",
        );
    });
    app.reload().await;
    admin(&app, Method::GET, "/providers/other", TOKEN)
        .await
        .expect(404);
    assert!(latency(&app).await.is_null());

    app.configure(|settings| {
        settings.set("providers.openai.enabled", false);
    });
    app.reload().await;
    app.refuse(&key, 404, &request()).await;
    app.finish().await;
}

/// A provider that is gone from the configuration finishes what it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_switched_off_finishes_what_it_has_begun() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let client = app.client.clone();
    let begun = async {
        let path = "/v1/images/generations";
        let answer = client.post_json(path, Some(&key.secret), &request()).await;
        answer.expect(200).json()["usage"]["cost"].clone()
    };
    let change = async {
        app.openai.wait_for_call().await;
        app.configure(|settings| {
            settings.set("providers.openai.enabled", false);
        });
        app.reload().await;
        app.generate(&key, &request()).await.expect(404);
        gate.add_permits(1);
    };
    assert_eq!(tokio::join!(begun, change).0, json!(0.04));
    assert_eq!(app.balance(&key).await, json!(0.96));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_and_the_admin_api_itself_change() {
    const NEXT: &str = "operator-6c2d-of-the-reload-tests";
    let mut app = App::builder().await.set("admin.token", TOKEN).start().await;
    app.keep_secret(TOKEN, "the admin token");
    app.keep_secret(NEXT, "the admin token");
    app.configure(|settings| {
        settings.set("admin.token", NEXT);
    });
    let asked = admin(&app, Method::POST, "/reload", TOKEN)
        .await
        .expect(200)
        .json();
    assert_eq!(asked["refused"], Value::Null, "{asked}");
    admin(&app, Method::GET, "/config", TOKEN).await.expect(401);
    admin(&app, Method::GET, "/config", NEXT).await.expect(200);

    app.configure(|settings| {
        settings.set("routing.failures", 0);
    });
    let problem = admin(&app, Method::POST, "/reload", NEXT)
        .await
        .expect(400)
        .problem();
    assert_eq!(problem.code(), "config_refused");
    assert!(problem.message.contains("routing.failures"), "{problem:?}");

    app.configure(|settings| {
        settings.remove("routing").set("admin.token", "");
    });
    app.reload().await;
    admin(&app, Method::GET, "/config", NEXT).await.expect(404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_filter_follows_the_file_unless_the_environment_says_otherwise() {
    let builder = App::builder().await.environment("RUST_LOG", "");
    let mut app = builder.set("log.filter", "info").start().await;
    let lines = |app: &App| app.easel.stderr().matches("DEBUG").count();
    app.client.get("/healthz", None).await.expect(200);
    assert_eq!(lines(&app), 0);
    app.configure(|settings| {
        settings.set("log.filter", "easel=debug");
    });
    app.reload().await;
    app.client.get("/healthz", None).await.expect(200);
    assert_ne!(lines(&app), 0);
    app.configure(|settings| {
        settings.set("log.filter", "easel=loud");
    });
    let refused = app.reloads("refused").await;
    app.easel.signal(Signal::HUP);
    app.wait_for_reload("refused", refused).await;
    assert!(app.easel.stderr().contains("'easel=loud' is not a filter"));
    app.configure(|settings| {
        settings.remove("log.filter");
    });
    app.finish().await;
}

/// Many requests, many configurations: every one is answered, at one of the prices there were.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_cut_off_by_a_reload() {
    const REQUESTS: usize = 48;
    let mut app = App::start().await;
    let key = app.live_key("10");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(20)));
    let client = app.client.clone();
    let clients = (0..6).map(|_| async {
        let mut costs = Vec::new();
        for _ in 0..REQUESTS / 6 {
            let path = "/v1/images/generations";
            let answer = client.post_json(path, Some(&key.secret), &request()).await;
            costs.push(answer.expect(200).json()["usage"]["cost"].as_f64().unwrap());
        }
        costs
    });
    let reloads = async {
        for round in 0..6 {
            app.configure(|settings| {
                // Every other time the provider is another one as well.
                settings
                    .set("providers.openai.markup_basis_points", 5000 * (round % 2))
                    .set("providers.openai.max_in_flight", 100 + round / 2);
            });
            app.reload().await;
        }
    };
    let (costs, ()) = tokio::join!(join_all(clients), reloads);
    let costs: Vec<f64> = costs.into_iter().flatten().collect();
    let count = |price: f64| {
        costs
            .iter()
            .filter(|cost| (*cost - price).abs() < 1e-12)
            .count()
    };
    let (plain, marked_up) = (count(0.04), count(0.06));
    assert_eq!(plain + marked_up, REQUESTS, "{costs:?}");
    let left = 10_000 - 40 * i64::try_from(plain).unwrap() - 60 * i64::try_from(marked_up).unwrap();
    assert_eq!(
        app.balance(&key).await,
        crate::support::usd(left * 1_000_000)
    );
    app.finish().await;
}
