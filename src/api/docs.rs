//! `GET /docs`: the document of [`openapi`] for people.
//!
//! The page is Swagger UI, which comes with the program (see `.config/build.rs`) and needs no other server than this
//! one. It is the one thing here that runs in a browser, so its headers allow it its own files and nothing else.

use std::{io::Read as _, sync::LazyLock};

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::{ApiError, openapi};

const PAGE: &str = include_str!("docs/page.html");
const START: &str = include_str!("docs/start.js");

/// A file that the page is made of, packed when the program is built.
struct File {
    kind: &'static str,
    packed: &'static [u8],
    /// For the few clients that do not unpack: a command line, mostly. Kept, since anybody may ask for it as often as
    /// they like, and it is up to 1.5 MB.
    unpacked: LazyLock<Bytes>,
}

macro_rules! file {
    ($kind:literal, $name:literal) => {{
        const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/", $name));
        File {
            kind: $kind,
            packed: PACKED,
            unpacked: LazyLock::new(|| unpack(PACKED)),
        }
    }};
}

static STYLE: File = file!("text/css; charset=utf-8", "swagger-ui.css.gz");
static SCRIPT: File = file!("text/javascript; charset=utf-8", "swagger-ui-bundle.js.gz");
static NOTICE: File = file!("text/plain; charset=utf-8", "swagger-ui-notice.txt.gz");
static LICENSE: File = file!("text/plain; charset=utf-8", "swagger-ui-license.txt.gz");

/// Swagger UI sets styles of elements; scripts are its file and ours.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// All of it changes with the program and with nothing else.
static ETAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let packed = [&STYLE, &SCRIPT, &NOTICE, &LICENSE].map(|file| file.packed);
    openapi::etag([&packed[..], &[PAGE.as_bytes(), START.as_bytes()]].concat())
});

/// `GET /docs`
pub(super) async fn page(asked: HeaderMap) -> Response {
    answer(&asked, "text/html; charset=utf-8", |_| {
        (Bytes::from_static(PAGE.as_bytes()), false)
    })
}

/// `GET /docs/{file}`
pub(super) async fn file(
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    let file = match name.as_str() {
        "start.js" => {
            return Ok(answer(&asked, SCRIPT.kind, |_| {
                (Bytes::from_static(START.as_bytes()), false)
            }));
        }
        "swagger-ui.css" => &STYLE,
        "swagger-ui-bundle.js" => &SCRIPT,
        "NOTICE" => &NOTICE,
        "LICENSE" => &LICENSE,
        _ => {
            let path = super::error::excerpt(uri.path());
            return Err(ApiError::UnknownPath(method, path));
        }
    };
    Ok(answer(&asked, file.kind, |unpacks| {
        if unpacks {
            (Bytes::from_static(file.packed), true)
        } else {
            (file.unpacked.clone(), false)
        }
    }))
}

/// Bytes, and whether they are packed; asked for with whether the client unpacks.
fn answer(
    asked: &HeaderMap,
    kind: &'static str,
    content: impl FnOnce(bool) -> (Bytes, bool),
) -> Response {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::ETAG, ETAG.clone()),
        (header::CACHE_CONTROL, CACHE),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    if openapi::is_known(asked, &ETAG) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let (bytes, is_packed) = content(takes_gzip(asked));
    let mut response = (headers, bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether the client says that it unpacks gzip. A weight of 0 says that it does not.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let given = asked.get_all(header::ACCEPT_ENCODING).iter();
    given
        .filter_map(|given| given.to_str().ok())
        .flat_map(|given| given.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_gzip = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.and_then(|weight| weight.parse().ok()).unwrap_or(1.0);
            is_gzip && weight > 0.0
        })
}

fn unpack(packed: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .expect("what was packed at the build unpacks");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_who_takes_it() {
        for (given, expected) in [
            (Some("gzip"), true),
            (Some("br, GZIP;q=0.5"), true),
            (Some("deflate, gzip; q=0"), false),
            (Some("identity"), false),
            (Some("*"), false),
            (None, false),
        ] {
            let mut asked = HeaderMap::new();
            if let Some(given) = given {
                asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(given));
            }
            assert_eq!(takes_gzip(&asked), expected, "{given:?}");
        }
    }

    #[test]
    fn what_was_packed_is_what_it_should_be() {
        let text = |file: &File| String::from_utf8(file.unpacked.to_vec()).unwrap();
        assert!(text(&STYLE).contains(".swagger-ui"));
        assert!(text(&SCRIPT).contains("SwaggerUIBundle"));
        assert!(text(&LICENSE).contains("Apache License"));
        assert!(text(&NOTICE).contains("swagger-ui"));
    }
}
