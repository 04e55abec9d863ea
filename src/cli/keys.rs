//! `easel keys`: makes keys and says what they may do.

use std::process::ExitCode;

use anyhow::bail;
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::Serialize;

use super::{
    Context, output,
    values::{Bound, Expiry, Models},
};
use crate::{
    ids::{AccountId, KeyId},
    keys::{ApiKey, KeyError, KeyLimits, KeyUpdate, Keys, Mode, NewKey, UnsupportedParameters},
    ledger::{Ledger, NewEntry},
    money::NanoUsd,
};

/// What a test key with an account of its own starts with: 100 USD of play money.
pub(super) const PLAY_MONEY: NanoUsd = NanoUsd::from_nano(100_000_000_000);

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
    /// Make a key and print its secret, which is shown only now
    ///
    /// Without --account the key gets an account of its own. A test key that gets one, and no --credit,
    /// starts with 100 USD of play money.
    Create(Create),
    /// List keys, ended ones too
    List {
        /// Only those of this account, by id or exact name
        #[arg(long)]
        account: Option<String>,
    },
    /// Show a key; its secret is kept nowhere
    Show { id: KeyId },
    /// End a key, at once and for good
    Revoke { id: KeyId },
    /// Change what a key may do; what is not named stays
    Update(Update),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// A name for people
    #[arg(long, default_value = "unnamed")]
    name: String,
    /// The account that pays, by id or exact name
    #[arg(long)]
    account: Option<String>,
    /// Put this many USD on the account's balance: the live one, or with --test the play money
    #[arg(long, value_name = "USD", value_parser = NanoUsd::parse)]
    credit: Option<NanoUsd>,
    /// A test key: every rule and price, but play money, and the sandbox paints
    #[arg(long)]
    test: bool,
    /// Only these models, ids or aliases with commas between them
    #[arg(long)]
    models: Option<Models>,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    rpm: Option<u32>,
    /// Images per minute
    #[arg(long, value_name = "N")]
    ipm: Option<u32>,
    /// Requests at the same time
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// When it ends by itself: an instant (RFC 3339) or a span from now (30d)
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// What happens to parameters that a model does not take: reject or drop
    #[arg(long, value_name = "CHOICE", default_value = "reject")]
    unsupported_parameters: UnsupportedParameters,
}

#[derive(Debug, clap::Args)]
struct Update {
    id: KeyId,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Only these models, ids or aliases with commas between them; or all
    #[arg(long)]
    models: Option<Models>,
    /// Requests per minute, or none for no limit
    #[arg(long, value_name = "N")]
    rpm: Option<Bound>,
    /// Images per minute, or none for no limit
    #[arg(long, value_name = "N")]
    ipm: Option<Bound>,
    /// Requests at the same time, or none for no limit
    #[arg(long, value_name = "N")]
    max_in_flight: Option<Bound>,
    /// When it ends by itself: an instant (RFC 3339), a span from now (30d), or never
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// What happens to parameters that a model does not take: reject or drop
    #[arg(long, value_name = "CHOICE")]
    unsupported_parameters: Option<UnsupportedParameters>,
}

