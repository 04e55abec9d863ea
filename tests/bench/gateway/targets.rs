//! What is measured: Easel as people run it, and nginx in front of the same provider.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command, time::sleep};

use super::process::{self, Server};

/// Everything that runs beside the load.
pub(crate) struct Bench {
    pub(crate) upstream: String,
    pub(crate) nginx: Target,
    pub(crate) easel: Target,
    /// The postmaster of Easel's private PostgreSQL.
    pub(crate) postgres: u32,
    /// A live key with money.
    pub(crate) key: String,
    _upstream: Server,
    // After the servers that write into it.
    _directory: TempDir,
}

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    server: Server,
}

impl Target {
    pub(crate) fn process(&self) -> u32 {
        self.server.id()
    }
}

impl Bench {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (upstream_server, upstream) = process::spawn_role("upstream").await?;
        let nginx = start_nginx(directory.path(), &upstream).await?;
        let easel = start_easel(directory.path(), &upstream).await?;
        let key = create_key(directory.path()).await?;
        let postmaster =
            fs::read_to_string(directory.path().join("data/postgres/data/postmaster.pid"))
                .or_else(|_| find_postmaster(&directory.path().join("data")))?;
        let postgres = postmaster.lines().next().context("no pid")?.parse()?;
        Ok(Self {
            upstream,
            nginx,
            easel,
            postgres,
            key,
            _upstream: upstream_server,
            _directory: directory,
        })
    }

    /// Stops Easel in good order, so that its PostgreSQL stops too.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.easel.server.stop().await?;
        self.nginx.server.stop().await
    }
}

/// `postmaster.pid`, wherever below `data` the cluster is.
fn find_postmaster(directory: &Path) -> std::io::Result<String> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Ok(found) = find_postmaster(&path) {
                return Ok(found);
            }
        } else if path
            .file_name()
            .is_some_and(|name| name == "postmaster.pid")
        {
            return fs::read_to_string(path);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

async fn start_nginx(directory: &Path, upstream: &str) -> anyhow::Result<Target> {
    let address = free_address()?;
    let place = directory.join("nginx");
    fs::create_dir(&place)?;
    let config = place.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "worker_processes 2;\nworker_rlimit_nofile 20000;\nerror_log {place}/error.log;\npid {place}/pid;\n\
             user root;\nevents {{ worker_connections 12000; }}\n\
             http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {place}/1; proxy_temp_path {place}/2;\n\
             fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;\n\
             upstream provider {{ server {upstream}; keepalive 512; keepalive_requests 1000000; }}\n\
             server {{ listen {address} backlog=8192; location / {{ proxy_pass http://provider; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; proxy_max_temp_file_size 0; proxy_read_timeout 300s; }} }} }}\n",
            place = place.display(),
        ),
    )?;
    let mut command = Command::new("nginx");
    command.args(["-g", "daemon off;", "-c"]).arg(&config);
    let server = Server::spawn(&mut command, &place.join("log"))?;
    reachable(&address, &place.join("log")).await?;
    Ok(Target {
        name: "nginx",
        address,
        server,
    })
}

async fn start_easel(directory: &Path, upstream: &str) -> anyhow::Result<Target> {
    let address = free_address()?;
    fs::write(
        directory.join("easel.toml"),
        format!(
            "listen = \"{address}\"\npublic_url = \"http://{address}\"\ndata_dir = \"{data}\"\n\
             [log]\nfilter = \"warn\"\n\
             [providers.openai]\nbase_url = \"http://{upstream}/v1\"\napi_key = \"sk-bench\"\nmax_in_flight = 10000\n",
            data = directory.join("data").display(),
        ),
    )?;
    let log = directory.join("easel.log");
    let mut command = easel(directory);
    command.arg("serve");
    let server = Server::spawn(&mut command, &log)?;
    reachable(&address, &log).await?;
    Ok(Target {
        name: "Easel",
        address,
        server,
    })
}

async fn create_key(directory: &Path) -> anyhow::Result<String> {
    let output = easel(directory)
        .args([
            "keys", "create", "--name", "bench", "--credit", "1000000", "--json",
        ])
        .output()
        .await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let created: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(created["key"].as_str().context("no key")?.to_owned())
}

fn easel(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_easel"));
    command
        .env_remove("DATABASE_URL")
        .env_remove("RUST_LOG")
        .arg("--config")
        .arg(directory.join("easel.toml"))
        .current_dir(directory);
    command
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn reachable(address: &str, log: &Path) -> anyhow::Result<()> {
    for _ in 0..300 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("nobody listens at {address}: {}", fs::read_to_string(log)?)
}
