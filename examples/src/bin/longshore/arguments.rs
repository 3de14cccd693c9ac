//! The command line, as Docker's and podman's users know it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longshore::HealthCheck;
use serde::{Deserialize, Serialize};

use crate::attach::DetachKeys;
use crate::start::Need;
use crate::top::Top;
use crate::transfer;

/// Images and containers from the command line, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "longshore",
    version,
    after_help = "Examples:
  longshore run --rm alpine echo hello           pull if needed, run, remove
  longshore run -it --name box debian:12         a shell in a terminal
  longshore run -d --name web -m 128m nginx      in the background, with a memory limit
  longshore logs -f web                          its output, as it comes
  longshore exec web cat /etc/hostname           another process in it
  longshore stop web && longshore rm web         end it, remove it"
)]
pub(crate) struct Cli {
    /// Where images and containers are kept [default: /var/lib/longshore, or ~/.local/share/longshore when not root]
    #[arg(long, global = true, env = "LONGSHORE_ROOT", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Mirrors and trust of registries: containerd's tree of `hosts.toml` files [default: certs.d in /etc/containerd, /etc/docker and /etc/containers]
    #[arg(long, global = true, env = "LONGSHORE_HOSTS_DIR", value_name = "DIR")]
    pub(crate) hosts_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch an image and unpack it
    Pull(Pull),
    /// Send an image to a registry
    Push(transfer::Push),
    /// List the images that are here
    Images(Images),
    /// Give an image a further name
    Tag(transfer::Tag),
    /// Load images from an archive or an OCI layout
    Load(transfer::Load),
    /// Save images as an archive or an OCI layout
    Save(transfer::Save),
    /// Make another form of an image: other compression, OCI's format
    Convert(transfer::Convert),
    /// List what refers to an image at its registry: signatures, SBOMs, attestations
    Referrers(transfer::Referrers),
    /// Run a command in a new container
    Run(Box<Run>),
    /// List containers
    Ps(Ps),
    /// Show what running containers use, live in a terminal, once elsewhere
    #[command(visible_alias = "stats")]
    Top(Top),
    /// Run another command in a running container
    Exec(Exec),
    /// Print the output of a container that runs in the background
    Logs(Logs),
    /// Connect to a container that runs in the background: see what it says from now on, and type
    Attach(Attach),
    /// Print what happened: images, containers and their processes, snapshots, blobs
    Events(Events),
    /// Start containers that have ended, in the background, after those that they depend on
    Start(Start),
    /// Stop containers: a polite signal first, SIGKILL after the grace time; those that depend on others before these
    Stop(Stop),
    /// Send a signal to containers
    Kill(Kill),
    /// Remove containers that have stopped
    Rm(Rm),
    /// Make an image of a container and what it changed
    Commit(Commit),
    /// List what a container changed: A for added, C for changed, D for deleted
    Diff(Diff),
    /// Remove images, and free what nothing needs any more
    Rmi(Rmi),
    /// Free what no image and no container needs any more
    Gc(Gc),
    /// Remove containers that have stopped and images without a use, and free their space
    Prune(Prune),
    /// Blobs: list, read, verify and repair them
    Content(Content),
    /// About this program's storage
    System(System),
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image, e.g. `alpine`, `registry.example/team/app:1.0` or `oci:DIR[:TAG]`
    pub(crate) image: String,
    /// The platform to choose [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run in the background and print the container's name
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Connect standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// The container's name [default: random]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Bind a directory or file of this machine
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Give it a device: a node of this machine, or one that a CDI specification describes
    #[arg(long, value_name = "/dev/NODE[:/dev/NODE][:rwm]|VENDOR/CLASS=NAME")]
    pub(crate) device: Vec<String>,
    /// Look for CDI specifications here [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User inside
    #[arg(short, long, value_name = "NAME|UID[:GROUP|GID]")]
    pub(crate) user: Option<String>,
    /// Memory limit, e.g. 64m or 2g
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// How many processors' worth of time, e.g. 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// How many processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<u32>,
    /// Make the root filesystem read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Its network: nothing but a loopback, or this machine's
    #[arg(long, value_enum, default_value_t = Network::None)]
    pub(crate) network: Network,
    /// Host name inside [default: the container's name]
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Run this instead of the image's entrypoint
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Add a capability, e.g. NET_ADMIN, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// How its output is kept when it runs in the background
    #[arg(long, value_enum, default_value_t = LogDriver::JsonFile, value_name = "DRIVER")]
    pub(crate) log_driver: LogDriver,
    /// How much of it: `max-size=10m` for each file, `max-file=3` files
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) log_opt: Vec<LogOption>,
    /// Start it after another container: once that runs, is healthy, or has ended with 0
    #[arg(long, value_name = "NAME[:started|healthy|completed]")]
    pub(crate) depends_on: Vec<Need>,
    /// Ask by this shell command in it whether it is healthy, instead of by the image's
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    #[command(flatten)]
    pub(crate) health: HealthOptions,
    /// The image; pulled when it is not here
    pub(crate) image: String,
    /// The command and its arguments, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Of `--health-cmd`.
