//! How each route has been doing lately: latency and failures that fade with time, and a circuit breaker.
//!
//! Pure state: the clock is passed in, nothing here waits or calls. Every replica learns for itself.
//!
//! A route that failed several times in a row, or that asked to be left alone, *rests*: others are tried
//! before it, but when there is no other it is tried all the same, because a caller with one provider is
//! better served by that provider's own answer than by our guess. When its rest is over, one request
//! probes it: success makes it healthy, failure doubles the rest.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::Instant;

/// When a route rests, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerSettings {
    /// Failures in a row that make a route rest.
    pub failures: u32,
    /// Its first rest; doubled by every failed probe.
    pub rest: Duration,
}

/// The longest rest, whatever doubling or a provider's `Retry-After` says.
const LONGEST_REST: Duration = Duration::from_mins(5);
/// The longest rest that can be ordered: a year. Who wants a provider gone switches it off.
const LONGEST_ORDERED_REST: Duration = Duration::from_hours(365 * 24);
/// A rate limit that does not say for how long.
const UNSAID_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long our own account's trouble (key, credit) keeps a route at rest: only a person mends it.
const ACCOUNT_REST: Duration = Duration::from_mins(1);
/// After so long, a measurement counts half.
const HALF_LIFE: Duration = Duration::from_mins(1);
/// Stands for a provider's account among its upstream models.
const ACCOUNT: &str = "";
/// The weight of the newest call among those before it.
const NEWEST: f64 = 0.2;
/// Above this share of failures a route is no longer taken for healthy.
const DEGRADED_ABOVE: f64 = 0.3;

/// How a route looks at a moment, to the one who ranks it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// Whether it should be tried first, later, or last.
    pub standing: Standing,
    /// The fading share of calls that failed, 0 to 1.
    pub failure_rate: f64,
    /// How long a call takes; `None` before the first success.
    pub latency: Option<Duration>,
    /// Pictures a second of one call; `None` before the first success.
    pub images_per_second: Option<f64>,
}

/// Whether a route should be tried first, later, or last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// As good as the catalog says.
    Healthy,
    /// Fails often.
    Degraded,
    /// Rests; only when there is no other.
    Resting,
}

impl Condition {
    /// A route nothing is known of: presumed healthy.
    pub const UNKNOWN: Self = Self {
        standing: Standing::Healthy,
        failure_rate: 0.0,
        latency: None,
        images_per_second: None,
    };
}

/// How a call ended, as far as its route's health goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It brought pictures.
    Success {
        /// How many.
        images: u32,
        /// How long it took.
        latency: Duration,
    },
    /// The route failed: counts against it.
    Failure,
    /// The provider wants to be left alone.
    LeaveAlone {
        /// For how long, if it said.
        retry_after: Option<Duration>,
        /// Whether that is said to our account rather than to this route.
        whole_account: bool,
    },
    /// Our account does not work there.
    AccountTrouble,
    /// Says nothing about the route: the client's mistake, a refusal, our own limit or fault.
    Neutral,
}

/// A call under way: whether it probes a route, or an account, whose rest is over.
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "a probe that never ends rests its route for minutes"]
pub struct Ticket {
    probes_route: bool,
    probes_account: bool,
}

/// The health of every route that has been called.
#[derive(Debug)]
pub struct Health {
    settings: RwLock<BreakerSettings>,
    /// Provider → upstream model → health. Two levels, so that a look-up allocates nothing.
    routes: RwLock<HashMap<String, HashMap<String, Arc<RouteHealth>>>>,
}

/// How a provider looks to an operator.
#[derive(Debug, Clone, Default)]
pub struct ProviderHealth {
    /// How long all of its routes still rest; `None` when only single ones do, or none.
    pub rests_for: Option<Duration>,
    /// Whether an operator ordered that.
    pub by_order: bool,
    /// Its routes that have been called, by upstream model.
    pub routes: Vec<RouteReport>,
}

/// How one route looks to an operator.
#[derive(Debug, Clone)]
pub struct RouteReport {
    /// The provider's name of the model.
    pub upstream_model: String,
    /// How it looks.
    pub condition: Condition,
    /// Calls that failed since the last that did not.
    pub failures_in_a_row: u32,
    /// How long it still rests; zero when its next call is a probe that is under way.
    pub rests_for: Option<Duration>,
}

/// The health of one route.
#[derive(Debug, Default)]
struct RouteHealth(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures_in_a_row: u32,
    failed_probes: u32,
    rests_until: Option<Instant>,
    rests_since: Option<Instant>,
    /// What an operator ordered; no success ends it.
    ordered_rest_until: Option<Instant>,
    probing_since: Option<Instant>,
    failure_rate: f64,
    latency_seconds: Option<f64>,
    images_per_second: Option<f64>,
    measured_at: Option<Instant>,
}

