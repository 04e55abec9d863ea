//! The service account over real sockets: one token for many calls, renewed early, replaced when refused.
//! What a call does otherwise is tested against the strict fake in `tests/it/google.rs`.

use std::{
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;

use super::Google;
use crate::{
    catalog::{Catalog, Parameter, Params, Unsupported, Value},
    config::{CloudConfig, ProviderConfig},
    providers::{
        Call, ErrorKind, Provider as _, ProviderError, Report,
        testing::{
            Pictures,
            fake::{Fake, Script, Step, answer},
        },
    },
};

const JSON: &str = "content-type: application/json";
const KEY: &str = include_str!("../../../tests/it/support/fake_google/key.pem");
const PAINTED: &str = r#"{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}}]}}]}"#;

/// A token server and a Vertex in one, and the account that uses them.
struct Cloud {
    fake: Fake,
    tokens: Arc<AtomicUsize>,
    google: Google,
    _directory: TempDir,
}

impl Cloud {
    /// `token` answers the nth request for a token, `paint` calls with that token.
    async fn start(
        token: impl Fn(usize) -> Script + Send + Sync + 'static,
        paint: impl Fn(&str) -> Script + Send + Sync + 'static,
    ) -> Self {
        let tokens = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&tokens);
        let fake = Fake::start(move |request| {
            if request.starts_with("post /token ") {
                token(counter.fetch_add(1, Ordering::SeqCst))
            } else {
                let bearer = request.split("authorization: bearer ").nth(1).unwrap();
                paint(bearer.lines().next().unwrap())
            }
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("account.json");
        let document = json!({
            "type": "service_account",
            "project_id": "otters",
            "private_key_id": "k1",
            "private_key": KEY,
            "client_email": "painter@otters.iam.gserviceaccount.com",
            "token_uri": format!("http://{}/token", fake.address),
        });
        std::fs::write(&path, document.to_string()).unwrap();
        let google = Google::with_account("vertex", &config(&fake, path), 1 << 20).unwrap();
        Self {
            fake,
            tokens,
            google,
            _directory: directory,
        }
    }

    async fn paint(&self) -> Result<Report, ProviderError> {
        let catalog = Catalog::load(None).unwrap();
        let model = Arc::clone(catalog.find("nano-banana-2.1").unwrap());
        let params = Params::from([(Parameter::Prompt, Value::Text("An otter".to_owned()))]);
        let (request, _) = model.rules.check(&params, Unsupported::Reject).unwrap();
        let call = Call {
            task: crate::providers::Task::Generate,
            request: Arc::new(request),
            n: NonZeroU8::MIN,
            first: 0,
            route: Arc::clone(&model.routes[0]),
            model,
            deadline: tokio::time::Instant::now() + Duration::from_secs(30),
            may_be_stopped: false,
        };
        self.google
            .generate(&call, &mut Pictures::default())
            .await
            .inspect_err(|error| {
                let shown = format!("{error:?}");
                for secret in ["127.0.0.1", "token-", "PRIVATE", "otters"] {
                    assert!(!shown.contains(secret), "shows {secret}: {shown}");
                }
            })
    }

    fn tokens(&self) -> usize {
        self.tokens.load(Ordering::SeqCst)
    }
}

fn config(fake: &Fake, credentials_file: std::path::PathBuf) -> ProviderConfig {
    ProviderConfig {
        adapter: "vertex".to_owned(),
        api_key: None,
        max_in_flight: 100,
        cloud: Some(CloudConfig {
            credentials_file,
            project: None,
            location: "us-central1".to_owned(),
        }),
        ..crate::providers::testing::config(fake.base_url())
    }
}

/// The nth token, good for so many seconds.
fn token(number: usize, seconds: u64) -> Script {
    let body = json!({ "access_token": format!("token-{number}"), "expires_in": seconds, "token_type": "Bearer" });
    answer(200, &[JSON], &body.to_string())
}

fn painted(_: &str) -> Script {
    answer(200, &[JSON], PAINTED)
}

#[tokio::test]
async fn one_token_serves_many() {
    let slow = |number| {
        let mut script = vec![Step::Pause(Duration::from_millis(200))];
        script.extend(token(number, 3600));
        script
    };
    let cloud = Cloud::start(slow, painted).await;
    for outcome in join_all((0..20).map(|_| cloud.paint())).await {
        outcome.unwrap();
    }
    cloud.paint().await.unwrap();
    assert_eq!(cloud.tokens(), 1);
    let requests = cloud.fake.requests();
    let painting = requests.last().unwrap();
    assert!(
        painting.starts_with(
            "post /v1/projects/otters/locations/us-central1/publishers/google/models/gemini-nano-banana-2.1:generatecontent "
        ),
        "{painting}"
    );
    let asking = requests
        .iter()
        .find(|request| request.starts_with("post /token "))
        .unwrap();
    assert!(
        asking.contains("content-type: application/x-www-form-urlencoded")
            && asking.contains(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="
            ),
        "{asking}"
    );
}

#[tokio::test]
async fn a_token_is_renewed_five_minutes_early() {
    // 299 s left is less than five minutes: the next call renews it, and uses the new one. Some servers
    // write the number as text.
    let lifetimes = |number| match number {
        0 => answer(
            200,
            &[JSON],
            r#"{"access_token":"token-0","expires_in":"299"}"#,
        ),
        _ => token(number, 3600),
    };
    let cloud = Cloud::start(lifetimes, painted).await;
    for _ in 0..3 {
        cloud.paint().await.unwrap();
    }
    assert_eq!(cloud.tokens(), 2);
    let bearers = cloud
        .fake
        .requests()
        .iter()
        .filter_map(|request| request.split("bearer token-").nth(1)?.chars().next())
        .collect::<String>();
    assert_eq!(bearers, "011");
}

#[tokio::test]
async fn a_renewal_that_fails_or_hangs_holds_nobody_up() {
    let failing = |number| match number {
        0 => token(0, 299),
        _ => answer(503, &[], ""),
    };
    let cloud = Cloud::start(failing, painted).await;
    cloud.paint().await.unwrap();
    // It is tried three times, and the old token serves.
    cloud.paint().await.unwrap();
    assert_eq!(cloud.tokens(), 4);
    // And not again with every call.
    for _ in 0..3 {
        cloud.paint().await.unwrap();
    }
    assert_eq!(cloud.tokens(), 4);

    let hanging = |number| match number {
        0 => token(0, 299),
        _ => vec![Step::Hang],
    };
    let cloud = Cloud::start(hanging, painted).await;
    cloud.paint().await.unwrap();
    // One hangs in the renewal, for a moment; the others do not wait for it.
    let begun = Instant::now();
    let hanging = cloud.paint();
    let others = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            cloud.paint().await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
    };
    let (outcome, ()) = tokio::join!(hanging, others);
    outcome.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(cloud.tokens(), 2);
}

#[tokio::test]
async fn a_token_server_that_stumbles_is_asked_again() {
    for script in [
        answer(503, &[], ""),
        answer(500, &[JSON], r#"{"error":"internal_failure"}"#),
        answer(429, &[], ""),
        vec![],
    ] {
        let stumbling = move |number| match number {
            0 | 1 => script.clone(),
            _ => token(number, 3600),
        };
        let cloud = Cloud::start(stumbling, painted).await;
        cloud.paint().await.unwrap();
        assert_eq!(cloud.tokens(), 3);
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let paint = |bearer: &str| match bearer {
        "token-0" => answer(
            401,
            &[JSON],
            r#"{"error":{"code":401,"status":"UNAUTHENTICATED"}}"#,
        ),
        _ => answer(200, &[JSON], PAINTED),
    };
    let cloud = Cloud::start(|number| token(number, 3600), paint).await;
    cloud.paint().await.unwrap();
    cloud.paint().await.unwrap();
    assert_eq!(cloud.tokens(), 2);

    let cloud = Cloud::start(|number| token(number, 3600), |_| answer(401, &[JSON], "{}")).await;
    let error = cloud.paint().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert!(!error.maybe_charged);
    assert_eq!(cloud.tokens(), 2, "not again and again");
}

#[tokio::test]
async fn a_token_server_that_refuses_is_asked_by_one_for_all_who_wait() {
    for (script, kind, times) in [
        (
            answer(
                400,
                &[JSON],
                r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature for painter@otters."}"#,
            ),
            ErrorKind::Auth,
            1,
        ),
        (answer(200, &[JSON], "{}"), ErrorKind::Auth, 1),
        (answer(200, &[JSON], "<html>"), ErrorKind::Auth, 1),
        (
            answer(429, &[], ""),
            ErrorKind::RateLimited { retry_after: None },
            3,
        ),
        (
            answer(500, &[], ""),
            ErrorKind::Overloaded { retry_after: None },
            3,
        ),
        (vec![], ErrorKind::Transport { sent: false }, 3),
    ] {
        let slow = move |_| {
            let mut script = script.clone();
            script.insert(0, Step::Pause(Duration::from_millis(300)));
            script
        };
        let cloud = Cloud::start(slow, painted).await;
        for outcome in join_all((0..10).map(|_| cloud.paint())).await {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(!error.maybe_charged, "nothing was asked for: {error:?}");
        }
        assert_eq!(cloud.tokens(), times, "{kind:?}");
    }
}

#[test]
fn a_wrong_key_file_is_named_and_not_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("account.json");
    let config = |cloud: CloudConfig| ProviderConfig {
        adapter: "vertex".to_owned(),
        base_url: None,
        api_key: None,
        cloud: Some(cloud),
        ..crate::providers::testing::config(String::new())
    };
    let cloud = |location: &str| CloudConfig {
        credentials_file: path.clone(),
        project: None,
        location: location.to_owned(),
    };
    let problem = |location: &str| {
        Google::with_account("vertex", &config(cloud(location)), 1)
            .map(|_| ())
            .unwrap_err()
    };
    assert!(problem("global").contains("No such file"));
    assert_eq!(
        problem("Mars/1"),
        "location 'Mars/1' is no region such as us-central1, nor us, eu or global"
    );
    for (document, expected) in [
        ("{\"secret\":".to_owned(), "is no service account's key"),
        (
            json!({ "type": "authorized_user", "refresh_token": "secret" }).to_string(),
            "is no service account's key",
        ),
        (
            json!({ "client_email": "a@b", "private_key": "secret" }).to_string(),
            "its private_key is no PEM key",
        ),
        (
            json!({ "client_email": "a@b", "private_key": KEY, "token_uri": "ftp://secret" })
                .to_string(),
            "token_uri 'ftp://secret' must begin with https:// or http://",
        ),
        (
            json!({ "client_email": "a@b", "private_key": KEY }).to_string(),
            "project is not set, and the credentials_file names none",
        ),
        (
            json!({ "client_email": "a@b", "private_key": KEY, "project_id": "a/b" }).to_string(),
            "project 'a/b' is no project's id",
        ),
    ] {
        std::fs::write(&path, &document).unwrap();
        let problem = problem("global");
        assert!(problem.contains(expected), "{document}: {problem}");
        assert!(!problem.contains("\"secret"), "{problem}");
    }
    std::fs::write(
        &path,
        json!({ "client_email": "a@b", "private_key": KEY, "project_id": "p" }).to_string(),
    )
    .unwrap();
    let google = Google::with_account("vertex", &config(cloud("eu")), 1).unwrap();
    assert_eq!(
        format!("{google:?}"),
        r#"Google { name: "vertex", base_url: "https://aiplatform.eu.rep.googleapis.com/v1", path: ["projects", "p", "locations", "eu", "publishers", "google", "models"], .. }"#
    );
}

/// Contract, 2.4: an answer without a picture that judges nothing is worth one more try; all others are not.
#[tokio::test]
async fn a_model_that_paints_nothing_is_asked_once_more() {
    let ends = |reason: &str| {
        let body = json!({ "candidates": [{ "finishReason": reason }], "usageMetadata": { "thoughtsTokenCount": 9 } });
        answer(200, &[JSON], &body.to_string())
    };
    for (first, second, kind, calls) in [
        (ends("NO_IMAGE"), answer(200, &[JSON], PAINTED), None, 2),
        (
            ends("MALFORMED_RESPONSE"),
            answer(200, &[JSON], PAINTED),
            None,
            2,
        ),
        (
            ends("NO_IMAGE"),
            ends("IMAGE_OTHER"),
            Some(ErrorKind::Malformed),
            2,
        ),
        (
            ends("OTHER"),
            ends("IMAGE_SAFETY"),
            Some(ErrorKind::ContentRefused),
            2,
        ),
        (
            ends("MAX_TOKENS"),
            answer(403, &[JSON], "{}"),
            Some(ErrorKind::Auth),
            2,
        ),
        (
            ends("IMAGE_SAFETY"),
            answer(200, &[JSON], PAINTED),
            Some(ErrorKind::ContentRefused),
            1,
        ),
        (
            ends("STOP"),
            answer(200, &[JSON], PAINTED),
            Some(ErrorKind::Malformed),
            1,
        ),
        (
            ends("NEVER_SEEN"),
            answer(200, &[JSON], PAINTED),
            Some(ErrorKind::Malformed),
            1,
        ),
    ] {
        let counter = AtomicUsize::new(0);
        let paint = move |_: &str| match counter.fetch_add(1, Ordering::SeqCst) {
            0 => first.clone(),
            _ => second.clone(),
        };
        let cloud = Cloud::start(|number| token(number, 3600), paint).await;
        let outcome = cloud.paint().await;
        assert_eq!(outcome.as_ref().err().map(|error| error.kind), kind);
        assert!(outcome.err().is_none_or(|error| error.maybe_charged));
        assert_eq!(
            cloud.fake.requests().len() - cloud.tokens(),
            calls,
            "{kind:?}"
        );
    }
}
