//! Edits and variations over real sockets: the forms that go out, and what comes back.

use bytes::Bytes;

use super::*;
use crate::{
    images::Upload,
    providers::{Inputs, testing::png},
};

const ANSWER: &str = r#"{"created":7,"data":[{"b64_json":"AAAA"}]}"#;

fn upload(width: u32, height: u32) -> Upload {
    Upload::from_bytes(png(width, height)).unwrap()
}

fn jpeg() -> Upload {
    let mut file = std::io::Cursor::new(Vec::new());
    let painted = image::RgbImage::new(8, 8);
    painted
        .write_to(&mut file, image::ImageFormat::Jpeg)
        .unwrap();
    Upload::from_bytes(file.into_inner().into()).unwrap()
}

fn edit(images: Vec<Upload>, mask: Option<Upload>) -> Task {
    Task::Edit(Arc::new(Inputs { images, mask }))
}

/// A field of a form: name, file name, content type, and the content if it is text.
type Part = (String, Option<String>, Option<String>, Option<String>);

/// The parts of the only request that came, and its path.
async fn sent(call: &Call) -> (String, Vec<Part>) {
    let fake = Fake::always(answer(200, &[JSON], ANSWER)).await;
    let (outcome, pictures) = make(call, &config(fake.base_url())).await;
    outcome.unwrap();
    assert_eq!(pictures.whole(), ["AAAA"]);
    let requests = fake.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.contains("authorization: bearer sk-test-secret"));
    assert!(
        !head.contains("transfer-encoding"),
        "it has a length: {head}"
    );
    let line = head.lines().next().unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let (_, boundary) = head
        .split_once("content-type: multipart/form-data; boundary=")
        .unwrap();
    let boundary = boundary.lines().next().unwrap();
    let parts = body
        .split(&format!("--{boundary}"))
        .skip(1)
        .take_while(|part| !part.starts_with("--"))
        .map(|part| {
            let (head, content) = part.split_once("\r\n\r\n").unwrap();
            let head = head.to_lowercase();
            let quoted = |key: &str| {
                let (_, rest) = head.split_once(&format!(" {key}=\""))?;
                Some(rest.split('"').next().unwrap().to_owned())
            };
            let content_type = head
                .lines()
                .find_map(|line| line.strip_prefix("content-type: "));
            let file_name = quoted("filename");
            let text = file_name.is_none().then(|| content.trim_end().to_owned());
            (
                quoted("name").unwrap(),
                file_name,
                content_type.map(str::to_owned),
                text,
            )
        })
        .collect();
    (path, parts)
}

fn text(name: &str, value: &str) -> Part {
    (name.to_owned(), None, None, Some(value.to_owned()))
}

fn file(name: &str, file_name: &str, content_type: &str) -> Part {
    let some = |text: &str| Some(text.to_owned());
    (name.to_owned(), some(file_name), some(content_type), None)
}

#[tokio::test]
async fn edits_are_forms() {
    let written = json!({
        "model": "gpt-image-2", "prompt": "An otter", "size": "1024x1024", "output_format": "jpeg",
        "output_compression": 80, "user": "reader-7",
    });
    let fields = [
        text("model", "gpt-image-2"),
        text("n", "1"),
        text("output_compression", "80"),
        text("output_format", "jpeg"),
        text("prompt", "An otter"),
        text("size", "1024x1024"),
        text("user", "reader-7"),
    ];
    let with = |files: &[Part]| [&fields, files].concat();

    let one = call_for(&written, edit(vec![upload(4, 4)], None));
    let expected = with(&[file("image", "image.png", "image/png")]);
    assert_eq!(sent(&one).await, ("/v1/images/edits".to_owned(), expected));

    let several = edit(vec![upload(4, 4), jpeg()], Some(upload(4, 4)));
    let expected = with(&[
        file("image[]", "image-1.png", "image/png"),
        file("image[]", "image-2.jpeg", "image/jpeg"),
        file("mask", "mask.png", "image/png"),
    ]);
    assert_eq!(sent(&call_for(&written, several)).await.1, expected);
}

