//! Which route next. Pure: candidates and wishes in, an order out; no bodies, no sockets, no tables.
//!
//! Two questions are answered here and nowhere else: in which order a request's routes are tried
//! ([`rank`]), and whether a failed attempt goes on to the next one ([`after_failure`]).

mod failure;
mod preferences;

pub use self::{
    failure::{Next, after_failure},
    preferences::{Preferences, Sort},
};
use crate::money::NanoUsd;

/// A route as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The provider's name in the configuration.
    pub provider: &'a str,
    /// Why this route cannot be taken at all (`OPENAI_API_KEY is not set`).
    pub unavailable: Option<&'a str>,
    /// The largest price of one picture, markup included.
    pub price_per_image: NanoUsd,
}

/// Nobody is left; for each route why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// Provider and reason, in the catalog's order.
    pub reasons: Vec<(String, String)>,
    /// Whether the request's own wishes excluded a route that could have served it.
    pub by_preference: bool,
}

/// The candidates in the order in which they are to be tried, as indices into `candidates`.
///
/// `order` names come first, in their order; the others follow in the catalog's order (or by `sort`)
/// unless `allow_fallbacks` is false. Without `order`, `allow_fallbacks = false` leaves the first one.
///
/// # Errors
/// [`NoRoute`] when none is left.
pub fn rank(
    candidates: &[Candidate<'_>],
    preferences: &Preferences,
) -> Result<Vec<usize>, NoRoute> {
    let mut reasons = Vec::new();
    let mut by_preference = false;
    let mut ranked = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if let Some(why) = candidate.unavailable {
            reasons.push((candidate.provider.to_owned(), why.to_owned()));
        } else if let Some(why) = preferences.excludes(candidate) {
            by_preference = true;
            reasons.push((candidate.provider.to_owned(), why));
        } else {
            ranked.push(index);
        }
    }
    if preferences.sort == Some(Sort::Price) {
        ranked.sort_by_key(|&index| candidates[index].price_per_image);
    }
    // Stable: routes that `order` does not name keep their place behind those it does.
    ranked.sort_by_key(|&index| preferences.place(candidates[index].provider));
    if !preferences.allow_fallbacks && preferences.order.is_empty() {
        ranked.truncate(1);
    }
    if ranked.is_empty() {
        return Err(NoRoute {
            reasons,
            by_preference,
        });
    }
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(preferences: &Preferences, expected: &[&str]) {
        let candidates = [
            ("openai", None, "0.04"),
            ("reseller", None, "0.02"),
            ("local", None, "0.03"),
            ("vertex", Some("no credentials"), "0.01"),
        ]
        .map(|(provider, unavailable, price)| Candidate {
            provider,
            unavailable,
            price_per_image: NanoUsd::parse(price).unwrap(),
        });
        let ranked: Vec<&str> = rank(&candidates, preferences)
            .unwrap_or_default()
            .into_iter()
            .map(|index| candidates[index].provider)
            .collect();
        assert_eq!(ranked, expected, "{preferences:?}");
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn wishes_decide_the_order() {
        let any = Preferences::default();
        check(&any, &["openai", "reseller", "local"]);
        check(
            &Preferences {
                order: names(&["Local"]),
                ..any.clone()
            },
            &["local", "openai", "reseller"],
        );
        check(
            &Preferences {
                order: names(&["local", "reseller"]),
                allow_fallbacks: false,
                ..any.clone()
            },
            &["local", "reseller"],
        );
        check(
            &Preferences {
                allow_fallbacks: false,
                ..any.clone()
            },
            &["openai"],
        );
        check(
            &Preferences {
                only: Some(names(&["RESELLER", "local"])),
                ..any.clone()
            },
            &["reseller", "local"],
        );
        check(
            &Preferences {
                ignore: names(&["openai"]),
                sort: Some(Sort::Price),
                ..any.clone()
            },
            &["reseller", "local"],
        );
        check(
            &Preferences {
                max_price: Some(NanoUsd::parse("0.03").unwrap()),
                ..any.clone()
            },
            &["reseller", "local"],
        );
        check(
            &Preferences {
                only: Some(names(&["vertex"])),
                ..any
            },
            &[],
        );
    }

    #[test]
    fn nobody_left_says_why_for_each() {
        let candidates = [
            Candidate {
                provider: "openai",
                unavailable: Some("OPENAI_API_KEY is not set"),
                price_per_image: NanoUsd::ZERO,
            },
            Candidate {
                provider: "local",
                unavailable: None,
                price_per_image: NanoUsd::from_nano(5),
            },
        ];
        let refused = rank(
            &candidates,
            &Preferences {
                max_price: Some(NanoUsd::from_nano(4)),
                ..Preferences::default()
            },
        )
        .unwrap_err();
        assert!(refused.by_preference);
        assert_eq!(
            refused.reasons,
            [
                ("openai".to_owned(), "OPENAI_API_KEY is not set".to_owned()),
                (
                    "local".to_owned(),
                    "costs up to 0.000000005 USD an image, max_price is 0.000000004".to_owned()
                ),
            ]
        );
    }
}
