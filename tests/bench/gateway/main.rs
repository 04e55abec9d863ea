//! What Easel costs beside nginx: `cargo bench --bench gateway` (see `tests/bench/README.md`).
//!
//! This program plays every part but the ones that are measured: it is its own fake provider and its own
//! load generator, each in a process of its own, started from the same executable. Beside them run Easel
//! as people run it, with its private PostgreSQL, and nginx as a plain proxy in front of the same provider.
//! It prints figures and asserts nothing about speed; a wrong answer, though, ends it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod load;
mod pictures;
mod process;
mod report;
mod scenarios;
mod targets;
mod upstream;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        // What `cargo bench` adds.
        .filter(|word| *word != "--bench")
        .collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words.as_slice() {
        ["upstream"] => runtime.block_on(upstream::serve()),
        ["load", plan] => runtime.block_on(load::run(&serde_json::from_str(plan)?)),
        words => {
            let mut chosen = Vec::new();
            let mut rounds = 5;
            let mut words = words.iter();
            while let Some(word) = words.next() {
                match (*word, scenarios::find(word)) {
                    ("--rounds", _) => {
                        rounds = words.next().map_or(Ok(rounds), |text| text.parse())?;
                    }
                    (_, Some(scenario)) => chosen.push(scenario),
                    (unknown, None) => bail!(
                        "there is no scenario {unknown:?}; there are {}",
                        scenarios::names()
                    ),
                }
            }
            runtime.block_on(scenarios::run(&chosen, rounds))
        }
    }
}