/// What `create --json` prints.
#[derive(Debug, Serialize)]
struct Created<'a> {
    id: KeyId,
    key: &'a str,
    account: AccountId,
    name: &'a str,
    mode: Mode,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.json;
    let keys = Keys::new(context.pool.clone(), context.clock.clone());
    match arguments.command {
        Command::Create(create) => self::create(context, &keys, create, json).await?,
        Command::List { account } => {
            let account = match account {
                Some(name) => Some(context.ledger().find_account(&name).await?.id),
                None => None,
            };
            let list = keys.list(account).await?;
            if json {
                output::json(&list)?;
            } else {
                print(&list, context.clock.now());
            }
        }
        Command::Show { id } => {
            let found = keys.find(id).await?;
            let key = found.ok_or_else(|| KeyError::NotFound(id.to_string()))?;
            show(&key, json, context.clock.now())?;
        }
        Command::Revoke { id } => {
            let key = keys.revoke(id).await?;
            show(&key, json, context.clock.now())?;
        }
        Command::Update(update) => {
            let id = update.id;
            let key = keys.update(id, &changes(context, update)?).await?;
            show(&key, json, context.clock.now())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(context: &Context, keys: &Keys, create: Create, json: bool) -> anyhow::Result<()> {
    // Everything that can be refused is looked at before anything is written.
    let models = match &create.models {
        Some(models) => models.resolve(&context.catalog)?,
        None => None,
    };
    let expires_at = match create.expires {
        Some(expiry) => expiry.at(context.clock.now())?,
        None => None,
    };
    let ledger = context.ledger();
    let mode = if create.test { Mode::Test } else { Mode::Live };
    let (account, gift) = match &create.account {
        Some(name) => (ledger.find_account(name).await?, None),
        None => (
            ledger.create_account(&create.name).await?,
            create.test.then_some(PLAY_MONEY),
        ),
    };
    if let Some(amount) = create.credit.or(gift) {
        credit(&ledger, account.id, mode, amount).await?;
    }
    let new = NewKey {
        account: account.id,
        name: create.name,
        mode,
        models,
        limits: KeyLimits {
            requests_per_minute: create.rpm,
            images_per_minute: create.ipm,
            max_in_flight: create.max_in_flight,
        },
        unsupported_parameters: create.unsupported_parameters,
        expires_at,
    };
    let (key, secret) = keys.create(new).await?;
    let created = Created {
        id: key.id,
        key: secret.expose_secret(),
        account: key.account,
        name: &key.name,
        mode,
    };
    if json {
        return output::json(&created);
    }
    let balance = ledger.balance(key.account, mode).await?.balance;
    output::line(format!(
        "{}\n\nThe secret of {}, shown only now. It pays from the {mode} balance of account {}, {balance} USD.",
        created.key, key.id, key.account
    ));
    Ok(())
}

async fn credit(
    ledger: &Ledger,
    account: AccountId,
    mode: Mode,
    amount: NanoUsd,
) -> anyhow::Result<()> {
    if amount == NanoUsd::ZERO {
        return Ok(());
    }
    let entry = NewEntry {
        account,
        mode,
        amount,
        note: Some("with a new key".to_owned()),
        reference: None,
    };
    ledger.credit(&entry).await?;
    Ok(())
}

fn changes(context: &Context, update: Update) -> anyhow::Result<KeyUpdate> {
    let Update {
        id: _,
        name,
        models,
        rpm,
        ipm,
        max_in_flight,
        expires,
        unsupported_parameters,
    } = update;
    let changes = KeyUpdate {
        name,
        models: models
            .map(|models| models.resolve(&context.catalog))
            .transpose()?,
        requests_per_minute: rpm.map(|bound| bound.0),
        images_per_minute: ipm.map(|bound| bound.0),
        max_in_flight: max_in_flight.map(|bound| bound.0),
        unsupported_parameters,
        expires_at: expires
            .map(|expiry| expiry.at(context.clock.now()))
            .transpose()?,
    };
    if changes == KeyUpdate::default() {
        bail!("nothing to change: name at least one of the options that --help lists");
    }
    Ok(changes)
}

fn show(key: &ApiKey, json: bool, now: DateTime<Utc>) -> anyhow::Result<()> {
    if json {
        return output::json(key);
    }
    print(std::slice::from_ref(key), now);
    Ok(())
}

fn print(keys: &[ApiKey], now: DateTime<Utc>) {
    output::table(
        &[
            "ID", "NAME", "MODE", "KEY", "ACCOUNT", "STATE", "LIMITS", "MODELS",
        ],
        keys.iter().map(|key| {
            [
                key.id.to_string(),
                key.name.clone(),
                key.mode.to_string(),
                key.hint.clone(),
                key.account.to_string(),
                state(key, now),
                limits(key),
                key.models
                    .as_ref()
                    .map_or_else(|| "all".to_owned(), |models| models.join("\n")),
            ]
        }),
    );
}

fn state(key: &ApiKey, now: DateTime<Utc>) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(end), _) => format!("revoked {}", end.format("%F %R")),
        (None, Some(end)) if end <= now => format!("expired {}", end.format("%F %R")),
        (None, Some(end)) => format!("until {}", end.format("%F %R")),
        (None, None) => "active".to_owned(),
    }
}

fn limits(key: &ApiKey) -> String {
    let limits = [
        (key.limits.requests_per_minute, "requests/min"),
        (key.limits.images_per_minute, "images/min"),
        (key.limits.max_in_flight, "in flight"),
    ];
    let words: Vec<String> = limits
        .iter()
        .filter_map(|(limit, unit)| limit.map(|limit| format!("{limit} {unit}")))
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join("\n")
    }
}
