//! The task's end of a delivery: what is shown goes through here, and so does the last word.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{HELD_BACK, PATIENCE, Piece, flow::Opening, pipe::Pipe};
use crate::{
    gateway::{
        GatewayError, Generation, Reader,
        admit::Admission,
        replay::{Echo, Lead},
    },
    ids::GenerationId,
    images::{Keep, StoredImage, Temporary},
    providers::About,
};

/// How long a store that is slow may hold up a settlement when the process has no time left; for the pictures of a
/// call, and once more for those whose client has left.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// What a caller wants to see before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Shows {
    /// Nothing: links are made at the end.
    Nothing,
    /// The pictures of one answer, in their order.
    Answer,
    /// Pictures and drafts, each as soon as there is one.
    Stream,
}

/// The first word to a caller.
pub(in crate::gateway) enum Word {
    /// Everything is settled, or nothing came.
    Last(Result<Box<Generation>, GatewayError>),
    /// There is something to see; the upstream calls so far, as `provider=outcome`.
    Begun(String),
    /// Nothing was begun, because the order repeats the one of this generation.
    Repeat(Box<Admission>, GenerationId),
    /// The hold is committed; all else is told to who comes back for it.
    Held,
}

impl fmt::Debug for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Last(_) => "Last",
            Self::Begun(_) => "Begun",
            Self::Repeat(..) => "Repeat",
            Self::Held => "Held",
        })
    }
}

/// What became of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is on its way.
    Taken,
    /// The caller does not keep up.
    Behind,
    /// Nobody listens.
    Unheard,
}

/// The task's end of a delivery.
#[derive(Debug)]
pub(in crate::gateway) struct Outlet {
    reader: Reader,
    pub(in crate::gateway) shows: Shows,
    /// Whether pictures that are shown while they arrive are also kept.
    pub(in crate::gateway) keep: Keep,
    pipe: Arc<Pipe>,
    line: Mutex<Line>,
    client_left: CancellationToken,
    /// The process has no time left.
    cut: CancellationToken,
    /// Who waits for the same answer.
    lead: Lead,
    is_torn: AtomicBool,
}

#[derive(Debug)]
struct Line {
    /// Who waits for the first word.
    waiting: Option<oneshot::Sender<Word>>,
    has_begun: bool,
    /// The upstream calls that failed before, as `provider=outcome`.
    failed: Vec<String>,
    /// Who is called now.
    provider: String,
    patience: Duration,
    /// The same for what is nowhere else.
    last_patience: Duration,
}

impl Line {
    fn patience(&mut self, has_copy: bool) -> &mut Duration {
        if has_copy {
            &mut self.patience
        } else {
            &mut self.last_patience
        }
    }

    /// Tells the caller that there is something to see.
    fn begin(&mut self) {
        self.has_begun = true;
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let mut attempts = std::mem::take(&mut self.failed);
        attempts.push(format!("{}=ok", self.provider));
        if waiting.send(Word::Begun(attempts.join(", "))).is_err() {
            log_leaving();
        }
    }
}

