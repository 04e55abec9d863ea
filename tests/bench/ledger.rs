//! What the books cost: `EASEL_BENCH_DATABASE_URL=postgres://… cargo bench --bench ledger`.
//!
//! Each round is a hold, committed, and then its settlement with one picture and one attempt, committed, as
//! for a generation whose provider answers at once. Prints rounds per second, how long a round takes, and
//! what a round costs in processor time: of PostgreSQL (all its processes, when it runs on this machine) and
//! of this process; and how long people wait who look at these books. Asserts nothing about speed, but that the
//! books add up afterwards.
//!
//! The URL is a superuser's; a database of its own is made there and dropped. The server should be one whose
//! `fsync` is on. `EASEL_BENCH_SECONDS` (3) is how long each row takes, `EASEL_BENCH_GENERATIONS` (0) how many
//! generations the books have before.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints rounded figures and has no configuration file"
)]

use std::{env, fs, sync::Arc, time::Duration};

use easel::{
    clock::Clock,
    ids::{AccountId, GenerationId, HoldId, ImageId, KeyId, ReplicaId, RequestId},
    keys::{Keys, Limits, Mode, NewKey, UnsupportedParameters},
    ledger::{
        Attempt, Caller, Ending, Gauge, GenerationFilter, GenerationSearch, GenerationStatus, Hold,
        Ledger, LedgerError, NewEntry, NewHold, Picture, Replay, RequestHash, Settlement,
        UsageFilter, UsageGroup,
    },
    money::NanoUsd,
    postgres::{connect, migrate, options_from_url},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::{task::JoinSet, time::Instant};

const CONNECTIONS: u32 = 16;
/// One customer, and many.
const ACCOUNTS: [usize; 2] = [1, 100];
const CONCURRENCY: [usize; 3] = [1, 64, 512];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Ok(url) = env::var("EASEL_BENCH_DATABASE_URL") else {
        println!("EASEL_BENCH_DATABASE_URL is not set; nothing was measured");
        return Ok(());
    };
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = number("EASEL_BENCH_SECONDS").unwrap_or(3);
    let generations = number("EASEL_BENCH_GENERATIONS").unwrap_or(0);
    let server = options_from_url(&url)?;
    let name = format!("easel_bench_{}", uuid::Uuid::now_v7().simple());
    let mut outside = PgConnection::connect_with(&server).await?;
    execute(&mut outside, format!("create database {name}")).await?;
    let pool = connect(server.database(&name), CONNECTIONS).await?;
    let outcome = measure(&pool, Duration::from_secs(seconds), generations).await;
    pool.close().await;
    execute(&mut outside, format!("drop database {name} with (force)")).await?;
    outcome
}

async fn measure(pool: &PgPool, time: Duration, generations: u64) -> anyhow::Result<()> {
    migrate(pool).await?;
    let ledger = Ledger::new(pool.clone(), Clock::system(), ReplicaId::new());
    ledger.beat().await?;
    if generations > 0 {
        let payers = payers(pool, &ledger, 2).await?;
        grow(pool, generations, &payers).await?;
        println!("{generations} generations before");
    }
    let server = Server::behind(pool).await?;
    println!("accounts  at once   rounds/s  median ms    p99 ms   PostgreSQL ms   this process ms");
    for accounts in ACCOUNTS {
        let payers = Arc::new(payers(pool, &ledger, accounts).await?);
        for concurrency in CONCURRENCY {
            let before = (server.cpu_ms(), own_cpu_ms());
            let began = Instant::now();
            let mut workers = JoinSet::new();
            for worker in 0..concurrency {
                let (ledger, payers) = (ledger.clone(), Arc::clone(&payers));
                workers.spawn(async move { work(&ledger, &payers, worker, began + time).await });
            }
            let mut times = Vec::new();
            while let Some(done) = workers.join_next().await {
                times.extend(done??);
            }
            let elapsed = began.elapsed().as_secs_f64();
            times.sort_unstable();
            let rounds = times.len().max(1) as f64;
            let share = |percent: usize| {
                let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
                times
                    .get(place)
                    .map_or(0.0, |time| time.as_secs_f64() * 1e3)
            };
            let postgres = match (before.0, server.cpu_ms()) {
                (Some(before), Some(after)) => format!("{:.3}", (after - before) / rounds),
                _ => "not here".to_owned(),
            };
            println!(
                "{accounts:>8} {concurrency:>8} {:>10.0} {:>10.2} {:>9.2} {postgres:>15} {:>17.3}",
                rounds / elapsed,
                share(50),
                share(99),
                (own_cpu_ms() - before.1) / rounds,
            );
        }
    }
    look(&ledger).await?;
    let wrong = ledger.reconcile().await?;
    anyhow::ensure!(wrong.is_empty(), "the books do not add up: {wrong:?}");
    Ok(())
}

