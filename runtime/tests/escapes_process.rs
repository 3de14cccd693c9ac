//! Published escapes of other runtimes that came through processes, each shown harmless here; the table is in `SECURITY.md`.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use longshore_runtime::{
    ContainerId, DeleteMode, ErrorKind, ExecRequest, Executor, Io, KillScope, Lifetime, LinuxExecutor, ProcessId,
    Status,
};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use oci_spec::runtime::Process;
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, spec};

fn process(args: &[&str]) -> Value {
    json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
}

async fn running(place: &Place, spec: &Value) -> ContainerId {
    let id = new_id();
    let created = place.executor.create(place.request(&id, spec, Io::null())).await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let started = place.executor.start(&id).await;
    started.unwrap_or_else(|e| panic!("{}", chain(&e)));
    id
}

async fn try_exec(place: &Place, id: &ContainerId, process: &Value) -> longshore_runtime::Result<String> {
    let (io, mut ends) = Io::pipe().expect("pipes");
    let process: Process = serde_json::from_value(process.clone()).expect("a process");
    let name = new_id().to_string();
    place.executor.exec(id, ExecRequest::new(&name, process, io)).await?;
    place.executor.wait(id, &ProcessId::Exec(name)).await.expect("it ends");
    let mut out = String::new();
    ends.stdout.read_to_string(&mut out).expect("text");
    ends.stderr.read_to_string(&mut out).expect("text");
    Ok(out)
}

