//! The first five minutes: `easel serve` in an empty directory, without a configuration or a database.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Easel, Secrets, pictures, run_easel};

/// An empty directory, and the end of any private cluster in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A home that others may enter, as /home/name is on most machines.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn serve(&self) -> Easel {
        Easel::serve(self.path(), &[], ENVIRONMENT).await
    }

    /// `PostgreSQL`'s own note of its process, if there is one.
    fn postmaster(&self) -> Option<Postmaster> {
        let file = find(self.path(), "postmaster.pid")?;
        let text = std::fs::read_to_string(file).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        Some(Postmaster {
            pid: Pid::from_raw(lines.first()?.trim().parse().ok()?)?,
            listen_addresses: lines.get(5).unwrap_or(&"").trim().to_owned(),
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(postmaster) = self.postmaster() {
            kill_process(postmaster.pid, Signal::QUIT).ok();
        }
    }
}

struct Postmaster {
    pid: Pid,
    listen_addresses: String,
}

impl Postmaster {
    fn runs(&self) -> bool {
        test_kill_process(self.pid).is_ok()
    }
}

/// The only thing that differs from a newcomer's own machine: many of them run here at once.
const ENVIRONMENT: &[(&str, &str)] = &[("EASEL__LISTEN", "127.0.0.1:0")];

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .find_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                find(&path, name)
            } else {
                (entry.file_name() == name).then_some(path)
            }
        })
}

/// The printed command, with its continued lines.
fn curl_line(output: &str) -> String {
    let start = output
        .lines()
        .position(|line| line.trim_start().starts_with("curl "))
        .unwrap_or_else(|| panic!("no curl line in:\n{output}"));
    let mut command = String::new();
    for line in output.lines().skip(start) {
        command.push_str(line);
        command.push('\n');
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    command
}

fn test_key(output: &str) -> &str {
    let start = output
        .find("ek_test_")
        .unwrap_or_else(|| panic!("no test key in:\n{output}"));
    let rest = &output[start..];
    let end = rest
        .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(rest.len());
    &rest[..end]
}

async fn generate(easel: &Easel, key: &str) -> Value {
    let client = Client::new(easel.origin(), Arc::new(Secrets::default()));
    let request = json!({"model": "dall-e-2", "prompt": "a first picture", "size": "256x256"});
    client
        .post_json("/v1/images/generations", Some(key), &request)
        .await
        .expect(200)
        .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_prints_a_command_that_works() {
    let home = Home::new();
    let mut easel = home.serve().await;
    let command = curl_line(&easel.stdout());
    let output = Command::new("sh")
        .args(["-c", &command])
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{command}\n{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{command}\nno JSON ({error}): {output:?}"));
    let link = answer["data"][0]["url"]
        .as_str()
        .unwrap_or_else(|| panic!("{command}\n{answer}"));
    let client = Client::new(easel.origin(), Arc::new(Secrets::default()));
    let path = link
        .strip_prefix(&easel.origin())
        .expect("the link leads here");
    pictures::measure(&client.get(path, None).await.expect(200).bytes);

    // The private server: no network, no root, and gone with Easel.
    let postmaster = home.postmaster().expect("a private PostgreSQL runs");
    assert_eq!(postmaster.listen_addresses, "", "no TCP");
    let owner = std::fs::metadata(format!("/proc/{}", postmaster.pid.as_raw_nonzero()))
        .unwrap()
        .uid();
    assert_ne!(owner, 0, "PostgreSQL does not run as root");
    easel.stop().await;
    assert!(!postmaster.runs(), "PostgreSQL was stopped");
    assert!(home.postmaster().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_printed_once_and_stays_good() {
    let home = Home::new();
    let mut easel = home.serve().await;
    let output = easel.stdout();
    let key = test_key(&output).to_owned();
    generate(&easel, &key).await;
    // The log is not the place for the key, at any level.
    assert!(!easel.stderr().contains(&key), "the key is in the log");
    easel.stop().await;

    let mut easel = home.serve().await;
    let second = easel.stdout()[output.len()..].to_owned();
    assert!(
        !second.contains("ek_test_"),
        "a second start prints no key:\n{second}"
    );
    generate(&easel, &key).await;
    easel.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_easel_starts_again_on_its_running_cluster() {
    let home = Home::new();
    let mut easel = home.serve().await;
    let key = test_key(&easel.stdout()).to_owned();
    easel.kill();
    let mut easel = home.serve().await;
    generate(&easel, &key).await;
    easel.stop().await;
    assert!(
        home.postmaster().is_none(),
        "the cluster that was taken over is stopped too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_easel_starts_again_on_its_crashed_cluster() {
    let home = Home::new();
    let mut easel = home.serve().await;
    let key = test_key(&easel.stdout()).to_owned();
    easel.kill();
    let postmaster = home.postmaster().unwrap();
    kill_process(postmaster.pid, Signal::KILL).unwrap();
    while postmaster.runs() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        home.postmaster().is_some(),
        "a crashed cluster leaves its note behind"
    );
    let mut easel = home.serve().await;
    generate(&easel, &key).await;
    easel.stop().await;
}

/// Commands reach the private database of the running server.
#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_private_database() {
    let home = Home::new();
    let mut easel = home.serve().await;
    let created = run_easel(
        home.path(),
        &[
            "keys", "create", "--json", "--name", "second", "--test", "--credit", "5",
        ],
        ENVIRONMENT,
    )
    .expect_success()
    .json();
    generate(&easel, created["key"].as_str().unwrap()).await;
    run_easel(home.path(), &["reconcile"], ENVIRONMENT).expect_success();
    let usage = run_easel(home.path(), &["usage"], ENVIRONMENT).expect_success();
    assert!(usage.stdout.contains("0.016"), "{usage:?}");
    assert!(
        home.postmaster().is_some(),
        "a command does not stop the server"
    );
    easel.stop().await;
    assert!(home.postmaster().is_none());
}

/// A directory that only its owner may enter, such as /root: started as root, `PostgreSQL`'s user cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_home_directory_works_or_says_what_to_do() {
    let home = Home::new();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    match Easel::try_serve(home.path(), &[], ENVIRONMENT).await {
        Ok(mut easel) => {
            let key = test_key(&easel.stdout()).to_owned();
            generate(&easel, &key).await;
            easel.stop().await;
        }
        Err(output) => {
            assert_ne!(output.status.code(), Some(0));
            assert!(
                output.stderr.contains("data_dir") && !output.stderr.contains("panicked"),
                "{output:#?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_it_says_what_to_install() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("empty")).unwrap();
    let environment = [ENVIRONMENT, &[("EASEL__DATABASE__POSTGRES_BIN", "empty")]].concat();
    let Err(output) = Easel::try_serve(home.path(), &[], &environment).await else {
        panic!("there is no PostgreSQL in an empty directory");
    };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for word in ["postgres_bin", "initdb", "empty"] {
        assert!(output.stderr.contains(word), "{word} in {}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_said_and_nothing_is_left_running() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let Err(output) = Easel::try_serve(home.path(), &[], &[("EASEL__LISTEN", &address)]).await
    else {
        panic!("the port is taken");
    };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains(&address), "{}", output.stderr);
    assert!(home.postmaster().is_none(), "PostgreSQL is left running");
}
