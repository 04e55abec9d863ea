//! `easel health`: asks the Easel that this configuration describes whether it can serve; for containers,
//! whose health check has no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use reqwest::StatusCode;

use super::output;
use crate::config::Config;

/// Longer than `/readyz` takes at most.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask only whether the process lives, not whether it can serve
    #[arg(long)]
    live: bool,
}

pub(super) async fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = if arguments.live { "healthz" } else { "readyz" };
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{}/{path}", reachable(config.listen));
    // Somebody else may have installed one; any will do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        // The certificate is for a name, and this is an address of our own.
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let answer = client
        .get(&url)
        .send()
        .await
        .with_context(|| format!("nobody answers at {url}"))?;
    let status = answer.status();
    output::line(format!("{url} says {status}"));
    Ok(if status == StatusCode::OK {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Who listens everywhere is reached at home.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_at_home() {
        for (listen, expected) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:8080", "10.0.0.7:8080"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
