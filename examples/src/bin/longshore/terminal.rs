//! This program's own terminal, connected to a container's.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use longshore::runtime::{ContainerId, Executor, KillScope, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// The screen and keyboard of this program while they are a container's. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Screen {
    before: Termios,
    shown: Option<JoinHandle<()>>,
    resizing: tokio::task::JoinHandle<()>,
}

impl Screen {
    pub(crate) fn connect(master: File) -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("looking at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        resize(&master)?;
        let (typed, resized) = (master.try_clone()?, master.try_clone()?);
        let mut changes = signal(SignalKind::window_change())?;
        let resizing = tokio::spawn(async move {
            while changes.recv().await.is_some() {
                // A size that can't be told leaves the old one.
                let _ = resize(&resized);
            }
        });
        std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || copy(std::io::stdin(), typed))?;
        let shown = std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || copy(master, std::io::stdout()))?;
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("setting the terminal to raw mode")?;
        Ok(Self {
            before,
            shown: Some(shown),
            resizing,
        })
    }

    /// Shows what is left and gives the terminal back.
    pub(crate) fn finish(mut self) {
        if let Some(shown) = self.shown.take() {
            // A thread that panicked has said so.
            let _ = shown.join();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.resizing.abort();
        // There is nobody to tell when even this fails.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn resize(master: &File) -> Result<()> {
    let (rows, columns) = size()?;
    Ok(Terminal::resize(master, rows, columns)?)
}

/// Copies each piece as it comes, until one side ends.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0u8; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// This program's terminal while every key goes to a container as it is. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("looking at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("setting the terminal to raw mode")?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody to tell when even this fails.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The rows and columns of this program's terminal.
pub(crate) fn size() -> Result<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdin()).context("asking for the terminal's size")?;
    Ok((size.ws_row, size.ws_col))
}

/// Tells when they change.
pub(crate) fn size_changes() -> Result<Signal> {
    signal(SignalKind::window_change()).context("listening for changes of the terminal's size")
}

/// The exit code of a program that a signal ends.
pub(crate) fn ended_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// The signals that ask this program to end.
pub(crate) struct Signals(tokio::sync::Mutex<Vec<(SignalKind, Signal)>>);

impl Signals {
    /// From now on they do not end it.
    pub(crate) fn listen() -> Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let signals = kinds.iter().map(|kind| Ok((*kind, signal(*kind)?)));
        let signals = signals
            .collect::<std::io::Result<Vec<_>>>()
            .context("listening for signals")?;
        Ok(Self(tokio::sync::Mutex::new(signals)))
    }

    /// The number of the next one.
    pub(crate) async fn next(&self) -> i32 {
        let mut signals = self.0.lock().await;
        let waiting = signals.iter_mut().map(|(_, signal)| Box::pin(signal.recv()));
        let (_, index, _) = futures::future::select_all(waiting).await;
        signals[index].0.as_raw_value()
    }

    /// Hands them on to the container.
    pub(crate) fn forward(self, executor: Arc<dyn Executor>, id: ContainerId) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                let signal = self.next().await;
                // A container that has just ended needs no signal.
                let _ = executor.kill(&id, signal, KillScope::Init).await;
            }
        })
    }
}
