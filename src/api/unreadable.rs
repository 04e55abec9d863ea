//! Bytes that are no request: what the HTTP library answers to them by itself (400, 414, 431) is a head without a
//! body. Here it gets the envelope that every refusal has, and an `x-request-id`.
//!
//! The library offers no hook for it, so this sits between it and the socket. It changes what is written only while
//! no exchange is under way, and only a head that says nothing but what the library says by itself; every answer of
//! ours has an `x-request-id`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::response::IntoResponse as _;
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ApiError, idle::Activity};
use crate::ids::RequestId;

/// A socket on which such heads have the envelope.
pub(super) struct Enveloped<S> {
    socket: S,
    activity: Arc<Activity>,
    /// What is still to be written instead of a bare head.
    instead: Bytes,
}

/// More than any refusal is.
const MOST_BYTES: usize = 64 * 1024;

impl<S: AsyncWrite + Unpin> Enveloped<S> {
    pub(super) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self {
            socket,
            activity,
            instead: Bytes::new(),
        }
    }

    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(context, &self.instead);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.instead.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a bare head, and has the envelope written in its place.
    fn takes(&mut self, written: &[u8]) -> bool {
        let refused = self
            .activity
            .is_idle()
            .then(|| status_of(written))
            .flatten();
        let Some(refusal) = refused.and_then(refusal) else {
            return false;
        };
        self.instead = refusal;
        true
    }
}

/// The status of a head that the library wrote by itself, and nothing else.
fn status_of(written: &[u8]) -> Option<StatusCode> {
    let head = written
        .strip_prefix(b"HTTP/1.")?
        .strip_suffix(b"\r\n\r\n")?;
    let mut lines = str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let is_bare = lines.all(|line| {
        let name = line.split_once(':').map_or(line, |(name, _)| name);
        ["content-length", "connection", "date"].contains(&name)
    });
    is_bare.then_some(status)
}

/// The refusal as it goes over the wire; `None` for a status that is none of these.
fn refusal(status: StatusCode) -> Option<Bytes> {
    let refused = ApiError::Unreadable(status);
    if !matches!(status.as_u16(), 400 | 414 | 431) {
        return None;
    }
    let id = RequestId::new();
    tracing::info!(
        request.id = %id,
        http.status = status.as_u16(),
        "refused what is no request"
    );
    let (head, body) = refused.into_response().into_parts();
    let body = axum::body::to_bytes(body, MOST_BYTES)
        .now_or_never()?
        .ok()?;
    let mut wire = format!(
        "HTTP/1.1 {status}\r\nx-request-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in &head.headers {
        if name == http::header::CONTENT_LENGTH {
            continue;
        }
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(&body);
    Some(wire.into())
}

impl<S: AsyncRead + Unpin> AsyncRead for Enveloped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Enveloped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        if self.takes(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && self.takes(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
