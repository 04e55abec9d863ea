//! The hand-over between a task and its caller: in order, and bounded in bytes.
//!
//! Bytes are counted, not pieces: a chunk from a socket is anything between a byte and 400 KiB. Small ones
//! are copied together, so that a provider that sends byte by byte does not fill the memory with pointers.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::Piece;

/// Text that may wait for its reader; one more chunk may come on top.
const WINDOW: usize = 128 * 1024;
/// Text below this is copied together.
const SMALL: usize = 4 * 1024;
/// Text is handed out in pieces of at most this, so that what the HTTP library holds stays bounded too.
const LARGEST: usize = 64 * 1024;

/// One writer, one reader.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Pipe {
    state: Mutex<State>,
    news: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// Small text behind all pieces.
    tail: BytesMut,
    /// Text in both.
    bytes: usize,
    is_closed: bool,
}

impl Pipe {
    /// Hands over a piece, whether or not there is room. Pieces that are no text are few.
    pub(super) fn push(&self, piece: Piece) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        match piece {
            Piece::Text(text) => state.push_text(text),
            other => {
                state.settle_tail();
                state.pieces.push_back(other);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Hands over text if there is room.
    pub(super) fn try_write(&self, text: Bytes) -> Result<(), Bytes> {
        let mut state = self.lock();
        if state.bytes >= WINDOW {
            return Err(text);
        }
        state.push_text(text);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// Ends when there may be room again.
    pub(super) async fn has_room(&self) {
        self.room.notified().await;
    }

    /// How much text waits.
    pub(super) fn waiting(&self) -> usize {
        self.lock().bytes
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }

    /// Takes what waits away.
    pub(super) fn clear(&self) -> Vec<Piece> {
        let mut state = self.lock();
        state.settle_tail();
        state.bytes = 0;
        state.pieces.drain(..).collect()
    }

    /// The next piece, or `None` when nothing comes any more.
    ///
    /// # Cancel safety
    /// May be dropped: no piece is lost.
    pub(super) async fn next(&self) -> Option<Piece> {
        loop {
            {
                let mut state = self.lock();
                if let Some(piece) = state.take() {
                    let has_room = matches!(piece, Piece::Text(_)) && state.bytes < WINDOW;
                    drop(state);
                    if has_room {
                        self.room.notify_one();
                    }
                    return Some(piece);
                }
                if state.is_closed {
                    return None;
                }
            }
            // A notice from before this is kept, so that none is missed.
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push_text(&mut self, text: Bytes) {
        self.bytes = self.bytes.saturating_add(text.len());
        if text.len() < SMALL {
            self.tail.extend_from_slice(&text);
            if self.tail.len() >= LARGEST {
                self.settle_tail();
            }
        } else {
            self.settle_tail();
            self.pieces.push_back(Piece::Text(text));
        }
    }

    fn settle_tail(&mut self) {
        if !self.tail.is_empty() {
            let text = self.tail.split().freeze();
            self.pieces.push_back(Piece::Text(text));
        }
    }

    fn take(&mut self) -> Option<Piece> {
        if self.pieces.is_empty() {
            self.settle_tail();
        }
        match self.pieces.pop_front()? {
            Piece::Text(mut text) => {
                if text.len() > LARGEST {
                    let rest = text.split_off(LARGEST);
                    self.pieces.push_front(Piece::Text(rest));
                }
                self.bytes = self.bytes.saturating_sub(text.len());
                Some(Piece::Text(text))
            }
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn text_of(pieces: &[Piece]) -> Vec<u8> {
        let texts = pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.to_vec()),
            _ => None,
        });
        texts.collect::<Vec<_>>().concat()
    }

    fn drain(pipe: &Pipe) -> Vec<Piece> {
        std::iter::from_fn(|| pipe.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn small_text_is_copied_together_and_large_text_is_cut() {
        let pipe = Pipe::default();
        pipe.push(Piece::Picture);
        for _ in 0..1000 {
            pipe.try_write(Bytes::from_static(b"ab")).unwrap();
        }
        pipe.try_write(vec![b'c'; 150_000].into()).unwrap();
        assert!(
            pipe.try_write(Bytes::from_static(b"d")).is_err(),
            "there is no room"
        );
        let pieces = drain(&pipe);
        assert!(matches!(pieces[0], Piece::Picture));
        assert_eq!(pieces.len(), 1 + 1 + 3);
        let expected = [b"ab".repeat(1000), vec![b'c'; 150_000]].concat();
        assert_eq!(text_of(&pieces), expected);
        assert_eq!(pipe.waiting(), 0);
    }

    #[tokio::test]
    async fn room_is_told_of_and_the_end_too() {
        let pipe = Pipe::default();
        pipe.try_write(vec![0; WINDOW].into()).unwrap();
        assert!(pipe.has_room().now_or_never().is_none());
        drain(&pipe);
        pipe.has_room().await;
        pipe.push(Piece::Torn);
        pipe.close();
        pipe.push(Piece::Picture);
        assert!(matches!(pipe.next().await, Some(Piece::Torn)));
        assert!(pipe.next().await.is_none());
    }
}
