//! Seccomp listeners: an agent answers for a container's system calls.

mod support;

use std::fs;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use longshore_runtime::{DeleteMode, ErrorKind, ExecRequest, Executor, Io, ProcessId};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, spec};

const ENOMEDIUM: i32 = 123;
/// How this machine makes a directory: newer ones lack mkdir(2).
const MKDIR: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    nix::libc::SYS_mkdir,
    nix::libc::SYS_mkdirat,
];

/// `struct seccomp_notif`, with `struct seccomp_data` in it.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const CONTINUE: u32 = 1;

mod ioctl {
    #![allow(missing_docs)] // seccomp_unotify(2)
    nix::ioctl_readwrite!(receive, b'!', 0, super::Notification);
    nix::ioctl_readwrite!(send, b'!', 1, super::Response);
}

/// An agent that has mkdir fail with "No medium found" and lets all else go on. What it was told comes out of `states`.
struct Agent {
    path: PathBuf,
    states: mpsc::Receiver<Value>,
}

impl Agent {
    fn listen(place: &Place) -> Self {
        let path = place.dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (tell, states) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let (state, fd) = take(connection);
                std::thread::spawn(move || answer(&fd));
                if tell.send(state).is_err() {
                    return;
                }
            }
        });
        Self { path, states }
    }

    fn state(&self) -> Value {
        self.states.recv().expect("the agent was told of a container")
    }
}

/// The state and the descriptor, over a connection that is closed after them.
fn take(mut connection: std::os::unix::net::UnixStream) -> (Value, OwnedFd) {
    let mut bytes = vec![0; 1 << 16];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(&connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    bytes.truncate(received.bytes);
    connection.read_to_end(&mut bytes).expect("the rest and its end");
    assert_eq!(fds.len(), 1, "one descriptor");
    (serde_json::from_slice(&bytes).expect("JSON"), fds.remove(0))
}

/// Until the last process with the filter has ended.
fn answer(fd: &OwnedFd) {
    loop {
        let mut call = Notification::default();
        // SAFETY: the structure is the kernel's, zeroed as it wants it, and outlives the call.
        match unsafe { ioctl::receive(fd.as_raw_fd(), &raw mut call) } {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            // The caller is gone.
            Err(_) => return,
        }
        let denied = MKDIR.contains(&call.number.into());
        let mut response = Response {
            id: call.id,
            value: 0,
            error: if denied { -ENOMEDIUM } else { 0 },
            flags: if denied { 0 } else { CONTINUE },
        };
        // SAFETY: as above.
        let _ = unsafe { ioctl::send(fd.as_raw_fd(), &raw mut response) };
    }
}

/// A container that has an agent at `path` for `calls`.
fn notifying(args: &[&str], path: &Path, calls: &[&str]) -> Value {
    let mut spec = spec(args);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "bar",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
    });
    spec
}

const MAKE: [&str; 3] = ["sh", "-c", "echo before; mkdir /dev/shm/new; echo $?; ls /proc/self/fd"];

#[tokio::test]
async fn an_agent_answers_for_a_container() {
    let Some(place) = place() else { return };
    let agent = Agent::listen(&place);
    for no_new_privileges in [true, false] {
        for flags in [
            json!([]),
            json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]),
        ] {
            if flags != json!([]) && !support_wait_killable() {
                support::skipped("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19");
                continue;
            }
            let mut spec = notifying(&MAKE, &agent.path, &["mkdir", "mkdirat"]);
            spec["process"]["noNewPrivileges"] = no_new_privileges.into();
            spec["linux"]["seccomp"]["flags"] = flags;
            spec["annotations"] = json!({ "what": "a test" });
            let outcome = place.run(&spec).await;
            assert_eq!(outcome.stdout, "before\n1\n0\n1\n2\n3\n", "{outcome:?}");
            assert!(outcome.stderr.contains("No medium found"), "{outcome:?}");

            let state = agent.state();
            assert_eq!(state["ociVersion"], "1.2.0");
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["metadata"], "bar");
            assert_eq!(state["state"]["status"], "created");
            assert_eq!(state["state"]["pid"], state["pid"]);
            assert!(state["pid"].as_i64().expect("a pid") > 1);
            assert_eq!(state["state"]["bundle"], place.bundle().to_str().expect("text"));
            assert_eq!(state["state"]["annotations"]["what"], "a test");
            assert!(state["state"]["id"].as_str().expect("an id").starts_with('t'));
        }
    }
}

fn support_wait_killable() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 19)
}