#[derive(Debug, Args)]
pub(crate) struct HealthOptions {
    /// Time between two health checks, e.g. 30s or 500ms [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "health_cmd")]
    pub(crate) health_interval: Option<Duration>,
    /// A health check that takes longer has failed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "health_cmd")]
    pub(crate) health_timeout: Option<Duration>,
    /// For so long failed health checks do not count [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "health_cmd")]
    pub(crate) health_start_period: Option<Duration>,
    /// So many failures in a row make it unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", requires = "health_cmd")]
    pub(crate) health_retries: Option<NonZeroU32>,
}

impl Run {
    /// The health check that it was given.
    pub(crate) fn health_check(&self) -> Option<HealthCheck> {
        let mut check = HealthCheck::new(["/bin/sh", "-c", self.health_cmd.as_deref()?]);
        let given = &self.health;
        check.interval = given.health_interval.unwrap_or(check.interval);
        check.timeout = given.health_timeout.unwrap_or(check.timeout);
        check.start_period = given.health_start_period.unwrap_or(check.start_period);
        check.retries = given.health_retries.map_or(check.retries, NonZeroU32::get);
        Some(check)
    }
}

/// `500ms`, `30s`, `5m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("'{text}' is not a time; write 500ms, 30s or 5m")),
    };
    let number: Option<u64> = text[..text.len() - unit.len()].parse().ok();
    number
        .and_then(|number| number.checked_mul(millis))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is not a time; write 500ms, 30s or 5m"))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Network {
    None,
    Host,
}

/// By the names that Docker's and podman's users know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogDriver {
    /// JSON lines, as Docker's
    #[default]
    JsonFile,
    /// The form of Kubernetes' container runtime interface, as podman's
    K8sFile,
    /// In systemd's journal, for `journalctl CONTAINER_NAME=...`
    Journald,
    /// Not at all
    None,
}

/// `max-size=SIZE` or `max-file=NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOption {
    MaxSize(Size),
    MaxFile(NonZeroU32),
}

impl FromStr for LogOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("max-size", size)) => size.parse().map(Self::MaxSize),
            Some(("max-file", count)) => match count.parse() {
                Ok(count) => Ok(Self::MaxFile(count)),
                Err(_) => Err(format!("'{count}' is not a number of files; write max-file=3")),
            },
            _ => Err("write max-size=10m or max-file=3".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that have stopped
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Connect standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User inside
    #[arg(short, long, value_name = "NAME|UID[:GROUP|GID]")]
    pub(crate) user: Option<String>,
    /// The container
    pub(crate) container: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Only look on
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The keys that end this command and leave the container running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// The container
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on as more comes, until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The time before each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Only so many lines, those at the end; or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    pub(crate) tail: Tail,
    /// From this time on: 2026-01-31T12:00:00Z, seconds since 1970, or how long ago (90s, 10m, 2h, 3d)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The container
    pub(crate) container: String,
}

