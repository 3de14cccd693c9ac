//! `run`: in the foreground, or by a copy of this program in the background.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio as ProcessStdio};

use anyhow::{Context, Result, bail};
use longshore::bundle::{Bind, CapabilityName, Namespace, SpecBuilder, Terminal as SpecTerminal};
use longshore::runtime::{ContainerId, DeleteMode, Io, Lifetime, LogFile, LogFormat, Stdio};
use longshore::{Container, Engine, ErrorKind, Image};

use crate::arguments::{LogDriver, LogOption, Network, Run};
use crate::devices::Devices;
use crate::images;
use crate::open::{Site, random_id};
use crate::output::say;
use crate::terminal::{self, Screen};

/// The fact on a container's record that holds the command for `ps`.
pub(crate) const COMMAND: &str = "longshore.command";

/// Tells a copy of this program that it is the one in the background, and the name of its container.
const SUPERVISE: &str = "LONGSHORE_SUPERVISE";

/// What the background copy says on its standard output when the container runs.
const READY: &str = "ready";

pub(crate) async fn run(site: &Site, mut run: Run) -> Result<u8> {
    if run.detach && run.interactive && run.log_driver == LogDriver::None {
        bail!("-d and -i need a log: who keeps it hands on what `longshore attach` types; leave --log-driver none out");
    }
    log_of(&run, PathBuf::new())?;
    if run.tty && !run.detach && !terminal::is_terminal() {
        bail!("-t needs a terminal, and standard input is none; leave -t out");
    }
    if let Ok(name) = std::env::var(SUPERVISE) {
        return supervise(site, &run, &name).await;
    }
    let name = match run.name.take() {
        Some(name) => name,
        None => random_id()?,
    };
    let engine = site.engine().await?;
    let image = find_image(&engine, &run.image).await?;
    if run.detach {
        drop(engine);
        return in_background(&name, image.name());
    }
    foreground(site, &run, &name, engine, &image).await
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

/// Starts a copy of this program that watches the container, and waits until it runs.
fn in_background(name: &str, image: &str) -> Result<u8> {
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(SUPERVISE, name)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::piped())
        .spawn()
        .context("starting the process that watches the container")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("no pipe from the watching process")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() == READY {
        say!("{name}");
        return Ok(0);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut reason)?;
    }
    let code = child
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(125);
    eprint!("{reason}");
    if reason.is_empty() {
        bail!("the process that watches container {name} of {image} ended without a word");
    }
    Ok(code)
}

/// The copy in the background: creates and starts the container, says so, keeps its output and its exit status.
async fn supervise(site: &Site, run: &Run, name: &str) -> Result<u8> {
    rustix::process::setsid().context("leaving the session")?;
    let engine = site.engine().await?;
    let image = find_image(&engine, &run.image).await?;
    let id = ContainerId::new(name)?;
    let log = site.log(&id);
    std::fs::create_dir_all(log.parent().context("the log has no directory")?)?;
    let io = match (log_of(run, log)?, run.interactive) {
        (None, _) => Io::null(),
        (Some(log), false) => Io::log(log),
        (Some(log), true) => Io::log_with_input(log),
    };
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
    let exit = container.exit();
    drop((container, engine));
    say_ready()?;
    let status = exit.await;
    if run.rm {
        let engine = site.engine().await?;
        engine.find_container(name).await?.delete(DeleteMode::Force).await?;
        // The log goes with its container.
        site.remove_log(name);
    }
    status?;
    Ok(0)
}

/// Where and how the output is kept, if it is.
fn log_of(run: &Run, path: PathBuf) -> Result<Option<LogFile>> {
    let form = match run.log_driver {
        LogDriver::JsonFile => LogFormat::Json,
        LogDriver::K8sFile => LogFormat::Cri,
        LogDriver::None => return Ok(None),
    };
    let (mut size, mut files) = (None, None);
    for option in &run.log_opt {
        match option {
            LogOption::MaxSize(given) => size = Some(given.0),
            LogOption::MaxFile(given) => files = Some(given.get()),
        }
    }
    let log = LogFile::new(path).format(form);
    match (size, files) {
        (Some(size), files) => Ok(Some(log.rotate(size, files.unwrap_or(1)))),
        (None, None | Some(1)) => Ok(Some(log)),
        (None, Some(_)) => {
            bail!("--log-opt max-file needs max-size: a file that is never full makes no room for another")
        }
    }
}

async fn start(engine: &Engine, run: &Run, name: &str, image: &Image, io: Io) -> Result<Container> {
    let container = create(engine, run, name, image, io).await?;
    container.start().await?;
    Ok(container)
}

/// Tells the first copy that all is well, and lets go of its pipes.
fn say_ready() -> Result<()> {
    println!("{READY}");
    std::io::stdout().flush()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
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