#[tokio::test]
async fn dall_e_is_asked_for_base64_and_varies() {
    let written = json!({ "model": "dall-e-2", "prompt": "An otter", "size": "256x256" });
    let (path, parts) = sent(&call_for(&written, edit(vec![upload(4, 4)], None))).await;
    assert_eq!(path, "/v1/images/edits");
    assert!(parts.contains(&text("response_format", "b64_json")));

    let (path, parts) = sent(&call_for(&written, Task::Vary(Arc::new(upload(4, 4))))).await;
    assert_eq!(path, "/v1/images/variations");
    let expected = [
        text("model", "dall-e-2"),
        text("n", "1"),
        text("response_format", "b64_json"),
        text("size", "256x256"),
        file("image", "image.png", "image/png"),
    ];
    assert_eq!(parts, expected);

    // Its form has only the older of the end user's two names.
    let written = json!({
        "model": "dall-e-2", "prompt": "An otter", "size": "256x256", "safety_identifier": "s-1", "user": "u-1",
    });
    let (_, parts) = sent(&call_for(&written, Task::Vary(Arc::new(upload(4, 4))))).await;
    assert!(parts.contains(&text("user", "s-1")), "{parts:?}");
    let (_, parts) = sent(&call_for(&written, edit(vec![upload(4, 4)], None))).await;
    assert!(
        parts.contains(&text("safety_identifier", "s-1")),
        "{parts:?}"
    );
    assert!(parts.contains(&text("user", "u-1")), "{parts:?}");
}

#[tokio::test]
async fn the_usual_moderation_is_not_said_to_forms() {
    let written = json!({ "model": "gpt-image-2", "prompt": "An otter", "moderation": "auto" });
    let (_, parts) = sent(&call_for(&written, edit(vec![upload(4, 4)], None))).await;
    assert!(!format!("{parts:?}").contains("moderation"), "{parts:?}");
}

#[tokio::test]
async fn edits_stream() {
    let stream = "event: image_edit.partial_image\ndata: {\"type\":\"image_edit.partial_image\",\"b64_json\":\"AAAA\",\"partial_image_index\":0}\n\nevent: image_edit.completed\ndata: {\"type\":\"image_edit.completed\",\"b64_json\":\"CCCC\"}\n\n";
    let fake = Fake::always(answer(200, &["content-type: text/event-stream"], stream)).await;
    let written = json!({
        "model": "gpt-image-2", "prompt": "An otter", "stream": true, "partial_images": 1,
    });
    let call = call_for(&written, edit(vec![upload(4, 4)], None));
    let (outcome, pictures) = make(&call, &config(fake.base_url())).await;
    outcome.unwrap();
    assert_eq!(pictures.drafts, [(0, "AAAA".to_owned(), true)]);
    assert_eq!(pictures.whole(), ["CCCC"]);
    let request = &fake.requests()[0];
    assert!(
        request.contains("name=\"stream\"\r\n\r\ntrue\r\n"),
        "{request}"
    );
    assert!(
        request.contains("name=\"partial_images\"\r\n\r\n1\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn what_an_endpoint_has_no_field_for_is_not_dropped() {
    let fake = Fake::always(answer(200, &[JSON], ANSWER)).await;
    let written = json!({ "model": "gpt-image-2", "prompt": "An otter", "moderation": "low" });
    let call = call_for(&written, edit(vec![upload(4, 4)], None));
    let (outcome, _) = make(&call, &config(fake.base_url())).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert_eq!(error.param.as_deref(), Some("moderation"));
    assert!(fake.requests().is_empty());
}

/// A PNG with a comment of so many bytes.
fn heavy_png(bytes: u32) -> Bytes {
    let picture = png(4, 4);
    let (head, rest) = picture.split_at(33);
    let comment = vec![b'x'; bytes as usize];
    [head, &bytes.to_be_bytes(), b"tEXt", &comment, &[0; 4], rest]
        .concat()
        .into()
}

#[tokio::test]
async fn half_an_upload_is_no_request() {
    // Takes the connection and what fits into its buffers.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ProviderConfig {
        timeout: Duration::from_millis(500),
        ..config(format!("http://{}/v1", deaf.local_addr().unwrap()))
    };
    let written = json!({ "model": "gpt-image-2", "prompt": "An otter" });
    let heavy = Upload::from_bytes(heavy_png(32 * 1024 * 1024)).unwrap();
    let (outcome, _) = make(&call_for(&written, edit(vec![heavy], None)), &config).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout { sent: false });
    assert!(!error.maybe_charged);

    // A small one is out, as far as one can know.
    let (outcome, _) = make(&call_for(&written, edit(vec![upload(4, 4)], None)), &config).await;
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Timeout { sent: true });
}

#[tokio::test]
async fn a_refusal_before_the_end_of_the_upload_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 4096]).await.unwrap();
        let body =
            r#"{"error":{"message":"no","type":null,"param":null,"code":"invalid_api_key"}}"#;
        let head = format!("HTTP/1.1 401 X\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let written = json!({ "model": "gpt-image-2", "prompt": "An otter" });
    let heavy = Upload::from_bytes(heavy_png(32 * 1024 * 1024)).unwrap();
    let (outcome, _) = make(
        &call_for(&written, edit(vec![heavy], None)),
        &config(base_url),
    )
    .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth, "{error}");
}
