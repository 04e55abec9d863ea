//! The operator's commands: tables for people, `--json` for programs, errors on stderr.

use serde_json::{Value, json};

use crate::support::{App, run_easel};

fn find<'a>(list: &'a Value, id: &str) -> &'a Value {
    let rows = list.as_array().unwrap_or_else(|| panic!("a list: {list}"));
    rows.iter()
        .find(|row| row["id"] == id)
        .unwrap_or_else(|| panic!("{id} in {list}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_created_listed_shown_changed_and_revoked() {
    let app = App::start().await;
    let created = app
        .run(&[
            "keys", "create", "--json", "--name", "web shop", "--credit", "12.50",
        ])
        .expect_success();
    let object = created.json();
    let mut names: Vec<&String> = object.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["account", "id", "key", "mode", "name"]);
    assert_eq!(
        (&object["name"], &object["mode"]),
        (&json!("web shop"), &json!("live"))
    );
    let id = object["id"].as_str().unwrap();
    let secret = object["key"].as_str().unwrap();

    let list = app.run(&["keys", "list", "--json"]).expect_success();
    assert!(!list.stdout.contains(secret), "a secret is shown once");
    let row = find(&list.json(), id).clone();
    assert_eq!(
        (&row["name"], &row["mode"], &row["account"]),
        (&json!("web shop"), &json!("live"), &object["account"])
    );
    let table = app.run(&["keys", "list"]).expect_success().stdout;
    assert!(table.contains("web shop") && table.contains(id), "{table}");
    assert!(!table.contains(secret));

    app.run(&["keys", "update", id, "--rpm", "100"])
        .expect_success();
    let shown = app
        .run(&["keys", "show", id, "--json"])
        .expect_success()
        .json();
    assert_eq!(shown["id"], id);
    assert!(shown.to_string().contains("100"), "{shown}");

    app.run(&["keys", "revoke", id]).expect_success();
    let shown = app
        .run(&["keys", "show", id, "--json"])
        .expect_success()
        .json();
    assert!(!shown["revoked_at"].is_null(), "{shown}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_credited_and_debited_once_per_reference() {
    let app = App::start().await;
    let account = app
        .run(&["accounts", "create", "--json", "--name", "Studio Nord"])
        .expect_success()
        .json();
    let id = account["id"].as_str().unwrap();
    let key = app.create_key(&["--account", id]);
    let balance = async || app.balance(&key).await;
    app.run(&[
        "accounts",
        "credit",
        id,
        "10",
        "--note",
        "invoice 1",
        "--reference",
        "inv-1",
    ])
    .expect_success();
    assert_eq!(balance().await, json!(10));
    // The same reference again is the same credit.
    let again = app.run(&[
        "accounts",
        "credit",
        id,
        "10",
        "--note",
        "invoice 1",
        "--reference",
        "inv-1",
    ]);
    assert_eq!(balance().await, json!(10), "{again:?}");
    app.run(&[
        "accounts",
        "debit",
        id,
        "2.5",
        "--note",
        "correction",
        "--reference",
        "cor-1",
    ])
    .expect_success();
    assert_eq!(balance().await, json!(7.5));
    // Nobody is debited below zero.
    let refused = app.run(&[
        "accounts",
        "debit",
        id,
        "100",
        "--note",
        "too much",
        "--reference",
        "cor-2",
    ]);
    assert!(
        !refused.status.success() && refused.stderr.contains("7.5"),
        "{refused:?}"
    );
    assert_eq!(balance().await, json!(7.5));
    let list = app
        .run(&["accounts", "list", "--json"])
        .expect_success()
        .json();
    assert_eq!(find(&list, id)["name"], "Studio Nord");
    let table = app.run(&["accounts", "list"]).expect_success().stdout;
    assert!(
        table.contains("Studio Nord") && table.contains("7.5"),
        "{table}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_renamed_and_its_markup_changed() {
    let app = App::start().await;
    let account = app
        .run(&["accounts", "create", "Studio Nord", "--json"])
        .expect_success()
        .json();
    assert_eq!(account["markup_basis_points"], Value::Null);
    let id = account["id"].as_str().unwrap();
    let update = |changes: &[&str]| {
        app.run(&[&["accounts", "update", id, "--json"], changes].concat())
            .expect_success()
            .json()
    };
    let changed = update(&["--markup", "1250"]);
    assert_eq!(
        (&changed["name"], &changed["markup_basis_points"]),
        (&json!("Studio Nord"), &json!(1250))
    );
    let changed = update(&["--name", "Studio Süd"]);
    assert_eq!(
        (&changed["name"], &changed["markup_basis_points"]),
        (&json!("Studio Süd"), &json!(1250)),
        "what is not named stays"
    );
    let list = app.run(&["accounts", "list", "--json"]).expect_success();
    assert_eq!(find(&list.json(), id)["markup_basis_points"], 1250);
    let table = app.run(&["accounts", "list"]).expect_success().stdout;
    assert!(
        table.contains("Studio Süd") && table.contains("12.50 %"),
        "{table}"
    );
    assert_eq!(
        update(&["--markup", "none"])["markup_basis_points"],
        Value::Null
    );
    app.run(&["accounts", "update", "Studio Süd", "--markup", "1000000"])
        .expect_success();
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_go_to_stderr_with_an_exit_code() {
    let app = App::start().await;
    for arguments in [
        &["keys", "revoke", "key_00000000000000000000000000000000"][..],
        &["keys", "revoke", "nonsense"],
        &["keys", "create", "--name", "x", "--credit", "-1"],
        &["keys", "create", "--name", "x", "--credit", "1.0000000001"],
        &[
            "keys",
            "create",
            "--name",
            "x",
            "--account",
            "acc_00000000000000000000000000000000",
        ],
        &["keys", "create", "--name", "x", "--models", "dall-e-9"],
        &[
            "accounts",
            "credit",
            "acc_00000000000000000000000000000000",
            "1",
            "--note",
            "n",
            "--reference",
            "r",
        ],
        &["usage", "--since", "yesterday-ish"],
        &["keys", "create", "--nmae", "x"],
        &["sevre"],
    ] {
        let output = app.run(arguments);
        assert!(!output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!output.stderr.trim().is_empty(), "{output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
    }
    let count = app
        .database
        .number("select count(*) from api_keys where name = 'x'")
        .await;
    assert_eq!(count, 0, "a refused command does nothing");
    app.finish().await;
}

/// `reconcile` proves that entries, holds and balances agree, and finds what does not.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_a_balance_that_is_wrong() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.run(&["reconcile"]).expect_success();
    sqlx::query(
        "update balances set balance_nano_usd = balance_nano_usd + 1 where account_id = $1",
    )
    .bind(&key.account)
    .execute(app.database.pool())
    .await
    .unwrap();
    let output = app.run(&["reconcile"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        format!("{}{}", output.stdout, output.stderr).contains(&key.account),
        "{output:?}"
    );
    sqlx::query(
        "update balances set balance_nano_usd = balance_nano_usd - 1 where account_id = $1",
    )
    .bind(&key.account)
    .execute(app.database.pool())
    .await
    .unwrap();
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_can_be_done_again() {
    let app = App::start().await;
    app.run(&["migrate"]).expect_success();
    app.run(&["migrate"]).expect_success();
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_shown_with_what_it_has_and_where_from() {
    let app = App::start().await;
    let key = app.live_key("1");
    app.run(&[
        "accounts",
        "credit",
        &key.account,
        "4",
        "--reference",
        "inv-7",
        "--note",
        "paid",
    ])
    .expect_success();
    let request = json!({"model": "dall-e-2", "prompt": "a ledger"});
    let answer = app.generate(&key, &request).await.expect(200);
    let generation = answer.header("x-generation-id").to_owned();
    let shown = app
        .run(&["accounts", "show", &key.account, "--json"])
        .expect_success()
        .json();
    let live = &shown["balances"]["live"];
    assert_eq!(
        (&live["balance"], &live["held"], &live["available"]),
        (&json!(4.98), &json!(0), &json!(4.98))
    );
    let kinds: Vec<&str> = live["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["charge", "credit", "credit"]);
    assert_eq!(shown["open_holds"], json!([]));
    let table = app
        .run(&["accounts", "show", &key.account])
        .expect_success()
        .stdout;
    for expected in ["4.98", "inv-7: paid", &generation] {
        assert!(table.contains(expected), "{expected} in {table}");
    }
    app.run(&["accounts", "show", "nobody"]).expect_failure(1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_the_running_gateway() {
    let mut app = App::start().await;
    let directory = app.directory().to_owned();
    let listen = format!("0.0.0.0:{}", app.easel.port());
    let health = |arguments: &[&str]| {
        let environment = [("EASEL__LISTEN", listen.as_str())];
        run_easel(&directory, arguments, &environment)
    };
    let ready = health(&["health"]).expect_success();
    assert!(
        ready.stdout.contains("/readyz says 200"),
        "{}",
        ready.stdout
    );
    let lives = health(&["health", "--live"]).expect_success();
    assert!(
        lives.stdout.contains("/healthz says 200"),
        "{}",
        lives.stdout
    );
    app.easel.stop().await;
    let gone = health(&["health"]).expect_failure(1);
    assert!(gone.stderr.contains("nobody answers at"), "{}", gone.stderr);
    app.start_again().await;
    app.finish().await;
}
