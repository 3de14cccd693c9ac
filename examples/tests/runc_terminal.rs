//! `longshore-runc` at a terminal, over a console socket, and under signals.
#![allow(clippy::unwrap_used)]

mod runc;

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use longshore_testing::{require_tool, skip};
use runc::{Bench, OURS, ran, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

macro_rules! bench {
    ($script:expr) => {
        match Bench::new($script) {
            Ok(bench) => bench,
            Err(why) => return skip(&why),
        }
    };
}

/// Runs a command at a terminal of 33 × 77, types, sends a resize, and prints what was shown, the exit code, and whether the
/// terminal's modes are as before.
const AT_A_TERMINAL: &str = r#"
import os, pty, sys, termios, fcntl, struct, select, signal, time
def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
master, slave = pty.openpty()
size(master, 33, 77)
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2): os.dup2(slave, fd)
    os.execvp(sys.argv[1], sys.argv[1:])
shown = b""
def until(text):
    global shown
    end = time.time() + 20
    while text not in shown:
        if time.time() > end: raise SystemExit("never shown: %r in %r" % (text, shown))
        if select.select([master], [], [], 0.1)[0]: shown += os.read(master, 4096)
until(b"READY")
os.write(master, b"stty size\r")
until(b"33 77")
size(master, 44, 88)
os.write(master, b"sleep 1; stty size\r")
until(b"44 88")
os.write(master, b"\x03")
os.write(master, b"echo con''trol; exit 5\r")
until(b"control")
_, status = os.waitpid(pid, 0)
print("code", os.waitstatus_to_exitcode(status), "restored", termios.tcgetattr(slave) == before)
"#;

#[test]
fn a_person_at_a_terminal() {
    let Ok(python) = require_tool("python3") else {
        return skip("needs the program `python3`");
    };
    let bench = bench!("echo READY; exec sh");
    bench.edit(|config| config["process"]["terminal"] = true.into());
    let id = bench.id("tty");
    let ours = bench.command(OURS, &["run", &id]);
    let mut command = Command::new(&python);
    command
        .args(["-c", AT_A_TERMINAL])
        .arg(OURS)
        .args(ours.get_args())
        .current_dir(bench.bundle());
    let said = ran(command.output().unwrap());
    assert_eq!(said.stdout, "code 5 restored True\n", "{}", said.stderr);

    // The same for exec -t.
    bench.edit(|config| {
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", "while :; do sleep 1; done"]);
    });
    assert_eq!(bench.ours(&["run", "-d", &id]).code, Some(0));
    let ours = bench.command(OURS, &["exec", "-t", &id, "sh", "-c", "echo READY; exec sh"]);
    let mut command = Command::new(&python);
    command
        .args(["-c", AT_A_TERMINAL])
        .arg(OURS)
        .args(ours.get_args())
        .current_dir(bench.bundle());
    let said = ran(command.output().unwrap());
    assert_eq!(said.stdout, "code 5 restored True\n", "{}", said.stderr);
    bench.end();
}

#[test]
fn a_terminal_goes_over_the_console_socket() {
    let bench = bench!("test -t 0 && echo terminal; read word; echo got $word");
    bench.edit(|config| config["process"]["terminal"] = true.into());
    let id = bench.id("socket");
    let path = bench.path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accept = std::thread::spawn(move || receive(&listener.accept().unwrap().0));
    let ran = bench.ours(&["run", "-d", "--console-socket", path.to_str().unwrap(), &id]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (name, master) = accept.join().unwrap();
    assert_eq!(name, "/dev/ptmx");
    let mut master = File::from(master);
    master.write_all(b"word\n").unwrap();
    let mut shown = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..length]);
    }
    let shown = String::from_utf8_lossy(&shown).replace('\r', "");
    assert!(
        shown.contains("terminal\n") && shown.ends_with("got word\n"),
        "{shown:?}"
    );
    bench.wait_for(&id, "stopped");
    bench.end();
}

