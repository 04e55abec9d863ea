//! `/admin/v1/config`: what is in force: the file, the environment and the defaults in one, secrets masked.
//!
//! Every section is taken apart field by field: a new setting does not compile until it is shown, or is left
//! out on purpose.

use std::{path::PathBuf, time::Duration};

use axum::{Json, extract::State};
use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::{Desk, error::AdminError};
use crate::{
    api::ApiError,
    config::{
        AdminConfig, CloudConfig, CollectorConfig, Config, CorsConfig, DatabaseConfig, EditsConfig,
        ImagesConfig, LimitsConfig, LinkStyle, LogConfig, LogFormat, MetricsConfig, OnDisconnect,
        ProviderConfig, ReloadConfig, RoutingConfig, S3Config, S3Credentials, Sampler,
        ShutdownConfig, TracesConfig, WebhooksConfig,
    },
    reload::{Refused, Standing},
};

/// `GET /admin/v1/config`
pub(super) async fn show(State(desk): State<Desk>) -> Json<Value> {
    let mut config = describe(&desk.config);
    config["reload"]["last"] = describe_standing(&desk.app.reloads.standing());
    Json(config)
}

/// `POST /admin/v1/reload`: reads the configuration again, as SIGHUP does, and says what came of it.
pub(super) async fn reload(State(desk): State<Desk>) -> Result<Json<Value>, AdminError> {
    let outcome = desk.app.reloads.ask().await;
    let outcome = outcome.map_err(|unheard| ApiError::Internal(unheard.into()))?;
    let standing = outcome.map_err(AdminError::ConfigRefused)?;
    let mut answer = describe_standing(&standing);
    answer["object"] = json!("reload");
    Ok(Json(answer))
}

/// What became of the configuration on disk.
fn describe_standing(standing: &Standing) -> Value {
    let Standing {
        applied_at,
        needs_restart,
        refused,
    } = standing;
    let refused = refused.as_ref();
    json!({
        "applied_at": instant(*applied_at),
        "needs_restart": needs_restart,
        "refused": refused.map(|Refused { at, why }| json!({"at": instant(*at), "why": why})),
    })
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// With the keys that the file has.
fn describe(config: &Config) -> Value {
    let Config {
        file,
        listen,
        public_url,
        trusted_proxies,
        data_dir,
        default_model,
        models_dir,
        tls,
        cors: CorsConfig { origins },
        database,
        images,
        limits,
        edits: EditsConfig {
            fetch_urls,
            fetch_hosts,
        },
        webhooks,
        routing,
        shutdown,
        reload: ReloadConfig { watch_interval },
        log,
        traces,
        admin,
        metrics,
        providers,
    } = config;
    let providers: Map<String, Value> = providers
        .iter()
        .map(|(name, section)| (name.clone(), describe_provider(section)))
        .collect();
    json!({
        "object": "config",
        "file": file,
        "listen": listen,
        "public_url": public_url,
        "trusted_proxies": trusted_proxies,
        "data_dir": data_dir,
        "default_model": default_model,
        "models_dir": models_dir,
        "tls": {
            "cert": tls.as_ref().map(|tls| &tls.cert),
            "key": tls.as_ref().map(|tls| &tls.key),
        },
        "cors": {"origins": origins},
        "database": describe_database(database),
        "images": describe_images(images),
        "limits": describe_limits(limits),
        "edits": {"fetch_urls": fetch_urls, "fetch_hosts": fetch_hosts},
        "webhooks": describe_webhooks(webhooks),
        "routing": describe_routing(routing),
        "shutdown": describe_shutdown(shutdown),
        "reload": {"watch_interval": span(*watch_interval)},
        "log": describe_log(log),
        "traces": describe_traces(traces),
        "admin": describe_admin(admin),
        "metrics": describe_metrics(metrics),
        "providers": providers,
    })
}

fn describe_traces(section: &TracesConfig) -> Value {
    let TracesConfig {
        collector,
        from_clients,
        to_providers,
    } = section;
    json!({
        "from_clients": from_clients,
        "to_providers": to_providers,
        "collector": collector.as_ref().map(describe_collector),
    })
}

/// Of the environment; what it says of headers is not shown.
fn describe_collector(collector: &CollectorConfig) -> Value {
    let CollectorConfig {
        endpoint,
        timeout,
        sampler: Sampler {
            follows_parent,
            ratio,
        },
        is_named: _,
    } = collector;
    json!({
        "endpoint": endpoint,
        "timeout": span(*timeout),
        "follows_parent": follows_parent,
        "sample_ratio": ratio,
    })
}

fn describe_database(section: &DatabaseConfig) -> Value {
    let DatabaseConfig {
        url,
        max_connections,
        postgres_bin,
        // Of the environment, not of the configuration.
        search_path: _,
    } = section;
    json!({
        "url": masked(url.as_ref()),
        "max_connections": max_connections,
        "postgres_bin": postgres_bin,
    })
}

fn describe_images(section: &ImagesConfig) -> Value {
    let ImagesConfig {
        store,
        links,
        s3,
        url_ttl,
        replay_ttl,
        max_size_bytes,
        relay_copies,
        replay_budget_bytes,
    } = section;
    let links = match links {
        LinkStyle::Easel => "easel",
        LinkStyle::Presigned => "presigned",
    };
    json!({
        "store": store.to_string(),
        "links": links,
        "s3": describe_s3(s3),
        "url_ttl": span(*url_ttl),
        "replay_ttl": span(*replay_ttl),
        "max_size": bytes(*max_size_bytes),
        "relay_copies": relay_copies,
        "replay_budget": bytes(*replay_budget_bytes),
    })
}

fn describe_s3(section: &S3Config) -> Value {
    let S3Config {
        endpoint,
        public_endpoint,
        region,
        path_style,
        credentials,
        ca_file,
        timeout,
    } = section;
    let (access_key_id, secret_access_key, session_token) = match credentials {
        Some(S3Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        }) => (
            Some(access_key_id),
            Some(secret_access_key),
            session_token.as_ref(),
        ),
        // Of the environment, not of the configuration.
        Some(
            S3Credentials::WebIdentity { .. }
            | S3Credentials::Task { .. }
            | S3Credentials::Pod { .. }
            | S3Credentials::Instance,
        )
        | None => (None, None, None),
    };
    json!({
        "endpoint": endpoint,
        "public_endpoint": public_endpoint,
        "region": region,
        "path_style": path_style,
        "access_key_id": masked(access_key_id),
        "secret_access_key": masked(secret_access_key),
        "session_token": masked(session_token),
        "instance_credentials": matches!(credentials, Some(S3Credentials::Instance)),
        "ca_file": ca_file,
        "timeout": span(*timeout),
    })
}

