//! `usageMetadata` as token counts (`contracts/google-imagen.md`, 2.3).

use crate::catalog::TokenUsage;

/// The numbers of an answer; absent ones are 0.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) candidates: u64,
    pub(super) thoughts: u64,
    /// Of `prompt`, how many were pictures.
    pub(super) prompt_image: u64,
    /// Of `candidates`, how many were pictures.
    pub(super) candidates_image: u64,
    /// Of `candidates`, how many were text.
    pub(super) candidates_text: u64,
}

impl Counts {
    /// The usage, or `None` when nothing came out: a placeholder. Thinking is text and comes on top of the
    /// candidates. What a total has beyond its details is text where pictures are named (the details of
    /// some answers name nothing else), and pictures where there are no details.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        let rest = self
            .candidates
            .saturating_sub(self.candidates_image.saturating_add(self.candidates_text));
        let (rest_image, rest_text) = if self.candidates_image == 0 {
            (rest, 0)
        } else {
            (0, rest)
        };
        let output_image = self.candidates_image.saturating_add(rest_image);
        let output_text = self
            .candidates_text
            .saturating_add(rest_text)
            .saturating_add(self.thoughts);
        if output_image == 0 && output_text == 0 {
            return None;
        }
        let input_text = self.prompt.saturating_sub(self.prompt_image);
        let cached_text = self.cached.min(input_text);
        Some(TokenUsage {
            input_text,
            input_image: self.prompt_image,
            cached_text,
            cached_image: (self.cached - cached_text).min(self.prompt_image),
            output_text,
            output_image,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_filled_in() {
        // Prompt, cached, candidates, thoughts, prompt image, candidates image, candidates text;
        // expected: text in, image in, cached text, cached image, text out, image out.
        for (counts, expected) in [
            ([9, 0, 1120, 0, 0, 1120, 0], Some([9, 0, 0, 0, 0, 1120])),
            ([9, 0, 1120, 300, 0, 1120, 0], Some([9, 0, 0, 0, 300, 1120])),
            ([9, 0, 1315, 0, 0, 1290, 0], Some([9, 0, 0, 0, 25, 1290])),
            ([9, 0, 1315, 0, 0, 1290, 20], Some([9, 0, 0, 0, 25, 1290])),
            ([9, 0, 1290, 7, 0, 0, 0], Some([9, 0, 0, 0, 7, 1290])),
            (
                [1129, 0, 1120, 0, 1120, 1120, 0],
                Some([9, 1120, 0, 0, 0, 1120]),
            ),
            (
                [1129, 100, 1120, 0, 1120, 1120, 0],
                Some([9, 1120, 9, 91, 0, 1120]),
            ),
            ([9, 0, 0, 0, 0, 0, 0], None),
            ([0; 7], None),
            (
                [u64::MAX; 7],
                Some([0, u64::MAX, 0, u64::MAX, u64::MAX, u64::MAX]),
            ),
        ] {
            let [
                prompt,
                cached,
                candidates,
                thoughts,
                prompt_image,
                candidates_image,
                candidates_text,
            ] = counts;
            let found = Counts {
                prompt,
                cached,
                candidates,
                thoughts,
                prompt_image,
                candidates_image,
                candidates_text,
            }
            .usage();
            let expected = expected.map(|parts: [u64; 6]| TokenUsage {
                input_text: parts[0],
                input_image: parts[1],
                cached_text: parts[2],
                cached_image: parts[3],
                output_text: parts[4],
                output_image: parts[5],
            });
            assert_eq!(found, expected, "{counts:?}");
        }
    }
}
