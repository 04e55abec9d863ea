//! `GET /v1/images/generations`: what became of earlier requests.

use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, Key, Reply};

const PROMPT: &str = "an archivist with a lantern";

async fn post(app: &App, key: &Key, request: Value, idempotency_key: Option<&str>) -> Answer {
    let mut builder = app
        .client
        .request(reqwest::Method::POST, "/v1/images/generations")
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(request.to_string());
    if let Some(idempotency_key) = idempotency_key {
        builder = builder.header("idempotency-key", idempotency_key);
    }
    app.client.send(builder).await
}

fn ids(page: &Value) -> Vec<&str> {
    let rows = page["data"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recent_generations_come_newest_first_in_pages() {
    let app = App::start().await;
    let key = app.live_key("1");
    let stranger = app.live_key("1");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let mut made = Vec::new();
    for _ in 0..4 {
        let answer = app.generate(&key, &request).await.expect(200);
        made.insert(0, answer.header("x-generation-id").to_owned());
    }
    app.openai.next(Behaviour::Reply(Reply::server_error()));
    app.generate(&key, &request).await.expect(502);
    let list = async |query: &str| {
        app.get(&key, &format!("/v1/images/generations{query}"))
            .await
            .expect(200)
            .json()
    };

    let all = list("").await;
    assert_eq!(all["object"], "list");
    assert_eq!(ids(&all)[1..], made);
    assert_eq!(all["data"][0]["status"], "failed");
    assert_eq!(all["data"][1]["status"], "completed");
    assert_eq!(all["data"][1]["cost"], json!(0.016));
    let first = list("?limit=2").await;
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    let second = list(&format!("?limit=2&after={}", ids(&first)[1])).await;
    assert_eq!(ids(&second), [made[1].as_str(), made[2].as_str()]);
    let link = all["data"][1]["data"][0]["url"].as_str().unwrap();
    app.open_link(link).await.expect(200);
    // Each has its own pictures, also when those of one are gone.
    let name_of = |link: &Value| {
        let link = link.as_str().unwrap();
        let (_, name) = link.split_once("/files/").unwrap();
        name.split_once('?').unwrap().0.to_owned()
    };
    let gone = name_of(&all["data"][2]["data"][0]["url"]);
    let hours = std::fs::read_dir(app.directory().join("data/images")).unwrap();
    let mut files = hours.map(|hour| hour.unwrap().path().join(&gone));
    std::fs::remove_file(files.find(|file| file.exists()).unwrap()).unwrap();
    let left = list("").await;
    assert_eq!(left["data"][2]["data"], json!([]));
    for row in [1, 3, 4] {
        let [before, now] = [&all, &left].map(|page| name_of(&page["data"][row]["data"][0]["url"]));
        assert_eq!(before, now, "row {row}");
    }

    let others = app
        .get(&stranger, "/v1/images/generations")
        .await
        .expect(200)
        .json();
    assert_eq!(others["data"], json!([]));
    for query in ["?limit=0", "?limit=100000", "?limit=x", "?after=nonsense"] {
        let problem = app
            .get(&key, &format!("/v1/images/generations{query}"))
            .await
            .expect(400)
            .problem();
        assert_eq!(problem.kind, "invalid_request_error", "{query}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_its_request_by_its_own_names() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = |user: &str| json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "user": user});
    let first = post(&app, &key, request("reader-1"), Some("order-17"))
        .await
        .expect(200);
    let second = post(&app, &key, request("reader-2"), None)
        .await
        .expect(200);
    let by_key = app
        .get(&key, "/v1/images/generations?idempotency_key=order-17")
        .await
        .expect(200)
        .json();
    assert_eq!(ids(&by_key), [first.header("x-generation-id")]);
    let by_user = app
        .get(&key, "/v1/images/generations?user=reader-2")
        .await
        .expect(200)
        .json();
    assert_eq!(ids(&by_user), [second.header("x-generation-id")]);
    app.finish().await;
}
