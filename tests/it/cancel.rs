//! `DELETE /v1/images/generations/{id}`: what runs is stopped, wherever it runs; what came whole is charged.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    later::{GENERATIONS, ended, later},
    support::{Answer, App, Behaviour, Client, Key, pictures, until},
};

const PROMPT: &str = "a balloon that is called back";
const AT_ONCE: Duration = Duration::ZERO;
const NEVER: Duration = Duration::from_mins(10);

pub(crate) async fn cancel(client: &Client, key: &Key, id: &str) -> Answer {
    let request = client
        .request(Method::DELETE, &format!("{GENERATIONS}/{id}"))
        .bearer_auth(&key.secret);
    client.send(request).await
}

/// One whose operator pays what OpenAI charges for what it hangs up on.
async fn stoppable() -> App {
    let builder = App::builder().await;
    let builder = builder.set("providers.openai.on_disconnect", "cancel");
    builder.start().await
}

fn balloon() -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT})
}

async fn newest(app: &App) -> String {
    let newest = "select id from generations order by created_at desc limit 1";
    app.database.texts(newest).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_generation_is_stopped_from_any_replica() {
    let app = stoppable().await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    app.openai.always(Behaviour::Never);
    for client in [&app.client, &second.client] {
        let before = app.openai.calls().len();
        let id = later(&app.client, &key, &balloon()).await;
        while app.openai.calls().len() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let state = cancel(client, &key, &id).await.expect(200).json();
        assert_eq!(state["id"], json!(id));
        assert_eq!(state["status"], "failed", "{state}");
        assert_eq!(state["error"]["code"], "canceled");
        assert_eq!((&state["cost"], &state["data"]), (&json!(0), &json!([])));
        assert_eq!(ended(&app.client, &key, &id, "").await, state);
        // Again changes nothing.
        assert_eq!(cancel(client, &key, &id).await.expect(200).json(), state);
        assert_eq!(app.balance(&key).await, json!(1));
    }
    let recorded = "select count(*) from attempts where error = 'cancelled' and maybe_charged";
    assert_eq!(app.database.number(recorded).await, 2);
    second.stop().await;
    app.finish().await;
}

/// Who waits for it is told, and so is who waits for it at another replica.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_told() {
    let app = stoppable().await;
    let second = app.start_replica().await;
    let key = app.create_key(&["--credit", "1", "--rpm", "100"]);
    app.openai.always(Behaviour::Never);
    let post = |client: &Client| {
        client
            .request(Method::POST, GENERATIONS)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .header("idempotency-key", "balloon")
            .body(balloon().to_string())
    };
    let stop = async {
        app.openai.wait_for_call().await;
        let id = newest(&app).await;
        until("both that join are counted", async || {
            let counted = "select coalesce(sum(requests), 0)::bigint from key_seconds";
            app.database.number(counted).await == 3
        })
        .await;
        cancel(&second.client, &key, &id).await.expect(200);
    };
    let joining = async {
        app.openai.wait_for_call().await;
        tokio::join!(
            app.client.send(post(&app.client)),
            second.client.send(post(&second.client))
        )
    };
    let (first, (here, elsewhere), ()) =
        tokio::join!(app.client.send(post(&app.client)), joining, stop);
    for answer in [first, here, elsewhere] {
        let answer = answer.expect(409);
        assert_eq!(answer.problem().code(), "canceled");
        assert_eq!(answer.header("x-should-retry"), "false");
    }
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.balance(&key).await, json!(1));
    // Nothing was charged, so the name is free.
    app.openai.always(Behaviour::Answer);
    app.client.send(post(&app.client)).await.expect(200);
    second.stop().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_whole_is_charged() {
    let app = stoppable().await;
    let key = app.live_key("1");
    let picture = STANDARD.encode(pictures::paint("png", 1024, 1024, 5, false));
    let head =
        format!(r#"{{"created":1795000000,"data":[{{"b64_json":"{picture}"}},{{"b64_json":"iVBOR"#);
    let pieces = vec![(AT_ONCE, head.into()), (NEVER, "w0KGgo".into())];
    app.openai.next(Behaviour::Pieces(pieces, true));
    let body = json!({"model": "dall-e-2", "prompt": PROMPT, "n": 2});
    let id = later(&app.client, &key, &body).await;
    // The first picture is in the store before the second is cancelled.
    until("it is kept", async || !app.kept_pictures().is_empty()).await;
    let state = cancel(&app.client, &key, &id).await.expect(200).json();
    assert_eq!(state["status"], "completed", "{state}");
    assert_eq!(state["error"]["code"], "canceled");
    assert_eq!(state["cost"], json!(0.02));
    assert_eq!(state["data"].as_array().unwrap().len(), 1);
    app.open_link(state["data"][0]["url"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(app.balance(&key).await, json!(0.98));
    app.finish().await;
}

/// A provider that nobody can tell to stop paints on and charges, so it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_cannot_stop_is_finished_and_paid() {
    let app = App::start().await;
    let key = app.live_key("1");
    let gate = app.openai.gate();
    let id = later(&app.client, &key, &balloon()).await;
    app.openai.wait_for_call().await;
    let running = cancel(&app.client, &key, &id).await.expect(202).json();
    assert_eq!(running["status"], "in_progress", "{running}");
    gate.add_permits(1);
    let state = ended(&app.client, &key, &id, "").await;
    assert_eq!(
        (&state["status"], &state["cost"]),
        (&json!("completed"), &json!(0.02))
    );
    assert_eq!(app.openai.calls().len(), 1);
    assert_eq!(app.balance(&key).await, json!(0.98));
    app.finish().await;
}

/// What somebody sees already is finished: else all but its last byte would be free.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_is_finished() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.openai
        .next(Behaviour::EventsEvery(Duration::from_millis(700)));
    let body = json!({"model": "gpt-image-1", "prompt": PROMPT, "quality": "low", "size": "1024x1024",
        "stream": true, "partial_images": 2});
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(body.to_string());
    let mut response = request.send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some(), "a draft");
    let id = response.headers()["x-generation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let told = cancel(&app.client, &key, &id).await.status;
    assert!(told == 202 || told == 409, "{told}");
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        rest.extend(chunk);
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("image_generation.completed"), "{rest}");
    let finished = cancel(&app.client, &key, &id).await.expect(409);
    assert_eq!(finished.problem().code(), "generation_finished");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_generations_and_finished_ones_are_left_alone() {
    let app = App::start().await;
    let key = app.live_key("1");
    let stranger = app.live_key("1");
    app.openai
        .next(Behaviour::AnswerAfter(Duration::from_millis(700)));
    let id = later(&app.client, &key, &balloon()).await;
    let unknown = cancel(&app.client, &stranger, &id).await.expect(404);
    assert_eq!(unknown.problem().code(), "generation_not_found");
    cancel(&app.client, &key, "gen_00000000000000000000000000000000")
        .await
        .expect(404)
        .problem();
    assert_eq!(
        ended(&app.client, &key, &id, "").await["status"],
        "completed"
    );
    let finished = cancel(&app.client, &key, &id).await.expect(409);
    assert_eq!(finished.problem().code(), "generation_finished");
    assert_eq!(finished.header("x-should-retry"), "false");
    assert_eq!(app.balance(&key).await, json!(0.98));
    app.finish().await;
}

/// Completion and cancellation, at three replicas, as close together as chance has it: one end for each, and
/// charged if and only if there are pictures.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_has_one_winner() {
    const RACES: usize = 36;
    let app = App::builder()
        .await
        // On a slow machine a connection may rest for longer than clients usually let it.
        .set("limits.header_timeout", "2m")
        .set("providers.openai.on_disconnect", "cancel")
        .start()
        .await;
    let (second, third) = tokio::join!(app.start_replica(), app.start_replica());
    let clients = [&app.client, &second.client, &third.client];
    let key = app.live_key("2");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(400)));
    let race = async |number: usize| {
        let id = later(clients[number % 3], &key, &balloon()).await;
        let pause = u64::try_from(number * 37 % 700).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // On a slow machine nobody else may be late enough.
        if number.is_multiple_of(12) {
            ended(&app.client, &key, &id, "").await;
        }
        let others = clients[(number / 3) % 3];
        let (one, other) = tokio::join!(
            cancel(others, &key, &id),
            cancel(clients[(number / 9) % 3], &key, &id)
        );
        let state = ended(&app.client, &key, &id, "").await;
        for answer in [one, other] {
            match answer.status {
                200 => assert_eq!(state["error"]["code"], "canceled", "{state}"),
                409 => assert_eq!(state["status"], "completed", "{state}"),
                202 => {}
                status => panic!("{status}: {state}"),
            }
        }
        let is_charged = state["cost"] != json!(0);
        assert_eq!(is_charged, state["status"] == "completed", "{state}");
        assert_eq!(is_charged, state["data"] != json!([]), "{state}");
        is_charged
    };
    let charged = join_all((0..RACES).map(race)).await;
    let charged = charged.into_iter().filter(|charged| *charged).count();
    let charges = usize::try_from(app.charges().await).unwrap();
    assert_eq!(charges, charged);
    assert!(charged > 0, "nobody was as fast as the first cancellation");
    assert!(charged < RACES, "no cancellation was in time");
    let ends = "select count(*) from holds where status = 'open'";
    assert_eq!(app.database.number(ends).await, 0);
    second.stop().await;
    third.stop().await;
    // A call may be cancelled before the provider has heard of it.
    app.finish_with_other_upstreams().await;
}
