//! Token counts as they stand in an answer, and what they mean when parts are missing.

use crate::catalog::TokenUsage;

/// The numbers of `usage` (`contracts/openai-images.md`, section 2), each there or not.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) input_text: Option<u64>,
    pub(super) input_image: Option<u64>,
    /// Of the input, how many were cached; not seen on images so far, though the rates are published.
    pub(super) cached: Option<u64>,
    pub(super) output_text: Option<u64>,
    pub(super) output_image: Option<u64>,
}

impl Counts {
    /// The usage, or `None` when none was reported. Zero tokens out count as none reported: some servers
    /// fill the field with zeros, and believing them would make pictures free. What a total has beyond its
    /// details goes to text on the way in and to pictures on the way out.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        let (input_text, input_image) =
            (self.input_text.unwrap_or(0), self.input_image.unwrap_or(0));
        let (output_text, output_image) = (
            self.output_text.unwrap_or(0),
            self.output_image.unwrap_or(0),
        );
        let rest = |total: Option<u64>, text: u64, image: u64| {
            total
                .unwrap_or(0)
                .saturating_sub(text.saturating_add(image))
        };
        let input_text = input_text.saturating_add(rest(self.input, input_text, input_image));
        let output_image =
            output_image.saturating_add(rest(self.output, output_text, output_image));
        if output_text == 0 && output_image == 0 {
            return None;
        }
        let cached = self.cached.unwrap_or(0);
        let cached_text = cached.min(input_text);
        Some(TokenUsage {
            input_text,
            input_image,
            cached_text,
            cached_image: (cached - cached_text).min(input_image),
            output_text,
            output_image,
        })
    }
}

/// The usage of two pictures of one stream, each of which came with its own.
pub(super) fn sum(one: TokenUsage, other: TokenUsage) -> TokenUsage {
    TokenUsage {
        input_text: one.input_text.saturating_add(other.input_text),
        input_image: one.input_image.saturating_add(other.input_image),
        cached_text: one.cached_text.saturating_add(other.cached_text),
        cached_image: one.cached_image.saturating_add(other.cached_image),
        output_text: one.output_text.saturating_add(other.output_text),
        output_image: one.output_image.saturating_add(other.output_image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_filled_in() {
        let some = |counts: [u64; 7]| {
            let [
                input,
                output,
                input_text,
                input_image,
                cached,
                output_text,
                output_image,
            ] = counts.map(|count| (count != 99).then_some(count));
            Counts {
                input,
                output,
                input_text,
                input_image,
                cached,
                output_text,
                output_image,
            }
        };
        // 99 is absent; expected: text in, image in, cached text, cached image, text out, image out.
        for (counts, expected) in [
            ([20, 4160, 20, 0, 99, 0, 4160], Some([20, 0, 0, 0, 0, 4160])),
            ([50, 50, 10, 40, 99, 99, 99], Some([10, 40, 0, 0, 0, 50])),
            ([20, 272, 99, 99, 99, 99, 99], Some([20, 0, 0, 0, 0, 272])),
            (
                [30, 300, 10, 15, 99, 20, 272],
                Some([15, 15, 0, 0, 20, 280]),
            ),
            ([99, 99, 10, 5, 99, 1, 272], Some([10, 5, 0, 0, 1, 272])),
            ([20, 272, 12, 8, 15, 99, 99], Some([12, 8, 12, 3, 0, 272])),
            ([20, 272, 12, 8, 1000, 99, 99], Some([12, 8, 12, 8, 0, 272])),
            ([20, 0, 20, 0, 99, 0, 0], None),
            ([99; 7], None),
            (
                [
                    u64::MAX,
                    u64::MAX,
                    u64::MAX,
                    u64::MAX,
                    99,
                    u64::MAX,
                    u64::MAX,
                ],
                Some([u64::MAX, u64::MAX, 0, 0, u64::MAX, u64::MAX]),
            ),
        ] {
            let expected = expected.map(|parts: [u64; 6]| TokenUsage {
                input_text: parts[0],
                input_image: parts[1],
                cached_text: parts[2],
                cached_image: parts[3],
                output_text: parts[4],
                output_image: parts[5],
            });
            assert_eq!(some(counts).usage(), expected, "{counts:?}");
        }
    }
}