impl Outlet {
    #[expect(
        clippy::too_many_arguments,
        reason = "each of another kind, and made in one place"
    )]
    pub(in crate::gateway) fn new(
        reader: Reader,
        shows: Shows,
        keep: Keep,
        pipe: Arc<Pipe>,
        waiting: oneshot::Sender<Word>,
        client_left: CancellationToken,
        lead: Lead,
        last_patience: Duration,
        cut: CancellationToken,
    ) -> Self {
        Self {
            reader,
            shows,
            keep,
            pipe,
            line: Mutex::new(Line {
                waiting: Some(waiting),
                has_begun: false,
                failed: Vec::new(),
                provider: String::new(),
                patience: PATIENCE,
                last_patience,
            }),
            client_left,
            cut,
            lead,
            is_torn: AtomicBool::new(false),
        }
    }

    /// Whether something has been shown: then there is no way back, and no other route.
    pub(in crate::gateway) fn has_begun(&self) -> bool {
        self.line().has_begun
    }

    /// Whether somebody still waits for what is shown.
    pub(in crate::gateway) fn is_listening(&self) -> bool {
        !self.client_left.is_cancelled() && !self.is_torn.load(Ordering::Relaxed)
    }

    /// When nobody does any more, and nobody who asked for the same waits for what comes of it; never, once
    /// something was shown, or when whoever asked was told to come back.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub(in crate::gateway) async fn everybody_left(&self) {
        self.client_left.cancelled().await;
        self.lead.nobody_waits().await;
        if self.has_begun() || self.is_told_later() {
            std::future::pending::<()>().await;
        }
    }

    fn is_told_later(&self) -> bool {
        self.reader == Reader::ComesBack && self.line().waiting.is_none()
    }

    /// When its account wants it stopped; never, once something was shown.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub(in crate::gateway) async fn stopped(&self) {
        self.lead.stopped().await;
        if self.has_begun() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether its account wants it stopped, and it can be.
    pub(in crate::gateway) fn is_stopped(&self) -> bool {
        self.lead.is_stopped() && !self.has_begun()
    }

    /// The hold is committed. Who comes back for the answer need not wait any longer.
    pub(in crate::gateway) fn held(&self) {
        if self.reader == Reader::ComesBack
            && let Some(waiting) = self.line().waiting.take()
            && waiting.send(Word::Held).is_err()
        {
            log_leaving();
        }
    }

    /// When the process has no time left for what is in flight.
    ///
    /// # Cancel safety
    /// May be dropped.
    pub(in crate::gateway) async fn cut_short(&self) {
        self.cut.cancelled().await;
    }

    /// When the store has had its last moments, too: what it has not kept by then is not waited for.
    ///
    /// # Cancel safety
    /// May be dropped; the moments begin anew for who asks again.
    pub(in crate::gateway) async fn out_of_time(&self) {
        self.cut.cancelled().await;
        sleep(LAST_MOMENTS).await;
    }

    /// Whether the process has none left: then no call is begun any more.
    pub(in crate::gateway) fn is_cut_short(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// From now on this provider is called.
    pub(in crate::gateway) fn turn_to(&self, provider: &str) {
        provider.clone_into(&mut self.line().provider);
    }

    /// A call came to this end (`provider=outcome`), and not to a good one. Who has seen something by then
    /// hears of it from the settled generation.
    pub(in crate::gateway) fn note_failure(&self, outcome: String) {
        let mut line = self.line();
        if !line.has_begun {
            line.failed.push(outcome);
        }
    }

    /// Drops what was held back for a route that failed.
    pub(in crate::gateway) fn forget(&self) {
        if !self.has_begun() {
            self.pipe.clear();
        }
    }

    /// Shows a picture that is whole and in the store.
    pub(in crate::gateway) fn show_stored(&self, stored: &StoredImage) {
        if self.is_torn.load(Ordering::Relaxed) {
            return;
        }
        // Nothing may come between; several calls may show at a time.
        let mut line = self.line();
        self.pipe.push(Piece::Picture);
        self.push_rest(stored, 0, None);
        self.push_end(stored);
        if self.shows == Shows::Stream {
            line.begin();
        }
    }

    /// Shows what the provider says of what was shown last.
    pub(in crate::gateway) fn show_about(&self, about: Box<About>) {
        self.push(Piece::About(about));
    }

    /// The last word. Whatever comes after one is not heard: a settlement that gets through after its
    /// caller was told that it did not is one for the books.
    pub(in crate::gateway) fn conclude(&self, outcome: Result<Generation, GatewayError>) {
        let mut line = self.line();
        if let Some(waiting) = line.waiting.take() {
            let outcome = outcome.map(|mut generation| {
                self.give_texts(&mut generation);
                Box::new(generation)
            });
            self.lead.tell_outcome(outcome.as_deref());
            if waiting.send(Word::Last(outcome)).is_err() {
                log_leaving();
            }
        } else {
            self.lead.tell_outcome(outcome.as_ref());
            self.pipe.push(match outcome {
                Ok(generation) => Piece::Settled(Box::new(generation)),
                Err(error) => Piece::Failed(error),
            });
        }
        self.pipe.close();
    }

    /// Gives the order back, which is a repeat.
    pub(in crate::gateway) fn hand_back(&self, admission: Admission, repeats: GenerationId) {
        self.lead.tell(Echo::RepeatOf(repeats));
        if let Some(waiting) = self.line().waiting.take() {
            let word = Word::Repeat(Box::new(admission), repeats);
            if waiting.send(word).is_err() {
                log_leaving();
            }
        }
    }

    /// A picture or draft begins to be shown.
    pub(super) fn open(&self, opening: Opening) {
        self.line().begin();
        self.push(opening.piece());
    }

    /// Shows one that is whole and was held back so far.
    pub(super) fn show_held(&self, opening: Opening, text: Bytes, stored: &StoredImage) {
        if self.is_torn.load(Ordering::Relaxed) {
            return;
        }
        self.pipe.push(opening.piece());
        self.pipe.push(Piece::Text(text));
        self.push_end(stored);
        // Small answers stay here until they are settled: they go out whole, with their length.
        if self.shows == Shows::Stream || self.pipe.waiting() > HELD_BACK {
            self.line().begin();
        }
    }

    /// Hands on text of what was opened. Waits for the caller while there is patience left. Without a copy
    /// that it could read later there is more of it, and its end is that of the answer: it breaks off, and the
    /// provider is read to its end all the same.
    pub(super) async fn write(&self, mut text: Bytes, has_copy: bool) -> Written {
        loop {
            if !self.is_listening() {
                return Written::Unheard;
            }
            text = match self.pipe.try_write(text) {
                Ok(()) => return Written::Taken,
                Err(text) => text,
            };
            let room = async {
                tokio::select! {
                    () = self.pipe.has_room() => {}
                    () = self.client_left.cancelled() => {}
                }
            };
            let patience = *self.line().patience(has_copy);
            let began_at = Instant::now();
            let is_over = timeout(patience, room).await.is_err();
            *self.line().patience(has_copy) = if is_over {
                Duration::ZERO
            } else {
                patience.saturating_sub(began_at.elapsed())
            };
            if is_over && has_copy {
                return Written::Behind;
            }
            if is_over {
                tracing::info!("the client reads too slowly for an answer without a copy");
                self.tear();
            }
        }
    }

    pub(super) fn push_text(&self, text: Bytes) {
        if !text.is_empty() {
            self.push(Piece::Text(text));
        }
    }

    pub(super) fn push_rest(
        &self,
        stored: &StoredImage,
        text_offset: u64,
        temporary: Option<Temporary>,
    ) {
        self.push(Piece::Rest {
            id: stored.id,
            format: stored.info.format,
            text_offset,
            temporary,
        });
    }

    pub(super) fn push_end(&self, stored: &StoredImage) {
        self.push(Piece::End {
            id: stored.id,
            info: stored.info,
        });
    }

    /// What was opened will never be complete.
    pub(super) fn tear(&self) {
        self.push(Piece::Torn);
        self.is_torn.store(true, Ordering::Relaxed);
    }

    fn push(&self, piece: Piece) {
        if !self.is_torn.load(Ordering::Relaxed) {
            self.pipe.push(piece);
        }
    }

    /// What was held back goes with the pictures it belongs to.
    fn give_texts(&self, generation: &mut Generation) {
        let mut pictures = generation.pictures.iter_mut();
        let mut current = None;
        for piece in self.pipe.clear() {
            match piece {
                Piece::Picture => current = pictures.next(),
                Piece::Text(text) => {
                    if let Some(picture) = &mut current {
                        picture.text = Some(text);
                    }
                }
                _ => {}
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // After a panic nobody has said the last word.
        self.pipe.close();
    }
}

fn log_leaving() {
    tracing::info!("the client left before the answer");
}
