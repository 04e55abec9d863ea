//! Several Easels on one database.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::{App, Client, Database, Easel, Key, Secrets, run_easel, until};

const PROMPT: &str = "twins who never meet";

/// A link made by one replica opens at another that has the same pictures; a key made at one is good at
/// the other; the balance is one.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_keys_balances_and_links() {
    let app = App::start().await;
    let second = app.start_replica().await;
    let key = app.live_key("0.04");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    let answer = app.generate(&key, &request).await.expect(200);
    let other = second
        .client
        .post_json("/v1/images/generations", Some(&key.secret), &request)
        .await
        .expect(200);
    assert_eq!(other.json()["usage"]["cost"], json!(0.02));
    assert_eq!(
        second
            .client
            .post_json("/v1/images/generations", Some(&key.secret), &request)
            .await
            .status,
        402
    );
    let path = answer
        .link(0)
        .split_once("/files/")
        .map(|(_, rest)| format!("/files/{rest}"))
        .unwrap();
    second.client.get(&path, None).await.expect(200);
    second.stop().await;
    app.finish().await;
}

/// What ends at one replica has ended at all of them, without a restart; how soon is for the tests of `keys`.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_at_one_replica_opens_nothing_at_another() {
    const TOKEN: &str = "operator-9e0b-of-the-twins";
    let app = App::builder().await.set("admin.token", TOKEN).start().await;
    app.keep_secret(TOKEN, "the admin token");
    let second = app.start_replica().await;
    let (key, other) = (app.live_key("1"), app.live_key("1"));
    let credits = async |client: &Client, key: &Key| {
        let credits = client.get("/v1/credits", Some(&key.secret)).await;
        credits.status
    };
    // Both remember them now.
    for key in [&key, &other] {
        assert_eq!(credits(&app.client, key).await, 200);
        assert_eq!(credits(&second.client, key).await, 200);
    }
    let revoke = format!("/admin/v1/keys/{}/revoke", key.id);
    let revoke = app.client.request(Method::POST, &revoke).bearer_auth(TOKEN);
    app.client.send(revoke).await.expect(200);
    app.run(&["keys", "revoke", &other.id]).expect_success();
    let request = json!({"model": "dall-e-2", "prompt": PROMPT});
    for key in [&key, &other] {
        for client in [&second.client, &app.client] {
            until("the key is refused", async || {
                // Asked all the time, so that it would be remembered.
                credits(client, key).await == 401
            })
            .await;
            let generation =
                client.post_json("/v1/images/generations", Some(&key.secret), &request);
            let problem = generation.await.expect(401).problem();
            assert_eq!(problem.code(), "invalid_api_key");
        }
    }
    second.stop().await;
    app.finish().await;
}

/// Whichever comes first migrates, and the others wait for it; all sign links with one secret.
#[tokio::test(flavor = "multi_thread")]
async fn three_start_at_once_on_an_empty_database() {
    let database = Database::empty().await;
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let store = format!("file:{}", directories[0].path().join("images").display());
    let environment = [
        ("DATABASE_URL", database.url()),
        ("EASEL__LISTEN", "127.0.0.1:0"),
        ("EASEL__IMAGES__STORE", &store),
    ];
    let replicas = join_all(
        directories
            .iter()
            .map(|directory| Easel::serve(directory.path(), &[], &environment)),
    );
    let mut replicas = replicas.await;
    let applied = "select count(*) from _sqlx_migrations where success";
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"));
    assert_eq!(
        database.number(applied).await,
        i64::try_from(migrations.unwrap().count()).unwrap()
    );
    let secrets = Arc::new(Secrets::default());
    let clients: Vec<Client> = (replicas.iter())
        .map(|easel| Client::new(easel.origin(), Arc::clone(&secrets)))
        .collect();
    // Who found no key made one: at least one of them.
    let output: String = replicas.iter().map(Easel::stdout).collect();
    let key = output
        .split_whitespace()
        .find(|word| word.starts_with("ek_test_"))
        .expect("a first key");
    for (place, client) in clients.iter().enumerate() {
        let request = json!({"model": "easel/sandbox", "prompt": PROMPT, "size": "256x256"});
        let answer = client
            .post_json("/v1/images/generations", Some(key), &request)
            .await
            .expect(200);
        let link = answer.link(0);
        let path = link.split_once("/files/").unwrap().1;
        let other = &clients[(place + 1) % clients.len()];
        other.get(&format!("/files/{path}"), None).await.expect(200);
    }
    for easel in &mut replicas {
        easel.stop().await;
        assert!(!easel.stderr().contains("panicked at"));
    }
    run_easel(directories[0].path(), &["reconcile"], &environment).expect_success();
    drop(replicas);
    database.drop().await;
}
