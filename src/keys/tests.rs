//! Keys against a real `PostgreSQL`.

use chrono::{TimeDelta, TimeZone};
use secrecy::ExposeSecret;

use super::*;
use crate::{
    ids::ReplicaId,
    ledger::{AccountUpdate, Ledger},
    money::NanoUsd,
    postgres::testing::TestDatabase,
};

mod remembering;

struct Ring {
    /// Dropped last.
    database: TestDatabase,
    clock: Clock,
    keys: Keys,
    account: AccountId,
}

async fn ring() -> Ring {
    let database = TestDatabase::new().await;
    let clock = Clock::manual(Utc.with_ymd_and_hms(2026, 11, 20, 12, 0, 0).unwrap());
    let ledger = Ledger::new(database.pool.clone(), clock.clone(), ReplicaId::new());
    let account = ledger.create_account("acme").await.unwrap().id;
    let keys = Keys::new(database.pool.clone(), clock.clone());
    Ring {
        database,
        clock,
        keys,
        account,
    }
}

impl Ring {
    fn new_key(&self) -> NewKey {
        NewKey {
            account: self.account,
            name: "ci".to_owned(),
            mode: Mode::Test,
            models: Some(vec!["openai/dall-e-3".to_owned()]),
            limits: Limits {
                requests_per_minute: Some(60),
                max_in_flight: Some(u32::MAX),
                spend_per_day: Some(NanoUsd::from_nano(5)),
                ..Limits::NONE
            },
            allowed_ips: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            unsupported_parameters: UnsupportedParameters::Drop,
            expires_at: None,
        }
    }
}

#[tokio::test]
async fn a_secret_opens_its_key_and_is_kept_nowhere() {
    let ring = ring().await;
    let (key, secret) = ring.keys.create(ring.new_key()).await.unwrap();
    let found = ring.keys.authenticate(&secret).await.unwrap().unwrap();
    assert_eq!(found.id, key.id);
    assert_eq!(found.models, key.models);
    assert_eq!(found.limits.requests_per_minute, Some(60));
    assert_eq!(
        found.limits.max_in_flight,
        Some(i32::MAX.unsigned_abs()),
        "as large as the column"
    );
    assert_eq!(found.limits.spend_per_day, Some(NanoUsd::from_nano(5)));
    assert_eq!(found.allowed_ips, key.allowed_ips);
    for (address, expected) in [
        (Some("10.1.2.3"), true),
        (Some("11.1.2.3"), false),
        (None, false),
    ] {
        let address = address.map(|address| address.parse().unwrap());
        assert_eq!(found.is_allowed_from(address), expected, "{address:?}");
    }
    assert_eq!(found.unsupported_parameters, UnsupportedParameters::Drop);
    let body = secret.expose_secret().trim_start_matches("ek_test_");
    let kept: bool = sqlx::query_scalar(
        "select exists (select from api_keys k where k::text like '%' || $1 || '%')",
    )
    .bind(body)
    .fetch_one(&ring.database.pool)
    .await
    .unwrap();
    assert!(!kept);
}

