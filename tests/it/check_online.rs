//! `easel check --online`: what is asked, that it is free, and what is said of what comes back.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::support::{
    App, Output,
    fake_google::FakeGoogle,
    s3::{BUCKET, KEY_ID, S3Server, SECRET, Trouble},
};

const KEY: &str = "sk-of-the-account-that-is-asked-about";

/// The four free questions, as the contracts have them, and nothing else; each answered as a test wants.
struct Accounts {
    address: SocketAddr,
    desk: Arc<Desk>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Desk {
    answers: Mutex<BTreeMap<&'static str, (u16, String)>>,
    asked: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

/// Path and query, the header that carries the key, and what is in front of it.
const QUESTIONS: [(&str, &str, &str); 4] = [
    ("/openai/v1/models", "authorization", "Bearer "),
    ("/stability/v1/user/balance", "authorization", "Bearer "),
    ("/replicate/v1/account", "authorization", "Bearer "),
    ("/google/v1beta/models?pageSize=1", "x-goog-api-key", ""),
];

impl Accounts {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Arc::new(Desk::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            desk,
            _server: server,
        }
    }

    /// From now on this provider answers so.
    fn say(&self, provider: &'static str, status: u16, body: &Value) {
        let mut answers = self.desk.answers.lock().unwrap();
        answers.insert(provider, (status, body.to_string()));
    }

    /// An Easel whose providers have their accounts here.
    async fn easel(&self) -> App {
        let mut builder = App::builder().await;
        for (provider, path) in [
            ("openai", "/v1"),
            ("stability", ""),
            ("replicate", "/v1"),
            ("google", "/v1beta"),
        ] {
            let base_url = format!("http://{}/{provider}{path}", self.address);
            builder = builder
                .set(&format!("providers.{provider}.adapter"), provider)
                .set(&format!("providers.{provider}.base_url"), base_url)
                .set(&format!("providers.{provider}.api_key"), KEY);
        }
        builder.start().await
    }
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = format!("{} {}", head.method, head.uri);
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let question = QUESTIONS
        .iter()
        .find(|(path, ..)| asked == format!("GET {path}"));
    let reply = |status, body: String| {
        let response = Response::builder().status(status);
        let response = response.header("content-type", "application/json");
        response.body(Body::from(body)).unwrap()
    };
    let Some((path, header, prefix)) = question.filter(|_| body.is_empty()) else {
        desk.wrong.lock().unwrap().push(asked);
        return reply(404, json!({}).to_string());
    };
    let key = head
        .headers
        .get(*header)
        .and_then(|value| value.to_str().ok());
    if key != Some(&format!("{prefix}{KEY}")) {
        desk.wrong.lock().unwrap().push(format!("{asked}: {key:?}"));
    }
    desk.asked.lock().unwrap().push(asked);
    let provider = path.split('/').nth(1).unwrap();
    let (status, body) = desk.answers.lock().unwrap()[provider].clone();
    reply(status, body)
}

/// What was found of each, by name.
fn findings(output: &Output) -> BTreeMap<String, Value> {
    let document = output.json();
    let findings = document["online"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            (
                finding["what"].as_str().unwrap().to_owned(),
                finding.clone(),
            )
        })
        .collect()
}

