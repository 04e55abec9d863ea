//! Opening a provider's result links: every hop checked, nothing of ours sent along.
//!
//! The links are never handed out (they are somebody else's, and they expire); we fetch the pictures and
//! host or relay them ourselves. Who may be asked is in [`super::hosts`].

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Buf as _;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use reqwest::Url;

use super::{
    AnswerBody, Attempt, Connections, HttpClient, Payload, SendError, Witness, cause,
    hosts::{Refusal, Resolver},
};
use crate::providers::{Encoding, ErrorKind, PictureEvent, PictureSink, ProviderError};

/// Storage services redirect once; more than this goes in circles.
const MAX_REDIRECTS: usize = 3;

/// Reading twice does no harm, and the picture is paid for.
const MAX_TRIES: u32 = 3;
/// The pause before the second try; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of the picture behind a link.
pub(in crate::providers) enum Mirrored {
    /// The sink has it.
    Whole,
    /// The link opened nothing, for this reason; the other pictures are not concerned.
    Lost(ProviderError),
}

/// How much of a file the sink has.
#[derive(Default)]
struct Fetched {
    /// `None` before the picture has begun.
    bytes: Option<u64>,
    /// What the file was announced to have in all.
    announced_bytes: Option<u64>,
}

/// Why a try did not bring the whole file.
struct Missed {
    /// Whether another one may.
    is_passing: bool,
    error: ProviderError,
}

impl From<ProviderError> for Missed {
    fn from(error: ProviderError) -> Self {
        Self {
            is_passing: matches!(error.kind, ErrorKind::Transport { .. }),
            error,
        }
    }
}

impl Attempt<'_> {
    /// Fetches the picture behind a result link into the sink. One that breaks off is fetched again, and what
    /// the sink has of it already is walked over.
    ///
    /// # Errors
    /// As [`AnswerBody::next`], and the sink's own: a picture that is not to be had to its end ends the call,
    /// because the sink has a part of it. One of which nothing came is [`Mirrored::Lost`] instead.
    pub(in crate::providers) async fn mirror(
        &mut self,
        sink: &mut dyn PictureSink,
        link: &str,
    ) -> Result<Mirrored, ProviderError> {
        let mut file = Fetched::default();
        for tries in 1.. {
            let missed = match self.fetch(sink, link, &mut file).await? {
                Ok(()) => break,
                Err(missed) => missed,
            };
            let again = missed.is_passing && tries < MAX_TRIES;
            if again && self.pause(PAUSE * tries).await {
                continue;
            }
            return match file.bytes {
                Some(_) => Err(missed.error),
                None => Ok(Mirrored::Lost(missed.error)),
            };
        }
        self.deliver(sink, PictureEvent::End).await?;
        Ok(Mirrored::Whole)
    }

    /// Tries once.
    async fn fetch(
        &mut self,
        sink: &mut dyn PictureSink,
        link: &str,
        file: &mut Fetched,
    ) -> Result<Result<(), Missed>, ProviderError> {
        let mut body = match self.open(link).await {
            Ok(body) => body,
            Err(missed) => return Ok(Err(missed)),
        };
        let length = body.announced_bytes();
        let mut known = match file.bytes {
            None => {
                file.announced_bytes = length;
                let begin = PictureEvent::Begin(Encoding::Raw);
                self.deliver(sink, begin).await?;
                *file.bytes.insert(0)
            }
            Some(_) if is_other(file.announced_bytes, length) => {
                return Ok(Err(Missed {
                    is_passing: false,
                    error: malformed("a file that broke off and has become another one"),
                }));
            }
            Some(known) => known,
        };
        loop {
            match body.next(self).await {
                Ok(Some(mut chunk)) => {
                    let length = chunk.len() as u64;
                    let walked_over = known.min(length);
                    known -= walked_over;
                    chunk.advance(usize::try_from(walked_over).unwrap_or(usize::MAX));
                    if !chunk.is_empty() {
                        *file.bytes.get_or_insert_default() += chunk.len() as u64;
                        self.deliver(sink, PictureEvent::Data(chunk)).await?;
                    }
                }
                Ok(None) => return Ok(Ok(())),
                Err(error) => {
                    let is_passing = body.is_broken();
                    return Ok(Err(Missed { is_passing, error }));
                }
            }
        }
    }

    /// Opens a result link and returns the picture's file as it comes. Counts against the same deadline as
    /// the rest of the call.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a link that may not be opened, opens nothing, or leads to more than a
    /// picture may weigh; [`ErrorKind::Timeout`] and [`ErrorKind::Transport`] as ever, always `sent: true`
    /// because the painting is done.
    #[cfg(test)]
    pub(in crate::providers) async fn open_link(
        &self,
        link: &str,
    ) -> Result<AnswerBody, ProviderError> {
        self.open(link).await.map_err(|missed| missed.error)
    }

    async fn open(&self, link: &str) -> Result<AnswerBody, Missed> {
        let client = self.client;
        let mut url = Url::parse(link).map_err(|_| malformed("a result link that is no URL"))?;
        for _ in 0..=MAX_REDIRECTS {
            client
                .hosts
                .check(&url)
                .map_err(|refusal| refused(&refusal))?;
            let mut headers = HeaderMap::new();
            if url.origin() == client.base_url.origin() {
                // The provider's own server, which has seen the key already; some protect their files.
                headers.clone_from(&client.headers);
            }
            let picture = HeaderValue::from_static("image/*");
            headers.entry(header::ACCEPT).or_insert(picture);
            let nothing = Witness::default().watch(Payload::default());
            let request = client.mirror()?.send(Method::GET, &url, headers, nothing);
            let response = tokio::time::timeout_at(self.deadline.at(), request)
                .await
                .map_err(|_| {
                    let message = "a result link did not open in time";
                    ProviderError::new(ErrorKind::Timeout { sent: true }, message)
                })?
                .map_err(|error| open_error(&error))?;
            let status = response.status();
            if status == StatusCode::OK {
                return Ok(client.picture_body(response)?);
            }
            if !status.is_redirection() {
                let message = format!("a result link that answers {}", status.as_u16());
                return Err(Missed {
                    is_passing: status.is_server_error() || status.as_u16() == 429,
                    error: malformed(&message),
                });
            }
            url = response
                .headers()
                .get(header::LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| url.join(location).ok())
                .ok_or_else(|| malformed("a result link that redirects nowhere"))?;
        }
        let message = format!("a result link with more than {MAX_REDIRECTS} redirects");
        Err(malformed(&message).into())
    }
}

