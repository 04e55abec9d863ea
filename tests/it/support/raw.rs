//! HTTP by hand, for what a decent client cannot send: half a request, a pause, a hang-up.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A connection on which bytes are sent as they are.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Everything until the server closes, at most for so long.
    pub(crate) async fn read_to_end(&mut self, within: Duration) -> String {
        let mut bytes = Vec::new();
        timeout(within, self.0.read_to_end(&mut bytes))
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "the connection stayed open for {within:?}; so far: {}",
                    String::from_utf8_lossy(&bytes)
                )
            })
            .ok();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What comes first, at most so many bytes.
    pub(crate) async fn read(&mut self, most: usize) -> String {
        let mut bytes = vec![0; most];
        let length = self.0.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The head and body of a request with a JSON body.
    pub(crate) fn post(path: &str, key: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nhost: easel\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
