//! The provider: answers `POST /v1/images/generations` in OpenAI's form as fast as a socket takes it.
//!
//! The prompt names the answer. Answers are made once, at the start, so that this process costs little
//! beside the ones that are measured.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::pictures;

/// How long the provider of the `waiting` scenario paints.
pub(crate) const PAINTING: Duration = Duration::from_secs(10);
/// What a stream's final picture waits for after its draft.
const DRAFT_AHEAD: Duration = Duration::from_millis(200);

struct Answers {
    tiny: Vec<u8>,
    two: Vec<u8>,
    eight: Vec<u8>,
    draft: Vec<u8>,
    completed: Vec<u8>,
}

/// Serves until it is killed; prints its address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let answers = Arc::new(Answers {
        tiny: answer(&pictures::tiny()),
        two: answer(&pictures::mebibytes(2)),
        eight: answer(&pictures::mebibytes(8)),
        draft: event("partial_image", "\"partial_image_index\":0"),
        completed: event("completed", USAGE),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        #[expect(
            clippy::disallowed_methods,
            reason = "the process ends by being killed"
        )]
        tokio::spawn(async move { drop(converse(client, &answers).await) });
    }
}

const USAGE: &str = "\"usage\":{\"total_tokens\":292,\"input_tokens\":20,\"output_tokens\":272,\
    \"input_tokens_details\":{\"text_tokens\":20,\"image_tokens\":0}}";
const COMMON: &str = "\"background\":\"opaque\",\"output_format\":\"png\",\"quality\":\"low\",\"size\":\"1024x1024\"";

fn answer(picture: &[u8]) -> Vec<u8> {
    let body = format!(
        "{{\"created\":1762000000,{COMMON},\"data\":[{{\"b64_json\":\"{}\"}}],{USAGE}}}",
        BASE64_STANDARD.encode(picture)
    );
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body.as_bytes());
    answer
}

/// One event as a chunk of a chunked body.
fn event(name: &str, more: &str) -> Vec<u8> {
    let name = format!("image_generation.{name}");
    let event = format!(
        "event: {name}\ndata: {{\"type\":\"{name}\",\"b64_json\":\"{}\",\"created_at\":1762000000,{COMMON},{more}}}\n\n",
        BASE64_STANDARD.encode(pictures::tiny())
    );
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

async fn converse(mut client: TcpStream, answers: &Answers) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let length = loop {
            if let Some(length) = request_length(&buffer)?
                && buffer.len() >= length
            {
                break length;
            }
            if client.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let request = &buffer[..length];
        let asks = |word: &str| memmem::find(request, word.as_bytes()).is_some();
        if asks("\"a stream\"") {
            client
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                .await?;
            client.write_all(&answers.draft).await?;
            sleep(DRAFT_AHEAD).await;
            client.write_all(&answers.completed).await?;
            client.write_all(b"0\r\n\r\n").await?;
        } else if asks("\"two mebibytes\"") {
            client.write_all(&answers.two).await?;
        } else if asks("\"eight mebibytes\"") {
            client.write_all(&answers.eight).await?;
        } else {
            if asks("\"a long wait\"") {
                sleep(PAINTING).await;
            }
            client.write_all(&answers.tiny).await?;
        }
        buffer.drain(..length);
    }
}

/// How long the request at the front of `buffer` is, once its head is there.
fn request_length(buffer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = memmem::find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .context("a request without content-length")?;
    Ok(Some(head + 4 + length.trim().parse::<usize>()?))
}
