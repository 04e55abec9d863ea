//! Commands, one file each: arguments, wiring, start order, exit codes; nothing about how anything works.
//!
//! Exit codes: 0, 1 for an error (printed once, to stderr, with its causes), 2 for a wrong command line.

mod accounts;
mod check;
mod health;
mod keys;
mod limits;
mod migrate;
mod online;
mod openapi;
mod output;
mod prune;
mod reconcile;
mod serve;
mod usage;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;
use sqlx::{ConnectOptions, PgPool, postgres::PgConnectOptions};
use tokio::sync::Mutex;

#[cfg(debug_assertions)]
use crate::faults;
use crate::{
    catalog::Catalog,
    clock::Clock,
    config::{Config, Environment, LinkStyle, Source, StoreConfig},
    ids::ReplicaId,
    images::Bucket,
    ledger::Ledger,
    postgres::{self, PostgresError, private::PrivateServer},
    telemetry,
};

/// One OpenAI-compatible endpoint for every image model.
#[derive(Debug, Parser)]
#[command(name = "easel", version)]
struct Cli {
    /// The configuration file [default: what `EASEL_CONFIG` names, or easel.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve,
    /// Load configuration and catalog and show what would be served
    Check(check::Arguments),
    /// Ask the running gateway whether it can serve
    Health(health::Arguments),
    /// API keys
    Keys(keys::Arguments),
    /// Who pays
    Accounts(accounts::Arguments),
    /// What was used
    Usage(usage::Arguments),
    /// Prove that entries, holds and balances agree
    Reconcile(reconcile::Arguments),
    /// Delete requests that are older than you want to keep; balances and sums stay
    Prune(prune::Arguments),
    /// Print the OpenAPI document
    Openapi,
    /// Bring the database up to this version; serve does it too
    Migrate,
}

/// Runs the command line `arguments`, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Also the way of --help and --version; a closed pipe is nothing to complain about.
            refusal.print().ok();
            return u8::try_from(refusal.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    run(cli).unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    #[cfg(debug_assertions)]
    faults::arm(environment.get(faults::VARIABLE)).map_err(anyhow::Error::msg)?;
    let source = Source::new(cli.config.as_deref(), environment);
    let (config, seen) = source.read();
    let config = config?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    // Every other command is over in a moment, and nobody's request.
    let is_traced = matches!(cli.command, Command::Serve);
    let traces = Some(&config.traces).filter(|_| is_traced);
    let telemetry = telemetry::init(&config.log, traces, runtime.handle())?;
    let ended = runtime.block_on(async {
        match cli.command {
            // Boxed: by far the largest, and every command would carry its size.
            Command::Serve => Box::pin(serve::run(config, source, seen)).await,
            Command::Check(arguments) => check::run(&config, &arguments).await,
            Command::Health(arguments) => health::run(&config, &arguments).await,
            Command::Keys(arguments) => {
                Context::with(config, async |context| keys::run(context, arguments).await).await
            }
            Command::Accounts(arguments) => {
                Context::with(config, async |context| {
                    accounts::run(context, arguments).await
                })
                .await
            }
            Command::Usage(arguments) => {
                Context::with(config, async |context| usage::run(context, arguments).await).await
            }
            Command::Reconcile(arguments) => {
                Context::with(config, async |context| {
                    reconcile::run(context, &arguments).await
                })
                .await
            }
            Command::Prune(arguments) => {
                Context::with(config, async |context| {
                    prune::run(context, &arguments).await
                })
                .await
            }
            Command::Openapi => openapi::run(&config),
            Command::Migrate => migrate::run(config).await,
        }
    });
    telemetry.stop();
    ended
}

/// What commands work with: the configuration, and the database that a running `serve` uses.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// The models.
    pub catalog: Arc<Catalog>,
    /// The database, migrated.
    pub pool: PgPool,
    /// The time.
    pub clock: Clock,
    /// The private server, if that is where the database is. Shared with the task that sees to it that it
    /// runs; gone once the context is closed.
    server: Arc<Mutex<Option<PrivateServer>>>,
}

