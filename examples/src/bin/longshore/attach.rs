//! `attach`: this program's streams and a container that runs in the background.

use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use longshore::OutputStream;
use longshore::runtime::{Attachment, ContainerId, Executor, ProcessId, Shown};

use crate::arguments::Attach;
use crate::open::Site;
use crate::terminal::{self, RawMode};

pub(crate) async fn attach(site: &Site, attach: Attach) -> Result<u8> {
    let id = ContainerId::new(&attach.container)?;
    let executor = site.linux_executor()?;
    let attachment = Arc::new(executor.attach(&id).await?);
    let spec = executor.spec(&id)?;
    let has_terminal = spec.process().as_ref().and_then(|process| process.terminal()) == Some(true);
    // The terminal is given back whatever ends this program, but for SIGKILL.
    let signals = terminal::Signals::listen()?;
    let raw = match has_terminal && !attach.no_stdin && terminal::is_terminal() {
        true => Some(RawMode::enter()?),
        false => None,
    };
    if raw.is_some() {
        follow_size(&attachment)?;
    }
    let (tell, mut told) = tokio::sync::oneshot::channel();
    if !attach.no_stdin {
        let (attachment, keys) = (attachment.clone(), attach.detach_keys);
        std::thread::Builder::new().name("keyboard".into()).spawn(move || {
            if let Pressed::Detach = type_all(&attachment, keys) {
                // Nobody may be waiting any more.
                let _ = tell.send(());
                attachment.detach();
            }
        })?;
    }
    let shown = tokio::task::spawn_blocking(move || show(&attachment));
    tokio::select! {
        shown = shown => shown.context("showing what the container says")??,
        signal = signals.next() => return Ok(terminal::ended_by(signal)),
    }
    drop(raw);
    if told.try_recv().is_ok() {
        eprintln!("detached from {id}");
        return Ok(0);
    }
    let exit = executor.wait(&id, &ProcessId::Init).await?;
    Ok(u8::try_from(exit.code).unwrap_or(255))
}

/// Tells the container's terminal the size of this one, now and whenever it changes.
fn follow_size(attachment: &Arc<Attachment>) -> Result<()> {
    let mut changes = terminal::size_changes()?;
    let attachment = attachment.clone();
    tokio::spawn(async move {
        loop {
            // A size that can't be told leaves the old one.
            if let Ok((rows, columns)) = terminal::size() {
                let _ = attachment.resize(rows, columns);
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// Shows what comes, until the container ends or nobody is attached any more.
fn show(attachment: &Attachment) -> Result<()> {
    while let Some(shown) = attachment.next()? {
        let written = match shown {
            Shown::Output(OutputStream::Stdout, bytes) => write(std::io::stdout(), &bytes),
            Shown::Output(OutputStream::Stderr, bytes) => write(std::io::stderr(), &bytes),
            Shown::Missed(bytes) => {
                let notice = format!("\r\nlongshore: {bytes} bytes are left out here; `longshore logs` has them\r\n");
                write(std::io::stderr(), notice.as_bytes())
            }
            _ => Ok(()),
        };
        // Nobody looks any more.
        if written.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn write(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// How typing ended.
enum Pressed {
    Detach,
    /// The input is at its end, or the container is.
    Nothing,
}

fn type_all(attachment: &Attachment, mut keys: DetachKeys) -> Pressed {
    let mut buffer = [0u8; 4096];
    loop {
        match std::io::stdin().read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(count @ 1..) => {
                let (typed, pressed) = keys.take(&buffer[..count]);
                if attachment.input(&typed).is_err() {
                    return Pressed::Nothing;
                }
                if let Pressed::Detach = pressed {
                    return Pressed::Detach;
                }
            }
            _ => {
                let _ = attachment.close_input();
                return Pressed::Nothing;
            }
        }
    }
}

/// The keys that detach, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were the last that were pressed.
    pressed: usize,
}

impl DetachKeys {
    /// What of the input goes to the container. Keys that may be the first of those that detach wait for the next.
    fn take(&mut self, input: &[u8]) -> (Vec<u8>, Pressed) {
        let mut typed = Vec::new();
        for byte in input {
            while self.keys.get(self.pressed) != Some(byte) && self.pressed > 0 {
                // They were not what they looked like; but a part of them and this key may be.
                let so_far = &self.keys[..self.pressed];
                let is_kept = |kept: &usize| so_far.ends_with(&self.keys[..*kept]);
                let kept = (0..self.pressed).rev().find(is_kept).unwrap_or(0);
                typed.extend_from_slice(&so_far[..self.pressed - kept]);
                self.pressed = kept;
            }
            if self.keys.get(self.pressed) == Some(byte) {
                self.pressed += 1;
                if self.pressed == self.keys.len() {
                    return (typed, Pressed::Detach);
                }
            } else {
                typed.push(*byte);
            }
        }
        (typed, Pressed::Nothing)
    }
}

impl FromStr for DetachKeys {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let key = |key: &str| match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([byte], _) => Ok(*byte),
            (_, Some([byte @ (b'@'..=b'_' | b'a'..=b'z')])) => Ok(byte.to_ascii_uppercase() - b'@'),
            _ => bail!("'{key}' is no key; write a character, or ctrl- and a letter or one of @ [ \\ ] ^ _"),
        };
        let keys = text.split(',').map(key).collect::<Result<_>>()?;
        Ok(Self { keys, pressed: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&str]) -> (String, bool) {
        let mut keys: DetachKeys = keys.parse().expect("keys");
        let mut all = Vec::new();
        for piece in pieces {
            let (typed, pressed) = keys.take(piece.as_bytes());
            all.extend(typed);
            if let Pressed::Detach = pressed {
                return (String::from_utf8(all).expect("text"), true);
            }
        }
        (String::from_utf8(all).expect("text"), false)
    }

    #[test]
    fn the_keys_detach_and_all_others_are_typed() {
        for (keys, pieces, expected) in [
            ("ctrl-p,ctrl-q", &["ab\x10", "\x11c"][..], ("ab", true)),
            ("ctrl-p,ctrl-q", &["a\x10b\x10\x10\x11"], ("a\x10b\x10", true)),
            ("ctrl-p,ctrl-q", &["a\x11\x10x"], ("a\x11\x10x", false)),
            ("a,a,b", &["aaab"], ("a", true)),
            ("x", &["abx"], ("ab", true)),
        ] {
            assert_eq!(
                typed(keys, pieces),
                (expected.0.to_owned(), expected.1),
                "{keys} {pieces:?}"
            );
        }
        for wrong in ["", "ctrl-", "ctrl-ab", "ctrl-p,", "ab"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }
}
