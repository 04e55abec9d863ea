//! Where an upstream call's pictures go: chunk by chunk into the store and, where somebody waits for them,
//! to the caller; never whole in memory.
//!
//! One bad picture does not spoil the others: it is counted as failed, the rest of its bytes are passed
//! over, and the next one is taken. Only our own store's failure ends the call.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::relay::{Flow, Opening, Outlet, Shows};
use crate::{
    faults::{self, Point},
    images::{Base64Writer, ImageStore, ImageWriter, Keep, StoreError, StoredImage},
    providers::{About, Encoding, ErrorKind, PictureEvent, PictureSink, ProviderError},
};

/// What became of one picture of a call.
#[derive(Debug)]
pub(super) enum Collected {
    /// It arrived whole and is kept.
    Whole(StoredImage),
    /// It arrived and is no picture, for this reason.
    Broken(String),
}

/// Who sees the pictures of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exposure<'a> {
    /// Nobody before the end.
    Stored,
    /// The caller, each when it is whole: several calls are made at a time.
    Whole(&'a Outlet),
    /// The caller, while they arrive.
    Flowing(&'a Outlet),
}

/// Takes the pictures of one call.
pub(super) struct Collector<'a> {
    store: &'a ImageStore,
    wanted: usize,
    exposure: Exposure<'a>,
    /// Bounded by `wanted`, whatever a provider sends.
    collected: Vec<Collected>,
    /// How many drafts have begun.
    drafts: usize,
    /// How many of them came whole, on their way to who waits for them.
    drafts_shown: usize,
    current: Current<'a>,
    /// Whether what ended last was shown.
    has_shown: bool,
}

enum Current<'a> {
    /// Between pictures.
    Idle,
    Taking(Box<Taking<'a>>),
    /// The rest of a picture that is broken.
    PassingOver(Collected),
    /// A picture more than was asked for: not kept, not charged. Or a draft that nobody sees.
    Surplus,
}

/// A picture or draft that is good so far.
struct Taking<'a> {
    writer: Writer,
    flow: Option<Flow<'a>>,
    is_draft: bool,
    /// Whether what follows cannot say that it is none.
    is_certain: bool,
    step: Step,
}

/// What is done with bytes that came: where a call that is dropped leaves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Writing,
    Showing,
}

enum Writer {
    Raw(ImageWriter),
    Base64(Base64Writer),
}

impl<'a> Collector<'a> {
    /// A collector for up to `wanted` pictures.
    pub(super) fn new(store: &'a ImageStore, wanted: usize, exposure: Exposure<'a>) -> Self {
        Self {
            store,
            wanted,
            exposure,
            collected: Vec::new(),
            drafts: 0,
            drafts_shown: 0,
            current: Current::Idle,
            has_shown: false,
        }
    }

    /// What came, in the order of the answer. A picture that broke off is in it if its bytes say that it is whole
    /// all the same: the caller may have all of it (I5). Any other that did not end, or was abandoned, is not:
    /// dropping its writer removed it. Nor is what the store has not kept when we are `out_of_time`.
    pub(super) async fn into_collected(
        mut self,
        out_of_time: impl Future<Output = ()>,
    ) -> Vec<Collected> {
        if let Current::Taking(taking) = std::mem::replace(&mut self.current, Current::Idle) {
            let stored = tokio::select! {
                stored = taking.break_off(self.store, self.exposure) => stored,
                () = out_of_time => None,
            };
            self.collected.extend(stored.map(Collected::Whole));
        }
        self.collected
    }

    /// How many drafts the provider has sent.
    pub(super) fn drafts(&self) -> usize {
        self.drafts
    }

