//! What uploads can do to a server: routes that need them twice, many at once, and hostile bodies.

use std::{sync::Arc, sync::Mutex, time::Duration};

use axum::{Router, body::Bytes, extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt as _, stream};
use memchr::memmem;
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    edits::{BOUNDARY, EDITS, form, png, post as post_form, square, text},
    support::{App, pictures, raw::Raw, until_some},
};

const PROMPT: &str = "two ferries in a lantern's light";

/// A server of OpenAI's dialect that keeps the forms it is sent.
struct Painter {
    origin: String,
    forms: Arc<Mutex<Vec<Bytes>>>,
    _server: JoinSet<()>,
}

impl Painter {
    async fn start(works: bool) -> Self {
        let forms = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}/v1", listener.local_addr().unwrap());
        let answer = async move |State(forms): State<Arc<Mutex<Vec<Bytes>>>>, form: Bytes| {
            forms.lock().unwrap().push(form);
            let picture = STANDARD.encode(pictures::paint("png", 256, 256, 1, false));
            let body = json!({"created": 1, "data": [{"b64_json": picture}]});
            if works {
                Ok(axum::Json(body))
            } else {
                Err(axum::http::StatusCode::SERVICE_UNAVAILABLE)
            }
        };
        let router = Router::new()
            .route("/v1/images/edits", post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&forms));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            origin,
            forms,
            _server: server,
        }
    }

    fn forms(&self) -> Vec<Bytes> {
        self.forms.lock().unwrap().clone()
    }
}

const MODEL: &str = r#"
[[model]]
id = "test/editor"
name = "Editor"
created = 1795132800
owned_by = "test"
status = "active"

[model.rules]
prompt = { max_chars = 1000 }
n = { min = 1, max = 1, default = 1 }
size = { values = ["256x256"], default = "256x256" }
response_format = { values = ["url", "b64_json"], default = "b64_json" }

[model.rules.edits]
images = { max = 3 }
mask = {}

[[model.routes]]
provider = "nobody"
upstream_model = "dall-e-2"
price = { per_image = [{ price = "0.040" }] }
edits = { max_images = 0 }

[[model.routes]]
provider = "broken"
upstream_model = "dall-e-2"
price = { per_image = [{ price = "0.030" }] }

