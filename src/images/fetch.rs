//! Pictures that clients name by a link, fetched where the operator allows it (`[edits] fetch_urls`).
//!
//! A link is chosen by a stranger and opened from inside the operator's network, so it may lead to public
//! addresses only: `https`, no credentials, every redirect judged again. What the operator lists (`fetch_hosts`) may be
//! elsewhere, and then nothing else is opened. [`Guard`] does the same for names, where they are resolved.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use reqwest::{StatusCode, Url, header};
use tokio::time::{Instant, timeout_at};

use crate::addresses::{self, Guard, NoAddress};

/// Storage services redirect once; more than this goes in circles.
const MAX_REDIRECTS: usize = 3;
/// One picture, from the first name looked up to the last byte.
const LONGEST_FETCH: Duration = Duration::from_secs(30);

/// Why a link brought no picture. Never says the link: it may be signed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It must not be opened.
    #[error("{0}")]
    Refused(&'static str),
    /// It opened nothing.
    #[error("it answers {0}")]
    Status(u16),
    /// It took too long.
    #[error("it did not come within {} seconds", LONGEST_FETCH.as_secs())]
    TimedOut,
    /// The connection failed or broke off.
    #[error("it cannot be reached")]
    Unreachable,
}

/// Opens links. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: reqwest::Client,
    /// With no host that is listed: every public one.
    guard: Guard,
}

/// The bytes behind a link.
pub struct Fetched {
    response: reqwest::Response,
    deadline: Instant,
}

