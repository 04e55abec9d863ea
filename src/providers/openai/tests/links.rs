//! Result links: what is fetched, what is refused, and what is sent along.

use super::*;

/// A server whose answers are the `data` made from its own address, and whose files are those of `file`.
async fn server(
    data: impl Fn(&str) -> String + Send + Sync + 'static,
    file: impl Fn(&str) -> Option<fake::Script> + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |request| {
        let host = request
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap();
        if request.starts_with("post ") {
            return answer(200, &[JSON], &format!("{{\"data\":[{}]}}", data(host)));
        }
        let path = request.split(' ').nth(1).unwrap();
        file(path).unwrap_or_else(|| answer(404, &[], "no such file"))
    })
    .await
}

fn files(path: &str) -> Option<fake::Script> {
    let redirect = |to: &str| Some(answer(302, &[&format!("location: {to}")], ""));
    match path {
        "/a.png" => Some(answer(200, &["content-type: image/png"], "file a")),
        "/b.png" => Some(answer(200, &[], "file b")),
        "/one-hop" => redirect("/a.png"),
        "/three-hops" => redirect("/two-hops"),
        "/two-hops" => redirect("one-hop"),
        "/four-hops" => redirect("/three-hops"),
        "/circle" => redirect("/circle"),
        "/nowhere" => Some(answer(302, &[], "")),
        "/elsewhere" => redirect("http://10.0.0.1/a.png"),
        "/metadata" => redirect("http://169.254.169.254/latest/meta-data"),
        "/file" => redirect("file:///etc/passwd"),
        "/large" => Some(vec![head(200, &["content-length: 65537"]), Step::Hang]),
        "/endless" => Some(vec![head(200, &[]), Step::Repeat("endless ")]),
        "/torso" => Some(vec![
            head(200, &["content-length: 100"]),
            Step::Send("torso".to_owned()),
        ]),
        "/silent" => Some(vec![head(200, &["content-length: 100"]), Step::Hang]),
        _ => None,
    }
}

