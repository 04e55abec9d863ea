//! `easel keys`: makes keys and says what they may do.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;

use super::{
    Context,
    limits::{self, NewLimits, OtherLimits},
    output,
};
use crate::{
    admin::{
        new_key::{self, KeyOrder},
        words::{self, Expiry, Ips, Models, Name, Span},
    },
    ids::{AccountId, KeyId},
    keys::{ApiKey, KeyError, KeyUpdate, Keys, Mode, UnsupportedParameters},
    money::NanoUsd,
    webhooks,
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
    /// Give a key a new secret and print it, which is shown only now; the old one goes on for a while
    Rotate(Rotate),
    /// Show the secret that a key's webhooks are signed with, or give them a new one
    WebhookSecret(WebhookSecret),
}

#[derive(Debug, clap::Args)]
struct WebhookSecret {
    id: KeyId,
    /// Give them a new secret; they are signed with the old one too for a while
    #[arg(long)]
    rotate: bool,
    /// How long the old secret goes on; 0s ends it at once
    #[arg(long, value_name = "SPAN", default_value = "24h", requires = "rotate")]
    overlap: Span,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// A name for people
    #[arg(long, default_value = "unnamed")]
    name: Name,
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
    #[command(flatten)]
    limits: NewLimits,
    /// Networks that it may be used from, such as 10.0.0.0/8, with commas between them
    #[arg(long, value_name = "CIDR")]
    ips: Option<Ips>,
    /// When it ends by itself: an instant (RFC 3339) or a span from now (30d)
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// What happens to parameters that a model does not take: reject or drop
    #[arg(long, value_name = "CHOICE", default_value = "reject")]
    unsupported_parameters: UnsupportedParameters,
    /// Allow webhooks, and print the secret that they are signed with
    #[arg(long)]
    webhooks: bool,
}

#[derive(Debug, clap::Args)]
struct Update {
    id: KeyId,
    /// A name for people
    #[arg(long)]
    name: Option<Name>,
    /// Only these models, ids or aliases with commas between them; or all
    #[arg(long)]
    models: Option<Models>,
    #[command(flatten)]
    limits: OtherLimits,
    /// Networks that it may be used from, with commas between them; or any
    #[arg(long, value_name = "CIDR")]
    ips: Option<Ips>,
    /// When it ends by itself: an instant (RFC 3339), a span from now (30d), or never
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// What happens to parameters that a model does not take: reject or drop
    #[arg(long, value_name = "CHOICE")]
    unsupported_parameters: Option<UnsupportedParameters>,
    /// Whether it may have webhooks
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    webhooks: Option<bool>,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    id: KeyId,
    /// How long the old secret goes on; 0s ends it at once. One that goes on from a rotation before ends now
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    overlap: Span,
}

