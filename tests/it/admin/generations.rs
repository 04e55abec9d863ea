//! Generations and pictures of all accounts, by every filter, and one with all that hangs on it.

use serde_json::{Value, json};

use super::{Office, PROMPT, TOKEN, assert_mistake, ids};
use crate::support::{App, Behaviour, FakeOpenAi, Key, Reply, fake_openai};

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_failed_over_shows_its_attempts() {
    let backup = FakeOpenAi::start().await;
    let app = App::builder()
        .await
        .models(crate::failover::MODEL)
        .set("admin.token", TOKEN)
        .set("providers.backup.adapter", "openai")
        .set("providers.backup.base_url", backup.base_url())
        .set("providers.backup.api_key", fake_openai::API_KEY)
        .start()
        .await;
    let office = Office::with(app);
    let key = office.live_key("1");
    // Garbage with 200: the provider may charge for it.
    office
        .openai
        .next(Behaviour::Reply(Reply::raw(200, "application/json", "{")));
    let order = json!({"order": ["openai", "backup"]});
    let request = json!({"model": "two-homes", "prompt": PROMPT, "n": 2, "provider": order});
    let answer = office.generate(&key, &request).await.expect(200);
    let id = answer.header("x-generation-id").to_owned();
    assert_eq!(answer.json()["provider"], "backup");

    let shown = office.read(&format!("/generations/{id}")).await;
    for (name, expected) in [
        ("object", json!("generation")),
        ("id", json!(id)),
        ("request", json!(answer.header("x-request-id"))),
        ("account", json!(key.account)),
        ("key", json!(key.id)),
        ("mode", json!("live")),
        ("model", json!("test/two-homes")),
        ("status", json!("completed")),
        ("images_asked", json!(2)),
        ("images_delivered", json!(2)),
        ("provider", json!("backup")),
        ("upstream_model", json!("dall-e-2")),
        ("cost", json!(0.02)),
        ("upstream_cost", json!(0.02)),
        ("margin", json!(0)),
    ] {
        assert_eq!(shown[name], expected, "{name} of {shown}");
    }
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{shown}");
    let (failed, served) = (&attempts[0], &attempts[1]);
    assert_eq!(
        (&failed["number"], &failed["provider"]),
        (&json!(1), &json!("openai"))
    );
    assert!(failed["error"].is_string(), "{failed}");
    assert_eq!(
        (&failed["images"], &failed["maybe_charged"]),
        (&json!(0), &json!(true))
    );
    assert!(failed["latency_ms"].is_u64() && failed["started_at"].is_string());
    assert_eq!(
        (&served["number"], &served["provider"], &served["error"]),
        (&json!(2), &json!("backup"), &Value::Null)
    );
    assert_eq!(
        (&served["images"], &served["maybe_charged"]),
        (&json!(2), &json!(false))
    );
    let images = shown["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for (index, image) in images.iter().enumerate() {
        assert_eq!(
            (&image["index"], &image["cost"]),
            (&json!(index), &json!(0.01))
        );
        assert_eq!(
            (&image["format"], &image["width"]),
            (&json!("png"), &json!(256))
        );
    }
    // The dearest candidate was held, the one that served is charged.
    assert_eq!(shown["hold"]["amount"], json!(0.06));
    assert_eq!(
        (&shown["hold"]["status"], &shown["hold"]["captured"]),
        (&json!("captured"), &json!(0.02))
    );
    let entries = shown["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0]["kind"], &entries[0]["amount"]),
        (&json!("charge"), &json!(-0.02))
    );
    assert_eq!(entries[0]["generation"], shown["id"]);
    // Nothing of the prompt or the pictures is there.
    let text = shown.to_string();
    assert!(
        !text.contains("harbour") && !text.contains("http"),
        "{text}"
    );

    // A status is shown where there was one.
    office.openai.next(Behaviour::Reply(Reply::rate_limited()));
    let answer = office.generate(&key, &request).await.expect(200);
    let id = answer.header("x-generation-id");
    let shown = office.read(&format!("/generations/{id}")).await;
    let failed = &shown["attempts"][0];
    assert_eq!(
        (&failed["status"], &failed["error"]),
        (&json!(429), &json!("rate_limited"))
    );
    assert_eq!(failed["maybe_charged"], json!(false));

    for id in ["gen_00000000000000000000000000000000", "last"] {
        let answer = office.get(&format!("/generations/{id}")).await.expect(404);
        assert_eq!(answer.problem().code(), "generation_not_found");
    }
    office.finish().await;
}

/// What was asked for, the newest last.
struct History {
    office: Office,
    ada: Key,
    test: Key,
    generations: Vec<String>,
}