[[model.routes]]
provider = "whole"
upstream_model = "dall-e-2"
price = { per_image = [{ price = "0.010" }] }
edits = { mask = false, price = { per_image = [{ price = "0.020" }] } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_route_gets_the_same_bytes() {
    let (broken, whole) = (Painter::start(false).await, Painter::start(true).await);
    let builder = App::builder().await.with_other_upstreams();
    let mut builder = builder.models(MODEL);
    for (name, origin) in [
        ("nobody", &whole.origin),
        ("broken", &broken.origin),
        ("whole", &whole.origin),
    ] {
        builder = builder
            .set(&format!("providers.{name}.adapter"), "openai")
            .set(&format!("providers.{name}.base_url"), origin.as_str());
    }
    let app = builder.start().await;
    let key = app.live_key("1");
    // Beyond what stays in memory, and of bytes that nobody would mistake for others.
    let large = pictures::paint("png", 1500, 1000, 77, true);
    assert!(large.len() > 100_000, "{}", large.len());
    let parts = [
        text("model", "test/editor"),
        text("prompt", PROMPT),
        png("image[]", &large),
        png("image[]", &square()),
    ];
    let body = post_form(&app, &key, EDITS, form(&parts))
        .await
        .expect(200)
        .json();
    assert_eq!(body["provider"], "whole");
    assert_eq!(body["usage"]["cost"], json!(0.02), "the price of an edit");
    for painter in [&broken, &whole] {
        let [form] = &painter.forms()[..] else {
            panic!("one form each")
        };
        for picture in [&large[..], &square()] {
            assert_eq!(
                memmem::find_iter(form, picture).count(),
                1,
                "the picture, byte for byte"
            );
        }
    }
    // A mask only the broken one takes, and more pictures than any of them takes.
    let mask = pictures::paint("png", 1500, 1000, 78, true);
    let masked = [&parts[..], &[png("mask", &mask)]].concat();
    let problem = post_form(&app, &key, EDITS, form(&masked)).await;
    assert!(problem.status >= 500, "{}", problem.status);
    assert_eq!(whole.forms().len(), 1, "who takes no mask is not asked");
    assert_eq!(app.balance(&key).await, json!(0.98));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_bounded_together() {
    let app = App::builder()
        .await
        .set("limits.upload_spool", 6 << 20)
        .start()
        .await;
    let key = app.test_key("50");
    // A chunk that nobody reads makes a picture as heavy as one likes.
    let heavy = heavy(1 << 20);
    let parts = [
        text("model", "easel/sandbox"),
        text("prompt", PROMPT),
        text("size", "64x64"),
        png("image", &heavy),
    ];
    let body = form(&parts);
    let answers = stream::iter(0..64)
        .map(|_| post_form(&app, &key, EDITS, body.clone()))
        .buffer_unordered(64)
        .collect::<Vec<_>>()
        .await;
    let mut served = 0;
    for answer in answers {
        if answer.status == 200 {
            served += 1;
            continue;
        }
        let problem = answer.expect(503).problem();
        assert_eq!(problem.code(), "server_is_overloaded");
    }
    assert!(served > 0);
    // And all of the room is free again.
    for _ in 0..3 {
        post_form(&app, &key, EDITS, body.clone()).await.expect(200);
    }
    let left = std::fs::read_dir(app.directory().join("data/uploads")).unwrap();
    assert_eq!(left.count(), 0, "uploads have no names");
    app.finish().await;
}

/// A PNG of about this many bytes.
fn heavy(bytes: u32) -> Vec<u8> {
    let mut png = square();
    let end = png.split_off(png.len() - 12);
    png.extend(bytes.to_be_bytes());
    png.extend(b"paDd");
    png.extend(vec![7; usize::try_from(bytes).unwrap() + 4]);
    png.extend(end);
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_forms_are_refused_in_time() {
    let app = App::builder()
        .await
        .set("limits.upload", 4 << 20)
        .set("limits.upload_picture", 1 << 20)
        .set("limits.upload_pictures", 4)
        .set("limits.body_idle_timeout", "500ms")
        .start()
        .await;
    let key = app.live_key("5");
    let base = || vec![text("model", "gpt-image-2"), text("prompt", PROMPT)];
    let many = (0..500)
        .map(|number| text(&format!("f{number}"), "x"))
        .collect();
    for (parts, status, param, code) in [
        (
            [base(), vec![png("image", &heavy(1 << 20))]].concat(),
            413,
            "image",
            "file_above_max_size",
        ),
        (
            [base(), vec![png("image", &square()); 5]].concat(),
            400,
            "image",
            "array_above_max_length",
        ),
        (many, 400, "", "invalid_form"),
        (
            vec![text("prompt", &"x".repeat(1 << 21))],
            413,
            "",
            "request_too_large",
        ),
        (vec![text(&"n".repeat(9000), "x")], 400, "", "invalid_form"),
        (
            vec![text("a[b][c][d][e][f]", "x")],
            400,
            "a[b][c][d][e][f]",
            "unknown_parameter",
        ),
    ] {
        let problem = post_form(&app, &key, EDITS, form(&parts))
            .await
            .expect(status)
            .problem();
        assert_eq!(
            (problem.param(), problem.code()),
            (param, code),
            "{}",
            problem.message
        );
    }
    // More than there may be in all, announced or not.
    let body = vec![b'x'; 5 << 20];
    post_form(&app, &key, EDITS, body).await.expect(413);
    let endless = stream::iter((0..200).map(|number| {
        let head = if number == 0 {
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=prompt\r\n\r\n")
        } else {
            "x".repeat(32 * 1024)
        };
        Ok::<_, std::io::Error>(head)
    }));
    let request = app
        .client
        .request(Method::POST, EDITS)
        .bearer_auth(&key.secret)
        .header(
            "content-type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(reqwest::Body::wrap_stream(endless));
    app.client.send(request).await.expect(413);

    // Two gigabytes, announced; and the wrong key, which is found out before a byte of the body.
    for (secret, length, expected) in [
        (&key.secret, 2_u64 << 30, "HTTP/1.1 413"),
        (&"ek_live_nobody".to_owned(), 1000, "HTTP/1.1 401"),
    ] {
        let mut raw = Raw::connect(app.easel.port()).await;
        raw.send(&format!(
            "POST {EDITS} HTTP/1.1\r\nhost: easel\r\nauthorization: Bearer {secret}\r\nexpect: 100-continue\r\n\
             connection: close\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        let answer = raw.read_to_end(Duration::from_secs(15)).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    // A pause in the middle of a picture.
    let whole = form(&[base(), vec![png("image", &square())]].concat());
    let mut raw = Raw::connect(app.easel.port()).await;
    raw.send(&format!(
        "POST {EDITS} HTTP/1.1\r\nhost: easel\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: {}\r\n\r\n--{BOUNDARY}\r\n\
         content-disposition: form-data; name=image; filename=a\r\n\r\n",
        key.secret,
        whole.len(),
    ))
    .await;
    let answer = raw.read_to_end(Duration::from_secs(15)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    // Other types, and none.
    for (content_type, status) in [
        (Some("text/plain"), 415),
        (Some("multipart/form-data"), 400),
        (Some("multipart/form-data; boundary="), 400),
        (None, 415),
    ] {
        let mut request = app
            .client
            .request(Method::POST, EDITS)
            .bearer_auth(&key.secret);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        app.client
            .send(request.body(whole.clone()))
            .await
            .expect(status)
            .problem();
    }
    assert_eq!(app.balance(&key).await, json!(5));
    assert!(app.openai.calls().is_empty());
    app.finish().await;
}

/// Who cannot pay is told before many megabytes are kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_pays_for_is_not_read() {
    let app = App::start().await;
    let poor = app.create_key(&[]);
    let limited = app.create_key(&["--credit", "1", "--rpm", "1"]);
    app.refuse(&limited, 400, &json!({"model": "dall-e-2", "prompt": 7}))
        .await;
    for (key, status) in [(&poor, "402"), (&limited, "429")] {
        let mut raw = Raw::connect(app.easel.port()).await;
        let head = Raw::post(EDITS, &key.secret, "").replace("length: 0", "length: 1000000");
        raw.send(&head).await;
        let answer = raw.read(4096).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_leaves_room_for_the_uploads_of_others() {
    let app = App::builder()
        .await
        .set("limits.upload", 2 << 20)
        .set("limits.upload_spool", 4 << 20)
        .start()
        .await;
    let (greedy, other) = (app.test_key("5"), app.test_key("5"));
    let heavy = heavy(1_000_000);
    let reference = format!("data:image/png;base64,{}", STANDARD.encode(&heavy));
    let body =
        json!({"model": "easel/sandbox", "prompt": PROMPT, "images": [{"image_url": reference}]});
    let sent = Raw::post(EDITS, &greedy.secret, &body.to_string());
    let mut half = Raw::connect(app.easel.port()).await;
    half.send(&sent[..sent.len() - 1000]).await;

    let parts = [
        text("model", "easel/sandbox"),
        text("prompt", PROMPT),
        text("size", "64x64"),
        png("image", &heavy),
    ];
    let full = until_some("the half is being read", async || {
        let answer = post_form(&app, &greedy, EDITS, form(&parts)).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(full.expect(503).problem().code(), "server_is_overloaded");
    post_form(&app, &other, EDITS, form(&parts))
        .await
        .expect(200);
    drop(half);
    app.finish().await;
}
