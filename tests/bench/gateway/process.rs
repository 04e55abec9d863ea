//! Processes and what they cost, as `/proc` tells it.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// Clock ticks a second in `/proc`; 100 on every Linux people run.
const TICKS: f64 = 100.0;

/// A server of the benchmark's, killed when this is dropped.
pub(crate) struct Server {
    child: Child,
}

/// This program in another role, and the first line it printed.
pub(crate) async fn spawn_role(role: &str) -> anyhow::Result<(Server, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(role)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    Ok((Server { child }, line.context("the role ended at once")?))
}

impl Server {
    /// Starts a command, with its output in a file.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Asks it to stop, and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status()
            .await?;
        tokio::time::timeout(Duration::from_mins(1), self.child.wait())
            .await
            .context("a server did not stop")??;
        Ok(())
    }
}

/// Seconds of CPU that a process, its living descendants and its dead children have used.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let own = stat(process).map_or(0, |stat| stat.ticks);
    #[expect(clippy::cast_precision_loss, reason = "some thousand ticks")]
    let own = own as f64 / TICKS;
    own + children(process).into_iter().map(cpu_seconds).sum::<f64>()
}

/// The largest resident set that a process has had since [`forget_peak`], in bytes.
pub(crate) fn peak_bytes(process: u32) -> anyhow::Result<u64> {
    memory(process, "VmHWM:")
}

/// The resident set of a process, in bytes.
pub(crate) fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    memory(process, "VmRSS:")
}

/// The peak is the present again.
pub(crate) fn forget_peak(process: u32) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

fn memory(process: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.context("no such line")?.trim().trim_end_matches(" kB");
    Ok(kibibytes.trim().parse::<u64>()? * 1024)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// Fields 4 and 14 to 17 of `/proc/PID/stat`: the parent; user and system time, own and of dead children.
fn stat(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>());
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks.sum::<Result<_, _>>().ok()?,
    })
}

fn children(process: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| stat(*child).is_some_and(|stat| stat.parent == process))
        .collect()
}

/// Whether the one process was started by the other.
pub(crate) fn is_child(child: u32, parent: u32) -> bool {
    stat(child).is_some_and(|stat| stat.parent == parent)
}
