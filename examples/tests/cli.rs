//! The command line from end to end, as one who knows Docker uses it.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_testing::{Leftovers, require_root, require_tool, skip};

/// A root directory, and an image of busybox in a layout beside it. One at a time: what is left behind is told by the path of the cgroups, which all containers share.
struct Site {
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Site {
    fn new() -> Result<Self, String> {
        require_root()?;
        for tool in ["umoci", "busybox"] {
            require_tool(tool)?;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let script = r#"
            umoci init --layout box; umoci new --image box:1; umoci unpack --image box:1 bundle
            mkdir -p bundle/rootfs/bin bundle/rootfs/etc bundle/rootfs/tmp; cp "$(command -v busybox)" bundle/rootfs/bin/busybox
            for name in sh cat echo env false hostname id kill ls pwd sleep; do ln -s busybox bundle/rootfs/bin/$name; done
            printf 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n' >bundle/rootfs/etc/passwd
            echo text >bundle/rootfs/etc/not-a-program
            umoci repack --image box:1 bundle; umoci config --image box:1 --config.cmd /bin/hostname"#;
        let made = Command::new("bash")
            .args(["-euc", script])
            .current_dir(folder.path())
            .output()
            .expect("bash");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let site = Self {
            folder,
            _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner),
        };
        site.ok(&["pull", "oci:box:1"]);
        Ok(site)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command
            .arg("--root")
            .arg(self.path().join("root"))
            .args(words)
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("longshore")
    }

    /// What it prints when it works.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Exit code and message when it does not.
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?} worked");
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

const IMAGE: &str = "layout.localhost/box:1";

#[test]
fn top_shows_what_runs_and_what_it_uses() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let head = site.ok(&["top", "--interval", "0.01"]);
    assert!(
        head.starts_with("NAME ") && head.lines().count() == 1,
        "nothing runs: {head}"
    );
    let busy = "while :; do :; done";
    site.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "-m",
        "64m",
        "--pids-limit",
        "9",
        IMAGE,
        "sh",
        "-c",
        busy,
    ]);
    site.ok(&["run", "-d", "--name", "idle", IMAGE, "sleep", "1000"]);

    let table = site.ok(&["top", "--no-stream", "--interval", "0.2"]);
    let names: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, ["busy", "idle"], "the one that uses more comes first:\n{table}");

    let json = |words: &[&str]| -> Vec<serde_json::Value> {
        let lines = site.ok(words);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object"))
            .collect()
    };
    let both = json(&["stats", "--format", "json", "--sort", "name", "--interval", "0.2"]);
    let [busy, idle] = &both[..] else { panic!("{both:?}") };
    assert!(busy["cpus"].as_f64() > Some(0.0), "{busy}");
    assert_eq!(
        (&busy["name"], &busy["pids"]["limit"]),
        (&"busy".into(), &9.into()),
        "{busy}"
    );
    assert_eq!(busy["memory"]["limit"], 64 << 20, "{busy}");
    assert_eq!(
        (&idle["name"], &idle["pids"]["number"]),
        (&"idle".into(), &1.into()),
        "{idle}"
    );
    assert!(idle["network"]["received"].is_null(), "it has a loopback only: {idle}");

    let one = json(&["top", "--format", "json", "--interval", "0.01", "idle"]);
    assert_eq!((one.len(), &one[0]["name"]), (1, &"idle".into()));
    let (code, told) = site.fails(&["top", "nobody"]);
    assert!(code == 125 && told.contains("nobody"), "{code}: {told}");
    for interval in ["0", "-1", "nan"] {
        let (code, told) = site.fails(&["top", &format!("--interval={interval}")]);
        assert!(code == 125 && told.contains("interval"), "{code}: {told}");
    }
    site.ok(&["rm", "-f", "busy", "idle"]);
}

