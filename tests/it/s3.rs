//! Pictures in an S3 bucket: kept, served by any replica, swept; and what happens when the bucket does not do
//! what it should.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    App, Behaviour, Client, Easel, Key, Reply, pictures,
    s3::{BUCKET, KEY_ID, S3Server, SECRET, Trouble},
    until,
};
use crate::tls::Signed;

const GENERATIONS: &str = "/v1/images/generations";
const PROMPT: &str = "a bucket that never leaks";

/// An Easel whose pictures are in this bucket. The bucket may take its time.
pub(crate) async fn on(s3: &S3Server, settings: &[(&str, &str)]) -> App {
    let mut builder = App::builder()
        .await
        .set("images.store", format!("s3://{BUCKET}/easel"))
        .set("images.s3.endpoint", s3.endpoint())
        .set("images.s3.access_key_id", KEY_ID)
        .set("images.s3.secret_access_key", SECRET)
        .set("images.s3.timeout", "20s");
    for (key, value) in settings {
        builder = builder.set(key, *value);
    }
    let app = builder.start().await;
    app.keep_secret(SECRET, "the secret of the bucket");
    app
}

fn order(response_format: &str) -> Value {
    json!({"model": "dall-e-2", "prompt": PROMPT, "size": "256x256", "response_format": response_format})
}

/// The provider's next answer is this picture.
fn paint(app: &App, picture: &Bytes) {
    let body = json!({"created": 1_795_000_000, "data": [{"b64_json": STANDARD.encode(picture)}]});
    let reply = Reply::raw(200, "application/json", body.to_string());
    app.openai.next(Behaviour::Reply(reply));
}

/// Larger than two parts of an upload.
fn large() -> Bytes {
    let picture = pictures::noise(2450, 7);
    assert!(picture.len() > 17 << 20);
    picture
}

/// Larger than one.
fn of_two_parts() -> Bytes {
    let picture = pictures::noise(1750, 7);
    assert!(picture.len() > 8 << 20);
    picture
}

/// The path of a link through Easel, which opens at any replica.
fn path_of(link: &str) -> String {
    let (_, rest) = link.split_once("/files/").unwrap();
    format!("/files/{rest}")
}

async fn open(client: &Client, link: &str) -> Bytes {
    client.get(&path_of(link), None).await.expect(200).bytes
}

async fn named(client: &Client, key: &Key, name: &str, body: &Value) -> crate::support::Answer {
    let request = client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("idempotency-key", name)
        .body(body.to_string());
    client.send(request).await
}

fn count(s3: &S3Server, method: &Method, part: &str) -> usize {
    let requests = s3.requests();
    let of_this = requests
        .iter()
        .filter(|(by, path)| by == method && path.contains(part));
    of_this.count()
}

