//! What `quickstart` needs beside the main job: its arguments, a clock for the steps, and the image's source.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longshore::Engine;
use longshore::content::MemoryStore;
use longshore::distribution::OciLayout;
use longshore::events::{Received, Subscription, Waited};
use longshore_registry::{Registry, RunningRegistry};

use crate::host_image;

const USAGE: &str = "\
Pull an image, unpack it, run a command in a container, in one process without a daemon.

Usage:
  quickstart                                an image made of this machine's programs, from a registry in this process
  quickstart IMAGE [-- COMMAND...]          any registry's image, e.g. docker.io/library/alpine:3.20
  quickstart oci:DIR[:TAG] [-- COMMAND...]  an OCI image layout on disk

The engine's files are kept under $LONGSHORE_ROOT (/var/lib/longshore/quickstart for root, ~/.local/share/longshore/quickstart for others).";

/// What the demonstration runs when no command is given.
const DEMONSTRATION: &str = "\
echo \"hello from a container: pid $$, user $(id -u), host name $(uname -n)\"
echo \"this is all there is:\" /*
cat /etc/os-release";

/// The command line.
#[derive(Debug)]
pub struct Arguments {
    /// Where the image comes from.
    pub source: Source,
    /// What to run; empty is the image's own command.
    pub command: Vec<String>,
}

impl Arguments {
    /// Reads the command line; prints the usage and ends the program for `--help`.
    ///
    /// # Errors
    /// Says what is not understood.
    pub fn parse() -> Result<Self> {
        Self::from(std::env::args().skip(1).collect())
    }

    fn from(mut words: Vec<String>) -> Result<Self> {
        let mut command = Vec::new();
        if let Some(dashes) = words.iter().position(|word| word == "--") {
            command = words.split_off(dashes).split_off(1);
        }
        let source = match words.as_slice() {
            [] => Source::Host,
            [word] if word == "-h" || word == "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            [word] if word.starts_with('-') => bail!("unknown option {word}\n\n{USAGE}"),
            [word] => Source::of(word),
            [_, word, ..] => bail!("'{word}' is one word too many: a command comes after `--`\n\n{USAGE}"),
        };
        if command.is_empty() && matches!(source, Source::Host) {
            command = ["/bin/sh", "-c", DEMONSTRATION].map(str::to_owned).into();
        }
        Ok(Self { source, command })
    }
}

/// Where the image comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Made of this machine's programs and served by a registry in this process.
    Host,
    /// A registry, by reference.
    Registry(String),
    /// An OCI image layout on disk.
    Layout {
        /// The layout's directory.
        directory: PathBuf,
        /// The tag inside it; the only image when `None`.
        tag: Option<String>,
    },
}

impl Source {
    /// What a word on a command line names: `oci:DIR[:TAG]` or a reference.
    pub fn of(word: &str) -> Self {
        let Some(layout) = word.strip_prefix("oci:") else {
            return Self::Registry(word.to_owned());
        };
        // A colon may also belong to the directory's name.
        match layout.rsplit_once(':') {
            Some((directory, tag)) if !Path::new(layout).is_dir() && !tag.contains('/') => Self::Layout {
                directory: directory.into(),
                tag: Some(tag.to_owned()),
            },
            _ => Self::Layout {
                directory: layout.into(),
                tag: None,
            },
        }
    }

    /// The engine with what this source needs, the name to pull, and the registry to keep alive meanwhile.
    ///
    /// # Errors
    /// When the demonstration's image can't be made or the layout is not one.
    pub async fn connect(self, engine: Engine) -> Result<(Engine, String, Option<RunningRegistry>)> {
        match self {
            Self::Registry(name) => Ok((engine, name, None)),
            Self::Host => {
                let registry = serve_host_image().await?;
                let name = format!("{}/demo/host:latest", registry.host());
                Ok((engine, name, Some(registry)))
            }
            Self::Layout { directory, tag } => {
                let layout = OciLayout::open(&directory).await?;
                let name = layout_name(&directory, tag.as_deref())?;
                let layout = Arc::new(layout);
                Ok((
                    Engine {
                        resolver: layout.clone(),
                        fetcher: layout,
                        ..engine
                    },
                    name,
                    None,
                ))
            }
        }
    }
}

/// A name that an image of a layout is registered under: `layout.localhost/<folder>:<tag>`.
fn layout_name(directory: &Path, tag: Option<&str>) -> Result<String> {
    let path = directory
        .canonicalize()
        .with_context(|| format!("no layout at {}", directory.display()))?;
    let folder = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let folder: String = folder
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    Ok(format!(
        "layout.localhost/{}:{}",
        folder.trim_matches('-'),
        tag.unwrap_or("latest")
    ))
}