#[test]
fn logs_of_either_form_are_rotated_and_read_back() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out$i; echo err$i >&2; done; while [ ! -e /gate/open ]; do sleep 0.1; done; printf end";
    let gate = site.path().join("gate");
    std::fs::create_dir(&gate).expect("a folder");
    let volume = format!("{}:/gate", gate.display());
    for driver in ["json-file", "k8s-file"] {
        let log = [
            "--log-driver",
            driver,
            "--log-opt",
            "max-size=400",
            "--log-opt",
            "max-file=9",
        ];
        let words = [
            &["run", "-d", "--name", "talks", "-v", &volume],
            &log[..],
            &[IMAGE, "sh", "-c", script],
        ]
        .concat();
        site.ok(&words);
        let follow = site
            .command(&["logs", "-f", "talks"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let follow = follow.expect("longshore");
        let has = |bytes: &[u8], what: &str| String::from_utf8_lossy(bytes).contains(what);
        loop {
            let so_far = site.run(&["logs", "talks"]);
            if has(&so_far.stdout, "out9") && has(&so_far.stderr, "err9") {
                break;
            }
        }
        std::fs::write(gate.join("open"), "").expect("a file");
        let followed = follow.wait_with_output().expect("it ends with the container");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = |name: &str| (1..10).map(|i| format!("{name}{i}\n")).collect::<String>();
        assert_eq!(
            text(&followed.stdout),
            lines("out") + "end",
            "what has no end of line is not lost"
        );
        assert_eq!(text(&followed.stderr), lines("err"));
        assert!(
            std::fs::read_dir(site.path().join("root/logs")).expect("logs").count() > 2,
            "it was rotated"
        );
        let timed = site.ok(&["logs", "-t", "-n", "1", "talks"]);
        assert!(timed.ends_with("Z end"), "{timed}");
        assert_eq!(site.ok(&["logs", "--until", "1h", "talks"]), "");
        site.ok(&["rm", "talks"]);
        std::fs::remove_file(gate.join("open")).expect("it was there");
        assert_eq!(
            std::fs::read_dir(site.path().join("root/logs")).expect("logs").count(),
            0
        );
    }
    site.ok(&[
        "run",
        "-d",
        "--name",
        "silent",
        "--log-driver",
        "none",
        IMAGE,
        "echo",
        "x",
    ]);
    let (code, told) = site.fails(&["logs", "silent"]);
    assert!(code == 125 && told.contains("--log-driver none"), "{told}");
    let (code, told) = site.fails(&["run", "-d", "--log-opt", "max-file=3", IMAGE]);
    assert!(code == 125 && told.contains("max-size"), "{told}");
    let held = site.ok(&["run", "-dit", "--name", "held", IMAGE, "sh"]);
    assert_eq!(held, "held\n");
    site.ok(&["rm", "-f", "held", "silent"]);
}

#[test]
fn run_in_the_foreground() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let before = Leftovers::now("/longshore-");
    assert_eq!(
        site.ok(&["run", "--rm", "--name", "named", IMAGE]),
        "named\n",
        "the image's own command"
    );
    assert_eq!(
        site.ok(&[
            "run",
            "--rm",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            IMAGE,
            "sh",
            "-c",
            "echo $A; pwd"
        ]),
        "b\n/tmp\n"
    );
    assert!(
        site.ok(&["run", "--rm", "-u", "alice", IMAGE, "id"])
            .starts_with("uid=1000(alice) gid=1000")
    );
    assert_eq!(site.fails(&["run", "--rm", IMAGE, "sh", "-c", "exit 7"]).0, 7);
    let (code, text) = site.fails(&["run", "--rm", IMAGE, "no-such-program"]);
    assert!(
        code == 127 && text.contains("executable file not found"),
        "{code} {text}"
    );
    let (code, text) = site.fails(&["run", "--rm", IMAGE, "/etc/not-a-program"]);
    assert!(code == 126 && text.contains("Permission denied"), "{code} {text}");
    let (_, text) = site.fails(&["run", "--rm", "--read-only", IMAGE, "sh", "-c", "echo x >/file"]);
    assert!(text.contains("Read-only file system"), "{text}");

    std::fs::write(site.path().join("shared"), "from the host\n").expect("a file");
    let volume = format!("{}:/shared:ro", site.path().join("shared").display());
    assert_eq!(
        site.ok(&["run", "--rm", "-v", &volume, IMAGE, "cat", "/shared"]),
        "from the host\n"
    );
    let (_, text) = site.fails(&["run", "--rm", "-v", &volume, IMAGE, "sh", "-c", "echo x >/shared"]);
    assert!(text.contains("Read-only file system"), "{text}");
    let limited = [
        "run",
        "--rm",
        "--pids-limit",
        "4",
        IMAGE,
        "sh",
        "-c",
        "sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1",
    ];
    let output = site.run(&limited);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("can't fork"),
        "{output:?}"
    );

    let mut child = site.command(&["run", "--rm", "-i", IMAGE, "cat"]);
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("longshore");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"typed\n")
        .expect("written");
    assert_eq!(child.wait_with_output().expect("ends").stdout, b"typed\n");
    assert_eq!(site.ok(&["ps", "-a", "-q"]), "", "--rm removes");
    let left = before.since("/longshore-");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn attach_and_detach() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let script = "while read line; do echo got $line; done; exit 6";
    site.ok(&["run", "-d", "-i", "--name", "asks", IMAGE, "sh", "-c", script]);
    let attach = |words: &[&str]| {
        let mut command = site.command(&[&["attach"], words].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("longshore")
    };
    let mut first = attach(&["asks"]);
    let mut typed = first.stdin.take().expect("a pipe");
    typed.write_all(b"one\n").expect("typed");
    let mut shown = std::io::BufReader::new(first.stdout.take().expect("a pipe"));
    let mut line = String::new();
    shown.read_line(&mut line).expect("a line");
    assert_eq!(line, "got one\n");
    let mut second = attach(&["--detach-keys", "ctrl-p,x", "asks"]);
    second.stdin.take().expect("a pipe").write_all(b"\x10x").expect("typed");
    let left = second.wait_with_output().expect("it ends");
    assert!(left.status.success(), "{left:?}");
    assert!(
        String::from_utf8_lossy(&left.stderr).contains("detached from asks"),
        "{left:?}"
    );
    assert!(site.ok(&["ps"]).contains("asks"));
    drop(typed);
    assert_eq!(
        first.wait().expect("it ends").code(),
        Some(6),
        "the end of its input is the container's"
    );
    let (_, text) = site.fails(&["attach", "asks"]);
    assert!(text.contains("stopped"), "{text}");
    assert_eq!(site.ok(&["logs", "asks"]), "got one\n");
    site.ok(&["rm", "asks"]);
    let (_, text) = site.fails(&["run", "-d", "-i", "--log-driver", "none", IMAGE, "cat"]);
    assert!(text.contains("need a log"), "{text}");
    let (_, text) = site.fails(&[
        "run",
        "-d",
        "--log-driver",
        "journald",
        "--log-opt",
        "max-size=1m",
        IMAGE,
        "cat",
    ]);
    assert!(text.contains("logs in files"), "{text}");
}

