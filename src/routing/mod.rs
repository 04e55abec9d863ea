//! Which route next. Pure: candidates and wishes in, an order out; no bodies, no sockets, no tables.
//!
//! Two questions are answered here and nowhere else: in which order a request's routes are tried
//! ([`rank`]), and whether a failed attempt goes on to the next one ([`after_failure`]). [`Health`]
//! remembers how routes have been doing; everything else is a function.

use std::cmp::Ordering;

mod failure;
mod health;
mod preferences;

pub use self::{
    failure::{Next, after_failure, outcome, partial_outcome},
    health::{
        BreakerSettings, Condition, Health, Outcome, ProviderHealth, RouteReport, Standing, Ticket,
    },
    preferences::{Preferences, Sort},
};
use crate::money::NanoUsd;

/// A route as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'a> {
    /// The provider's name in the configuration.
    pub provider: &'a str,
    /// Why this route cannot be taken at all (`OPENAI_API_KEY is not set`).
    pub unavailable: Option<&'a str>,
    /// The largest price of one picture, markup included.
    pub price_per_image: NanoUsd,
    /// How it has been doing.
    pub condition: Condition,
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
/// `order` names come first, in their order; the others follow unless `allow_fallbacks` is false. Without
/// `order`, `allow_fallbacks = false` leaves the first one. Routes of the same rank go by `sort`; without
/// it by the catalog's order, in which routes that fail often come after healthy ones, the dearer and the
/// sicker the later. A resting route is tried when there is no other left.
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
    // Stable: what compares equal keeps the catalog's order.
    ranked.sort_by(|&left, &right| {
        let (left, right) = (&candidates[left], &candidates[right]);
        let rests = |candidate: &Candidate<'_>| candidate.condition.standing == Standing::Resting;
        let place = |candidate: &Candidate<'_>| preferences.place(candidate.provider);
        rests(left)
            .cmp(&rests(right))
            .then_with(|| place(left).cmp(&place(right)))
            .then_with(|| match preferences.sort {
                Some(sort) => by_wish(sort, left, right),
                None => by_standing(left, right),
            })
    });
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

fn by_wish(sort: Sort, left: &Candidate<'_>, right: &Candidate<'_>) -> Ordering {
    // What has not been measured yet is tried first: it has to be measured somehow.
    match sort {
        Sort::Price => left.price_per_image.cmp(&right.price_per_image),
        Sort::Latency => left.condition.latency.cmp(&right.condition.latency),
        Sort::Throughput => {
            let speed = |candidate: &Candidate<'_>| {
                candidate
                    .condition
                    .images_per_second
                    .unwrap_or(f64::INFINITY)
            };
            speed(right).total_cmp(&speed(left))
        }
    }
}

/// Healthy routes keep the catalog's order; the others go by what a delivered picture costs there when the
/// tries that fail are counted in.
fn by_standing(left: &Candidate<'_>, right: &Candidate<'_>) -> Ordering {
    let (standing, other) = (left.condition.standing, right.condition.standing);
    standing.cmp(&other).then_with(|| match standing {
        Standing::Healthy => Ordering::Equal,
        Standing::Degraded | Standing::Resting => burden(left).total_cmp(&burden(right)),
    })
}

/// Price divided by the share of calls that succeed. Only compared, never charged, so a float will do.
#[expect(clippy::cast_precision_loss, reason = "compared, never charged")]
fn burden(candidate: &Candidate<'_>) -> f64 {
    let success_rate = (1.0 - candidate.condition.failure_rate).max(0.01);
    candidate.price_per_image.nano() as f64 / success_rate
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            condition: Condition::UNKNOWN,
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
    fn health_decides_where_the_caller_has_no_wish() {
        use Standing::{Degraded, Healthy, Resting};

        let order =
            |routes: [(&'static str, &str, Standing, f64, u64); 3], wishes: &Preferences| {
                let candidates = routes.map(
                    |(provider, price, standing, failure_rate, latency)| Candidate {
                        provider,
                        unavailable: None,
                        price_per_image: NanoUsd::parse(price).unwrap(),
                        condition: Condition {
                            standing,
                            failure_rate,
                            latency: (latency > 0).then(|| Duration::from_secs(latency)),
                            images_per_second: None,
                        },
                    },
                );
                let ranked = rank(&candidates, wishes).unwrap();
                ranked
                    .into_iter()
                    .map(|index| candidates[index].provider)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
        let any = Preferences::default();
        let a_first = Preferences {
            order: names(&["a"]),
            ..any.clone()
        };
        let quickest = Preferences {
            sort: Some(Sort::Latency),
            ..any.clone()
        };
        let all_well = [
            ("a", "3", Healthy, 0.1, 9),
            ("b", "1", Healthy, 0.0, 5),
            ("c", "2", Healthy, 0.0, 7),
        ];
        assert_eq!(order(all_well, &any), "a b c");
        assert_eq!(order(all_well, &quickest), "b c a");
        let sick = [
            ("a", "3", Resting, 0.5, 9),
            ("b", "1", Degraded, 0.4, 5),
            ("c", "2", Healthy, 0.0, 0),
        ];
        assert_eq!(order(sick, &any), "c b a");
        assert_eq!(
            order(sick, &a_first),
            "c b a",
            "nobody waits behind a resting route"
        );
        assert_eq!(
            order(sick, &quickest),
            "c b a",
            "what is not measured yet is tried"
        );
        let poorly = [
            ("a", "3", Degraded, 0.4, 1),
            ("b", "1", Degraded, 0.4, 1),
            ("c", "2", Degraded, 0.35, 1),
        ];
        assert_eq!(order(poorly, &any), "b c a");
        assert_eq!(order(poorly, &a_first), "a b c");
    }

    #[test]
    fn nobody_left_says_why_for_each() {
        let candidates = [
            Candidate {
                provider: "openai",
                unavailable: Some("OPENAI_API_KEY is not set"),
                price_per_image: NanoUsd::ZERO,
                condition: Condition::UNKNOWN,
            },
            Candidate {
                provider: "local",
                unavailable: None,
                price_per_image: NanoUsd::from_nano(5),
                condition: Condition::UNKNOWN,
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
