//! The README's table of models, written from the catalog so that it cannot lie.

use std::fmt::Write as _;

use super::{load::Catalog, model::Status};

impl Catalog {
    /// A Markdown table of every model: names, status, price of the first route. Ends with a newline.
    pub fn markdown_table(&self) -> String {
        let mut table = "| model | status | price in USD |\n|---|---|---|\n".to_owned();
        for model in self.models() {
            let status = match model.status {
                Status::Active => "active".to_owned(),
                Status::Deprecated { shutdown: None } => "deprecated".to_owned(),
                Status::Deprecated {
                    shutdown: Some(date),
                } => format!("deprecated, ends {date}"),
                Status::Retired { shutdown } => format!("retired {shutdown}"),
            };
            let price = model
                .routes
                .first()
                .map(|route| route.price.to_string())
                .unwrap_or_default();
            let names: Vec<String> = model.names().map(|name| format!("`{name}`")).collect();
            writeln!(table, "| {} | {status} | {price} |", names.join(", "))
                .expect("writing into a String cannot fail");
        }
        table
    }
}
