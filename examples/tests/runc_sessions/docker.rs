use crate::session::Session;
use longshore_testing::skip;

const SCRIPT: &str = r#"
d() { docker --host "unix://$FOLDER/sock" "$@"; }
run() { d run --network none --runtime "$KIND" "$@"; }
export -f d run
says echo bash -c 'run --rm box echo hello'
says code bash -c 'run --rm box sh -c "exit 6"'
ends missing bash -c 'run --rm box nope'
ends directory bash -c 'run --rm box /etc'
says confined bash -c 'run --rm --read-only --tmpfs /tmp --user 12:34 box sh -c "exec 2>&1; id; touch /tmp/x; touch /x"'
ends memory bash -c 'run --rm --memory 16m box sh -c "tail /dev/zero"'
ends detached bash -c 'run -d --name one --memory 64m box sh -c "echo started; sleep 1000"'
for i in $(seq 5); do says exec bash -c "d exec one sh -c 'echo in; exit $i'"; done
says tty bash -c 'd exec -t one tty'
ends pause bash -c 'd pause one'
ends unpause bash -c 'd unpause one'
ends update bash -c 'd update --memory 32m --memory-swap 32m one'
ends top bash -c 'd top one'
ends restart bash -c 'd restart -t 0 one'
says status bash -c 'd inspect -f {{.State.Status}} one'
ends stop bash -c 'd stop -t 0 one'
says logs bash -c 'd logs one'
says exit bash -c 'd inspect -f "{{.State.ExitCode}}" one'
ends remove bash -c 'd rm one'
says left bash -c 'd ps -aq'
"#;

#[test]
fn docker_runs_it() {
    let session = match Session::new(&["dockerd", "docker", "containerd", "containerd-shim-runc-v2"]) {
        Ok(session) => session,
        Err(why) => return skip(&why),
    };
    let folder = session.path().to_string_lossy().into_owned();
    let options = [
        format!("--data-root={folder}/data"),
        format!("--exec-root={folder}/exec"),
        format!("--pidfile={folder}/pid"),
        format!("--host=unix://{folder}/sock"),
        format!("--cgroup-parent=/{}", session.name()),
        format!("--add-runtime=ours={}", env!("CARGO_BIN_EXE_longshore-runc")),
        "--add-runtime=theirs=runc".to_owned(),
        "--iptables=false".to_owned(),
        "--bridge=none".to_owned(),
        "--storage-driver=vfs".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let is_up = r#"docker --host "unix://$FOLDER/sock" import -c 'ENV PATH=/bin' "$FOLDER/rootfs.tar" box"#;
    let daemon = session.daemon("dockerd", &options, is_up);
    let printed = session.alike(SCRIPT);
    for line in [
        "echo: 0\nhello\n",
        "code: 6\n",
        "missing: 127\n",
        "directory: 126\n",
        "memory: 137\n",
        "exec: 4\nin\n",
        "exit: 0\n137\n",
    ] {
        assert!(printed.contains(line), "{line:?} is not in\n{printed}");
    }
    drop(daemon);
    session.end();
}
