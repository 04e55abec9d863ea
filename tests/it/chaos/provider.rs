//! The provider of the storm: every fifth call fails, in each of the ways in which calls fail.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng};

use crate::support::{Behaviour, FakeOpenAi, Reply, pictures};

/// A picture that is shown while it arrives, with what stands before and behind it.
fn large_answer() -> Bytes {
    let text = STANDARD.encode(pictures::noise(240, 1));
    let usage = r#""usage":{"total_tokens":282,"input_tokens":10,"output_tokens":272,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}"#;
    format!(
        r#"{{"created":1795000000,"data":[{{"b64_json":"{text}"}}],"size":"1024x1024",{usage}}}"#
    )
    .into()
}

pub(super) fn fails_one_call_in_five(fake: &FakeOpenAi, dice: StdRng) {
    let large = large_answer();
    let dice = Arc::new(Mutex::new(dice));
    fake.choose(move |call| {
        let mut dice = dice.lock().unwrap();
        let is_large = call.body["model"] == "gpt-image-1";
        let pause = Duration::from_millis(dice.random_range(5..250));
        if dice.random_ratio(4, 5) {
            return if is_large {
                in_two(&large, pause, true)
            } else {
                Behaviour::AnswerAfter(pause)
            };
        }
        match dice.random_range(0..12) {
            0..2 => Behaviour::Reply(Reply::server_error()),
            2..4 => Behaviour::Reply(Reply::overloaded()),
            4..6 => Behaviour::Reply(Reply::rate_limited().with_header("retry-after", "1")),
            6..8 => Behaviour::Reset,
            8..11 if is_large => in_two(&large, pause, false),
            8..11 => Behaviour::CutAfter(400),
            // Until the provider's timeout.
            _ => Behaviour::Never,
        }
    });
}

/// Two thirds at once, and the rest after a pause, unless the connection breaks instead.
fn in_two(body: &Bytes, pause: Duration, goes_on: bool) -> Behaviour {
    let first = body.len() / 3 * 2;
    let mut pieces = vec![(Duration::ZERO, body.slice(..first))];
    if goes_on {
        pieces.push((pause, body.slice(first..)));
    }
    Behaviour::Pieces(pieces, goes_on)
}