/// What `create --json` prints.
#[derive(Debug, Serialize)]
struct Created<'a> {
    id: KeyId,
    key: &'a str,
    account: AccountId,
    name: &'a str,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<&'a str>,
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
            let (id, webhooks) = (update.id, update.webhooks);
            let key = keys.update(id, &changes(context, update)?).await?;
            if let Some(is_allowed) = webhooks {
                keys.allow_webhooks(id, is_allowed).await?;
            }
            show(&key, json, context.clock.now())?;
        }
        Command::Rotate(rotate) => self::rotate(context, &keys, &rotate, json).await?,
        Command::WebhookSecret(asked) => webhook_secret(context, &keys, &asked, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(context: &Context, keys: &Keys, create: Create, json: bool) -> anyhow::Result<()> {
    // Everything that can be refused is looked at before anything is written.
    let models = match &create.models {
        Some(models) => models.resolve(&context.catalog).context("--models")?,
        None => None,
    };
    let expires_at = match create.expires {
        Some(expiry) => expiry.at(context.clock.now()).context("--expires")?,
        None => None,
    };
    let ledger = context.ledger();
    let mode = if create.test { Mode::Test } else { Mode::Live };
    let order = KeyOrder {
        name: create.name.0,
        mode,
        account: create.account,
        credit: create.credit,
        models,
        limits: create.limits.into(),
        allowed_ips: create.ips.and_then(|Ips(ranges)| ranges),
        unsupported_parameters: create.unsupported_parameters,
        expires_at,
    };
    let (key, secret) = new_key::create(&ledger, keys, order).await?;
    let webhook_secret = if create.webhooks {
        keys.allow_webhooks(key.id, true).await?;
        let found = keys.webhook_key(key.id).await?;
        found.map(|found| webhooks::shown(&found.secret))
    } else {
        None
    };
    let webhook_secret = webhook_secret.as_ref().map(ExposeSecret::expose_secret);
    let created = Created {
        id: key.id,
        key: secret.expose_secret(),
        account: key.account,
        name: &key.name,
        mode,
        webhook_secret,
    };
    if json {
        return output::json(&created);
    }
    let balance = ledger.balance(key.account, mode).await?.balance;
    output::line(format!(
        "{}\n\nThe secret of {}, shown only now. It pays from the {mode} balance of account {}, {balance} USD.",
        created.key, key.id, key.account
    ));
    if let Some(secret) = webhook_secret {
        output::line(format!(
            "\n{secret}\n\nThe secret that its webhooks are signed with."
        ));
    }
    Ok(())
}

async fn webhook_secret(
    context: &Context,
    keys: &Keys,
    asked: &WebhookSecret,
    json: bool,
) -> anyhow::Result<()> {
    let found = if asked.rotate {
        let end = words::after(context.clock.now(), asked.overlap.0).context("--overlap")?;
        keys.rotate_webhook_secret(asked.id, end).await?
    } else {
        let found = keys.webhook_key(asked.id).await?;
        found.with_context(|| {
            format!(
                "{0} has no webhooks: allow them with easel keys update {0} --webhooks",
                asked.id
            )
        })?
    };
    let secret = webhooks::shown(&found.secret);
    let secret = secret.expose_secret();
    let previous_ends_at = found.previous.map(|(_, end)| end);
    if json {
        return output::json(&json!({
            "key": asked.id,
            "allowed": found.is_allowed,
            "secret": secret,
            "previous_secret_ends_at": previous_ends_at,
        }));
    }
    output::line(secret);
    if let Some(end) = previous_ends_at {
        output::line(format!(
            "\nThe old one goes on until {} UTC.",
            end.format("%F %R")
        ));
    }
    Ok(())
}

async fn rotate(context: &Context, keys: &Keys, rotate: &Rotate, json: bool) -> anyhow::Result<()> {
    let end = words::after(context.clock.now(), rotate.overlap.0).context("--overlap")?;
    let rotated = keys.rotate(rotate.id, end).await?;
    let (key, secret) = (&rotated.key, rotated.secret.expose_secret());
    if json {
        return output::json(&json!({
            "id": key.id,
            "key": secret,
            "account": key.account,
            "name": key.name,
            "mode": key.mode,
            "previous_secret_ends_at": rotated.previous_ends_at,
        }));
    }
    output::line(format!(
        "{secret}\n\nThe new secret of {}, shown only now. The old one goes on until {} UTC.",
        key.id,
        rotated.previous_ends_at.format("%F %R")
    ));
    Ok(())
}

fn changes(context: &Context, update: Update) -> anyhow::Result<KeyUpdate> {
    let Update {
        id: _,
        name,
        models,
        limits,
        ips,
        expires,
        unsupported_parameters,
        webhooks,
    } = update;
    let changes = KeyUpdate {
        name: name.map(|Name(name)| name),
        models: models
            .map(|models| models.resolve(&context.catalog))
            .transpose()
            .context("--models")?,
        limits: limits.into(),
        allowed_ips: ips.map(|Ips(ranges)| ranges),
        unsupported_parameters,
        expires_at: expires
            .map(|expiry| expiry.at(context.clock.now()))
            .transpose()
            .context("--expires")?,
    };
    if changes == KeyUpdate::default() && webhooks.is_none() {
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
            "ID", "NAME", "MODE", "KEY", "ACCOUNT", "STATE", "LIMITS", "FROM", "MODELS",
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
                key.allowed_ips.as_ref().map_or_else(
                    || "any".to_owned(),
                    |ranges| {
                        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                        ranges.join("\n")
                    },
                ),
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

/// Its own, and behind them those of its account.
fn limits(key: &ApiKey) -> String {
    let mut lines = limits::lines(&key.limits);
    let of_account = limits::lines(&key.account_limits);
    lines.extend(of_account.iter().map(|line| format!("account: {line}")));
    if lines.is_empty() {
        "none".to_owned()
    } else {
        lines.join("\n")
    }
}