impl Fetcher {
    /// One that opens links to these hosts (`host` or `host:port`) and the names below them; if there are none, to
    /// every public address.
    ///
    /// # Errors
    /// A sentence that names what is no host; what the HTTP client says when it cannot be set up.
    pub fn new(hosts: &[String]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self::with(Guard::new(hosts)?)?)
    }

    fn with(guard: Guard) -> Result<Self, reqwest::Error> {
        let client = guard.client().build()?;
        Ok(Self { client, guard })
    }

    /// Opens a link.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn open(&self, link: &str) -> Result<Fetched, FetchError> {
        let deadline = Instant::now() + LONGEST_FETCH;
        let mut url = Url::parse(link).map_err(|_| FetchError::Refused("it is no URL"))?;
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let request = self
                .client
                .get(url.clone())
                .header(header::ACCEPT, "image/*");
            let response = timeout_at(deadline, request.send())
                .await
                .map_err(|_| FetchError::TimedOut)?
                .map_err(|error| cause(&error))?;
            let status = response.status();
            if status == StatusCode::OK {
                return Ok(Fetched { response, deadline });
            }
            if !status.is_redirection() {
                return Err(FetchError::Status(status.as_u16()));
            }
            url = response
                .headers()
                .get(header::LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| url.join(location).ok())
                .ok_or(FetchError::Refused("it redirects nowhere"))?;
        }
        Err(FetchError::Refused("it redirects in circles"))
    }

    /// Judges a link by its text.
    fn check(&self, url: &Url) -> Result<(), FetchError> {
        // Without a host it is nobody's, and of another scheme.
        let host = addresses::host_of(url).unwrap_or_default();
        let is_trusted = self.guard.trusts(&host);
        match url.scheme() {
            "https" => {}
            "http" if is_trusted => {}
            _ => return Err(FetchError::Refused("it is no https link")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Refused("it holds a user name or password"));
        }
        let port = url.port_or_known_default();
        let hosts = &self.guard.listed;
        if !hosts.is_empty() && !hosts.iter().any(|listed| listed.covers(&host, port)) {
            return Err(FetchError::Refused(
                "this server opens links to other hosts only",
            ));
        }
        // Addresses are not looked up, so the resolver does not see them.
        match host.parse::<IpAddr>() {
            Ok(address) if !addresses::is_public(address) && !is_trusted => Err(PRIVATE),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

const PRIVATE: FetchError = FetchError::Refused("it leads to a private address");

impl Fetched {
    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// [`FetchError::TimedOut`], [`FetchError::Unreachable`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        timeout_at(self.deadline, self.response.chunk())
            .await
            .map_err(|_| FetchError::TimedOut)?
            .map_err(|_| FetchError::Unreachable)
    }
}

fn cause(error: &reqwest::Error) -> FetchError {
    if NoAddress::caused(error) {
        PRIVATE
    } else {
        FetchError::Unreachable
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::addresses::Lookup;

    async fn told(fetcher: &Fetcher, link: &str) -> String {
        match fetcher.open(link).await {
            Ok(mut fetched) => {
                let mut bytes = Vec::new();
                while let Some(chunk) = fetched.next().await.unwrap() {
                    bytes.extend(chunk);
                }
                String::from_utf8(bytes).unwrap()
            }
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn links_into_networks_are_not_opened() {
        let fetcher = Fetcher::new(&[]).unwrap();
        for (link, expected) in [
            ("nowhere", "it is no URL"),
            ("http://example.com/a.png", "it is no https link"),
            ("file:///etc/passwd", "it is no https link"),
            (
                "https://me:secret@example.com/a.png",
                "it holds a user name or password",
            ),
            ("https://127.0.0.1/a.png", "it leads to a private address"),
            ("https://2130706433/a.png", "it leads to a private address"),
            ("https://[::1]/a.png", "it leads to a private address"),
            (
                "https://[::ffff:10.0.0.1]/a.png",
                "it leads to a private address",
            ),
            (
                "https://169.254.169.254/latest",
                "it leads to a private address",
            ),
            ("https://localhost/a.png", "it leads to a private address"),
        ] {
            assert_eq!(told(&fetcher, link).await, expected, "{link}");
        }
    }

    /// A server that answers one connection after another with these.
    async fn serve(answers: Vec<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                let _ = socket.read(&mut request).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        drop(tokio::spawn(serving));
        port
    }

    #[tokio::test]
    async fn redirects_are_judged_like_links() {
        let fetcher = Fetcher::new(&["127.0.0.1".to_owned()]).unwrap();
        let to = |place: &str| {
            format!(
                "HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        };
        let ok =
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\notter".to_owned();
        let gone =
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
        for (answers, expected) in [
            (vec![ok.clone()], "otter"),
            (vec![to("/elsewhere"), ok], "otter"),
            (vec![gone], "it answers 404"),
            (
                vec![to("https://127.0.0.2/a.png")],
                "this server opens links to other hosts only",
            ),
            (vec![to("http://127.0.0.2/a.png")], "it is no https link"),
            (vec![to("ftp://127.0.0.1/a.png")], "it is no https link"),
            (
                vec![to("/a"), to("/b"), to("/c"), to("/d")],
                "it redirects in circles",
            ),
        ] {
            let port = serve(answers).await;
            let link = format!("http://127.0.0.1:{port}/a.png");
            assert_eq!(told(&fetcher, &link).await, expected);
        }
    }

    /// What is listed is opened and nothing else; only what is listed itself may be inside of a network.
    #[tokio::test]
    async fn listed_hosts_are_opened_and_no_others() {
        let inside: Lookup = |_| Box::pin(async { Ok(vec![([10, 0, 0, 7], 0).into()]) });
        let hosts = ["pictures.example", "[::1]:8443"].map(str::to_owned);
        let mut guard = Guard::new(&hosts).unwrap();
        guard.lookup = inside;
        let fetcher = Fetcher::with(guard).unwrap();
        let other = "this server opens links to other hosts only";
        for (link, expected) in [
            ("https://elsewhere.example/a.png", other),
            ("https://notpictures.example/a.png", other),
            ("https://[::1]/a.png", other),
            ("http://cdn.pictures.example/a.png", "it is no https link"),
            (
                "https://cdn.pictures.example/a.png",
                "it leads to a private address",
            ),
        ] {
            assert_eq!(told(&fetcher, link).await, expected, "{link}");
        }
        for link in ["http://Pictures.example./a.png", "https://[0::1]:8443/a"] {
            let url = Url::parse(link).unwrap();
            assert!(fetcher.check(&url).is_ok(), "{link}");
        }
        let error = Fetcher::new(&["https://a/b".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "'https://a/b' is no host or host:port");
    }
}
