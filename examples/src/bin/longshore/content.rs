//! `content`: the blobs themselves, as `ctr content` shows them.

use std::io::Write;
use std::num::NonZeroU64;
use std::time::SystemTime;

use anyhow::Result;
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use longshore::Engine;
use longshore::content::{BlobExt, ContentStoreExt, Info, Verification};

use crate::arguments::{ContentCommand, Verify};
use crate::images::human;
use crate::open::Site;
use crate::output::say;

pub(crate) async fn content(site: &Site, command: ContentCommand) -> Result<u8> {
    let engine = site.engine().await?;
    match command {
        ContentCommand::Ls { quiet } => list(&engine, quiet).await,
        ContentCommand::Active => active(&engine).await,
        ContentCommand::Get { digest } => get(&engine, &digest).await,
        ContentCommand::Verify(options) => verify(&engine, options).await,
    }
}

async fn list(engine: &Engine, quiet: bool) -> Result<u8> {
    let mut blobs: Vec<Info> = engine.content.walk().try_collect().await?;
    blobs.sort_by(|one, other| one.digest.digest().cmp(other.digest.digest()));
    if !quiet {
        say!("{:<71} {:>10} {:>8}", "DIGEST", "SIZE", "AGE");
    }
    for blob in blobs {
        match quiet {
            true => say!("{}", blob.digest),
            false => say!("{:<71} {:>10} {:>8}", blob.digest, human(blob.size), age(blob.created)),
        }
    }
    Ok(0)
}

async fn active(engine: &Engine) -> Result<u8> {
    say!("{:<80} {:>10} {:>10} {:>8}", "REF", "SIZE", "OF", "AGE");
    for ingest in engine.content.ingests_where(|_| true).await? {
        let total = ingest.expected.size.map_or_else(|| "?".to_owned(), human);
        say!(
            "{:<80} {:>10} {total:>10} {:>8}",
            ingest.reference,
            human(ingest.offset),
            age(ingest.updated)
        );
    }
    Ok(0)
}

async fn get(engine: &Engine, digest: &str) -> Result<u8> {
    let mut pieces = engine.content.open(&digest.parse()?).await?.stream();
    let mut stdout = std::io::stdout().lock();
    while let Some(piece) = pieces.try_next().await? {
        match stdout.write_all(&piece) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(0),
            written => written?,
        }
    }
    stdout.flush()?;
    Ok(0)
}

async fn verify(engine: &Engine, options: Verify) -> Result<u8> {
    let found = look(engine, &options).await?;
    for problem in &found.problems {
        say!("{problem}");
    }
    eprintln!(
        "{} blobs verified, {}; {} problems",
        found.blobs,
        human(found.bytes),
        found.problems.len()
    );
    if !options.repair || found.problems.is_empty() {
        return Ok(u8::from(!found.problems.is_empty()));
    }
    let repair = engine.repair_content(found.problems).await?;
    for blob in &repair.repaired {
        say!("{} repaired", blob.digest);
    }
    let failed = !repair.failed.is_empty();
    for (problem, error) in repair.failed {
        eprintln!(
            "{} not repaired: {:#}",
            problem.subject.digest,
            anyhow::Error::from(error)
        );
    }
    Ok(u8::from(failed))
}

async fn look(engine: &Engine, options: &Verify) -> Result<Verification> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let told = bar.clone();
    let speed = options.speed.and_then(|size| NonZeroU64::new(size.0));
    let found = engine
        .verify_content(|verifier| {
            let verifier = verifier.progress(move |at| {
                told.set_message(format!("{} blobs, {}", at.blobs, human(at.bytes)));
                told.tick();
            });
            match speed {
                Some(speed) => verifier.bytes_per_second(speed),
                None => verifier,
            }
        })
        .await;
    bar.finish_and_clear();
    Ok(found?)
}

/// How long ago, for people.
fn age(then: SystemTime) -> String {
    let seconds = then.elapsed().map_or(0, |age| age.as_secs());
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}