async fn exec(place: &Place, id: &ContainerId, line: &str) -> String {
    let out = try_exec(place, id, &process(&["sh", "-c", line])).await;
    out.unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// CVE-2016-9962: a process of the container looks through the descriptors of one that enters, before that executes its program.
#[tokio::test]
async fn cve_2016_9962_who_enters_cannot_be_looked_through() {
    let Some(place) = place() else { return };
    let watch = "while test ! -e /stop; do for p in /proc/[0-9]*; do for f in $p/exe $p/cwd $p/root $p/fd/*; do \
                   readlink $f; done; done >> /seen 2>/dev/null; done";
    let id = running(&place, &spec(&["sh", "-c", watch])).await;
    for _ in 0..15 {
        exec(&place, &id, "true").await;
    }
    fs::write(place.dir.path().join("rootfs/stop"), "").expect("a file");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    let seen = fs::read_to_string(place.dir.path().join("rootfs/seen")).expect("a file");
    assert!(seen.lines().any(|l| l == "/bin/busybox"), "it does look");
    let own = fs::read_link("/proc/self/exe").expect("a link");
    let host = [
        place.dir.path().to_str().expect("text"),
        own.to_str().expect("text"),
        "socket:",
        "sealed",
        "deleted",
    ];
    let found: Vec<_> = seen.lines().filter(|l| host.iter().any(|h| l.contains(h))).collect();
    assert!(found.is_empty(), "{found:?}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

const MARK: &str = "LONGSHORE_TEST_SELF";

/// The host program of the next test, in a process that ends: a file that somebody executes can't be written anyway.
#[tokio::test]
async fn cve_2019_5736_host() {
    let Some(dir) = std::env::var_os(MARK) else { return };
    let dir = Path::new(&dir);
    // As a library and as a program that makes one call.
    for one_call in [false, true] {
        for shebang in [false, true] {
            let state = dir.join("state");
            let open = if one_call {
                LinuxExecutor::open_on_this_thread
            } else {
                LinuxExecutor::open
            };
            let executor = open(state).expect("it opens");
            let attack = ["/proc/self/exe", "cve_2019_5736_inside", "--exact", "--nocapture"];
            let mut spec = spec(if shebang { &["/evil"] } else { &attack });
            spec["process"]["env"] = json!([format!("{MARK}=inside"), "PATH=/bin"]);
            // All that its root has on a machine without user namespaces.
            let all = json!([
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_SYS_PTRACE",
                "CAP_SYS_ADMIN",
                "CAP_CHOWN"
            ]);
            spec["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
            for lib in ["/lib", "/lib64", "/usr/lib", "/usr/lib64"] {
                if Path::new(lib).exists() {
                    let mount = json!({ "destination": lib, "source": lib, "options": ["rbind", "ro"] });
                    spec["mounts"].as_array_mut().expect("a list").push(mount);
                }
            }
            let parsed = support::parse(&spec);
            let id = ContainerId::new(format!("{}-{one_call}-{shebang}", new_id())).expect("an id");
            let request = longshore_runtime::CreateRequest::new(id.clone(), dir, parsed, Io::null());
            let created = executor.create(request.lifetime(Lifetime::Detached)).await;
            let told = match created {
                Ok(_) => executor.start(&id).await.map_err(|e| chain(&e)),
                Err(error) => Err(chain(&error)),
            };
            fs::write(dir.join(format!("told-{one_call}-{shebang}")), format!("{told:?}")).expect("a file");
            // The same for a process that enters: its file is what the container has made of it.
            let mut waits = support::spec(&["sleep", "1000"]);
            waits["mounts"] = spec["mounts"].clone();
            let id = ContainerId::new(format!("{}-exec-{one_call}-{shebang}", new_id())).expect("an id");
            let request = longshore_runtime::CreateRequest::new(id.clone(), dir, support::parse(&waits), Io::null());
            executor
                .create(request.lifetime(Lifetime::Detached))
                .await
                .expect("created");
            executor.start(&id).await.expect("started");
            let process = serde_json::from_value(spec["process"].clone()).expect("a process");
            let told = executor
                .exec(&id, ExecRequest::new("x", process, Io::null()))
                .await
                .map_err(|e| chain(&e));
            fs::write(dir.join(format!("told-exec-{one_call}-{shebang}")), format!("{told:?}")).expect("a file");
        }
    }
}

/// What the host program does when it is tricked into running in the container: keeps its own file open, and lets another program wait until
/// nobody executes it any more.
#[test]
fn cve_2019_5736_inside() {
    if std::env::var(MARK).as_deref() != Ok("inside") {
        return;
    }
    let own = fs::File::open("/proc/self/exe").expect("its own file");
    rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).expect("kept open");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&own);
    let line = format!(
        "touch /inside; while test ! -e /go; do sleep 0.1; done; echo overwritten > /proc/self/fd/{fd}; touch /over"
    );
    let error = Command::new("/bin/sh").args(["-c", &line]).exec();
    panic!("{error}");
}

/// CVE-2019-5736: the container's program is `/proc/self/exe`, and the host's binary is overwritten through it once it has ended.
#[tokio::test]
async fn cve_2019_5736_the_hosts_binary_is_out_of_reach() {
    let Some(place) = place() else { return };
    let dir = place.dir.path();
    let root = dir.join("rootfs");
    fs::write(root.join("evil"), "#!/proc/self/exe cve_2019_5736_inside\n").expect("a file");
    fs::set_permissions(root.join("evil"), fs::Permissions::from_mode(0o755)).expect("permissions");
    for at in ["lib", "lib64", "usr/lib", "usr/lib64"] {
        fs::create_dir_all(root.join(at)).expect("a directory");
    }
    let host = dir.join("host-program");
    longshore_testing::copy_program(std::env::current_exe().expect("this program"), &host).expect("a copy");
    let before = fs::read(&host).expect("readable");
    let output = Command::new(&host)
        .args(["cve_2019_5736_host", "--exact", "--nocapture"])
        .env(MARK, dir)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The attackers that got in may write now.
    fs::write(root.join("go"), "").expect("a file");
    let inside = root.join("inside").exists();
    for _ in 0..100 {
        if !inside || root.join("over").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let after = fs::read(&host).expect("readable");
    let executor = LinuxExecutor::open(dir.join("state")).expect("it opens");
    for state in executor.list().await.expect("a list") {
        executor.delete(&state.id, DeleteMode::Force).await.expect("deleted");
    }
    assert!(before == after, "the host's binary was overwritten");
    assert!(!inside, "the host's binary ran in the container");
    for way in ["false-false", "false-true", "true-false", "true-true"] {
        for kind in ["told", "told-exec"] {
            let told = fs::read_to_string(dir.join(format!("{kind}-{way}"))).expect("told");
            // An empty file is what it finds.
            assert!(
                told.contains("process.args") && told.contains("Exec format error"),
                "{kind}-{way}: {told}"
            );
        }
    }
}

/// CVE-2022-29162 and CVE-2022-27650: processes had inheritable capabilities that nobody asked for; CVE-2025-27612: those that an exec adds
/// became inheritable too.
#[tokio::test]
async fn cve_2022_29162_2022_27650_2025_27612_nothing_is_inheritable_unless_it_is_asked_for() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sleep", "1000"])).await;
    let look = [
        "sh",
        "-c",
        "grep -E 'CapInh|CapAmb|CapEff|CapBnd' /proc/1/status /proc/self/status",
    ];
    let set = json!(["CAP_NET_RAW", "CAP_KILL"]);
    let mut adds = process(&look);
    adds["capabilities"] = json!({ "bounding": set, "effective": set, "permitted": set });
    for process in [process(&look), adds] {
        let out = try_exec(&place, &id, &process)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let empty = out.lines().filter(|l| l.contains("CapInh") || l.contains("CapAmb"));
        let values: Vec<_> = empty
            .map(|l| l.split_ascii_whitespace().last().unwrap_or_default())
            .collect();
        assert_eq!(values, ["0000000000000000"; 4], "{out}");
    }
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// CVE-2024-21626: the working directory is a descriptor of the runtime that leads out of the root.
#[tokio::test]
async fn cve_2024_21626_no_descriptor_leads_out_as_a_working_directory() {
    let Some(place) = place() else { return };
    let root = place.dir.path().join("rootfs");
    let id = running(&place, &spec(&["sleep", "1000"])).await;
    for number in 3..12 {
        let link = format!("fd{number}");
        symlink(format!("/proc/self/fd/{number}"), root.join(&link)).expect("a link");
        for cwd in [format!("/proc/self/fd/{number}"), format!("/{link}")] {
            let inside = |out: &str| assert_eq!(out, "/\n", "{cwd}");
            let refused = |error: &longshore_runtime::Error| {
                assert!(chain(error).starts_with("process.cwd"), "{cwd}: {}", chain(error));
            };
            let mut spec = spec(&["pwd"]);
            spec["process"]["cwd"] = json!(cwd);
            // A descriptor of the container's own root leads nowhere else; the kernel says so of the directory that was entered.
            match place.try_run(&spec).await {
                Ok(outcome) => inside(&outcome.stdout),
                Err(error) => refused(&error),
            }
            let mut process = process(&["pwd"]);
            process["cwd"] = json!(cwd);
            match try_exec(&place, &id, &process).await {
                Ok(out) => inside(&out),
                Err(error) => refused(&error),
            }
        }
    }
    // Nor is one open for the program itself.
    assert_eq!(
        exec(&place, &id, "ls /proc/self/fd").await,
        "0\n1\n2\n3\n",
        "the last is of ls"
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// A process that enters has the container's restrictions, whatever it leaves out.
#[tokio::test]
async fn an_exec_that_says_nothing_has_the_containers_seccomp_and_identity() {
    let Some(place) = place() else { return };
    let mut spec = spec(&["sleep", "1000"]);
    spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    spec["process"]["oomScoreAdj"] = json!(500);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
    });
    let id = running(&place, &spec).await;
    let line = "for p in 1 self; do grep -E 'Cap|NoNewPrivs|Seccomp:|Groups' /proc/$p/status; cat /proc/$p/oom_score_adj /proc/$p/cgroup; \
                grep files /proc/$p/limits; for n in /proc/$p/ns/*; do readlink $n; done; done; mkdir /tmp/x 2>&1";
    let out = exec(&place, &id, line).await;
    let lines: Vec<_> = out.lines().collect();
    let (last, both) = lines.split_last().expect("lines");
    assert!(last.contains("mkdir: can't create"), "{out}");
    let (init, own) = both.split_at(both.len() / 2);
    assert_eq!(init, own);
    assert!(
        init.len() > 12 && out.contains("Seccomp:\t2") && out.contains("500"),
        "{out}"
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// The pid of a container that has ended is another process's now.
#[tokio::test]
async fn a_reused_pid_is_not_taken_for_the_container() {
    let Some(place) = place() else { return };
    let id = new_id();
    let request = place
        .request(&id, &spec(&["true"]), Io::null())
        .lifetime(Lifetime::Detached);
    place.executor.create(request).await.expect("created");
    place.executor.start(&id).await.expect("started");
    place.executor.wait(&id, &ProcessId::Init).await.expect("it ends");
    // Start times count in hundredths of a second; nobody can get a pid again that fast.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut other = Command::new("sleep").arg("1000").spawn().expect("sleep starts");
    let record = place.dir.path().join("state").join(id.as_str()).join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&record).expect("readable")).expect("JSON");
    state["init"]["pid"] = json!(other.id());
    fs::write(&record, state.to_string()).expect("writable");
    let _ = fs::remove_file(record.with_file_name("exit.json"));
    let executor = LinuxExecutor::open(place.dir.path().join("state")).expect("it opens");
    let seen = executor.state(&id).await.expect("known");
    assert_eq!((seen.status, seen.pid), (Status::Stopped, None));
    for scope in [KillScope::Init, KillScope::All] {
        let killed = executor.kill(&id, 9, scope).await;
        if scope == KillScope::Init {
            assert_eq!(
                killed.expect_err("nobody is there").kind(),
                ErrorKind::FailedPrecondition
            );
        }
    }
    let entered = executor.exec(
        &id,
        ExecRequest::new(
            "x",
            serde_json::from_value(process(&["true"])).expect("a process"),
            Io::null(),
        ),
    );
    assert_eq!(
        entered.await.expect_err("nobody is there").kind(),
        ErrorKind::FailedPrecondition
    );
    executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    assert!(other.try_wait().expect("known").is_none(), "the other process lives");
    other.kill().expect("killed");
    other.wait().expect("it ends");
}

/// CVE-2026-30892: another process for the user 1 ran as root.
#[tokio::test]
async fn cve_2026_30892_an_exec_is_of_the_user_that_it_is_for() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sleep", "1000"])).await;
    for (uid, gid) in [(1, 0), (0, 1), (1, 1), (4_294_967_294_u32, 4_294_967_294_u32)] {
        let mut process = process(&["sh", "-c", "grep -E '^(Uid|Gid)' /proc/self/status"]);
        process["user"] = json!({ "uid": uid, "gid": gid });
        let out = try_exec(&place, &id, &process)
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let ids = |id: u32| format!("\t{id}\t{id}\t{id}\t{id}\n");
        assert_eq!(out, format!("Uid:{}Gid:{}", ids(uid), ids(gid)));
    }
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// CVE-2021-43784: a value longer than a length of 16 bits can say went on as further values, which took the namespaces away.
#[tokio::test]
async fn cve_2021_43784_a_long_value_is_one_value() {
    let Some(place) = place() else { return };
    let long = format!("LONG={}", "x".repeat(70_000));
    let line = "echo ${#LONG}; for n in /proc/self/ns/*; do readlink $n; done";
    let mut spec = spec(&["sh", "-c", &format!("{{ {line}; }} > /seen; sleep 1000")]);
    spec["process"]["env"] = json!(["PATH=/bin", long]);
    spec["annotations"] = json!({ "long": "x".repeat(70_000) });
    let kinds = ["mnt", "pid", "ipc", "uts", "net"];
    let apart = |seen: &str| {
        assert_eq!(seen.lines().next(), Some("70000"), "{seen}");
        for kind in kinds {
            let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link");
            let own = seen.lines().find(|l| l.starts_with(&format!("{kind}:")));
            assert!(own.is_some_and(|own| own != host.to_string_lossy()), "{kind}: {seen}");
        }
    };
    let id = running(&place, &spec).await;
    let seen = || fs::read_to_string(place.dir.path().join("rootfs/seen")).unwrap_or_default();
    support::wait_while_it_lives(&place, &id, || seen().contains("uts:")).await;
    apart(&seen());
    let mut process = process(&["sh", "-c", line]);
    process["env"] = spec["process"]["env"].clone();
    let out = try_exec(&place, &id, &process)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    apart(&out);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    // The value that could be as long as one liked.
    for kind in ["network", "ipc", "pid"] {
        let mut spec = spec.clone();
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|n| n["type"] != kind);
        namespaces.push(json!({ "type": kind, "path": format!("/{}", "x/".repeat(40_000)) }));
        let error = place.try_run(&spec).await.expect_err("there is no such path");
        assert!(error.to_string().starts_with("linux.namespaces"), "{error}");
    }
}

/// CVE-2025-62596: what the runtime writes to a process's files in `/proc` goes where the container has mounted something else. The files
/// of this container's `/proc` are ordinary ones, also for the processes that enter.
#[tokio::test]
async fn cve_2025_62596_and_cve_2025_52881_an_exec_is_told_past_what_the_container_has_over_proc() {
    let Some(place) = place() else { return };
    let files = "/proc/self/attr/exec /proc/thread-self/attr/exec /proc/thread-self/attr/apparmor/exec /proc/self/oom_score_adj \
                 /proc/thread-self/attr/keycreate /proc/sys/kernel/core_pattern";
    let line = format!(
        "mkdir /tmp/real && mount -t proc proc /tmp/real && mount -t tmpfs fake /proc && for f in {files}; do mkdir -p ${{f%/*}}; \
         touch $f; done; touch /ready; sleep 1000"
    );
    let mut spec = spec(&["sh", "-c", &line]);
    for path in ["maskedPaths", "readonlyPaths"] {
        spec["linux"][path] = json!([]);
    }
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    let id = running(&place, &spec).await;
    let ready = place.dir.path().join("rootfs/ready");
    support::wait_while_it_lives(&place, &id, || ready.exists()).await;
    let label = longshore_runtime::HostFacts::gather().expect("facts").apparmor;
    let line = format!("wc -c {files} | grep total; cat /tmp/real/$$/oom_score_adj /tmp/real/$$/attr/current 2>&1");
    let mut process = process(&["sh", "-c", &line]);
    process["oomScoreAdj"] = json!(600);
    if label {
        process["apparmorProfile"] = json!("unconfined");
    }
    let out = try_exec(&place, &id, &process)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["0 total", "600"], "{out}");
    if label {
        assert_eq!(lines[2], "unconfined", "{out}");
    }
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

const LOST: &str = "LONGSHORE_TEST_SIGCHLD";

/// The host program of the next test: a signal's disposition is of the whole process.
#[tokio::test]
async fn a_lost_sigchld_host() {
    let Some(kind) = std::env::var_os(LOST) else { return };
    let Some(place) = place() else { return };
    match kind.to_str() {
        Some("ignored") => {
            // SAFETY: no handler is installed.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.expect("ignored");
        }
        _ => SigSet::from(Signal::SIGCHLD).thread_block().expect("blocked"),
    }
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(place.run(&spec(&["sh", "-c", "exit 7"])).await.status.code);
    }
    println!("codes: {codes:?}");
}

/// The host hears of no child: it blocks or ignores the signal, or it is lost among others. What ends is seen all the same.
#[test]
fn a_lost_sigchld_loses_no_end() {
    if place().is_none() {
        return;
    }
    for kind in ["blocked", "ignored"] {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["a_lost_sigchld_host", "--exact", "--nocapture"])
            .env(LOST, kind)
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind}: {text}");
        // With one processor the test's name comes before it, on the same line.
        let told = text.lines().find_map(|line| Some(line.split_once("codes: ")?.1));
        let codes = told.expect("it tells");
        match kind {
            "blocked" => assert_eq!(codes, format!("{:?}", [7; 10])),
            // The kernel reaps for who ignores the signal, and not every one tells afterwards how a child ended.
            _ => assert!(codes.replace('7', "255") == format!("{:?}", [255; 10]), "{codes}"),
        }
    }
}

/// `..` in the path of a container's group leads out of where groups may be made. The same of an exec's is in `exec.rs`.
#[tokio::test]
async fn dots_in_cgroup_paths_are_refused() {
    let Some(place) = place() else { return };
    for path in [
        "../longshore-out",
        "/../longshore-out",
        "/longshore/x/../../../longshore-out",
    ] {
        let mut spec = spec(&["true"]);
        spec["linux"]["cgroupsPath"] = json!(path);
        let error = place.try_run(&spec).await.expect_err("it is refused");
        assert!(error.to_string().starts_with("linux.cgroupsPath"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
