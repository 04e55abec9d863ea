//! A server that says exactly what a test tells it to, byte by byte, on a real socket.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// One thing the server does.
#[derive(Clone)]
pub(in crate::providers) enum Step {
    Send(String),
    Pause(Duration),
    /// The same text for ever.
    Repeat(&'static str),
    /// Nothing for ever.
    Hang,
}

/// What a request gets: steps, after which the connection is closed.
pub(in crate::providers) type Script = Vec<Step>;

/// The server; stops when dropped.
pub(in crate::providers) struct Fake {
    pub(in crate::providers) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Answers each request with what `script` makes of its text.
    pub(in crate::providers) async fn start(
        script: impl Fn(&str) -> Script + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                connections.spawn(async move { serve(stream, &seen, &*script).await });
            }
        });
        Self {
            address,
            requests,
            _tasks: tasks,
        }
    }

    /// Answers every request with these steps.
    pub(in crate::providers) async fn always(script: Script) -> Self {
        Self::start(move |_| script.clone()).await
    }

    pub(in crate::providers) fn base_url(&self) -> String {
        format!("{}/v1", self.origin())
    }

    pub(in crate::providers) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, heads in lower case.
    pub(in crate::providers) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str) -> Script + Send + Sync),
) {
    let Some(request) = read(&mut stream).await else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    for step in script(&request) {
        let sent = match step {
            Step::Send(text) => stream.write_all(text.as_bytes()).await,
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Step::Repeat(text) => loop {
                if let Err(error) = stream.write_all(text.as_bytes()).await {
                    break Err(error);
                }
            },
            Step::Hang => std::future::pending().await,
        };
        if sent.is_err() {
            return;
        }
    }
    stream.shutdown().await.ok();
}

/// Reads one request with its body, of which what is no text is replaced.
async fn read(stream: &mut TcpStream) -> Option<String> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = memchr::memmem::find(&bytes, HEAD_END) else {
            continue;
        };
        let (head, body) = bytes.split_at(end + HEAD_END.len());
        let head = String::from_utf8_lossy(head).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |digits| digits.parse().unwrap());
        if body.len() >= length {
            return Some(head + &String::from_utf8_lossy(body));
        }
    }
}

/// A whole answer.
pub(in crate::providers) fn answer(status: u16, headers: &[&str], body: &str) -> Script {
    let length = format!("content-length: {}", body.len());
    let headers = [headers, &[&*length]].concat();
    vec![head(status, &headers), Step::Send(body.to_owned())]
}

/// The head of an answer.
pub(in crate::providers) fn head(status: u16, headers: &[&str]) -> Step {
    let lines = headers.join("\r\n");
    let end = if headers.is_empty() { "" } else { "\r\n" };
    Step::Send(format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\n{lines}{end}\r\n"
    ))
}
