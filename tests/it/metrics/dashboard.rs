//! The dashboard and the alerts that come with Easel: every query is one that Prometheus takes, and asks for figures
//! and labels that there are.

use std::collections::BTreeSet;

use promql_parser::{
    parser::{Expr, LabelModifier, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::{Value, json};

use super::{exposition::Exposition, scrape};
use crate::support::App;

const DASHBOARD: &str = include_str!("../../../config/grafana/easel.json");
const ALERTS: &str = include_str!("../../../config/alerts.yml");
/// What Prometheus adds to every series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// Told by Prometheus itself.
const OF_OTHERS: [&str; 1] = ["up"];
/// There only where there is a bucket; `s3.rs` looks at these.
const OF_BUCKETS: &str = "easel_store_request";

/// What a query looks for.
#[derive(Default)]
struct Asked {
    selectors: Vec<VectorSelector>,
    labels: BTreeSet<String>,
}

impl ExprVisitor for Asked {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(selector) => self.selectors.push(selector.vs.clone()),
            Expr::Aggregate(aggregate) => {
                let labels = aggregate.modifier.iter().map(LabelModifier::labels);
                self.labels
                    .extend(labels.flat_map(|labels| labels.labels.clone()));
            }
            _ => {}
        }
        Ok(true)
    }
}

/// What is wrong with a query.
fn faults(query: &str, told: &Exposition) -> Vec<String> {
    let mut asked = Asked::default();
    let parsed = promql_parser::parser::parse(query);
    if let Err(error) = parsed.and_then(|expression| walk_expr(&mut asked, &expression).map(drop)) {
        return vec![format!("{query}: {error}")];
    }
    let names = told.names();
    let mut faults = Vec::new();
    // `action` is the bucket's.
    let mut all_labels: BTreeSet<&str> = OF_PROMETHEUS.into();
    all_labels.extend(["action", "outcome", "le"]);
    for selector in &asked.selectors {
        let name = selector.name.as_deref().unwrap_or_default();
        if OF_OTHERS.contains(&name) || name.starts_with(OF_BUCKETS) {
            continue;
        }
        let Some(labels) = names.get(name) else {
            faults.push(format!("{query}: there is no {name}"));
            continue;
        };
        all_labels.extend(labels);
        for matcher in &selector.matchers.matchers {
            if !labels.contains(matcher.name.as_str()) {
                faults.push(format!("{query}: {name} has no label {}", matcher.name));
            }
        }
    }
    for label in &asked.labels {
        if !all_labels.contains(label.as_str()) {
            faults.push(format!("{query}: nothing here has a label {label}"));
        }
    }
    faults
}

/// The queries of all panels, with what Grafana would put in for its variables.
fn queries_of_the_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let queries = targets.map(|target| target["expr"].as_str().unwrap());
    queries
        .map(|query| {
            query
                .replace("$__rate_interval", "1m")
                .replace("$__range", "1h")
                .replace("$model", "openai/.*")
        })
        .collect()
}

fn queries_of_the_alerts() -> Vec<String> {
    let lines = ALERTS.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("expr: "))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_asks_for_figures_that_there_are() {
    let app = App::start().await;
    let key = app.live_key("1");
    let request = json!({"model": "dall-e-3", "prompt": "a dashboard of brass"});
    app.generate(&key, &request).await.expect(200);
    let told = scrape(&app).await;
    let (panels, alerts) = (queries_of_the_dashboard(), queries_of_the_alerts());
    assert!(panels.len() > 30 && alerts.len() > 10);
    let queries = panels.iter().chain(&alerts);
    let all: Vec<String> = queries.flat_map(|query| faults(query, &told)).collect();
    assert!(all.is_empty(), "{all:#?}\n{}", told.text);

    // Every figure is drawn somewhere, or it is there for nobody.
    let drawn = panels.concat() + &alerts.concat();
    let undrawn: Vec<&String> = told
        .families
        .keys()
        .filter(|name| !drawn.contains(name.as_str()))
        .collect();
    assert!(undrawn.is_empty(), "{undrawn:?}");

    // What it is that would have been found.
    for (query, expected) in [
        ("sum(easel_in_flight", "easel_in_flight"),
        (
            "sum(easel_no_such_thing)",
            "there is no easel_no_such_thing",
        ),
        ("easel_images_total{colour=\"red\"}", "no label colour"),
        ("sum by (colour) (easel_images_total)", "a label colour"),
    ] {
        let found = faults(query, &told).concat();
        assert!(found.contains(expected), "{found}");
    }
    app.finish().await;
}

/// The files that Compose mounts are those that there are, and name each other as they are called there.
#[test]
fn compose_mounts_what_there_is() {
    let compose = include_str!("../../../config/compose.yaml");
    let prometheus = include_str!("../../../config/prometheus.yml");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut mounts = 0;
    for line in compose.lines() {
        let mount = line.trim().trim_start_matches("- ").trim_matches('"');
        if let Some((file, _)) = mount
            .strip_prefix("./")
            .and_then(|rest| rest.split_once(':'))
        {
            assert!(root.join(file).exists(), "{line}");
            mounts += 1;
        }
    }
    assert!(mounts >= 5, "{mounts}");
    assert!(prometheus.contains("alerts.yml") && compose.contains("/etc/prometheus/alerts.yml"));
    let datasources = include_str!("../../../config/grafana/datasources.yaml");
    assert!(datasources.contains("type: prometheus"));
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_i64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
    }
}
