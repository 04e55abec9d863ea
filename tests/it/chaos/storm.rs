//! What breaks. Each of these goes on for as long as the storm and leaves everything whole behind it.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::fleet::Fleet;
use crate::support::{Cluster, Proxy};

fn between(dice: &mut StdRng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(dice.random_range(least_ms..most_ms))
}

/// Kills one replica after the other, any of them. Returns how many.
pub(super) async fn kill_replicas(fleet: &mut Fleet<'_>, storm: Duration, mut dice: StdRng) -> u32 {
    let began_at = Instant::now();
    let mut kills = 0;
    loop {
        sleep(between(&mut dice, 1500, 4000)).await;
        if began_at.elapsed() >= storm {
            return kills;
        }
        let place = dice.random_range(0..fleet.len());
        fleet.kill(place);
        kills += 1;
        sleep(between(&mut dice, 50, 1500)).await;
        // What one leaves that does not come back is there until others have found it silent: not so late that
        // everybody has to wait for it.
        let has_moved = began_at.elapsed() < storm / 3 && dice.random_bool(0.5);
        fleet.revive(place, has_moved).await;
    }
}

/// Has `PostgreSQL` crash now and then. Returns how often.
pub(super) async fn crash_postgres(
    cluster: &mut Cluster,
    storm: Duration,
    mut dice: StdRng,
) -> u32 {
    let began_at = Instant::now();
    let mut crashes = 0;
    loop {
        sleep(between(&mut dice, 4000, 9000)).await;
        if began_at.elapsed() >= storm {
            return crashes;
        }
        cluster.crash();
        crashes += 1;
        sleep(between(&mut dice, 0, 1000)).await;
        cluster.restart().await;
    }
}

/// Cuts connections to the database, refuses, delays or stops them.
pub(super) async fn trouble_connections(proxy: &Proxy, storm: Duration, mut dice: StdRng) {
    let began_at = Instant::now();
    while began_at.elapsed() < storm {
        sleep(between(&mut dice, 200, 1200)).await;
        match dice.random_range(0..8) {
            0..3 => proxy.cut(3),
            3 => proxy.cut(1),
            4 => proxy.close(),
            5 => proxy.stand_still(),
            _ => proxy.delay(between(&mut dice, 1, 25)),
        }
        sleep(between(&mut dice, 50, 800)).await;
        proxy.open();
    }
}
