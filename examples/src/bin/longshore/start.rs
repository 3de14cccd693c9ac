//! `start`: containers that have ended, in the background again, each after what it needs.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use longshore::{Condition, Container, Engine, Status};

use crate::arguments::Start;
use crate::background::{self, Ended};
use crate::kept::Kept;
use crate::open::Site;
use crate::output::say;

/// `NAME` or `NAME:CONDITION`: another container, and how it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) name: String,
    pub(crate) condition: Condition,
}

impl FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, condition) = match text.split_once(':') {
            None => (text, Condition::default()),
            Some((name, condition)) => (
                name,
                condition.parse().map_err(|error: longshore::Error| error.to_string())?,
            ),
        };
        if name.is_empty() {
            return Err("write NAME, NAME:healthy or NAME:completed".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            condition,
        })
    }
}

pub(crate) async fn start(site: &Site, start: Start) -> Result<u8> {
    if let Some(name) = background::watched() {
        return in_background(site, &name).await;
    }
    for name in &order(site, &start.containers).await? {
        let engine = site.engine().await?;
        let container = engine.find_container(name).await?;
        if !runs(&container).await? {
            let needs = container.dependencies().await?;
            drop((container, engine));
            met(site, name, &needs).await?;
            let code = background::hand_over(name)?;
            if code != 0 {
                return Ok(code);
            }
        }
        if start.containers.contains(name) {
            say!("{name}");
        }
    }
    Ok(0)
}

/// By name: a container holds the engine.
async fn order(site: &Site, names: &[String]) -> Result<Vec<String>> {
    let order = site.engine().await?.start_order(names).await?;
    Ok(order.iter().map(|container| container.id().to_owned()).collect())
}

async fn runs(container: &Container) -> Result<bool> {
    match container.state().await {
        Err(error) if error.kind() == longshore::ErrorKind::NotFound => Ok(false),
        state => Ok(matches!(state?.status, Status::Running | Status::Paused)),
    }
}

async fn in_background(site: &Site, name: &str) -> Result<u8> {
    rustix::process::setsid()?;
    let engine = site.engine().await?;
    let container = engine.find_container(name).await?;
    let kept = Kept::on(&container.record().await?)?;
    container.restart(kept.io(name, site.log(&name.parse()?))?).await?;
    background::watch(site, engine, container, Ended::Kept).await
}

/// Waits until others are as a container needs them. The engine is open only while they are looked at.
pub(crate) async fn met(site: &Site, of: &str, needs: &BTreeMap<String, Condition>) -> Result<()> {
    for (name, condition) in needs {
        let engine = site.engine().await?;
        let container = engine.find_container(name).await?;
        match condition {
            Condition::Completed => {
                let exit = container.exit();
                drop((container, engine));
                match exit.await?.code {
                    0 => {}
                    code => bail!("container {of} needs container {name} to end with 0, and that ended with {code}"),
                }
            }
            Condition::Healthy => healthy(site, of, engine, container).await?,
            _ if runs(&container).await? => {}
            _ => bail!("container {of} needs container {name}, which does not run; `longshore start {name}` starts it"),
        }
    }
    Ok(())
}

async fn healthy(site: &Site, of: &str, engine: Engine, container: Container) -> Result<()> {
    let name = container.id().to_owned();
    let Some(check) = container.health_check().await? else {
        bail!(
            "container {of} needs container {name} to be healthy, which has no health check; run it with --health-cmd"
        );
    };
    let (mut now, mut failures, begun) = (Some((engine, container)), 0, tokio::time::Instant::now());
    loop {
        let (engine, container) = match now.take() {
            Some(open) => open,
            None => {
                let engine = site.engine().await?;
                let container = engine.find_container(&name).await?;
                (engine, container)
            }
        };
        if !runs(&container).await? {
            bail!(
                "container {of} needs container {name} to be healthy, which does not run; `longshore start {name}` starts it"
            );
        }
        if container.is_well(&check).await? {
            return Ok(());
        }
        drop((container, engine));
        let starting = begun.elapsed() < check.start_period;
        if !starting {
            failures += 1;
        }
        if failures >= check.retries {
            bail!("container {of} needs container {name} to be healthy, and {failures} health checks in a row failed");
        }
        let wait: Duration = if starting {
            check.start_interval.min(check.interval)
        } else {
            check.interval
        };
        tokio::time::sleep(wait).await;
    }
}
