//! `process`: what runs, as whom, where and with which environment.

use std::path::{Path, PathBuf};

use oci_spec::image::Config;
use oci_spec::runtime::{BoxBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User};

use super::SpecBuilder;
use super::environment::{DEFAULT_PATH, Environment};
use crate::path::clean;
use crate::{Error, ResolvedUser, Result, RootFiles, UserSpec, resolve_group};

/// The most that a process may ask to be spared, and to be picked, when memory runs out (proc(5), `oom_score_adj`).
const OOM_SCORE: std::ops::RangeInclusive<i32> = -1000..=1000;

/// A terminal for the container's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terminal {
    /// Columns and rows, if they are known from the start.
    pub size: Option<(u16, u16)>,
}

impl Terminal {
    /// A terminal of so many columns and rows.
    pub fn sized(columns: u16, rows: u16) -> Self {
        Self {
            size: Some((columns, rows)),
        }
    }

    pub(super) fn console_size(self) -> Option<oci_spec::runtime::Box> {
        let (columns, rows) = self.size?;
        let size = BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows));
        Some(size.build().expect("every field has a default"))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    args: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    env: Vec<String>,
    cwd: Option<PathBuf>,
    user: Option<String>,
    groups: Vec<String>,
    terminal: Option<Terminal>,
    rlimits: Vec<PosixRlimit>,
    oom_score_adj: Option<i32>,
    umask: Option<u32>,
}

impl SpecBuilder {
    /// What follows the entrypoint, in place of the image's `Cmd`. Without an entrypoint it is the whole command.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.process.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// In place of the image's `Entrypoint`, and of its `Cmd` too: that belonged to the other entrypoint. An empty
    /// one clears both.
    pub fn entrypoint<S: Into<String>>(mut self, entrypoint: impl IntoIterator<Item = S>) -> Self {
        self.process.entrypoint = Some(entrypoint.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable, as `NAME=value`, over what the image says. A bare `NAME` takes it away.
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.process.env.push(variable.into());
        self
    }

    /// The working directory, absolute. Default: the image's, else `/`.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.process.cwd = Some(cwd.into());
        self
    }

    /// Who runs, as [`UserSpec`] reads it. Default: the image's user, else root.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.process.user = Some(user.into());
        self
    }

    /// One more supplementary group, by name or number.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.process.groups.push(group.into());
        self
    }

    /// Gives the process a terminal, and sets `TERM`.
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.process.terminal = Some(terminal);
        self
    }

    /// A resource limit (getrlimit(2)). None is set by default: the process inherits those of the engine.
    pub fn rlimit(mut self, resource: PosixRlimitType, soft: u64, hard: u64) -> Self {
        let limit = PosixRlimitBuilder::default()
            .typ(resource)
            .soft(soft)
            .hard(hard)
            .build();
        self.process.rlimits.retain(|known| known.typ() != resource);
        self.process.rlimits.push(limit.expect("every field has a default"));
        self
    }

    /// How ready the kernel is to kill the process when memory runs out, from -1000 (never) to 1000.
    pub fn oom_score_adj(mut self, adjustment: i32) -> Self {
        self.process.oom_score_adj = Some(adjustment);
        self
    }

    /// The file mode creation mask (umask(2)).
    pub fn umask(mut self, umask: u32) -> Self {
        self.process.umask = Some(umask);
        self
    }

    pub(super) fn process(&self, files: &dyn RootFiles) -> Result<Process> {
        let options = &self.process;
        let user = options.resolve_user(self.config(), files)?;
        let mut process = Process::default();
        process.set_terminal(options.terminal.map(|_| true));
        process.set_console_size(options.terminal.and_then(Terminal::console_size));
        process.set_args(Some(options.command(self.config())?));
        process.set_env(Some(self.environment(&user)?));
        process.set_cwd(options.working_directory(self.config())?);
        process.set_rlimits(options.checked_rlimits()?);
        process.set_oom_score_adj(options.checked_oom_score()?);
        process.set_capabilities(Some(self.confinement.capabilities(user.uid)));
        process.set_no_new_privileges(Some(self.confinement.no_new_privileges()));
        process.set_apparmor_profile(self.confinement.apparmor_profile());
        process.set_selinux_label(self.confinement.selinux_label());
        process.set_user(spec_user(&user, options.checked_umask()?));
        Ok(process)
    }

    fn environment(&self, user: &ResolvedUser) -> Result<Vec<String>> {
        let mut env = Environment::default();
        env.set("PATH", DEFAULT_PATH);
        if let Some(hostname) = self.isolation.hostname()? {
            env.set("HOSTNAME", &hostname);
        }
        if self.process.terminal.is_some() {
            env.set("TERM", "xterm");
        }
        for entry in self
            .config()
            .and_then(|config| config.env().as_ref())
            .into_iter()
            .flatten()
        {
            env.set_entry(entry);
        }
        for entry in &self.process.env {
            env.set_entry(entry);
        }
        let home_unwanted = self.process.env.iter().any(|entry| entry == "HOME");
        if !env.has("HOME") && !home_unwanted {
            env.set("HOME", &user.home);
        }
        env.into_entries()
    }
}

