//! `easel accounts`: who pays, and what was put in or taken out by hand.

use std::process::ExitCode;

use super::{Context, output};
use crate::{
    keys::Mode,
    ledger::{Balance, Ledger, NewEntry},
    money::NanoUsd,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Open an account
    Create(Create),
    /// List accounts with what they have
    List,
    /// Put money on a balance
    Credit(Booking),
    /// Take money from a balance, but never what is held
    Debit(Booking),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Create {
    /// A name for people
    #[arg(value_name = "NAME")]
    positional: Option<String>,
    /// The same, as an option
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Booking {
    /// The account, by id or exact name
    account: String,
    /// How much, such as 12.50
    #[arg(value_name = "USD", value_parser = NanoUsd::parse)]
    amount: NanoUsd,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// A unique name, such as an invoice's number: booked once, however often it is sent
    #[arg(long, value_name = "UNIQUE")]
    reference: Option<String>,
    /// The play money of test keys
    #[arg(long)]
    test: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Credit,
    Debit,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ledger = context.ledger();
    let json = arguments.json;
    match arguments.command {
        Command::Create(create) => {
            // clap sees to it that there is one.
            let name = create.positional.or(create.name).unwrap_or_default();
            anyhow::ensure!(!name.is_empty(), "an account needs a name");
            let account = ledger.create_account(&name).await?;
            if json {
                output::json(&account)?;
            } else {
                output::line(account.id.to_string());
            }
        }
        Command::List => list(&ledger, json).await?,
        Command::Credit(booking) => book(&ledger, Direction::Credit, booking, json).await?,
        Command::Debit(booking) => book(&ledger, Direction::Debit, booking, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(ledger: &Ledger, json: bool) -> anyhow::Result<()> {
    let accounts = ledger.accounts().await?;
    if json {
        return output::json(&accounts);
    }
    let words = |balance: Balance| [balance.balance.to_string(), balance.held.to_string()];
    output::table(
        &[
            "ID", "NAME", "LIVE USD", "HELD", "TEST USD", "HELD", "CREATED",
        ],
        accounts.iter().map(|summary| {
            let [live, live_held] = words(summary.live);
            let [test, test_held] = words(summary.test);
            let account = &summary.account;
            [
                account.id.to_string(),
                account.name.clone(),
                live,
                live_held,
                test,
                test_held,
                account.created_at.format("%F %R").to_string(),
            ]
        }),
    );
    Ok(())
}

async fn book(
    ledger: &Ledger,
    direction: Direction,
    booking: Booking,
    json: bool,
) -> anyhow::Result<()> {
    let account = ledger.find_account(&booking.account).await?;
    let new = NewEntry {
        account: account.id,
        mode: if booking.test { Mode::Test } else { Mode::Live },
        amount: booking.amount,
        note: booking.note,
        reference: booking.reference,
    };
    let entry = match direction {
        Direction::Credit => ledger.credit(&new).await?,
        Direction::Debit => ledger.debit(&new).await?,
    };
    if json {
        return output::json(&entry);
    }
    output::line(format!(
        "{} of {} USD is entry {} of the {} balance of {} ({}), which then was {} USD",
        entry.kind,
        new.amount,
        entry.sequence,
        entry.mode,
        account.id,
        account.name,
        entry.balance_after
    ));
    Ok(())
}
