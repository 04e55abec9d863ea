//! The configuration as its users meet it: good ones, bad ones with their exact words, and the reference
//! file held to the code.

use secrecy::ExposeSecret;

use super::*;

const REFERENCE: &str = include_str!("../../config/easel.toml");

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Config {
    Config::from_text(Some(Path::new("easel.toml")), text, &environment(variables))
        .unwrap_or_else(|error| panic!("{error}\n---\n{text}"))
}

/// Expects exactly these problems.
fn refused(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let result = Config::from_text(Some(Path::new("easel.toml")), text, &environment(variables));
    let error = result.expect_err(text).to_string();
    assert_eq!(error, expected.join("\n"), "---\n{text}");
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

#[test]
fn the_reference_file_is_the_built_in_defaults() {
    let secrets = [
        ("OPENAI_API_KEY", "sk-1"),
        ("STABILITY_API_KEY", "sk-2"),
        ("EASEL_ADMIN_TOKEN", "t"),
    ];
    for variables in [&secrets[..], &[]] {
        let mut written = load(REFERENCE, variables);
        written.file = None;
        let built_in = Config::from_text(None, "", &environment(variables)).unwrap();
        assert_eq!(format!("{written:#?}"), format!("{built_in:#?}"));
        for provider in ["openai", "stability"] {
            assert_eq!(
                exposed(written.providers[provider].api_key.as_ref()),
                exposed(built_in.providers[provider].api_key.as_ref()),
            );
        }
        assert_eq!(
            exposed(written.admin.token.as_ref()),
            exposed(built_in.admin.token.as_ref()),
        );
    }
}

#[test]
fn the_reference_file_names_every_key_and_sets_every_default() {
    // "#key = value" is an example of a key without a default.
    let with_examples: Vec<&str> = REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|letter: char| letter.is_ascii_lowercase()) => key,
            _ => line,
        })
        .collect();
    let with_examples = with_examples.join("\n");
    load(&with_examples, &[]);
    let leaves = leaves("", &read_file(&with_examples).unwrap());
    let nothing = Environment::default();
    let reader = Reader::new(None, &nothing);
    reader.root(layers::Table::new(), |root| read(root, &nothing));
    let mut known: Vec<String> = reader
        .known()
        .into_iter()
        .filter(|key| {
            !leaves
                .iter()
                .any(|leaf| leaf.starts_with(&format!("{key}.")))
        })
        .collect();
    known.sort();
    assert_eq!(leaves, known);
}