impl Options {
    /// Docker's rules: an entrypoint of the caller drops the image's `Cmd`; args of the caller replace it.
    fn command(&self, config: Option<&Config>) -> Result<Vec<String>> {
        let of_image =
            |field: fn(&Config) -> &Option<Vec<String>>| config.and_then(|c| field(c).clone()).unwrap_or_default();
        let entrypoint = match &self.entrypoint {
            Some(entrypoint) => entrypoint.iter().filter(|part| !part.is_empty()).cloned().collect(),
            None => of_image(Config::entrypoint),
        };
        let args = match (&self.args, &self.entrypoint) {
            (Some(args), _) => args.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => of_image(Config::cmd),
        };
        checked_command(entrypoint.into_iter().chain(args).collect())
    }

    fn working_directory(&self, config: Option<&Config>) -> Result<PathBuf> {
        let of_image = config
            .and_then(|c| c.working_dir().as_deref())
            .filter(|dir| !dir.is_empty());
        match (&self.cwd, of_image) {
            (Some(cwd), _) => clean("working directory", cwd),
            // Builders before WORKDIR was made absolute left relative ones.
            (None, Some(dir)) => clean("WorkingDir of the image", &Path::new("/").join(dir)),
            (None, None) => Ok("/".into()),
        }
    }

    fn resolve_user(&self, config: Option<&Config>, files: &dyn RootFiles) -> Result<ResolvedUser> {
        let of_image = config.and_then(|c| c.user().as_deref());
        let spec: UserSpec = self.user.as_deref().or(of_image).unwrap_or_default().parse()?;
        let mut user = spec.resolve(files)?;
        for group in &self.groups {
            let gid = resolve_group(group, files)?;
            if !user.additional_gids.contains(&gid) {
                user.additional_gids.push(gid);
            }
        }
        Ok(user)
    }

    fn checked_umask(&self) -> Result<Option<u32>> {
        match self.umask {
            Some(umask) if umask > 0o777 => Err(Error::option("umask", format!("{umask:o}"), "it goes from 0 to 777")),
            umask => Ok(umask),
        }
    }

    fn checked_rlimits(&self) -> Result<Option<Vec<PosixRlimit>>> {
        match self.rlimits.iter().find(|limit| limit.soft() > limit.hard()) {
            Some(limit) => {
                let value = format!("{} soft {} hard {}", limit.typ(), limit.soft(), limit.hard());
                Err(Error::option("rlimit", value, "the soft limit is above the hard one"))
            }
            None => Ok((!self.rlimits.is_empty()).then(|| self.rlimits.clone())),
        }
    }

    fn checked_oom_score(&self) -> Result<Option<i32>> {
        match self.oom_score_adj {
            Some(score) if !OOM_SCORE.contains(&score) => Err(Error::option(
                "oom_score_adj",
                score.to_string(),
                "it goes from -1000 to 1000",
            )),
            score => Ok(score),
        }
    }
}

pub(super) fn checked_command(command: Vec<String>) -> Result<Vec<String>> {
    match command.first().map(String::as_str) {
        None => Err(Error::NoCommand),
        Some("") => Err(Error::option("command", "", "the program's name is empty")),
        Some(_) => match command.iter().find(|part| part.contains('\0')) {
            Some(part) => Err(Error::option("command", part, "it has a NUL byte")),
            None => Ok(command),
        },
    }
}

/// The user as the spec has it.
pub(super) fn spec_user(resolved: &ResolvedUser, umask: Option<u32>) -> User {
    let mut user = User::default();
    user.set_uid(resolved.uid);
    user.set_gid(resolved.gid);
    user.set_additional_gids(Some(resolved.additional_gids.clone()));
    user.set_umask(umask);
    user
}
