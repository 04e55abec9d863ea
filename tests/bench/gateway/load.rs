//! The clients: many connections that ask one thing again and again, and look at how the answers come.
//!
//! HTTP/1.1 by hand, because the generator shares two cores with what it measures. It reads an answer to
//! its declared end and counts everything that is not a 200 with a whole body as an error.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

/// What one run does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// `host:port`
    pub(crate) address: String,
    pub(crate) key: String,
    pub(crate) prompt: String,
    pub(crate) stream: bool,
    pub(crate) connections: u32,
    /// Of them, how many take their answers at [`SLOW`].
    pub(crate) slow: u32,
    /// Requests per connection; without it, as many as the seconds allow.
    pub(crate) requests: Option<u32>,
    pub(crate) seconds: f64,
    /// Requests a second, all connections together; without it, as fast as they are answered.
    pub(crate) rate: Option<f64>,
}

/// What came of it. Times in milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) answers: u64,
    pub(crate) errors: u64,
    pub(crate) body_bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    /// To the first byte of the body.
    pub(crate) first_byte_median_ms: f64,
    /// The first thing that went wrong.
    pub(crate) error: Option<String>,
}

/// What a slow reader takes, and how often.
const SLOW: (usize, Duration) = (256 * 1024, Duration::from_millis(100));

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    first_bytes: Vec<Duration>,
    errors: u64,
    body_bytes: u64,
    error: Option<String>,
}

