//! `push`, `tag`, `load`, `save`, `convert`, `referrers`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use longshore::distribution::parse_platform;
use longshore::snapshot::Compression;
use longshore::{Engine, Extent};

use crate::images::human;
use crate::open::Site;
use crate::output::say;
use crate::progress::Progress;

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The image
    image: String,
    /// Where to, e.g. `registry.example/team/app:1.0` [default: where its name says]
    destination: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// The image
    image: String,
    /// Its further name
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The archive, or the directory of an OCI layout [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// The repository of images that come with a tag alone or without a name [default: loaded.localhost/image]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The platform to choose [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Print the names alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// The archive, which is replaced when all is in it; a directory with --format layout [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// A tar archive that Docker, podman and skopeo load, or a directory with an OCI layout, to which images are added
    #[arg(long, value_enum, default_value_t = Format::Archive)]
    format: Format,
    /// The images
    #[arg(required = true)]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Archive,
    Layout,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// How its layers are to be compressed
    #[arg(long, value_enum, required_unless_present = "oci")]
    compression: Option<Packing>,
    /// Make an image of Docker's format one of OCI's; zstd does so, too
    #[arg(long)]
    oci: bool,
    /// The image
    image: String,
    /// The name of the new one, which may be the same
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Args)]
pub(crate) struct Referrers {
    /// Only those of this type, e.g. application/spdx+json
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// The image, at its registry
    image: String,
}

pub(crate) async fn push(site: &Site, told: Push) -> Result<u8> {
    let engine = site.engine().await?;
    let name = told.destination.unwrap_or_else(|| told.image.clone());
    let progress = Arc::new(Progress::new("pushing", &name));
    let outcome = engine.push(&told.image, &name).progress(progress.clone()).await;
    progress.finish();
    let pushed = outcome?;
    if pushed.extent == Extent::OnePlatform {
        eprintln!("only the image of one platform was pushed: not all of the others are here");
    }
    eprintln!(
        "{} sent, {} there already, {} taken over from another repository",
        human(pushed.sent),
        human(pushed.present),
        human(pushed.mounted)
    );
    say!("{}@{}", pushed.name, pushed.target.digest());
    Ok(0)
}

pub(crate) async fn tag(site: &Site, told: Tag) -> Result<u8> {
    site.engine().await?.tag(&told.image, &told.name).await?;
    Ok(0)
}

pub(crate) async fn load(site: &Site, told: Load) -> Result<u8> {
    let engine = site.engine().await?;
    let (mut loading, what) = match &told.input {
        Some(path) if path.is_dir() => (engine.load_layout(path), path.display().to_string()),
        Some(path) => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            (engine.load(file), path.display().to_string())
        }
        None if std::io::stdin().is_terminal() => {
            bail!("standard input is a terminal: give an archive by -i or < FILE")
        }
        None => (engine.load(std::io::stdin()), "standard input".to_owned()),
    };
    if let Some(name) = told.name {
        loading = loading.repository(name);
    }
    if let Some(platform) = told.platform {
        loading = loading.platform(parse_platform(&platform)?);
    }
    let loaded = match told.quiet {
        true => loading.await,
        false => {
            let progress = Arc::new(Progress::new("loading", &what));
            let outcome = loading.progress(progress.clone()).await;
            progress.finish();
            outcome
        }
    };
    for image in loaded? {
        say!("{}@{}", image.name(), image.target().digest());
    }
    Ok(0)
}

pub(crate) async fn save(site: &Site, told: Save) -> Result<u8> {
    let engine = site.engine().await?;
    match (told.format, &told.output) {
        (Format::Layout, None) => bail!("a layout is a directory: name it by -o"),
        (Format::Layout, Some(directory)) => {
            for image in &told.images {
                engine.save_layout(image, directory).await?;
            }
        }
        (Format::Archive, None) if std::io::stdout().is_terminal() => {
            bail!("standard output is a terminal: name a file by -o or > FILE")
        }
        (Format::Archive, None) => archive(&engine, &told.images, std::io::stdout()).await?,
        (Format::Archive, Some(path)) => {
            let is_special = std::fs::metadata(path).is_ok_and(|there| !there.is_file());
            // A pipe or a device is written to; a file is replaced when all is there.
            let next = if is_special { path.clone() } else { beside(path)? };
            let file = match is_special {
                true => File::options().write(true).open(&next),
                false => File::create(&next),
            };
            let file = file.with_context(|| format!("opening {}", next.display()))?;
            let mut saved = archive(&engine, &told.images, file).await;
            if !is_special {
                saved = saved.and_then(|()| std::fs::rename(&next, path).context("putting the archive in its place"));
                if saved.is_err() {
                    let _ = std::fs::remove_file(&next);
                }
            }
            saved?;
        }
    }
    Ok(0)
}

/// Where an archive is written that is not whole yet.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .with_context(|| format!("{} names no file", path.display()))?;
    let mut name = std::ffi::OsString::from(name);
    name.push(".part");
    Ok(path.with_file_name(name))
}

async fn archive(engine: &Engine, images: &[String], sink: impl Write + Send + 'static) -> Result<()> {
    Ok(engine.save(images, sink).await?)
}

pub(crate) async fn convert(site: &Site, told: Convert) -> Result<u8> {
    let engine = site.engine().await?;
    let mut conversion = engine.convert(told.image, told.name);
    if told.oci {
        conversion = conversion.oci();
    }
    if let Some(packing) = told.compression {
        conversion = conversion.compression(match packing {
            Packing::None => Compression::None,
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
        });
    }
    let image = conversion.await?;
    say!("{}@{}", image.name(), image.target().digest());
    Ok(0)
}

pub(crate) async fn referrers(site: &Site, told: Referrers) -> Result<u8> {
    let engine = site.engine().await?;
    let found = engine.referrers(&told.image, told.artifact_type.as_deref()).await?;
    say!("{:<71} {:>10}  {}", "DIGEST", "SIZE", "TYPE");
    for one in found {
        let kind = one.artifact_type().as_ref().unwrap_or(one.media_type());
        say!("{:<71} {:>10}  {kind}", one.digest(), human(one.size()));
    }
    Ok(0)
}
