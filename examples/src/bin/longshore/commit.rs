//! `commit`, `diff`.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::arguments::{Commit, Diff};
use crate::open::Site;
use crate::output::say;

/// The time that builds which can be repeated say is now.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

pub(crate) async fn commit(site: &Site, told: Commit) -> Result<u8> {
    let engine = site.engine().await?;
    let container = engine.find_container(&told.container).await?;
    let mut builder = container.commit(told.image);
    for change in &told.change {
        builder = builder.instruction(change.parse()?);
    }
    if let Some(author) = told.author {
        builder = builder.author(author);
    }
    if let Some(message) = told.message {
        builder = builder.comment(message);
    }
    if told.with_process {
        builder = builder.with_process();
    }
    if !told.pause {
        builder = builder.without_pause();
    }
    if let Ok(seconds) = std::env::var(EPOCH) {
        let seconds = seconds
            .parse()
            .with_context(|| format!("{EPOCH} is not a number of seconds"))?;
        builder = builder.created(UNIX_EPOCH + Duration::from_secs(seconds));
    }
    let image = builder.await?;
    say!("{}", image.target().digest());
    Ok(0)
}

pub(crate) async fn diff(site: &Site, told: Diff) -> Result<u8> {
    let engine = site.engine().await?;
    let container = engine.find_container(&told.container).await?;
    for change in container.changes().await? {
        say!("{change}");
    }
    Ok(0)
}
