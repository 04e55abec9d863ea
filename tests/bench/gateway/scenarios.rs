//! What is asked, in which order, and what is read off afterwards.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{process::Command, time::sleep};

use super::{
    load::{Outcome, Plan},
    process,
    report::{self, Row},
    targets::{Bench, Target},
    upstream,
};

/// One kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    prompt: &'static str,
    stream: bool,
    pub(crate) connections: u32,
    slow: u32,
    requests: Option<u32>,
    seconds: f64,
    rate: Option<f64>,
    /// Whether one round is enough: it is about memory, or takes long.
    once: bool,
}

const SCENARIO: Scenario = Scenario {
    name: "",
    title: "",
    prompt: "a tiny picture",
    stream: false,
    connections: 1,
    slow: 0,
    requests: None,
    seconds: 4.0,
    rate: None,
    once: false,
};

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "relay-2",
        title: "2 MiB pictures, 8 clients",
        prompt: "two mebibytes",
        connections: 8,
        ..SCENARIO
    },
    Scenario {
        name: "relay-8",
        title: "8 MiB pictures, 8 clients",
        prompt: "eight mebibytes",
        connections: 8,
        ..SCENARIO
    },
    Scenario {
        name: "memory",
        title: "8 MiB pictures, 64 clients, half of them slow (2.5 MiB/s)",
        prompt: "eight mebibytes",
        connections: 64,
        slow: 32,
        requests: Some(2),
        once: true,
        ..SCENARIO
    },
    Scenario {
        name: "small",
        title: "small answers, 64 clients",
        connections: 64,
        ..SCENARIO
    },
    Scenario {
        name: "half-load",
        title: "small answers at 2,500 a second, 64 clients",
        connections: 64,
        rate: Some(2500.0),
        ..SCENARIO
    },
    Scenario {
        name: "waiting",
        title: "5,000 requests in flight, the provider takes 10 s",
        prompt: "a long wait",
        connections: 5000,
        requests: Some(1),
        once: true,
        ..SCENARIO
    },
    Scenario {
        name: "stream",
        title: "first draft of a stream, one client",
        prompt: "a stream",
        stream: true,
        requests: Some(20),
        ..SCENARIO
    },
];

pub(crate) fn find(name: &str) -> Option<Scenario> {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .copied()
}

pub(crate) fn names() -> String {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    names.join(", ")
}

/// Runs these scenarios, or all, and prints the table.
pub(crate) async fn run(chosen: &[Scenario], rounds: usize) -> anyhow::Result<()> {
    let scenarios = if chosen.is_empty() { SCENARIOS } else { chosen };
    let bench = Bench::start().await?;
    let mut rows = Vec::new();
    for scenario in scenarios {
        // What nobody measures: connections and caches warm up.
        let warm_up = Plan {
            seconds: 1.0,
            connections: scenario.connections.min(64),
            slow: 0,
            requests: None,
            rate: None,
            prompt: "a tiny picture".to_owned(),
            ..plan(&bench, scenario, &bench.easel.address)
        };
        load(&warm_up).await?;
        // Two seconds for what the last one left behind.
        sleep(Duration::from_secs(2)).await;
        let rounds = if scenario.once { 1 } else { rounds };
        for round in 0..rounds {
            for target in [&bench.nginx, &bench.easel] {
                let row = measure(&bench, scenario, target).await?;
                eprintln!(
                    "{} {} round {}: {row:?}",
                    scenario.name,
                    target.name,
                    round + 1
                );
                rows.push(row);
            }
            if scenario.stream {
                let direct = load(&plan(&bench, scenario, &bench.upstream)).await?;
                rows.push(Row::direct(scenario, &direct));
            }
        }
    }
    bench.stop().await?;
    print!("{}", report::markdown(scenarios, &rows));
    Ok(())
}

async fn measure(bench: &Bench, scenario: &Scenario, target: &Target) -> anyhow::Result<Row> {
    let process = target.process();
    let is_easel = std::ptr::eq(target, &raw const bench.easel);
    // nginx's workers have peaks of their own; its memory is told for the yardstick's sake only.
    process::forget_peak(process)?;
    let resident = process::resident_bytes(process)?;
    let cpu = cpu(bench, target);
    let postgres = process::cpu_seconds(bench.postgres);
    let outcome = load(&plan(bench, scenario, &target.address)).await?;
    ensure!(
        outcome.errors == 0,
        "{} answered {} requests wrongly: {:?}",
        target.name,
        outcome.errors,
        outcome.error
    );
    let cpu = self::cpu(bench, target) - cpu;
    let postgres = process::cpu_seconds(bench.postgres) - postgres;
    let waited = if scenario.prompt == "a long wait" {
        upstream::PAINTING.as_secs_f64() * 1000.0
    } else {
        0.0
    };
    Ok(Row {
        scenario: scenario.name,
        target: target.name,
        connections: scenario.connections,
        resident_bytes: resident,
        peak_bytes: process::peak_bytes(process)?,
        cpu_seconds: cpu,
        postgres_seconds: if is_easel { postgres } else { 0.0 },
        waited_ms: waited,
        outcome,
    })
}

/// Easel's own, without the PostgreSQL that is its child.
fn cpu(bench: &Bench, target: &Target) -> f64 {
    let all = process::cpu_seconds(target.process());
    if std::ptr::eq(target, &raw const bench.easel)
        && process::is_child(bench.postgres, target.process())
    {
        all - process::cpu_seconds(bench.postgres)
    } else {
        all
    }
}

fn plan(bench: &Bench, scenario: &Scenario, address: &str) -> Plan {
    Plan {
        address: address.to_owned(),
        key: bench.key.clone(),
        prompt: scenario.prompt.to_owned(),
        stream: scenario.stream,
        connections: scenario.connections,
        slow: scenario.slow,
        requests: scenario.requests,
        seconds: scenario.seconds,
        rate: scenario.rate,
    }
}

/// Runs a plan in a process of its own.
async fn load(plan: &Plan) -> anyhow::Result<Outcome> {
    let output = Command::new(std::env::current_exe()?)
        .arg("load")
        .arg(serde_json::to_string(plan)?)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "the load generator failed");
    serde_json::from_slice(&output.stdout).context("the load generator's words")
}
