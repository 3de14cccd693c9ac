//! `run`: in the foreground, or by a copy of this program in the background.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use longshore::bundle::{Bind, CapabilityName, Namespace, SpecBuilder, Terminal as SpecTerminal};
use longshore::runtime::{ContainerId, DeleteMode, Io, Lifetime, Stdio};
use longshore::{Container, Engine, ErrorKind, Image};

use crate::arguments::{Network, Run};
use crate::background::{self, Ended};
use crate::devices::Devices;
use crate::kept::Kept;
use crate::open::{Site, random_id};
use crate::output::say;
use crate::terminal::{self, Screen};
use crate::{images, start as starting};

/// The fact on a container's record that holds the command for `ps`.
pub(crate) const COMMAND: &str = "longshore.command";

pub(crate) async fn run(site: &Site, mut run: Run) -> Result<u8> {
    Kept::of(&run)?;
    if run.tty && !run.detach && !terminal::is_terminal() {
        bail!("-t needs a terminal, and standard input is none; leave -t out");
    }
    if let Some(name) = background::watched() {
        return in_background(site, &run, &name).await;
    }
    let name = match run.name.take() {
        Some(name) => name,
        None => random_id()?,
    };
    let engine = site.engine().await?;
    let image = find_image(&engine, &run.image).await?;
    if run.detach {
        drop(engine);
        let code = background::hand_over(&name)?;
        if code == 0 {
            say!("{name}");
        }
        return Ok(code);
    }
    let engine = after_others(site, &run, &name, engine).await?;
    foreground(site, &run, &name, engine, &image).await
}

/// Waits for what it needs, with the engine closed.
async fn after_others(site: &Site, run: &Run, name: &str, engine: Engine) -> Result<Engine> {
    if run.depends_on.is_empty() {
        return Ok(engine);
    }
    for need in &run.depends_on {
        let found = engine.find_container(&need.name).await;
        found.with_context(|| format!("container {name} needs another one (--depends-on)"))?;
    }
    drop(engine);
    let needs = run.depends_on.iter().map(|need| (need.name.clone(), need.condition));
    starting::met(site, name, &needs.collect()).await?;
    site.engine().await
}

async fn find_image(engine: &Engine, name: &str) -> Result<Image> {
    match engine.image(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound || name.starts_with("oci:") => {
            images::fetch(engine.clone(), name, None).await
        }
        outcome => Ok(outcome?),
    }
}

/// Creates, starts, waits; ends with the program's exit code.
async fn foreground(site: &Site, run: &Run, name: &str, engine: Engine, image: &Image) -> Result<u8> {
    let (io, pty) = match run.tty {
        true => {
            let (io, terminal) = Io::pty();
            (io, Some(terminal))
        }
        false => (Io::stdio(own_streams(run.interactive)?), None),
    };
    let signals = terminal::Signals::listen()?;
    let starting = async {
        let container = create(&engine, run, name, image, io).await?;
        let screen = match pty {
            Some(terminal) => Some(Screen::connect(terminal.master().await?)?),
            None => None,
        };
        container.start().await?;
        Ok::<_, anyhow::Error>((container, screen))
    };
    let (container, screen) = match or_interrupted(starting, &signals).await {
        Ok(started) => started,
        Err(error) => {
            // What is half made has a record. That of a container that was there before is none of ours.
            if !is_taken(&error) {
                remove_what_is_left(&engine, name).await;
            }
            return Err(error);
        }
    };
    let (exit, executor) = (container.exit(), engine.executor.clone());
    // From here on other commands may open the engine.
    drop((container, engine));
    let forwarding = signals.forward(executor, ContainerId::new(name)?);
    let status = exit.await;
    forwarding.abort();
    if let Some(screen) = screen {
        screen.finish();
    }
    if run.rm {
        // Also when the wait failed: that is when nobody else removes it.
        let engine = site.engine().await?;
        engine.find_container(name).await?.delete(DeleteMode::Force).await?;
    }
    Ok(u8::try_from(status?.code).unwrap_or(255))
}

