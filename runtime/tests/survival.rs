//! Containers and the death of the program that made them.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use longshore_runtime::{
    ContainerId, DeleteMode, Executor, Io, KillScope, Lifetime, LinuxExecutor, LogFile, LogFormat, LogReader,
    OutputStream, ProcessId, Status,
};
use support::{new_id, place, spec};

const ROLE: &str = "LONGSHORE_TEST_HOST_DIR";

/// Not a test: the host program that the tests kill. It makes containers until it dies.
#[test]
fn host_program() {
    let Some(dir) = std::env::var_os(ROLE) else { return };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
    let lifetime = if dir.join("detached").exists() {
        Lifetime::Detached
    } else {
        Lifetime::Tied
    };
    runtime.block_on(async {
        loop {
            let id = new_id();
            let script = fs::read_to_string(dir.join("script"));
            let mut spec = match &script {
                Ok(script) => spec(&["sh", "-c", script]),
                Err(_) => spec(&["sleep", "1000"]),
            };
            if dir.join("terminal").exists() {
                spec["process"]["terminal"] = true.into();
            }
            let io = match fs::read(dir.join("log-as")) {
                Ok(log) => Io::log(serde_json::from_slice(&log).expect("a log")),
                Err(_) => Io::null(),
            };
            let spec = support::parse(&spec);
            let request = longshore_runtime::CreateRequest::new(id.clone(), dir, spec, io).lifetime(lifetime);
            executor.create(request).await.expect("created");
            if dir.join("only-create").exists() {
                fs::write(dir.join("ready"), id.as_str()).expect("a file");
                std::process::exit(0);
            }
            executor.start(&id).await.expect("started");
            if lifetime == Lifetime::Detached {
                fs::write(dir.join("ready"), id.as_str()).expect("a file");
                tokio::time::sleep(Duration::from_secs(1000)).await;
            }
        }
    });
}

fn start_host(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "host_program", "--nocapture"])
        .env(ROLE, dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Processes whose root is the test's root filesystem, or that hold it.
fn sleepers(dir: &Path) -> usize {
    let is_ours = |entry: fs::DirEntry| {
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\x001000")
            && cgroup.contains("/longshore-")
            && fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|m| m.contains(dir.to_str().expect("text")))
    };
    fs::read_dir("/proc")
        .expect("readable")
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|e| fs::metadata(e.path()).is_ok())
        .filter_map(|e| is_ours(e).then_some(()))
        .count()
}

fn groups(prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for group in fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if group
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("longshore-{prefix}"))
            {
                found.push(group.path().display().to_string());
            }
        }
    }
    found
}

#[test]
fn killed_at_any_moment_a_host_leaves_nothing_that_the_next_one_does_not_clean_up() {
    let Some(place) = place() else { return };
    let before = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    for round in 0..30u64 {
        let mut host = start_host(place.dir.path());
        std::thread::sleep(Duration::from_millis(15 + round * 7 % 60));
        host.kill().expect("it is killed");
        host.wait().expect("it ends");
        let prefix = format!("t{}-", host.id());
        drop(LinuxExecutor::open(place.dir.path().join("state")).expect("it opens"));
        let left: Vec<_> = fs::read_dir(place.dir.path().join("state"))
            .expect("readable")
            .flatten()
            .map(|e| e.path())
            .collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        assert_eq!(groups(&prefix), Vec::<String>::new(), "round {round}");
    }
    assert_eq!(sleepers(place.dir.path()), 0);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("readable"), before);
}

/// Has a host make a detached container that runs, and kills the host.
async fn outlive_a_host(dir: &Path) -> ContainerId {
    fs::write(dir.join("detached"), "").expect("a file");
    let ready = dir.join("ready");
    let _ = fs::remove_file(&ready);
    let mut host = start_host(dir);
    // The file is there before the id is in it.
    while fs::read_to_string(&ready).unwrap_or_default().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.kill().expect("it is killed");
    host.wait().expect("it ends");
    fs::read_to_string(&ready).expect("an id").parse().expect("an id")
}

/// What the state directory says of a container.
fn record(dir: &Path, id: &ContainerId) -> serde_json::Value {
    let path = dir.join("state").join(id.as_str()).join("state.json");
    serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON")
}

fn pid_of(record: &serde_json::Value, who: &str) -> i32 {
    record[who]["pid"].as_i64().expect("a pid") as i32
}

/// Whether a process is there that has not ended.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