/// Runs the plan and prints its [`Outcome`].
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<()> {
    let body = serde_json::json!({
        "model": "gpt-image-1",
        "prompt": plan.prompt,
        "size": "1024x1024",
        "quality": "low",
        "stream": plan.stream,
        "partial_images": plan.stream.then_some(1),
    })
    .to_string();
    let request = format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        plan.address,
        plan.key,
        body.len()
    );
    let request: Arc<[u8]> = request.into_bytes().into();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let begin = Instant::now() + Duration::from_millis(50);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..plan.connections {
        let (plan, request, tally) = (plan.clone(), Arc::clone(&request), Arc::clone(&tally));
        clients.spawn(async move {
            let mine = client(&plan, number, &request, begin).await;
            let mut tally = tally.lock().await;
            tally.latencies.extend(mine.latencies);
            tally.first_bytes.extend(mine.first_bytes);
            tally.errors += mine.errors;
            tally.body_bytes += mine.body_bytes;
            tally.error = tally.error.take().or(mine.error);
        });
    }
    clients.join_all().await;
    let seconds = begin.elapsed().as_secs_f64();
    let mut tally = tally.lock().await;
    tally.latencies.sort_unstable();
    tally.first_bytes.sort_unstable();
    let outcome = Outcome {
        answers: tally.latencies.len() as u64,
        errors: tally.errors,
        body_bytes: tally.body_bytes,
        seconds,
        median_ms: quantile(&tally.latencies, 50),
        p99_ms: quantile(&tally.latencies, 99),
        first_byte_median_ms: quantile(&tally.first_bytes, 50),
        error: tally.error.take(),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn client(plan: &Plan, number: u32, request: &[u8], begin: Instant) -> Tally {
    let mut tally = Tally::default();
    let end = begin + Duration::from_secs_f64(plan.seconds);
    let interval = plan
        .rate
        .map(|rate| Duration::from_secs_f64(f64::from(plan.connections) / rate));
    // Connections of a steady load take turns.
    let mut due = begin
        + interval.map_or(Duration::ZERO, |interval| {
            interval.mul_f64(f64::from(number) / f64::from(plan.connections))
        });
    let mut connection: Option<Connection> = None;
    let mut asked = 0;
    while plan
        .requests
        .map_or(due < end && Instant::now() < end, |requests| {
            asked < requests
        })
    {
        sleep_until(due).await;
        asked += 1;
        // From when it was due, so that a server that stalls does not hide the requests behind it.
        let from = if interval.is_some() {
            due
        } else {
            Instant::now()
        };
        match exchange(&mut connection, plan, request, number < plan.slow).await {
            Ok((first_byte, bytes)) => {
                tally.latencies.push(from.elapsed());
                tally.first_bytes.push(first_byte - from);
                tally.body_bytes += bytes;
            }
            Err(error) => {
                tally.errors += 1;
                tally.error.get_or_insert_with(|| format!("{error:#}"));
                connection = None;
                sleep(Duration::from_millis(10)).await;
            }
        }
        due = interval.map_or_else(Instant::now, |interval| due + interval);
    }
    tally
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// One request and its answer: when the first byte of the body came, and how many there were.
async fn exchange(
    connection: &mut Option<Connection>,
    plan: &Plan,
    request: &[u8],
    slow: bool,
) -> anyhow::Result<(Instant, u64)> {
    if connection.is_none() {
        let socket = TcpStream::connect(&plan.address).await.context("connect")?;
        socket.set_nodelay(true)?;
        let buffer = Vec::with_capacity(512 * 1024);
        *connection = Some(Connection { socket, buffer });
    }
    let Some(Connection { socket, buffer }) = connection else {
        bail!("no connection");
    };
    socket.write_all(request).await.context("send")?;
    buffer.clear();
    let head = loop {
        ensure!(socket.read_buf(buffer).await? > 0, "closed before the head");
        if let Some(head) = memmem::find(buffer, b"\r\n\r\n") {
            break head + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    ensure!(
        text.starts_with("http/1.1 200"),
        "{}",
        String::from_utf8_lossy(&buffer[..buffer.len().min(600)])
    );
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let mut end = match length {
        Some(length) => End::Counted(length.trim().parse()?),
        None if text.contains("transfer-encoding: chunked") => {
            End::Chunked(Chunk::Size(Vec::new()))
        }
        None => bail!("an answer without an end"),
    };
    buffer.drain(..head);
    let mut first_byte = None;
    let mut bytes = 0;
    loop {
        if !buffer.is_empty() {
            first_byte.get_or_insert_with(Instant::now);
            bytes += buffer.len() as u64;
            if end.take(buffer)? {
                break;
            }
            buffer.clear();
            if slow {
                sleep(SLOW.1).await;
            }
        }
        let most = if slow { SLOW.0 } else { 512 * 1024 };
        let read = (&mut *socket).take(most as u64).read_buf(buffer).await?;
        ensure!(read > 0, "the answer broke off");
    }
    buffer.clear();
    Ok((first_byte.context("an empty body")?, bytes))
}

/// How an answer ends.
enum End {
    /// After so many more bytes.
    Counted(u64),
    Chunked(Chunk),
}

enum Chunk {
    /// Within the line that says how long the next chunk is.
    Size(Vec<u8>),
    /// Within a chunk and the line end behind it.
    Data(u64),
    /// Within what follows the last chunk.
    Last(u64),
}

impl End {
    /// Takes what came; whether that was the end.
    fn take(&mut self, mut bytes: &[u8]) -> anyhow::Result<bool> {
        loop {
            match self {
                Self::Counted(left) => {
                    *left = left
                        .checked_sub(bytes.len() as u64)
                        .context("more than was declared")?;
                    return Ok(*left == 0);
                }
                Self::Chunked(Chunk::Size(line)) => {
                    let Some((&byte, rest)) = bytes.split_first() else {
                        return Ok(false);
                    };
                    bytes = rest;
                    if byte != b'\n' {
                        line.push(byte);
                        continue;
                    }
                    let size = u64::from_str_radix(std::str::from_utf8(line)?.trim(), 16)?;
                    *self = Self::Chunked(if size == 0 {
                        Chunk::Last(2)
                    } else {
                        Chunk::Data(size + 2)
                    });
                }
                Self::Chunked(Chunk::Data(left) | Chunk::Last(left)) => {
                    let taken = (bytes.len() as u64).min(*left);
                    *left -= taken;
                    bytes = &bytes[usize::try_from(taken)?..];
                    if *left > 0 {
                        return Ok(false);
                    }
                    if matches!(self, Self::Chunked(Chunk::Last(_))) {
                        return Ok(true);
                    }
                    *self = Self::Chunked(Chunk::Size(Vec::new()));
                }
            }
        }
    }
}

/// In milliseconds; of a sorted list.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(place)
        .map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
}