impl History {
    async fn lived() -> Self {
        let office = Office::open().await;
        let ada = office.live_key("5");
        let bob = office.live_key("5");
        let test = office.test_key("5");
        let mut generations = Vec::new();
        for (key, model, user, header, fails) in [
            (&ada, "dall-e-2", "u1", None, false),
            (&ada, "dall-e-2", "u2", Some("once"), false),
            (&bob, "dall-e-2", "u1", None, true),
            (&bob, "dall-e-3", "u1", Some("once"), false),
            (&test, "dall-e-2", "u2", None, false),
            (&ada, "dall-e-3", "u2", None, true),
            (&ada, "dall-e-2", "u1", Some("twice"), false),
        ] {
            if fails {
                office.openai.next(Behaviour::Reply(Reply::server_error()));
            }
            let mut request = office
                .client
                .request(reqwest::Method::POST, "/v1/images/generations")
                .bearer_auth(&key.secret)
                .header("content-type", "application/json")
                .body(json!({"model": model, "prompt": PROMPT, "user": user}).to_string());
            if let Some(name) = header {
                request = request.header("idempotency-key", name);
            }
            let answer = office.client.send(request).await;
            assert_eq!(answer.status, if fails { 502 } else { 200 });
            generations.push(answer.header("x-generation-id").to_owned());
        }
        Self {
            office,
            ada,
            test,
            generations,
        }
    }

    /// The list by this query, in pages of every length, is these of the history.
    async fn expect(&self, query: &str, expected: &[usize]) {
        let mut expected: Vec<&str> = expected
            .iter()
            .map(|place| self.generations[*place].as_str())
            .collect();
        expected.reverse();
        for limit in [1, 2, 100] {
            let found = self
                .office
                .walk(&format!("/generations?{query}"), limit)
                .await;
            assert_eq!(ids(&found), expected, "{query} in pages of {limit}");
        }
        // A generation's picture is found by the same filters.
        if !query.contains("status") {
            let found = self.office.walk(&format!("/images?{query}"), 2).await;
            let with_pictures: Vec<&str> = expected
                .into_iter()
                .filter(|id| {
                    ![&self.generations[2], &self.generations[5]].contains(&&(*id).to_owned())
                })
                .collect();
            let of: Vec<&str> = found
                .iter()
                .map(|image| image["generation"].as_str().unwrap())
                .collect();
            assert_eq!(of, with_pictures, "images by {query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_and_pictures_are_found_by_every_filter() {
    let history = History::lived().await;
    let (ada, test) = (&history.ada, &history.test);
    history.expect("", &[0, 1, 2, 3, 4, 5, 6]).await;
    history
        .expect(&format!("account={}", ada.account), &[0, 1, 5, 6])
        .await;
    history.expect(&format!("key={}", test.id), &[4]).await;
    history.expect("mode=test", &[4]).await;
    history.expect("model=dall-e-3", &[3, 5]).await;
    history.expect("model=openai/dall-e-3", &[3, 5]).await;
    history.expect("model=forgotten/model", &[]).await;
    history.expect("provider=sandbox", &[4]).await;
    history.expect("provider=openai", &[0, 1, 3, 6]).await;
    history.expect("status=failed", &[2, 5]).await;
    history
        .expect("status=completed&model=dall-e-2", &[0, 1, 4, 6])
        .await;
    history.expect("user=u1", &[0, 2, 3, 6]).await;
    history.expect("idempotency_key=once", &[1, 3]).await;
    history
        .expect(
            &format!("account={}&user=u1&idempotency_key=twice", ada.account),
            &[6],
        )
        .await;
    history
        .expect("since=yesterday", &[0, 1, 2, 3, 4, 5, 6])
        .await;
    history.expect("until=yesterday", &[]).await;
    history
        .expect("since=1h&until=2100-01-01", &[0, 1, 2, 3, 4, 5, 6])
        .await;

    // Between two instants, as the answers write them.
    let all = history.office.walk("/generations", 100).await;
    let at = |place: usize| {
        let item = &all[history.generations.len() - 1 - place];
        item["created_at"].as_str().unwrap().to_owned()
    };
    history
        .expect(&format!("since={}&until={}", at(2), at(5)), &[2, 3, 4])
        .await;

    // A failed one says why and costs nothing.
    let failed = &all[1];
    assert_eq!(
        (&failed["status"], &failed["cost"]),
        (&json!("failed"), &json!(0))
    );
    assert_eq!(failed["error"]["code"], "upstream_error");

    let office = &history.office;
    for (query, param) in [
        ("status=lost", "status"),
        ("key=mine", "key"),
        ("since=soon", "since"),
        ("until=2026-13-01", "until"),
        ("mode=play", "mode"),
    ] {
        let answer = office.get(&format!("/generations?{query}")).await;
        assert_mistake(&answer, "invalid_value", param);
    }
    office.get("/images?account=nobody").await.expect(404);
    history.office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_billed_one_by_one() {
    let office = Office::open().await;
    let key = office.live_key("5");
    for n in [3, 2] {
        let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "n": n});
        office.generate(&key, &request).await.expect(200);
    }
    for limit in [1, 2, 5] {
        let images = office.walk("/images", limit).await;
        let places: Vec<u64> = images
            .iter()
            .map(|image| image["index"].as_u64().unwrap())
            .collect();
        assert_eq!(places, [1, 0, 2, 1, 0]);
        for image in &images {
            assert_eq!(
                (&image["object"], &image["cost"]),
                (&json!("image"), &json!(0.016))
            );
            assert_eq!(image["key"], key.id.as_str());
            assert!(image["size_bytes"].as_u64().unwrap() > 0);
        }
    }
    office.finish().await;
}