async fn store_of(app: &App) -> Value {
    let ready = app.client.get("/readyz", None).await.expect(200).json();
    assert_eq!(ready["status"], "ready");
    ready["store"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_any_size_are_in_the_bucket_and_links_open_at_any_replica() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    let (small, large) = (pictures::noise(300, 3), large());
    let mut links = Vec::new();
    for picture in [&small, &large] {
        paint(&app, picture);
        let answer = app.generate(&key, &order("url")).await.expect(200);
        links.push((answer.link(0), picture.clone()));
    }
    let second = app.start_replica().await;
    for (link, picture) in &links {
        assert!(open(&app.client, link).await == picture);
        assert!(open(&second.client, link).await == picture);
        let head = second.client.request(Method::HEAD, &path_of(link));
        let head = second.client.send(head).await.expect(200);
        assert_eq!(head.header("content-type"), "image/png");
        assert_eq!(head.header("content-length"), picture.len().to_string());
    }
    // Where they would be in a directory; and nowhere else.
    let name = path_of(&links[0].0);
    let name = name.strip_prefix("/files/").unwrap();
    let name = name.split_once('?').unwrap().0;
    let keys = s3.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let is_in_its_place = |key: &String| {
        let parts: Vec<&str> = key.split('/').collect();
        matches!(parts[..], ["easel", hour, last] if hour.len() == 10 && last == name)
    };
    assert!(keys.iter().any(is_in_its_place), "{keys:?}");
    assert!(app.kept_files().is_empty());
    // The large one came in parts.
    assert_eq!(count(&s3, &Method::POST, "uploads"), 1);
    assert_eq!(count(&s3, &Method::PUT, "partNumber="), 3);
    assert_eq!(s3.unfinished(), 0);
    let figures = app.figures().await;
    let written = small.len() + large.len();
    for line in [
        r#"easel_store_requests_total{action="put",outcome="ok"} 2"#.to_owned(),
        format!(r#"easel_store_bytes_total{{shelf="bucket",direction="written"}} {written}"#),
        format!(r#"easel_store_bytes_total{{shelf="bucket",direction="read"}} {written}"#),
    ] {
        assert!(figures.contains(&line), "{line} in\n{figures}");
    }
    second.stop().await;
    app.finish().await;
}

/// What a client hears to its end needs no copy elsewhere.
/// Those of a page together, and of all pages so many at a time that nobody else waits for long.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_looked_for_together_and_within_a_bound() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    let mut body = order("url");
    body["n"] = json!(2);
    for _ in 0..6 {
        app.generate(&key, &body).await.expect(200);
    }
    s3.trouble(
        Method::HEAD,
        Trouble::Slow(Duration::from_millis(300)),
        usize::MAX,
    );
    let list = async || app.get(&key, GENERATIONS).await.expect(200).json();
    let page = list().await;
    let rows = page["data"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row["data"].as_array().unwrap().len(), 2, "{row}");
    }
    let most = s3.most_at_once(&Method::HEAD);
    assert!((3..=8).contains(&most), "{most}");
    join_all((0..12).map(|_| list())).await;
    let most = s3.most_at_once(&Method::HEAD);
    assert!((9..=64).contains(&most), "{most}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_answers_leave_the_bucket_alone() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    for picture in [pictures::noise(30, 3), pictures::noise(1000, 4)] {
        paint(&app, &picture);
        let answer = app.generate(&key, &order("b64_json")).await.expect(200);
        assert!(answer.picture(0) == picture);
    }
    assert_eq!(s3.keys().len(), 0);
    assert_eq!(app.kept_files().len(), 2);
    // Unless somebody wants links, which have to open anywhere.
    let shown = app.get(&key, GENERATIONS).await.expect(200).json();
    let second = app.start_replica().await;
    for generation in shown["data"].as_array().unwrap() {
        let link = generation["data"][0]["url"].as_str().unwrap();
        open(&second.client, link).await;
    }
    assert_eq!((s3.keys().len(), app.kept_files().len()), (2, 0));
    second.stop().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presigned_links_open_at_the_bucket() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[("images.links", "presigned")]).await;
    let key = app.live_key("1");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for picture in [pictures::noise(300, 3), of_two_parts()] {
        paint(&app, &picture);
        let answer = app.generate(&key, &order("url")).await.expect(200);
        let id = answer.header("x-generation-id").to_owned();
        let shown = app
            .get(&key, &format!("{GENERATIONS}/{id}"))
            .await
            .expect(200);
        for link in [answer.link(0), shown.link(0)] {
            let begin = format!("{}/{BUCKET}/easel/", s3.endpoint());
            assert!(link.starts_with(&begin));
            let (bare, signature) = link.split_once("X-Amz-Signature=").unwrap();
            app.keep_secret(signature, "the signature of a presigned link");
            let seconds = bare.split("X-Amz-Expires=").nth(1).unwrap();
            let seconds: u64 = seconds.split('&').next().unwrap().parse().unwrap();
            assert!((1..=3600).contains(&seconds), "{seconds}");
            let opened = http.get(&link).send().await.unwrap();
            assert_eq!(opened.status(), 200);
            assert_eq!(opened.headers()["content-type"], "image/png");
            assert_eq!(opened.headers()["content-disposition"], "inline");
            assert!(opened.bytes().await.unwrap() == picture);
            // Nothing else opens with it.
            let other = link.replace(".png?", ".jpeg?");
            let refused = http.get(other).send().await.unwrap().status();
            assert_eq!(refused, 403);
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_can_be_asked_for_again_at_any_replica() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let picture = pictures::noise(300, 3);
    for format in ["b64_json", "url"] {
        paint(&app, &picture);
        let first = named(&app.client, &key, format, &order(format))
            .await
            .expect(200);
        let again = named(&second.client, &key, format, &order(format))
            .await
            .expect(200);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.json()["usage"], first.json()["usage"]);
        if format == "url" {
            assert!(open(&second.client, &again.link(0)).await == picture);
        } else {
            assert!(again.picture(0) == picture);
        }
        let id = first.header("x-generation-id");
        let shown = format!("{GENERATIONS}/{id}?response_format=b64_json");
        let shown = second
            .client
            .get(&shown, Some(&key.secret))
            .await
            .expect(200);
        assert!(shown.picture(0) == picture);
        let shown = format!("{GENERATIONS}/{id}");
        let shown = second
            .client
            .get(&shown, Some(&key.secret))
            .await
            .expect(200);
        assert!(open(&second.client, &shown.link(0)).await == picture);
    }
    second.stop().await;
    app.finish().await;
}

/// Of several calls an answer is put together from the store.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_several_calls_is_read_from_the_bucket() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.test_key("1");
    let order =
        json!({"model": "sd3.5-medium", "prompt": PROMPT, "n": 3, "response_format": "b64_json"});
    let answer = app.generate(&key, &order).await.expect(200);
    for index in 0..3 {
        assert_eq!(pictures::measure(&answer.picture(index)).format, "png");
    }
    assert_eq!((s3.keys().len(), app.kept_files().len()), (3, 0));
    assert_eq!(count(&s3, &Method::GET, ".png"), 3);
    app.finish().await;
}

