//! Logs, set up once: to stderr, for people or for machines; and [`traces`], where there is a collector.
//!
//! The one idea is I10: whatever filter an operator sets, the lines of other people's crates stop at
//! `info`, because below it some of them print headers, bodies or keys. Only our own lines, which name
//! what they show, go on to `debug` and `trace`.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tokio::runtime::Handle;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

pub mod metrics;
pub mod traces;

use self::traces::Traces;
use crate::config::{LogConfig, LogFormat, TracesConfig};

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("[log] filter or RUST_LOG: '{filter}' is not a filter such as \"warn,easel=debug\"")]
    Filter {
        /// What was set.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Spans cannot be sent.
    #[error("could not set up traces")]
    Traces(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody set up logging before.
    #[error("could not set up logging")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

/// Exchanges the filter of this process.
static EXCHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// What was set up, to be stopped at the end.
#[derive(Debug)]
#[must_use = "spans that nobody stopped are not sent"]
pub struct Telemetry(Option<Traces>);

impl Telemetry {
    /// Sends what is left, within seconds. Blocks.
    pub fn stop(self) {
        if let Some(traces) = self.0 {
            traces.stop();
        }
    }
}

/// Sets up logging for this process, and traces if there are to be any, whose sending is done on `runtime`.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(
    config: &LogConfig,
    traces: Option<&TracesConfig>,
    runtime: &Handle,
) -> Result<Telemetry, TelemetryError> {
    let writer = io::stderr;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Pretty => {
            // Complaints about a terminal that is gone would go to that terminal, and panic.
            let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
            // Left alone on a terminal, where NO_COLOR decides.
            if io::stderr().is_terminal() {
                layer.boxed()
            } else {
                layer.with_ansi(false).boxed()
            }
        }
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            // It is the last of `spans`; twice would be half of the line.
            .with_current_span(false)
            .with_writer(writer)
            .log_internal_errors(false)
            .boxed(),
    };
    let collector = traces.and_then(|traces| Some((traces, traces.collector.as_ref()?)));
    let telemetry = if let Some((traces, collector)) = collector {
        let traces = Traces::start(traces, collector, runtime.clone())?;
        let (filter, handle) = reload::Layer::new(filter(config)?);
        // What is written and what is sent is decided apart, so that a quiet log is no reason for empty traces.
        let lines = lines.with_filter(filter.and(filter_fn(is_harmless)));
        tracing_subscriber::registry()
            .with(lines)
            .with(traces.layer())
            .try_init()
            .map_err(TelemetryError::Taken)?;
        exchange_by(move |filter| drop(handle.reload(filter)));
        Some(traces)
    } else {
        let (filter, handle) = reload::Layer::new(filter(config)?);
        tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .with(filter_fn(is_harmless))
            .try_init()
            .map_err(TelemetryError::Taken)?;
        exchange_by(move |filter| drop(handle.reload(filter)));
        None
    };
    Ok(Telemetry(telemetry))
}

/// Has the filter exchanged so. That fails only when the process has no log any more.
fn exchange_by(exchange: impl Fn(EnvFilter) + Send + Sync + 'static) {
    drop(EXCHANGE.set(Box::new(exchange)));
}

/// Logs by another filter from now on.
pub fn exchange_filter(filter: EnvFilter) {
    if let Some(exchange) = EXCHANGE.get() {
        exchange(filter);
    }
}

/// The filter of this configuration.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn filter(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|source| TelemetryError::Filter {
            filter: config.filter.clone(),
            source,
        })
}

/// Whether a line may be written at all.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let limit = if is_ours(target) {
        Level::TRACE
    } else if target.starts_with("sqlx::postgres::notice") {
        // "relation already exists, skipping", at every start.
        Level::WARN
    } else {
        Level::INFO
    };
    *metadata.level() <= limit
}

fn is_ours(target: &str) -> bool {
    target == "easel" || target.starts_with("easel::")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, subscriber::with_default, trace, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn config(filter: &str) -> LogConfig {
        LogConfig {
            format: LogFormat::Pretty,
            filter: filter.to_owned(),
        }
    }

    #[test]
    fn other_crates_stop_at_info_whatever_the_filter_says() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry()
            .with(fmt::layer().with_writer(move || writer.clone()))
            .with(filter(&config("trace")).unwrap())
            .with(filter_fn(is_harmless));
        with_default(subscriber, || {
            trace!(target: "easel::ledger", "ours");
            trace!(target: "easel", "the root's");
            trace!(target: "easeled", "a stranger's");
            trace!(target: "h2::frame", "authorization: a secret");
            debug!(target: "hyper::proto", "a body");
            info!(target: "hyper", "fine");
            info!(target: "sqlx::postgres::notice", "relation exists");
            warn!(target: "sqlx::postgres::notice", "worth knowing");
        });
        let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for expected in ["ours", "the root's", "fine", "worth knowing"] {
            assert!(written.contains(expected), "{expected} in {written}");
        }
        for kept_out in ["stranger", "secret", "a body", "relation exists"] {
            assert!(!written.contains(kept_out), "{kept_out} in {written}");
        }
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter(&config("easel=loud")).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"[log] filter or RUST_LOG: 'easel=loud' is not a filter such as "warn,easel=debug""#
        );
    }
}
