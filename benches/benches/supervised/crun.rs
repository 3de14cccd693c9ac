//! The same number of containers by a loop of shell around crun.

use std::process::Command;
use std::time::Instant;

use crate::bundle::Bundle;

/// Starts them all, so many at once, in a mount namespace in which the v2 tree beside v1 is hidden: crun does not start there otherwise.
const START: &str = r#"mount --make-rprivate /
if [ -d /sys/fs/cgroup/unified ]; then mount -t tmpfs none /sys/fs/cgroup/unified; fi
seq "$4" | xargs -P "$5" -I {} crun --root "$1" run --detach --bundle "$2" "$3-{}" >/dev/null"#;

const DELETE: &str = r#"mount --make-rprivate /
if [ -d /sys/fs/cgroup/unified ]; then mount -t tmpfs none /sys/fs/cgroup/unified; fi
seq "$4" | xargs -P "$5" -I {} crun --root "$1" delete --force "$3-{}""#;

/// How many it starts in a second; none where it is not there or does not start here.
pub(crate) fn rate(many: usize, at_once: usize) -> Option<f64> {
    let bundle = Bundle::new()?;
    let root = bundle.path().join("state-crun");
    let prefix = crate::bundle::new_id();
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&root);
        command.arg(bundle.long()).arg(prefix.as_str());
        command.arg(many.to_string()).arg(at_once.to_string());
        command.stdin(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let begun = Instant::now();
    let started = run(START);
    let took = begun.elapsed();
    run(DELETE);
    started.then(|| many as f64 / took.as_secs_f64())
}