fn describe_webhooks(section: &WebhooksConfig) -> Value {
    let WebhooksConfig {
        hosts,
        timeout,
        max_in_flight,
        max_pending,
        first_retry,
        retry_for,
    } = section;
    json!({
        "hosts": hosts,
        "timeout": span(*timeout),
        "max_in_flight": max_in_flight,
        "max_pending": max_pending,
        "first_retry": span(*first_retry),
        "retry_for": span(*retry_for),
    })
}

fn describe_limits(section: &LimitsConfig) -> Value {
    let LimitsConfig {
        json_body_bytes,
        header_timeout,
        body_idle_timeout,
        body_timeout,
        request_bodies_bytes,
        upload_bytes,
        upload_picture_bytes,
        upload_pictures,
        upload_timeout,
        upload_spool_bytes,
        max_connections,
        max_in_flight,
        keepalive,
    } = section;
    json!({
        "json_body": bytes(u64::try_from(*json_body_bytes).unwrap_or(u64::MAX)),
        "header_timeout": span(*header_timeout),
        "body_idle_timeout": span(*body_idle_timeout),
        "body_timeout": span(*body_timeout),
        "request_bodies": bytes(*request_bodies_bytes),
        "upload": bytes(u64::try_from(*upload_bytes).unwrap_or(u64::MAX)),
        "upload_picture": bytes(*upload_picture_bytes),
        "upload_pictures": upload_pictures,
        "upload_timeout": span(*upload_timeout),
        "upload_spool": bytes(*upload_spool_bytes),
        "max_connections": max_connections,
        "max_in_flight": max_in_flight,
        "keepalive": span(*keepalive),
    })
}

fn describe_routing(section: &RoutingConfig) -> Value {
    let RoutingConfig { failures, rest } = section;
    json!({"failures": failures, "rest": span(*rest)})
}

fn describe_shutdown(section: &ShutdownConfig) -> Value {
    let ShutdownConfig {
        drain_delay,
        drain_timeout,
    } = section;
    json!({"drain_delay": span(*drain_delay), "drain_timeout": span(*drain_timeout)})
}