impl Health {
    /// Nothing known yet.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings: RwLock::new(settings),
            routes: RwLock::default(),
        }
    }

    /// From now on by these settings; rests that have begun end as they were to.
    pub fn go_by(&self, settings: BreakerSettings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Forgets how a provider's routes have been doing, because it is another one now, or none. A rest that an
    /// operator ordered goes on.
    pub fn forget(&self, provider: &str) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let ordered = routes.remove(provider).and_then(|models| {
            let ordered = models.get(ACCOUNT)?.lock().ordered_rest_until?;
            Some(State {
                ordered_rest_until: Some(ordered),
                ..State::default()
            })
        });
        if let Some(state) = ordered {
            let account = Arc::new(RouteHealth(Mutex::new(state)));
            let models = HashMap::from([(ACCOUNT.to_owned(), account)]);
            routes.insert(provider.to_owned(), models);
        }
    }

    /// How a route looks now.
    pub fn condition(&self, provider: &str, upstream_model: &str, now: Instant) -> Condition {
        let route = self
            .known(provider, upstream_model)
            .map_or(Condition::UNKNOWN, |route| route.lock().condition(now));
        let account = self
            .known(provider, ACCOUNT)
            .map_or(Standing::Healthy, |account| {
                account.lock().condition(now).standing
            });
        Condition {
            standing: route.standing.max(account),
            ..route
        }
    }

    /// Every route that has been called: provider, upstream model, and how it stands.
    pub fn standings(&self, now: Instant) -> Vec<(String, String, Standing)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<(String, String)> = routes
            .iter()
            .flat_map(|(provider, models)| {
                models.keys().map(|model| (provider.clone(), model.clone()))
            })
            .collect();
        drop(routes);
        names.sort_unstable();
        names
            .into_iter()
            .map(|(provider, model)| {
                let standing = self.condition(&provider, &model, now).standing;
                (provider, model, standing)
            })
            .collect()
    }

    /// A call begins. If it is the probe of a rested route, others go on resting it until it ends.
    pub fn call_begins(&self, provider: &str, upstream_model: &str, now: Instant) -> Ticket {
        let probes = |part| {
            self.known(provider, part)
                .is_some_and(|route| route.lock().call_begins(now))
        };
        Ticket {
            probes_route: probes(upstream_model),
            probes_account: probes(ACCOUNT),
        }
    }

    /// The call of this ticket has ended.
    pub fn call_ended(
        &self,
        provider: &str,
        upstream_model: &str,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) {
        let settings = *self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let end = |route: &RouteHealth, probed, outcome| {
            route.lock().call_ended(probed, outcome, &settings, now);
        };
        let concerns_account = match outcome {
            Outcome::AccountTrouble => true,
            Outcome::LeaveAlone { whole_account, .. } => whole_account,
            Outcome::Success { .. } | Outcome::Failure | Outcome::Neutral => false,
        };
        if concerns_account {
            // The account is the same for all of the provider's routes; this one's probe is over.
            if let Some(route) = self.known(provider, upstream_model) {
                end(&route, ticket.probes_route, Outcome::Neutral);
            }
            let account = self.route(provider, ACCOUNT);
            return end(&account, ticket.probes_account, outcome);
        }
        let route = self.route(provider, upstream_model);
        end(&route, ticket.probes_route, outcome);
        if let Some(account) = self.known(provider, ACCOUNT) {
            let told = match outcome {
                Outcome::Success { .. } => outcome,
                _ => Outcome::Neutral,
            };
            end(&account, ticket.probes_account, told);
        }
    }

    /// Rests all routes of a provider for this long, whatever their calls bring: others go before them.
    pub fn rest(&self, provider: &str, time: Duration, now: Instant) {
        let until = now + time.min(LONGEST_ORDERED_REST);
        self.route(provider, ACCOUNT).lock().ordered_rest_until = Some(until);
    }

    /// Ends every rest of a provider, ordered or earned, and forgets the failures in a row that led to it.
    pub fn resume(&self, provider: &str) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        for route in routes.get(provider).into_iter().flat_map(HashMap::values) {
            let mut state = route.lock();
            state.ordered_rest_until = None;
            state.rests_until = None;
            state.rests_since = None;
            state.probing_since = None;
            state.failures_in_a_row = 0;
            state.failed_probes = 0;
        }
    }

    /// How a provider and those of its routes that have been called look now, for an operator.
    pub fn of_provider(&self, provider: &str, now: Instant) -> ProviderHealth {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut health = ProviderHealth::default();
        for (upstream_model, route) in routes.get(provider).into_iter().flatten() {
            let state = route.lock();
            if upstream_model == ACCOUNT {
                health.rests_for = state.rests_for(now);
                health.by_order = state.is_ordered_to_rest(now);
            } else {
                health.routes.push(RouteReport {
                    upstream_model: upstream_model.clone(),
                    condition: state.condition(now),
                    failures_in_a_row: state.failures_in_a_row,
                    rests_for: state.rests_for(now),
                });
            }
        }
        health
            .routes
            .sort_by(|one, other| one.upstream_model.cmp(&other.upstream_model));
        health
    }

    fn known(&self, provider: &str, upstream_model: &str) -> Option<Arc<RouteHealth>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.get(provider)?.get(upstream_model).cloned()
    }

    fn route(&self, provider: &str, upstream_model: &str) -> Arc<RouteHealth> {
        if let Some(route) = self.known(provider, upstream_model) {
            return route;
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            routes
                .entry(provider.to_owned())
                .or_default()
                .entry(upstream_model.to_owned())
                .or_default(),
        )
    }
}

