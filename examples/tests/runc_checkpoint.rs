//! Checkpoint and restore by the CRIU of this machine, if it knows the machine's kernel.
#![allow(clippy::unwrap_used)]

mod runc;

use std::process::{Command, Stdio};

use longshore_testing::{require_tool, skip};
use runc::{Bench, OURS, wait_until};

fn bench(script: &str) -> Result<Bench, String> {
    let bench = Bench::new(script)?;
    // Elsewhere than where Debian has it, for one that was built by hand.
    if require_tool("criu").is_err() && Command::new("criu").arg("--version").output().is_err() {
        return Err("needs the program `criu`".into());
    }
    let checked = Command::new("criu")
        .arg("check")
        .output()
        .map_err(|error| error.to_string())?;
    if checked.status.success() {
        Ok(bench)
    } else {
        let said = String::from_utf8_lossy(&checked.stderr)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        Err(format!("`criu check` fails here: {said}"))
    }
}

#[test]
fn a_container_goes_on_where_it_was() {
    let counts = "i=0; while true; do i=$((i + 1)); echo $i >/counter; sleep 0.1; done";
    let bench = match bench(counts) {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    bench.edit(|config| config["root"]["readonly"] = false.into());
    let id = bench.id("saved");
    let images = bench.path("images");
    let path = format!("--image-path={}", images.display());
    let count = || {
        let text = std::fs::read_to_string(bench.bundle().join("rootfs/counter")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    // What it has open must be inside.
    let mut command = bench.command(OURS, &["run", "-d", &id]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    wait_until("it counts", || count() > 3);
    for _ in 0..2 {
        let ran = bench.ours(&["checkpoint", &path, "--manage-cgroups-mode=ignore", &id]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert_eq!(bench.ours(&["state", &id]).code, Some(1), "it is deleted");
        let before = count();
        let mut command = bench.command(OURS, &["restore", "-d", &path, "--manage-cgroups-mode=ignore", &id]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        wait_until("it goes on", || count() > before + 3);
        assert!(count() < before + 1000, "it did not begin anew");
        let ran = bench.ours(&["exec", &id, "sh", "-c", "echo $$"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let ran = bench.ours(&[
        "checkpoint",
        &path,
        "--leave-running",
        "--manage-cgroups-mode=ignore",
        &id,
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let before = count();
    wait_until("it still goes on", || count() > before);
    bench.end();
}

#[test]
fn what_makes_no_sense_is_refused_before_criu_is_asked() {
    let bench = match runc::beside_runc("sleep 1000") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    let id = bench.id("plain");
    bench.alike(&["checkpoint", "no-such-container"]);
    bench.alike(&["create", &id]);
    bench.alike(&["checkpoint", &id]);
    bench.alike(&["start", &id]);
    bench.both_are(&id, "running");
    for flags in ["--parent-path=/parent", "--page-server=host", "--empty-ns=pid"] {
        let ran = bench.ours(&["checkpoint", flags, &id]);
        assert_eq!(ran.code, Some(1), "{flags}");
    }
    bench.both_are(&id, "running");
    bench.end();
}
