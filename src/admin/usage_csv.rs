//! Usage as a spreadsheet reads it: for `easel usage --csv` and for `GET /admin/v1/usage?format=csv`.

use crate::{
    ledger::{UsageGroup, UsageSum},
    money::MoneyError,
};

/// Why there is no sheet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SheetError {
    /// Amounts that cannot be counted.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// The writer's own words; it writes to memory, so this does not happen.
    #[error("could not write CSV")]
    Csv(#[from] csv::Error),
}

/// The sums with a header. A group is one column, and another for its name where it has one.
pub(crate) fn write(groups: &[UsageGroup], sums: &[UsageSum]) -> Result<Vec<u8>, SheetError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut titles = Vec::new();
    for group in groups {
        titles.push(group.as_str());
        titles.extend(name_title(*group, groups.len()));
    }
    titles.extend([
        "mode",
        "requests",
        "abandoned",
        "images",
        "cost_usd",
        "upstream_cost_usd",
        "margin_usd",
    ]);
    writer.write_record(&titles)?;
    for sum in sums {
        let mut cells = Vec::new();
        for group in groups {
            let (of, name) = sum.group(*group);
            cells.push(cell(of.unwrap_or_default()));
            if name_title(*group, groups.len()).is_some() {
                cells.push(cell(name.unwrap_or_default()));
            }
        }
        cells.extend([
            sum.mode.to_string(),
            sum.requests.to_string(),
            sum.abandoned.to_string(),
            sum.images.to_string(),
            sum.cost.to_string(),
            sum.upstream_cost.to_string(),
            sum.margin()?.to_string(),
        ]);
        writer.write_record(cells)?;
    }
    writer
        .into_inner()
        .map_err(|error| SheetError::Csv(error.into_error().into()))
}

/// A text that others have chosen: what a spreadsheet would take for a formula begins with an apostrophe.
pub(crate) fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// The column of a group's names: `name`, unless there may be two of them.
fn name_title(group: UsageGroup, groups: usize) -> Option<&'static str> {
    match (group, groups) {
        (UsageGroup::Key | UsageGroup::Account, 1) => Some("name"),
        (UsageGroup::Key, _) => Some("key_name"),
        (UsageGroup::Account, _) => Some("account_name"),
        (UsageGroup::Day | UsageGroup::Model | UsageGroup::Provider, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::Mode, money::NanoUsd};

    fn sum(account: Option<&str>, name: Option<&str>) -> UsageSum {
        UsageSum {
            day: Some("2026-11-20".to_owned()),
            model: None,
            provider: None,
            key: None,
            key_name: None,
            account: account.map(str::to_owned),
            account_name: name.map(str::to_owned),
            mode: Mode::Live,
            requests: 3,
            abandoned: 1,
            images: 2,
            cost: NanoUsd::parse("0.066").unwrap(),
            upstream_cost: NanoUsd::parse("0.06").unwrap(),
        }
    }

    #[test]
    fn a_name_is_no_formula() {
        for name in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"] {
            assert_eq!(cell(name), format!("'{name}"));
        }
        assert_eq!(cell("a=b"), "a=b");
        let sheet = write(&[UsageGroup::Account], &[sum(Some("acc_1"), Some("=1+1"))]).unwrap();
        let sheet = String::from_utf8(sheet).unwrap();
        assert!(sheet.contains("acc_1,'=1+1,live"), "{sheet}");
    }

    #[test]
    fn csv_has_a_header_and_quotes_names() {
        let sums = [sum(Some("acc_1"), Some(r#"a, "b""#)), sum(None, None)];
        let text = |groups: &[UsageGroup]| String::from_utf8(write(groups, &sums).unwrap());
        assert_eq!(
            text(&[UsageGroup::Account]).unwrap(),
            "account,name,mode,requests,abandoned,images,cost_usd,upstream_cost_usd,margin_usd\n\
             acc_1,\"a, \"\"b\"\"\",live,3,1,2,0.066,0.06,0.006\n\
             ,,live,3,1,2,0.066,0.06,0.006\n"
        );
        assert_eq!(
            text(&[UsageGroup::Day, UsageGroup::Account])
                .unwrap()
                .lines()
                .next(),
            Some(
                "day,account,account_name,mode,requests,abandoned,images,cost_usd,upstream_cost_usd,margin_usd"
            )
        );
    }
}
