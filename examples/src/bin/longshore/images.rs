//! `pull`, `images`, `rmi`.

use std::sync::Arc;

use anyhow::Result;
use longshore::distribution::parse_platform;
use longshore::{Engine, Image};
use longshore_examples::quickstart::Source;

use crate::arguments::{Images, Pull, Rmi};
use crate::containers::each;
use crate::open::Site;
use crate::output::say;
use crate::progress::Progress;
use crate::storage;

pub(crate) async fn pull(site: &Site, pull: Pull) -> Result<u8> {
    let image = fetch(site.engine().await?, &pull.image, pull.platform.as_deref()).await?;
    say!("{}@{}", image.name(), image.target().digest());
    Ok(0)
}

/// Pulls an image from a registry or a layout, drawing what happens.
pub(crate) async fn fetch(engine: Engine, name: &str, platform: Option<&str>) -> Result<Image> {
    let (engine, name) = match Source::of(name) {
        Source::Registry(name) => (engine, name),
        layout => {
            let (engine, name, _) = layout.connect(engine).await?;
            (engine, name)
        }
    };
    let progress = Arc::new(Progress::new("pulling", &name));
    let mut pull = engine.pull(&name).progress(progress.clone());
    if let Some(platform) = platform {
        pull = pull.platform(parse_platform(platform)?);
    }
    let outcome = pull.await;
    progress.finish();
    Ok(outcome?)
}

pub(crate) async fn list(site: &Site, list: Images) -> Result<u8> {
    let images = site.engine().await?.images().await?;
    if list.quiet {
        images.iter().for_each(|image| say!("{}", image.name()));
        return Ok(0);
    }
    say!("{:<55} {:<20} {:>10}", "NAME", "DIGEST", "SIZE");
    for image in images {
        let digest = image.target().digest().to_string();
        say!(
            "{:<55} {:<20} {:>10}",
            image.name(),
            &digest[..19.min(digest.len())],
            human(image.size())
        );
    }
    Ok(0)
}

pub(crate) async fn remove(site: &Site, remove: Rmi) -> Result<u8> {
    let engine = site.engine().await?;
    let code = each(&remove.images, async |image| Ok(engine.remove_image(image).await?)).await;
    storage::free(&engine).await?;
    Ok(code)
}

/// Bytes for people.
pub(crate) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}