/// Something that a signal breaks off.
async fn or_interrupted<T>(work: impl Future<Output = Result<T>>, signals: &terminal::Signals) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        signal = signals.next() => bail!("ended by signal {signal} before the container ran"),
    }
}

/// Whether an error says that there is a container of that name.
fn is_taken(error: &anyhow::Error) -> bool {
    let ours = error.downcast_ref::<longshore::Error>();
    ours.is_some_and(|error| error.kind() == ErrorKind::AlreadyExists)
}

async fn remove_what_is_left(engine: &Engine, name: &str) {
    if let Ok(container) = engine.find_container(name).await
        && let Err(error) = container.delete(DeleteMode::Force).await
    {
        eprintln!("longshore: container {name} is left: {error}");
    }
}

/// The copy in the background: creates and starts the container, and watches it.
async fn in_background(site: &Site, run: &Run, name: &str) -> Result<u8> {
    rustix::process::setsid().context("leaving the session")?;
    let engine = site.engine().await?;
    let image = find_image(&engine, &run.image).await?;
    let engine = after_others(site, run, name, engine).await?;
    let io = Kept::of(run)?.io(name, site.log(&ContainerId::new(name)?))?;
    let container = match start(&engine, run, name, &image, io).await {
        Ok(container) => container,
        Err(error) => {
            if !is_taken(&error) {
                remove_what_is_left(&engine, name).await;
                site.remove_log(name);
            }
            return Err(error);
        }
    };
    let ended = if run.rm { Ended::Removed } else { Ended::Kept };
    background::watch(site, engine, container, ended).await
}

async fn start(engine: &Engine, run: &Run, name: &str, image: &Image, io: Io) -> Result<Container> {
    let container = create(engine, run, name, image, io).await?;
    container.start().await?;
    Ok(container)
}

/// Copies of this program's streams, for a container without a terminal.
pub(crate) fn own_streams(interactive: bool) -> Result<Stdio> {
    use std::os::fd::AsFd;
    let stdin = match interactive {
        true => std::io::stdin().as_fd().try_clone_to_owned()?,
        false => std::fs::File::open("/dev/null")?.into(),
    };
    Ok(Stdio {
        stdin,
        stdout: std::io::stdout().as_fd().try_clone_to_owned()?,
        stderr: std::io::stderr().as_fd().try_clone_to_owned()?,
    })
}

async fn create(engine: &Engine, run: &Run, name: &str, image: &Image, io: Io) -> Result<Container> {
    let options = Options::from(run)?;
    let mut builder = engine
        .container(name)
        .image(image)
        .io(io)
        .lifetime(Lifetime::Detached)
        .spec(move |spec| options.apply(spec));
    if !run.command.is_empty() {
        builder = builder.args(run.command.clone());
    }
    for need in &run.depends_on {
        builder = builder.depends_on(&need.name, need.condition);
    }
    if let Some(check) = run.health_check() {
        builder = builder.health_check(&check);
    }
    let (fact, kept) = Kept::of(run)?.fact();
    builder = builder.extension(fact, kept);
    Ok(builder.extension(COMMAND, shown(run, image).into()).create().await?)
}

/// What `ps` shows as the command: entrypoint and arguments, given or the image's.
fn shown(run: &Run, image: &Image) -> String {
    let config = image.config().config().as_ref();
    let of_image = |words: Option<&Option<Vec<String>>>| words.cloned().flatten().unwrap_or_default();
    let (mut words, mut args) = match &run.entrypoint {
        Some(program) => (vec![program.clone()], Vec::new()),
        None => (
            of_image(config.map(|config| config.entrypoint())),
            of_image(config.map(|config| config.cmd())),
        ),
    };
    if !run.command.is_empty() {
        args = run.command.clone();
    }
    words.append(&mut args);
    words.join(" ").replace(|c: char| c.is_control(), " ")
}

