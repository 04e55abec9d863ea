//! HTTP for the bucket's client: ours, so that there is one TLS in the process, and so that nothing a store
//! sends is taken without a bound or shown to anybody.
//!
//! A store's error body may repeat what was signed and by whom; of it only the error's code goes on.

use std::{error::Error as _, fmt, time::Duration};

use async_trait::async_trait;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use reqwest::{Certificate, Url};

use crate::config::S3Config;

/// What is read of an answer that is no picture: a thousand names of a listing are half a MiB.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
/// What is read of an error, to find its code.
const LARGEST_ERROR: usize = 64 * 1024;
/// Codes of errors are words (`NoSuchBucket`).
const LONGEST_CODE: usize = 64;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The store has understood and says no, and would say so again: to our credentials, our bucket, our region.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status} {code}")]
pub(super) struct Refusal {
    status: StatusCode,
    code: String,
}

/// Makes the one client, for whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Connector(reqwest::Client);

impl Connector {
    /// # Errors
    /// A sentence about what is wrong with the settings.
    pub(super) fn new(config: &S3Config) -> Result<Self, String> {
        // Somebody else may have installed one, this very moment too; any will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("easel/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(config.timeout.min(CONNECT_WITHIN))
            // Until the head of the answer, the sending included; then between two reads of its body.
            .read_timeout(config.timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if let Some(path) = &config.ca_file {
            let unreadable =
                |error: &dyn fmt::Display| format!("ca_file {}: {error}", path.display());
            let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
            if certificates.is_empty() {
                return Err(unreadable(&"there is no certificate in it"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("the HTTP client cannot be set up: {error} {cause}")
        })?;
        Ok(Self(client))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Connection(self.0.clone())))
    }
}

#[derive(Debug)]
struct Connection(reqwest::Client);

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let is_picture = parts.method == http::Method::GET && parts.uri.query().is_none();
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if body.content_length() > 0 {
            *request.body_mut() = Some(reqwest::Body::wrap(body));
        }
        let response = self.0.execute(request).await.map_err(read_error)?;
        let response: http::Response<reqwest::Body> = response.into();
        let (parts, body) = response.into_parts();
        let status = parts.status;
        if !status.is_success() {
            let code = error_code(body).await;
            if is_final(status) {
                let refusal = Refusal { status, code };
                return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
            }
            return Ok(HttpResponse::from_parts(parts, text_body(code)));
        }
        let body = if is_picture {
            HttpResponseBody::new(body.map_err(read_error))
        } else {
            HttpResponseBody::new(Limited::new(body, LARGEST_ANSWER).map_err(limited_error))
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Whether the same request would be answered the same way. What is absent, what is in the way of another, and
/// what comes too fast has meanings of its own.
fn is_final(status: StatusCode) -> bool {
    let has_a_meaning = matches!(
        status,
        StatusCode::NOT_FOUND
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::TOO_MANY_REQUESTS
    );
    (status.is_redirection() || status.is_client_error()) && !has_a_meaning
}

fn text_body(text: String) -> HttpResponseBody {
    HttpResponseBody::new(Full::new(text.into()).map_err(|never| match never {}))
}

/// The `<Code>` of an error's XML, if it has one that looks like one.
async fn error_code(body: reqwest::Body) -> String {
    let Ok(body) = Limited::new(body, LARGEST_ERROR).collect().await else {
        return String::new();
    };
    let body = body.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    let is_word =
        code.len() <= LONGEST_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word {
        code.to_owned()
    } else {
        String::new()
    }
}

fn read_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

fn limited_error(error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    if error.is::<LengthLimitError>() {
        return HttpError::new_boxed(HttpErrorKind::Decode, error);
    }
    match error.downcast::<reqwest::Error>() {
        Ok(error) => read_error(*error),
        Err(other) => HttpError::new_boxed(HttpErrorKind::Interrupted, other),
    }
}