fn describe_log(section: &LogConfig) -> Value {
    let LogConfig { format, filter } = section;
    let format = match format {
        LogFormat::Pretty => "pretty",
        LogFormat::Json => "json",
    };
    json!({"format": format, "filter": filter})
}

fn describe_admin(section: &AdminConfig) -> Value {
    let AdminConfig {
        token,
        token_missing: _,
    } = section;
    json!({"token": masked(token.as_ref())})
}

fn describe_metrics(section: &MetricsConfig) -> Value {
    let MetricsConfig { listen } = section;
    json!({"listen": listen})
}

/// All keys that a section of any adapter can have; those of other adapters are null.
fn describe_provider(section: &ProviderConfig) -> Value {
    let ProviderConfig {
        adapter,
        enabled,
        base_url,
        api_key,
        api_key_missing,
        timeout,
        idle_timeout,
        connect_timeout,
        max_in_flight,
        result_hosts,
        retry_after_send,
        on_disconnect,
        markup_basis_points,
        delay,
        cloud,
    } = section;
    let (credentials_file, project, location) = match cloud {
        Some(CloudConfig {
            credentials_file,
            project,
            location,
        }) => (Some(credentials_file), project.as_ref(), Some(location)),
        None => (None::<&PathBuf>, None, None),
    };
    let on_disconnect = match on_disconnect {
        OnDisconnect::Finish => "finish",
        OnDisconnect::Cancel => "cancel",
    };
    json!({
        "adapter": adapter,
        "enabled": enabled,
        "base_url": base_url,
        "api_key": masked(api_key.as_ref()),
        "off_because": api_key_missing,
        "timeout": span(*timeout),
        "idle_timeout": span(*idle_timeout),
        "connect_timeout": span(*connect_timeout),
        "max_in_flight": max_in_flight,
        "result_hosts": result_hosts,
        "retry_after_send": retry_after_send,
        "on_disconnect": on_disconnect,
        "markup_basis_points": markup_basis_points,
        "delay": span(*delay),
        "credentials_file": credentials_file,
        "project": project,
        "location": location,
    })
}

/// That there is one, and nothing of it; a database's address has its password in it.
fn masked(secret: Option<&SecretString>) -> Option<&'static str> {
    secret.map(|_| "****")
}

/// As the file has it.
fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// As the file has it.
fn bytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1024 * 1024;
    if bytes.is_multiple_of(MEBIBYTE) {
        format!("{} MiB", bytes / MEBIBYTE)
    } else {
        format!("{bytes} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    const DEFAULTS: &str = include_str!("../../config/easel.toml");

    fn config(text: &str, variables: &[(&str, &str)]) -> Value {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Environment = variables.collect();
        describe(&Config::from_text(None, text, &environment).unwrap())
    }

    /// Every key of the documented file is shown, under its own name.
    #[test]
    fn every_key_is_shown() {
        fn check(documented: &toml::Table, shown: &Value, place: &str) {
            for (key, value) in documented {
                let place = format!("{place}.{key}");
                let shown = shown
                    .get(key)
                    .unwrap_or_else(|| panic!("{place} is not shown"));
                if let toml::Value::Table(section) = value {
                    check(section, shown, &place);
                }
            }
        }
        let documented: toml::Table = DEFAULTS.parse().unwrap();
        check(&documented, &config(DEFAULTS, &[]), "");
    }

    #[test]
    fn secrets_are_masked() {
        let shown = config(
            "[database]\nurl = \"postgres://easel:hidden@db/easel\"",
            &[
                ("EASEL_ADMIN_TOKEN", "hidden"),
                ("OPENAI_API_KEY", "hidden"),
            ],
        );
        assert!(!shown.to_string().contains("hidden"), "{shown}");
        for pointer in ["/database/url", "/admin/token", "/providers/openai/api_key"] {
            assert_eq!(shown.pointer(pointer), Some(&json!("****")), "{pointer}");
        }
        assert_eq!(
            shown.pointer("/providers/stability/off_because"),
            Some(&json!("STABILITY_API_KEY is not set"))
        );
        assert_eq!(shown.pointer("/limits/json_body"), Some(&json!("1 MiB")));
        assert_eq!(shown.pointer("/images/url_ttl"), Some(&json!("1h")));
    }
}