fn assert_finding(found: &BTreeMap<String, Value>, what: &str, state: &str, words: &[&str]) {
    let finding = &found[what];
    assert_eq!(finding["state"], state, "{finding}");
    for word in words {
        assert!(finding.to_string().contains(word), "{word}: {finding}");
    }
    assert!(!finding.to_string().contains(KEY), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_asked_for_free() {
    let accounts = Accounts::open().await;
    accounts.say("openai", 200, &json!({"object": "list", "data": []}));
    accounts.say("stability", 200, &json!({"credits": 412.5}));
    accounts.say(
        "replicate",
        200,
        &json!({"type": "user", "username": "somebody"}),
    );
    accounts.say("google", 200, &json!({"models": []}));
    let mut app = accounts.easel().await;
    let output = app.run(&["check", "--online", "--json"]).expect_success();
    let found = findings(&output);
    assert_finding(&found, "database", "ok", &["PostgreSQL", "up to date"]);
    assert_finding(&found, "store", "ok", &["can be written"]);
    assert_finding(&found, "provider openai", "ok", &["the key works"]);
    assert_finding(&found, "provider stability", "ok", &["412.5 credits"]);
    assert_finding(&found, "provider replicate", "ok", &["the token works"]);
    assert_finding(&found, "provider google", "ok", &["the key works"]);
    assert_finding(&found, "provider sandbox", "ok", &["on this machine"]);
    // Nobody's name of our account is worth a line.
    assert!(!output.stdout.contains("somebody"));
    assert!(!found.contains_key("provider vertex"), "it is off");
    let wrong = accounts.desk.wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(accounts.desk.asked.lock().unwrap().len(), 4);

    // For people: the same, as a table; and nobody is asked unless it is wanted.
    let output = app.run(&["check", "--online"]).expect_success();
    assert!(output.stdout.contains("412.5 credits"), "{output:?}");
    app.run(&["check"]).expect_success();
    assert_eq!(accounts.desk.asked.lock().unwrap().len(), 8);

    // What is not there yet is not made by asking.
    let elsewhere = tempfile::tempdir().unwrap();
    let store = elsewhere.path().join("a").join("b");
    app.configure(|settings| {
        settings.set("images.store", format!("file:{}", store.display()));
    });
    let output = app.run(&["check", "--online", "--json"]).expect_success();
    let words = ["not there yet", "serve makes it"];
    assert_finding(&findings(&output), "store", "warning", &words);
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
    app.configure(|settings| {
        settings.remove("images.store");
    });
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_is_said_with_what_to_do() {
    let accounts = Accounts::open().await;
    let app = accounts.easel().await;
    let openai = |status| json!({"error": {"message": format!("no {KEY}"), "code": status}});
    let stability =
        json!({"id": "1", "name": "unauthorized", "message": "missing or invalid api key"});
    let google = json!({"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
            "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}]}});
    accounts.say("openai", 401, &openai(401));
    accounts.say("stability", 401, &stability);
    accounts.say(
        "replicate",
        401,
        &json!({"title": "Unauthenticated", "status": 401}),
    );
    accounts.say("google", 400, &google);
    let output = app.run(&["check", "--online", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = findings(&output);
    for (provider, variable) in [
        ("openai", "OPENAI_API_KEY"),
        ("stability", "STABILITY_API_KEY"),
        ("replicate", "REPLICATE_API_TOKEN"),
        ("google", "GEMINI_API_KEY"),
    ] {
        let section = format!("[providers.{provider}] api_key");
        let words = ["refused our key", &section, variable];
        assert_finding(&found, &format!("provider {provider}"), "failed", &words);
    }

    accounts.say("openai", 403, &openai(403));
    accounts.say("stability", 200, &json!({"credits": 3}));
    accounts.say("replicate", 503, &json!({}));
    accounts.say(
        "google",
        429,
        &json!({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}),
    );
    let output = app.run(&["check", "--online", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = findings(&output);
    assert_finding(
        &found,
        "provider openai",
        "warning",
        &["restricted", "only painting tells"],
    );
    assert_finding(
        &found,
        "provider stability",
        "warning",
        &["3 credits", "balance is low"],
    );
    assert_finding(
        &found,
        "provider replicate",
        "failed",
        &["HTTP 503", "ask again later"],
    );
    let google = &found["provider google"];
    assert_eq!(google["state"], "failed", "{google}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_is_said_with_the_address() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let google = FakeGoogle::start().await;
    google.refuse_account();
    let builder = App::builder().await;
    let key_file = google.key_file(builder.directory());
    let mut app = builder
        .set(
            "providers.vertex.credentials_file",
            key_file.to_str().unwrap(),
        )
        .set("providers.vertex.base_url", google.vertex_base_url())
        .start()
        .await;
    app.configure(|settings| {
        settings
            .set("providers.openai.base_url", format!("http://{nobody}/v1"))
            .set(
                "database.url",
                format!("postgres://easel:hidden@{nobody}/easel"),
            )
            .set("images.store", "file:/proc/no/such/place")
            .set("listen", "0.0.0.0:8080");
    });
    let output = app.run(&["check", "--online", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!format!("{output:?}").contains("hidden"), "{output:?}");
    let found = findings(&output);
    let address = nobody.to_string();
    assert_finding(&found, "database", "failed", &["DATABASE_URL"]);
    assert_finding(&found, "store", "failed", &["/proc/no/such/place"]);
    assert_finding(&found, "public_url", "warning", &["their own machine"]);
    let words = ["nobody listens there", &address];
    assert_finding(&found, "provider openai", "failed", &words);
    let words = ["credentials_file", "clock"];
    assert_finding(&found, "provider vertex", "failed", &words);
    let url = app.database.url().to_owned();
    app.configure(|settings| {
        settings
            .set("database.url", url)
            .set("listen", "127.0.0.1:0")
            .remove("images.store");
    });
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_does_not_do_is_said() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let s3 = S3Server::start().await;
    let mut app = App::start().await;
    app.keep_secret(SECRET, "the secret of the bucket");
    let mut check = |store: &str, endpoint: String, secret: &str| {
        app.configure(|settings| {
            settings
                .set("images.store", store)
                .set("images.s3.endpoint", endpoint)
                .set("images.s3.access_key_id", KEY_ID)
                .set("images.s3.secret_access_key", secret)
                .remove("providers.openai");
        });
        let output = app.run(&["check", "--online", "--json"]);
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
        let found = findings(&output);
        let is_well = found["store"]["state"] == "ok";
        assert_eq!(output.status.success(), is_well, "{output:?}");
        found
    };
    let here = format!("s3://{BUCKET}/easel");
    let found = check(&here, s3.endpoint(), SECRET);
    let words = ["can be written, read and listed", &here];
    assert_finding(&found, "store", "ok", &words);
    assert!(s3.keys().is_empty(), "the probe is gone again");

    let found = check("s3://nowhere/easel", s3.endpoint(), SECRET);
    let words = ["no such bucket", "s3://nowhere/easel"];
    assert_finding(&found, "store", "failed", &words);

    let found = check(&here, s3.endpoint(), "another-secret");
    let words = ["could not write", "refuses", "credentials"];
    assert_finding(&found, "store", "failed", &words);

    s3.trouble(
        Method::PUT,
        Trouble::Refuse(403, "AccessDenied"),
        usize::MAX,
    );
    let found = check(&here, s3.endpoint(), SECRET);
    let words = ["could not write", "AccessDenied", "may they put"];
    assert_finding(&found, "store", "failed", &words);
    s3.calm();

    s3.trouble(
        Method::POST,
        Trouble::Refuse(403, "AccessDenied"),
        usize::MAX,
    );
    let found = check(&here, s3.endpoint(), SECRET);
    let words = ["could not delete in", "AccessDenied"];
    assert_finding(&found, "store", "failed", &words);
    s3.calm();

    let found = check(&here, format!("http://{nobody}"), SECRET);
    let words = ["may this machine connect", "endpoint"];
    assert_finding(&found, "store", "failed", &words);
    app.finish().await;
}
