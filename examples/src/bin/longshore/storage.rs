//! `gc`, `prune`, `system df`: what is on disk, why, and freeing it.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};

use anyhow::{Result, bail};
use longshore::metadata::{CollectOptions, Report, Resource};
use longshore::runtime::DeleteMode;
use longshore::{Container, Engine, ErrorKind, Image, Status};

use crate::arguments::{Gc, Prune};
use crate::images::human;
use crate::open::Site;
use crate::output::say;

pub(crate) async fn collect(site: &Site, collect: Gc) -> Result<u8> {
    let engine = site.engine().await?;
    if let Some(resource) = collect.explain {
        return explain(&engine, &resource).await;
    }
    let options = if collect.dry_run {
        CollectOptions::dry_run()
    } else {
        CollectOptions::default()
    };
    let report = engine.collect_with(options).await?;
    for collected in &report.removed {
        say!("{} ({})", collected.resource, human(collected.bytes));
    }
    for key in &report.records {
        say!("{key}");
    }
    told(&report);
    match collect.dry_run {
        true => say!("would free {}", human(report.freed_bytes())),
        false => say!("freed {}", human(report.freed_bytes())),
    }
    Ok(u8::from(!report.failed.is_empty()))
}

/// What did not go though nothing refers to it.
fn told(report: &Report) {
    for resource in &report.in_use {
        eprintln!("{resource} stays: it is in use at this moment");
    }
    for (resource, why) in &report.failed {
        eprintln!("{resource} could not be removed: {why}");
    }
}

/// One line for each way; exit code 1 and a word when there is none.
async fn explain(engine: &Engine, text: &str) -> Result<u8> {
    let resource = match text.contains('/') {
        true => text.parse()?,
        false => Resource::Content(text.to_owned()),
    };
    let ways = engine.explain(&resource).await?;
    for way in &ways {
        say!("{way}");
    }
    if ways.is_empty() {
        eprintln!("nothing refers to {resource}: the next collection removes it, if it is here at all");
        return Ok(1);
    }
    Ok(0)
}

pub(crate) async fn usage(site: &Site) -> Result<u8> {
    let usage = site.engine().await?.disk_usage().await?;
    say!(
        "{:<10} {:<55} {:>10} {:>10} {:>10} {:>10}",
        "TYPE",
        "NAME",
        "BLOBS",
        "UNPACKED",
        "SHARED",
        "UNIQUE"
    );
    for (kind, shares) in [("image", &usage.images), ("container", &usage.containers)] {
        for share in shares {
            say!(
                "{kind:<10} {:<55} {:>10} {:>10} {:>10} {:>10}",
                share.name,
                human(share.content),
                human(share.snapshots),
                human(share.shared()),
                human(share.unique)
            );
        }
    }
    say!(
        "\n{} of images, {} of containers; `longshore gc` would free {}",
        human(usage.image_bytes),
        human(usage.container_bytes),
        human(usage.collectible_bytes)
    );
    Ok(0)
}

pub(crate) async fn prune(site: &Site, prune: Prune) -> Result<u8> {
    let engine = site.engine().await?;
    let stopped = stopped(&engine).await?;
    let unused = if prune.all {
        unused(&engine, &stopped).await?
    } else {
        Vec::new()
    };
    if !prune.force {
        for container in &stopped {
            say!("container {}", container.id());
        }
        for image in &unused {
            say!("image {}", image.name());
        }
        if !confirmed("Remove these, and what nothing needs any more?")? {
            return Ok(1);
        }
    }
    for container in stopped {
        container.delete(DeleteMode::Stopped).await?;
        site.remove_log(container.id());
        say!("{}", container.id());
    }
    for image in unused {
        engine.remove_image(image.name()).await?;
        say!("{}", image.name());
    }
    let report = engine.collect().await?;
    told(&report);
    say!("freed {}", human(report.freed_bytes()));
    Ok(0)
}

async fn stopped(engine: &Engine) -> Result<Vec<Container>> {
    let mut stopped = Vec::new();
    for container in engine.containers().await? {
        match container.state().await {
            Ok(state) if state.status == Status::Stopped => stopped.push(container),
            // After a restart of the machine there is a record and no state.
            Err(error) if error.kind() == ErrorKind::NotFound => stopped.push(container),
            _ => {}
        }
    }
    Ok(stopped)
}

/// Images that none of the other containers is made from.
async fn unused(engine: &Engine, going: &[Container]) -> Result<Vec<Image>> {
    let going: BTreeSet<&str> = going.iter().map(Container::id).collect();
    let mut used = BTreeSet::new();
    for container in engine.containers().await? {
        if !going.contains(container.id()) {
            used.insert(container.record().await?.image);
        }
    }
    let images = engine.images().await?.into_iter();
    Ok(images.filter(|image| !used.contains(image.name())).collect())
}

fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is here to ask; -f removes without asking");
    }
    crate::output::write(format_args!("{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Collects after images were removed, and says what that freed.
pub(crate) async fn free(engine: &Engine) -> Result<()> {
    let report = engine.collect().await?;
    told(&report);
    eprintln!("freed {}", human(report.freed_bytes()));
    Ok(())
}

/// Only what is damaged is set aside: names that are lost then can't be made anew.
pub(crate) async fn recover(site: &Site) -> Result<u8> {
    let rebuilt = match Engine::open(&site.root).await {
        Ok(engine) => engine.rebuild().await?,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            eprintln!("longshore: {:#}", anyhow::Error::from(error));
            Engine::recover_root(&site.root).await?.1
        }
        Err(error) => return Err(error.into()),
    };
    for image in &rebuilt.images {
        say!("image {image}");
    }
    for container in &rebuilt.containers {
        say!("container {container}");
    }
    Ok(0)
}