async fn work(
    ledger: &Ledger,
    payers: &[(AccountId, KeyId)],
    worker: usize,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for round in worker.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let (account, key) = payers[round % payers.len()];
        let hold = place(ledger, new_hold(account, key)).await?;
        settle(ledger, settlement(hold)).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn place(ledger: &Ledger, new: NewHold) -> anyhow::Result<Hold> {
    Ok(ledger.hold_one(&new).await?)
}

async fn settle(ledger: &Ledger, settlement: Settlement) -> anyhow::Result<()> {
    Ok(ledger.settle_one(&Arc::new(settlement)).await?)
}

async fn payers(
    pool: &PgPool,
    ledger: &Ledger,
    count: usize,
) -> anyhow::Result<Vec<(AccountId, KeyId)>> {
    let keys = Keys::new(pool.clone(), Clock::system());
    let mut payers = Vec::new();
    for _ in 0..count {
        let account = ledger.create_account("bench").await?.id;
        ledger
            .credit(&NewEntry {
                account,
                mode: Mode::Live,
                amount: NanoUsd::parse("1000000")?,
                note: None,
                reference: None,
            })
            .await?;
        let new = NewKey {
            account,
            name: "bench".to_owned(),
            mode: Mode::Live,
            models: None,
            limits: Limits::NONE,
            allowed_ips: None,
            unsupported_parameters: UnsupportedParameters::Reject,
            expires_at: None,
        };
        payers.push((account, keys.create(new).await?.0.id));
    }
    Ok(payers)
}

/// Writes the past year: generations with a picture, an attempt and a charge of nothing each. Nine of ten are the
/// first account's.
async fn grow(
    pool: &PgPool,
    generations: u64,
    payers: &[(AccountId, KeyId)],
) -> anyhow::Result<()> {
    let [(large, large_key), (small, small_key)] = payers else {
        anyhow::bail!("two payers were expected");
    };
    // Ids sort by age, as ever. Entries are numbered for each account.
    let columns = format!(
        "lpad(to_hex(n), 32, '0') as name, 'gen_' || lpad(to_hex(n), 32, '0') as generation,
         case when n % 10 = 0 then '{small}' else '{large}' end as account,
         case when n % 10 = 0 then '{small_key}' else '{large_key}' end as key,
         case when n % 10 = 0 then n / 10 else n - n / 10 end as line,
         now() - interval '365 days' * (1 - n::float / {generations}) as at
         from generate_series(1, {generations}) as n"
    );
    let tables = [
        "generations (id, request_id, account_id, mode, key_id, model, images_asked, status, created_at, finished_at,
             provider, upstream_model, images_delivered)
         select generation, 'req_' || name, account, 'live', key, 'openai/dall-e-3', 1, 'completed', at, at, 'openai',
             'dall-e-3', 1",
        "holds (generation_id, id, account_id, mode, key_id, replica_id, amount_nano_usd, status, created_at, ended_at)
         select generation, 'hold_' || name, account, 'live', key, 'rep_' || name, 0, 'captured', at, at",
        "ledger_entries (account_id, mode, sequence, id, kind, amount_nano_usd, balance_after_nano_usd, generation_id,
             created_at)
         select account, 'live', line + 1, 'ent_' || name, 'charge', 0, 1000000000000000, generation, at",
        "images (generation_id, position, id, format, width, height, size_bytes, cost_nano_usd,
             upstream_cost_nano_usd, created_at, expires_at)
         select generation, 0, 'img_' || name, 'png', 1024, 1024, 1, 0, 0, at, at",
        "attempts (generation_id, number, provider, upstream_model, started_at, latency_ms, images, maybe_charged)
         select generation, 1, 'openai', 'dall-e-3', at, 1, 1, false",
    ];
    // Without checking every foreign key, and without waiting for the disk.
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    let quick = "set session_replication_role = replica; set synchronous_commit = off";
    execute(&mut connection, quick.to_owned()).await?;
    for table in tables {
        let sql = format!("insert into {table} from (select n, {columns}) as past");
        execute(&mut connection, sql).await?;
    }
    let lines = "update balances b set entries = l.last from (
            select account_id, mode, max(sequence) as last from ledger_entries group by account_id, mode
        ) l where l.account_id = b.account_id and l.mode = b.mode";
    execute(&mut connection, lines.to_owned()).await?;
    // As autovacuum would have done by then.
    execute(&mut connection, "vacuum analyze".to_owned()).await?;
    execute(&mut connection, "checkpoint".to_owned()).await
}

