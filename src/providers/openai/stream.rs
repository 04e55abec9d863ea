//! Reads the events of a stream as they arrive (`contracts/openai-images.md`, section 3).
//!
//! Frames are cut by [`SseReader`], their JSON is read by [`AnswerReader`]; here is what lies between: which
//! frames are none of ours, where the stream is over, and how much one may weigh. Servers name their events
//! in an `event:` line, in `type`, or in both; end with `[DONE]` or without; and send errors in shapes of
//! their own (section 3.3).

use std::num::NonZeroU8;

use bytes::Bytes;

use super::{
    answer::{AnswerError, AnswerReader, Event, Outcome},
    error::ErrorBody,
    fields::{Kind, MAX_MESSAGE_BYTES},
};
use crate::providers::sse::{Piece, SseReader};

/// What some servers end with.
const DONE: &[u8] = b"[DONE]";

/// What the current frame has in it.
enum Frame {
    /// Nothing yet.
    Empty,
    Json,
    /// Something else, of which the beginning is kept.
    Text(Vec<u8>),
    /// JSON that nobody can read and nobody asked for.
    Left,
}

/// Reads one stream. Feed it with [`StreamReader::push`], then take events until there are none.
pub(super) struct StreamReader {
    frames: SseReader,
    answer: AnswerReader,
    frame: Frame,
    cap: u64,
    /// How much the current frame may still weigh.
    left: u64,
    is_over: bool,
}

impl StreamReader {
    /// For a stream with `n` pictures and at most `drafts` drafts in all, of which none weighs more than
    /// `cap` bytes as JSON.
    pub(super) fn new(n: NonZeroU8, drafts: u8, cap: u64) -> Self {
        Self {
            frames: SseReader::new(),
            answer: AnswerReader::for_stream(n, drafts),
            frame: Frame::Empty,
            cap,
            left: cap,
            is_over: false,
        }
    }

    /// Gives it the next chunk. The events of the one before must have been taken.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.frames.push(chunk);
    }

    /// Whether whatever follows does not matter: the stream has said its end, or every picture has come.
    pub(super) fn is_done(&self) -> bool {
        self.is_over || (self.answer.is_satisfied() && self.is_between_frames())
    }

    /// Whether it stands between two frames, so that all that came of it is whole.
    pub(super) fn is_between_frames(&self) -> bool {
        !matches!(self.frame, Frame::Json) || self.answer.is_settled()
    }

    /// The next event, or `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`AnswerError`]; nothing more comes after one.
    pub(super) fn next(&mut self) -> Result<Option<Event>, AnswerError> {
        loop {
            match self.answer.next() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(_) if self.answer.kind() == Kind::Other => {
                    self.answer.leave_event();
                    self.frame = Frame::Left;
                    // The rest of this piece is in the broken tokenizer, which the next event replaces.
                    self.answer.begin_event(Kind::Other);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.is_done() {
                return Ok(None);
            }
            match self.frames.next() {
                Some(Piece::Data(data)) => self.data(data)?,
                Some(Piece::End) => self.end_frame()?,
                None => return Ok(None),
            }
        }
    }

    /// The body has ended, and with it the last frame, whatever follows it or not. Take the events that are
    /// left.
    ///
    /// # Errors
    /// [`AnswerError`] as ever.
    pub(super) fn end(&mut self) -> Result<(), AnswerError> {
        match self.frames.finish() {
            Some(_) if !self.is_done() => self.end_frame(),
            _ => Ok(()),
        }
    }

    /// What came.
    pub(super) fn finish(self) -> Outcome {
        self.answer.finish()
    }

    fn data(&mut self, mut data: Bytes) -> Result<(), AnswerError> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or(AnswerError::LargeEvent)?;
        if matches!(self.frame, Frame::Empty) {
            let blank = data.iter().take_while(|byte| byte.is_ascii_whitespace());
            let _blank = data.split_to(blank.count());
            self.frame = match data.first() {
                None => Frame::Empty,
                Some(b'{') => {
                    let named = Kind::of_event(self.frames.event());
                    self.answer.begin_event(named);
                    Frame::Json
                }
                Some(_) => Frame::Text(Vec::new()),
            };
        }
        match &mut self.frame {
            Frame::Empty | Frame::Left => {}
            Frame::Json => self.answer.push(data),
            Frame::Text(kept) => {
                let room = MAX_MESSAGE_BYTES - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), AnswerError> {
        self.left = self.cap;
        let named = Kind::of_event(self.frames.event());
        match std::mem::replace(&mut self.frame, Frame::Empty) {
            Frame::Json => self.answer.end_event(named)?,
            Frame::Text(text) if text.trim_ascii() == DONE => self.is_over = true,
            Frame::Text(text) if named == Kind::Error => self.answer.add_error(ErrorBody {
                message: String::from_utf8_lossy(&text).into_owned(),
                ..ErrorBody::default()
            }),
            Frame::Empty | Frame::Left | Frame::Text(_) => {}
        }
        Ok(())
    }
}
