//! The program of the README's first command, used as a newcomer would: as root, as an ordinary user, killed at any moment.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_testing::{Leftovers, require_root, skip};

/// The container has the same name, and so the same cgroup, in every root: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quickstart(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.env("LONGSHORE_ROOT", root).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}\n--- stderr ---\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_main_job_works_from_end_to_end() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let output = quickstart(folder.path()).output().expect("quickstart");
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for expected in [
        "hello from a container: pid 1, user 0, host name quickstart",
        " default /images/create",
        " default /snapshot/commit",
        " default /tasks/start",
        " default /tasks/exit",
        " default /containers/delete",
        "resolve, pull, verify, unpack",
        "longshore_pull_bytes_total",
    ] {
        assert!(told.contains(expected), "'{expected}' is missing from:\n{told}");
    }
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    if let Err(why) = require_root() {
        return skip(&format!("{why} to become an ordinary user"));
    }
    const NOBODY: u32 = 65534;
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
    // The program may lie where others can't look.
    let program = folder.path().join("quickstart");
    longshore_testing::copy_program(env!("CARGO_BIN_EXE_quickstart"), &program).expect("a copy of the program");
    let mut command = Command::new(&program);
    command
        .env("LONGSHORE_ROOT", folder.path().join("root"))
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null());
    let output = command
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .expect("quickstart");
    let told = text(&output);
    if told.contains("user namespaces") && !output.status.success() {
        return skip("this machine does not let ordinary users make user namespaces");
    }
    assert!(output.status.success(), "{told}");
    assert!(told.contains("hello from a container: pid 1, user 0"), "{told}");
}

#[test]
fn a_command_of_ones_own_and_its_exit_code() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let output = quickstart(folder.path())
        .args(["--", "/bin/sh", "-c", "echo mine; exit 7"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(
        text(&output).contains("\nmine\n") || text(&output).starts_with("mine\n"),
        "{}",
        text(&output)
    );
}

/// Killed with SIGKILL at moments spread over its whole run: each time the next run works, and nothing is left behind.
#[test]
fn killed_at_any_moment_the_next_run_works_and_nothing_is_left() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let times: u64 = std::env::var("LONGSHORE_KILLS")
        .ok()
        .and_then(|times| times.parse().ok())
        .unwrap_or(12);
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a folder");
    let marker = "quickstart";
    let before = Leftovers::now(marker);
    let begun = std::time::Instant::now();
    let first = quickstart(folder.path()).output().expect("quickstart");
    assert!(first.status.success(), "{}", text(&first));
    let whole = begun.elapsed();
    for round in 0..times {
        // Every third round starts from nothing, so that pulls and unpacking are hit as well.
        if round % 3 == 0 {
            std::fs::remove_dir_all(folder.path().join("content")).expect("no content");
            std::fs::remove_dir_all(folder.path().join("snapshots")).expect("no snapshots");
            std::fs::remove_file(folder.path().join("metadata.redb")).expect("no metadata");
        }
        let mut child = quickstart(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("quickstart");
        std::thread::sleep(whole.mul_f64(pseudo_random(round)) + Duration::from_millis(1));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let next = quickstart(folder.path()).output().expect("quickstart");
        assert!(next.status.success(), "after kill {round}: {}", text(&next));
        let left = before.since(marker);
        assert!(left.is_empty(), "after kill {round}: {left:?}");
        let state: Vec<_> = std::fs::read_dir(folder.path().join("state"))
            .expect("state")
            .flatten()
            .collect();
        let named = state.iter().filter(|entry| entry.file_name() == "quickstart").count();
        assert_eq!(
            named, 0,
            "after kill {round}: the state directory holds the container still"
        );
    }
}

/// Spread over 0..1, different each round and each run of the test.
fn pseudo_random(round: u64) -> f64 {
    let seed = std::process::id() as u64;
    let mixed = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd1b5_4a32_d192_ed03);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}