/// A terminal, of which this is the person's side.
struct Person {
    master: File,
    terminal: File,
    shown: Arc<Mutex<String>>,
    before: String,
}

impl Person {
    fn sit_down() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).expect("open");
        let (master, terminal) = (File::from(master), File::from(terminal));
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, text) = (master.try_clone().expect("a copy"), shown.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                text.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        let before = modes(&terminal);
        Self {
            master,
            terminal,
            shown,
            before,
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.terminal, size).expect("resized");
    }

    /// Runs a command there, and waits until every key goes to the container as it is.
    fn start(&self, site: &Site, words: &[&str]) -> Child {
        let end = || Stdio::from(self.terminal.try_clone().expect("a copy"));
        let mut command = site.command(words);
        let mut child = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("longshore");
        while modes(&self.terminal) == self.before {
            if let Some(status) = child.try_wait().expect("known") {
                panic!("{words:?} ended with {status}: {}", self.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Types this until that is shown.
    fn types(&self, keys: &str, expected: &str) {
        while !self.text().contains(expected) {
            (&self.master).write_all(keys.as_bytes()).expect("typed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a command ended, after which the terminal is as it was.
    fn ends(&self, mut child: Child) -> Option<i32> {
        let status = child.wait().expect("it ends");
        assert_eq!(modes(&self.terminal), self.before, "{}", self.text());
        status.code()
    }
}

fn modes(terminal: &File) -> String {
    let modes = rustix::termios::tcgetattr(terminal).expect("a terminal");
    format!(
        "{:?} {:?} {:?}",
        modes.input_modes, modes.output_modes, modes.local_modes
    )
}

fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it is there");
}

#[test]
fn a_person_at_a_terminal_gets_it_back() {
    use rustix::process::Signal;
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let person = Person::sit_down();
    person.resize(33, 77);
    let script = "while read line; do busybox stty size; echo got-$line; done";
    site.ok(&["run", "-dit", "--name", "box", IMAGE, "sh", "-c", script]);

    let attached = person.start(&site, &["attach", "box"]);
    person.types("one\r", "got-one");
    person.types("\r", "33 77");
    person.resize(44, 88);
    send(&attached, Signal::WINCH);
    person.types("\r", "44 88");
    send(&attached, Signal::TERM);
    assert_eq!(person.ends(attached), Some(143));

    let attached = person.start(&site, &["attach", "box"]);
    (&person.master).write_all(b"\x10\x11").expect("typed");
    assert_eq!(person.ends(attached), Some(0));
    assert!(site.ok(&["ps"]).contains("box"), "it goes on");

    let other = person.start(
        &site,
        &[
            "exec",
            "-it",
            "box",
            "sh",
            "-c",
            "read word; echo word-$word; sleep 1000",
        ],
    );
    person.types("two\r", "word-two");
    send(&other, Signal::HUP);
    assert_eq!(person.ends(other), Some(129));

    let run = person.start(
        &site,
        &[
            "run",
            "-it",
            "--rm",
            IMAGE,
            "sh",
            "-c",
            "read word; busybox stty size; exit 5",
        ],
    );
    (&person.master).write_all(b"three\r").expect("typed");
    assert_eq!(person.ends(run), Some(5));
    site.ok(&["rm", "-f", "box"]);
}

#[test]
fn run_in_the_background() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let before = Leftovers::now("/longshore-");
    let script = "echo out; echo err >&2; trap 'echo bye; exit 3' TERM; while :; do sleep 0.1; done";
    assert_eq!(
        site.ok(&["run", "-d", "--name", "web", IMAGE, "sh", "-c", script]),
        "web\n"
    );
    assert!(site.ok(&["ps"]).contains("running"));
    let (code, text) = site.fails(&["run", "-d", "--name", "web", IMAGE]);
    assert!(code == 125 && text.contains("exists already"), "{text}");
    assert_eq!(site.ok(&["exec", "web", "hostname"]), "web\n");
    assert_eq!(site.fails(&["exec", "web", "sh", "-c", "exit 9"]).0, 9);
    let (_, text) = site.fails(&["rm", "web"]);
    assert!(text.contains("-f kills it first"), "{text}");
    assert_eq!(site.ok(&["stop", "web"]), "web\n");
    assert!(
        site.ok(&["ps", "-a"]).contains("exited (3)"),
        "{}",
        site.ok(&["ps", "-a"])
    );
    assert_eq!(site.ok(&["logs", "web"]), "out\nbye\n");
    let (_, text) = site.fails(&["exec", "web", "true"]);
    assert!(text.contains("stopped"), "{text}");
    assert_eq!(site.ok(&["rm", "web"]), "web\n");

    assert_eq!(site.ok(&["run", "--name", "short", IMAGE]), "short\n");
    assert!(
        site.ok(&["ps", "-a"]).contains("/bin/hostname"),
        "the image's command is shown"
    );
    site.ok(&["rm", "short"]);
    site.ok(&["run", "-d", "--name", "sleeper", IMAGE, "sleep", "100"]);
    site.ok(&["kill", "-s", "KILL", "sleeper"]);
    assert_eq!(site.ok(&["rm", "-f", "sleeper"]), "sleeper\n");
    let (code, text) = site.fails(&["logs", "nobody"]);
    assert!(code == 125 && text.contains("does not exist"), "{text}");
    assert_eq!(site.ok(&["rmi", IMAGE]), format!("{IMAGE}\n"));
    assert_eq!(site.ok(&["images", "-q"]), "");
    let left = before.since("/longshore-");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_depends_on_others_is_started_after_them() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let run = |name: &str, options: &[&str], script: &str| {
        let words = [
            &["run", "-d", "--name", name][..],
            options,
            &[IMAGE, "sh", "-c", script],
        ]
        .concat();
        site.run(&words)
    };
    let stays = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let db = format!("sleep 0.2; : >/well; {stays}");
    let checked = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "10ms",
        "--health-retries",
        "100000",
    ];
    assert!(run("db", &checked, &db).status.success());
    assert!(run("once", &[], "sleep 0.2").status.success());
    let web = run(
        "web",
        &["--depends-on", "db:healthy", "--depends-on", "once:completed"],
        &format!("echo up; {stays}"),
    );
    assert_eq!(
        String::from_utf8_lossy(&web.stdout),
        "web\n",
        "{}",
        String::from_utf8_lossy(&web.stderr)
    );
    site.ok(&["exec", "db", "sh", "-c", "test -e /well"]);
    assert!(
        site.ok(&["ps", "--all"]).contains("exited (0)"),
        "{}",
        site.ok(&["ps", "--all"])
    );

    // Those that need others are stopped first, and what has ended is started again, after what it needs and with its log.
    assert_eq!(site.ok(&["stop", "db", "web"]), "web\ndb\n");
    assert_eq!(site.ok(&["start", "web"]), "web\n");
    let starts = site.ok(&["events", "--since", "1h", "--filter", "topic==/tasks/start"]);
    let count = |name: &str| starts.lines().filter(|line| line.contains(name)).count();
    assert_eq!((count("db"), count("once"), count("web")), (2, 1, 2), "{starts}");
    assert_eq!(site.ok(&["stop", "web"]), "web\n");
    assert_eq!(site.ok(&["logs", "web"]), "up\nup\n");

    assert!(run("fails", &[], "exit 3").status.success());
    for (needs, complaint) in [
        ("nobody", "'nobody' does not exist"),
        ("once:healthy", "no health check"),
        ("fails:completed", "ended with 3"),
        ("fails", "`longshore start fails` starts it"),
        ("fails:sometime", "started, healthy or completed"),
    ] {
        let output = run("never", &["--depends-on", needs], "exit 0");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(complaint), "{needs}: {told}");
    }
    let (_, told) = site.fails(&["run", "--health-retries", "3", IMAGE]);
    assert!(told.contains("--health-cmd"), "{told}");
    assert!(!site.ok(&["ps", "--all"]).contains("never"));
    site.ok(&["rm", "-f", "db", "once", "web", "fails"]);
    assert_eq!(site.ok(&["ps", "--all", "-q"]), "");
}

#[test]
fn blobs_are_listed_and_verified() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let listed = site.ok(&["content", "ls", "-q"]);
    let digests: Vec<&str> = listed.lines().collect();
    assert!(digests.len() >= 3, "{listed}");
    assert!(site.ok(&["content", "ls"]).contains(digests[0]));
    assert_eq!(
        site.ok(&["content", "active"]).lines().count(),
        1,
        "nothing was cut off"
    );
    assert_eq!(site.ok(&["content", "verify"]), "");

    let directory = site.path().join("root/content/blobs/sha256");
    let path = directory.join(digests[0].trim_start_matches("sha256:"));
    let whole = std::fs::read(&path).expect("a blob");
    let mut damaged = whole.clone();
    damaged[0] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let found = site
        .command(&["content", "verify", "--speed", "1g"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&found.stdout);
    assert_eq!(found.status.code(), Some(1));
    assert!(text.contains(&format!("{} is damaged", digests[0])), "{text}");
    // The image came from a layout, where this command does not look.
    assert_eq!(site.fails(&["content", "verify", "--repair"]).0, 1);
    assert_eq!(
        std::fs::read(&path).expect("a blob"),
        damaged,
        "what can't be repaired stays"
    );
    std::fs::write(&path, &whole).expect("written");
    let got = site.command(&["content", "get", digests[0]]).output().expect("it runs");
    assert!(got.status.success() && got.stdout == whole);
    assert_eq!(site.fails(&["content", "get", "sha256:12"]).0, 125);
}

#[test]
fn space_is_freed_and_told() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let blobs = || {
        let directory = site.path().join("root/content/blobs/sha256");
        std::fs::read_dir(directory)
            .expect("blobs")
            .filter_map(|blob| blob.ok()?.file_name().into_string().ok())
            .collect::<Vec<_>>()
    };
    let usage = site.ok(&["system", "df"]);
    assert!(usage.contains(IMAGE) && usage.contains("would free 0 B"), "{usage}");
    let why = site.ok(&["gc", "--explain", &format!("sha256:{}", blobs()[0])]);
    assert!(
        why.starts_with(&format!("image '{IMAGE}' (namespace 'default') -> content/sha256:")),
        "{why}"
    );
    assert_eq!(site.ok(&["gc"]), "freed 0 B\n");

    site.ok(&["run", "--name", "done", IMAGE]);
    site.ok(&["run", "-d", "--name", "busy", IMAGE, "sleep", "100"]);
    let (code, text) = site.fails(&["prune", "--all"]);
    assert!(code == 125 && text.contains("-f removes without asking"), "{text}");
    let pruned = site.ok(&["system", "prune", "--all", "-f"]);
    assert!(
        pruned.starts_with("done\nfreed "),
        "a running container and its image stay: {pruned}"
    );

    let (code, text) = site.fails(&["rmi", "nobody/nothing", IMAGE]);
    assert!(
        code == 1 && text.contains("nobody/nothing") && text.contains("freed 0 B"),
        "the rest of the list is done, and the container holds it: {text}"
    );
    assert!(!blobs().is_empty());
    let (code, text) = site.fails(&["rm", "-f", "nobody", "busy"]);
    assert!(code == 1 && text.contains("'nobody' does not exist"), "{text}");
    let dry = site.ok(&["gc", "--dry-run"]);
    assert!(dry.contains("content/sha256:") && dry.contains("would free"), "{dry}");
    let gone = blobs()[0].clone();
    assert_eq!(site.fails(&["gc", "--explain", &format!("sha256:{gone}")]).0, 1);
    assert_eq!(site.ok(&["gc"]), dry.replace("would free", "freed"));
    assert_eq!(blobs(), [""; 0]);
    assert_eq!(
        std::fs::read_dir(site.path().join("root/snapshots/overlay/snapshots"))
            .expect("snapshots")
            .count(),
        0
    );
}

#[test]
fn what_happened_is_told_and_filtered() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    site.ok(&["run", "-d", "--name", "web", IMAGE, "sh", "-c", "exit 7"]);
    site.ok(&["run", "--rm", "--name", "other", IMAGE]);
    // The copy in the background writes its own part; its container's end is the last of it.
    let exits = || site.ok(&["events", "--filter", "topic==/tasks/exit,event.container_id==web"]);
    while exits().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(
        exits().contains("default /tasks/exit container_id=web id=web pid=") && exits().contains("exit_status=7"),
        "{}",
        exits()
    );
    assert_eq!(exits().lines().count(), 1);
    // A signal goes past the engine, and is told all the same: who sent it, and what came of it.
    let (_, told) = site.fails(&["kill", "-s", "TERM", "web"]);
    let asked = site.ok(&[
        "events",
        "--filter",
        "topic==/longshore/request,event.target==web,by~=^longshore",
    ]);
    assert!(
        asked.contains(r#"request="signal 15" target=web outcome="#)
            && asked.contains("stopped")
            && told.contains("stopped"),
        "{asked}{told}"
    );
    let all = site.ok(&["events", "--since", "1h", "--json"]);
    let topics: Vec<String> = all
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|entry| {
            entry["event"]["kind"]
                .as_object()
                .expect("a kind")
                .keys()
                .next()
                .expect("a name")
                .clone()
        })
        .collect();
    for expected in [
        "content_create",
        "snapshot_commit",
        "image_create",
        "container_create",
        "task_create",
        "task_start",
        "task_exit",
        "task_delete",
        "container_delete",
    ] {
        assert!(
            topics.iter().any(|topic| topic == expected),
            "no {expected} in {topics:?}"
        );
    }
    let either = site.ok(&[
        "events",
        "--filter",
        "topic==/images/create",
        "--filter",
        "topic==/tasks/oom",
    ]);
    assert!(either.lines().count() == 1 && either.contains(IMAGE), "{either}");
    assert_eq!(site.ok(&["events", "--until", "0"]), "");
    let (code, text) = site.fails(&["events", "--filter", "topic=/x"]);
    assert!(code == 125 && text.contains("at byte 5"), "{text}");
    site.ok(&["rm", "web"]);
}