/// The options of `run` that change the runtime spec.
struct Options {
    env: Vec<String>,
    binds: Vec<Bind>,
    devices: Devices,
    workdir: Option<PathBuf>,
    user: Option<String>,
    memory: Option<u64>,
    cpus: Option<f64>,
    pids: Option<u32>,
    read_only: bool,
    network: Network,
    hostname: Option<String>,
    entrypoint: Option<String>,
    cap_add: Vec<CapabilityName>,
    cap_drop: Vec<CapabilityName>,
    terminal: bool,
}

impl Options {
    fn from(run: &Run) -> Result<Self> {
        Ok(Self {
            env: run.env.iter().filter_map(|variable| environment(variable)).collect(),
            binds: run.volume.iter().map(|volume| bind(volume)).collect::<Result<_>>()?,
            devices: Devices::from(&run.device, &run.cdi_spec_dir)?,
            workdir: run.workdir.clone(),
            user: run.user.clone(),
            memory: run.memory.map(|size| size.0),
            cpus: run.cpus,
            pids: run.pids_limit,
            read_only: run.read_only,
            network: run.network,
            hostname: run.hostname.clone(),
            entrypoint: run.entrypoint.clone(),
            cap_add: run.cap_add.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            cap_drop: run.cap_drop.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            terminal: run.tty,
        })
    }

    fn apply(self, mut spec: SpecBuilder) -> SpecBuilder {
        spec = self.env.into_iter().fold(spec, SpecBuilder::env);
        spec = self.binds.into_iter().fold(spec, SpecBuilder::bind);
        spec = self.devices.apply(spec);
        spec = self.cap_add.into_iter().fold(spec, SpecBuilder::cap_add);
        spec = self.cap_drop.into_iter().fold(spec, SpecBuilder::cap_drop);
        spec = option(spec, self.workdir, SpecBuilder::cwd);
        spec = option(spec, self.user, SpecBuilder::user);
        spec = option(spec, self.memory, SpecBuilder::memory);
        spec = option(spec, self.cpus, SpecBuilder::cpus);
        spec = option(spec, self.pids, SpecBuilder::pids_limit);
        spec = option(spec, self.hostname, SpecBuilder::hostname);
        spec = option(spec, self.entrypoint, |spec, program| spec.entrypoint([program]));
        if self.read_only {
            spec = spec.read_only();
        }
        if self.terminal {
            spec = spec.terminal(SpecTerminal::default());
        }
        match self.network {
            Network::None => spec,
            Network::Host => spec.network(Namespace::Host),
        }
    }
}

fn option<T>(spec: SpecBuilder, value: Option<T>, apply: impl FnOnce(SpecBuilder, T) -> SpecBuilder) -> SpecBuilder {
    match value {
        Some(value) => apply(spec, value),
        None => spec,
    }
}

/// `NAME=VALUE` as it is, `NAME` with the value that it has here, nothing when it has none.
pub(crate) fn environment(variable: &str) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable.to_owned()),
        false => std::env::var(variable).ok().map(|value| format!("{variable}={value}")),
    }
}

/// `SOURCE:TARGET[:ro|rw]`.
fn bind(volume: &str) -> Result<Bind> {
    let words: Vec<&str> = volume.split(':').collect();
    let (source, target, mode) = match words.as_slice() {
        [source, target] => (source, target, "rw"),
        [source, target, mode] => (source, target, *mode),
        _ => bail!("-v {volume}: write SOURCE:TARGET or SOURCE:TARGET:ro"),
    };
    let source = std::path::absolute(source)?;
    if !source.exists() {
        bail!("-v {volume}: {} does not exist on this machine", source.display());
    }
    let bind = Bind::new(source, *target);
    match mode {
        "rw" => Ok(bind),
        "ro" => Ok(bind.read_only()),
        other => bail!("-v {volume}: '{other}' is not a mode; write ro or rw"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_say_what_is_wrong_with_them() {
        assert!(bind("/tmp:/data").is_ok());
        assert!(bind("/tmp:/data:ro").is_ok());
        for (volume, complaint) in [
            ("/tmp", "SOURCE:TARGET"),
            ("/no/such:/data", "does not exist"),
            ("/tmp:/data:xx", "not a mode"),
        ] {
            let error = bind(volume).expect_err(volume).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