#[tokio::test]
async fn a_wrong_secret_opens_nothing() {
    let ring = ring().await;
    let (_, secret) = ring.keys.create(ring.new_key()).await.unwrap();
    let right = secret.expose_secret();
    let mut near = right.to_owned();
    let last = near.pop().unwrap();
    near.push(if last == 'a' { 'b' } else { 'a' });
    for wrong in [
        near,
        right.replace("ek_test_", "ek_live_"),
        right.to_lowercase(),
        format!(" {right}"),
        String::new(),
    ] {
        if wrong == *right {
            continue;
        }
        let found = ring.keys.authenticate(&SecretString::from(wrong)).await;
        assert!(found.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_stays_revoked() {
    let ring = ring().await;
    let (key, secret) = ring.keys.create(ring.new_key()).await.unwrap();
    let revoked = ring.keys.revoke(key.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(ring.clock.now()));
    assert_eq!(ring.keys.authenticate(&secret).await.unwrap(), None);
    ring.clock.advance(TimeDelta::hours(1));
    assert_eq!(ring.keys.revoke(key.id).await.unwrap(), revoked);
    let missing = ring.keys.revoke(KeyId::new()).await;
    assert!(matches!(missing, Err(KeyError::NotFound(_))), "{missing:?}");
}

#[tokio::test]
async fn a_key_expires_to_the_instant() {
    let ring = ring().await;
    let mut new = ring.new_key();
    new.expires_at = Some(ring.clock.now() + TimeDelta::seconds(60));
    let (_, secret) = ring.keys.create(new).await.unwrap();
    ring.clock.advance(TimeDelta::milliseconds(59_999));
    assert!(ring.keys.authenticate(&secret).await.unwrap().is_some());
    ring.clock.advance(TimeDelta::milliseconds(1));
    assert_eq!(ring.keys.authenticate(&secret).await.unwrap(), None);
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let ring = ring().await;
    let (before, _) = ring.keys.create(ring.new_key()).await.unwrap();
    let end = ring.clock.now() + TimeDelta::days(1);
    let update = KeyUpdate {
        name: Some("other".to_owned()),
        models: Some(None),
        limits: LimitsUpdate {
            requests_per_minute: Some(None),
            images_per_minute: Some(Some(5)),
            spend_per_month: Some(Some(NanoUsd::from_nano(7))),
            ..LimitsUpdate::default()
        },
        allowed_ips: Some(None),
        expires_at: Some(Some(end)),
        ..KeyUpdate::default()
    };
    let after = ring.keys.update(before.id, &update).await.unwrap();
    assert_eq!(ring.keys.find(before.id).await.unwrap().unwrap(), after);
    assert_eq!((after.name.as_str(), &after.models), ("other", &None));
    let limits = Limits {
        requests_per_minute: None,
        images_per_minute: Some(5),
        max_in_flight: before.limits.max_in_flight.map(|_| i32::MAX.unsigned_abs()),
        spend_per_day: before.limits.spend_per_day,
        spend_per_month: Some(NanoUsd::from_nano(7)),
    };
    assert_eq!((after.limits, &after.allowed_ips), (limits, &None));
    assert_eq!(after.expires_at, Some(end));
    assert_eq!(after.unsupported_parameters, before.unsupported_parameters);
    let missing = ring.keys.update(KeyId::new(), &update).await;
    assert!(matches!(missing, Err(KeyError::NotFound(_))), "{missing:?}");
}

#[tokio::test]
async fn a_key_comes_with_the_terms_of_its_account() {
    let ring = ring().await;
    let ledger = Ledger::new(
        ring.database.pool.clone(),
        ring.clock.clone(),
        ReplicaId::new(),
    );
    for markup in [None, Some(0), Some(1250), None] {
        let spend_per_day = markup.map(|markup| NanoUsd::from_nano(markup.into()));
        let update = AccountUpdate {
            markup_basis_points: Some(markup),
            limits: LimitsUpdate {
                images_per_minute: Some(markup),
                spend_per_day: Some(spend_per_day),
                ..LimitsUpdate::default()
            },
            ..AccountUpdate::default()
        };
        let limits = Limits {
            images_per_minute: markup,
            spend_per_day,
            ..Limits::NONE
        };
        ledger.update_account(ring.account, &update).await.unwrap();
        let (created, secret) = ring.keys.create(ring.new_key()).await.unwrap();
        let opened = ring.keys.authenticate(&secret).await.unwrap().unwrap();
        let found = ring.keys.find(created.id).await.unwrap().unwrap();
        let listed = ring.keys.list(None).await.unwrap().pop().unwrap();
        let changes = KeyUpdate::default();
        let updated = ring.keys.update(created.id, &changes).await.unwrap();
        let revoked = ring.keys.revoke(created.id).await.unwrap();
        for key in [created, opened, found, listed, updated, revoked] {
            assert_eq!(key.account_markup_basis_points, markup);
            assert_eq!(key.account_limits, limits);
        }
    }
}

#[tokio::test]
async fn keys_belong_to_accounts() {
    let ring = ring().await;
    let mut stranger = ring.new_key();
    stranger.account = AccountId::new();
    let refused = ring.keys.create(stranger).await.map(|(key, _)| key);
    assert!(
        matches!(refused, Err(KeyError::NoAccount(_))),
        "{refused:?}"
    );
    let (key, _) = ring.keys.create(ring.new_key()).await.unwrap();
    let ids = async |account| {
        let keys = ring.keys.list(account).await.unwrap();
        keys.iter().map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None).await, [key.id]);
    assert_eq!(ids(Some(ring.account)).await, [key.id]);
    assert_eq!(ids(Some(AccountId::new())).await, []);
}

/// As after a restart of the server, when every pooled connection is dead.
#[tokio::test]
async fn a_lookup_survives_connections_that_died_while_they_rested() {
    let ring = ring().await;
    let (key, secret) = ring.keys.create(ring.new_key()).await.unwrap();
    ring.database.kill_connections().await;
    let found = ring.keys.authenticate(&secret).await.unwrap().unwrap();
    assert_eq!(found.id, key.id);
}

#[tokio::test]
async fn a_rotated_key_opens_with_both_secrets_until_the_old_one_ends() {
    let ring = ring().await;
    let (key, old) = ring.keys.create(ring.new_key()).await.unwrap();
    let opens = async |secret: &SecretString| {
        let found = ring.keys.authenticate(secret).await.unwrap();
        found.map(|found| found.id) == Some(key.id)
    };
    let in_a_day = ring.clock.now() + TimeDelta::days(1);
    let rotated = ring.keys.rotate(key.id, in_a_day).await.unwrap();
    assert_eq!(rotated.key.id, key.id);
    assert_ne!(rotated.key.hint, key.hint);
    assert_eq!(
        ring.keys.find(key.id).await.unwrap().unwrap(),
        rotated.key,
        "the rest of the key stays as it was"
    );
    assert!(opens(&old).await && opens(&rotated.secret).await);
    assert_eq!(
        ring.keys.previous_secret_ends_at(key.id).await.unwrap(),
        Some(in_a_day)
    );

    ring.clock
        .advance(TimeDelta::days(1) - TimeDelta::seconds(1));
    assert!(opens(&old).await && opens(&rotated.secret).await);
    ring.clock.advance(TimeDelta::seconds(1));
    assert!(!opens(&old).await && opens(&rotated.secret).await);
    assert_eq!(
        ring.keys.previous_secret_ends_at(key.id).await.unwrap(),
        None
    );

    // Only one old secret goes on, and an end that is not after now is an end at once.
    let in_a_day = ring.clock.now() + TimeDelta::days(1);
    let second = ring.keys.rotate(key.id, in_a_day).await.unwrap().secret;
    let third = ring.keys.rotate(key.id, in_a_day).await.unwrap().secret;
    assert!(!opens(&rotated.secret).await);
    assert!(opens(&second).await && opens(&third).await);
    let now = ring.clock.now();
    let fourth = ring.keys.rotate(key.id, now).await.unwrap().secret;
    assert!(!opens(&second).await && !opens(&third).await);
    assert!(opens(&fourth).await);

    // A key that ends takes both secrets with it, and has no use for another.
    ring.keys.rotate(key.id, in_a_day).await.unwrap();
    ring.keys.revoke(key.id).await.unwrap();
    assert!(!opens(&fourth).await);
    let refused = ring.keys.rotate(key.id, in_a_day).await.unwrap_err();
    assert!(matches!(refused, KeyError::Ended(_)), "{refused}");
    let refused = ring.keys.rotate(KeyId::new(), in_a_day).await.unwrap_err();
    assert!(matches!(refused, KeyError::NotFound(_)), "{refused}");
}

#[tokio::test]
async fn an_expiry_ends_the_old_secret_too() {
    let ring = ring().await;
    let mut new = ring.new_key();
    new.expires_at = Some(ring.clock.now() + TimeDelta::hours(1));
    let (key, old) = ring.keys.create(new).await.unwrap();
    let in_a_day = ring.clock.now() + TimeDelta::days(1);
    let rotated = ring.keys.rotate(key.id, in_a_day).await.unwrap();
    ring.clock.advance(TimeDelta::hours(1));
    for secret in [&old, &rotated.secret] {
        assert_eq!(ring.keys.authenticate(secret).await.unwrap(), None);
    }
}

#[tokio::test]
async fn keys_are_listed_page_by_page_newest_first() {
    let ring = ring().await;
    let mut made = Vec::new();
    for mode in [Mode::Test, Mode::Live, Mode::Test, Mode::Live] {
        let new = NewKey {
            mode,
            ..ring.new_key()
        };
        made.push(ring.keys.create(new).await.unwrap().0.id);
    }
    ring.keys.revoke(made[2]).await.unwrap();
    made.reverse();
    let list = async |filter: KeyFilter, limit| {
        let page = ring.keys.page(&filter, limit).await.unwrap();
        page.into_iter().map(|key| key.id).collect::<Vec<_>>()
    };
    let all = KeyFilter::default();
    assert_eq!(list(all.clone(), 9).await, made);
    assert_eq!(list(all.clone(), 3).await, made[..3]);
    let behind = KeyFilter {
        after: Some(made[2]),
        ..all.clone()
    };
    assert_eq!(list(behind, 9).await, made[3..]);
    let live = KeyFilter {
        mode: Some(Mode::Live),
        account: Some(ring.account),
        ..all.clone()
    };
    assert_eq!(list(live, 9).await, [made[0], made[2]]);
    let ended = KeyFilter {
        active: Some(false),
        ..all.clone()
    };
    assert_eq!(list(ended, 9).await, [made[1]]);
    let foreign = KeyFilter {
        account: Some(AccountId::new()),
        ..all
    };
    assert_eq!(list(foreign, 9).await, []);
}
