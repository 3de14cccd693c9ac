//! Bundles made here, run by runc and crun: whether other executors take our specs for what we mean.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use longshore_bundle::{
    Bind, Bundle, IdMappings, MountsView, Namespace, NewPrivileges, Rootless, SpecBuilder, Tmpfs,
    available_capabilities,
};
use tempfile::TempDir;

const BUSYBOX: &str = "/usr/bin/busybox";
const RUNTIMES: [&str; 2] = ["runc", "crun"];
/// Runs a runtime in a mount namespace of its own, without the v2 hierarchy beside v1, which crun refuses to work with.
const WRAPPER: &str = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; exec \"$@\"";

/// A root filesystem with busybox and a user, or why there is none.
fn rootfs(directory: &Path) -> Result<(), &'static str> {
    if !is_root() {
        return Err("running containers needs root");
    }
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(directory.join("rootfs").join(name)).expect("a directory");
    }
    let bin = directory.join("rootfs/bin");
    longshore_testing::copy_program(BUSYBOX, bin.join("busybox")).map_err(|_| "busybox (static) is not installed")?;
    for name in [
        "sh", "id", "cat", "grep", "touch", "mount", "unshare", "hostname", "env",
    ] {
        symlink("busybox", bin.join(name)).expect("a link");
    }
    fs::write(
        directory.join("rootfs/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
    )
    .expect("a file");
    fs::write(
        directory.join("rootfs/etc/group"),
        "root:x:0:\nweb:x:33:\nssl:x:44:web\n",
    )
    .expect("a file");
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let installed = Command::new(program).arg("--version").output().is_ok();
    if !installed {
        longshore_testing::skip(&format!("{program} is not installed"));
    }
    installed
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a script prints in a container, under each runtime that is installed.
fn outputs(change: impl Fn(SpecBuilder) -> SpecBuilder, script: &str) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    if let Err(reason) = rootfs(directory.path()) {
        longshore_testing::skip(reason);
        return Vec::new();
    }
    let files = MountsView::directory(directory.path().join("rootfs")).expect("a view");
    let builder = SpecBuilder::without_image()
        .args(["sh", "-c", script])
        .limit_capabilities(available_capabilities().expect("capabilities"));
    let spec = change(builder).build(&files).expect("a spec");
    Bundle::create(directory.path(), &spec).expect("a bundle");
    RUNTIMES.iter().filter_map(|runtime| run(runtime, &directory)).collect()
}

fn run(runtime: &str, bundle: &TempDir) -> Option<String> {
    let state = tempfile::tempdir().expect("a directory");
    let id = format!(
        "longshore-{runtime}-{}",
        bundle.path().file_name()?.to_str()?.trim_start_matches('.')
    );
    if !is_installed(runtime) {
        return None;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", WRAPPER, "sh", runtime, "--root"])
        .arg(state.path())
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(id)
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{runtime}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

#[test]
fn a_user_with_its_groups_and_home() {
    for output in outputs(
        |spec| spec.user("web").env("X=1").hostname("box"),
        "id; echo $HOME $X $HOSTNAME; hostname; grep NoNewPrivs /proc/self/status",
    ) {
        assert_eq!(
            output,
            "uid=33(web) gid=33(web) groups=33(web),44(ssl)\n/srv 1 box\nbox\nNoNewPrivs:\t1\n"
        );
    }
}

#[test]
fn capabilities_are_what_was_asked_for() {
    let held = |spec: SpecBuilder| spec.new_privileges(NewPrivileges::Allow);
    for output in outputs(held, "grep -E 'Cap(Eff|Bnd|Inh|Amb)|NoNew' /proc/self/status") {
        assert_eq!(
            output,
            "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t0\n"
        );
    }
    for output in outputs(|spec| spec.user("web"), "grep -E 'Cap(Eff|Bnd)' /proc/self/status") {
        assert_eq!(output, "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n");
    }
}

#[test]
fn the_filter_and_the_masks_hold() {
    let script = "unshare -m true 2>/dev/null || echo no unshare; mount -t tmpfs x /tmp 2>/dev/null || echo no mount; \
                  (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo no sysctl; \
                  busybox cat /proc/interrupts /proc/kcore /proc/keys 2>/dev/null | busybox wc -c; \
                  grep Seccomp: /proc/self/status";
    for output in outputs(|spec| spec, script) {
        assert_eq!(output, "no unshare\nno mount\nno sysctl\n0\nSeccomp:\t2\n");
    }
}

#[test]
fn mounts_are_where_they_were_put() {
    let host = tempfile::tempdir().expect("a directory");
    fs::write(host.path().join("file"), "from the host\n").expect("a file");
    let path = host.path().to_owned();
    let change = move |spec: SpecBuilder| {
        spec.read_only()
            .bind(Bind::new(&path, "/data").read_only())
            .tmpfs(Tmpfs::new("/scratch").size(1 << 20))
    };
    let script = "cat /data/file; touch /data/x 2>/dev/null || echo data is read-only; \
                  touch /x 2>/dev/null || echo root is read-only; touch /scratch/x && echo scratch is not; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    for output in outputs(change, script) {
        assert_eq!(
            output,
            "from the host\ndata is read-only\nroot is read-only\nscratch is not\n0\n"
        );
    }
}

#[test]
fn shared_namespaces_are_shared() {
    let own = fs::read_link("/proc/self/ns/net")
        .map(|link| link.display().to_string())
        .unwrap_or_default();
    let script = "busybox readlink /proc/self/ns/net";
    for output in outputs(|spec| spec.network(Namespace::Host), script) {
        assert_eq!(output.trim_end(), own);
    }
    for output in outputs(|spec| spec, script) {
        assert_ne!(output.trim_end(), own);
    }
}

/// As an ordinary user, and by runc alone: where v1 and v2 are mixed, crun needs a trick that an ordinary user can't
/// play.
#[test]
fn a_rootless_spec_runs_without_root() {
    const NOBODY: u32 = 65534;
    for network in [Namespace::Host, Namespace::New] {
        let directory = tempfile::tempdir().expect("a directory");
        if let Err(reason) = rootfs(directory.path()) {
            longshore_testing::skip(reason);
            return;
        }
        let files = MountsView::directory(directory.path().join("rootfs")).expect("a view");
        let script = "id -u; id -G; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; touch /new && echo written";
        let spec = SpecBuilder::without_image()
            .args(["sh", "-c", script])
            .limit_capabilities(available_capabilities().expect("capabilities"))
            .rootless(Rootless::new(IdMappings::single(NOBODY, NOBODY)))
            .network(network)
            .build(&files)
            .expect("a spec");
        Bundle::create(directory.path(), &spec).expect("a bundle");
        let owner = format!("{NOBODY}:{NOBODY}");
        let chowned = Command::new("chown")
            .args(["-R", &owner])
            .arg(directory.path())
            .status()
            .expect("chown");
        assert!(chowned.success());
        let Some(output) = run_as(NOBODY, directory.path()) else {
            return;
        };
        assert_eq!(output, "0\n0\nNoNewPrivs:\t1\nSeccomp:\t2\nwritten\n");
    }
}

fn run_as(user: u32, bundle: &Path) -> Option<String> {
    if !is_installed("runc") || !is_installed("setpriv") {
        return None;
    }
    let output = Command::new("setpriv")
        .args([
            "--clear-groups",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "runc",
            "--root",
        ])
        .arg(bundle.join("state"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg("longshore-rootless")
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}
