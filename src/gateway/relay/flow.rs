//! One picture or draft on its way to the caller, beside its way into the store.

use bytes::Bytes;

use super::{
    HELD_BACK, Piece,
    outlet::{Outlet, Written},
    text::Text,
};
use crate::{
    images::{StoredImage, Temporary, encoded_len},
    providers::Encoding,
};

/// What begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Opening {
    Picture,
    Draft(u8),
}

impl Opening {
    pub(super) fn piece(self) -> Piece {
        match self {
            Self::Picture => Piece::Picture,
            Self::Draft(index) => Piece::Draft(index),
        }
    }
}

/// One picture or draft on its way.
#[derive(Debug)]
pub(in crate::gateway) struct Flow<'a> {
    outlet: &'a Outlet,
    opening: Opening,
    text: Text,
    state: State,
    /// Whether it may be shown before its end.
    is_certain: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing is shown of it yet.
    Held(Vec<u8>),
    /// It is shown as it comes.
    Flowing { shown: u64 },
    /// So much was shown, if it was opened at all; the rest is for later.
    Behind { shown: Option<u64> },
    /// Nobody wants it any more.
    Unheard,
}

impl<'a> Flow<'a> {
    /// One that begins now. If it is not certain that it is a picture at all, it is shown at its end.
    pub(in crate::gateway) fn new(
        outlet: &'a Outlet,
        opening: Opening,
        encoding: Encoding,
        is_certain: bool,
    ) -> Self {
        Self {
            outlet,
            opening,
            text: Text::of(encoding),
            state: State::Held(Vec::new()),
            is_certain,
        }
    }

    /// Whether only its copy will make it complete.
    pub(in crate::gateway) fn needs_copy(&self) -> bool {
        matches!(self.state, State::Behind { .. })
    }

    /// The next bytes as the provider sent them, once they were found good. `has_copy`: they are also kept;
    /// `size`: that of the picture in bytes, as soon as its end was seen.
    pub(in crate::gateway) async fn data(
        &mut self,
        bytes: &Bytes,
        has_copy: bool,
        size: Option<u64>,
    ) {
        let text = self.text.take(bytes, size);
        match &mut self.state {
            State::Held(held) if held.len() + text.len() <= HELD_BACK => {
                held.extend_from_slice(&text);
            }
            State::Held(_) if !self.is_certain => self.state = State::Behind { shown: None },
            State::Held(held) => {
                let held = std::mem::take(held);
                self.state = State::Flowing { shown: 0 };
                self.outlet.open(self.opening);
                self.show(held.into(), has_copy).await;
                self.show(text, has_copy).await;
            }
            State::Flowing { .. } => self.show(text, has_copy).await,
            State::Behind { .. } | State::Unheard => {}
        }
    }

    /// It is whole. `temporary`: its copy, if it is there for the caller alone.
    pub(in crate::gateway) fn end(mut self, stored: &StoredImage, temporary: Option<Temporary>) {
        let text = std::mem::replace(&mut self.text, Text::Base64(0)).finish();
        match std::mem::replace(&mut self.state, State::Unheard) {
            State::Held(mut held) => {
                held.extend_from_slice(&text);
                self.outlet.show_held(self.opening, held.into(), stored);
            }
            State::Unheard => {}
            State::Flowing { .. } => {
                // A few characters: not worth waiting for room.
                self.outlet.push_text(text);
                self.outlet.push_end(stored);
            }
            State::Behind { shown: None } => self.outlet.show_stored(stored),
            State::Behind { shown: Some(shown) } => {
                // Not so where something stood behind its end.
                if shown < encoded_len(stored.size_bytes) {
                    self.outlet.push_rest(stored, shown, temporary);
                }
                self.outlet.push_end(stored);
            }
        }
    }

    async fn show(&mut self, text: Bytes, has_copy: bool) {
        let State::Flowing { shown } = self.state else {
            return;
        };
        let length = text.len() as u64;
        if length == 0 {
            return;
        }
        self.state = match self.outlet.write(text, has_copy).await {
            Written::Taken => State::Flowing {
                shown: shown.saturating_add(length),
            },
            Written::Behind => State::Behind { shown: Some(shown) },
            Written::Unheard => State::Unheard,
        };
    }
}

/// Dropped before its end it will never be whole, also when the call that it belongs to is dropped halfway: an answer
/// may not go on behind half a picture.
impl Drop for Flow<'_> {
    fn drop(&mut self) {
        match self.state {
            State::Flowing { .. } | State::Behind { shown: Some(_) } => self.outlet.tear(),
            State::Held(_) | State::Behind { shown: None } | State::Unheard => {}
        }
    }
}