#[test]
fn mistakes_end_as_dockers_do() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    assert_eq!(site.fails(&["run", "--no-such-option", IMAGE]).0, 125);
    assert_eq!(site.fails(&["no-such-command"]).0, 125);
    assert!(site.ok(&["--help"]).contains("events"));
    // Nobody reads: it ends without a word.
    let mut child = site
        .command(&["images"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("longshore");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let logs = || std::fs::read_dir(site.path().join("root/logs")).map_or(0, |logs| logs.count());
    let (code, text) = site.fails(&["run", "-d", "--name", "bad", IMAGE, "/no/such"]);
    assert!(code == 127, "{code}: {text}");
    assert_eq!(
        (logs(), site.ok(&["ps", "-aq"])),
        (0, String::new()),
        "nothing of it is left"
    );
    site.ok(&["run", "-d", "--name", "good", IMAGE, "sleep", "100"]);
    site.fails(&["run", "-d", "--name", "good", IMAGE]);
    assert_eq!(
        (logs(), site.ok(&["ps", "-q"])),
        (1, "good\n".to_owned()),
        "the one that was there is left alone"
    );
    site.ok(&["rm", "-f", "good"]);
    assert_eq!(logs(), 0);
}

/// The signal that the image asks for ends a container that ignores SIGTERM.
#[test]
fn stop_sends_what_the_image_asks_for() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let script = "umoci config --image box:1 --tag polite --config.stopsignal SIGUSR1";
    let made = Command::new("bash")
        .args(["-euc", script])
        .current_dir(site.path())
        .output()
        .expect("bash");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    site.ok(&["pull", "oci:box:polite"]);
    let image = "layout.localhost/box:polite";
    let script = "trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    site.ok(&["run", "-d", "--name", "polite", image, "sh", "-c", script]);
    while !site.ok(&["logs", "polite"]).contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    site.ok(&["stop", "-t", "60", "polite"]);
    assert!(
        site.ok(&["ps", "-a"]).contains("exited (5)"),
        "{}",
        site.ok(&["ps", "-a"])
    );
    site.ok(&["rm", "polite"]);
}