async fn until_gone(pid: i32) {
    while lives(pid) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn how_and_when_a_container_ended_is_known_although_no_host_lived() {
    let Some(place) = place() else { return };
    let (dir, go) = (place.dir.path(), place.dir.path().join("rootfs/go"));
    let script = "while ! test -e /go; do sleep 0.01; done; exit 7";
    fs::write(dir.join("script"), script).expect("a file");
    for (name, code) in [("it exits", 7), ("a signal ends it", 128 + 9)] {
        let id = outlive_a_host(dir).await;
        let record = record(dir, &id);
        let (init, monitor) = (pid_of(&record, "init"), pid_of(&record, "monitor"));
        assert!(lives(init) && lives(monitor), "{name}");
        let before = SystemTime::now();
        match code {
            7 => fs::write(&go, "").expect("a file"),
            _ => rustix::process::kill_process(
                rustix::process::Pid::from_raw(init).expect("a pid"),
                rustix::process::Signal::KILL,
            )
            .expect("it is killed"),
        }
        until_gone(init).await;
        until_gone(monitor).await;
        let after = SystemTime::now();
        let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
        let state = executor.state(&id).await.expect("known");
        assert_eq!(state.status, Status::Stopped, "{name}");
        let exit = state.exit.expect("somebody saw it");
        assert_eq!(exit.code, code, "{name}");
        assert!((before..=after).contains(&exit.at), "{name}: {exit:?}");
        for _ in 0..2 {
            let again = executor.wait(&id, &ProcessId::Init).await.expect("it is told");
            assert_eq!(again, exit, "{name}");
        }
        executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
        let _ = fs::remove_file(&go);
    }
}

#[tokio::test]
async fn what_a_container_says_while_no_host_lives_is_in_its_log_to_the_last_byte() {
    let Some(place) = place() else { return };
    let (dir, go) = (place.dir.path(), place.dir.path().join("rootfs/go"));
    let script = "echo before; while ! test -e /go; do sleep 0.01; done; seq 1 5000; echo wrong >&2; printf last";
    fs::write(dir.join("script"), script).expect("a file");
    let numbers = (1..=5000).fold(String::new(), |text, number| text + &format!("{number}\n"));
    for format in [LogFormat::Json, LogFormat::Cri] {
        for terminal in [false, true] {
            let log = LogFile::new(dir.join(format!("log-{format:?}-{terminal}")));
            let log = log.format(format).rotate(20_000, 100);
            fs::write(dir.join("log-as"), serde_json::to_vec(&log).expect("JSON")).expect("a file");
            if terminal {
                fs::write(dir.join("terminal"), "").expect("a file");
            }
            let id = outlive_a_host(dir).await;
            let monitor = pid_of(&record(dir, &id), "monitor");
            let followed = LogReader::open(log.path()).expect("it opens");
            assert!(followed.is_written(), "the monitor has it open");
            fs::write(&go, "").expect("a file");
            until_gone(monitor).await;
            let mut reader = LogReader::open(log.path()).expect("it opens");
            let records = reader.all().expect("readable");
            let said = |stream| {
                let of_it = records.iter().filter(|record| record.stream == stream);
                let text = of_it.flat_map(|record| record.text.clone()).collect();
                String::from_utf8(text).expect("text").replace("\r\n", "\n")
            };
            let case = format!("{format:?}, terminal: {terminal}");
            match terminal {
                false => {
                    assert_eq!(said(OutputStream::Stdout), format!("before\n{numbers}last"), "{case}");
                    assert_eq!(said(OutputStream::Stderr), "wrong\n", "{case}");
                }
                true => assert_eq!(
                    said(OutputStream::Stdout),
                    format!("before\n{numbers}wrong\nlast"),
                    "{case}"
                ),
            }
            assert!(!reader.is_written(), "{case}");
            let mut first = log.path().as_os_str().to_owned();
            first.push(".1");
            assert!(Path::new(&first).exists(), "{case}: it was rotated");
            let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
            executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
            fs::remove_file(&go).expect("it is there");
        }
        fs::remove_file(dir.join("terminal")).expect("it is there");
    }
}

#[tokio::test]
async fn who_waits_is_told_by_the_monitor_of_another_host() {
    let Some(place) = place() else { return };
    let dir = place.dir.path();
    let script = "while ! test -e /go; do sleep 0.01; done; exit 7";
    fs::write(dir.join("script"), script).expect("a file");
    let id = outlive_a_host(dir).await;
    let first = LinuxExecutor::open(dir.join("state")).expect("it opens");
    let second = LinuxExecutor::open_on_this_thread(dir.join("state")).expect("it opens");
    let waits = tokio::spawn({
        let id = id.clone();
        async move { first.wait(&id, &ProcessId::Init).await }
    });
    tokio::task::yield_now().await;
    fs::write(dir.join("rootfs/go"), "").expect("a file");
    let exit = waits.await.expect("no panic").expect("it is told");
    assert_eq!(exit.code, 7);
    assert_eq!(second.wait(&id, &ProcessId::Init).await.expect("it is told"), exit);
    second.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn a_container_whose_monitor_was_killed_goes_on_and_can_be_deleted() {
    let Some(place) = place() else { return };
    let dir = place.dir.path();
    let id = outlive_a_host(dir).await;
    let record = record(dir, &id);
    let (init, monitor) = (pid_of(&record, "init"), pid_of(&record, "monitor"));
    let monitor = rustix::process::Pid::from_raw(monitor).expect("a pid");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        rustix::process::kill_process(monitor, signal).expect("it is there");
    }
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).expect("it was not ended by the others");
    until_gone(monitor.as_raw_nonzero().get()).await;
    assert!(lives(init));
    let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
    assert_eq!(executor.state(&id).await.expect("known").status, Status::Running);
    executor.kill(&id, 9, KillScope::Init).await.expect("a signal is sent");
    let exit = executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    assert!([137, 255].contains(&exit.code), "{exit:?}: the kernel tells, or nobody");
    executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test]
