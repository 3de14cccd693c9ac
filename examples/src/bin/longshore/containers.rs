//! `ps`, `stop`, `kill`, `rm`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use longshore::bundle::signal_number;
use longshore::runtime::{ContainerId, DeleteMode, KillScope, ProcessId};
use longshore::{ErrorKind, Status};

use crate::arguments::{Kill, Ps, Rm, Stop};
use crate::open::Site;
use crate::output::say;
use crate::run::COMMAND;

const SIGKILL: i32 = 9;

pub(crate) async fn list(site: &Site, list: Ps) -> Result<u8> {
    let engine = site.engine().await?;
    if !list.quiet {
        say!(
            "{:<16} {:<40} {:<30} {:<22} STATUS",
            "NAME",
            "IMAGE",
            "COMMAND",
            "CREATED"
        );
    }
    for container in engine.containers().await? {
        let state = container.state().await;
        let running = state.as_ref().is_ok_and(|state| state.status != Status::Stopped);
        if !running && !list.all {
            continue;
        }
        if list.quiet {
            say!("{}", container.id());
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
        say!(
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
        (Status::Stopped, Some(exit)) => {
            let cause = if exit.out_of_memory { ", out of memory" } else { "" };
            format!("exited ({}{cause}) {} ago", exit.code, age(exit.at))
        }
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

/// Does the same with each name and prints it; what fails is told, and the others are done all the same.
pub(crate) async fn each(names: &[String], work: impl AsyncFn(&str) -> Result<()>) -> u8 {
    let mut code = 0;
    for name in names {
        match work(name).await {
            Ok(()) => say!("{name}"),
            Err(error) => {
                eprintln!("longshore: {error:#}");
                code = 1;
            }
        }
    }
    code
}

pub(crate) async fn stop(site: &Site, stop: Stop) -> Result<u8> {
    let grace = Duration::from_secs(stop.time);
    let stop_one = async |name: &str| {
        let outcome = stop_one(site, name, grace).await;
        site.note("stop", name, &outcome);
        outcome
    };
    let names = match stop.containers.as_slice() {
        [_] => stop.containers,
        all => site.engine().await?.stop_order(all).await?,
    };
    Ok(each(&names, stop_one).await)
}

async fn stop_one(site: &Site, name: &str, grace: Duration) -> Result<()> {
    let (executor, id) = (site.executor()?, ContainerId::new(name)?);
    if executor.state(&id).await?.status == Status::Stopped {
        return Ok(());
    }
    // It may end before the signal comes, which is what was asked for.
    let _ = executor
        .kill(&id, stop_signal(site, name).await?, KillScope::Init)
        .await;
    let ended = tokio::time::timeout(grace, executor.wait(&id, &ProcessId::Init)).await;
    if ended.is_err() {
        let _ = executor.kill(&id, SIGKILL, KillScope::All).await;
        executor.wait(&id, &ProcessId::Init).await?;
    }
    Ok(())
}

/// The signal that its image asks for. The engine is closed again before the wait, so that other commands may open it.
async fn stop_signal(site: &Site, name: &str) -> Result<i32> {
    Ok(site.engine().await?.find_container(name).await?.stop_signal().await?)
}

pub(crate) async fn kill(site: &Site, kill: Kill) -> Result<u8> {
    let (signal, executor) = (signal_number(&kill.signal)?, site.executor()?);
    let kill_one = async |name: &str| Ok(executor.kill(&ContainerId::new(name)?, signal, KillScope::Init).await?);
    let kill_one = async |name: &str| {
        let outcome = kill_one(name).await;
        site.note(&format!("signal {signal}"), name, &outcome);
        outcome
    };
    Ok(each(&kill.containers, kill_one).await)
}

pub(crate) async fn remove(site: &Site, remove: Rm) -> Result<u8> {
    let engine = site.engine().await?;
    let mode = if remove.force {
        DeleteMode::Force
    } else {
        DeleteMode::Stopped
    };
    let remove_one = async |name: &str| {
        let container = engine.find_container(name).await?;
        container.delete(mode).await.with_context(|| match remove.force {
            true => format!("removing {name}"),
            false => format!("removing {name} (it must have stopped; -f kills it first)"),
        })?;
        site.remove_log(name);
        Ok(())
    };
    Ok(each(&remove.containers, remove_one).await)
}