/// A registry on loopback that serves an image of this machine's programs as `demo/host:latest`.
///
/// # Errors
/// When the image can't be made or the registry can't listen.
pub async fn serve_host_image() -> Result<RunningRegistry> {
    let image = tokio::task::spawn_blocking(host_image::build).await??;
    let registry = Registry::builder()
        .content(Arc::new(MemoryStore::new()))
        .serve("127.0.0.1:0")
        .await?;
    for (_, bytes) in image.blobs {
        registry.put_blob(bytes).await?;
    }
    let (descriptor, bytes) = image.manifest;
    registry
        .put_manifest("demo/host", Some("latest"), descriptor.media_type().as_ref(), bytes)
        .await?;
    Ok(registry)
}

/// The directory that the engine's files are kept in: `$LONGSHORE_ROOT`, or `quickstart` among this user's data.
///
/// # Errors
/// When there is no home directory.
pub fn root_folder() -> Result<PathBuf> {
    match std::env::var_os("LONGSHORE_ROOT") {
        Some(root) => Ok(root.into()),
        None => Ok(data_folder()?.join("quickstart")),
    }
}

/// Where this user's data of longshore are: `/var/lib/longshore` for root, else below `$XDG_DATA_HOME` or `~/.local/share`.
///
/// # Errors
/// When there is no home directory.
pub fn data_folder() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/longshore".into());
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("longshore"));
    }
    let home = std::env::home_dir().context("no home directory; set LONGSHORE_ROOT to a directory of yours")?;
    Ok(home.join(".local/share/longshore"))
}

/// How long each step took.
#[derive(Debug)]
pub struct Clock {
    begun: Instant,
    last: Instant,
    steps: Vec<(String, Duration)>,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            last: now,
            steps: Vec::new(),
        }
    }

    /// Notes that a step has ended.
    pub fn step(&mut self, name: &str) {
        let now = Instant::now();
        self.steps.push((name.to_owned(), now - self.last));
        self.last = now;
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\nhow long each step took:");
        let total = ("in all".to_owned(), self.last - self.begun);
        for (name, time) in self.steps.iter().chain([&total]) {
            println!("{:>10.1} ms  {name}", time.as_secs_f64() * 1000.0);
        }
    }
}

/// The thread that prints events.
#[derive(Debug)]
pub struct Printer(JoinHandle<()>, Arc<std::sync::atomic::AtomicBool>);

/// Prints each event as it happens.
pub fn print_events(mut events: Subscription) -> Printer {
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let finished = done.clone();
    let thread = std::thread::spawn(move || {
        loop {
            let ending = finished.load(std::sync::atomic::Ordering::Acquire);
            match events.recv_timeout(Duration::from_millis(20)) {
                Waited::Received(Received::Event(event)) => println!("event {event}"),
                Waited::Received(Received::Missed(count)) => println!("event ... {count} missed"),
                Waited::Ended => return,
                _ if ending => return,
                _ => {}
            }
        }
    });
    Printer(thread, done)
}

impl Printer {
    /// Prints what is left and ends.
    pub fn finish(self) {
        self.1.store(true, std::sync::atomic::Ordering::Release);
        // A printer that panicked has said so.
        let _ = self.0.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments> {
        Arguments::from(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn the_command_comes_after_two_dashes() {
        let arguments = parse(&["alpine", "--", "echo", "a", "--", "b"]).unwrap();
        assert_eq!(arguments.source, Source::Registry("alpine".into()));
        assert_eq!(arguments.command, ["echo", "a", "--", "b"]);
        assert!(
            parse(&["alpine", "echo"])
                .unwrap_err()
                .to_string()
                .contains("after `--`")
        );
        assert!(parse(&["--frob"]).unwrap_err().to_string().contains("--frob"));
    }

    #[test]
    fn without_words_it_demonstrates() {
        let arguments = parse(&[]).unwrap();
        assert_eq!(arguments.source, Source::Host);
        assert_eq!(arguments.command[0], "/bin/sh");
    }

    #[test]
    fn a_layout_may_have_a_tag() {
        let layout = |directory: &str, tag: Option<&str>| Source::Layout {
            directory: directory.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(Source::of("oci:/no/such:v1"), layout("/no/such", Some("v1")));
        assert_eq!(Source::of("oci:/no/such"), layout("/no/such", None));
        assert_eq!(Source::of("oci:/no:such/dir"), layout("/no:such/dir", None));
    }
}