    /// How many of them came whole and were shown.
    pub(super) fn drafts_shown(&self) -> usize {
        self.drafts_shown
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

    /// What is being taken will not be whole: dropping it says so, to the store and to who sees it.
    fn give_up(&mut self) {
        self.current = Current::Idle;
    }

    fn begin(&mut self, opening: Opening, encoding: Encoding, is_certain: bool) {
        self.give_up();
        self.has_shown = false;
        let is_draft = matches!(opening, Opening::Draft(_));
        let is_seen = match self.exposure {
            Exposure::Flowing(outlet) => outlet.shows == Shows::Stream,
            Exposure::Stored | Exposure::Whole(_) => false,
        };
        if (is_draft && !is_seen) || (!is_draft && self.has_enough()) {
            self.current = Current::Surplus;
            return;
        }
        let (keep, flow) = match self.exposure {
            Exposure::Stored | Exposure::Whole(_) => (Keep::Always, None),
            Exposure::Flowing(outlet) => {
                let keep = match (is_draft, is_certain) {
                    // Shown at its end, so it has to be somewhere until then.
                    (false, false) => Keep::Always,
                    // For a caller that is slow; nobody asks for a draft again.
                    (true, _) if outlet.keep == Keep::Always => Keep::IfPossible,
                    (_, _) => outlet.keep,
                };
                let flow = Flow::new(outlet, opening, encoding, is_certain);
                (keep, Some(flow))
            }
        };
        let writer = self.store.tee(keep);
        self.current = Current::Taking(Box::new(Taking {
            writer: match encoding {
                Encoding::Raw => Writer::Raw(writer),
                Encoding::Base64 => Writer::Base64(Base64Writer::new(writer)),
            },
            flow,
            is_draft,
            is_certain,
            step: Step::Done,
        }));
    }

    async fn data(&mut self, bytes: &Bytes) -> Result<(), ProviderError> {
        let Current::Taking(taking) = &mut self.current else {
            return Ok(());
        };
        let taken = taking.data(bytes).await;
        faults::reach(Point::DuringCall);
        let Err(error) = taken else {
            return Ok(());
        };
        let is_draft = taking.is_draft;
        self.give_up();
        let broken = broken(&error)?;
        self.current = if is_draft {
            Current::Surplus
        } else {
            Current::PassingOver(broken)
        };
        Ok(())
    }

    async fn end(&mut self) -> Result<(), ProviderError> {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Taking(taking) => {
                let is_draft = taking.is_draft;
                let ended = taking.end(self.store, self.exposure).await;
                self.has_shown = ended.is_ok();
                let collected = match ended {
                    Ok(stored) => Collected::Whole(stored),
                    Err(error) => broken(&error)?,
                };
                match collected {
                    Collected::Whole(_) if is_draft => {
                        self.drafts_shown = self.drafts_shown.saturating_add(1);
                    }
                    Collected::Broken(_) if is_draft => {}
                    collected => self.collected.push(collected),
                }
            }
            Current::PassingOver(collected) => self.collected.push(collected),
            Current::Idle | Current::Surplus => {}
        }
        Ok(())
    }

    fn about(&self, about: Box<About>) {
        // Of several calls nobody could tell which picture it is about.
        if let Exposure::Flowing(outlet) = self.exposure
            && self.has_shown
        {
            outlet.show_about(about);
        }
    }
}