async fn a_monitor_has_little_and_shares_nothing_with_its_host() {
    let Some(place) = place() else { return };
    let dir = place.dir.path();
    let id = outlive_a_host(dir).await;
    let monitor = pid_of(&record(dir, &id), "monitor");
    let proc = Path::new("/proc").join(monitor.to_string());
    let link = |name: &str| fs::read_link(proc.join(name)).expect("a link").display().to_string();
    let files: Vec<_> = fs::read_dir(proc.join("fd"))
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    for stream in ["0", "1", "2"] {
        assert_eq!(link(&format!("fd/{stream}")), "/dev/null");
    }
    let directory = dir.join("state").join(id.as_str()).canonicalize().expect("it is there");
    let others = files
        .iter()
        .map(|fd| link(&format!("fd/{}", fd.display())))
        .filter(|to| to != "/dev/null");
    for other in others {
        let known = ["socket:", "anon_inode:[pidfd]", "pidfd:"]
            .iter()
            .any(|kind| other.starts_with(kind));
        assert!(known || Path::new(&other) == directory, "{other}");
    }
    assert_eq!(link("cwd"), "/");
    let stat = fs::read_to_string(proc.join("stat")).expect("readable");
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_ascii_whitespace()
        .collect();
    assert_eq!(fields[3], monitor.to_string(), "it leads a session of its own");
    assert_eq!(
        fs::read_to_string(proc.join("comm")).expect("readable"),
        "longshore-mon\n"
    );
    let maps = fs::read_to_string(proc.join("maps")).expect("readable");
    assert!(!maps.contains("[heap]"), "{maps}");
    let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
    executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    assert!(!lives(monitor));
}

#[tokio::test]
async fn a_detached_container_survives_its_host_and_is_found_again() {
    let Some(place) = place() else { return };
    let id = outlive_a_host(place.dir.path()).await;
    let executor = LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    assert_eq!(executor.state(&id).await.expect("known").status, Status::Running);
    executor.kill(&id, 9, KillScope::Init).await.expect("a signal is sent");
    let exit = executor
        .wait(&id, &longshore_runtime::ProcessId::Init)
        .await
        .expect("it ends");
    assert_eq!(exit.code, 137);
    executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
    assert!(executor.list().await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_program_that_ends_right_after_the_create_leaves_a_container_to_start() {
    let Some(place) = place() else { return };
    for mark in ["detached", "only-create"] {
        fs::write(place.dir.path().join(mark), "").expect("a file");
    }
    let executor = LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    for round in 0..20 {
        start_host(place.dir.path()).wait().expect("it ends");
        let id = fs::read_to_string(place.dir.path().join("ready"))
            .expect("an id")
            .parse()
            .expect("an id");
        assert_eq!(
            executor.state(&id).await.expect("known").status,
            Status::Created,
            "round {round}"
        );
        executor.start(&id).await.expect("it starts");
        assert_eq!(executor.state(&id).await.expect("known").status, Status::Running);
        executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_monitor_sleeps_while_its_container_does() {
    let Some(place) = place() else { return };
    let dir = place.dir.path();
    let log = LogFile::new(dir.join("log"));
    fs::write(dir.join("log-as"), serde_json::to_vec(&log).expect("JSON")).expect("a file");
    let id = outlive_a_host(dir).await;
    let monitor = pid_of(&record(dir, &id), "monitor");
    // The times that it has been woken or interrupted: one that runs all the time has many more.
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{monitor}/status")).expect("readable");
        let of = |line: &str| {
            line.split_once("_ctxt_switches:")
                .and_then(|(_, n)| n.trim().parse::<u64>().ok())
        };
        status.lines().filter_map(of).sum::<u64>()
    };
    let asleep = || {
        let status = fs::read_to_string(format!("/proc/{monitor}/status")).expect("readable");
        status.contains("\nState:\tS")
    };
    // It waits with a limit once, and then without one.
    let (mut before, mut same) = (switches(), 0);
    for _ in 0..600 {
        if same == 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = switches();
        same = if now == before && asleep() { same + 1 } else { 0 };
        before = now;
    }
    assert_eq!(
        same, 20,
        "it was awake in the middle of two seconds, again and again for a minute"
    );
    let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
    executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