#[test]
fn a_pidfd_goes_over_its_socket() {
    let bench = bench!("while :; do sleep 1; done");
    let id = bench.id("pidfd");
    let path = bench.path("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accept = std::thread::spawn(move || receive(&listener.accept().unwrap().0));
    let ran = bench.ours(&["run", "-d", "--pidfd-socket", path.to_str().unwrap(), &id]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (_, pidfd) = accept.join().unwrap();
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    bench.wait_for(&id, "stopped");
    bench.end();
}

fn receive(stream: &UnixStream) -> (String, OwnedFd) {
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (
        String::from_utf8_lossy(&text[..received.bytes]).into_owned(),
        descriptor.unwrap(),
    )
}

/// Starts a foreground run and waits until its script has said READY.
fn foreground(bench: &Bench, id: &str) -> std::process::Child {
    let mut child = bench
        .command(OURS, &["run", id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"READY\n");
    child
}

#[test]
fn signals_are_for_the_container() {
    let script = "trap 'exit 42' TERM; trap 'exit 43' INT; trap 'exit 44' HUP; trap 'exit 45' USR1; echo READY; while :; do sleep 0.05; done";
    let bench = bench!(script);
    let id = bench.id("signal");
    for (signal, code) in [
        (Signal::TERM, 42),
        (Signal::INT, 43),
        (Signal::HUP, 44),
        (Signal::USR1, 45),
    ] {
        let mut child = foreground(&bench, &id);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal:?}");
    }
    bench.end();
}

#[test]
fn a_container_survives_the_program_and_can_be_found() {
    let bench = bench!("echo READY; while :; do sleep 1; done");
    let id = bench.id("survivor");
    let mut child = foreground(&bench, &id);
    // Not in the middle of the start, which a program that is killed there leaves unfinished.
    bench.wait_for(&id, "running");
    child.kill().unwrap();
    child.wait().unwrap();
    bench.wait_for(&id, "running");
    assert_eq!(bench.ours(&["exec", &id, "true"]).code, Some(0));
    assert_eq!(bench.ours(&["delete", "--force", &id]).code, Some(0));
    bench.end();
}

#[test]
fn orphans_are_reaped_by_the_foreground_run() {
    // Without a pid namespace an orphan goes to the nearest subreaper, which is longshore-runc.
    let bench = bench!("(sleep 0.05 & ) ; echo READY; while :; do sleep 0.05; done");
    bench.edit(|config| drop(config["linux"]["namespaces"].as_array_mut().unwrap().remove(0)));
    let id = bench.id("orphan");
    let mut child = foreground(&bench, &id);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    wait_until("the orphan is adopted and reaped", || {
        std::fs::read_to_string(&children).unwrap().split_whitespace().count() == 1
    });
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    bench.end();
}

#[test]
fn a_pid_file_is_whole_and_right() {
    let bench = bench!("while :; do sleep 1; done");
    let id = bench.id("pid");
    assert_eq!(bench.ours(&["create", "--pid-file", "pid", &id]).code, Some(0));
    let pid = std::fs::read_to_string(bench.bundle().join("pid")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&bench.ours(&["state", &id]).stdout).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert!(!bench.bundle().join(".pid").exists());
    bench.end();
}

#[test]
fn what_is_not_supported_is_an_error() {
    let bench = bench!("true");
    let id = bench.id("flags");
    let ran = bench.ours(&["--rootless", "true", "run", &id]);
    assert!(
        ran.code.is_some_and(|code| code != 0) && ran.stderr.contains("not supported yet"),
        "{ran:?}"
    );
    bench.end();
}

#[test]
fn a_config_that_is_wrong_names_the_field() {
    let bench = bench!("true");
    let id = bench.id("config");
    let path = bench.bundle().join("config.json");
    let right = std::fs::read_to_string(&path).unwrap();
    for (was, is, field) in [
        ("\"uid\":0", "\"uid\":\"root\"", "process.user.uid"),
        ("\"type\":\"ipc\"", "\"type\":\"icp\"", "linux.namespaces"),
        ("\"terminal\":false", "\"terminal\":0", "process.terminal"),
    ] {
        assert!(right.contains(was), "{was}");
        std::fs::write(&path, right.replacen(was, is, 1)).unwrap();
        let ran = bench.ours(&["run", &id]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(field), "{field}: {ran:?}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(bench.ours(&["run", &id]).stderr.contains("config.json"));
    bench.end();
}

#[test]
fn a_created_container_outlives_the_program_that_made_it() {
    let bench = bench!("true");
    // The program ends as soon as it can: often enough to lose a race.
    for n in 0..20 {
        let id = bench.id(&format!("outlive{n}"));
        assert_eq!(bench.ours(&["create", &id]).code, Some(0));
        let state: serde_json::Value = serde_json::from_str(&bench.ours(&["state", &id]).stdout).unwrap();
        assert_eq!(state["status"], "created");
        assert_eq!(bench.ours(&["kill", &id, "KILL"]).code, Some(0));
    }
    bench.end();
}
