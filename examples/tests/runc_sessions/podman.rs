use crate::session::Session;
use longshore_testing::skip;

const SCRIPT: &str = r#"
mkdir -p "$FOLDER/$KIND"
p() {
    podman --root "$FOLDER/$KIND/root" --runroot "$FOLDER/$KIND/run" --tmpdir "$FOLDER/$KIND/tmp" --storage-driver vfs \
        --cgroup-manager cgroupfs --events-backend file --runtime "$RUNTIME" "$@"
}
run() { p run --network none --cgroup-parent "/$NAME" --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 "$@"; }
export -f p run
p load -q -i "$FOLDER/img.tar" >/dev/null 2>&1 && p tag localhost/1 localhost/box || exit
says echo bash -c 'run --rm localhost/box echo hello'
says code bash -c 'run --rm localhost/box sh -c "exit 5"'
says user bash -c 'run --rm --user 12:34 localhost/box id'
ends missing bash -c 'run --rm localhost/box nope'
ends directory bash -c 'run --rm localhost/box /etc'
ends detached bash -c 'run -d --name one -m 64m localhost/box sh -c "echo started; sleep 1000"'
for i in $(seq 5); do says exec bash -c "p exec one sh -c 'echo in; exit $i'"; done
says status bash -c 'p inspect -f {{.State.Status}} one'
ends top bash -c 'p top one'
ends pause bash -c 'p pause one'
ends unpause bash -c 'p unpause one'
ends stop bash -c 'p stop -t 0 one'
ends start bash -c 'p start one'
ends restart bash -c 'p restart -t 0 one'
says logs bash -c 'p logs one'
ends remove bash -c 'p rm -f -t 0 one'
ends pod bash -c 'p pod create --cgroup-parent "/$NAME" --infra=false --name pod'
says inpod bash -c 'run --rm --pod pod localhost/box echo together'
ends podremove bash -c 'p pod rm -f pod'
says left bash -c 'p ps -aq'
"#;

#[test]
fn podman_runs_it() {
    let session = match Session::new(&["podman", "conmon"]) {
        Ok(session) => session,
        Err(why) => return skip(&why),
    };
    let printed = session.alike(SCRIPT);
    for line in [
        "echo: 0\nhello\n",
        "code: 5\n",
        "missing: 127\n",
        "exec: 4\nin\n",
        "status: 0\nrunning\n",
        "remove: 0\n",
    ] {
        assert!(printed.contains(line), "{line:?} is not in\n{printed}");
    }
    session.end();
}