/// A signal between the create and the start leaves no container behind.
#[test]
fn a_signal_before_the_start_leaves_nothing() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    for wait in [5, 20, 40, 60, 80, 120, 160] {
        let mut child = site
            .command(&["run", "--rm", "--name", "short", IMAGE, "sleep", "0.3"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("longshore");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        child.wait().expect("it ends");
        assert_eq!(site.ok(&["ps", "-aq"]), "", "after {wait} ms");
    }
}

#[test]
fn damaged_metadata_is_recovered_from() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    assert_eq!(site.ok(&["system", "recover"]), "", "nothing is lost");
    std::fs::write(site.path().join("root/metadata.redb"), "damaged ".repeat(5_000)).expect("written");
    let (code, text) = site.fails(&["images"]);
    assert!(code == 125 && text.contains("metadata.redb"), "{text}");
    let told = site.ok(&["system", "recover"]);
    let name = told.trim().strip_prefix("image ").expect("an image");
    assert_eq!(site.ok(&["images", "-q"]), format!("{name}\n"));
    assert_eq!(site.ok(&["run", "--rm", "--name", "again", name]), "again\n");
}

#[test]
fn what_a_container_changed_and_an_image_of_it() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let script = "echo new >/etc/new; echo more >>/etc/passwd; rm /etc/not-a-program";
    // `rm` is busybox's own word for it.
    site.ok(&[
        "run",
        "--name",
        "box",
        "--entrypoint",
        "/bin/busybox",
        IMAGE,
        "sh",
        "-c",
        &script.replace("rm ", "busybox rm "),
    ]);
    // The image has no directories to mount these on.
    let expected = "A /dev\nC /etc\nA /etc/new\nD /etc/not-a-program\nC /etc/passwd\nA /proc\nA /sys\n";
    assert_eq!(site.ok(&["diff", "box"]), expected);
    let digest = site.ok(&[
        "commit",
        "-m",
        "a word",
        "-c",
        "CMD [\"cat\", \"/etc/new\"]",
        "--pause=false",
        "box",
        "made:2",
    ]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    assert!(site.ok(&["images", "-q"]).contains("docker.io/library/made:2"));
    assert_eq!(site.ok(&["run", "--rm", "made:2"]), "new\n");
    let (code, text) = site.fails(&["commit", "-c", "RUN x", "box", "made:3"]);
    assert!(code == 125 && text.contains("RUN is not one of CMD"), "{code} {text}");
    assert_eq!(site.fails(&["diff", "nobody"]).0, 125);
    site.ok(&["rm", "box"]);
    assert_eq!(site.ok(&["ps", "-aq"]), "");
}

