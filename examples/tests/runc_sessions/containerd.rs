use crate::session::Session;
use longshore_testing::skip;

const SCRIPT: &str = r#"
c() { ctr --address "$FOLDER/containerd.sock" --namespace "$NAME" "$@"; }
export -f c
run() { bash -c 'c run --runc-binary "$RUNTIME" "$@"' run "$@"; }
export -f run
call() { bash -c 'c "$@"' c "$@"; }
export -f call
says echo bash -c 'run --rm img:1 one echo hello'
says code bash -c 'run --rm img:1 one sh -c "exit 7"'
says user bash -c 'run --rm --user 12:34 img:1 one id'
ends missing bash -c 'run --rm img:1 one nope'
says memory bash -c 'run --rm --memory-limit 33554432 img:1 one true'
ends detached bash -c 'run -d img:1 two sleep 1000'
says exec bash -c 'call task exec --exec-id a two sh -c "echo in; exit 3"'
for i in $(seq 5); do says short bash -c "call task exec --exec-id b$i two sh -c 'exit $i'"; done
ends ps bash -c 'call task ps two | grep -q ^[0-9]'
ends metrics bash -c 'call task metrics two | grep -q pids.current'
ends pause bash -c 'call task pause two'
ends paused bash -c 'call task ls | grep -q "two .*PAUSED"'
ends resume bash -c 'call task resume two'
ends kill bash -c 'call task kill --signal SIGKILL two'
soon bash -c 'call task ls | grep -q "two .*STOPPED"'
ends delete bash -c 'call task rm two'
ends remove bash -c 'call container rm two'
says left bash -c 'call container ls -q'
"#;

#[test]
fn containerd_runs_it() {
    let session = match Session::new(&["containerd", "ctr", "containerd-shim-runc-v2"]) {
        Ok(session) => session,
        Err(why) => return skip(&why),
    };
    let config = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\naddress = '{0}/containerd.sock'\n[ttrpc]\naddress = '{0}/ttrpc.sock'\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = '{0}/opt'\n",
        session.path().display()
    );
    let file = session.path().join("containerd.toml");
    std::fs::write(&file, config).expect("containerd's configuration");
    let daemon = session.daemon(
        "containerd",
        &["-c", file.to_str().expect("a plain path")],
        r#"ctr --address "$FOLDER/containerd.sock" --namespace "$NAME" image import --base-name img "$FOLDER/img.tar""#,
    );
    let printed = session.alike(SCRIPT);
    for line in [
        "echo: 0\nhello\n",
        "code: 7\n",
        "exec: 3\nin\n",
        "short: 5\n",
        "paused: 0\n",
        "remove: 0\n",
    ] {
        assert!(printed.contains(line), "{line:?} is not in\n{printed}");
    }
    drop(daemon);
    session.end();
}
