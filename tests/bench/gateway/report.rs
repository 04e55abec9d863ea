//! Figures as a Markdown table: medians over the rounds, and what Easel costs as a multiple of nginx.

use std::fmt::Write as _;

use super::{load::Outcome, scenarios::Scenario};

/// What one round of one scenario against one target gave.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) target: &'static str,
    pub(crate) connections: u32,
    /// Before the round.
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) postgres_seconds: f64,
    /// What the provider alone takes.
    pub(crate) waited_ms: f64,
    pub(crate) outcome: Outcome,
}

impl Row {
    /// The provider without anything before it.
    pub(crate) fn direct(scenario: &Scenario, outcome: &Outcome) -> Self {
        Self {
            scenario: scenario.name,
            target: "the provider itself",
            connections: scenario.connections,
            resident_bytes: 0,
            peak_bytes: 0,
            cpu_seconds: 0.0,
            postgres_seconds: 0.0,
            waited_ms: 0.0,
            outcome: outcome.clone(),
        }
    }
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(crate) fn markdown(scenarios: &[Scenario], rows: &[Row]) -> String {
    let mut table = String::from(
        "| load | through | requests/s | MB/s | CPU ms a request | PostgreSQL CPU ms | median ms | p99 ms | first byte ms | peak MiB | KiB a connection |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for scenario in scenarios {
        for target in ["the provider itself", "nginx", "Easel"] {
            let rounds: Vec<&Row> = rows
                .iter()
                .filter(|row| row.scenario == scenario.name && row.target == target)
                .collect();
            if rounds.is_empty() {
                continue;
            }
            let median = |figure: &dyn Fn(&Row) -> f64| {
                let mut figures: Vec<f64> = rounds.iter().map(|row| figure(row)).collect();
                figures.sort_unstable_by(f64::total_cmp);
                figures[figures.len() / 2]
            };
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let count = |number: u64| number as f64;
            let answers = |row: &Row| count(row.outcome.answers.max(1));
            writeln!(
                table,
                "| {} | {target} | {:.0} | {:.0} | {:.3} | {:.3} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} |",
                scenario.title,
                median(&|row| answers(row) / row.outcome.seconds),
                median(&|row| count(row.outcome.body_bytes) / 1e6 / row.outcome.seconds),
                median(&|row| row.cpu_seconds * 1000.0 / answers(row)),
                median(&|row| row.postgres_seconds * 1000.0 / answers(row)),
                median(&|row| row.outcome.median_ms - row.waited_ms),
                median(&|row| row.outcome.p99_ms - row.waited_ms),
                median(&|row| row.outcome.first_byte_median_ms - row.waited_ms),
                median(&|row| count(row.peak_bytes) / MEBIBYTE),
                median(&|row| count(row.peak_bytes.saturating_sub(row.resident_bytes))
                    / 1024.0
                    / f64::from(row.connections)),
            )
            .expect("writing into a String cannot fail");
        }
    }
    table
}
