//! `easel accounts`: who pays, and what was put in or taken out by hand.

mod show;

use std::process::ExitCode;

use anyhow::bail;

use super::{
    Context,
    limits::{self, NewLimits, OtherLimits},
    output,
};
use crate::{
    admin::words::{self, Markup},
    keys::Mode,
    ledger::{AccountUpdate, Balance, Ledger, NewAccount, NewEntry},
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
    /// Change an account's name, markup or limits; what is not named stays
    Update(Update),
    /// Show what an account has, what is held of it and for what, and its last entries
    Show {
        /// The account, by id or exact name
        account: String,
    },
    /// Put money on a balance
    Credit(Booking),
    /// Take money from a balance, but never what is held
    Debit(Booking),
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    name: Name,
    /// Basis points (1/100 %) on top of published prices, before those of models and providers
    #[arg(long, value_name = "BP")]
    markup: Option<Markup>,
    #[command(
        flatten,
        next_help_heading = "Limits for all of its keys together, live and test keys apart"
    )]
    limits: NewLimits,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Name {
    /// A name for people
    #[arg(value_name = "NAME")]
    positional: Option<words::Name>,
    /// The same, as an option
    #[arg(long)]
    name: Option<words::Name>,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// The account, by id or exact name
    account: String,
    /// A name for people
    #[arg(long)]
    name: Option<words::Name>,
    /// Basis points (1/100 %) on top of published prices, before those of models and providers; or none for
    /// theirs
    #[arg(long, value_name = "BP")]
    markup: Option<Markup>,
    #[command(
        flatten,
        next_help_heading = "Limits for all of its keys together, live and test keys apart"
    )]
    limits: OtherLimits,
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
    reference: Option<words::Name>,
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
            let name = create.name.positional.or(create.name.name);
            let Some(words::Name(name)) = name else {
                bail!("an account needs a name");
            };
            let new = NewAccount {
                name,
                markup_basis_points: create.markup.and_then(|markup| markup.0),
                limits: create.limits.into(),
            };
            let account = ledger.open_account(new).await?;
            if json {
                output::json(&account)?;
            } else {
                output::line(account.id.to_string());
            }
        }
        Command::List => list(&ledger, json).await?,
        Command::Update(update) => self::update(&ledger, update, json).await?,
        Command::Show { account } => {
            show::run(&ledger, &account, context.clock.now(), json).await?;
        }
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
            "ID", "NAME", "LIVE USD", "HELD", "TEST USD", "HELD", "MARKUP", "LIMITS", "CREATED",
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
                account
                    .markup_basis_points
                    .map(output::percent)
                    .unwrap_or_default(),
                limits::lines(&account.limits).join("\n"),
                account.created_at.format("%F %R").to_string(),
            ]
        }),
    );
    Ok(())
}

async fn update(ledger: &Ledger, update: Update, json: bool) -> anyhow::Result<()> {
    let Update {
        account,
        name,
        markup,
        limits,
    } = update;
    let changes = AccountUpdate {
        name: name.map(|words::Name(name)| name),
        markup_basis_points: markup.map(|markup| markup.0),
        limits: limits.into(),
    };
    if changes == AccountUpdate::default() {
        bail!("nothing to change: name at least one of the options that --help lists");
    }
    let id = ledger.find_account(&account).await?.id;
    let account = ledger.update_account(id, &changes).await?;
    if json {
        return output::json(&account);
    }
    let markup = account.markup_basis_points.map_or_else(
        || "the markup of models and providers".to_owned(),
        |markup| format!("a markup of {}", output::percent(markup)),
    );
    let limits = match limits::lines(&account.limits).as_slice() {
        [] => "no limits".to_owned(),
        lines => format!("at most {}", lines.join(", ")),
    };
    output::line(format!(
        "{} ({}) has {markup} and {limits}",
        account.id, account.name
    ));
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
        reference: booking.reference.map(|words::Name(reference)| reference),
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
