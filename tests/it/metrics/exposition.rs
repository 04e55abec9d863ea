//! What `/metrics` says, taken apart, and held to the rules of naming
//! (<https://prometheus.io/docs/practices/naming/>, read 2026-11).

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
pub(crate) struct Exposition {
    pub(crate) text: String,
    pub(crate) families: BTreeMap<String, Family>,
}

/// A metric with all its series.
#[derive(Debug, Default)]
pub(crate) struct Family {
    kind: String,
    help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    value: String,
}

/// Units that say how many of a base unit, or of which nobody knows what they are.
const OTHER_UNITS: [&str; 12] = [
    "ms",
    "milliseconds",
    "micros",
    "minutes",
    "hours",
    "kb",
    "kib",
    "mb",
    "mib",
    "percent",
    "ns",
    "us",
];

impl Exposition {
    pub(crate) fn read(text: &str) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        assert!(text.ends_with("# EOF\n"), "an exposition has an end");
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                let rest = words.next().unwrap_or_default().to_owned();
                name.clone_into(&mut current);
                let family = families.entry(current.clone()).or_default();
                match what {
                    "HELP" => family.help = rest,
                    "TYPE" => family.kind = rest,
                    other => panic!("{other} in {line}"),
                }
                continue;
            }
            let sample = Sample::read(line);
            assert!(sample.name.starts_with(&current), "{line} under {current}");
            families.get_mut(&current).unwrap().samples.push(sample);
        }
        Self {
            text: text.to_owned(),
            families,
        }
    }

    /// The sum of all series of this name that have these labels; whole numbers, as all are but the sums of seconds.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let matching: Vec<i64> = self
            .samples()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels.iter().all(|(label, value)| {
                    let found = sample.labels.get(*label).map_or("", String::as_str);
                    found == *value
                })
            })
            .map(|sample| sample.value.parse().unwrap())
            .collect();
        assert!(
            !matching.is_empty(),
            "no {name}{labels:?} in\n{}",
            self.text
        );
        matching.iter().sum()
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.values().flat_map(|family| &family.samples)
    }

    /// Every name that a query can ask for, with its labels.
    pub(crate) fn names(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for sample in self.samples() {
            let labels = sample.labels.keys().map(String::as_str);
            names.entry(&sample.name).or_default().extend(labels);
        }
        names
    }

    /// What breaks a rule.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, family) in &self.families {
            let mut fault = |what: &str| faults.push(format!("{name}: {what}"));
            let is_plain = |text: &str| {
                text.bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            };
            if !name.starts_with("easel_") || !is_plain(name) || name.contains("__") {
                fault("is no name");
            }
            if family.help.len() < 10 {
                fault("has no help");
            }
            let words: Vec<&str> = name.split('_').collect();
            if words.iter().any(|word| OTHER_UNITS.contains(word)) {
                fault("has another unit than a base unit");
            }
            if let Some(unit @ ("seconds" | "bytes")) = words
                .iter()
                .copied()
                .find(|word| ["seconds", "bytes"].contains(word))
                && words.last() != Some(&unit)
            {
                fault("does not end with its unit");
            }
            // Money is whole nano-USD everywhere here, and exact in a float up to nine million USD a series.
            if name.contains("usd") && !name.ends_with("_nano_usd") {
                fault("is money in another unit than nano-USD");
            }
            let suffixes: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => {
                    fault("is of no kind");
                    continue;
                }
            };
            if name.ends_with("_total") {
                fault("is called a total twice");
            }
            if family.kind == "histogram" && !name.ends_with("_seconds") {
                fault("is a histogram of something else than seconds");
            }
            for sample in &family.samples {
                let suffix = sample.name.strip_prefix(name.as_str()).unwrap();
                if !suffixes.contains(&suffix) {
                    fault(&format!("has a sample {}", sample.name));
                }
                let labels = sample.labels.keys();
                for label in labels.filter(|label| suffix != "_bucket" || *label != "le") {
                    if !is_plain(label) || ["le", "quantile", "job", "instance"].contains(&&**label)
                    {
                        fault(&format!("has a label {label}"));
                    }
                }
            }
        }
        faults
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        // No value here has a quote or a comma: a label is a name of ours.
        let labels = labels.split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            (name.to_owned(), value.to_owned())
        });
        Self {
            name: name.to_owned(),
            labels: labels.collect(),
            value: value.to_owned(),
        }
    }
}