impl Taking<'_> {
    async fn data(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        self.step = Step::Writing;
        self.writer.write(bytes).await?;
        self.step = Step::Showing;
        if let Some(flow) = &mut self.flow {
            flow.data(bytes, self.writer.is_kept(), self.writer.ended_at())
                .await;
            if flow.needs_copy() {
                self.writer.must_be_kept();
            }
        }
        self.step = Step::Done;
        Ok(())
    }

    /// The provider will send no more, and did not send its end. Shows it broken unless it is whole.
    async fn break_off(
        mut self,
        store: &ImageStore,
        exposure: Exposure<'_>,
    ) -> Option<StoredImage> {
        let may_be_whole = !self.is_draft && self.is_certain && self.step != Step::Writing;
        if !may_be_whole {
            return None;
        }
        if self.step == Step::Showing {
            self.flow = None;
        }
        let stored = self.end(store, exposure).await.ok()?;
        tracing::info!(image.id = %stored.id, "a picture broke off behind its last byte, and counts");
        Some(stored)
    }

    async fn end(
        self,
        store: &ImageStore,
        exposure: Exposure<'_>,
    ) -> Result<StoredImage, StoreError> {
        let Self {
            writer,
            flow,
            is_draft,
            is_certain: _,
            step: _,
        } = self;
        let needs_copy = flow.as_ref().is_some_and(Flow::needs_copy);
        let finished = async {
            let writer = match writer {
                Writer::Raw(writer) => writer,
                Writer::Base64(writer) => writer.end().await?,
            };
            match exposure {
                Exposure::Flowing(_) if is_draft && !needs_copy => writer.finish_unkept(),
                Exposure::Flowing(_) if is_draft => writer.finish_unsynced().await,
                // Who listens has it, or gets it at once; what nobody listens to must outlive a crash.
                Exposure::Flowing(outlet)
                    if outlet.keep != Keep::Always && outlet.is_listening() =>
                {
                    writer.finish_unsynced().await
                }
                Exposure::Flowing(_) | Exposure::Stored | Exposure::Whole(_) => {
                    writer.finish().await
                }
            }
        };
        match (finished.await, flow, exposure) {
            (Ok(stored), Some(flow), _) => {
                // Nobody asks for a draft again.
                let temporary = (is_draft && stored.is_kept).then(|| store.temporary(&stored));
                flow.end(&stored, temporary);
                Ok(stored)
            }
            (Ok(stored), None, Exposure::Whole(outlet)) => {
                outlet.show_stored(&stored);
                Ok(stored)
            }
            (Ok(stored), None, Exposure::Stored | Exposure::Flowing(_)) => Ok(stored),
            (Err(error), _, _) => Err(error),
        }
    }
}

impl Writer {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Raw(writer) => writer.write(bytes).await,
            Self::Base64(writer) => writer.write(bytes).await,
        }
    }

    fn is_kept(&self) -> bool {
        match self {
            Self::Raw(writer) => writer.is_kept(),
            Self::Base64(writer) => writer.is_kept(),
        }
    }

    fn ended_at(&self) -> Option<u64> {
        match self {
            Self::Raw(writer) => writer.ended_at(),
            Self::Base64(writer) => writer.ended_at(),
        }
    }

    fn must_be_kept(&mut self) {
        match self {
            Self::Raw(writer) => writer.must_be_kept(),
            Self::Base64(writer) => writer.must_be_kept(),
        }
    }
}

impl PictureSink for Collector<'_> {
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            match event {
                PictureEvent::Begin(encoding) => self.begin(Opening::Picture, encoding, true),
                PictureEvent::Perhaps(encoding) => self.begin(Opening::Picture, encoding, false),
                PictureEvent::Draft { index, encoding } => {
                    self.drafts = self.drafts.saturating_add(1);
                    self.begin(Opening::Draft(index), encoding, true);
                }
                PictureEvent::Data(bytes) => return self.data(&bytes).await,
                PictureEvent::End => return self.end().await,
                PictureEvent::About(about) => self.about(about),
                PictureEvent::Abandon => self.give_up(),
            }
            Ok(())
        })
    }
}

/// The provider's fault is a broken picture; ours ends the call.
fn broken(error: &StoreError) -> Result<Collected, ProviderError> {
    match error {
        StoreError::NotAPicture(_) | StoreError::TooLarge(_) => {
            Ok(Collected::Broken(error.to_string()))
        }
        StoreError::Io { .. } | StoreError::Bucket { .. } => Err(cannot_store(error)),
    }
}

fn cannot_store(error: &StoreError) -> ProviderError {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the image store failed"
    );
    ProviderError::new(ErrorKind::Storage, "the image store failed")
}