/// Whether two files, as long as they say, cannot be the same.
fn is_other(before: Option<u64>, now: Option<u64>) -> bool {
    before.zip(now).is_some_and(|(before, now)| before != now)
}

impl HttpClient {
    /// The connections for result links, to checked addresses only.
    fn mirror(&self) -> Result<&Connections, ProviderError> {
        if let Some(connections) = self.mirror.get() {
            return Ok(connections);
        }
        let checked = Resolver {
            hosts: Some(Arc::clone(&self.hosts)),
            lookup: self.lookup,
        };
        let connections =
            Connections::new(checked, self.connect_timeout, true).map_err(|error| {
                let kind = ErrorKind::Transport { sent: true };
                let message = "the client for result links cannot be set up";
                ProviderError {
                    cause: Some(error.to_string()),
                    ..ProviderError::new(kind, message)
                }
            })?;
        Ok(self.mirror.get_or_init(|| connections))
    }

    fn picture_body(&self, response: Response<Incoming>) -> Result<AnswerBody, ProviderError> {
        let cap = self.max_picture_bytes;
        let body = response.into_body();
        if body.size_hint().exact().is_some_and(|length| length > cap) {
            return Err(malformed(&format!("a picture larger than {cap} bytes")));
        }
        Ok(AnswerBody::new(body, cap))
    }
}

fn malformed(what: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Malformed, format!("the provider sent {what}"))
}

fn refused(refusal: &Refusal) -> ProviderError {
    malformed(&format!("a result link that is not opened: {refusal}"))
}

fn open_error(error: &SendError) -> ProviderError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return refused(refusal);
        }
        source = inner.source();
    }
    let kind = if error.is_timeout() {
        ErrorKind::Timeout { sent: true }
    } else {
        ErrorKind::Transport { sent: true }
    };
    ProviderError {
        cause: Some(cause(error)),
        ..ProviderError::new(kind, "a result link cannot be opened")
    }
}