/// A server whose answers hold one link, to `path` on itself.
async fn linking(path: &'static str) -> Fake {
    server(
        move |host| format!(r#"{{"url":"http://{host}{path}"}}"#),
        files,
    )
    .await
}

/// The message after an answer with one link.
async fn refusal(path: &'static str) -> String {
    let fake = linking(path).await;
    let (outcome, pictures) = outcome(&config(fake.base_url())).await;
    assert!(pictures.whole().is_empty(), "{path}");
    outcome.unwrap_err().message
}

#[tokio::test]
async fn links_are_fetched_in_order() {
    let fake = server(
        |host| {
            format!(
                r#"{{"url":"http://{host}/a.png","revised_prompt":"p"}},
                   {{"b64_json":"AAAA"}},
                   {{"url":"http://{host}/b.png"}},
                   {{"url":"data:image/png;base64,BBBB"}}"#
            )
        },
        files,
    )
    .await;
    let (outcome, pictures) = generate(&config(fake.base_url()), 4).await;
    let report = outcome.unwrap();
    assert_eq!(report.announced, 4);
    assert_eq!(report.revised_prompts, [Some("p".to_owned())]);
    let expected = [
        (Encoding::Raw, "file a"),
        (Encoding::Base64, "AAAA"),
        (Encoding::Raw, "file b"),
        (Encoding::Base64, "BBBB"),
    ]
    .map(|(encoding, content)| (encoding, content.to_owned(), true));
    assert_eq!(pictures.taken, expected);
}

#[tokio::test]
async fn three_redirects_are_followed() {
    for path in ["/one-hop", "/three-hops"] {
        let fake = linking(path).await;
        let (outcome, pictures) = outcome(&config(fake.base_url())).await;
        outcome.unwrap();
        assert_eq!(pictures.whole(), ["file a"], "{path}");
    }
}

#[tokio::test]
async fn links_that_lead_nowhere_good_are_refused() {
    for (path, why) in [
        ("/four-hops", "more than 3 redirects"),
        ("/circle", "more than 3 redirects"),
        ("/nowhere", "redirects nowhere"),
        ("/missing", "answers 404"),
        (
            "/elsewhere",
            "10.0.0.1 is not among the provider's result_hosts",
        ),
        (
            "/metadata",
            "169.254.169.254 is not among the provider's result_hosts",
        ),
        ("/file", "its scheme is file"),
        ("/large", "larger than 65536 bytes"),
        ("/endless", "larger than 65536 bytes"),
    ] {
        let message = refusal(path).await;
        assert!(message.contains(why), "{path}: {message}");
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_is_no_picture() {
    let fake = linking("/torso").await;
    let torso = error(&config(fake.base_url())).await;
    assert_eq!(torso.kind, ErrorKind::Malformed);
    let fake = linking("/silent").await;
    let silent = error(&ProviderConfig {
        idle_timeout: Duration::from_millis(200),
        ..config(fake.base_url())
    })
    .await;
    assert_eq!(silent.kind, ErrorKind::Timeout { sent: true });
}

#[tokio::test]
async fn a_lost_link_loses_its_picture_only() {
    let fake = server(
        |host| {
            format!(
                r#"{{"url":"http://{host}/missing","revised_prompt":"lost"}},
                   {{"url":"http://{host}/a.png","revised_prompt":"kept"}}"#
            )
        },
        files,
    )
    .await;
    let (outcome, pictures) = outcome(&config(fake.base_url())).await;
    let report = outcome.unwrap();
    assert_eq!(pictures.whole(), ["file a"]);
    assert_eq!(report.announced, 2);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.refused[0].kind, ErrorKind::Malformed);
    assert_eq!(report.revised_prompts, [Some("kept".to_owned())]);
}

/// What breaks off is fetched again, and goes on where it broke off: the sink takes nothing twice.
#[tokio::test]
async fn a_file_that_breaks_off_goes_on_where_it_did() {
    for (torsos, becomes, expected) in [
        (&["file"][..], 6, Ok("file a")),
        (&["file", "fi"], 6, Ok("file a")),
        (&["file", "", ""], 6, Err("broke off")),
        // Another length is another file.
        (&["file"], 7, Err("another one")),
    ] {
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let fake = server(
            |host| format!(r#"{{"url":"http://{host}/a.png"}}"#),
            move |_| {
                let number = tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let torso = torsos.get(number).copied();
                let length = if torso.is_some() { 6 } else { becomes };
                Some(vec![
                    head(200, &[&format!("content-length: {length}")]),
                    Step::Send(
                        torso.unwrap_or("file a.")[..]
                            .chars()
                            .take(length)
                            .collect(),
                    ),
                ])
            },
        )
        .await;
        let (outcome, pictures) = outcome(&config(fake.base_url())).await;
        match expected {
            Ok(content) => {
                outcome.unwrap();
                assert_eq!(pictures.whole(), [content], "{torsos:?}");
            }
            Err(why) => {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Malformed);
                assert!(error.message.contains(why), "{torsos:?}: {error}");
                assert!(pictures.whole().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_hiccup_is_forgiven_once() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let fake = server(
        |host| format!(r#"{{"url":"http://{host}/a.png"}}"#),
        move |path| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Some(Vec::new()),
            _ => files(path),
        },
    )
    .await;
    let (outcome, pictures) = outcome(&config(fake.base_url())).await;
    outcome.unwrap();
    assert_eq!(pictures.whole(), ["file a"]);
}

#[tokio::test]
async fn other_hosts_are_asked_only_when_listed_and_never_see_the_key() {
    let files = server(|_| String::new(), files).await;
    let port = files.address.port();
    let fake = server(
        move |_| format!(r#"{{"url":"http://localhost:{port}/a.png"}}"#),
        |_| None,
    )
    .await;
    let listing = |entries: &[String]| ProviderConfig {
        result_hosts: entries.to_vec(),
        ..config(fake.base_url())
    };
    for entries in [
        vec![],
        vec!["example.com".to_owned()],
        vec!["127.0.0.1".to_owned()],
        vec!["localhost:1".to_owned()],
    ] {
        let message = error(&listing(&entries)).await.message;
        assert!(
            message.contains("localhost is not among"),
            "{entries:?}: {message}"
        );
    }
    assert!(files.requests().is_empty());
    for entries in [
        vec!["localhost".to_owned()],
        vec![format!("localhost:{port}")],
    ] {
        let (outcome, pictures) = outcome(&listing(&entries)).await;
        outcome.unwrap();
        assert_eq!(pictures.whole(), ["file a"]);
    }
    for request in files.requests() {
        assert!(request.starts_with("get /a.png "), "{request}");
        assert!(!request.contains("authorization"), "{request}");
    }
    assert!(
        fake.requests()
            .iter()
            .all(|request| request.contains("authorization"))
    );
}

#[tokio::test]
async fn the_providers_own_server_sees_its_key_again() {
    let fake = linking("/a.png").await;
    outcome(&config(fake.base_url())).await.0.unwrap();
    assert!(fake.requests()[1].contains("authorization: bearer sk-test-secret"));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_unless_listed_literally() {
    let files = server(|_| String::new(), files).await;
    let port = files.address.port();
    let fake = server(
        move |_| format!(r#"{{"url":"http://files.cdn.test:{port}/a.png"}}"#),
        |_| None,
    )
    .await;
    for (entry, opens) in [("cdn.test", false), ("files.cdn.test", true)] {
        let config = ProviderConfig {
            result_hosts: vec![entry.to_owned()],
            ..config(fake.base_url())
        };
        let Settings { base_url, headers } = Settings::read(&config).unwrap();
        let http = HttpClient::new("painter", base_url, headers, &config, MAX_PICTURE_BYTES)
            .unwrap()
            .with_lookup(|_| Box::pin(async { Ok(vec!["127.0.0.1:0".parse().unwrap()]) }));
        let mut pictures = Pictures::default();
        let outcome = OpenAi { http }.generate(&call(1), &mut pictures).await;
        if opens {
            outcome.unwrap();
            assert_eq!(pictures.whole(), ["file a"]);
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(
                error.message.contains("leads to a private address"),
                "{error}"
            );
            assert!(files.requests().is_empty());
        }
    }
}

#[tokio::test]
async fn an_https_provider_links_to_https_only() {
    let config = config("https://api.example.com/v1".to_owned());
    let Settings { base_url, headers } = Settings::read(&config).unwrap();
    let http = HttpClient::new("painter", base_url, headers, &config, MAX_PICTURE_BYTES).unwrap();
    let attempt = http.begin(call(1).deadline).unwrap();
    for (link, why) in [
        ("http://api.example.com/a.png", "its scheme is http"),
        ("https://example.org/a.png", "example.org is not among"),
        ("https://[::ffff:127.0.0.1]/a.png", "is not among"),
        ("no link", "is no URL"),
        ("", "is no URL"),
    ] {
        let Err(error) = attempt.open_link(link).await else {
            panic!("{link} opened");
        };
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains(why), "{link}: {error}");
    }
}
