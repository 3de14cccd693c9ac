use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Credential;

/// How long a helper may take; it may be asking a person.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-<name> get` for a server. `None` when it knows nothing of it. Blocks.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credential>, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(format!("'{name}' is not the name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("can't run {program} ({error}); is it installed and in PATH?"))?;
    let answer = converse(&mut child, server);
    if answer.is_none() {
        // It may have ended by itself meanwhile; then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|error| format!("waiting for {program}: {error}"))?;
    let answer = answer.ok_or_else(|| format!("{program} gave no answer within {} s", PATIENCE.as_secs()))?;
    if !status.success() {
        // All helpers report failures on their output, and share this sentence.
        let said = String::from_utf8_lossy(&answer);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{program} failed ({status})"));
    }
    // Neither the answer nor the parser's words about it may be shown: both could hold the secret.
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| format!("{program} answered something that is not JSON"))?;
    Ok(match answer.username.as_str() {
        _ if answer.secret.is_empty() => None,
        "<token>" => Some(Credential::IdentityToken(answer.secret)),
        _ => Some(Credential::basic(answer.username, answer.secret)),
    })
}

/// Writes the question, reads the answer to its end and sees the helper out; `None` when it takes too long.
fn converse(child: &mut Child, server: &str) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = child.stdout.take().expect("it was asked for");
    // A helper that does not read its question shows it by its answer.
    let _ = writeln!(stdin, "{server}");
    drop(stdin);
    let (sender, receiver) = mpsc::channel();
    // A thread, because a process that the helper left behind could hold the pipe open for ever.
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(MAX_ANSWER).read_to_end(&mut answer);
        let _ = sender.send(read.map(|_| answer));
    });
    let answer = receiver.recv_timeout(PATIENCE).ok()?.ok()?;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Ok(Some(_)) => return Some(answer),
            Err(_) => return None,
        }
    }
    None
}
