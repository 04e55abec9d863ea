//! `easel accounts show`: why a balance is what it is, and what of it is held for what.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::{
    cli::output,
    keys::Mode,
    ledger::{Entry, Ledger, OpenHold},
};

/// Entries of each balance.
const ENTRIES: u32 = 10;
const HOLDS: u32 = 1000;

pub(super) async fn run(
    ledger: &Ledger,
    account: &str,
    now: DateTime<Utc>,
    json: bool,
) -> anyhow::Result<()> {
    let account = ledger.find_account(account).await?;
    let holds = ledger.open_holds(account.id, HOLDS).await?;
    let mut balances = Vec::new();
    for mode in Mode::ALL {
        let balance = ledger.balance(account.id, mode).await?;
        let entries = ledger.entries(account.id, mode, ENTRIES).await?;
        balances.push((mode, balance, entries));
    }
    if json {
        let mut documents = serde_json::Map::new();
        for (mode, balance, entries) in &balances {
            let document = json!({
                "balance": balance.balance,
                "held": balance.held,
                "available": balance.available()?,
                "entries": entries,
            });
            documents.insert(mode.to_string(), document);
        }
        return output::json(&json!({
            "account": account,
            "balances": documents,
            "open_holds": holds,
        }));
    }
    output::line(format!("{} ({})\n", account.id, account.name));
    let mut rows = Vec::new();
    for (mode, balance, _) in &balances {
        rows.push([
            mode.to_string(),
            balance.balance.to_string(),
            balance.held.to_string(),
            balance.available()?.to_string(),
        ]);
    }
    output::table(&["MODE", "BALANCE USD", "HELD", "AVAILABLE"], rows);
    if !holds.is_empty() {
        output::line("\nOpen holds, the oldest first:");
        output::table(
            &[
                "SINCE",
                "AGE",
                "GENERATION",
                "MODEL",
                "MODE",
                "USD",
                "OWNER",
            ],
            holds.iter().map(|hold| hold_row(hold, now)),
        );
    }
    for (mode, _, entries) in &balances {
        if !entries.is_empty() {
            output::line(format!("\nLast entries of the {mode} balance:"));
            output::table(
                &["TIME", "NO.", "KIND", "USD", "THEN", "FOR"],
                entries.iter().map(entry_row),
            );
        }
    }
    Ok(())
}

fn hold_row(hold: &OpenHold, now: DateTime<Utc>) -> [String; 7] {
    let age = now.signed_duration_since(hold.created_at).num_seconds();
    let owner = if hold.owner_lives {
        "works on it"
    } else {
        "gone; to be released within 30 s"
    };
    [
        hold.created_at.format("%F %T").to_string(),
        format!("{age} s"),
        hold.generation.to_string(),
        hold.model.clone(),
        hold.mode.to_string(),
        hold.amount.to_string(),
        owner.to_owned(),
    ]
}

fn entry_row(entry: &Entry) -> [String; 6] {
    let reason = match (&entry.generation, &entry.reference, &entry.note) {
        (Some(generation), _, _) => generation.to_string(),
        (None, Some(reference), Some(note)) => format!("{reference}: {note}"),
        (None, Some(text), None) | (None, None, Some(text)) => text.clone(),
        (None, None, None) => String::new(),
    };
    [
        entry.created_at.format("%F %T").to_string(),
        entry.sequence.to_string(),
        entry.kind.to_string(),
        entry.amount.to_string(),
        entry.balance_after.to_string(),
        reason,
    ]
}