#[test]
fn devices_come_by_their_nodes_and_by_their_cdi_names() {
    let site = match Site::new() {
        Ok(site) => site,
        Err(why) => return skip(&why),
    };
    let directory = site.path().join("cdi");
    let (cdi, hooked) = (directory.to_str().expect("UTF-8"), site.path().join("hooked"));
    let document = serde_json::json!({
        "cdiVersion": "0.7.0", "kind": "acme.example/pump",
        "containerEdits": {"env": ["ACME=1"]},
        "devices": [{"name": "left", "containerEdits": {
            "env": ["PUMP=left"],
            "deviceNodes": [{"path": "/dev/pump0", "hostPath": "/dev/zero", "permissions": "r"}],
            "mounts": [{"hostPath": site.path(), "containerPath": "/acme", "options": ["ro", "nosuid", "nodev", "bind"]}],
            "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", format!("echo ran >{}", hooked.display())]}],
            "additionalGids": [4242],
        }}],
    });
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::write(directory.join("acme.json"), document.to_string()).expect("written");
    std::fs::write(site.path().join("driver"), "of acme\n").expect("written");
    let script = "echo $ACME $PUMP; cat /acme/driver; busybox head -c 3 /dev/pump0 | busybox wc -c; id -G; \
        busybox head -c 2 /dev/own | busybox wc -c";
    let words = [
        "run",
        "--rm",
        "--user",
        "alice",
        "--cdi-spec-dir",
        cdi,
        "--device",
        "acme.example/pump=left",
    ];
    let rest = ["--device", "/dev/zero:/dev/own:r", IMAGE, "sh", "-c", script];
    let said = site.ok(&[&words[..], &rest].concat());
    assert_eq!(said, "1 left\nof acme\n3\n1000 4242\n2\n");
    assert_eq!(std::fs::read_to_string(hooked).expect("the hook ran"), "ran\n");

    let asked = |device: &str| site.fails(&["run", "--rm", "--cdi-spec-dir", cdi, "--device", device, IMAGE]);
    for (device, complaint) in [
        ("acme.example/pump=right", "there are acme.example/pump=left"),
        ("acme", "a name looks like vendor.com/class=device"),
        ("/dev/no-such", "looking at /dev/no-such"),
    ] {
        let (code, message) = asked(device);
        assert!(code != 0 && message.contains(complaint), "{device}: {code}, {message}");
    }
    assert_eq!(site.ok(&["ps", "-a"]).lines().count(), 1, "nothing is left");
}
