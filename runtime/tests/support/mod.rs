//! What the executor's tests share: a root filesystem of busybox, specs, and an executor that leaves nothing behind.
#![allow(dead_code, unreachable_pub)] // each test program uses some of it

pub mod busy;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use longshore_runtime::{
    ContainerId, CreateRequest, DeleteMode, Executor, ExitStatus, Io, LinuxExecutor, ProcessId, Result,
};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// Programs of busybox that the tests use.
const APPLETS: [&str; 36] = [
    "sh", "true", "false", "echo", "cat", "ls", "id", "sleep", "mount", "hostname", "stat", "test", "touch", "mkdir",
    "readlink", "ps", "kill", "env", "pwd", "wc", "grep", "head", "dd", "tty", "stty", "umask", "sort", "printf",
    "seq", "yes", "rm", "ln", "mknod", "chmod", "nc", "ip",
];

/// A place for one test: state directory, root filesystem, executor.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub executor: LinuxExecutor,
}

/// Says why a test does not run.
pub fn skipped(why: &str) {
    longshore_testing::skip(why);
}

/// A place, or the reason why this machine can't have one.
pub fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        skipped("needs root");
        return None;
    }
    any_place()
}

/// The same, also for an ordinary user.
pub fn any_place() -> Option<Place> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
    else {
        skipped("needs /bin/busybox, statically linked (Debian's package busybox-static)");
        return None;
    };
    let dir = tempfile::Builder::new()
        .prefix("longshore-test")
        .tempdir()
        .expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    make_rootfs(&dir.path().join("rootfs"), Path::new(busybox));
    let executor = LinuxExecutor::open(dir.path().join("state")).expect("the state directory opens");
    Some(Place { dir, executor })
}

pub fn make_rootfs(root: &Path, busybox: &Path) {
    for sub in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(sub)).expect("a directory");
    }
    longshore_testing::copy_program(busybox, root.join("bin/busybox")).expect("a copy of busybox");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).expect("permissions");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
}

/// The spec of a container that runs `args`, as a value to be changed.
pub fn spec(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "hostname": "box",
        "process": {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
            },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/acpi", "/proc/scsi", "/nowhere"],
            "readonlyPaths": ["/proc/sys", "/proc/irq"],
        },
    })
}

pub fn parse(spec: &Value) -> Spec {
    serde_json::from_value(spec.clone()).expect("a runtime spec")
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An id that no other test of this run has.
pub fn new_id() -> ContainerId {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ContainerId::new(format!("t{}-{number}", std::process::id())).expect("an id")
}

/// How a container ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    pub fn request(&self, id: &ContainerId, spec: &Value, io: Io) -> CreateRequest {
        CreateRequest::new(id.clone(), self.bundle(), parse(spec), io)
    }

    /// A container's whole life.
    pub async fn try_run(&self, spec: &Value) -> Result<Outcome> {
        let id = new_id();
        let (io, ends) = Io::pipe()?;
        let request = self.request(&id, spec, io);
        drop(ends.stdin);
        let read = |mut file: fs::File| {
            tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                file.read_to_string(&mut text).expect("it is text");
                text
            })
        };
        let (stdout, stderr) = (read(ends.stdout), read(ends.stderr));
        self.executor.create(request).await?;
        let started = self.executor.start(&id).await;
        let status = match &started {
            Ok(()) => Some(self.executor.wait(&id, &ProcessId::Init).await?),
            Err(_) => None,
        };
        match self.executor.delete(&id, DeleteMode::Force).await {
            // A hook that fails at the start has deleted it already.
            Err(error) if started.is_ok() || error.kind() != longshore_runtime::ErrorKind::NotFound => {
                return Err(error);
            }
            _ => started?,
        }
        Ok(Outcome {
            status: status.expect("it was started"),
            stdout: stdout.await.expect("it is read"),
            stderr: stderr.await.expect("it is read"),
        })
    }

    pub async fn run(&self, spec: &Value) -> Outcome {
        self.try_run(spec).await.unwrap_or_else(|e| panic!("{}", chain(&e)))
    }

    /// Runs a line of shell and expects it to succeed.
    pub async fn sh(&self, line: &str) -> String {
        let outcome = self.run(&spec(&["sh", "-c", line])).await;
        assert_eq!(outcome.status.code, 0, "{line}: {outcome:?}");
        outcome.stdout
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Nothing of the place is mounted in this namespace.
pub fn not_mounted_here(place: &Place) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(
        !mounts.contains(place.dir.path().to_str().expect("text")),
        "a mount is left in the host"
    );
}

/// Waits until something is so, of a container that is expected to live until then.
pub async fn wait_while_it_lives(place: &Place, id: &ContainerId, mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        let status = place.executor.state(id).await.expect("known").status;
        assert!(
            status != longshore_runtime::Status::Stopped || is_so(),
            "it ended before"
        );
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
