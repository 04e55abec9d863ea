//! Accounts, credits, debits, and their references.

use super::*;

#[tokio::test]
async fn an_account_is_found_by_id_or_exact_name() {
    let books = Books::with("0").await;
    let ledger = &books.ledger;
    let by_id = ledger
        .find_account(&books.account.to_string())
        .await
        .unwrap();
    assert_eq!(by_id, ledger.find_account("acme").await.unwrap());
    for unknown in ["Acme", "acm", "", "acc_0", &AccountId::new().to_string()] {
        let missing = ledger.find_account(unknown).await;
        assert!(
            matches!(missing, Err(LedgerError::NoAccount(_))),
            "{missing:?}"
        );
    }
    ledger.create_account("acme").await.unwrap();
    let ambiguous = ledger.find_account("acme").await;
    assert!(
        matches!(
            ambiguous,
            Err(LedgerError::AmbiguousAccount { count: 2, .. })
        ),
        "{ambiguous:?}"
    );
    // Somebody calls an account by another's id: the id wins.
    ledger
        .create_account(&books.account.to_string())
        .await
        .unwrap();
    assert_eq!(
        ledger
            .find_account(&books.account.to_string())
            .await
            .unwrap(),
        by_id
    );
}

#[tokio::test]
async fn accounts_are_listed_with_both_balances() {
    let books = Books::with("1.5").await;
    let _open = books.hold("0.5").await;
    books.ledger.create_account("other").await.unwrap();
    let listed = books.ledger.accounts().await.unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|summary| (summary.account.name.as_str(), summary.live, summary.test))
        .collect();
    let live = Balance {
        balance: usd("1.5"),
        held: usd("0.5"),
    };
    assert_eq!(
        shown,
        [
            ("acme", live, Balance::default()),
            ("other", Balance::default(), Balance::default())
        ]
    );
}

#[tokio::test]
async fn an_account_has_a_markup_within_bounds_or_none() {
    let books = Books::with("0").await;
    let update = async |markup| {
        let update = AccountUpdate {
            markup_basis_points: Some(markup),
            ..AccountUpdate::default()
        };
        books.ledger.update_account(books.account, &update).await
    };
    for markup in [Some(0), Some(MAX_ACCOUNT_MARKUP_BASIS_POINTS), None] {
        let updated = update(markup).await.unwrap();
        assert_eq!(updated.markup_basis_points, markup);
        assert_eq!(updated.name, "acme", "what is not named stays");
        let listed = books.ledger.accounts().await.unwrap().remove(0);
        assert_eq!(listed.account, updated);
    }
    for markup in [MAX_ACCOUNT_MARKUP_BASIS_POINTS + 1, u32::MAX] {
        let refused = update(Some(markup)).await;
        assert!(
            matches!(refused, Err(LedgerError::Database { .. })),
            "{refused:?}"
        );
    }
    let missing = books
        .ledger
        .update_account(AccountId::new(), &AccountUpdate::default())
        .await;
    assert!(
        matches!(missing, Err(LedgerError::NoAccount(_))),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_debit_never_takes_what_is_held() {
    let books = Books::with("1").await;
    let _open = books.hold("0.4").await;
    let refused = books.ledger.debit(&books.entry("0.600000001", None)).await;
    assert!(
        matches!(refused, Err(LedgerError::InsufficientBalance { available, .. }) if available == usd("0.6")),
        "{refused:?}"
    );
    let debit = books.ledger.debit(&books.entry("0.6", None)).await.unwrap();
    assert_eq!((debit.sequence, debit.balance_after), (2, usd("0.4")));
    books.check("0.4", "0.4").await;
}

#[tokio::test]
async fn nothing_and_less_are_not_booked() {
    let books = Books::with("1").await;
    for amount in [0, -1] {
        let mut new = books.entry("1", None);
        new.amount = NanoUsd::from_nano(amount);
        for outcome in [
            books.ledger.credit(&new).await,
            books.ledger.debit(&new).await,
        ] {
            assert!(
                matches!(outcome, Err(LedgerError::NothingToBook)),
                "{outcome:?}"
            );
        }
    }
    let mut stranger = books.entry("1", None);
    stranger.account = AccountId::new();
    let outcome = books.ledger.credit(&stranger).await;
    assert!(
        matches!(outcome, Err(LedgerError::NoAccount(_))),
        "{outcome:?}"
    );
    let mut all = books.entry("1", None);
    all.amount = NanoUsd::from_nano(i64::MAX);
    let outcome = books.ledger.credit(&all).await;
    assert!(matches!(outcome, Err(LedgerError::Money(_))), "{outcome:?}");
    books.check("1", "0").await;
}

#[tokio::test]
async fn a_reference_is_booked_once() {
    let books = Books::with("0").await;
    let invoice = books.entry("5", Some("invoice-1"));
    let first = books.ledger.credit(&invoice).await.unwrap();
    assert_eq!(books.ledger.credit(&invoice).await.unwrap(), first);
    books.check("5", "0").await;

    let other = books.ledger.create_account("other").await.unwrap().id;
    let mut elsewhere = invoice.clone();
    elsewhere.account = other;
    let mut play = invoice.clone();
    play.mode = Mode::Test;
    for different in [elsewhere, play, books.entry("6", Some("invoice-1"))] {
        let refused = books.ledger.credit(&different).await;
        assert!(
            matches!(&refused, Err(LedgerError::ReferenceTaken { account, amount, kind: EntryKind::Credit, .. })
                if (*account, *amount) == (books.account, usd("5"))),
            "{refused:?}"
        );
    }
    let refused = books.ledger.debit(&invoice).await;
    assert!(
        matches!(refused, Err(LedgerError::ReferenceTaken { .. })),
        "{refused:?}"
    );
    books.check("5", "0").await;
}

#[tokio::test]
async fn a_reference_is_booked_once_under_concurrency() {
    let books = Books::with("0").await;
    let other = books.ledger.create_account("other").await.unwrap().id;
    let calls = (0..40).map(|number| {
        let mut new = books.entry("5", Some("invoice-1"));
        if number % 2 == 1 {
            new.account = other;
        }
        let ledger = &books.ledger;
        async move { ledger.credit(&new).await }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let booked: Vec<_> = outcomes.iter().flatten().map(|entry| entry.id).collect();
    assert_eq!(booked.len(), 20, "the twenty of one account");
    assert!(booked.iter().all(|id| *id == booked[0]));
    for outcome in &outcomes {
        assert!(
            matches!(outcome, Ok(_) | Err(LedgerError::ReferenceTaken { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(books.count("select count(*) from ledger_entries").await, 1);
    assert_eq!(books.ledger.reconcile().await.unwrap(), []);
}

#[tokio::test]
async fn entries_cannot_be_changed() {
    let books = Books::with("1").await;
    for sql in [
        "update ledger_entries set amount_nano_usd = 2",
        "delete from ledger_entries",
        "truncate ledger_entries cascade",
    ] {
        let refused = sqlx::raw_sql(sql).execute(&books.database.pool).await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("append-only"), "{sql}: {message}");
    }
}
