//! Containers and the death of the program that made them.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore_runtime::{DeleteMode, Executor, Io, KillScope, Lifetime, LinuxExecutor, Status};
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
            let spec = support::parse(&spec(&["sleep", "1000"]));
            let request = longshore_runtime::CreateRequest::new(id.clone(), dir, spec, Io::null()).lifetime(lifetime);
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
            && cgroup.contains("/longshore/")
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
        for group in fs::read_dir(hierarchy.path().join("longshore"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if group.file_name().to_string_lossy().starts_with(prefix) {
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

#[tokio::test]
async fn a_detached_container_survives_its_host_and_is_found_again() {
    let Some(place) = place() else { return };
    fs::write(place.dir.path().join("detached"), "").expect("a file");
    let mut host = start_host(place.dir.path());
    let ready = place.dir.path().join("ready");
    // The file is there before the id is in it.
    while fs::read_to_string(&ready).unwrap_or_default().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.kill().expect("it is killed");
    host.wait().expect("it ends");
    let executor = LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    let id = fs::read_to_string(&ready).expect("an id").parse().expect("an id");
    assert_eq!(executor.state(&id).await.expect("known").status, Status::Running);
    executor.kill(&id, 9, KillScope::Init).await.expect("a signal is sent");
    let exit = executor
        .wait(&id, &longshore_runtime::ProcessId::Init)
        .await
        .expect("it ends");
    assert!(
        [137, 255].contains(&exit.code),
        "{exit:?}: the kernel tells it, or nobody knows"
    );
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
