//! What the tests of `longshore-runc` share: a bundle, and running both programs on it.
#![allow(dead_code)] // each test program uses a part of it

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use longshore_testing::{Leftovers, require_root, require_tool};
use serde_json::{Value, json};

/// Our program.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_longshore-runc");

/// A bundle over a root of busybox, and a state directory for each program.
#[derive(Debug)]
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    before: Leftovers,
    marker: String,
}

/// How a program ended and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    /// A bundle whose process runs `sh -c SCRIPT`.
    ///
    /// # Errors
    /// The reason to skip.
    pub(crate) fn new(script: &str) -> Result<Self, String> {
        require_root()?;
        let busybox = require_tool("busybox")?;
        let directory = tempfile::Builder::new()
            .prefix("longshore-runc-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let bin = directory.path().join("bundle/rootfs/bin");
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(bin.with_file_name(folder)).expect("a folder of the root");
        }
        longshore_testing::copy_program(busybox, bin.join("busybox")).expect("busybox is there");
        for name in ["sh", "true", "sleep", "cat", "echo", "id", "stty", "kill", "ls", "env"] {
            symlink("busybox", bin.join(name)).expect("a new link");
        }
        let name = directory
            .path()
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let bench = Self {
            directory,
            before: Leftovers::now(&name),
            marker: name,
        };
        bench.write(&config(script));
        Ok(bench)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An id that names this bench.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.marker)
    }

    /// Changes `config.json`.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.bundle().join("config.json")).expect("it was written");
        let mut config = serde_json::from_str(&text).expect("it is JSON");
        change(&mut config);
        self.write(&config);
    }

    fn write(&self, config: &Value) {
        fs::write(self.bundle().join("config.json"), config.to_string()).expect("the bundle can be written");
    }

    /// The state directory of one of the programs.
    pub(crate) fn root(&self, program: &str) -> PathBuf {
        self.path(if program == OURS { "ours" } else { "theirs" })
    }

    /// A command in the bundle's directory.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.root(program))
            .args(args)
            .current_dir(self.bundle())
            .stdin(Stdio::null());
        command
    }

    /// Runs our program.
    pub(crate) fn ours(&self, args: &[&str]) -> Ran {
        run(self.command(OURS, args), self)
    }

    /// Runs a command with both programs, and demands that they end and speak alike.
    pub(crate) fn alike(&self, args: &[&str]) -> Ran {
        let (ours, theirs) = (self.ours(args), run(self.command("runc", args), self));
        assert_eq!(plain(&ours), plain(&theirs), "ours is on the left: {args:?}");
        ours
    }

    /// Waits until our container has a status.
    pub(crate) fn wait_for(&self, id: &str, status: &str) {
        wait_until(&format!("{id} is {status}"), || self.status(OURS, id) == status);
    }

    /// Waits until the container has a status in both programs.
    pub(crate) fn both_are(&self, id: &str, status: &str) {
        for program in [OURS, "runc"] {
            wait_until(&format!("{program}: {id} is {status}"), || {
                self.status(program, id) == status
            });
        }
    }

    fn status(&self, program: &str, id: &str) -> String {
        let said = run(self.command(program, &["state", id]), self).stdout;
        let state: Value = serde_json::from_str(&said).unwrap_or_default();
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Deletes what is still there, and demands that nothing else is left.
    pub(crate) fn end(self) {
        self.delete_all();
        assert_eq!(self.before.since(&self.marker), [] as [String; 0], "left behind");
    }

    fn delete_all(&self) {
        for program in [OURS, "runc"] {
            for entry in fs::read_dir(self.root(program)).into_iter().flatten().flatten() {
                let _ = self.command(program, &["delete", "-f"]).arg(entry.file_name()).output();
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.delete_all();
    }
}

/// A bench with runc beside.
///
/// # Errors
/// The reason to skip.
pub(crate) fn beside_runc(script: &str) -> Result<Bench, String> {
    require_tool("runc")?;
    Bench::new(script)
}

/// Waits for something that happens soon; the limit is only there to end a test that fails.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end. The output goes to files: a detached container holds pipes open.
pub(crate) fn run(mut command: Command, bench: &Bench) -> Ran {
    let (out, err) = (bench.path("stdout"), bench.path("stderr"));
    let file = |path: &Path| fs::File::create(path).expect("a file of the test");
    let status = command
        .stdout(file(&out))
        .stderr(file(&err))
        .status()
        .expect("the program is there");
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("a file of the test")).into_owned();
    Ran {
        code: status.code(),
        stdout: read(&out),
        stderr: read(&err),
    }
}

/// What a command that was run by hand said.
pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Without what can't be alike: moments and process numbers.
fn plain(ran: &Ran) -> Ran {
    Ran {
        code: ran.code,
        stdout: masked(&ran.stdout),
        stderr: masked(&ran.stderr),
    }
}

fn masked(text: &str) -> String {
    let mut masked = String::new();
    for line in text.split_inclusive('\n') {
        // Of the runtime itself, which is newer.
        let line = line.replace("\"1.0.2-dev\"", "\"1.0.2\"");
        for word in line.split_inclusive([' ', '"', ',', ':']) {
            let bare = word.trim_end_matches([' ', '"', ',', ':', '\n', '.']);
            let digits = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
            let moment = bare.len() >= 13 && bare.starts_with("20") && bare.as_bytes()[4] == b'-';
            if moment || bare.ends_with('Z') && bare.as_bytes()[0].is_ascii_digit() {
                masked.push_str(" <moment> ");
            } else if digits && bare.len() > 2 {
                masked.push_str(" <number> ");
            } else if digits && word.contains(':') {
                masked.push_str(" <moment> ");
            } else {
                masked.push_str(word);
            }
        }
    }
    // Columns are as wide as what is in them.
    masked
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

/// A plain container.
fn config(script: &str) -> Value {
    let capabilities = ["CAP_KILL", "CAP_SETUID"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }
        ],
        "annotations": { "org.example.test": "yes" },
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}
