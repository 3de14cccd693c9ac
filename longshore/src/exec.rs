use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_bundle::{Bundle, ExecSpec, MountsView, Terminal};
use longshore_runtime::{ExecRequest, ExitStatus, Io};
use oci_spec::runtime::Process;

use crate::create::blocking;
use crate::error::At;
use crate::{Container, Result};

/// Another process about to run in a container: the container's own process with another command, and what else is changed.
#[derive(Debug)]
#[must_use = "nothing runs before it is spawned"]
pub struct ExecBuilder {
    container: Container,
    id: String,
    what: What,
    io: Io,
}

/// What is to run.
#[derive(Debug)]
struct What {
    args: Vec<String>,
    env: Vec<String>,
    cwd: Option<PathBuf>,
    user: Option<String>,
    terminal: Option<Terminal>,
}

impl Container {
    /// Another command in the container, as its own user, with its own environment and confinement.
    pub fn command<A: Into<String>>(&self, args: impl IntoIterator<Item = A>) -> ExecBuilder {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ExecBuilder {
            container: self.clone(),
            id: format!("exec-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
            what: What {
                args: args.into_iter().map(Into::into).collect(),
                env: Vec::new(),
                cwd: None,
                user: None,
                terminal: None,
            },
            io: Io::null(),
        }
    }
}

impl ExecBuilder {
    /// Its name among the container's processes.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// What its name is, given or made up.
    pub fn name(&self) -> &str {
        &self.id
    }

    /// One more environment variable, as `NAME=value`.
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.what.env.push(variable.into());
        self
    }

    /// Its working directory.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.what.cwd = Some(directory.into());
        self
    }

    /// Its user: `name`, `uid`, `name:group`, `uid:gid`, resolved in the container's files.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.what.user = Some(user.into());
        self
    }

    /// Gives it a terminal; its [`Io`] must be able to serve one.
    pub fn terminal(mut self) -> Self {
        self.what.terminal = Some(Terminal::default());
        self
    }

    /// Where its streams go; nowhere unless told.
    pub fn io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// Runs it and returns its pid; [`Container::wait_exec`] waits for its end by its id.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless the container runs, [`Start`](crate::ErrorKind::Start) when the command can't be executed.
    pub async fn spawn(self) -> Result<u32> {
        let Self { container, id, io, .. } = self;
        let process = self.what.process(&container).await?;
        container.exec(ExecRequest::new(id, process, io)).await
    }

    /// Runs it and waits for its end.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn run(self) -> Result<ExitStatus> {
        let (container, id) = (self.container.clone(), self.id.clone());
        self.spawn().await?;
        container.wait_exec(&id).await
    }
}

impl What {
    async fn process(self, container: &Container) -> Result<Process> {
        let doing = format!("preparing a process of container '{}'", container.id());
        let (directory, mounts) = (container.bundle_directory(), container.mounts().await?);
        let work = move || {
            let bundle = Bundle::load(directory)?;
            let files = MountsView::new(&mounts)?;
            let mut exec = self
                .env
                .into_iter()
                .fold(ExecSpec::new(bundle.spec(), self.args), ExecSpec::env);
            if let Some(cwd) = self.cwd {
                exec = exec.cwd(cwd);
            }
            if let Some(user) = self.user {
                exec = exec.user(user);
            }
            if let Some(terminal) = self.terminal {
                exec = exec.terminal(terminal);
            }
            exec.build(&files)
        };
        blocking(work).await.at(doing)
    }
}
