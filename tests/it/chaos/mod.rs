//! Everything at once: three replicas that are killed at random, a `PostgreSQL` that crashes, bad weather before
//! it, a provider that fails one call in five, and fifty clients that ask again as `OpenAI`'s SDKs do. Afterwards
//! the books say that each of their requests was charged at most once, and once where it brought pictures.
//!
//! Half a minute of storm where everybody runs the tests; `tests/chaos/run` makes it as long as one likes. What
//! happens is drawn from a seed, which is printed (how the processes interleave is not in its hands).

mod books;
mod client;
mod fleet;
mod provider;
mod storm;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use self::{client::Crowd, fleet::Fleet};
use crate::support::App;

const REPLICAS: usize = 3;
const CLIENTS: u64 = 50;
const STORM: Duration = Duration::from_secs(25);

/// How long, and drawn from what.
#[derive(Debug, Clone, Copy)]
struct Plan {
    storm: Duration,
    seed: u64,
}

impl Plan {
    fn read() -> Self {
        let number = |name: &str| {
            let text = std::env::var_os(name)?.into_string().ok()?;
            (!text.is_empty()).then(|| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        Self {
            storm: number("EASEL_CHAOS_SECONDS").map_or(STORM, Duration::from_secs),
            seed: number("EASEL_CHAOS_SEED").unwrap_or_else(rand::random),
        }
    }

    /// The dice of one of those who play.
    fn dice(self, whose: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(whose.wrapping_mul(0x9e37_79b9)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_charged_once_whatever_breaks() {
    let plan = Plan::read();
    println!(
        "chaos: {} s, EASEL_CHAOS_SEED={}",
        plan.storm.as_secs(),
        plan.seed
    );
    let mut app = App::builder()
        .await
        .with_cluster()
        .with_proxy()
        // The books below are stricter, and know of calls that nobody lived to write down.
        .with_other_upstreams()
        .set("providers.openai.timeout", "5s")
        .set("providers.openai.idle_timeout", "2s")
        .environment(
            "RUST_LOG",
            "info,sqlx=debug,easel::cli=debug,easel::postgres=debug",
        )
        .start()
        .await;
    let key = app.live_key("1000");
    let mut cluster = app.take_cluster();
    // Only the three are there from now on.
    app.easel.stop().await;
    provider::fails_one_call_in_five(&app.openai, plan.dice(1));
    let mut fleet = Fleet::start(&app, REPLICAS).await;

    let crowd = Arc::new(Crowd::new(&app, &key, fleet.origins()));
    let over = CancellationToken::new();
    let clients = join_all((0..CLIENTS).map(|number| {
        let (crowd, over) = (Arc::clone(&crowd), over.clone());
        async move { crowd.play(number, plan.dice(100 + number), over).await }
    }));
    let storm = async {
        let (kills, crashes, ()) = tokio::join!(
            storm::kill_replicas(&mut fleet, plan.storm, plan.dice(2)),
            storm::crash_postgres(&mut cluster, plan.storm, plan.dice(3)),
            storm::trouble_connections(app.proxy(), plan.storm, plan.dice(4)),
        );
        over.cancel();
        (kills, crashes)
    };
    let (stories, (kills, crashes)) = tokio::join!(clients, storm);
    let stories: Vec<_> = stories.into_iter().flatten().collect();
    books::wait_until_quiet(&app).await;

    let calls = app.openai.calls();
    let found = books::audit(&app, &stories, &calls).await;
    println!("chaos: {kills} kills, {crashes} crashes of PostgreSQL, {found}");
    assert!(kills > 0 && crashes > 0, "there was a storm");
    assert!(found.with_pictures >= 10, "somebody got something: {found}");
    crowd
        .open_links(&stories, plan.dice(5).random_range(0..100))
        .await;

    fleet.stop().await;
    app.start_again().await;
    app.balance(&key).await;
    app.give_cluster(cluster);
    app.finish().await;
}