/// A client that left before the end finds its picture at whichever replica its repeat comes to.
#[tokio::test(flavor = "multi_thread")]
async fn who_left_during_a_relayed_answer_finds_it_in_the_bucket() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let picture = of_two_parts();
    paint(&app, &picture);
    let request = app
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .body(order("b64_json").to_string());
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    // The whole picture has arrived and is charged; the client has read a little of it.
    until("it is charged", async || app.charges().await == 1).await;
    assert_eq!(s3.keys().len(), 0);
    drop(response);
    until("it is in the bucket", async || {
        s3.keys().len() == 1 && app.kept_files().is_empty()
    })
    .await;

    let again = second
        .client
        .request(Method::POST, GENERATIONS)
        .bearer_auth(&key.secret)
        .header("content-type", "application/json")
        .header("x-stainless-retry-count", "1")
        .body(order("b64_json").to_string());
    let again = second.client.send(again).await.expect(200);
    assert!(again.picture(0) == picture);
    assert_eq!(app.charges().await, 1);
    second.stop().await;
    app.finish().await;
}

/// A picture of some hours ago, put there behind everybody's back.
fn put_old(s3: &S3Server, hours: u64, number: u32) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let then = now.checked_sub(Duration::from_hours(hours)).unwrap();
    let stamp = uuid::Timestamp::from_unix(uuid::NoContext, then.as_secs(), number);
    let id = uuid::Uuid::new_v7(stamp).simple();
    let seconds = i64::try_from(then.as_secs()).unwrap();
    let hour = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    let hour = hour.format("%Y%m%d%H").to_string();
    let directory = s3.bucket().join("easel").join(&hour);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("img_{id}.png")), b"x").unwrap();
    format!("easel/{hour}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_swept_in_batches_by_any_replica() {
    let s3 = S3Server::start().await;
    for number in 0..1100 {
        put_old(&s3, 5, number);
    }
    let hour = put_old(&s3, 30, 1);
    let foreign = [
        format!("{hour}/notes.txt"),
        format!("{hour}/deep/img_{}.png", "0".repeat(32)),
        "easel/2020010100/img_0.png".to_owned(),
        "easel/readme.md".to_owned(),
        "other/2020010100/file.png".to_owned(),
    ];
    for key in &foreign {
        let path = s3.bucket().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"theirs").unwrap();
    }
    let app = on(&s3, &[]).await;
    let second = app.start_replica().await;
    let key = app.live_key("1");
    let link = app.generate(&key, &order("url")).await.expect(200).link(0);
    until("only what is ours and over is gone", async || {
        s3.keys().len() == foreign.len() + 1
    })
    .await;
    let keys = s3.keys();
    assert!(foreign.iter().all(|key| keys.contains(key)), "{keys:?}");
    open(&second.client, &link).await;
    // Not one by one.
    assert_eq!(count(&s3, &Method::DELETE, ""), 0);
    let batches = count(&s3, &Method::POST, "delete");
    assert!((3..=10).contains(&batches), "{batches}");
    second.stop().await;
    app.finish().await;
}

