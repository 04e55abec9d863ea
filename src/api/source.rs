//! A generation as it comes along, with what was left to the store read from there.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream::BoxStream};

use crate::{
    gateway::{Piece, Progress},
    ids::ImageId,
    images::{self, ImageStore, PictureFormat, Temporary},
};

/// The pieces of a [`Progress`], without [`Piece::Rest`]: the text itself comes in its place.
pub(super) struct Source {
    progress: Progress,
    store: ImageStore,
    rest: Option<BoxStream<'static, io::Result<Bytes>>>,
    /// What is read there, if nobody else needs it.
    temporary: Option<Temporary>,
}

impl Source {
    pub(super) fn new(progress: Progress, store: ImageStore) -> Self {
        Self {
            progress,
            store,
            rest: None,
            temporary: None,
        }
    }

    /// The next piece; never `None` before [`Piece::Settled`] or [`Piece::Failed`].
    ///
    /// # Errors
    /// When the pictures cannot be shown to their end. The connection has to break then: no client may take a
    /// torso for an answer. The generation can be fetched.
    ///
    /// # Cancel safety
    /// May be dropped: no piece is lost.
    pub(super) async fn next(&mut self) -> io::Result<Piece> {
        loop {
            if let Some(rest) = &mut self.rest {
                if let Some(text) = rest.try_next().await? {
                    return Ok(Piece::Text(text));
                }
                self.rest = None;
                self.temporary = None;
            }
            match self.progress.next().await {
                Some(Piece::Rest {
                    id,
                    format,
                    text_offset,
                    temporary,
                }) => {
                    self.rest = Some(text_from(self.store.clone(), id, format, text_offset));
                    self.temporary = temporary;
                }
                Some(Piece::Torn) => return Err(io::Error::other("a picture broke off")),
                Some(piece) => return Ok(piece),
                None => return Err(io::Error::other("the generation's task died")),
            }
        }
    }
}

/// The base64 of a kept picture from its character `text_offset` on.
fn text_from(
    store: ImageStore,
    id: ImageId,
    format: PictureFormat,
    text_offset: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    // Four characters are three bytes. What precedes the offset within its four is read and left out.
    let (groups, surplus) = (text_offset / 4, text_offset % 4);
    let mut surplus = usize::try_from(surplus).unwrap_or(0);
    let chunks = async move {
        let read = store.read_from(id, format, groups.saturating_mul(3)).await;
        let (_, chunks) = read
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("a picture is gone from the store"))?;
        Ok::<_, io::Error>(images::encode_base64(chunks))
    };
    futures_util::stream::once(chunks)
        .try_flatten()
        .try_filter_map(move |mut text| {
            let left_out = surplus.min(text.len());
            surplus -= left_out;
            let text = text.split_off(left_out);
            future::ready(Ok((!text.is_empty()).then_some(text)))
        })
        .boxed()
}
