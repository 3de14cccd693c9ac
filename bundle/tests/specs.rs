//! What whole specs look like, as insta snapshots, and next to what runc prints.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use longshore_bundle::{
    Bind, CgroupVersion, IdMappings, Namespace, NoFiles, Rootless, Seccomp, SpecBuilder, SwapLimit, Terminal, Tmpfs,
    canonical_json, runc_rootless_spec, runc_spec,
};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{Capability, Spec};
use serde_json::{Value, json};

fn image(config: Value) -> ImageConfiguration {
    let image = json!({
        "created": "2024-05-22T18:18:12Z",
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    serde_json::from_value(image).expect("an image")
}

/// The default seccomp profile has its own tests, and is a function of the architecture.
fn text(spec: &Spec) -> String {
    let mut value: Value = serde_json::from_slice(&canonical_json(spec).expect("json")).expect("json");
    if let Some(seccomp) = value.pointer_mut("/linux/seccomp") {
        *seccomp = json!("(the default profile)");
    }
    serde_json::to_string_pretty(&value).expect("json")
}

#[test]
fn alpine() {
    let image = image(json!({"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]}));
    let spec = SpecBuilder::new(&image)
        .hostname("3f4e")
        .terminal(Terminal::sized(120, 40))
        .build(&NoFiles);
    insta::assert_snapshot!(text(&spec.expect("a spec")));
}

#[test]
fn a_web_server_with_limits_and_volumes() {
    let image = image(json!({
        "User": "nginx",
        "Env": ["PATH=/usr/local/bin:/usr/bin", "NGINX_VERSION=1.27"],
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
        "WorkingDir": "/srv",
        "Labels": {"maintainer": "somebody"},
    }));
    let files = BTreeMap::from([
        (
            PathBuf::from("/etc/passwd"),
            b"nginx:x:101:101:nginx:/var/cache/nginx:/sbin/nologin\n".to_vec(),
        ),
        (
            PathBuf::from("/etc/group"),
            b"nginx:x:101:nginx\nwww:x:82:nginx\n".to_vec(),
        ),
    ]);
    let spec = SpecBuilder::new(&image)
        .read_only()
        .bind(Bind::new("/srv/data", "/data").read_only())
        .tmpfs(Tmpfs::new("/run").size(1 << 20))
        .memory(256 << 20)
        .memory_swap(SwapLimit::Total(256 << 20))
        .cpus(0.5)
        .pids_limit(64)
        .cap_drop(Capability::NetRaw)
        .network(Namespace::Path("/run/netns/web".into()))
        .seccomp(Seccomp::Unconfined)
        .build(&files);
    insta::assert_snapshot!(text(&spec.expect("a spec")));
}

#[test]
fn privileged_on_the_host() {
    let builder = SpecBuilder::without_image().args(["sh"]).privileged();
    let spec = builder
        .network(Namespace::Host)
        .pid(Namespace::Host)
        .uts(Namespace::Host)
        .ipc(Namespace::Host);
    insta::assert_snapshot!(text(&spec.build(&NoFiles).expect("a spec")));
}

#[test]
fn rootless() {
    let rootless = Rootless::new(IdMappings::single(1000, 1000));
    let spec = SpecBuilder::without_image()
        .args(["sh"])
        .rootless(rootless)
        .network(Namespace::Host)
        .build(&NoFiles);
    insta::assert_snapshot!(text(&spec.expect("a spec")));
}

/// What `runc spec` writes, with its sets in order.
fn of_runc(args: &[&str]) -> Option<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let status = Command::new("runc")
        .arg("spec")
        .args(args)
        .current_dir(directory.path())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        longshore_testing::skip("runc is not installed");
        return None;
    }
    let json = std::fs::read(directory.path().join("config.json")).expect("a file");
    Some(in_order(serde_json::from_slice(&json).expect("json")))
}

fn in_order(mut spec: Value) -> Value {
    let sets = spec
        .pointer_mut("/process/capabilities")
        .and_then(Value::as_object_mut)
        .expect("capabilities");
    for set in sets.values_mut() {
        set.as_array_mut()
            .expect("a set")
            .sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    spec
}

fn cgroups() -> CgroupVersion {
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if v2 { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

/// Takes out what versions of runc differ in: their own number, and ambient capabilities, listed until 1.1, which nothing could raise.
fn of_any_version(spec: &mut Value) {
    spec["ociVersion"] = Value::Null;
    let sets = spec.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    sets.expect("capabilities").remove("ambient");
}

#[test]
fn the_spec_is_that_of_runc() {
    let Some(mut theirs) = of_runc(&[]) else { return };
    let mut ours = in_order(serde_json::to_value(runc_spec(cgroups())).expect("json"));
    [&mut theirs, &mut ours].into_iter().for_each(of_any_version);
    assert_eq!(ours, theirs);
}

#[test]
fn the_rootless_spec_is_that_of_runc() {
    let Some(mut theirs) = of_runc(&["--rootless"]) else {
        return;
    };
    let host = |path: &str| theirs.pointer(path).and_then(Value::as_u64).expect("an id") as u32;
    let (uid, gid) = (host("/linux/uidMappings/0/hostID"), host("/linux/gidMappings/0/hostID"));
    let ours = runc_rootless_spec(cgroups(), uid, gid).expect("a spec");
    let mut ours = in_order(serde_json::to_value(ours).expect("json"));
    [&mut theirs, &mut ours].into_iter().for_each(of_any_version);
    assert_eq!(ours, theirs);
}
