//! The client's pictures, handed over before a prediction is created (`contracts/replicate.md`, 2.4 and 2.5).
//!
//! A small one stands in the input as a data URL, encoded as it goes out; the vendor wants larger ones by
//! link, so they are uploaded as files first. Nothing is painted yet and files cost nothing, so whatever goes
//! wrong here may be done again, here and elsewhere.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Url, header::HeaderMap};
use serde_json::Value;

use super::{error::Problem, malformed, now};
use crate::{
    images::{Upload, encoded_len},
    providers::{
        Call, ErrorKind, ProviderError, Task,
        http::{Attempt, Form, Pictures},
        mask,
    },
};

/// The longest data URL that the vendor advises (section 2.4: 256 KB).
const MAX_DATA_URL_BYTES: u64 = 256_000;
/// A longer link is no link.
const MAX_LINK_BYTES: usize = 8 * 1024;
/// Files on their way at the same time.
const MAX_PARALLEL_UPLOADS: usize = 4;
/// How often a file is sent before it counts as not to be handed over.
const MAX_TRIES: u32 = 2;

/// The pictures of an edit, as the input names them; none for a generation.
#[derive(Default)]
pub(super) struct Handed {
    /// In the client's order.
    pub(super) images: Vec<Picture>,
    /// White where to paint.
    pub(super) mask: Option<Picture>,
}

/// One of them.
pub(super) enum Picture {
    /// Goes along in the input.
    Inline(Upload),
    /// Is there already, under this link.
    Link(String),
}

impl Picture {
    /// What stands for it in the input.
    pub(super) fn said(&self, pictures: &mut Pictures) -> String {
        match self {
            Self::Inline(upload) => format!("{}{}", head_of(upload), pictures.stand_in(upload)),
            Self::Link(link) => link.clone(),
        }
    }
}

/// Hands over what the call is painted from.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for what cannot be said or is not taken; `sent: false` where the provider
/// cannot be reached, and never `maybe_charged`.
pub(super) async fn hand_over(attempt: &Attempt<'_>, call: &Call) -> Result<Handed, ProviderError> {
    let inputs = match &call.task {
        Task::Generate => return Ok(Handed::default()),
        Task::Edit(inputs) => inputs,
        Task::Vary(_) => {
            let message = "this provider varies no picture without being told how";
            return Err(ProviderError {
                param: Some("image".to_owned()),
                ..ProviderError::new(ErrorKind::InvalidRequest, message)
            });
        }
    };
    // White where to paint, where the client's is transparent (section 2.5, flux-fill-pro).
    let mask = match &inputs.mask {
        Some(mask) => Some(mask::white_where_transparent(mask).await?),
        None => None,
    };
    let mut ways = Vec::with_capacity(inputs.images.len() + 1);
    for image in &inputs.images {
        ways.push(hand_over_one(attempt, call, image.clone(), "image"));
    }
    if let Some(mask) = &mask {
        ways.push(hand_over_one(attempt, call, mask.clone(), "mask"));
    }
    let mut images = stream::iter(ways)
        .buffered(MAX_PARALLEL_UPLOADS)
        .try_collect::<Vec<_>>()
        .await?;
    let mask = mask.as_ref().and_then(|_| images.pop());
    Ok(Handed { images, mask })
}

async fn hand_over_one(
    attempt: &Attempt<'_>,
    call: &Call,
    upload: Upload,
    param: &'static str,
) -> Result<Picture, ProviderError> {
    let url_bytes = encoded_len(upload.size_bytes()) + head_of(&upload).len() as u64;
    if url_bytes <= MAX_DATA_URL_BYTES {
        return Ok(Picture::Inline(upload));
    }
    // Calls for several pictures send the same files, and a second try does.
    let handed = upload.known_as(&call.route.provider, async {
        let mut tries = 1;
        loop {
            match upload_file(attempt, call, &upload, param).await {
                Err(error) if tries < MAX_TRIES && is_passing(error.kind) => tries += 1,
                handed => return handed,
            }
        }
    });
    Ok(match handed.await? {
        Some(link) => Picture::Link(link),
        // A server without files: it gets them as it can take them.
        None => Picture::Inline(upload),
    })
}

/// Uploads a file; says its link. `None` where there are no files.
async fn upload_file(
    attempt: &Attempt<'_>,
    call: &Call,
    upload: &Upload,
    param: &'static str,
) -> Result<Option<String>, ProviderError> {
    let mut form = Form::default();
    form.file("content", param, upload);
    let (content_type, body) = form.encode();
    let answer = attempt
        .post(&["files"], &content_type, HeaderMap::new(), body, call.n)
        .await
        .map_err(unpainted)?;
    let status = answer.status;
    let headers = answer.headers;
    let text = answer.body.error_text(attempt).await;
    match status {
        200 | 201 => link_in(&text)
            .map(Some)
            .ok_or_else(|| unpainted(malformed("to an upload names no link"))),
        404 | 405 | 501 => Ok(None),
        _ => {
            let (request, route) = (&call.request, &call.route);
            let error = Problem::read(&text).into_error(status, &headers, request, route, now());
            let is_the_picture = error.kind == ErrorKind::InvalidRequest;
            Err(ProviderError {
                param: is_the_picture.then(|| param.to_owned()),
                ..unpainted(error)
            })
        }
    }
}

/// `urls.get` of a file. It is told to the provider again and never opened by us, so any link will do.
fn link_in(text: &[u8]) -> Option<String> {
    let file = serde_json::from_slice::<Value>(text).ok()?;
    let link = file.get("urls")?.get("get")?.as_str()?;
    let url = Url::parse(link).ok()?;
    let is_link = link.len() <= MAX_LINK_BYTES && matches!(url.scheme(), "https" | "http");
    is_link.then(|| link.to_owned())
}

/// The same error, of a call that has not asked for anything to be painted yet.
fn unpainted(error: ProviderError) -> ProviderError {
    ProviderError {
        kind: match error.kind {
            ErrorKind::Timeout { .. } => ErrorKind::Timeout { sent: false },
            ErrorKind::Transport { .. } => ErrorKind::Transport { sent: false },
            kind => kind,
        },
        maybe_charged: false,
        ..error
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Transport { .. } | ErrorKind::Overloaded { .. }
    )
}

fn head_of(upload: &Upload) -> String {
    format!("data:{};base64,", upload.info().format.content_type())
}
