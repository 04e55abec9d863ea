//! `easel prune`: deletes what is older than an operator wants to keep. Balances and sums stay.

use std::process::ExitCode;

use super::{Context, output};
use crate::admin::words::Span;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How long requests, their pictures' records and their single charges are kept, from 7d on; days are pruned whole
    #[arg(long, value_name = "SPAN")]
    older_than: Span,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pruned = context.ledger().prune(arguments.older_than.0).await?;
    if arguments.json {
        output::json(&pruned)?;
    } else {
        output::line(format!(
            "pruned {} requests of days before {}; {} charges are kept as sums",
            pruned.generations, pruned.before, pruned.charges
        ));
    }
    Ok(ExitCode::SUCCESS)
}
