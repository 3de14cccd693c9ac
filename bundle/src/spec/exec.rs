//! Another process in a container that runs.

use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use super::confinement::capabilities_of;
use super::environment::Environment;
use super::mapping::IdMappings;
use super::process::{Terminal, checked_command, spec_user};
use crate::path::clean;
use crate::{Error, Result, RootFiles, UserSpec};

/// Makes the `process` of an exec from the container's spec, as `docker exec` does: the container's environment,
/// directory, user, limits and labels unless told otherwise, and no capability that the container has not.
///
/// ```
/// use longshore_bundle::{ExecSpec, NoFiles, SpecBuilder};
///
/// let spec = SpecBuilder::without_image().args(["sleep", "60"]).env("A=1").build(&NoFiles)?;
/// let process = ExecSpec::new(&spec, ["id"]).user("1000").env("B=2").build(&NoFiles)?;
/// assert_eq!(process.user().uid(), 1000);
/// # Ok::<(), longshore_bundle::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `build`"]
pub struct ExecSpec<'a> {
    spec: &'a Spec,
    args: Vec<String>,
    env: Vec<String>,
    cwd: Option<PathBuf>,
    user: Option<String>,
    terminal: Option<Terminal>,
}

impl<'a> ExecSpec<'a> {
    /// A command in the container of this spec.
    pub fn new<S: Into<String>>(spec: &'a Spec, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            spec,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            terminal: None,
        }
    }

    /// Sets a variable, as `NAME=value`, over what the container has. A bare `NAME` takes it away.
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.env.push(variable.into());
        self
    }

    /// The working directory, absolute.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Who runs, as [`UserSpec`] reads it. `HOME` follows, unless it is set too.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Gives the process a terminal, and sets `TERM` if the container has none.
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// Checks all options and builds the process. Reading `files` may block.
    ///
    /// # Errors
    /// As [`SpecBuilder::build`](crate::SpecBuilder::build); [`Invalid`](crate::ErrorKind::Invalid) for a spec
    /// without a process.
    pub fn build(&self, files: &dyn RootFiles) -> Result<Process> {
        let Some(container) = self.spec.process() else {
            return Err(Error::option(
                "spec",
                "",
                "it has no process that the new one could be like",
            ));
        };
        let mut process = container.clone();
        let mut env = Environment::of(process.env().as_deref().unwrap_or_default());
        process.set_args(Some(checked_command(self.args.clone())?));
        process.set_terminal(self.terminal.map(|_| true));
        process.set_console_size(self.terminal.and_then(Terminal::console_size));
        if self.terminal.is_some() && !env.has("TERM") {
            env.set("TERM", "xterm");
        }
        if let Some(cwd) = &self.cwd {
            process.set_cwd(clean("working directory", cwd)?);
        }
        if let Some(user) = &self.user {
            self.switch_user(&mut process, &mut env, user.parse()?, files)?;
        }
        self.env.iter().for_each(|entry| env.set_entry(entry));
        process.set_env(Some(env.into_entries()?));
        Ok(process)
    }

    fn switch_user(
        &self,
        process: &mut Process,
        env: &mut Environment,
        user: UserSpec,
        files: &dyn RootFiles,
    ) -> Result<()> {
        let resolved = user.resolve(files)?;
        env.set("HOME", &resolved.home);
        let mut user = spec_user(&resolved, process.user().umask());
        if let Some(mappings) = self.spec.linux().as_ref().and_then(IdMappings::of_spec) {
            mappings.fit(&mut user)?;
        }
        let bounding = process
            .capabilities()
            .as_ref()
            .and_then(|held| held.bounding().clone())
            .unwrap_or_default();
        process.set_capabilities(Some(capabilities_of(resolved.uid, bounding)));
        process.set_user(user);
        Ok(())
    }
}
