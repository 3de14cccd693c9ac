//! What every command is told: where the state is kept, where messages go.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use longshore_runtime::cgroup::{Driver, Instance};
use longshore_runtime::{ContainerId, LinuxExecutor};

use crate::args::{Arguments, Flag, Takes, truth};
use crate::failure::{Failure, path_error};
use crate::log::{Form, Log, Verbosity};

/// The flags before the command.
pub(crate) const FLAGS: &[Flag] = &[
    Flag {
        name: "debug",
        short: ' ',
        takes: Takes::Nothing,
        help: "write messages for debugging, too",
    },
    Flag {
        name: "log",
        short: ' ',
        takes: Takes::Value,
        help: "append messages to this file instead of standard error",
    },
    Flag {
        name: "log-format",
        short: ' ',
        takes: Takes::Value,
        help: "form of the messages, 'text' or 'json' (default: \"text\")",
    },
    Flag {
        name: "root",
        short: ' ',
        takes: Takes::Value,
        help: "directory that keeps the containers' state, on a tmpfs (default: \"/run/longshore-runc\", and \"$XDG_RUNTIME_DIR/longshore-runc\" when not root)",
    },
    Flag {
        name: "systemd-cgroup",
        short: ' ',
        takes: Takes::Nothing,
        help: "let systemd make the cgroups: linux.cgroupsPath is then slice:prefix:name",
    },
    Flag {
        name: "rootless",
        short: ' ',
        takes: Takes::Value,
        help: "only 'auto': what may fail without root is found out, not told (default: \"auto\")",
    },
    Flag {
        name: "help",
        short: 'h',
        takes: Takes::Nothing,
        help: "show help",
    },
    Flag {
        name: "version",
        short: 'v',
        takes: Takes::Nothing,
        help: "print the version",
    },
];

const NAME: &str = "longshore-runc";

/// What every command is told.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) log: Log,
    root: PathBuf,
    /// Whether the root was asked for, or is the default.
    pub(crate) root_was_given: bool,
    driver: Driver,
}

impl Global {
    /// Takes the flags in.
    pub(crate) fn new(flags: &Arguments) -> Result<Self, (Log, Failure)> {
        let verbosity = if flags.is_on("debug") {
            Verbosity::Debug
        } else {
            Verbosity::Normal
        };
        let form = match flags.filled("log-format") {
            None | Some("text") => Form::Text,
            Some("json") => Form::Json,
            Some(other) => {
                let failure = Failure::new(format!("invalid log-format: {other}"));
                return Err((Log::stderr(Form::Text, verbosity), failure));
            }
        };
        let log = match flags.filled("log") {
            None => Log::stderr(form, verbosity),
            Some(path) => Log::stderr(form, verbosity)
                .with_file(Path::new(path))
                .map_err(|error| (Log::stderr(form, verbosity), error.into()))?,
        };
        match root(flags).and_then(|root| refuse_unsupported(flags).map(|()| root)) {
            Ok(root) => Ok(Self {
                log,
                root,
                root_was_given: flags.value("root").is_some(),
                driver: driver(flags),
            }),
            Err(error) => Err((log, error.into())),
        }
    }

    /// The state directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The executor, whose state directory is made if it is missing.
    pub(crate) fn executor(&self) -> anyhow::Result<LinuxExecutor> {
        Ok(LinuxExecutor::open_on_this_thread(&self.root)?.with_driver(self.driver))
    }

    /// The executor, for a command on a container that is there: nothing is made on disk for one that is not.
    pub(crate) fn executor_of(&self, id: &str) -> anyhow::Result<(LinuxExecutor, ContainerId)> {
        let id = container_id(id)?;
        if !self.root.join(id.as_str()).is_dir() {
            return Err(longshore_runtime::Error::NotFound(id.to_string()).into());
        }
        Ok((self.executor()?, id))
    }
}

/// Checks an id.
pub(crate) fn container_id(id: &str) -> anyhow::Result<ContainerId> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    Ok(ContainerId::new(id)?)
}

/// Who makes the groups of new containers. A user has a systemd of their own.
fn driver(flags: &Arguments) -> Driver {
    match flags.is_on("systemd-cgroup") {
        true if rustix::process::geteuid().is_root() => Driver::Systemd(Instance::System),
        true => Driver::Systemd(Instance::User),
        false => Driver::Cgroupfs,
    }
}

fn refuse_unsupported(flags: &Arguments) -> anyhow::Result<()> {
    let rootless = flags.filled("rootless").unwrap_or("auto");
    if rootless.eq_ignore_ascii_case("auto") {
        return Ok(());
    }
    match truth(rootless) {
        Some(_) => bail!("--rootless={rootless} is not supported yet: leave it out, or say auto"),
        None => bail!("--rootless takes auto, not {rootless}"),
    }
}

fn root(flags: &Arguments) -> anyhow::Result<PathBuf> {
    let Some(given) = flags.value("root") else {
        return default_root();
    };
    let root = if given.is_empty() {
        std::env::current_dir()?
    } else {
        std::path::absolute(given)?
    };
    let root = clean(&root);
    if root == Path::new("/") {
        bail!("Option --root argument should not be set to /");
    }
    Ok(root)
}

/// Without `.` and `..`, which are taken as text.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

fn default_root() -> anyhow::Result<PathBuf> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime_dir {
        Some(dir) if !rustix::process::geteuid().is_root() => rootless_root(Path::new(&dir)),
        _ => Ok(Path::new("/run").join(NAME)),
    }
}

/// The directory below `$XDG_RUNTIME_DIR`, which has the sticky bit, by which the XDG specification keeps it from being cleaned away.
fn rootless_root(dir: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let root = dir.join(NAME);
    let made = std::fs::create_dir_all(&root);
    made.map_err(|error| path_error("mkdir", &root, &error))
        .context("the path in $XDG_RUNTIME_DIR must be writable")?;
    let mode = std::fs::Permissions::from_mode(0o1700);
    std::fs::set_permissions(&root, mode).map_err(|error| path_error("chmod", &root, &error))?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_no_dots() {
        for (given, root) in [("/a/./b/../c/", "/a/c"), ("/../..", "/"), ("/run", "/run")] {
            assert_eq!(clean(Path::new(given)), Path::new(root));
        }
    }
}
