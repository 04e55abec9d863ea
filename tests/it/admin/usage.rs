//! Sums: by any groups, as JSON and as CSV, and always what the ledger says.

use serde_json::{Value, json};

use super::{Office, PROMPT, TOKEN, assert_mistake};
use crate::support::{App, Behaviour, Reply, usd};

async fn spent() -> Office {
    let app = App::builder()
        .await
        .set("admin.token", TOKEN)
        .set("providers.openai.markup_basis_points", 2500)
        .start()
        .await;
    let office = Office::with(app);
    let first = office.create_key(&["--credit", "5"]);
    let second = office.create_key(&["--credit", "5", "--account", &first.account]);
    let other = office.create_key(&["--credit", "5"]);
    let test = office.test_key("5");
    for (key, model, n) in [
        (&first, "dall-e-2", 3),
        (&first, "dall-e-3", 1),
        (&second, "dall-e-2", 1),
        (&other, "dall-e-3", 1),
        (&test, "dall-e-2", 2),
    ] {
        let request = json!({"model": model, "prompt": PROMPT, "n": n});
        office.generate(key, &request).await.expect(200);
    }
    office.openai.next(Behaviour::Reply(Reply::server_error()));
    office
        .generate(&other, &json!({"model": "dall-e-2", "prompt": PROMPT}))
        .await
        .expect(502);
    office
}

/// The sum of a field over the rows of a mode, in nano-USD or pieces, through text so that it is exact.
fn sum(rows: &Value, mode: &str, field: &str, scale: i64) -> i64 {
    let rows = rows.as_array().unwrap().iter();
    rows.filter(|row| row["mode"] == mode)
        .map(|row| nano(&row[field].to_string()) / (1_000_000_000 / scale))
        .sum()
}