/// What is over in a moment is nobody's problem.
#[tokio::test(flavor = "multi_thread")]
async fn short_troubles_of_the_bucket_are_not_seen() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    let picture = pictures::noise(300, 3);
    for trouble in [
        Trouble::Refuse(503, "SlowDown"),
        Trouble::Refuse(500, "InternalError"),
        Trouble::Break,
        Trouble::Slow(Duration::from_millis(500)),
    ] {
        s3.trouble(Method::PUT, trouble.clone(), 2);
        paint(&app, &picture);
        let answer = app.generate(&key, &order("url")).await.expect(200);
        for trouble in [trouble, Trouble::CutAfter(100_000), Trouble::CutAfter(0)] {
            s3.trouble(Method::GET, trouble, 1);
            assert!(open(&app.client, &answer.link(0)).await == picture);
        }
        s3.calm();
    }
    assert_eq!(s3.keys().len(), 4);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_costs_nobody_anything_and_stops_no_base64() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    for trouble in [
        Trouble::Refuse(500, "InternalError"),
        Trouble::Refuse(507, "StorageFull"),
        Trouble::Refuse(403, "AccessDenied"),
        Trouble::Break,
    ] {
        s3.trouble(Method::PUT, trouble.clone(), usize::MAX);
        let problem = app.refuse(&key, 502, &order("url")).await;
        assert_eq!(problem.code(), "storage_error", "{trouble:?}: {problem:?}");
        // Now it is known, and no provider is paid for what cannot be kept.
        let calls = app.openai.calls().len();
        let problem = app.refuse(&key, 502, &order("url")).await;
        assert_eq!(problem.code(), "storage_error", "{trouble:?}: {problem:?}");
        assert_eq!(app.openai.calls().len(), calls, "{trouble:?}");
        assert_eq!(store_of(&app).await, "unavailable");

        let answer = app.generate(&key, &order("b64_json")).await.expect(200);
        answer.picture(0);
        assert_eq!(s3.keys().len(), 0, "{trouble:?}");

        s3.calm();
        // A probe tells for a second.
        until("it is well again", async || store_of(&app).await == "ready").await;
        let link = app.generate(&key, &order("url")).await.expect(200).link(0);
        open(&app.client, &link).await;
        for key in s3.keys() {
            std::fs::remove_file(s3.bucket().join(key)).unwrap();
        }
    }
    assert_eq!(app.kept_files().len(), 4, "of the answers in base64");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_silent_is_not_waited_for() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[("images.s3.timeout", "1s")]).await;
    let key = app.live_key("1");
    s3.trouble(Method::PUT, Trouble::Silence, usize::MAX);
    let problem = app.refuse(&key, 502, &order("url")).await;
    assert_eq!(problem.code(), "storage_error");
    app.generate(&key, &order("b64_json")).await.expect(200);
    assert_eq!(s3.keys().len(), 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_halfway_is_taken_back() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    paint(&app, &of_two_parts());
    // Not the probes; the first part, and the one after it for as long as it is tried.
    s3.trouble(Method::PUT, Trouble::Slow(Duration::ZERO), 1);
    s3.trouble(Method::PUT, Trouble::Refuse(503, "SlowDown"), usize::MAX);
    let problem = app.refuse(&key, 502, &order("url")).await;
    assert_eq!(problem.code(), "storage_error");
    assert_eq!(s3.unfinished(), 0);
    assert_eq!(count(&s3, &Method::DELETE, "uploadId="), 1);
    assert_eq!((s3.keys().len(), app.kept_files().len()), (0, 0));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_waited_for() {
    let mut s3 = S3Server::start().await;
    s3.stop().await;
    let app = on(&s3, &[]).await;
    let key = app.live_key("1");
    assert_eq!(store_of(&app).await, "unavailable");
    let problem = app.refuse(&key, 502, &order("url")).await;
    assert_eq!(problem.code(), "storage_error");
    assert_eq!(app.openai.calls().len(), 0);
    app.generate(&key, &order("b64_json")).await.expect(200);

    s3.start_again().await;
    until("it is found", async || store_of(&app).await == "ready").await;
    let link = app.generate(&key, &order("url")).await.expect(200).link(0);
    open(&app.client, &link).await;

    // And later: what was made before is in the bucket, which cannot be read now.
    s3.stop().await;
    let problem = app
        .client
        .get(&path_of(&link), None)
        .await
        .expect(500)
        .problem();
    assert!(!problem.message.contains("127.0.0.1"), "{problem:?}");
    let problem = app.refuse(&key, 502, &order("url")).await;
    assert_eq!(problem.code(), "storage_error");
    app.generate(&key, &order("b64_json")).await.expect(200);
    s3.start_again().await;
    until("it is found again", async || {
        store_of(&app).await == "ready"
    })
    .await;
    open(&app.client, &link).await;
    app.finish().await;
}

/// What an operator has to mend is said at the start, and not by the first client.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_us_is_found_out_at_the_start() {
    let s3 = S3Server::start().await;
    let app = on(&s3, &[]).await;
    let file = app.config_file();
    let file = file.to_str().unwrap();
    for (variable, value, expected) in [
        (
            "EASEL__IMAGES__S3__SECRET_ACCESS_KEY",
            "wrong-wrong-wrong",
            "SignatureDoesNotMatch",
        ),
        (
            "EASEL__IMAGES__S3__ACCESS_KEY_ID",
            "AKIASOMEBODYELSE",
            "InvalidAccessKeyId",
        ),
        (
            "EASEL__IMAGES__STORE",
            "s3://another-bucket/easel",
            "there is no such bucket",
        ),
        ("EASEL__IMAGES__S3__CA_FILE", "/nowhere.pem", "/nowhere.pem"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let environment = [
            ("EASEL__DATA_DIR", data_dir.to_str().unwrap()),
            (variable, value),
        ];
        let started = Easel::try_serve(directory.path(), &["--config", file], &environment).await;
        let Err(output) = started else {
            panic!("it started with {variable}={value}");
        };
        let output = output.expect_failure(1);
        assert!(
            output.stderr.contains(expected),
            "{expected} in {output:#?}"
        );
        assert!(!output.stderr.contains("wrong-wrong-wrong"), "{output:#?}");
        assert!(!output.stderr.contains(SECRET), "{output:#?}");
    }
    app.finish().await;
}

/// A store of the operator's own, with a certificate that only his authority vouches for.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_tls_may_have_an_authority_of_its_own() {
    let signed = Signed::new();
    let s3 = S3Server::start_with_tls(&signed.cert, &signed.key).await;
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("authority.pem");
    std::fs::write(&ca_file, &signed.authority).unwrap();
    let ca_file = ca_file.to_str().unwrap();
    let mut app = on(&s3, &[("images.s3.ca_file", ca_file)]).await;
    let key = app.live_key("1");
    assert_eq!(store_of(&app).await, "ready");
    for picture in [pictures::noise(300, 3), of_two_parts()] {
        paint(&app, &picture);
        let link = app.generate(&key, &order("url")).await.expect(200).link(0);
        assert!(open(&app.client, &link).await == picture);
    }
    let keys = s3.keys();
    let pictures = keys.iter().filter(|key| key.contains("/img_"));
    assert_eq!(pictures.count(), 2, "{keys:?}");

    // Whom nobody vouches for is told nothing.
    let (calls, requests) = (app.openai.calls().len(), s3.requests().len());
    app.configure(|settings| {
        settings.remove("images.s3.ca_file");
    });
    app.restart().await;
    assert_eq!(store_of(&app).await, "unavailable");
    let problem = app.refuse(&key, 502, &order("url")).await;
    assert_eq!(problem.code(), "storage_error");
    let log = app.easel.stderr();
    assert!(log.contains("invalid peer certificate"), "{log}");
    assert_eq!(
        (app.openai.calls().len(), s3.requests().len()),
        (calls, requests)
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_survive_other_credentials() {
    let s3 = S3Server::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let place = |name: &str| secrets.path().join(name);
    let write = |id: &str, secret: &str| {
        std::fs::write(place("id"), format!("{id}\n")).unwrap();
        std::fs::write(place("secret"), format!("{secret}\n")).unwrap();
    };
    write(KEY_ID, SECRET);
    let (id, secret) = (place("id"), place("secret"));
    let (id, secret) = (
        format!("${{file:{}}}", id.display()),
        format!("${{file:{}}}", secret.display()),
    );
    let settings = [
        ("images.s3.access_key_id", id.as_str()),
        ("images.s3.secret_access_key", secret.as_str()),
    ];
    let mut app = on(&s3, &settings).await;
    let key = app.live_key("1");
    let link = app.generate(&key, &order("url")).await.expect(200).link(0);
    let picture = open(&app.client, &link).await;

    let (new_id, new_secret) = ("AKIAROTATED", "another-secret-0123456789-abcdefghij");
    s3.replace_keys(new_id, new_secret);
    write(new_id, new_secret);
    app.keep_secret(new_secret, "the secret of the bucket");
    app.restart().await;
    assert!(open(&app.client, &link).await == picture);
    let next = app.generate(&key, &order("url")).await.expect(200).link(0);
    open(&app.client, &next).await;
    app.finish().await;
}
