//! The environment of a container's process, merged as Docker merges it.

use crate::{Error, Result};

/// Where programs are looked for when neither image nor caller says so.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An ordered environment without duplicates; a name that is set again keeps its place and takes the new value.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// An image's `NAME=value`; a bare `NAME` takes the variable away, as in Docker.
    pub(super) fn set_entry(&mut self, entry: &str) {
        match entry.split_once('=') {
            Some((name, value)) => self.set(name, value),
            None => self.remove(entry),
        }
    }

    /// The environment that a spec has.
    pub(super) fn of(entries: &[String]) -> Self {
        let mut env = Self::default();
        entries
            .iter()
            .filter(|entry| entry.contains('='))
            .for_each(|entry| env.set_entry(entry));
        env
    }

    pub(super) fn into_entries(self) -> Result<Vec<String>> {
        self.0.into_iter().map(|(name, value)| entry(&name, &value)).collect()
    }
}

fn entry(name: &str, value: &str) -> Result<String> {
    let entry = format!("{name}={value}");
    if name.is_empty() || name.contains('=') {
        return Err(Error::option(
            "environment variable",
            entry,
            "its name is empty or has '='",
        ));
    }
    if entry.contains('\0') {
        return Err(Error::option("environment variable", entry, "it has a NUL byte"));
    }
    Ok(entry)
}
