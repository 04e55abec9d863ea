//! Accounts, and the money that operators put in and take out.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Office, PROMPT, assert_mistake, ids};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_opened_shown_and_changed() {
    let office = Office::open().await;
    let made = office
        .post(
            "/accounts",
            &json!({"name": "acme", "markup_basis_points": 250}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(made["object"], "account");
    assert_eq!(
        (&made["name"], &made["markup_basis_points"]),
        (&json!("acme"), &json!(250))
    );
    let nothing = json!({"balance": 0, "held": 0, "available": 0});
    assert_eq!((&made["live"], &made["test"]), (&nothing, &nothing));
    let id = made["id"].as_str().unwrap();

    // By id and by exact name.
    for name in [id, "acme"] {
        let shown = office.read(&format!("/accounts/{name}")).await;
        assert_eq!(
            (&shown["id"], &shown["open_holds"]),
            (&made["id"], &json!([]))
        );
    }
    let changed = office
        .patch(
            &format!("/accounts/{id}"),
            &json!({
                "name": "Acme & Söhne", "markup_basis_points": null,
                "limits": {"images_per_minute": 600, "spend_per_month": 250.5},
            }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(changed["name"], "Acme & Söhne");
    assert_eq!(changed["markup_basis_points"], Value::Null);
    assert_eq!(
        changed["limits"],
        json!({
            "requests_per_minute": null, "images_per_minute": 600, "max_in_flight": null, "spend_per_day": null,
            "spend_per_month": 250.5,
        })
    );
    let by_name = office.read("/accounts/Acme%20%26%20S%C3%B6hne").await;
    assert_eq!(by_name["id"], made["id"]);

    // The commands see the same.
    let listed = office
        .run(&["accounts", "list", "--json"])
        .expect_success()
        .json();
    assert_eq!(listed[1]["name"], "Acme & Söhne");

    let path = format!("/accounts/{id}");
    for (body, code, param) in [
        (json!({"name": ""}), "invalid_value", "name"),
        (json!({"name": null}), "invalid_value", "name"),
        (json!({"name": "a".repeat(256)}), "invalid_value", "name"),
        (
            json!({"markup_basis_points": 1_000_001}),
            "invalid_value",
            "markup_basis_points",
        ),
        (
            json!({"markup_basis_points": "2 %"}),
            "invalid_value",
            "markup_basis_points",
        ),
        (
            json!({"limits": {"spend_per_month": "much"}}),
            "invalid_value",
            "limits.spend_per_month",
        ),
    ] {
        assert_mistake(&office.patch(&path, &body).await, code, param);
    }
    let answer = office.patch(&path, &json!({})).await.expect(400);
    assert_eq!(answer.problem().code(), "nothing_to_change");
    assert_mistake(
        &office.post("/accounts", &json!({})).await,
        "missing_required_parameter",
        "name",
    );
    for path in ["/accounts/nobody", "/accounts/nobody/entries"] {
        let answer = office.get(path).await.expect(404);
        assert_eq!(answer.problem().code(), "account_not_found");
    }
    office
        .post("/accounts", &json!({"name": "Acme & Söhne"}))
        .await
        .expect(200);
    let answer = office
        .get("/accounts/Acme%20%26%20S%C3%B6hne")
        .await
        .expect(409);
    assert_eq!(answer.problem().code(), "ambiguous_account");
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_newest_first_to_the_end() {
    let office = Office::open().await;
    let mut made = Vec::new();
    for number in 0..7 {
        let body = json!({"name": format!("customer {}", number % 2)});
        let account = office.post("/accounts", &body).await.expect(200).json();
        made.push(account["id"].as_str().unwrap().to_owned());
    }
    made.reverse();
    for limit in [1, 3, 8, 100] {
        let mut listed = office.walk("/accounts", limit).await;
        // The oldest came with the first start.
        assert_eq!(listed.pop().unwrap()["name"], "first");
        assert_eq!(ids(&listed), made);
    }
    let named = office.walk("/accounts?name=customer%201", 2).await;
    assert_eq!(ids(&named), [&made[1], &made[3], &made[5]]);
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_put_in_and_taken_out() {
    let office = Office::open().await;
    let id = office.live_key("0").account;
    let credit = format!("/accounts/{id}/credit");
    let debit = format!("/accounts/{id}/debit");
    let entry = office
        .post(
            &credit,
            &json!({"amount": 12.5, "note": "by card", "reference": "invoice 1"}),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(entry["object"], "entry");
    assert_eq!(
        (
            &entry["kind"],
            &entry["amount"],
            &entry["balance_after"],
            &entry["reference"]
        ),
        (
            &json!("credit"),
            &json!(12.5),
            &json!(12.5),
            &json!("invoice 1")
        )
    );
    // As text, and exact to the nano.
    let entry = office
        .post(&debit, &json!({"amount": "0.000000001"}))
        .await
        .expect(200)
        .json();
    assert_eq!(entry["balance_after"].to_string(), "12.499999999");
    // Play money is kept apart.
    office
        .post(&credit, &json!({"amount": 3, "mode": "test"}))
        .await
        .expect(200);
    let shown = office.read(&format!("/accounts/{id}")).await;
    assert_eq!(shown["live"]["balance"].to_string(), "12.499999999");
    assert_eq!(shown["test"]["available"], 3);

    for body in [
        json!({"amount": 0}),
        json!({"amount": -1}),
        json!({"amount": "1e3"}),
        json!({"amount": 0.000_000_000_1}),
        json!({"amount": "a lot"}),
        json!({"amount": "99999999999"}),
        json!({"amount": true}),
    ] {
        assert_mistake(
            &office.post(&credit, &body).await,
            "invalid_value",
            "amount",
        );
    }
    assert_mistake(
        &office.post(&credit, &json!({})).await,
        "missing_required_parameter",
        "amount",
    );
    assert_mistake(
        &office
            .post(&credit, &json!({"amount": 1, "reference": ""}))
            .await,
        "invalid_value",
        "reference",
    );
    let answer = office
        .post(&debit, &json!({"amount": 12.5}))
        .await
        .expect(409);
    assert_eq!(answer.problem().code(), "insufficient_balance");
    let answer = office
        .post("/accounts/nobody/credit", &json!({"amount": 1}))
        .await
        .expect(404);
    assert_eq!(answer.problem().code(), "account_not_found");
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_that_is_repeated_credits_once() {
    let office = Office::open().await;
    let account = office.live_key("0").account;
    let other = office.live_key("0").account;
    let path = format!("/accounts/{account}/credit");
    let body = json!({"amount": 20, "reference": "pi_3PqR"});
    let answers = join_all((0..50).map(|_| office.post(&path, &body))).await;
    let first = answers[0].clone().expect(200).json();
    for answer in answers {
        assert_eq!(answer.expect(200).json(), first, "the same entry each time");
    }
    let shown = office.read(&format!("/accounts/{account}")).await;
    assert_eq!(shown["live"]["balance"], 20);
    let entries = office
        .walk(&format!("/accounts/{account}/entries"), 10)
        .await;
    assert_eq!(entries, [first]);

    // The same name for something else is a mistake that is told.
    for (path, body) in [
        (path.clone(), json!({"amount": 21, "reference": "pi_3PqR"})),
        (
            path.clone(),
            json!({"amount": 20, "mode": "test", "reference": "pi_3PqR"}),
        ),
        (format!("/accounts/{account}/debit"), body.clone()),
        (format!("/accounts/{other}/credit"), body),
    ] {
        let answer = office.post(&path, &body).await.expect(409);
        assert_eq!(answer.problem().code(), "reference_taken", "{path} {body}");
    }
    assert_eq!(
        office.read(&format!("/accounts/{other}")).await["live"]["balance"],
        0
    );
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_tell_how_a_balance_came_about() {
    let office = Office::open().await;
    let key = office.live_key("1");
    let request = json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256"});
    for _ in 0..4 {
        office.generate(&key, &request).await.expect(200);
    }
    let path = format!("/accounts/{}/entries", key.account);
    for limit in [2, 5, 50] {
        let entries = office.walk(&path, limit).await;
        let sequences: Vec<i64> = entries
            .iter()
            .map(|entry| entry["sequence"].as_i64().unwrap())
            .collect();
        assert_eq!(sequences, [5, 4, 3, 2, 1]);
        assert_eq!(entries[0]["kind"], "charge");
        assert!(entries[0]["generation"].is_string());
        assert_eq!(entries[4]["kind"], "credit");
        assert_eq!(entries[0]["balance_after"], office.balance(&key).await);
    }
    assert_eq!(
        office.walk(&format!("{path}?mode=test"), 5).await,
        [] as [Value; 0]
    );
    assert_mistake(
        &office.get(&format!("{path}?mode=play")).await,
        "invalid_value",
        "mode",
    );
    office.finish().await;
}