#[tokio::test]
async fn an_exec_has_a_listener_of_its_own() {
    let Some(place) = place() else { return };
    let agent = Agent::listen(&place);
    let id = new_id();
    let spec = notifying(&["sleep", "1000"], &agent.path, &["mkdir", "mkdirat"]);
    place
        .executor
        .create(place.request(&id, &spec, Io::null()))
        .await
        .expect("created");
    place.executor.start(&id).await.expect("started");
    let init = agent.state();

    let (io, mut ends) = Io::pipe().expect("pipes");
    let process = json!({ "args": MAKE, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let process = serde_json::from_value(process).expect("a process");
    let pid = place.executor.exec(&id, ExecRequest::new("one", process, io)).await;
    let pid = pid.unwrap_or_else(|e| panic!("{}", chain(&e)));
    place
        .executor
        .wait(&id, &ProcessId::Exec("one".into()))
        .await
        .expect("it ends");
    let mut out = String::new();
    ends.stdout.read_to_string(&mut out).expect("text");
    assert_eq!(out, "before\n1\n0\n1\n2\n3\n");
    let state = agent.state();
    assert_eq!(state["pid"], pid);
    assert_eq!(state["state"]["status"], "running");
    assert_eq!(state["state"]["pid"], init["pid"]);
    assert_eq!(state["metadata"], "bar");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn an_agent_may_have_the_calls_that_a_start_makes() {
    let Some(place) = place() else { return };
    let agent = Agent::listen(&place);
    let calls = [
        "execve", "openat", "open", "read", "close", "fcntl", "sendmsg", "sendto", "capset", "prctl",
    ];
    for no_new_privileges in [true, false] {
        let mut spec = notifying(&["echo", "ran"], &agent.path, &calls);
        spec["process"]["noNewPrivileges"] = no_new_privileges.into();
        let outcome = place.run(&spec).await;
        assert_eq!(
            (outcome.status.code, outcome.stdout.as_str()),
            (0, "ran\n"),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn nothing_runs_without_its_agent() {
    let Some(place) = place() else { return };
    for path in [
        Path::new("/no/such/agent.sock"),
        Path::new("@longshore-no-such-agent"),
        Path::new("relative.sock"),
    ] {
        let mark = place.dir.path().join("rootfs/ran");
        let spec = notifying(&["touch", "/ran"], path, &["mkdir"]);
        let error = place.try_run(&spec).await.expect_err("there is no agent");
        let text = chain(&error);
        assert_eq!(error.kind(), ErrorKind::Start, "{text}");
        assert!(text.contains("failed to connect with seccomp agent"), "{text}");
        assert!(text.contains("linux.seccomp.listenerPath"), "{text}");
        assert!(!mark.exists(), "the program ran");
    }
}

#[tokio::test]
async fn what_an_agent_cannot_be_given_is_refused() {
    let Some(place) = place() else { return };
    let refused = async |spec: &Value| {
        let error = place.try_run(spec).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let path = Path::new("/no/such/agent.sock");
    let text = refused(&notifying(&["true"], path, &["write"])).await;
    assert!(
        text.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        "{text}"
    );
    let mut spec = notifying(&["true"], path, &["mkdir"]);
    spec["linux"]["seccomp"]["defaultAction"] = "SCMP_ACT_NOTIFY".into();
    let text = refused(&spec).await;
    assert!(
        text.contains("SCMP_ACT_NOTIFY cannot be used as default action"),
        "{text}"
    );
    let text = refused(&notifying(&["true"], Path::new(""), &["mkdir"])).await;
    assert!(text.starts_with("linux.seccomp.listener"), "{text}");
    let mut spec = notifying(&["true"], path, &["mkdir", "sendmsg"]);
    let rules = spec["linux"]["seccomp"]["syscalls"].as_array_mut().expect("rules");
    rules.push(json!({ "names": ["write"], "action": "SCMP_ACT_ERRNO" }));
    let text = refused(&spec).await;
    assert!(text.contains("handed to the agent"), "{text}");
    // Without a call for it, nobody asks for the agent.
    place.run(&notifying(&["true"], path, &[])).await;
    place.run(&notifying(&["true"], path, &["no_such_call"])).await;
}

#[tokio::test]
async fn calls_of_a_lost_agent_do_not_exist() {
    let Some(place) = place() else { return };
    let path = place.dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let once = std::thread::spawn(move || {
        let (connection, _) = listener.accept().expect("a connection");
        take(connection)
    });
    let line = "until test -e /go; do :; done; mkdir /dev/shm/new";
    let id = new_id();
    let (io, mut ends) = Io::pipe().expect("pipes");
    let spec = notifying(&["sh", "-c", line], &path, &["mkdir", "mkdirat"]);
    place
        .executor
        .create(place.request(&id, &spec, io))
        .await
        .expect("created");
    place.executor.start(&id).await.expect("started");
    drop(once.join().expect("it was told"));
    fs::write(place.dir.path().join("rootfs/go"), "").expect("a file");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    let mut complaint = String::new();
    ends.stderr.read_to_string(&mut complaint).expect("text");
    assert!(complaint.contains("Function not implemented"), "{complaint}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}
