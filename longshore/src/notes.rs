//! Files that say what is being done with a container, from before it is begun until it is done. What a program leaves that is killed in between is found by
//! them at the next open.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use longshore_runtime::ContainerId;

use crate::create::blocking;
use crate::{Container, Engine, Error, Result};

/// The notes of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// Where they are, below the engine's root.
    pub(crate) directory: &'static str,
    /// For errors, such as `noting that a container is being made in`.
    pub(crate) noting: &'static str,
    /// For errors, such as `listing containers being made in`.
    pub(crate) listing: &'static str,
}

/// A note of one container.
#[derive(Debug)]
#[must_use = "it stays until it is removed"]
pub(crate) struct Note {
    /// `None` when another call does the same with that container at this moment, and the file is that one's.
    path: Option<PathBuf>,
}

impl Notes {
    /// Notes it of a container.
    pub(crate) async fn write(&self, engine: &Engine, id: &str) -> Result<Note> {
        let directory = engine.root.join(self.directory);
        let path = directory.join(format!("{}+{id}", engine.namespace));
        let file = path.clone();
        let written = blocking(move || {
            std::fs::create_dir_all(directory)?;
            File::create_new(file).map(drop)
        });
        match written.await {
            Ok(()) => Ok(Note { path: Some(path) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Note { path: None }),
            Err(source) => Err(Error::Io {
                doing: self.noting,
                path,
                source,
            }),
        }
    }

    /// Those that are there, each with its container, in whatever namespace; `None` for a file that no engine has written.
    pub(crate) async fn left(&self, engine: &Engine) -> Result<Vec<(Note, Option<Container>)>> {
        let directory = engine.root.join(self.directory);
        let listed = directory.clone();
        let paths = blocking(move || list(&listed)).await.map_err(|source| Error::Io {
            doing: self.listing,
            path: directory,
            source,
        })?;
        let with_container = |path: PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Neither a namespace nor an id has a `+`.
            let named = name.split_once('+');
            let named = named.and_then(|(namespace, id)| Some((namespace, ContainerId::new(id).ok()?)));
            let container = named.map(|(namespace, id)| {
                let engine = Engine {
                    namespace: namespace.to_owned(),
                    ..engine.clone()
                };
                Container::new(engine, id)
            });
            Ok((Note { path: Some(path) }, container.transpose()?))
        };
        paths.into_iter().map(with_container).collect()
    }
}

impl Note {
    /// What was noted is done.
    pub(crate) async fn remove(self) {
        if let Some(path) = self.path {
            // One that stays is found to be done at the next open.
            let _ = blocking(move || std::fs::remove_file(path)).await;
        }
    }
}

/// The files in a directory, which may be missing.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}
