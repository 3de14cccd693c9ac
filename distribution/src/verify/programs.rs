use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::lists::refused;
use crate::{Allow, ImageVerifier, Result, VerifyRequest};

/// How much of a program's answer is read.
const MAX_ANSWER: u64 = 16 << 10;
/// More programs than these are refused.
const MAX_PROGRAMS: usize = 64;

/// Asks the programs of a directory, as containerd's `bindir` image verifier does: each is run with `-name NAME -digest DIGEST -stdin-media-type
/// application/vnd.oci.descriptor.v1+json` and gets the descriptor in JSON on its standard input. Exit status 0 allows, any other refuses; what it
/// prints is the reason. All must allow.
///
/// Entries whose name begins with a dot, and directories, are passed over. That the directory is missing, that it holds no program, that one can't be run
/// or does not answer in time, is a refusal. Programs run one after the other with this process's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierPrograms {
    directory: PathBuf,
    patience: Duration,
}

impl VerifierPrograms {
    /// The programs of `directory`, each of which may take 10 s.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            patience: Duration::from_secs(10),
        }
    }

    /// How long each program may take.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn ask_all(&self, name: &str, digest: &str, descriptor: &[u8]) -> Result<String, String> {
        let programs = programs(&self.directory)?;
        let mut reasons = Vec::new();
        for program in &programs {
            let told = program.file_name().unwrap_or_default().to_string_lossy();
            let (status, said) =
                run(program, name, digest, descriptor, self.patience).map_err(|why| format!("{told} {why}"))?;
            let said = said.trim();
            if !status.success() {
                return Err(format!("{told} says: {}", if said.is_empty() { "no" } else { said }));
            }
            reasons.push(format!("{told}: {said}"));
        }
        Ok(reasons.join("; "))
    }
}

#[async_trait]
impl ImageVerifier for VerifierPrograms {
    async fn verify(&self, request: VerifyRequest<'_>) -> Result<Allow> {
        let (this, name) = (self.clone(), request.reference.whole());
        let digest = request.descriptor.digest().to_string();
        let descriptor = serde_json::to_vec(request.descriptor).expect("a descriptor is JSON");
        let asked = tokio::task::spawn_blocking(move || this.ask_all(&name, &digest, &descriptor)).await;
        match asked {
            Ok(Ok(reason)) => Ok(Allow { reason }),
            Ok(Err(reason)) => Err(refused(request, reason)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn programs(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable =
        |error: std::io::Error| format!("the verifiers in {} can't be listed ({error})", directory.display());
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && !entry.path().is_dir() {
            programs.push(entry.path());
        }
    }
    programs.sort();
    match programs.len() {
        0 => Err(format!("there is no verifier in {}", directory.display())),
        n if n > MAX_PROGRAMS => Err(format!(
            "there are {n} verifiers in {}, at most {MAX_PROGRAMS} are run",
            directory.display()
        )),
        _ => Ok(programs),
    }
}

/// Runs one; what it printed, made fit to be shown.
fn run(
    program: &Path,
    name: &str,
    digest: &str,
    descriptor: &[u8],
    patience: Duration,
) -> Result<(ExitStatus, String), String> {
    let deadline = Instant::now() + patience;
    let mut child = Command::new(program)
        .args(["-name", name, "-digest", digest])
        .args(["-stdin-media-type", "application/vnd.oci.descriptor.v1+json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("can't be run ({error})"))?;
    // Smaller than a pipe's buffer, so this does not wait for the program; one that does not read it is free not to.
    let _ = child.stdin.take().expect("it was asked for").write_all(descriptor);
    let mut stdout = child.stdout.take().expect("it was asked for");
    let (sender, receiver) = mpsc::channel();
    // A thread, because a process that the program left behind could hold the pipe open for ever.
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = (&mut stdout).take(MAX_ANSWER).read_to_end(&mut answer);
        let _ = sender.send(read.map(|_| answer));
        // What is more is thrown away, so that the program does not wait for a reader.
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            outcome => {
                // It may have ended by itself meanwhile; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(match outcome {
                    Err(error) => format!("can't be waited for ({error})"),
                    Ok(_) => format!("gave no answer within {patience:?}"),
                });
            }
        }
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = receiver
        .recv_timeout(left)
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&answer);
    let said = said
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect();
    Ok((status, said))
}