impl RouteHealth {
    /// Held for a few instructions, never across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn condition(&self, now: Instant) -> Condition {
        let failure_rate = self.failure_rate * self.freshness(now);
        Condition {
            standing: if self.is_resting(now) {
                Standing::Resting
            } else if failure_rate > DEGRADED_ABOVE {
                Standing::Degraded
            } else {
                Standing::Healthy
            },
            failure_rate,
            latency: self.latency_seconds.map(Duration::from_secs_f64),
            images_per_second: self.images_per_second,
        }
    }

    fn is_ordered_to_rest(&self, now: Instant) -> bool {
        self.ordered_rest_until.is_some_and(|until| now < until)
    }

    /// What is left of its rest, if it rests.
    fn rests_for(&self, now: Instant) -> Option<Duration> {
        let until = self.rests_until.max(self.ordered_rest_until);
        self.is_resting(now)
            .then(|| until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)))
    }

    fn is_resting(&self, now: Instant) -> bool {
        if self.is_ordered_to_rest(now) {
            return true;
        }
        match (self.rests_until, self.probing_since) {
            (Some(until), _) if now < until => true,
            // A probe that never reports (its process side was dropped) does not rest the route for good.
            (Some(_), Some(since)) => now.duration_since(since) < LONGEST_REST,
            _ => false,
        }
    }

    fn call_begins(&mut self, now: Instant) -> bool {
        let probes = self.rests_until.is_some() && !self.is_resting(now);
        if probes {
            self.probing_since = Some(now);
        }
        probes
    }

    fn call_ended(
        &mut self,
        probing: bool,
        outcome: Outcome,
        settings: &BreakerSettings,
        now: Instant,
    ) {
        if probing {
            self.probing_since = None;
        }
        match outcome {
            Outcome::Neutral => {}
            Outcome::Success { images, latency } => {
                self.measure(0.0, now);
                let seconds = latency.as_secs_f64();
                self.latency_seconds = Some(blend(self.latency_seconds, seconds));
                if seconds > 0.0 {
                    let rate = f64::from(images) / seconds;
                    self.images_per_second = Some(blend(self.images_per_second, rate));
                }
                // A call that was under way before the rest began says nothing against it.
                let began_at = now.checked_sub(latency).unwrap_or(now);
                if self.rests_since.is_none_or(|since| began_at >= since) {
                    self.failures_in_a_row = 0;
                    self.failed_probes = 0;
                    self.rests_until = None;
                    self.rests_since = None;
                }
            }
            Outcome::Failure => {
                self.measure(1.0, now);
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                if probing {
                    self.failed_probes = self.failed_probes.saturating_add(1);
                }
                if probing || self.failures_in_a_row >= settings.failures {
                    let doubled = 2_u32.saturating_pow(self.failed_probes.min(16));
                    self.rest(settings.rest.saturating_mul(doubled), now);
                }
            }
            Outcome::LeaveAlone { retry_after, .. } => {
                self.measure(1.0, now);
                self.rest(retry_after.unwrap_or(UNSAID_RETRY_AFTER), now);
            }
            Outcome::AccountTrouble => {
                self.measure(1.0, now);
                self.rest(ACCOUNT_REST, now);
            }
        }
    }

    fn rest(&mut self, time: Duration, now: Instant) {
        let until = now + time.min(LONGEST_REST);
        self.rests_since = Some(now);
        self.rests_until = Some(self.rests_until.map_or(until, |before| before.max(until)));
    }

    fn measure(&mut self, failed: f64, now: Instant) {
        let before = self.failure_rate * self.freshness(now);
        self.failure_rate = before * (1.0 - NEWEST) + failed * NEWEST;
        self.measured_at = Some(now);
    }

    /// How much the last measurement still counts, 0 to 1.
    fn freshness(&self, now: Instant) -> f64 {
        self.measured_at.map_or(0.0, |at| {
            0.5_f64.powf(now.duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64())
        })
    }
}

fn blend(before: Option<f64>, newest: f64) -> f64 {
    before.map_or(newest, |before| before * (1.0 - NEWEST) + newest * NEWEST)
}

#[cfg(test)]
mod tests;
