//! Letting go of what is old: generations with all that hangs on them, and their charges one by one.
//!
//! Every sum stays. What was used is in the days that were summed up (`days.rs`). Charges in a row become one line
//! that stands for them, with their sum and the balance after the last; credits and debits stay as they were booked,
//! with their references. So balances, sums and the chain of the entries are proved by `reconcile` as before.

use std::time::Duration;

use chrono::{Days, NaiveDate, TimeDelta};
use serde::Serialize;
use tracing::instrument;

use super::{
    Instant, Ledger,
    account::EntryKind,
    days::midnight,
    error::LedgerError,
    repo::{accounts, days, prune},
};
use crate::{
    ids::{AccountId, EntryId, GenerationId},
    keys::Mode,
    money::NanoUsd,
    postgres::run_tx,
};

/// Nothing younger is pruned: by then its repeats are told, its pictures gone and its day summed up.
pub const SHORTEST_RETENTION: Duration = Duration::from_hours(7 * 24);
/// How many lines or generations one transaction looks at. The account's balance is locked meanwhile.
const BATCH: i64 = 1000;

/// What was pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Requests of earlier days are gone.
    pub before: NaiveDate,
    /// How many generations went.
    pub generations: u64,
    /// How many charges are now part of a line that stands for several.
    pub charges: u64,
}

/// A line as folding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) sequence: i64,
    pub(super) kind: EntryKind,
    pub(super) amount: NanoUsd,
    pub(super) balance_after: NanoUsd,
    pub(super) lines: i64,
    pub(super) generation: Option<GenerationId>,
    pub(super) created_at: Instant,
}

/// A line that stands for others, and the lines for which it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fold {
    pub(super) id: EntryId,
    pub(super) line: Line,
    pub(super) replaced: Vec<i64>,
    pub(super) generations: Vec<GenerationId>,
}

/// Folds runs of charges, in the order of their numbers. Lines that stand for several already take part; a run
/// that is nothing but one of them stays.
pub(super) fn fold(lines: impl IntoIterator<Item = Line>) -> Result<Vec<Fold>, LedgerError> {
    let mut folds: Vec<Fold> = Vec::new();
    let mut running = false;
    for line in lines {
        if !matches!(line.kind, EntryKind::Charge | EntryKind::Charges) {
            running = false;
            continue;
        }
        let Some(fold) = folds.last_mut().filter(|_| running) else {
            running = true;
            folds.push(Fold {
                id: EntryId::new(),
                replaced: vec![line.sequence],
                generations: line.generation.into_iter().collect(),
                line: Line {
                    kind: EntryKind::Charges,
                    generation: None,
                    ..line
                },
            });
            continue;
        };
        fold.replaced.push(line.sequence);
        fold.generations.extend(line.generation);
        fold.line = Line {
            amount: fold.line.amount.checked_add(line.amount)?,
            lines: fold.line.lines.saturating_add(line.lines),
            kind: EntryKind::Charges,
            generation: None,
            ..line
        };
    }
    folds.retain(|fold| !fold.generations.is_empty());
    Ok(folds)
}

impl Ledger {
    /// Deletes the generations of the days that ended `older_than` ago or earlier, with their pictures' rows,
    /// attempts and holds, and folds their charges. In transactions of a thousand, so the gateway goes on; may be
    /// broken off and called again. What a late settlement charged after that day stays until the next time.
    ///
    /// # Errors
    /// [`LedgerError::RetentionTooShort`], [`LedgerError::Database`].
    #[instrument(name = "ledger.prune", level = "debug", skip_all)]
    pub async fn prune(&self, older_than: Duration) -> Result<Pruned, LedgerError> {
        if older_than < SHORTEST_RETENTION {
            return Err(LedgerError::RetentionTooShort(SHORTEST_RETENTION));
        }
        self.sum_up_days().await?;
        let wanted = TimeDelta::from_std(older_than)
            .ok()
            .and_then(|age| self.clock.now().checked_sub_signed(age))
            .map_or(NaiveDate::default(), |instant| instant.date_naive());
        let before = run_tx(&self.pool, "prune", move |mut tx| {
            Box::pin(async move { days::prune_until(&mut tx, wanted).await })
        })
        .await?;
        while self.forget_claims().await? > 0 {}
        let mut pruned = Pruned {
            before,
            generations: 0,
            charges: 0,
        };
        for (account, mode) in prune::balances(&self.pool).await? {
            self.fold_charges(account, mode, midnight(before), &mut pruned)
                .await?;
        }
        self.delete_uncharged(midnight(before), &mut pruned).await?;
        Ok(pruned)
    }

    async fn fold_charges(
        &self,
        account: AccountId,
        mode: Mode,
        before: Instant,
        pruned: &mut Pruned,
    ) -> Result<(), LedgerError> {
        let mut after = 0_i64;
        loop {
            let (looked_at, folds) = run_tx(&self.pool, "fold charges", move |mut tx| {
                Box::pin(async move {
                    accounts::lock_balances(&mut tx, [(account, mode)]).await?;
                    let lines = prune::lines(&mut tx, account, mode, after, before, BATCH).await?;
                    let looked_at = lines.last().map(|line| (lines.len(), line.sequence));
                    let folds = fold(lines)?;
                    prune::write(&mut tx, account, mode, &folds).await?;
                    Ok::<_, LedgerError>((looked_at, folds))
                })
            })
            .await?;
            for fold in &folds {
                let charges = u64::try_from(fold.generations.len()).unwrap_or(u64::MAX);
                pruned.charges = pruned.charges.saturating_add(charges);
                pruned.generations = pruned.generations.saturating_add(charges);
            }
            let full = usize::try_from(BATCH).unwrap_or(usize::MAX);
            match looked_at {
                Some((count, last)) if count >= full => {
                    // The line that was folded last goes on growing.
                    let grows = folds.last().is_some_and(|fold| fold.line.sequence == last);
                    after = if grows { last.saturating_sub(1) } else { last };
                }
                _ => return Ok(()),
            }
        }
    }

    async fn delete_uncharged(
        &self,
        before: Instant,
        pruned: &mut Pruned,
    ) -> Result<(), LedgerError> {
        let mut after = String::new();
        // Ids sort by age to within the clocks' differences.
        let slack = before.checked_add_days(Days::new(1)).unwrap_or(before);
        loop {
            let from = after.clone();
            let (deleted, last) = run_tx(&self.pool, "prune generations", move |mut tx| {
                let from = from.clone();
                Box::pin(async move {
                    prune::delete_uncharged(&mut tx, &from, before, slack, BATCH).await
                })
            })
            .await?;
            pruned.generations = pruned.generations.saturating_add(deleted);
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }
}
