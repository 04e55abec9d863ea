//! The real binary as a child process: `serve` in the background, every other command to its end.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long `serve` may take to say where it listens. Generous: the machine runs other tests too.
const START_WITHIN: Duration = Duration::from_mins(1);

/// How long a drained process may take to end after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// The path of the binary under test.
pub(crate) fn easel_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_easel"))
}

/// A command line whose environment holds only what is named here, so that a developer's own settings
/// and keys change nothing.
pub(crate) fn command(directory: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(easel_binary());
    command
        .env_clear()
        .env("PATH", inherited("PATH"))
        .env("HOME", inherited("HOME"))
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .env("RUST_LOG", "trace")
        .envs(environment.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

fn inherited(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).unwrap_or_default()
}

/// What a finished command said.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "the arguments are there to be shown when a test fails"
)]
pub(crate) struct Output {
    pub(crate) arguments: Vec<String>,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.status.success(), "easel failed: {self:#?}");
        self
    }

    /// The exit code is this one, and there is something to read on stderr.
    pub(crate) fn expect_failure(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "exit code: {self:#?}");
        assert!(
            !self.stderr.trim().is_empty(),
            "errors go to stderr: {self:#?}"
        );
        self
    }

    /// Standard output, which is one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

/// Runs a command to its end.
pub(crate) fn run_easel<S: AsRef<OsStr>>(
    directory: &Path,
    arguments: &[S],
    environment: &[(&str, &str)],
) -> Output {
    let output = command(directory, environment)
        .args(arguments)
        .output()
        .expect("the binary can be started");
    Output {
        arguments: arguments
            .iter()
            .map(|argument| argument.as_ref().to_string_lossy().into_owned())
            .collect(),
        status: output.status,
        stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
    }
}

/// A running `easel serve`. Killed when dropped.
pub(crate) struct Easel {
    child: Child,
    directory: PathBuf,
    port: u16,
    scheme: &'static str,
}

impl Easel {
    /// Starts `easel serve` with these arguments in this directory and waits until it listens.
    pub(crate) async fn serve(
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        match Self::try_serve(directory, arguments, environment).await {
            Ok(easel) => easel,
            Err(output) => panic!("easel serve did not start: {output:#?}"),
        }
    }

    /// The same, or what the process said before it ended by itself.
    pub(crate) async fn try_serve(
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Output> {
        // Appended, so that a test that starts it twice keeps both logs.
        let open = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(directory.join(name))
                .unwrap()
        };
        let already = std::fs::read_to_string(directory.join("stdout.log"))
            .unwrap_or_default()
            .len();
        let child = command(directory, environment)
            .arg("serve")
            .args(arguments)
            .stdout(open("stdout.log"))
            .stderr(open("stderr.log"))
            .spawn()
            .expect("the binary can be started");
        let mut easel = Self {
            child,
            directory: directory.to_owned(),
            port: 0,
            scheme: "http",
        };
        let begun = Instant::now();
        loop {
            let output = easel.stdout();
            if let Some((scheme, port)) = listening_port(&output[already..]) {
                (easel.scheme, easel.port) = (scheme, port);
                return Ok(easel);
            }
            if let Some(status) = easel.child.try_wait().unwrap() {
                return Err(Output {
                    arguments: vec!["serve".to_owned()],
                    status,
                    stdout: easel.stdout(),
                    stderr: easel.stderr(),
                });
            }
            assert!(
                begun.elapsed() < START_WITHIN,
                "no listening line within {START_WITHIN:?}:\n{output}\n{}",
                easel.stderr()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `http://127.0.0.1:PORT`, or `https`.
    pub(crate) fn origin(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(self.directory.join("stdout.log")).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr.log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .unwrap();
        // A process that has ended by itself is found by whoever waits for it.
        kill_process(pid, signal).ok();
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begun.elapsed() < within,
                "easel did not end within {within:?}:\n{}",
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGTERM; the process drains and ends with 0.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended(STOP_WITHIN).await;
        assert_eq!(
            status.code(),
            Some(0),
            "exit after SIGTERM:\n{}",
            self.stderr()
        );
    }

    /// `kill -9`
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Easel {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listening_port(output: &str) -> Option<(&'static str, u16)> {
    ["http", "https"].into_iter().find_map(|scheme| {
        let (_, rest) = output.split_once(&format!("easel listening on {scheme}://127.0.0.1:"))?;
        // The whole line, so that no port is read from half of it.
        Some((scheme, rest.split_once('\n')?.0.trim().parse().ok()?))
    })
}
