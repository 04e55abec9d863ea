//! Listing open holds.

use super::*;

#[tokio::test]
async fn open_holds_are_listed_until_they_end_and_tell_whether_their_owner_lives() {
    let books = Books::with("1").await;
    let list = async |limit| books.ledger.open_holds(books.account, limit).await.unwrap();
    assert_eq!(list(10).await, []);
    let mine = books.hold("0.1").await;
    let orphan = hold(&books.replica(), books.new_hold("0.2")).await.unwrap();
    books
        .tamper("update replicas set last_beat_at = last_beat_at - interval '1 minute'")
        .await;
    books.ledger.beat().await.unwrap();
    let open = list(10).await;
    let told: Vec<_> = open
        .iter()
        .map(|one| (one.id, one.generation, one.amount, one.owner_lives))
        .collect();
    assert_eq!(
        told,
        [
            (mine.id, mine.generation, usd("0.1"), true),
            (orphan.id, orphan.generation, usd("0.2"), false)
        ]
    );
    assert_eq!(
        (
            open[0].key,
            open[0].mode,
            &*open[0].model,
            open[0].created_at
        ),
        (
            books.key.id,
            Mode::Live,
            "openai/dall-e-3",
            books.clock.now()
        )
    );
    assert_eq!(list(1).await.len(), 1);
    assert_eq!(
        books.ledger.open_holds(AccountId::new(), 10).await.unwrap(),
        []
    );
    settle(&books.ledger, &capture(mine, &["0.04"]))
        .await
        .unwrap();
    assert_eq!(list(10).await.len(), 1);
}
