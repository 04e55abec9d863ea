use super::*;

const SETTINGS: BreakerSettings = BreakerSettings {
    failures: 3,
    rest: Duration::from_secs(10),
};
const SUCCESS: Outcome = Outcome::Success {
    images: 2,
    latency: Duration::from_secs(4),
};

struct Route {
    health: Health,
    now: Instant,
}

impl Route {
    fn new() -> Self {
        Self {
            health: Health::new(SETTINGS),
            now: Instant::now(),
        }
    }

    fn calls(&self, outcomes: &[Outcome]) -> &Self {
        for outcome in outcomes {
            let ticket = self.health.call_begins("p", "m", self.now);
            self.health.call_ended("p", "m", ticket, *outcome, self.now);
        }
        self
    }

    fn later(&mut self, seconds: u64) -> &Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn expect(&self, standing: Standing) -> &Self {
        assert_eq!(self.health.condition("p", "m", self.now).standing, standing);
        self
    }
}

#[test]
fn failures_in_a_row_make_a_route_rest_and_a_probe_brings_it_back() {
    let mut route = Route::new();
    route
        .expect(Standing::Healthy)
        .calls(&[Outcome::Failure, Outcome::Failure])
        .expect(Standing::Degraded)
        .calls(&[Outcome::Failure])
        .expect(Standing::Resting);
    route.later(9).expect(Standing::Resting);
    route.later(1);
    // One request probes; the others go on resting the route until it ends.
    let straggler = Ticket::default();
    let probe = route.health.call_begins("p", "m", route.now);
    route.expect(Standing::Resting);
    let refused = Outcome::Neutral;
    route
        .health
        .call_ended("p", "m", straggler, refused, route.now);
    route.expect(Standing::Resting);
    route.health.call_ended("p", "m", probe, SUCCESS, route.now);
    assert_ne!(
        route.health.condition("p", "m", route.now).standing,
        Standing::Resting
    );
    route.calls(&[SUCCESS; 5]).expect(Standing::Healthy);
}

#[test]
fn failed_probes_double_the_rest() {
    let mut route = Route::new();
    route.calls(&[Outcome::Failure; 3]);
    route.later(10).calls(&[Outcome::Failure]);
    route.later(19).expect(Standing::Resting);
    route.later(1).calls(&[Outcome::Failure]);
    route.later(39).expect(Standing::Resting);
    let now = route.later(1).now;
    assert_ne!(
        route.health.condition("p", "m", now).standing,
        Standing::Resting
    );
}

#[test]
fn a_provider_is_left_alone_as_long_as_it_asks_within_reason() {
    let rest = |retry_after| {
        let mut route = Route::new();
        route.calls(&[leave_alone(retry_after, false)]);
        let mut seconds = 0;
        while route.health.condition("p", "m", route.now).standing == Standing::Resting {
            route.later(1);
            seconds += 1;
        }
        seconds
    };
    assert_eq!(rest(Some(Duration::from_secs(7))), 7);
    assert_eq!(rest(None), 5);
    assert_eq!(rest(Some(Duration::from_hours(24))), 300);
}

fn leave_alone(retry_after: Option<Duration>, whole_account: bool) -> Outcome {
    Outcome::LeaveAlone {
        retry_after,
        whole_account,
    }
}

#[test]
fn an_account_that_is_locked_out_rests_all_of_a_providers_routes() {
    let standing = |route: &Route, model| {
        let condition = route.health.condition("p", model, route.now);
        condition.standing
    };
    let minute = Some(Duration::from_mins(1));
    let mut route = Route::new();
    route.calls(&[leave_alone(minute, false)]);
    assert_eq!(standing(&route, "other"), Standing::Healthy);
    route.calls(&[leave_alone(minute, true)]);
    assert_eq!(standing(&route, "other"), Standing::Resting);
    route.later(59);
    assert_eq!(standing(&route, "other"), Standing::Resting);
    route.later(1);
    assert_eq!(standing(&route, "other"), Standing::Healthy);
}

/// Four pictures were asked for at once, the first was refused, and the others arrive.
#[test]
fn calls_that_were_under_way_do_not_end_a_rest() {
    let mut route = Route::new();
    let minute = Some(Duration::from_mins(1));
    for whole_account in [false, true] {
        route.calls(&[leave_alone(minute, whole_account)]);
        route
            .later(1)
            .calls(&[SUCCESS; 3])
            .expect(Standing::Resting);
        // This one began later.
        route
            .later(4)
            .calls(&[SUCCESS; 8])
            .expect(Standing::Healthy);
    }
}

#[test]
fn what_says_nothing_changes_nothing() {
    let route = Route::new();
    route
        .calls(&[Outcome::Neutral; 20])
        .expect(Standing::Healthy);
    let condition = route.health.condition("p", "m", route.now);
    assert_eq!(condition, Condition::UNKNOWN);
}

#[test]
fn trouble_with_the_account_rests_all_of_a_providers_routes() {
    let mut route = Route::new();
    route
        .calls(&[Outcome::AccountTrouble])
        .expect(Standing::Resting);
    let now = route.now;
    assert_eq!(
        route.health.condition("p", "other", now).standing,
        Standing::Resting
    );
    assert_eq!(
        route.health.condition("q", "m", now).standing,
        Standing::Healthy
    );
    route.later(60).calls(&[SUCCESS]).expect(Standing::Healthy);
    assert_eq!(
        route.health.condition("p", "other", route.now).standing,
        Standing::Healthy
    );
}

#[test]
fn an_ordered_rest_outlasts_successes_and_ends_by_order() {
    let mut route = Route::new();
    let now = route.now;
    route.calls(&[SUCCESS]);
    route.health.rest("p", Duration::from_hours(2), now);
    route.calls(&[SUCCESS]).expect(Standing::Resting);
    let report = route.health.of_provider("p", now);
    assert!(report.by_order);
    assert_eq!(report.rests_for, Some(Duration::from_hours(2)));
    assert_eq!(report.routes.len(), 1);
    assert_eq!(report.routes[0].rests_for, None, "the route itself is well");
    route.later(7199).expect(Standing::Resting);
    route.later(1).expect(Standing::Healthy);

    route.health.rest("p", Duration::MAX, route.now);
    route
        .calls(&[Outcome::Failure; 3])
        .expect(Standing::Resting);
    route.health.resume("p");
    // Its failures still count against it, but it is tried.
    assert_ne!(
        route.health.condition("p", "m", route.now).standing,
        Standing::Resting
    );
    let report = route.health.of_provider("p", route.now);
    assert_eq!((report.rests_for, report.by_order), (None, false));
    assert_eq!(report.routes[0].failures_in_a_row, 0);
    assert!(route.health.of_provider("q", now).routes.is_empty());
}

#[test]
fn measurements_fade() {
    let mut route = Route::new();
    route.calls(&[SUCCESS, Outcome::Failure]);
    let fresh = route.health.condition("p", "m", route.now).failure_rate;
    route.later(60);
    let faded = route.health.condition("p", "m", route.now).failure_rate;
    assert!((fresh - 0.2).abs() < 1e-9, "{fresh}");
    assert!((faded - 0.1).abs() < 1e-9, "{faded}");
    let condition = route.health.condition("p", "m", route.now);
    assert_eq!(condition.latency, Some(Duration::from_secs(4)));
    assert_eq!(condition.images_per_second, Some(0.5));
}
