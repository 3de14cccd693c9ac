//! Errors, in the words that runc's callers look for.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use longshore_runtime::{Error as RuntimeError, Status};

/// What a command ends with: the exit code, or the reason why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
    pub(crate) voice: Voice,
}

/// In whose words a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// This program's: a line of the log.
    Log,
    /// The container's, on whose standard error runc's init writes it when nobody listens any more.
    Container,
}

/// A program that is there and that the kernel does not execute, for which runc has words of their own.
#[derive(Debug)]
struct NotExecuted(String);

impl std::fmt::Display for NotExecuted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotExecuted {}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let voice = if error.is::<NotExecuted>() {
            Voice::Container
        } else {
            Voice::Log
        };
        Self {
            message: text(&error),
            code: 1,
            voice,
        }
    }
}

impl Failure {
    /// A failure in plain words.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            voice: Voice::Log,
        }
    }

    /// The same with the exit code and the words that the command puts in front.
    pub(crate) fn of_command(self, prefix: &str, code: u8) -> Self {
        match self.voice {
            Voice::Container => self,
            Voice::Log => Self {
                message: format!("{prefix}: {}", self.message),
                code,
                ..self
            },
        }
    }
}

/// An error about a path as Go prints it: `open /x: no such file or directory`.
pub(crate) fn path_error(action: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("{action} {}: {}", path.display(), errno_text(error))
}

/// The whole chain of an error, in one line.
pub(crate) fn text(error: &anyhow::Error) -> String {
    if let Some(known) = error.downcast_ref::<RuntimeError>().and_then(known) {
        return known;
    }
    let mut text = String::new();
    for cause in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        match cause.downcast_ref::<io::Error>() {
            Some(error) => text.push_str(&errno_text(error)),
            // A String takes everything.
            None => drop(write!(text, "{cause}")),
        }
    }
    text
}

/// What the system answers, without the number behind and in Go's small letters.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(number) = error.raw_os_error() {
        let suffix = format!(" (os error {number})");
        text.truncate(text.strip_suffix(&suffix).map_or(text.len(), str::len));
        let small = text
            .get(..1)
            .map(str::to_ascii_lowercase)
            .filter(|_| !text.starts_with("RFS"));
        if let Some(small) = small {
            text.replace_range(..1, &small);
        }
    }
    text
}

/// The errors whose words are runc's interface.
fn known(error: &RuntimeError) -> Option<String> {
    match error {
        RuntimeError::InvalidId { .. } => Some("invalid container ID format".into()),
        RuntimeError::NotFound(_) => Some("container does not exist".into()),
        RuntimeError::AlreadyExists(_) => Some("container with given ID already exists".into()),
        RuntimeError::WrongStatus { id, action, status } => Some(wrong_status(id, action, *status)),
        _ => None,
    }
}

fn wrong_status(id: &str, action: &str, status: Status) -> String {
    match (action, status) {
        ("start", Status::Stopped) => "cannot start a container that has stopped".into(),
        ("start", Status::Running) => "cannot start an already running container".into(),
        ("start", status) => format!("cannot start a container in the {status} state"),
        ("delete", status) => format!("cannot delete container {id} that is not stopped: {status}"),
        ("exec", Status::Stopped) => "cannot exec in a stopped container".into(),
        ("exec", Status::Paused) => "cannot exec in a paused container (use --ignore-paused to override)".into(),
        ("resume", _) => "container not paused".into(),
        _ => "container not running".into(),
    }
}

/// An error of `create`, `run`, `start` or `exec`: a step that fails on the way to `program` is told as runc tells it, because
/// Docker and others tell exit code 127 from 126 by these words.
pub(crate) fn start_error(error: RuntimeError, program: Option<&str>) -> anyhow::Error {
    let RuntimeError::Step { field, step, source } = &error else {
        return match &error {
            RuntimeError::Hook { field, reason } => {
                anyhow::anyhow!("unable to start container process: {}", hook_error(field, reason))
            }
            RuntimeError::Cgroup { .. } => anyhow::Error::new(error).context("unable to start container process"),
            _ => in_runcs_words(error.into()),
        };
    };
    let start = "unable to start container process";
    // The step's words tell the search for the program, `exec: "x"`, from its execution, `exec "x"`.
    if let Some(program) = program.filter(|_| field == "process.args" && step.starts_with("exec \"")) {
        return NotExecuted(format!("exec {program}: {}", errno_text(source))).into();
    }
    let told = match program {
        Some(program) if field.ends_with("process.args[0]") || field == "process.args" => {
            match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOENT) if program.contains('/') => {
                    format!("exec: \"{program}\": stat {program}: no such file or directory")
                }
                Some(rustix::io::Errno::NOENT) => format!("exec: \"{program}\": executable file not found in $PATH"),
                Some(rustix::io::Errno::ISDIR) => format!("exec: \"{program}\": is a directory"),
                Some(rustix::io::Errno::ACCESS) => format!("exec: \"{program}\": permission denied"),
                _ => format!("exec {program}: {}", errno_text(source)),
            }
        }
        // Some look for the beginning of runc's words, "error mounting ... to rootfs at ...".
        _ if field.starts_with("mounts[") => {
            format!(
                "error during container init: error mounting {error}: {}",
                errno_text(source)
            )
        }
        // EPERM of sched_setattr(2), for root: SCHED_DEADLINE wants all CPUs.
        _ if field.ends_with(".scheduler") && source.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
            format!(
                "error during container init: {error} (process scheduler can't be used together with AllowedCPUs): {}",
                errno_text(source)
            )
        }
        _ => {
            return anyhow::Error::new(error)
                .context("error during container init")
                .context(start);
        }
    };
    anyhow::anyhow!("{start}: {told}")
}