impl Context {
    /// Opens the database as `serve` does: the configured one, or the private server, which is joined
    /// when it runs and started otherwise; then migrates it.
    ///
    /// # Errors
    /// What is wrong with the catalog or the database.
    ///
    /// # Cancel safety
    /// Dropped before it returns, a private server that it started is told to stop.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let catalog = Arc::new(load_catalog(&config)?);
        let (options, server) = if let Some(url) = &config.database.url {
            (postgres::options_from_url(url.expose_secret())?, None)
        } else {
            let server = PrivateServer::start(&config.database, &config.data_dir).await?;
            (server.connect_options(), Some(server))
        };
        match migrated_pool(options, config.database.max_connections).await {
            Ok(pool) => Ok(Self {
                config,
                catalog,
                pool,
                clock: Clock::system(),
                server: Arc::new(Mutex::new(server)),
            }),
            Err(error) => {
                if let Some(server) = server {
                    // The first error is the one to tell.
                    server.stop().await.ok();
                }
                Err(error)
            }
        }
    }

    /// The books, for commands. They hold nothing, so they are nobody's replica.
    fn ledger(&self) -> Ledger {
        Ledger::new(self.pool.clone(), self.clock.clone(), ReplicaId::new())
    }

    /// Runs `work` with an open context and closes it again, whatever `work` said.
    ///
    /// # Errors
    /// What opening, `work` or closing said; the first of them.
    pub async fn with<T>(
        config: Config,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let context = Self::open(config).await?;
        let outcome = work(&context).await;
        let closed = context.close().await;
        let value = outcome?;
        closed?;
        Ok(value)
    }

    /// Closes the connections and leaves the private server, which stops when nobody else uses it.
    ///
    /// # Errors
    /// When the private server does not stop.
    pub async fn close(self) -> anyhow::Result<()> {
        // What still holds a connection then is cut off.
        tokio::time::timeout(CLOSE_PATIENCE, self.pool.close())
            .await
            .ok();
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await?;
        }
        Ok(())
    }
}

/// How long connections in use may take to come back when the pool closes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

async fn migrated_pool(options: PgConnectOptions, max_connections: u32) -> anyhow::Result<PgPool> {
    let pool = match postgres::connect(options.clone(), max_connections).await {
        // A pool tries for a while, so that a database may start beside us, and then knows no cause.
        Err(PostgresError::Connect(sqlx::Error::PoolTimedOut)) => {
            options.connect().await.map_err(PostgresError::Connect)?;
            postgres::connect(options, max_connections).await
        }
        pool => pool,
    }?;
    postgres::migrate(&pool).await?;
    Ok(pool)
}

/// The bucket that pictures are kept in, if it is one; nothing is asked of it yet.
fn bucket(config: &Config) -> anyhow::Result<Option<Bucket>> {
    let StoreConfig::Bucket { name, prefix } = &config.images.store else {
        return Ok(None);
    };
    let with_presigned_links = config.images.links == LinkStyle::Presigned;
    Bucket::new(name, prefix, &config.images.s3, with_presigned_links)
        .map(Some)
        .map_err(|problem| anyhow::anyhow!("[images.s3] {problem}"))
}

/// The models, and whether the configured default is one of them.
fn load_catalog(config: &Config) -> anyhow::Result<Catalog> {
    let catalog = Catalog::load(config.models_dir.as_deref())?;
    if let Some(name) = &config.default_model
        && !name.is_empty()
        && catalog.find(name).is_none()
    {
        let file = config.file.as_deref().map(Path::display);
        let place = file.map(|file| format!("{file}: ")).unwrap_or_default();
        anyhow::bail!("{place}default_model: there is no model '{name}' in the catalog");
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_may_stand_anywhere_on_the_line() {
        for line in [
            &["easel", "--config", "a.toml", "check", "--json"][..],
            &["easel", "check", "--config", "a.toml", "--json"],
            &["easel", "check", "--json", "--config=a.toml"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.config.as_deref(), Some(Path::new("a.toml")), "{line:?}");
        }
    }
}
