//! Keys: made, listed, changed, rotated and revoked over HTTP.

use serde_json::{Value, json};

use super::{Office, PROMPT, assert_mistake, ids};
use crate::support::{Key, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_with_all_that_it_may_do() {
    let office = Office::open().await;
    let (made, key) = office
        .make_key(&json!({
            "name": "web shop",
            "credit": 2.5,
            "models": ["dall-e-2", "openai/gpt-image-1"],
            "limits": {"requests_per_minute": 60, "images_per_minute": 100, "max_in_flight": 5, "spend_per_day": 9.5},
            "allowed_ips": ["127.0.0.1", "10.0.0.0/8"],
            "unsupported_parameters": "drop",
            "expires_at": "30d",
        }))
        .await;
    assert_eq!(
        (
            &made["object"],
            &made["name"],
            &made["mode"],
            &made["state"]
        ),
        (
            &json!("key"),
            &json!("web shop"),
            &json!("live"),
            &json!("active")
        )
    );
    assert_eq!(
        made["models"],
        json!(["openai/dall-e-2", "openai/gpt-image-1"])
    );
    assert_eq!(
        made["limits"],
        json!({
            "requests_per_minute": 60, "images_per_minute": 100, "max_in_flight": 5, "spend_per_day": 9.5,
            "spend_per_month": null,
        })
    );
    assert_eq!(made["allowed_ips"], json!(["127.0.0.1", "10.0.0.0/8"]));
    assert_eq!(made["unsupported_parameters"], "drop");
    assert!(key.secret.starts_with("ek_live_"));
    assert_eq!(office.balance(&key).await, json!(2.5));
    office
        .generate(
            &key,
            &json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"}),
        )
        .await
        .expect(200);

    // The secret is told once. Everything else is there again.
    let answer = office.get(&format!("/keys/{}", key.id)).await.expect(200);
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("key");
    assert_eq!(answer.json(), expected);
    let listed = office.get("/keys").await.expect(200);
    for answer in [answer, listed] {
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(!text.contains(&key.secret), "{text}");
    }

    // On an account that there is, and on one that comes with play money.
    let (_, second) = office.make_key(&json!({"account": key.account})).await;
    assert_eq!(second.account, key.account);
    let (made, test) = office.make_key(&json!({"mode": "test"})).await;
    assert_eq!(made["mode"], "test");
    assert_eq!(office.balance(&test).await, json!(100));

    for (body, param) in [
        (json!({"name": ""}), "name"),
        (json!({"mode": "life"}), "mode"),
        (json!({"models": ["dall-e-33"]}), "models"),
        (json!({"models": "dall-e-2"}), "models"),
        (
            json!({"limits": {"max_in_flight": -1}}),
            "limits.max_in_flight",
        ),
        (json!({"limits": 5}), "limits"),
        (
            json!({"limits": {"spend_per_day": -1}}),
            "limits.spend_per_day",
        ),
        (json!({"allowed_ips": ["10.1.2.3/8"]}), "allowed_ips"),
        (json!({"allowed_ips": "10.0.0.0/8"}), "allowed_ips"),
        (json!({"allowed_ips": []}), "allowed_ips"),
        (
            json!({"unsupported_parameters": "keep"}),
            "unsupported_parameters",
        ),
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"expires_at": "soon"}), "expires_at"),
        (json!({"credit": "much"}), "credit"),
    ] {
        assert_mistake(&office.post("/keys", &body).await, "invalid_value", param);
    }
    let answer = office
        .post("/keys", &json!({"account": "nobody"}))
        .await
        .expect(404);
    assert_eq!(answer.problem().code(), "account_not_found");
    let accounts = office
        .database
        .number("select count(*) from accounts")
        .await;
    // One came with the first start of this database.
    assert_eq!(accounts, 3, "what is refused leaves no account behind");
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_and_revoked() {
    let office = Office::open().await;
    let key = office.live_key("1");
    let path = format!("/keys/{}", key.id);
    let limits = json!({"requests_per_minute": 5, "max_in_flight": 2});
    let changed = office
        .patch(
            &path,
            &json!({"name": "renamed", "limits": limits, "models": ["dall-e-2"]}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(changed["name"], "renamed");
    assert_eq!(
        changed["limits"],
        json!({
            "requests_per_minute": 5, "images_per_minute": null, "max_in_flight": 2, "spend_per_day": null,
            "spend_per_month": null,
        })
    );
    office
        .generate(&key, &json!({"model": "dall-e-3", "prompt": PROMPT}))
        .await
        .expect(403);
    // Null takes a bound away, what is not named stays.
    let changed = office
        .patch(
            &path,
            &json!({"limits": {"max_in_flight": null}, "models": null}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(
        changed["limits"],
        json!({
            "requests_per_minute": 5, "images_per_minute": null, "max_in_flight": null, "spend_per_day": null,
            "spend_per_month": null,
        })
    );
    assert_eq!(
        (&changed["models"], &changed["name"]),
        (&Value::Null, &json!("renamed"))
    );
    let changed = office
        .patch(&path, &json!({"expires_at": "1h"}))
        .await
        .expect(200)
        .json();
    assert!(changed["expires_at"].is_string());
    let changed = office
        .patch(&path, &json!({"expires_at": null}))
        .await
        .expect(200)
        .json();
    assert_eq!(changed["expires_at"], Value::Null);
    let answer = office
        .patch(&path, &json!({"limits": {}}))
        .await
        .expect(400);
    assert_eq!(answer.problem().code(), "nothing_to_change");

    let revoked = office
        .act(&format!("{path}/revoke"))
        .await
        .expect(200)
        .json();
    assert_eq!(revoked["state"], "revoked");
    assert!(revoked["revoked_at"].is_string());
    office.0.get(&key, "/v1/credits").await.expect(401);
    // Again changes nothing.
    let again = office
        .act(&format!("{path}/revoke"))
        .await
        .expect(200)
        .json();
    assert_eq!(again, revoked);

    for id in ["key_00000000000000000000000000000000", "unnamed"] {
        for answer in [
            office.get(&format!("/keys/{id}")).await,
            office
                .patch(&format!("/keys/{id}"), &json!({"name": "a"}))
                .await,
            office.act(&format!("/keys/{id}/rotate")).await,
            office.act(&format!("/keys/{id}/revoke")).await,
        ] {
            assert_eq!(answer.expect(404).problem().code(), "key_not_found");
        }
    }
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_by_account_mode_and_state() {
    let office = Office::open().await;
    // The one of the first start.
    office
        .database
        .number("with gone as (delete from api_keys returning 1) select count(*) from gone")
        .await;
    let mut made = Vec::new();
    let (_, first) = office.make_key(&json!({"name": "shop"})).await;
    made.push(first.id.clone());
    for mode in ["test", "live", "test", "live"] {
        let body = json!({"account": first.account, "mode": mode});
        made.push(office.make_key(&body).await.1.id);
    }
    let stranger = office.make_key(&json!({"mode": "test"})).await.1;
    office
        .act(&format!("/keys/{}/revoke", made[1]))
        .await
        .expect(200);
    made.reverse();
    let of_account = format!("/keys?account={}", first.account);
    for limit in [1, 2, 5, 50] {
        assert_eq!(ids(&office.walk(&of_account, limit).await), made);
    }
    assert_eq!(
        ids(&office.walk(&format!("{of_account}&mode=test"), 1).await),
        [&made[1], &made[3]]
    );
    assert_eq!(
        ids(&office.walk("/keys?active=true&mode=test", 1).await),
        [&stranger.id, &made[1]]
    );
    assert_eq!(ids(&office.walk("/keys?active=false", 1).await), [&made[3]]);
    assert_mistake(
        &office.get("/keys?active=maybe").await,
        "invalid_value",
        "active",
    );
    office.get("/keys?account=nobody").await.expect(404);
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let office = Office::open().await;
    let (_, old) = office
        .make_key(&json!({"credit": 1, "limits": {"requests_per_minute": 600}}))
        .await;
    let path = format!("/keys/{}", old.id);
    let rotated = office
        .act(&format!("{path}/rotate"))
        .await
        .expect(200)
        .json();
    let new = Key {
        secret: rotated["key"].as_str().unwrap().to_owned(),
        ..old.clone()
    };
    office.keep_secret(&new.secret, "a key");
    assert_ne!(new.secret, old.secret);
    assert_eq!(rotated["id"], old.id.as_str());
    assert_eq!(rotated["limits"]["requests_per_minute"], 600);
    let ends_at = &rotated["previous_secret_ends_at"];
    assert_eq!(
        &office.read(&path).await["previous_secret_ends_at"],
        ends_at
    );
    // A day later than now, give or take the test.
    let hours = office
        .database
        .number("select extract(epoch from previous_secret_ends_at - now())::bigint / 60 from api_keys where previous_secret_hash is not null")
        .await;
    assert!((24 * 60 - 5..=24 * 60).contains(&hours), "{hours} minutes");

    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    for key in [&old, &new] {
        office.generate(key, &request).await.expect(200);
    }
    // Both are one key: its generations are of one history.
    let generations = office
        .walk(&format!("/generations?key={}", old.id), 1)
        .await;
    assert_eq!(generations.len(), 2);

    // The day passes.
    let moved = office
        .database
        .number("with moved as (update api_keys set previous_secret_ends_at = now() - interval '1 s' where previous_secret_hash is not null returning 1) select count(*) from moved")
        .await;
    assert_eq!(moved, 1);
    wait_for(&office, &old, 401).await;
    office.0.get(&new, "/v1/credits").await.expect(200);
    assert!(
        office
            .read(&path)
            .await
            .get("previous_secret_ends_at")
            .is_none()
    );

    // Without overlap the old one ends at once; the commands do the same.
    let output = office
        .run(&["keys", "rotate", &old.id, "--overlap", "0s", "--json"])
        .expect_success()
        .json();
    let newest = Key {
        secret: output["key"].as_str().unwrap().to_owned(),
        ..old.clone()
    };
    office.keep_secret(&newest.secret, "a key");
    wait_for(&office, &new, 401).await;
    office.0.get(&newest, "/v1/credits").await.expect(200);

    for (body, code) in [
        (json!({"overlap": "soon"}), "invalid_value"),
        (json!({"overlap": "99999999999y"}), "invalid_value"),
        (json!({"overlap": "9999y"}), "invalid_value"),
    ] {
        let answer = office.post(&format!("{path}/rotate"), &body).await;
        assert_mistake(&answer, code, "overlap");
    }
    office.act(&format!("{path}/revoke")).await.expect(200);
    let answer = office.act(&format!("{path}/rotate")).await.expect(409);
    assert_eq!(answer.problem().code(), "key_ended");
    office.finish().await;
}

/// Until every cache between the key and the answer has heard of it.
async fn wait_for(office: &Office, key: &Key, status: u16) {
    until("the key is as it was changed", async || {
        office.0.get(key, "/v1/credits").await.status == status
    })
    .await;
}
