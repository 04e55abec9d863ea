//! Where spans go and which: OpenTelemetry's own variables, so that Easel is set up as everything else around it, and
//! `[traces]` for what they have no word for.
//!
//! What decides is read here and handed on: whether there are traces, to whom they are sent, which are, and how long a
//! batch may take. The SDK reads by itself what is none of our business: the collector's headers
//! (`OTEL_EXPORTER_OTLP_HEADERS`), the names of the service (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) and how
//! spans are gathered into batches (`OTEL_BSP_…`).

use std::time::Duration;

use super::{Environment, layers::Origin, reader::Section, setting::HttpUrl};

/// `OTEL_…` and `[traces]`
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// Who gets them; `None` when nothing is traced, which is so unless an endpoint is named.
    pub collector: Option<CollectorConfig>,
    /// Whether a client's `traceparent` is gone on with.
    pub from_clients: bool,
    /// Whether calls to providers carry a `traceparent`.
    pub to_providers: bool,
}

/// `OTEL_…`
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorConfig {
    /// Where spans are posted, as `http/protobuf`.
    pub endpoint: String,
    /// How long the collector may take to answer.
    pub timeout: Duration,
    /// Which traces are sent.
    pub sampler: Sampler,
    /// Whether the environment names the service; otherwise it is `easel`.
    pub is_named: bool,
}

/// Which traces are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a client that sends a `traceparent` decides about its trace, by the flag in it.
    pub follows_parent: bool,
    /// Of the others, which share; 0 to 1.
    pub ratio: f64,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const TIMEOUTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
const PROTOCOL: &str = "http/protobuf";
/// The standard's.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn read(section: &mut Section<'_>, environment: &Environment) -> TracesConfig {
    TracesConfig {
        from_clients: section.value("from_clients", true),
        to_providers: section.value("to_providers", true),
        collector: collector(section, environment),
    }
}

fn collector(section: &Section<'_>, environment: &Environment) -> Option<CollectorConfig> {
    let given = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let is = |name: &str, word: &str| given(name).is_some_and(|value| value == word);
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    let refuse = |name: &str, message: String| {
        section.report(Origin::Variable(name.to_owned()), "", message);
    };
    let url = |name: &str| {
        let HttpUrl(url) = section.parse(&Origin::Variable(name.to_owned()), "", given(name)?)?;
        Some(url)
    };
    let endpoint =
        url(TRACES_ENDPOINT).or_else(|| Some(format!("{}/v1/traces", url(ENDPOINT)?)))?;
    for name in PROTOCOLS {
        if let Some(protocol) = given(name)
            && protocol != PROTOCOL
        {
            refuse(
                name,
                format!("'{protocol}' is not spoken here, only '{PROTOCOL}'"),
            );
        }
    }
    let mut timeout = DEFAULT_TIMEOUT;
    if let Some(name) = TIMEOUTS.into_iter().find(|name| given(name).is_some()) {
        let text = given(name).unwrap_or_default();
        match text.parse() {
            Ok(milliseconds) if milliseconds > 0 => timeout = Duration::from_millis(milliseconds),
            _ => refuse(
                name,
                format!("'{text}' is not a number of milliseconds above 0"),
            ),
        }
    }
    let mut ratio = 1.0;
    if let Some(text) = given(SAMPLER_RATIO) {
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => ratio = share,
            _ => refuse(
                SAMPLER_RATIO,
                format!("'{text}' is not a share from 0 to 1 such as 0.1"),
            ),
        }
    }
    let sampler = given(SAMPLER).unwrap_or("parentbased_always_on");
    let (follows_parent, kind) = match sampler.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, sampler),
    };
    let ratio = match kind {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio,
        _ => {
            refuse(
                SAMPLER,
                format!(
                    "'{sampler}' is not 'always_on', 'always_off' or 'traceidratio', or one of them behind \
                     'parentbased_'"
                ),
            );
            ratio
        }
    };
    let attributes = given("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    Some(CollectorConfig {
        endpoint,
        timeout,
        sampler: Sampler {
            follows_parent,
            ratio,
        },
        is_named: given("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name="),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<TracesConfig, String> {
        let environment: Environment = variables.iter().copied().collect();
        Config::from_text(None, text, &environment)
            .map(|config| config.traces)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn endpoints() {
        let own = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://traces.example/in",
        );
        for (variables, expected) in [
            (&[][..], None),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
            (&[BASE], Some("http://collector:4318/v1/traces")),
            (&[BASE, own], Some("https://traces.example/in")),
            (&[BASE, ("OTEL_SDK_DISABLED", "true")], None),
            (&[BASE, ("OTEL_TRACES_EXPORTER", "none")], None),
            (
                &[BASE, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
                Some("http://collector:4318/v1/traces"),
            ),
        ] {
            let collector = read("", variables).unwrap().collector;
            let endpoint = collector.map(|collector| collector.endpoint);
            assert_eq!(endpoint.as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn samplers() {
        for (sampler, ratio, expected) in [
            ("", "", (true, 1.0)),
            ("", "0.5", (true, 1.0)),
            ("always_on", "", (false, 1.0)),
            ("always_off", "0.5", (false, 0.0)),
            ("traceidratio", "0.25", (false, 0.25)),
            ("traceidratio", "", (false, 1.0)),
            ("parentbased_traceidratio", "0.01", (true, 0.01)),
            ("parentbased_always_off", "", (true, 0.0)),
        ] {
            let variables = [BASE, (SAMPLER, sampler), (SAMPLER_RATIO, ratio)];
            let told = read("", &variables).unwrap().collector.unwrap().sampler;
            let (follows_parent, ratio) = expected;
            let expected = Sampler {
                follows_parent,
                ratio,
            };
            assert_eq!(told, expected, "{variables:?}");
        }
    }

    #[test]
    fn what_is_told_to_whom() {
        let traces = read("", &[BASE]).unwrap();
        assert!(traces.from_clients && traces.to_providers);
        assert_eq!(traces.collector.unwrap().timeout, DEFAULT_TIMEOUT);
        let text = "[traces]\nfrom_clients = false\nto_providers = false";
        let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500");
        let traces = read(text, &[BASE, timeout]).unwrap();
        assert!(!traces.from_clients && !traces.to_providers);
        let timeout = traces.collector.unwrap().timeout;
        assert_eq!(timeout, Duration::from_millis(1500));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (variable, expected) in [
            (
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                "'grpc' is not spoken here, only 'http/protobuf'",
            ),
            (
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
                "'collector:4318' is not an http://",
            ),
            (
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                "'10s' is not a number of milliseconds above 0",
            ),
            (
                ("OTEL_TRACES_SAMPLER_ARG", "10"),
                "'10' is not a share from 0 to 1",
            ),
            (
                ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
                "'jaeger_remote' is not 'always_on'",
            ),
        ] {
            let (name, _) = variable;
            let told = read("", &[BASE, variable]).unwrap_err();
            for expected in [name, expected] {
                assert!(told.contains(expected), "{expected} in {told}");
            }
        }
    }
}