/// How many lines from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    All,
    Last(usize),
}

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(count)) => Ok(Self::Last(count)),
            _ => Err(format!("'{text}' is not a number of lines, nor 'all'")),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// From this time on: 2026-01-31T12:00:00Z, seconds since 1970, or how long ago (90s, 10m, 2h, 3d)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only those that match, in containerd's syntax, e.g. topic==/tasks/start,event.container_id~=^web (several: one must match)
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// As JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on as more happens; without --since, from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The containers
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait before SIGKILL
    #[arg(short, long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) time: u64,
    /// The containers
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    /// The containers
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that still run
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The containers
    #[arg(required = true)]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "NAME <EMAIL>")]
    pub(crate) author: Option<String>,
    /// A sentence for its history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Change its config, as a Dockerfile would: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// Make it run what the container runs: command, environment, working directory, user [default: what its image runs]
    #[arg(long)]
    pub(crate) with_process: bool,
    /// Pause the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) pause: bool,
    /// The container
    pub(crate) container: String,
    /// The image's name
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The container
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// The images
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Tell what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Tell why something stays: the way to a digest, or `snapshot/NAME/KEY`, from an image or container
    #[arg(long, value_name = "DIGEST", conflicts_with = "dry_run")]
    pub(crate) explain: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also images that no container is made from, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct System {
    #[command(subcommand)]
    pub(crate) command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// What images and containers take on disk
    Df,
    /// As `longshore prune`
    Prune(Prune),
    /// Set damaged metadata aside, and record anew what images and containers there are
    Recover,
}

#[derive(Debug, Args)]
pub(crate) struct Content {
    #[command(subcommand)]
    pub(crate) command: ContentCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContentCommand {
    /// List the blobs
    #[command(alias = "list")]
    Ls {
        /// Digests only
        #[arg(short, long)]
        quiet: bool,
    },
    /// List what was fetched in part, and can be resumed
    Active,
    /// Write a blob to standard output
    Get {
        /// The blob
        digest: String,
    },
    /// Read all blobs again; exit code 1 when some are damaged, or missing though an image needs them
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Fetch damaged and missing ones again, from where their images came from
    #[arg(long)]
    pub(crate) repair: bool,
    /// Read no more than so many bytes in a second, e.g. 50m
    #[arg(long, value_name = "SIZE")]
    pub(crate) speed: Option<Size>,
}

/// A number of bytes: `1048576`, `64m`, `2g`, `512k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let lower = lower
            .strip_suffix("ib")
            .or_else(|| lower.strip_suffix('b'))
            .unwrap_or(&lower);
        let (digits, shift) = match lower.as_bytes().last() {
            Some(b'k') => (&lower[..lower.len() - 1], 10),
            Some(b'm') => (&lower[..lower.len() - 1], 20),
            Some(b'g') => (&lower[..lower.len() - 1], 30),
            _ => (lower, 0),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("'{text}' is not a size; write 64m or 2g"))?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| format!("'{text}' is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("0", 0),
            ("64m", 64 << 20),
            ("2G", 2 << 30),
            ("512k", 512 << 10),
            ("1gb", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "m", "-1", "1.5g", "99999999999g"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn options_of_logs_are_dockers() {
        let parse = |text: &str| text.parse::<LogOption>();
        assert_eq!(parse("max-size=10m"), Ok(LogOption::MaxSize(Size(10 << 20))));
        assert_eq!(parse("max-file=3"), Ok(LogOption::MaxFile(NonZeroU32::new(3).unwrap())));
        for text in ["max-file=0", "max-size=", "compress=true", "max-size"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(("all".parse(), "7".parse()), (Ok(Tail::All), Ok(Tail::Last(7))));
        assert!("-1".parse::<Tail>().is_err());
    }

    #[test]
    fn options_after_the_image_are_the_commands() {
        let cli = Cli::try_parse_from(["longshore", "run", "-it", "--rm", "alpine", "ls", "-l", "--rm"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not a run")
        };
        assert_eq!((run.image.as_str(), run.command.len()), ("alpine", 3));
    }
}
