//! What the sessions share: an image, a daemon, a script that runs above one runtime and above the other.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore_testing::{Leftovers, require_root, require_tool};

/// A place for one session.
#[derive(Debug)]
pub(crate) struct Session {
    folder: tempfile::TempDir,
    before: Leftovers,
}

/// A daemon in a mount namespace of its own, which ends with the session.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // One that has ended by itself was noticed by the script.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Functions of the scripts. `says` prints how a command ended and what it said; `ends` only how it ended, where each runtime has words of
/// its own. `soon` waits for something.
const PRELUDE: &str = r#"
set -u
says() { local name=$1 code=0 out; shift; out=$(timeout 60 "$@" 2>&1 </dev/null) || code=$?; printf '%s: %s\n%s\n' "$name" "$code" "$out"; }
ends() { local name=$1 code=0; shift; timeout 60 "$@" >>"$FOLDER/said" 2>&1 </dev/null || code=$?; printf '%s: %s\n' "$name" "$code"; }
soon() { local i; for i in $(seq 200); do "$@" >/dev/null 2>&1 </dev/null && return; sleep 0.1; done; echo "never: $*"; }
"#;

impl Session {
    /// # Errors
    /// The reason to skip.
    pub(crate) fn new(tools: &[&str]) -> Result<Self, String> {
        require_root()?;
        for tool in ["busybox", "runc", "umoci", "unshare", "bash"].iter().chain(tools) {
            require_tool(tool)?;
        }
        if !Path::new("/sys/fs/cgroup/pids").exists() && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Err("needs cgroups".to_owned());
        }
        let folder = tempfile::Builder::new()
            .prefix("longshore-session-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let before = Leftovers::now(&name_of(folder.path()));
        let session = Self { folder, before };
        session.make_image();
        Ok(session)
    }

    /// `img`, an OCI layout with an image `img:1` of busybox, and `img.tar`, the same in an archive.
    fn make_image(&self) {
        let script = r#"
            cd "$FOLDER"
            umoci init --layout img; umoci new --image img:1; umoci unpack --image img:1 b
            mkdir -p b/rootfs/bin b/rootfs/etc b/rootfs/tmp; cp "$(command -v busybox)" b/rootfs/bin/busybox
            for name in sh cat echo sleep id ls hostname touch tail tty true; do ln -s busybox b/rootfs/bin/$name; done
            echo 'root:x:0:0:root:/root:/bin/sh' >b/rootfs/etc/passwd
            umoci repack --image img:1 b; umoci config --image img:1 --config.cmd /bin/sh --config.env PATH=/bin
            tar -C img -cf img.tar .; tar -C b/rootfs -cf rootfs.tar .; rm -r b"#;
        let made = self.bash("-euc", script).output().expect("bash");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The name of its folder, which is in the path of each of its cgroups.
    pub(crate) fn name(&self) -> String {
        name_of(self.path())
    }

    fn bash(&self, flags: &str, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args([flags, script])
            .env("FOLDER", self.path())
            .env("NAME", self.name());
        command
    }

    /// Starts a daemon whose mounts are its own, and waits until `is_up` says so.
    pub(crate) fn daemon(&self, program: &str, args: &[&str], is_up: &str) -> Daemon {
        let log = fs::File::create(self.path().join("daemon.log")).expect("a log");
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("unshare");
        let daemon = Daemon(child);
        let patience = Instant::now() + Duration::from_secs(30);
        while !self.bash("-c", is_up).output().expect("bash").status.success() {
            let log = || fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default();
            assert!(Instant::now() < patience, "{program} does not come up: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// Runs a script above both runtimes, in a mount namespace of its own, and demands that it prints the same. `RUNTIME` is the runtime's path and
    /// `KIND` a word for it. Returns what it printed.
    pub(crate) fn alike(&self, script: &str) -> String {
        let ours = self.above(env!("CARGO_BIN_EXE_longshore-runc"), "ours", script);
        let runc = require_tool("runc").expect("it was there");
        let theirs = self.above(runc.to_str().expect("a plain path"), "theirs", script);
        assert_eq!(ours, theirs, "ours is on the left: {}", self.said());
        ours
    }

    fn above(&self, runtime: &str, kind: &str, script: &str) -> String {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "bash", "-c"])
            .arg(format!("{PRELUDE}\n{script}"))
            .env("FOLDER", self.path())
            .env("NAME", self.name())
            .env("RUNTIME", runtime)
            .env("KIND", kind)
            .stdin(Stdio::null());
        let ran = command.output().expect("unshare");
        let complaint = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{kind}: {complaint} {}", self.said());
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path().join("said")).unwrap_or_default()
    }

    /// Demands that nothing is left but empty groups named after the session, which the tools make and keep; these it removes.
    pub(crate) fn end(self) {
        let name = self.name();
        remove_empty_groups(Path::new("/sys/fs/cgroup"), &name, 0);
        assert_eq!(self.before.since(&name), [] as [String; 0], "left behind");
        let folder = self.path().to_string_lossy().into_owned();
        let mentions = |pid: &fs::DirEntry| {
            let line = fs::read(pid.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&folder)
        };
        // A shim needs a moment to end after its container.
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let left: Vec<_> = fs::read_dir("/proc")
                .expect("/proc")
                .flatten()
                .filter(mentions)
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < patience, "left running: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn name_of(folder: &Path) -> String {
    folder
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned()
}

/// Removes the groups of that name that tools make for their containers, deepest first; one that is not empty stays.
fn remove_empty_groups(folder: &Path, name: &str, depth: u32) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let path = entry.path();
        if depth < 4 {
            remove_empty_groups(&path, name, depth + 1);
        }
        // Only the session's own parent, and podman's for its monitors: a container's group that is left is a fault, and stays.
        let is_tools_own = path.ends_with(name) || path.ends_with(format!("{name}/conmon"));
        let is_group = ["cgroup.clone_children", "cgroup.controllers"]
            .iter()
            .any(|file| path.join(file).exists());
        if is_tools_own && is_group {
            let _ = fs::remove_dir(&path);
        } else if is_tools_own {
            // podman makes plain folders for controllers that the machine does not have.
            let _ = fs::remove_dir_all(&path);
        }
    }
}
