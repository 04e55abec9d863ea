//! Where an upstream call's pictures go: chunk by chunk into the store, never whole in memory.
//!
//! One bad picture does not spoil the others: it is counted as failed, the rest of its bytes are passed
//! over, and the next one is taken. Only our own store's failure ends the call.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    images::{Base64Writer, ImageStore, ImageWriter, StoreError, StoredImage},
    providers::{Encoding, ErrorKind, PictureEvent, PictureSink, ProviderError},
};

/// What became of one picture of a call.
#[derive(Debug)]
pub(super) enum Collected {
    /// It arrived whole and is kept.
    Whole(StoredImage),
    /// It arrived and is no picture, for this reason.
    Broken(String),
}

/// Takes the pictures of one call.
pub(super) struct Collector<'a> {
    store: &'a ImageStore,
    wanted: usize,
    /// Bounded by `wanted`, whatever a provider sends.
    collected: Vec<Collected>,
    current: Current,
}

enum Current {
    /// Between pictures.
    Idle,
    Raw(ImageWriter),
    Base64(Base64Writer),
    /// The rest of a picture that is broken.
    PassingOver(Collected),
    /// A picture more than was asked for: not kept, not charged.
    Surplus,
}

impl<'a> Collector<'a> {
    /// A collector for up to `wanted` pictures.
    pub(super) fn new(store: &'a ImageStore, wanted: usize) -> Self {
        Self {
            store,
            wanted,
            collected: Vec::new(),
            current: Current::Idle,
        }
    }

    /// What came, in the order of the answer. A picture that had begun and did not end, or was
    /// abandoned, is not in it: dropping its writer removed it.
    pub(super) fn into_collected(self) -> Vec<Collected> {
        self.collected
    }

    /// A broken picture does not take a good one's place, but a provider that sends nothing else is not
    /// listened to for ever.
    fn has_enough(&self) -> bool {
        let whole = self
            .collected
            .iter()
            .filter(|collected| matches!(collected, Collected::Whole(_)))
            .count();
        whole >= self.wanted || self.collected.len() >= self.wanted.saturating_mul(2)
    }

    async fn begin(&mut self, encoding: Encoding) -> Result<(), ProviderError> {
        if self.has_enough() {
            self.current = Current::Surplus;
            return Ok(());
        }
        let writer = self
            .store
            .create()
            .await
            .map_err(|error| cannot_store(&error))?;
        self.current = match encoding {
            Encoding::Raw => Current::Raw(writer),
            Encoding::Base64 => Current::Base64(Base64Writer::new(writer)),
        };
        Ok(())
    }

    async fn data(&mut self, bytes: &Bytes) -> Result<(), ProviderError> {
        let written = match &mut self.current {
            Current::Raw(writer) => writer.write(bytes).await,
            Current::Base64(writer) => writer.write(bytes).await,
            Current::Idle | Current::PassingOver(_) | Current::Surplus => return Ok(()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                self.current = Current::PassingOver(broken(&error)?);
                Ok(())
            }
        }
    }

    async fn end(&mut self) -> Result<(), ProviderError> {
        let finished = match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Raw(writer) => writer.finish().await,
            Current::Base64(writer) => writer.finish().await,
            Current::PassingOver(collected) => {
                self.collected.push(collected);
                return Ok(());
            }
            Current::Idle | Current::Surplus => return Ok(()),
        };
        self.collected.push(match finished {
            Ok(stored) => Collected::Whole(stored),
            Err(error) => broken(&error)?,
        });
        Ok(())
    }
}

impl PictureSink for Collector<'_> {
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            match event {
                PictureEvent::Begin(encoding) | PictureEvent::Perhaps(encoding) => {
                    self.begin(encoding).await
                }
                PictureEvent::Draft { .. } => {
                    self.current = Current::Surplus;
                    Ok(())
                }
                PictureEvent::Data(bytes) => self.data(&bytes).await,
                PictureEvent::End => self.end().await,
                PictureEvent::About(_) => Ok(()),
                PictureEvent::Abandon => {
                    self.current = Current::Idle;
                    Ok(())
                }
            }
        })
    }
}

/// The provider's fault is a broken picture; ours ends the call.
fn broken(error: &StoreError) -> Result<Collected, ProviderError> {
    match error {
        StoreError::NotAPicture(_) | StoreError::TooLarge(_) => {
            Ok(Collected::Broken(error.to_string()))
        }
        StoreError::Io { .. } => Err(cannot_store(error)),
    }
}

fn cannot_store(error: &StoreError) -> ProviderError {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the image store failed"
    );
    ProviderError::new(ErrorKind::Storage, "the image store failed")
}