/// An error of `linux.memoryPolicy` with runc's words for it before ours.
pub(crate) fn in_runcs_words(error: anyhow::Error) -> anyhow::Error {
    const FIELD: &str = "linux.memoryPolicy";
    let text = error.to_string();
    let Some((_, told)) = text.split_once(FIELD) else {
        return error;
    };
    let part = match told {
        _ if told.starts_with(".nodes") => "node",
        _ if told.starts_with(".flags") => "flag",
        _ => "mode",
    };
    error.context(format!("invalid memory policy {part}"))
}

/// A hook's failure as runc tells it, from the field that names the hook (`hooks.createRuntime[1]`).
fn hook_error(field: &str, reason: &str) -> String {
    let name = field.strip_prefix("hooks.").and_then(|f| f.strip_suffix(']'));
    match name.and_then(|n| n.split_once('[')) {
        Some((kind, index)) => format!("error running {kind} hook #{index}: {reason}"),
        None => format!("{field}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(errno: rustix::io::Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn a_memory_policy_is_wrong_in_runcs_words() {
        for (ours, part) in [
            (
                "config.json:1:2: linux.memoryPolicy: missing field `mode`",
                Some("mode"),
            ),
            (
                "config.json:1:2: linux.memoryPolicy.flags[1]: unknown variant",
                Some("flag"),
            ),
            ("linux.memoryPolicy.nodes: 'x' is not a number", Some("node")),
            ("linux.personality.flags: not supported", None),
        ] {
            let told = format!("{:#}", in_runcs_words(anyhow::anyhow!(ours)));
            let expected = part.map_or(ours.to_owned(), |part| format!("invalid memory policy {part}: {ours}"));
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn the_system_speaks_as_go_does() {
        assert_eq!(
            errno_text(&errno(rustix::io::Errno::NOENT)),
            "no such file or directory"
        );
        assert_eq!(
            errno_text(&errno(rustix::io::Errno::NOTTY)),
            "inappropriate ioctl for device"
        );
        assert_eq!(errno_text(&io::Error::other("Plain words")), "Plain words");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_in_the_words_that_docker_looks_for() {
        let step = |errno: rustix::io::Errno| RuntimeError::Step {
            field: "process.args[0]".into(),
            step: "find the program".into(),
            source: errno.into(),
        };
        let told = |errno, program| text(&start_error(step(errno), Some(program)));
        assert_eq!(
            told(rustix::io::Errno::NOENT, "x"),
            "unable to start container process: exec: \"x\": executable file not found in $PATH"
        );
        assert!(told(rustix::io::Errno::NOENT, "/x").ends_with("exec: \"/x\": stat /x: no such file or directory"));
        assert!(told(rustix::io::Errno::ACCESS, "/x").ends_with("exec: \"/x\": permission denied"));
        assert!(told(rustix::io::Errno::NOEXEC, "/x").ends_with("exec /x: exec format error"));
    }

    #[test]
    fn a_program_that_the_kernel_does_not_take_is_told_in_the_containers_voice() {
        let step = RuntimeError::Step {
            field: "process.args".into(),
            step: "exec \"/x\"".into(),
            source: rustix::io::Errno::NOENT.into(),
        };
        let failure = Failure::from(start_error(step, Some("/x"))).of_command("runc run failed", 1);
        assert_eq!(failure.voice, Voice::Container);
        assert_eq!(failure.message, "exec /x: no such file or directory");
    }

    #[test]
    fn a_hook_is_told_by_its_kind_and_number() {
        let error = RuntimeError::Hook {
            field: "hooks.createRuntime[1]".into(),
            reason: "/bin/false: exit status 1".into(),
        };
        assert_eq!(
            text(&start_error(error, None)),
            "unable to start container process: error running createRuntime hook #1: /bin/false: exit status 1"
        );
    }

    #[test]
    fn a_chain_is_one_line() {
        let error = anyhow::Error::new(errno(rustix::io::Errno::ACCESS))
            .context("open /x")
            .context("can't log");
        assert_eq!(text(&error), "can't log: open /x: permission denied");
    }
}
