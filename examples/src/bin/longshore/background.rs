//! A copy of this program in the background that watches a container, so that its end is told and `--rm` is done.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use longshore::runtime::DeleteMode;
use longshore::{Container, Engine};

use crate::open::Site;

/// Tells a copy of this program that it is the one in the background, and the name of its container.
const WATCH: &str = "LONGSHORE_SUPERVISE";

/// What the copy says on its standard output when the container runs.
const READY: &str = "ready";

/// The container that this process is to watch, if it is such a copy.
pub(crate) fn watched() -> Option<String> {
    std::env::var(WATCH).ok()
}

/// Starts a copy of this program, with the same arguments, that watches the container, and waits until it runs. Returns 0 then, and otherwise the copy's exit code, having shown what it said.
pub(crate) fn hand_over(name: &str) -> Result<u8> {
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(WATCH, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the process that watches the container")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("no pipe from the watching process")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == READY {
        return Ok(0);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut reason)?;
    }
    let code = child
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(125);
    eprint!("{reason}");
    if reason.is_empty() {
        bail!("the process that watches container {name} ended without a word");
    }
    Ok(code)
}

/// What is to become of a container that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Kept,
    Removed,
}

/// What the copy does once the container runs: says so, and waits for its end.
pub(crate) async fn watch(site: &Site, engine: Engine, container: Container, ended: Ended) -> Result<u8> {
    let (exit, name) = (container.exit(), container.id().to_owned());
    // From here on other commands may open the engine.
    drop((container, engine));
    say_ready()?;
    let status = exit.await;
    if ended == Ended::Removed {
        let engine = site.engine().await?;
        engine.find_container(&name).await?.delete(DeleteMode::Force).await?;
        // The log goes with its container.
        site.remove_log(&name);
    }
    status?;
    Ok(0)
}

/// Tells the first copy that all is well, and lets go of its pipes.
fn say_ready() -> Result<()> {
    println!("{READY}");
    std::io::stdout().flush()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