fn nano(decimal: &str) -> i64 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = format!("{whole}{fraction:0<9}");
    digits.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_by_any_groups_are_what_the_ledger_says() {
    let office = spent().await;
    for mode in ["live", "test"] {
        let database = async |sql: &str| {
            let sql = sql.replace("MODE", mode);
            office.database.number(&sql).await
        };
        let charged = database(
            "select -coalesce(sum(amount_nano_usd), 0)::bigint from ledger_entries where kind = 'charge' and mode = 'MODE'",
        )
        .await;
        assert!(charged > 0);
        let owed = database(
            "select sum(i.upstream_cost_nano_usd)::bigint from images i join generations g on g.id = i.generation_id where g.mode = 'MODE'",
        )
        .await;
        let pictures = database(
            "select count(*) from images i join generations g on g.id = i.generation_id where g.mode = 'MODE'",
        )
        .await;
        let accepted = database("select count(*) from generations where mode = 'MODE'").await;
        for groups in [
            "day",
            "model",
            "provider",
            "key",
            "account",
            "day,model",
            "account,key",
            "model,provider,key",
            "account,day,key,provider,model",
        ] {
            let usage = office.read(&format!("/usage?group_by={groups}")).await;
            let data = &usage["data"];
            assert_eq!(sum(data, mode, "cost", 1_000_000_000), charged, "{groups}");
            assert_eq!(
                sum(data, mode, "upstream_cost", 1_000_000_000),
                owed,
                "{groups}"
            );
            assert_eq!(
                sum(data, mode, "margin", 1_000_000_000),
                charged - owed,
                "{groups}"
            );
            assert_eq!(sum(data, mode, "images", 1), pictures, "{groups}");
            assert_eq!(sum(data, mode, "requests", 1), accepted, "{groups}");
            let total = &usage["total"][mode];
            assert_eq!(total["cost"], usd(charged), "{groups}");
            assert_eq!(total["margin"], usd(charged - owed), "{groups}");
            assert_eq!(total["requests"], accepted, "{groups}");
            for row in data.as_array().unwrap() {
                for group in groups.split(',') {
                    assert!(row.get(group).is_some(), "{group} in {row}");
                }
            }
        }
    }
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_grouped_and_filtered() {
    let office = spent().await;
    let usage = office
        .read("/usage?group_by=model,provider&mode=live")
        .await;
    assert_eq!(usage["object"], "list");
    assert_eq!(
        (&usage["currency"], &usage["has_more"]),
        (&json!("USD"), &json!(false))
    );
    assert_eq!(usage["group_by"], json!(["model", "provider"]));
    let rows: Vec<(&Value, &Value, &Value, &Value)> = usage["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                &row["model"],
                &row["provider"],
                &row["requests"],
                &row["images"],
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (
                &json!("openai/dall-e-2"),
                &json!("openai"),
                &json!(2),
                &json!(4)
            ),
            (
                &json!("openai/dall-e-2"),
                &Value::Null,
                &json!(1),
                &json!(0)
            ),
            (
                &json!("openai/dall-e-3"),
                &json!("openai"),
                &json!(2),
                &json!(2)
            ),
        ]
    );
    // The default: by day, the last 30 of them.
    let usage = office.read("/usage").await;
    assert_eq!(usage["group_by"], json!(["day"]));
    assert!(usage["since"].is_string());
    assert_eq!(
        usage["data"].as_array().unwrap().len(),
        2,
        "a row for each kind of money"
    );
    // What is sold for a quarter more earns a fifth.
    let usage = office
        .read("/usage?group_by=provider&provider=openai")
        .await;
    let row = &usage["data"][0];
    let cost = nano(&row["cost"].to_string());
    assert_eq!(nano(&row["margin"].to_string()) * 5, cost);

    let account = office.read("/accounts?limit=100").await["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|account| account["live"]["balance"] != json!(0))
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (query, requests) in [
        (format!("account={account}"), 2),
        ("model=dall-e-3".to_owned(), 2),
        ("mode=test".to_owned(), 1),
        ("provider=sandbox".to_owned(), 1),
        ("since=yesterday".to_owned(), 6),
        ("until=yesterday".to_owned(), 0),
        ("since=2020-01-01&until=2100-01-01".to_owned(), 6),
    ] {
        let usage = office.read(&format!("/usage?{query}")).await;
        let total = usage["total"]["live"]["requests"].as_u64().unwrap()
            + usage["total"]["test"]["requests"].as_u64().unwrap();
        assert_eq!(total, requests, "{query}");
    }
    for (query, param) in [
        ("group_by=colour", "group_by"),
        ("group_by=day,day", "group_by"),
        ("group_by=", "group_by"),
        ("format=xml", "format"),
        ("since=soon", "since"),
        ("key=mine", "key"),
    ] {
        let answer = office.get(&format!("/usage?{query}")).await;
        assert_mistake(&answer, "invalid_value", param);
    }
    office.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_a_sheet_too() {
    let office = spent().await;
    let path = "/usage?group_by=account,model";
    let json = office.read(path).await;
    let by_parameter = office.get(&format!("{path}&format=csv")).await.expect(200);
    let request = office
        .client
        .request(reqwest::Method::GET, &format!("/admin/v1{path}"))
        .bearer_auth(TOKEN)
        .header("accept", "text/csv, */*;q=0.1");
    let by_header = office.client.send(request).await.expect(200);
    assert_eq!(by_parameter.bytes, by_header.bytes);
    for answer in [&by_parameter, &by_header] {
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    }
    let mut sheet = csv::Reader::from_reader(&by_parameter.bytes[..]);
    let titles = sheet.headers().unwrap().clone();
    assert_eq!(
        titles.iter().collect::<Vec<_>>(),
        [
            "account",
            "account_name",
            "model",
            "mode",
            "requests",
            "abandoned",
            "images",
            "cost_usd",
            "upstream_cost_usd",
            "margin_usd"
        ]
    );
    let rows: Vec<csv::StringRecord> = sheet.records().map(Result::unwrap).collect();
    let expected = json["data"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        for (column, field) in [
            (0, "account"),
            (1, "account_name"),
            (2, "model"),
            (3, "mode"),
        ] {
            assert_eq!(row[column], *expected[field].as_str().unwrap());
        }
        for (column, field) in [
            (4, "requests"),
            (5, "abandoned"),
            (6, "images"),
            (7, "cost"),
            (8, "upstream_cost"),
            (9, "margin"),
        ] {
            assert_eq!(row[column], expected[field].to_string());
        }
    }
    // JSON wins over the header when it is named.
    let request = office
        .client
        .request(
            reqwest::Method::GET,
            &format!("/admin/v1{path}&format=json"),
        )
        .bearer_auth(TOKEN)
        .header("accept", "text/csv");
    let answer = office.client.send(request).await.expect(200);
    assert_eq!(answer.json()["data"], json["data"]);
    office.finish().await;
}
