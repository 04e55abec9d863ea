//! Providers and models: what is on, how it does, and resting one by hand.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Office, PROMPT, TOKEN, assert_mistake};
use crate::support::{App, Behaviour, FakeOpenAi, Reply, fake_openai};

fn find<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let items = list["data"].as_array().unwrap().iter();
    let mut items = items.filter(|item| item[field] == name);
    items.next().unwrap_or_else(|| panic!("{name} in {list}"))
}

async fn two_homes() -> (Office, FakeOpenAi) {
    let backup = FakeOpenAi::start().await;
    let app = App::builder()
        .await
        .models(crate::failover::MODEL)
        .set("admin.token", TOKEN)
        .set("providers.backup.adapter", "openai")
        .set("providers.backup.base_url", backup.base_url())
        .set("providers.backup.api_key", fake_openai::API_KEY)
        .set("providers.backup.markup_basis_points", 500)
        .set("providers.backup.max_in_flight", 7)
        .start()
        .await;
    (Office::with(app), backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_say_whether_they_are_on_and_how_they_do() {
    let (office, _backup) = two_homes().await;
    let key = office.live_key("1");
    let list = office.read("/providers").await;
    assert_eq!(
        (&list["object"], &list["has_more"]),
        (&json!("list"), &json!(false))
    );
    let openai = find(&list, "name", "openai");
    assert_eq!(
        (&openai["on"], &openai["standing"], &openai["routes"]),
        (&json!(true), &json!("healthy"), &json!([]))
    );
    let backup = find(&list, "name", "backup");
    assert_eq!(
        (
            &backup["adapter"],
            &backup["markup_basis_points"],
            &backup["max_in_flight"]
        ),
        (&json!("openai"), &json!(500), &json!(7))
    );
    let stability = find(&list, "name", "stability");
    assert_eq!(
        (&stability["on"], &stability["reason"]),
        (&json!(false), &json!("STABILITY_API_KEY is not set"))
    );

    let order = json!({"order": ["openai", "backup"]});
    let request = json!({"model": "two-homes", "prompt": PROMPT, "provider": order});
    for _ in 0..3 {
        office.openai.next(Behaviour::Reply(Reply::server_error()));
        office.generate(&key, &request).await.expect(200);
    }
    let sick = office.read("/providers/openai").await;
    let route = &sick["routes"][0];
    assert_eq!(
        (&route["upstream_model"], &route["standing"]),
        (&json!("dall-e-2"), &json!("resting"))
    );
    assert!(route["failure_rate"].as_f64().unwrap() > 0.3, "{sick}");
    assert!(route["rests_for_seconds"].as_u64().unwrap() <= 10, "{sick}");
    assert_eq!(
        (&sick["standing"], &sick["rest_ordered"]),
        (&json!("degraded"), &json!(false))
    );
    let well = office.read("/providers/backup").await;
    let route = &well["routes"][0];
    assert_eq!(
        (&well["standing"], &route["failures_in_a_row"]),
        (&json!("healthy"), &json!(0))
    );
    assert!(
        route["latency_ms"].is_u64() && route["images_per_second"].is_f64(),
        "{well}"
    );

    // A resume forgets what made it rest.
    let resumed = office
        .act("/providers/openai/resume")
        .await
        .expect(200)
        .json();
    assert_ne!(resumed["routes"][0]["standing"], "resting", "{resumed}");

    // A call that is being made is in flight.
    office
        .openai
        .always(Behaviour::AnswerAfter(Duration::from_secs(2)));
    let only = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let in_flight = async {
        for _ in 0..100 {
            let shown = office.read("/providers/openai").await;
            if shown["in_flight"] == json!(1) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    };
    let (answer, seen) = tokio::join!(office.generate(&key, &only), in_flight);
    answer.expect(200);
    assert!(seen, "the call was in flight");
    assert_eq!(office.read("/providers/openai").await["in_flight"], 0);
    let answer = office.get("/providers/nobody").await.expect(404);
    assert_eq!(answer.problem().code(), "provider_not_found");
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rested_provider_is_left_alone_until_it_resumes() {
    let (office, _backup) = two_homes().await;
    let key = office.live_key("1");
    let request = json!({"model": "two-homes", "prompt": PROMPT});
    let served_by = async || {
        let answer = office.generate(&key, &request).await.expect(200);
        answer.json()["provider"].as_str().unwrap().to_owned()
    };
    assert_eq!(served_by().await, "openai");
    let rested = office
        .post("/providers/openai/rest", &json!({"for": "2h"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&rested["standing"], &rested["rest_ordered"]),
        (&json!("resting"), &json!(true))
    );
    let seconds = rested["rests_for_seconds"].as_u64().unwrap();
    assert!((7190..=7200).contains(&seconds), "{seconds}");
    for _ in 0..3 {
        assert_eq!(served_by().await, "backup");
    }
    // A model that nobody else serves is served all the same, and that does not end the rest.
    let only = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    let answer = office.generate(&key, &only).await.expect(200);
    assert_eq!(answer.json()["provider"], "openai");
    assert_eq!(served_by().await, "backup");

    let resumed = office
        .act("/providers/openai/resume")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&resumed["standing"], &resumed["rest_ordered"]),
        (&json!("healthy"), &json!(false))
    );
    assert_eq!(served_by().await, "openai");

    // A short rest ends by itself.
    office
        .post("/providers/openai/rest", &json!({"for": "1s"}))
        .await
        .expect(200);
    assert_eq!(served_by().await, "backup");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(served_by().await, "openai");

    for (body, code) in [
        (json!({}), "missing_required_parameter"),
        (json!({"for": "ever"}), "invalid_value"),
        (json!({"for": 60}), "invalid_value"),
    ] {
        let answer = office.post("/providers/openai/rest", &body).await;
        assert_mistake(&answer, code, "for");
    }
    for action in ["rest", "resume"] {
        let path = format!("/providers/nobody/{action}");
        let answer = office.post(&path, &json!({"for": "1s"})).await;
        assert_eq!(answer.expect(404).problem().code(), "provider_not_found");
    }
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_show_all_their_routes_and_prices() {
    let (office, _backup) = two_homes().await;
    let list = office.read("/models").await;
    let model = find(&list, "id", "test/two-homes");
    assert_eq!(model["object"], "model");
    assert_eq!(
        (&model["aliases"], &model["status"]),
        (&json!(["two-homes"]), &json!("active"))
    );
    let routes = model["routes"].as_array().unwrap();
    let facts: Vec<(&Value, &Value, &Value)> = routes
        .iter()
        .map(|route| {
            (
                &route["provider"],
                &route["on"],
                &route["markup_basis_points"],
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            (&json!("openai"), &json!(true), &json!(0)),
            (&json!("backup"), &json!(true), &json!(500)),
        ]
    );
    // A cent and 5 %.
    assert_eq!(routes[1]["pricing"]["table"][0]["price"], json!(0.0105));
    for name in ["test/two-homes", "two-homes"] {
        assert_eq!(&office.read(&format!("/models/{name}")).await, model);
    }
    // Also those that nobody here serves, with the reason.
    let ultra = office.read("/models/stability/stable-image-ultra").await;
    assert_eq!(
        (&ultra["routes"][0]["on"], &ultra["routes"][0]["reason"]),
        (&json!(false), &json!("STABILITY_API_KEY is not set"))
    );
    let answer = office.get("/models/test/no-home").await.expect(404);
    assert_eq!(answer.problem().code(), "model_not_found");
    office.finish().await;
}
