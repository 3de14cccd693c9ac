//! What the caller of `longshore-runc` hands over to the container besides its streams, beside runc: descriptors and systemd's sockets.
#![allow(clippy::unwrap_used)]

mod runc;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use longshore_testing::skip;
use runc::{Bench, OURS, beside_runc, run};

/// A program behind shell code that opens descriptors and sets variables for it.
fn after(bench: &Bench, before: &str, program: &str, args: &[&str]) -> Command {
    let inner = bench.command(program, args);
    let mut command = Command::new("sh");
    let script = format!("{before} exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(program).args(inner.get_args());
    command.current_dir(bench.bundle()).stdin(std::process::Stdio::null());
    command
}

#[test]
fn descriptors_are_preserved() {
    let bench = match beside_runc("cat <&3; cat <&4; ls /proc/self/fd") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    std::fs::write(bench.path("one"), "one\n").unwrap();
    std::fs::write(bench.path("two"), "two\n").unwrap();
    let open = "exec 3<../one 4<../two 5<../one;";
    let id = bench.id("given");
    for program in [OURS, "runc"] {
        let ran = run(
            after(&bench, open, program, &["run", "--preserve-fds", "2", &id]),
            &bench,
        );
        assert_eq!(ran.stderr, "", "{program}");
        assert_eq!(ran.stdout, "one\ntwo\n0\n1\n2\n3\n4\n5\n", "{program}");
        let ran = run(
            after(&bench, open, program, &["run", "--preserve-fds", "9", &id]),
            &bench,
        );
        assert_eq!(ran.code, Some(1), "{program}");
        assert!(ran.stderr.contains("preserved-fd"), "{program}: {}", ran.stderr);
    }
    bench.edit(|config| config["process"]["args"] = serde_json::json!(["sleep", "1000"]));
    for program in [OURS, "runc"] {
        assert_eq!(run(bench.command(program, &["run", "-d", &id]), &bench).code, Some(0));
        let args = ["exec", "--preserve-fds=1", &id, "sh", "-c", "cat <&3"];
        let ran = run(after(&bench, open, program, &args), &bench);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\n", ""), "{program}");
    }
    bench.end();
}

#[test]
fn sockets_that_systemd_opened_are_the_containers() {
    let bench = match beside_runc("echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    std::fs::write(bench.path("one"), "one\n").unwrap();
    std::fs::write(bench.path("two"), "two\n").unwrap();
    let open = "exec 3<../one 4<../two; LISTEN_FDS=1 LISTEN_PID=$$";
    for program in [OURS, "runc"] {
        let ran = run(
            after(
                &bench,
                open,
                program,
                &["run", "--preserve-fds=1", &bench.id("activated")],
            ),
            &bench,
        );
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            ("1 1\none\ntwo\n", ""),
            "{program}"
        );
    }
    bench.end();
}

#[test]
fn a_container_tells_that_it_is_ready() {
    // busybox has nothing to send a datagram with: the test itself speaks for the container.
    let bench = match beside_runc("sleep 1000") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    std::fs::create_dir_all(bench.bundle().join("rootfs/run/notify")).unwrap();
    for program in [OURS, "runc"] {
        let id = bench.id("ready");
        let host = bench.path("host.sock");
        let _ = std::fs::remove_file(&host);
        let socket = UnixDatagram::bind(&host).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = bench.command(program, &["run", "-d", &id]);
        command.env("NOTIFY_SOCKET", &host).stdout(std::process::Stdio::null());
        let mut running = command.spawn().unwrap();
        let state = || {
            let said = run(bench.command(program, &["state", &id]), &bench).stdout;
            serde_json::from_str::<serde_json::Value>(&said).unwrap_or_default()
        };
        runc::wait_until("the container runs", || state()["status"] == "running");
        let pid = state()["pid"].to_string();
        let inside = format!("/proc/{pid}/root/run/notify/notify.sock");
        let container = UnixDatagram::unbound().unwrap();
        runc::wait_until("the socket is there", || container.send_to(b"READY=1", &inside).is_ok());
        let mut bytes = [0; 64];
        let mut heard = || {
            let length = socket.recv(&mut bytes).expect("a word of the container");
            String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
        };
        assert_eq!(heard(), "READY=1", "{program}");
        assert_eq!(heard(), format!("MAINPID={pid}"), "{program}");
        assert!(running.wait().unwrap().success(), "{program}: it is detached");
        assert_eq!(
            run(bench.command(program, &["delete", "-f", &id]), &bench).code,
            Some(0)
        );
    }
    let left = std::fs::read_dir(bench.root(OURS)).unwrap().count();
    assert_eq!(left, 0, "nothing of the container is left");
    bench.end();
}

#[test]
fn the_caller_learns_how_a_detached_process_ends() {
    let bench = match Bench::new("sleep 1000") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    // As a shim does: what a command leaves behind becomes this process's child.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let id = bench.id("left");
    assert_eq!(bench.ours(&["run", "-d", &id]).code, Some(0));
    for code in 1..10 {
        let pid_file = bench.path("pid");
        let script = format!("exit {code}");
        let args = [
            "exec",
            "-d",
            "--pid-file",
            pid_file.to_str().unwrap(),
            &id,
            "sh",
            "-c",
            &script,
        ];
        assert_eq!(bench.ours(&args).code, Some(0));
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid);
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
            .expect("it is this process's child")
            .unwrap();
        assert_eq!(status.exit_status(), Some(code));
    }
    assert_eq!(bench.ours(&["delete", "-f", &id]).code, Some(0));
    bench.end();
}
