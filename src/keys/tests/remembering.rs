//! Keys that two replicas remember: what changes by one is true at the other within a second.

use std::time::Duration;

use futures_util::{FutureExt, future::join_all};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::*;

const WITHIN: Duration = Duration::from_secs(1);

struct Replicas {
    ring: Ring,
    /// Changes keys.
    here: Keys,
    /// Remembers them, with a pool of its own.
    there: Keys,
    secret: SecretString,
    key: ApiKey,
}

async fn replicas() -> Replicas {
    let ring = ring().await;
    let here = Keys::new(ring.database.pool.clone(), ring.clock.clone());
    let options = ring.database.pool.connect_options().as_ref().clone();
    let pool = crate::postgres::connect(options, 4).await.unwrap();
    let there = Keys::new(pool, ring.clock.clone()).remembered();
    let (key, secret) = here.create(ring.new_key()).await.unwrap();
    Replicas {
        ring,
        here,
        there,
        secret,
        key,
    }
}

impl Replicas {
    async fn opens(&self) -> bool {
        self.seen().await.is_some()
    }

    async fn seen(&self) -> Option<ApiKey> {
        self.there.authenticate(&self.secret).await.unwrap()
    }

    /// How long it takes until the other replica sees it so.
    async fn until(&self, so: impl Fn(Option<ApiKey>) -> bool) -> Duration {
        let began = Instant::now();
        while !so(self.seen().await) {
            sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }

    /// Follows changes there, and waits until it does.
    async fn listening(&self) -> JoinSet<()> {
        let mut following = JoinSet::new();
        following.spawn(self.there.clone().follow_changes());
        self.until_listening(0).await;
        following
    }

    /// Until another connection than this listens; says which.
    async fn until_listening(&self, but: i32) -> i32 {
        let listener = "select coalesce(max(pid), 0) from pg_stat_activity
             where application_name = 'easel keys' and datname = current_database() and pid <> $1";
        loop {
            let found: i32 = sqlx::query_scalar(listener)
                .bind(but)
                .fetch_one(&self.ring.database.pool)
                .await
                .unwrap();
            // It may still be on its way to its first statement.
            sleep(Duration::from_millis(100)).await;
            if found != 0 {
                return found;
            }
        }
    }

    /// How many wait for the table.
    async fn looks(&self) -> i64 {
        let waiting = "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'";
        sqlx::query_scalar(waiting)
            .fetch_one(&self.ring.database.pool)
            .await
            .unwrap()
    }

    /// Changes the key as nobody does who wants it known.
    async fn revoke_in_silence(&self) {
        let mut connection = self.ring.database.pool.acquire().await.unwrap();
        let sql = "set session_replication_role = replica;
             update api_keys set revoked_at = now();
             set session_replication_role = origin";
        sqlx::raw_sql(sql).execute(&mut *connection).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_listener_a_key_is_remembered_for_less_than_a_second() {
    let replicas = replicas().await;
    assert!(replicas.opens().await);
    replicas.revoke_in_silence().await;
    assert!(replicas.opens().await, "it is remembered");
    let took = replicas.until(|key| key.is_none()).await;
    assert!(took < WITHIN, "{took:?}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_the_other_replica_within_a_second() {
    let replicas = replicas().await;
    let following = replicas.listening().await;
    assert!(replicas.opens().await);
    replicas.revoke_in_silence().await;
    sleep(2 * WITHIN).await;
    assert!(replicas.opens().await, "a listener remembers for longer");
    replicas.here.revoke(replicas.key.id).await.unwrap();
    let took = replicas.until(|key| key.is_none()).await;
    assert!(took < WITHIN, "{took:?}");
    drop(following);
}

#[tokio::test]
async fn changed_keys_and_accounts_are_heard_of() {
    let replicas = replicas().await;
    let following = replicas.listening().await;
    assert!(replicas.opens().await);
    let update = KeyUpdate {
        limits: LimitsUpdate {
            requests_per_minute: Some(Some(1)),
            ..LimitsUpdate::default()
        },
        ..KeyUpdate::default()
    };
    replicas
        .here
        .update(replicas.key.id, &update)
        .await
        .unwrap();
    let limited = |key: Option<ApiKey>| key.unwrap().limits.requests_per_minute == Some(1);
    let took = replicas.until(limited).await;
    assert!(took < WITHIN, "{took:?}");

    let pool = replicas.ring.database.pool.clone();
    let ledger = Ledger::new(pool, replicas.ring.clock.clone(), ReplicaId::new());
    let update = AccountUpdate {
        markup_basis_points: Some(Some(1250)),
        ..AccountUpdate::default()
    };
    ledger
        .update_account(replicas.ring.account, &update)
        .await
        .unwrap();
    let dearer = |key: Option<ApiKey>| key.unwrap().account_markup_basis_points == Some(1250);
    let took = replicas.until(dearer).await;
    assert!(took < WITHIN, "{took:?}");
    drop(following);
}

#[tokio::test]
async fn a_listener_that_is_killed_costs_no_second_and_comes_back() {
    let replicas = replicas().await;
    let following = replicas.listening().await;
    assert!(replicas.opens().await);
    let first = replicas.until_listening(0).await;
    sqlx::query("select pg_terminate_backend($1)")
        .bind(first)
        .execute(&replicas.ring.database.pool)
        .await
        .unwrap();
    // Nobody hears of this one.
    replicas.revoke_in_silence().await;
    let took = replicas.until(|key| key.is_none()).await;
    assert!(took < 2 * WITHIN, "{took:?}");
    replicas.until_listening(first).await;

    let (key, secret) = replicas.here.create(replicas.ring.new_key()).await.unwrap();
    let again = Replicas {
        secret,
        key,
        ..replicas
    };
    assert!(again.opens().await);
    again.revoke_in_silence().await;
    sleep(2 * WITHIN).await;
    assert!(again.opens().await, "it listens again");
    again.here.revoke(again.key.id).await.unwrap();
    let took = again.until(|key| key.is_none()).await;
    assert!(took < WITHIN, "{took:?}");
    drop(following);
}

#[tokio::test]
async fn a_remembered_key_ends_on_time() {
    let replicas = replicas().await;
    let mut new = replicas.ring.new_key();
    new.expires_at = Some(replicas.ring.clock.now() + TimeDelta::hours(1));
    let (_, secret) = replicas.here.create(new).await.unwrap();
    assert!(
        replicas
            .there
            .authenticate(&secret)
            .await
            .unwrap()
            .is_some()
    );
    replicas.ring.clock.advance(TimeDelta::hours(1));
    assert!(
        replicas
            .there
            .authenticate(&secret)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn what_is_changed_here_is_true_here_at_once() {
    let replicas = replicas().await;
    assert!(replicas.opens().await);
    replicas.there.revoke(replicas.key.id).await.unwrap();
    assert!(!replicas.opens().await);
}

#[tokio::test]
async fn a_crowd_looks_once_and_one_that_leaves_keeps_nobody_waiting() {
    let replicas = replicas().await;
    let mut blocker = replicas.ring.database.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table api_keys in access exclusive mode")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut first = Box::pin(replicas.opens());
    assert!((&mut first).now_or_never().is_none());
    let mut crowd = Box::pin(join_all((0..500).map(|_| replicas.opens())));
    assert!((&mut crowd).now_or_never().is_none());
    let patience = Duration::from_millis(200);
    assert!(timeout(patience, &mut first).await.is_err());
    assert_eq!(replicas.looks().await, 1);
    drop(first);
    assert!(timeout(patience, &mut crowd).await.is_err());
    // The one that left still waits in the server; another took its place.
    assert!(replicas.looks().await <= 2);
    blocker.rollback().await.unwrap();
    assert!(crowd.await.iter().all(|opened| *opened));
}
