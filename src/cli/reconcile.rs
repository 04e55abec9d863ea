//! `easel reconcile`: proves that entries, holds, balances and billing records agree; exit code 1 and a list
//! where they do not.

use std::process::ExitCode;

use super::{Context, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON: the list of what does not agree, empty when all does
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let found = context.ledger().reconcile().await?;
    if arguments.json {
        output::json(&found)?;
    } else if found.is_empty() {
        output::line("the books agree");
    } else {
        output::table(
            &["SHOULD HOLD", "WHERE IT DOES NOT", "FOUND"],
            found
                .iter()
                .map(|one| [one.check.to_owned(), one.subject.clone(), one.found.clone()]),
        );
    }
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    output::error(&anyhow::anyhow!(
        "the books do not agree in {} places",
        found.len()
    ));
    Ok(ExitCode::FAILURE)
}