/// What people look at, and how long each takes: the median of five.
async fn look(ledger: &Ledger) -> anyhow::Result<()> {
    let began = Instant::now();
    let days = ledger.sum_up_days().await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{days} days summed up in {seconds:.1} s");
    println!("what people look at                                     ms");
    let accounts = ledger.accounts().await?;
    // The oldest, which has the most, if there is a past.
    let account = accounts.first().map(|summary| summary.account.id);
    let account = account.ok_or_else(|| anyhow::anyhow!("there is no account"))?;
    show("an account's newest generations", async || {
        let filter = GenerationFilter::default();
        ledger.generations(account, &filter, 20).await.map(drop)
    })
    .await?;
    let everybody = GenerationSearch::default();
    show("the newest generations of all accounts", async || {
        let found = ledger.search_generations(&everybody, None, 20).await;
        found.map(drop)
    })
    .await?;
    let failed = GenerationSearch {
        status: Some(GenerationStatus::Failed),
        ..GenerationSearch::default()
    };
    show("those that failed, of which there are none", async || {
        let found = ledger.search_generations(&failed, None, 20).await;
        found.map(drop)
    })
    .await?;
    show("an account's newest entries", async || {
        ledger.entries(account, Mode::Live, 20).await.map(drop)
    })
    .await?;
    let month = Clock::system().now() - chrono::TimeDelta::days(30);
    for (name, account, since) in [
        ("usage by model, all accounts, since ever", None, None),
        ("usage by model, all accounts, 30 days", None, Some(month)),
        (
            "usage by model, an account, 30 days",
            Some(account),
            Some(month),
        ),
    ] {
        let filter = UsageFilter {
            account,
            since,
            ..UsageFilter::default()
        };
        show(name, async || {
            ledger.usage(UsageGroup::Model, &filter).await.map(drop)
        })
        .await?;
    }
    Ok(())
}

async fn show(
    name: &str,
    look: impl AsyncFn() -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        look().await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times.get(2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("{name:<50} {median:>7.1}");
    Ok(())
}

fn new_hold(account: AccountId, key: KeyId) -> NewHold {
    let generation = GenerationId::new();
    // As good as any: no two are alike.
    let mut hash = [0; 32];
    for (to, from) in hash
        .iter_mut()
        .rev()
        .zip(generation.to_string().bytes().rev())
    {
        *to = from;
    }
    NewHold {
        id: HoldId::new(),
        generation,
        request: RequestId::new(),
        caller: Caller {
            account,
            mode: Mode::Live,
            key,
            limits: Limits::NONE,
            account_limits: Limits::NONE,
        },
        model: "openai/dall-e-3".to_owned(),
        images: 1,
        amount: NanoUsd::from_nano(40_000_000),
        cheaper: Vec::new(),
        gauge: Gauge::default(),
        user: None,
        idempotency_key: None,
        request_hash: Some(RequestHash::new(hash)),
        retry_count: 0,
        webhook_url: None,
        joins: true,
        only_repeats: false,
    }
}

fn settlement(hold: Hold) -> Settlement {
    let cost = hold.amount;
    Settlement {
        hold,
        ending: Ending::Captured {
            provider: "openai".to_owned(),
            upstream_model: "dall-e-3".to_owned(),
            pictures: vec![Picture {
                id: ImageId::new(),
                index: 0,
                format: "png".to_owned(),
                width: 1024,
                height: 1024,
                size_bytes: 1_234_567,
                upstream_cost: cost,
                cost,
                revised_prompt: None,
                kept_for: Duration::from_hours(1),
            }],
            shortfall: None,
            input_tokens: 0,
            output_tokens: 0,
        },
        attempts: vec![Attempt {
            provider: "openai".to_owned(),
            upstream_model: "dall-e-3".to_owned(),
            started_at: Clock::system().now(),
            latency: Duration::from_millis(1234),
            upstream_status: Some(200),
            upstream_request_id: Some("req_0123456789abcdef".to_owned()),
            error: None,
            images: 1,
            maybe_charged: false,
        }],
        replay: Replay {
            answer: Some(r#"{"size":"1024x1024","quality":"standard"}"#.to_owned()),
            ..Replay::default()
        },
    }
}

async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

/// The processes of a PostgreSQL on this machine.
struct Server {
    postmaster: Option<u32>,
}

impl Server {
    async fn behind(pool: &PgPool) -> anyhow::Result<Self> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(pool)
            .await?;
        let stat = Stat::of(&backend.to_string());
        Ok(Self {
            postmaster: stat
                .filter(|stat| stat.command == "postgres")
                .map(|stat| stat.parent),
        })
    }

    /// Of all its processes, those that have ended included.
    fn cpu_ms(&self) -> Option<f64> {
        let postmaster = self.postmaster?;
        let mut total = Stat::of(&postmaster.to_string())?.with_ended_children_ms;
        for process in fs::read_dir("/proc").ok()?.flatten() {
            let stat = process.file_name().to_str().and_then(Stat::of);
            if let Some(stat) = stat.filter(|stat| stat.parent == postmaster) {
                total += stat.own_ms;
            }
        }
        Some(total)
    }
}

fn own_cpu_ms() -> f64 {
    Stat::of("self").map_or(0.0, |stat| stat.own_ms)
}

/// A line of `/proc/PID/stat`: proc(5).
struct Stat {
    command: String,
    parent: u32,
    own_ms: f64,
    with_ended_children_ms: f64,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        /// Linux counts in hundredths of a second wherever it shows this to programs.
        const TICK_MS: f64 = 10.0;
        let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let (front, back) = text.rsplit_once(')')?;
        let fields: Vec<&str> = back.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
        let own_ms = (ticks(11)? + ticks(12)?) * TICK_MS;
        Some(Self {
            command: front.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own_ms,
            with_ended_children_ms: own_ms + (ticks(13)? + ticks(14)?) * TICK_MS,
        })
    }
}
