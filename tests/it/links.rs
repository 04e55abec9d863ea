//! Hosted pictures: the headers they come with, who may open a link and for how long.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use crate::support::{App, Key, until, until_some};

async fn one_link(app: &App, key: &Key) -> String {
    let request =
        json!({"model": "dall-e-2", "prompt": "a hidden valley in spring", "size": "256x256"});
    app.generate(key, &request).await.expect(200).link(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_comes_with_safe_headers() {
    let app = App::start().await;
    let key = app.live_key("1");
    let link = one_link(&app, &key).await;
    let file = app.open_link(&link).await.expect(200);
    assert_eq!(file.header("content-type"), "image/png");
    assert_eq!(file.header("content-length"), file.bytes.len().to_string());
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    assert!(file.header("content-disposition").starts_with("inline"));
    assert!(
        file.header("cache-control").contains("max-age="),
        "{}",
        file.header("cache-control")
    );
    // A link is the permission: no key is needed, and HEAD tells the same as GET.
    let path = link.strip_prefix(&app.easel.origin()).unwrap();
    let head = app
        .client
        .send(app.client.request(reqwest::Method::HEAD, path))
        .await
        .expect(200);
    assert_eq!(head.header("content-length"), file.bytes.len().to_string());
    assert!(head.bytes.is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_begin_with_the_public_url() {
    let app = App::builder()
        .await
        .set("public_url", "https://pictures.example.com/easel")
        .start()
        .await;
    let key = app.live_key("1");
    let link = one_link(&app, &key).await;
    assert!(
        link.starts_with("https://pictures.example.com/easel/files/img_"),
        "{}",
        link.split('?').next().unwrap()
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_link_is_forbidden() {
    let app = App::start().await;
    let key = app.live_key("1");
    let link = one_link(&app, &key).await;
    let other = one_link(&app, &key).await;
    let (path, query) = link.split_once('?').unwrap();
    let (other_path, _) = other.split_once('?').unwrap();
    let expires = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("expires="))
        .unwrap();
    let signature = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("signature="))
        .unwrap();
    let later = format!("{}", expires.parse::<i64>().unwrap() + 3600);
    let mut broken = signature.to_owned();
    broken.replace_range(..1, if signature.starts_with('A') { "B" } else { "A" });
    for (case, changed) in [
        ("another picture", format!("{other_path}?{query}")),
        (
            "another format",
            format!("{}?{query}", path.replace(".png", ".jpeg")),
        ),
        (
            "a later end",
            format!("{path}?expires={later}&signature={signature}"),
        ),
        (
            "another signature",
            format!("{path}?expires={expires}&signature={broken}"),
        ),
        ("no signature", format!("{path}?expires={expires}")),
        ("no query", path.to_owned()),
        (
            "nonsense",
            format!("{path}?expires=tomorrow&signature=please"),
        ),
    ] {
        let answer = app.open_link(&changed).await;
        assert!(
            matches!(answer.status, 403 | 404),
            "{case}: {}",
            answer.status
        );
        if case != "another format" {
            assert_eq!(answer.status, 403, "{case}");
        }
        answer.problem();
    }
    app.open_link(&link).await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_pictures_are_not_found_or_forbidden() {
    let app = App::start().await;
    for path in [
        "/files/",
        "/files/../easel.toml",
        "/files/img_1.png",
        "/files/%2e%2e%2feasel.toml?expires=1&signature=x",
        "/files/x.exe?expires=9999999999&signature=x",
    ] {
        let answer = app.client.get(path, None).await;
        assert!(
            matches!(answer.status, 403 | 404),
            "{path}: {}",
            answer.status
        );
        answer.problem();
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_expires() {
    let app = App::builder()
        .await
        .set("images.url_ttl", "1s")
        .start()
        .await;
    let key = app.live_key("1");
    let link = one_link(&app, &key).await;
    app.open_link(&link).await.expect(200);
    let problem = until_some("the link ends", async || {
        let answer = app.open_link(&link).await;
        (answer.status == 410).then(|| answer.problem())
    })
    .await;
    assert!(!problem.message.contains("signature="), "{problem:?}");
    app.finish().await;
}

/// A picture that nobody can fetch any more is deleted: the store does not grow for ever.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_over_are_swept_from_the_disk() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    one_link(&app, &key).await;
    let kept = one_link(&app, &key).await;
    let pictures = app.kept_files();
    assert_eq!(pictures.len(), 2);
    let old = pictures
        .iter()
        .find(|picture| !kept.contains(picture.file_stem().unwrap().to_str().unwrap()))
        .unwrap();
    make_older(old, 3);
    // A sweep comes every minute and at the start; nobody waits for a minute here.
    app.restart().await;
    until("the old one is swept", async || app.kept_files().len() == 1).await;
    let path = kept.split_once("/files/").unwrap().1;
    app.client
        .get(&format!("/files/{path}"), None)
        .await
        .expect(200);
    app.finish().await;
}

/// Every replica, and the process after a restart, agrees on the links: the secret is in the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_break_links() {
    let mut app = App::start().await;
    let key = app.live_key("1");
    let link = one_link(&app, &key).await;
    app.restart().await;
    let path = link
        .split_once("/files/")
        .map(|(_, rest)| format!("/files/{rest}"))
        .unwrap();
    app.client.get(&path, None).await.expect(200);
    app.finish().await;
}

/// Gives a picture the name and place of one that was made some hours before: its age is in its id, and
/// it lies in the directory of its hour.
fn make_older(picture: &Path, hours: u64) {
    let extension = picture.extension().unwrap().to_str().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let then = now.checked_sub(Duration::from_hours(hours)).unwrap();
    let stamp = uuid::Timestamp::from_unix(uuid::NoContext, then.as_secs(), 0);
    let id = uuid::Uuid::new_v7(stamp).simple();
    let hour = chrono::DateTime::from_timestamp(i64::try_from(then.as_secs()).unwrap(), 0).unwrap();
    let directory = picture
        .parent()
        .unwrap()
        .with_file_name(hour.format("%Y%m%d%H").to_string());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::rename(picture, directory.join(format!("img_{id}.{extension}"))).unwrap();
}
