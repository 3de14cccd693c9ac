use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use serde_json::Value;

use crate::{Error, Result};

/// The most of a hook's complaint that goes into an error.
const LONGEST_COMPLAINT: u64 = 4096;

/// Runs hooks in the runtime's namespace, one after the other, with the container's state on their stdin (runtime spec,
/// "POSIX-platform Hooks"). The first that fails ends it.
pub(super) fn run(name: &str, hooks: Option<&Vec<Hook>>, bundle: &Path, state: &Value) -> Result<()> {
    let state = state.to_string();
    for (i, hook) in hooks.into_iter().flatten().enumerate() {
        let field = format!("hooks.{name}[{i}]");
        run_one(hook, bundle, state.as_bytes()).map_err(|reason| Error::Hook { field, reason })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, bundle: &Path, state: &[u8]) -> Result<(), String> {
    let path = hook.path().display();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .current_dir(bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().map_err(|e| format!("{path}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state.
        let _ = stdin.write_all(state);
    }
    let stderr = child.stderr.take();
    let complaint = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.map(|s| s.take(LONGEST_COMPLAINT).read_to_end(&mut text));
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let deadline = hook
        .timeout()
        .and_then(|s| u64::try_from(s).ok())
        .map(|s| Instant::now() + Duration::from_secs(s));
    let status = loop {
        match child.try_wait().map_err(|e| format!("{path}: {e}"))? {
            Some(status) => break status,
            None if deadline.is_some_and(|d| Instant::now() >= d) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "{path}: it ran longer than its timeout of {} s",
                    hook.timeout().unwrap_or(0)
                ));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let complaint = complaint.join().unwrap_or_default();
    Err(format!(
        "{path}: {status}{}{complaint}",
        if complaint.is_empty() { "" } else { ": " }
    ))
}
