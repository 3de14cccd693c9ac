//! `ps`, `stop`, `kill`, `rm`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use longshore::bundle::signal_number;
use longshore::runtime::{ContainerId, DeleteMode, KillScope, ProcessId};
use longshore::{ErrorKind, Status};

use crate::arguments::{Kill, Ps, Rm, Stop};
use crate::open::Site;
use crate::run::COMMAND;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

pub(crate) async fn list(site: &Site, list: Ps) -> Result<u8> {
    let engine = site.engine().await?;
    if !list.quiet {
        println!(
            "{:<16} {:<40} {:<30} {:<22} STATUS",
            "NAME", "IMAGE", "COMMAND", "CREATED"
        );
    }
    for container in engine.containers().await? {
        let state = container.state().await;
        let running = state.as_ref().is_ok_and(|state| state.status != Status::Stopped);
        if !running && !list.all {
            continue;
        }
        if list.quiet {
            println!("{}", container.id());
            continue;
        }
        let record = container.record().await?;
        let command = record
            .extensions
            .get(COMMAND)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
            .to_owned();
        let (created, status) = match &state {
            Ok(state) => (format!("{} ago", age(state.created)), describe(state)),
            // After a restart of the machine there is a record and no state.
            Err(error) if error.kind() == ErrorKind::NotFound => (String::new(), "gone".to_owned()),
            Err(error) => (String::new(), format!("unknown: {error}")),
        };
        println!(
            "{:<16} {:<40} {:<30} {created:<22} {status}",
            container.id(),
            record.image,
            cut(&command, 30)
        );
    }
    Ok(0)
}

fn describe(state: &longshore::State) -> String {
    match (state.status, state.exit) {
        (Status::Stopped, Some(exit)) => format!("exited ({}) {} ago", exit.code, age(exit.at)),
        (Status::Stopped, None) => "exited (unknown)".to_owned(),
        (status, _) => status.to_string(),
    }
}

fn age(then: SystemTime) -> String {
    let seconds = then.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some(_) => text.chars().take(length - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

pub(crate) async fn stop(site: &Site, stop: Stop) -> Result<u8> {
    for name in &stop.containers {
        let executor = site.executor()?;
        let id = ContainerId::new(name)?;
        if executor.state(&id).await?.status != Status::Stopped {
            // It may end before the signal comes, which is what was asked for.
            let _ = executor.kill(&id, SIGTERM, KillScope::Init).await;
            let grace = Duration::from_secs(stop.time);
            if tokio::time::timeout(grace, executor.wait(&id, &ProcessId::Init))
                .await
                .is_err()
            {
                let _ = executor.kill(&id, SIGKILL, KillScope::All).await;
                executor.wait(&id, &ProcessId::Init).await?;
            }
        }
        println!("{name}");
    }
    Ok(0)
}

pub(crate) async fn kill(site: &Site, kill: Kill) -> Result<u8> {
    let signal = signal_number(&kill.signal)?;
    for name in &kill.containers {
        site.executor()?
            .kill(&ContainerId::new(name)?, signal, KillScope::Init)
            .await?;
        println!("{name}");
    }
    Ok(0)
}

pub(crate) async fn remove(site: &Site, remove: Rm) -> Result<u8> {
    let engine = site.engine().await?;
    let mode = if remove.force {
        DeleteMode::Force
    } else {
        DeleteMode::Stopped
    };
    for name in &remove.containers {
        let container = engine.find_container(name).await?;
        container.delete(mode).await.with_context(|| match remove.force {
            true => format!("removing {name}"),
            false => format!("removing {name} (it must have stopped; -f kills it first)"),
        })?;
        // A container that ran in the foreground has none.
        let _ = std::fs::remove_file(site.log(&ContainerId::new(name)?));
        println!("{name}");
    }
    Ok(0)
}