fn leaves(section: &str, table: &layers::Table) -> Vec<String> {
    let mut keys: Vec<String> = table
        .iter()
        .flat_map(|(key, node)| {
            let path = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            match &node.raw {
                layers::Raw::Table(table) => leaves(&path, table),
                _ => vec![path],
            }
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn a_file_needs_only_what_differs() {
    let config = load(
        r#"
        listen = "0.0.0.0:80"
        data_dir = "/var/lib/easel"
        default_model = ""
        [images]
        max_size = 1024
        [providers.openai]
        base_url = "http://127.0.0.1:9000/v1/"
        timeout = "1h 30m"
        [providers.local]
        adapter = "openai"
        base_url = "http://10.0.0.7:8000/v1"
        result_hosts = ["CDN.example", "10.0.0.7:8000"]
        "#,
        &[("OPENAI_API_KEY", "sk-1")],
    );
    assert_eq!(config.public_url, "http://127.0.0.1:80");
    assert_eq!(config.default_model.as_deref(), Some(""));
    assert_eq!(
        config.images.store.to_string(),
        "file:/var/lib/easel/images"
    );
    assert_eq!(config.images.max_size_bytes, 1024);

    let openai = &config.providers["openai"];
    assert_eq!(openai.adapter, "openai");
    assert_eq!(openai.base_url.as_deref(), Some("http://127.0.0.1:9000/v1"));
    assert_eq!(exposed(openai.api_key.as_ref()), Some("sk-1"));
    assert_eq!(openai.timeout, Duration::from_mins(90));
    assert_eq!(openai.max_in_flight, 256);

    let local = &config.providers["local"];
    assert_eq!(local.result_hosts, ["cdn.example", "10.0.0.7:8000"]);
    assert!(
        local.api_key.is_none(),
        "the key of openai is not for others"
    );
    assert_eq!(local.api_key_missing, None, "no key is wanted");
}

#[test]
fn variables_override_the_file() {
    let config = load(
        r#"
        listen = "127.0.0.1:1"
        [database]
        max_connections = 4
        [providers.openai]
        api_key = "from the file"
        [providers.my-server]
        adapter = "openai"
        base_url = "http://one"
        "#,
        &[
            ("EASEL__LISTEN", "127.0.0.1:0"),
            ("EASEL__DATABASE__MAX_CONNECTIONS", "7"),
            ("EASEL__PROVIDERS__OPENAI__BASE_URL", "https://two"),
            ("EASEL__PROVIDERS__OPENAI__API_KEY", "${KEY}"),
            ("EASEL__PROVIDERS__OPENAI__ENABLED", "false"),
            (
                "EASEL__PROVIDERS__OPENAI__RESULT_HOSTS",
                "a.example, b.example:81",
            ),
            ("EASEL__PROVIDERS__MY_SERVER__BASE_URL", "http://three"),
            (
                "EASEL__PROVIDERS__MY_SERVER__RESULT_HOSTS",
                r#"["c.example"]"#,
            ),
            ("EASEL__PROVIDERS__SANDBOX__DELAY", "250ms"),
            ("EASEL__PROVIDERS__NEW__ADAPTER", "sandbox"),
            ("EASEL__LOG__FORMAT", "json"),
            ("EASEL_ADMIN_TOKEN", "t"),
            ("KEY", "sk-2"),
        ],
    );
    assert_eq!(config.listen.port(), 0);
    assert_eq!(config.database.max_connections, 7);
    let openai = &config.providers["openai"];
    assert_eq!(openai.base_url.as_deref(), Some("https://two"));
    assert_eq!(exposed(openai.api_key.as_ref()), Some("sk-2"));
    assert!(!openai.enabled);
    assert_eq!(openai.result_hosts, ["a.example", "b.example:81"]);
    let mine = &config.providers["my-server"];
    assert_eq!(mine.base_url.as_deref(), Some("http://three"));
    assert_eq!(mine.result_hosts, ["c.example"]);
    assert_eq!(
        config.providers["sandbox"].delay,
        Duration::from_millis(250)
    );
    assert_eq!(config.providers["new"].adapter, "sandbox");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(exposed(config.admin.token.as_ref()), Some("t"));
}

#[test]
fn a_missing_secret_is_absent_with_its_reason() {
    let missing = |text: &str, variables: &[(&str, &str)]| {
        let config = load(text, variables);
        let openai = &config.providers["openai"];
        (
            exposed(openai.api_key.as_ref()).map(str::to_owned),
            openai.api_key_missing.clone(),
        )
    };
    let absent = |reason: &str| (None, Some(reason.to_owned()));
    assert_eq!(missing("", &[]), absent("OPENAI_API_KEY is not set"));
    assert_eq!(
        missing("", &[("OPENAI_API_KEY", "")]),
        absent("OPENAI_API_KEY is empty")
    );
    assert_eq!(
        missing("providers.openai.api_key = '${MY_KEY}'", &[]),
        absent("MY_KEY is not set")
    );
    assert_eq!(
        missing("", &[("EASEL__PROVIDERS__OPENAI__API_KEY", "")]),
        absent("EASEL__PROVIDERS__OPENAI__API_KEY is empty")
    );
    assert_eq!(missing("providers.openai.api_key = ''", &[]), (None, None));
    assert_eq!(
        load("", &[]).admin.token_missing.as_deref(),
        Some("EASEL_ADMIN_TOKEN is not set")
    );
}

#[test]
fn a_secret_can_be_a_mounted_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "sk-3\n").unwrap();
    let text = format!("providers.openai.api_key = '${{file:{}}}'", file.display());
    let config = load(&text, &[]);
    assert_eq!(
        exposed(config.providers["openai"].api_key.as_ref()),
        Some("sk-3")
    );
    refused(
        "\nproviders.openai.api_key = '${file:/nowhere/key}'",
        &[],
        &[
            "easel.toml:2: providers.openai.api_key: the file /nowhere/key cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn the_database_is_the_key_or_the_variable_or_private() {
    let url = |text: &str, variables: &[(&str, &str)]| {
        exposed(load(text, variables).database.url.as_ref()).map(str::to_owned)
    };
    let key = "database.url = 'postgres://key'";
    let variable = ("DATABASE_URL", "postgresql://variable");
    assert_eq!(url("", &[]), None);
    assert_eq!(url("", &[("DATABASE_URL", "")]), None);
    assert_eq!(
        url("", &[variable]).as_deref(),
        Some("postgresql://variable")
    );
    assert_eq!(url(key, &[variable]).as_deref(), Some("postgres://key"));
    refused(
        "",
        &[("DATABASE_URL", "mysql://user:hunter2@host")],
        &[
            "DATABASE_URL: database.url: the value is not an address such as postgres://user:password@host:5432/database",
        ],
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    for (text, expected) in [
        (
            "lisen = '127.0.0.1:1'",
            "easel.toml:1: lisen: unknown key, did you mean 'listen'?",
        ),
        (
            "[providers.openai]\n\ntimeot = '1s'",
            "easel.toml:3: providers.openai.timeot: unknown key, did you mean 'providers.openai.timeout'?",
        ),
        (
            "[images]\nstore = 'file:x'\ndata_dir = 'x'",
            "easel.toml:3: images.data_dir: unknown key, did you mean 'data_dir'?",
        ),
        (
            "url_ttl = '1h'",
            "easel.toml:1: url_ttl: unknown key, did you mean 'images.url_ttl'?",
        ),
        ("zebra = 1", "easel.toml:1: zebra: unknown key"),
        (
            "[imagse]\nurl_ttl = '1h'",
            "easel.toml:1: imagse: unknown key, did you mean 'images'?",
        ),
        (
            "[providers.openai]\ndelay = '1s'",
            "easel.toml:2: providers.openai.delay: unknown key, did you mean 'providers.sandbox.delay'?",
        ),
    ] {
        refused(text, &[], &[expected]);
    }
    refused(
        "",
        &[
            ("EASEL__IMAGES__URL_TLL", "1h"),
            ("EASEL__ZEBRA__CROSSING", "1"),
            ("EASEL__", "1"),
        ],
        &[
            "EASEL__: names no key: write EASEL__SECTION__KEY or EASEL__KEY",
            "EASEL__IMAGES__URL_TLL: images.url_tll: unknown key, did you mean 'EASEL__IMAGES__URL_TTL'?",
            "EASEL__ZEBRA__CROSSING: zebra: unknown key",
        ],
    );
}

#[test]
fn bad_values_are_refused_with_what_a_good_one_is() {
    for (text, expected) in [
        (
            "listen = 'localhost:80'",
            "listen: 'localhost:80' is not an IP address and a port such as 127.0.0.1:8080",
        ),
        (
            "listen = 80",
            "listen: 80 is not an IP address and a port such as 127.0.0.1:8080",
        ),
        (
            "images.url_ttl = 300",
            r#"images.url_ttl: 300 is not a duration above zero with its unit such as "300s" or "15 min""#,
        ),
        (
            "images.url_ttl = '0s'",
            r#"images.url_ttl: '0s' is not a duration above zero with its unit such as "300s" or "15 min""#,
        ),
        (
            "images.max_size = '64 MBytes'",
            r#"images.max_size: '64 MBytes' is not a size in bytes or with its unit such as "64 MiB""#,
        ),
        (
            "images.store = 's3://Bucket/prefix'",
            "images.store: 's3://Bucket/prefix' is not file:PATH or s3://bucket/prefix",
        ),
        (
            "images.store = 's3://bucket/../prefix'",
            "images.store: 's3://bucket/../prefix' is not file:PATH or s3://bucket/prefix",
        ),
        (
            "images.links = 'public'",
            "images.links: 'public' is not 'easel' or 'presigned'",
        ),
        (
            "images.s3.endpoint = 'minio:9000'",
            "images.s3.endpoint: 'minio:9000' is not an http:// or https:// address without user name, query or fragment",
        ),
        (
            "database.max_connections = 0",
            "database.max_connections: 0 is not a whole number from 1 on",
        ),
        (
            "database.max_connections = 1.5",
            "database.max_connections: a number with a point is not a whole number from 1 on",
        ),
        (
            "log.format = true",
            "log.format: true is not 'pretty' or 'json'",
        ),
        (
            "providers.openai.enabled = 'yes'",
            "providers.openai.enabled: 'yes' is not true or false",
        ),
        (
            "providers.openai.result_hosts = 'https://a/b'",
            "providers.openai.result_hosts: 'https://a/b' is not a host or host:port without scheme or path",
        ),
        (
            "edits.fetch_hosts = ['pictures:https']",
            "edits.fetch_hosts: 'pictures:https' is not a host or host:port without scheme or path",
        ),
        (
            "webhooks.hosts = ['hooks.internal', 'http://hooks']",
            "webhooks.hosts: 'http://hooks' is not a host or host:port without scheme or path",
        ),
        (
            "webhooks.timeout = '0s'",
            "webhooks.timeout: '0s' is not a duration above zero with its unit such as \"300s\" or \"15 min\"",
        ),
        (
            "webhooks.max_in_flight = 0",
            "webhooks.max_in_flight: 0 is not a whole number from 1 on",
        ),
        (
            "webhooks.first_retry = 5",
            "webhooks.first_retry: 5 is not a duration above zero with its unit such as \"300s\" or \"15 min\"",
        ),
        (
            "webhooks.retry_for = 'for ever'",
            "webhooks.retry_for: 'for ever' is not a duration above zero with its unit such as \"300s\" or \"15 min\"",
        ),
        (
            "webhooks.timeout = '301s'",
            "webhooks.timeout: 5m is the longest there can be",
        ),
        (
            "webhooks.first_retry = '7h'",
            "webhooks.first_retry: 6h is the longest there can be",
        ),
        (
            "webhooks.retry_for = '8d'",
            "webhooks.retry_for: 7days is the longest there can be",
        ),
        (
            "images.url_ttl = '300000y'",
            "images.url_ttl: 10years is the longest there can be",
        ),
        (
            "images.replay_ttl = '11y'",
            "images.replay_ttl: 10years is the longest there can be",
        ),
        (
            "providers.openai.result_hosts = 1",
            "providers.openai.result_hosts: 1 is not a list",
        ),
        (
            "providers.openai.base_url = 'https://user:pw@host'",
            "providers.openai.base_url: 'https://user:pw@host' is not an http:// or https:// address without user name, query or fragment",
        ),
        (
            "database = 'postgres://x'",
            "database: this is a section: its keys are set one by one",
        ),
        (
            "data_dir = '${NOWHERE}/data'",
            "data_dir: NOWHERE is not set",
        ),
        (
            "providers.local.base_url = 'http://x'",
            "providers.local: this is no built-in provider, so it needs adapter = one of 'openai', 'stability', 'replicate', 'google', 'vertex', 'sandbox'",
        ),
        (
            "providers.local = { adapter = 'opnai' }",
            "providers.local: there is no adapter 'opnai'; there are 'openai', 'stability', 'replicate', 'google', 'vertex', 'sandbox'",
        ),
        (
            "providers.local = { adapter = 'openai' }",
            "providers.local: needs a base_url",
        ),
        (
            "providers.'Local Server'.adapter = 'openai'",
            "providers.Local Server: a provider's name is made of lower-case letters, digits, '-' and '_'",
        ),
        (
            "providers.openai.api_key = \"sk-1\\nsk-2\"",
            "providers.openai.api_key: the value contains a line break or another control character",
        ),
        ("admin.token = 5", "admin.token: the value is not text"),
    ] {
        refused(text, &[], &[&format!("easel.toml:1: {expected}")]);
    }
    // What a variable brought is not shown.
    refused(
        "providers.openai.base_url = '${SECRET}'",
        &[("SECRET", "hunter2")],
        &[
            "easel.toml:1: providers.openai.base_url: '${SECRET}' is not an http:// or https:// address without user name, query or fragment",
        ],
    );
    refused(
        "",
        &[("EASEL__LIMITS__HEADER_TIMEOUT", "soon")],
        &[
            r#"EASEL__LIMITS__HEADER_TIMEOUT: limits.header_timeout: 'soon' is not a duration above zero with its unit such as "300s" or "15 min""#,
        ],
    );
}

#[test]
fn all_problems_come_at_once_and_syntax_has_its_line() {
    refused(
        "listen = 1\n[log]\nfilter = 2\nformat = 3",
        &[("EASEL__ADMIN__TOKN", "x")],
        &[
            "easel.toml:1: listen: 1 is not an IP address and a port such as 127.0.0.1:8080",
            "easel.toml:3: log.filter: 2 is not text",
            "easel.toml:4: log.format: 3 is not 'pretty' or 'json'",
            "EASEL__ADMIN__TOKN: admin.tokn: unknown key, did you mean 'EASEL__ADMIN__TOKEN'?",
        ],
    );
    for (text, line) in [("listen = ", 1), ("a = 1\na = 2", 2), ("\n\n[x", 3)] {
        let error = Config::from_text(Some(Path::new("easel.toml")), text, &Environment::default());
        let error = error.expect_err(text).to_string();
        let place = format!("easel.toml:{line}: not TOML: ");
        assert!(error.starts_with(&place), "{error}");
    }
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let variables = environment(&[("EASEL_CONFIG", "/nowhere/easel.toml")]);
    let error = Source::new(None, variables).read().0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not read the configuration file /nowhere/easel.toml"
    );
}

#[test]
fn links_follow_the_bound_port_unless_told_otherwise() {
    let bound: SocketAddr = "127.0.0.1:4711".parse().unwrap();
    let config = load("listen = '127.0.0.1:0'", &[]).bound_to(bound);
    assert_eq!(config.public_url, "http://127.0.0.1:4711");
    let config = load("public_url = 'https://images.example/'", &[]).bound_to(bound);
    assert_eq!(config.public_url, "https://images.example");
    let everywhere = "[::]:80".parse().unwrap();
    assert_eq!(local_url(everywhere, false), "http://[::1]:80");
    let config = load("tls = { cert = 'a', key = 'b' }", &[]).bound_to(bound);
    assert_eq!(config.public_url, "https://127.0.0.1:4711");
}

#[test]
fn printing_a_configuration_prints_no_secret() {
    let config = load(
        "database.url = 'postgres://u:hunter1@h'",
        &[
            ("OPENAI_API_KEY", "hunter2"),
            ("EASEL_ADMIN_TOKEN", "hunter3"),
        ],
    );
    assert!(!format!("{config:?}").contains("hunter"));
    assert!(!format!("{:?}", environment(&[("A", "hunter")])).contains("hunter"));
}

/// The pictures of a file with these lines under `[images]`.
fn bucket(lines: &str, variables: &[(&str, &str)]) -> ImagesConfig {
    let text = format!("[images]\nstore = \"s3://bucket.example/a/b/\"\n{lines}");
    load(&text, variables).images
}

#[test]
fn a_bucket_is_reached_as_the_sdks_of_aws_reach_it() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIA1"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let images = bucket("", &keys);
    let expected = StoreConfig::Bucket {
        name: "bucket.example".to_owned(),
        prefix: "a/b".to_owned(),
    };
    assert_eq!(images.store, expected);
    assert_eq!(images.store.to_string(), "s3://bucket.example/a/b");
    assert_eq!(
        (images.s3.region.as_str(), images.s3.path_style),
        ("us-east-1", false)
    );

    let mut variables = keys.to_vec();
    variables.extend([
        ("AWS_SESSION_TOKEN", "t"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL", "http://one:1/"),
        ("AWS_ENDPOINT_URL_S3", "http://two:2/"),
        ("AWS_CA_BUNDLE", "/ca.pem"),
    ]);
    let S3Config {
        endpoint,
        region,
        path_style,
        credentials,
        ca_file,
        ..
    } = bucket("", &variables).s3;
    assert_eq!(
        (endpoint.as_deref(), path_style),
        (Some("http://two:2"), true)
    );
    assert_eq!(
        (region.as_str(), ca_file),
        ("eu-west-1", Some("/ca.pem".into()))
    );
    let Some(S3Credentials::Keys { session_token, .. }) = credentials else {
        panic!("{credentials:?}");
    };
    assert_eq!(exposed(session_token.as_ref()), Some("t"));

    // The file wins, and the environment's token is not for the file's keys.
    let lines = "[images.s3]\nregion = \"auto\"\npath_style = false\naccess_key_id = \"mine\"\n\
                 secret_access_key = \"${AWS_SECRET_ACCESS_KEY}\"";
    let s3 = bucket(lines, &variables).s3;
    assert_eq!((s3.region.as_str(), s3.path_style), ("auto", false));
    let Some(S3Credentials::Keys {
        access_key_id,
        session_token,
        ..
    }) = s3.credentials
    else {
        panic!("no keys");
    };
    assert_eq!(access_key_id.expose_secret(), "mine");
    assert!(session_token.is_none());
}

#[test]
fn credentials_of_a_bucket_are_found_in_the_order_of_the_sdks() {
    let found = |lines: &str, variables: &[(&str, &str)]| {
        let credentials = bucket(lines, variables).s3.credentials;
        match credentials {
            Some(S3Credentials::Keys { .. }) => "keys",
            Some(S3Credentials::WebIdentity { .. }) => "web identity",
            Some(S3Credentials::Task { .. }) => "task",
            Some(S3Credentials::Pod { .. }) => "pod",
            Some(S3Credentials::Instance) => "instance",
            None => "none",
        }
    };
    let machine = "[images.s3]\ninstance_credentials = true";
    let mut variables = Vec::new();
    assert_eq!(found(machine, &variables), "instance");
    variables.extend([
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://169.254.170.23/v1",
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token"),
    ]);
    assert_eq!(found("", &variables), "pod");
    variables.push(("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2"));
    assert_eq!(found("", &variables), "task");
    variables.extend([
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/easel"),
    ]);
    assert_eq!(found(machine, &variables), "web identity");
    variables.extend([
        ("AWS_ACCESS_KEY_ID", "AKIA1"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ]);
    assert_eq!(found(machine, &variables), "keys");
}

#[test]
fn settings_of_pictures_that_do_not_go_together_are_refused() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIA1"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let none = "a bucket needs credentials: access_key_id and secret_access_key in [images.s3], AWS_ACCESS_KEY_ID \
                and AWS_SECRET_ACCESS_KEY, a web identity, a container's role, or instance_credentials = true";
    let store = "images.store = \"s3://bucket\"";
    refused(
        store,
        &[],
        &[&format!("easel.toml:1: images.store: {none}")],
    );
    // Half of a pair is none.
    refused(
        store,
        &keys[..1],
        &[&format!("easel.toml:1: images.store: {none}")],
    );
    refused(
        "images.links = \"presigned\"",
        &keys,
        &[
            "easel.toml:1: images.links: 'presigned' is for a bucket: store = \"s3://bucket/prefix\"",
        ],
    );
    refused(
        &format!("{store}\nimages.links = \"presigned\"\nimages.url_ttl = \"8d\""),
        &keys,
        &["easel.toml:3: images.url_ttl: a presigned link opens for 7 days at most"],
    );
}

#[test]
fn a_certificate_comes_with_its_key() {
    for (text, missing) in [("tls.cert = 'a'", "key"), ("tls.key = 'a'", "cert")] {
        let problem = format!(
            "easel.toml:1: tls.{missing}: is missing: cert and key are set together or not at all"
        );
        refused(text, &[], &[&problem]);
    }
}

#[test]
fn origins_of_pages_are_as_browsers_write_them() {
    for origin in [
        "app.example.com",
        "https://a.example/app",
        "https://a.example/?a",
        "https://*.example.com",
        "null",
        "",
    ] {
        let text = format!("cors.origins = ['{origin}']");
        let error = Config::from_text(None, &text, &Environment::default()).unwrap_err();
        assert!(error.to_string().contains("is not an origin"), "{error}");
    }
    let config = load("cors.origins = ['https://A.example:8443/', '*']", &[]);
    assert_eq!(config.cors.origins, ["https://a.example:8443", "*"]);
}

/// The number behind the first such word, in seconds.
fn seconds_after(file: &str, word: &str) -> u64 {
    let (_, rest) = file.split_once(word).unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

const KUBERNETES: &str = include_str!("../../config/kubernetes/easel.yaml");
const SYSTEMD: &str = include_str!("../../config/easel.service");
/// What the secret of the manifest has beside providers' keys.
const SECRET: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];

/// The `easel.toml` of the Kubernetes manifest.
fn of_the_manifest() -> String {
    let (_, in_map) = KUBERNETES.split_once("easel.toml: |\n").unwrap();
    let lines = in_map.lines().map_while(|line| line.strip_prefix("    "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_comes_with_it_leaves_the_place_of_pictures_to_the_file() {
    let dockerfile = include_str!("../../Dockerfile");
    for (file, word, data_dir) in [
        (dockerfile, "\nENV ", "/data"),
        (SYSTEMD, "\nEnvironment=", "/var/lib/easel"),
    ] {
        let (_, set) = file.rsplit_once(word).unwrap();
        let set = set.replace("\\\n", " ");
        let set = set.lines().next().unwrap().split_whitespace();
        let mut variables: Vec<_> = set.map(|one| one.split_once('=').unwrap()).collect();
        let built_in = load("", &variables).images.store.to_string();
        assert_eq!(built_in, format!("file:{data_dir}/images"));
        variables.extend(SECRET);
        let images = load(&of_the_manifest(), &variables).images;
        assert_eq!(images.store.to_string(), "s3://pictures/easel", "{word}");
    }
}

#[test]
fn the_supervisors_that_come_with_it_wait_until_it_has_stopped() {
    let deployed = load(&of_the_manifest(), &SECRET).shutdown;
    assert!(deployed.drain_delay >= Duration::from_secs(5));
    let plain = load("", &[]).shutdown;
    let compose = include_str!("../../config/compose.yaml");
    for (waits, shutdown) in [
        (
            seconds_after(KUBERNETES, "terminationGracePeriodSeconds: "),
            &deployed,
        ),
        (seconds_after(compose, "stop_grace_period: "), &plain),
        (seconds_after(SYSTEMD, "TimeoutStopSec="), &plain),
    ] {
        let slack = Duration::from_secs(waits).checked_sub(shutdown.longest());
        assert!(slack >= Some(Duration::from_secs(10)), "{waits} s");
    }
}
