//! Lists the blobs, some at a time, so that neither a thread is kept nor the whole list.

use std::collections::VecDeque;
use std::fs::{self, Metadata, ReadDir};
use std::io;
use std::path::PathBuf;

use futures::stream::{self, BoxStream, StreamExt};
use oci_spec::image::Digest;

use crate::blocking::blocking;
use crate::error::IoContext;
use crate::hash::Hasher;
use crate::{Info, Result};

/// Entries that are looked at by one trip to a blocking thread.
const SOME: usize = 256;

pub(crate) fn info(digest: Digest, metadata: &Metadata) -> io::Result<Info> {
    Ok(Info {
        digest,
        size: metadata.len(),
        created: metadata.modified()?,
    })
}

pub(crate) fn walk(blobs: PathBuf) -> BoxStream<'static, Result<Info>> {
    stream::unfold(
        Some(Walk {
            directories: VecDeque::from([blobs.clone()]),
            blobs,
            open: None,
        }),
        |walk| async {
            let mut walk = walk?;
            let (some, rest) = blocking(move || match walk.some() {
                Ok(some) if some.is_empty() => (vec![], None),
                Ok(some) => (some.into_iter().map(Ok).collect(), Some(walk)),
                Err(error) => (vec![Err(error)], None),
            })
            .await;
            (!some.is_empty()).then(|| (stream::iter(some), rest))
        },
    )
    .flatten()
    .boxed()
}

struct Walk {
    blobs: PathBuf,
    /// Directories to come; the first one is `blobs` itself, whose children are the algorithms.
    directories: VecDeque<PathBuf>,
    open: Option<(String, ReadDir)>,
}

impl Walk {
    /// The next blobs; none at the end.
    fn some(&mut self) -> Result<Vec<Info>> {
        let mut found = Vec::new();
        while found.len() < SOME {
            let Some((algorithm, entries)) = &mut self.open else {
                match self.directories.pop_front() {
                    None => break,
                    Some(directory) if directory == self.blobs => self.find_algorithms()?,
                    Some(directory) => self.enter(directory)?,
                }
                continue;
            };
            match entries.next() {
                None => self.open = None,
                Some(entry) => {
                    let entry = entry.during("listing", &self.blobs)?;
                    let name = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                    // Names that are not digests are not ours; a blob may be removed while we look.
                    if let Ok(digest) = Digest::try_from(name)
                        && let Ok(metadata) = entry.metadata()
                        && metadata.is_file()
                    {
                        found.push(info(digest, &metadata).during("reading", entry.path())?);
                    }
                }
            }
        }
        Ok(found)
    }

    fn find_algorithms(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.blobs).during("listing", &self.blobs)? {
            let entry = entry.during("listing", &self.blobs)?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| Hasher::new(&name.into()).is_ok());
            if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.directories.push_back(entry.path());
            }
        }
        Ok(())
    }

    fn enter(&mut self, directory: PathBuf) -> Result<()> {
        let algorithm = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let entries = fs::read_dir(&directory).during("listing", directory)?;
        self.open = Some((algorithm, entries));
        Ok(())
    }
}
