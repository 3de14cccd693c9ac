//! What the executor supports, in the form of the runtime specification's features document (features.md).
//!
//! Hardly anything is listed here: the planner is asked about each word of the specification, so that the answer can't differ from what a
//! container would get.

use oci_spec::runtime::{
    Apparmor, ApparmorBuilder, Arch as SpecArch, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder,
    IntelRdtBuilder, LinuxFeature, LinuxFeatureBuilder, LinuxNamespaceType, MemoryPolicyBuilder,
    MountExtensionsBuilder, NetDevicesBuilder, SeccompBuilder, Selinux, SelinuxBuilder, Spec,
};
use serde_json::{Value, json};

use crate::plan::{CAPABILITIES, HostFacts, PlanOptions, Privilege, knows_option, plan};
use crate::seccomp::{self, Arch};
use crate::{Error, cgroup};

/// The oldest version of the runtime specification whose documents are read.
pub const SPEC_VERSION_MIN: &str = "1.0.0";
/// The newest version of the runtime specification whose fields are known.
pub const SPEC_VERSION_MAX: &str = "1.3.0";

const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];
/// Words that may come with and without `r` before them, and with and without `no`.
const OPTIONS: [&str; 31] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "ro",
    "private",
    "relatime",
    "remount",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "rw",
    "nofail",
    "owner",
    "group",
    "user",
];
const MODES: [&str; 7] = [
    "DEFAULT",
    "BIND",
    "INTERLEAVE",
    "WEIGHTED_INTERLEAVE",
    "PREFERRED",
    "PREFERRED_MANY",
    "LOCAL",
];
const MODE_FLAGS: [&str; 3] = ["NUMA_BALANCING", "RELATIVE_NODES", "STATIC_NODES"];

/// What this executor supports: built in, and apart from `linux.seccomp.supportedFlags` whether this machine has it or not.
///
/// # Example
/// ```
/// let features = longshore_runtime::features();
/// let seccomp = features.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
/// assert_eq!(seccomp.and_then(|seccomp| *seccomp.enabled()), Some(true));
/// ```
pub fn features() -> Features {
    let hooks = HOOKS
        .iter()
        .filter(|kind| takes(&json!({ "hooks": { **kind: [{ "path": "/bin/true" }] } })));
    FeaturesBuilder::default()
        .oci_version_min(SPEC_VERSION_MIN)
        .oci_version_max(SPEC_VERSION_MAX)
        .hooks(hooks.map(|kind| (*kind).to_owned()).collect::<Vec<_>>())
        .mount_options(mount_options())
        .linux(linux())
        .potentially_unsafe_config_annotations(annotations())
        .build()
        .expect("every field has a default")
}

/// Those that change what is done.
fn annotations() -> Vec<String> {
    #[cfg(feature = "systemd")]
    return vec![cgroup::systemd::ANNOTATION.to_owned()];
    #[cfg(not(feature = "systemd"))]
    Vec::new()
}

fn linux() -> LinuxFeature {
    // Not every kernel has containers without a mount namespace of their own.
    let with = |kind: &LinuxNamespaceType| match kind {
        LinuxNamespaceType::Mount => json!([{ "type": kind }]),
        kind => json!([{ "type": "mount" }, { "type": kind }]),
    };
    let kinds = NAMESPACES
        .into_iter()
        .filter(|kind| takes(&in_linux("namespaces", with(kind))));
    let capabilities = CAPABILITIES.iter().map(|name| format!("CAP_{name}"));
    LinuxFeatureBuilder::default()
        .namespaces(kinds.collect::<Vec<_>>())
        .capabilities(capabilities.collect::<Vec<_>>())
        .cgroup(cgroup_features())
        .seccomp(seccomp_features())
        .apparmor(apparmor())
        .selinux(selinux())
        .intel_rdt(intel_rdt())
        .memory_policy(memory_policy())
        .mount_extensions(mount_extensions())
        .net_devices(net_devices())
        .build()
        .expect("every field has a default")
}

/// The words that are not left for the filesystem.
fn mount_options() -> Vec<String> {
    let forms = OPTIONS
        .iter()
        .flat_map(|word| ["", "r", "no", "rno"].map(|before| format!("{before}{word}")));
    let mut known: Vec<String> = forms.filter(|word| knows_option(word)).collect();
    known.sort_unstable();
    known.dedup();
    known
}

fn cgroup_features() -> oci_spec::runtime::Cgroup {
    let systemd = cfg!(feature = "systemd");
    CgroupBuilder::default()
        .v1(true)
        .v2(true)
        .systemd(systemd)
        .systemd_user(systemd)
        .rdma(true)
        .build()
        .expect("every field has a default")
}

fn seccomp_features() -> oci_spec::runtime::Seccomp {
    let flags = |flags: &[seccomp::Flag]| flags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut archs: Vec<SpecArch> = Arch::ALL.into_iter().map(Arch::to_spec).collect();
    archs.sort_by_key(ToString::to_string);
    SeccompBuilder::default()
        .enabled(Arch::native().is_some())
        .actions(seccomp::ACTIONS)
        .operators(seccomp::OPERATORS.map(|operator| operator.to_string()))
        .archs(archs)
        .known_flags(flags(&seccomp::FLAGS.map(|(flag, _)| flag)))
        .supported_flags(flags(&seccomp::supported_flags()))
        .build()
        .expect("every field has a default")
}

fn apparmor() -> Apparmor {
    let enabled = takes(&json!({ "process": { "apparmorProfile": "demo" } }));
    ApparmorBuilder::default()
        .enabled(enabled)
        .build()
        .expect("every field has a default")
}

fn selinux() -> Selinux {
    let enabled = takes(&json!({ "process": { "selinuxLabel": "a:b:c:s0" } }));
    SelinuxBuilder::default()
        .enabled(enabled)
        .build()
        .expect("every field has a default")
}

fn intel_rdt() -> oci_spec::runtime::IntelRdt {
    let with = |field: &str, value: Value| takes(&in_linux("intelRdt", json!({ field: value })));
    IntelRdtBuilder::default()
        .enabled(with("l3CacheSchema", json!("L3:0=f")))
        .schemata(with("schemata", json!(["L3:0=f"])))
        .monitoring(with("enableMonitoring", json!(true)))
        .build()
        .expect("every field has a default")
}

fn memory_policy() -> oci_spec::runtime::MemoryPolicy {
    let takes = |mode: &str, flags: &[String]| {
        let nodes = if ["DEFAULT", "LOCAL"].contains(&mode) { "" } else { "0" };
        takes(&in_linux(
            "memoryPolicy",
            json!({ "mode": format!("MPOL_{mode}"), "nodes": nodes, "flags": flags }),
        ))
    };
    let modes = MODES
        .iter()
        .filter(|mode| takes(mode, &[]))
        .map(|mode| format!("MPOL_{mode}"));
    let flags = MODE_FLAGS.iter().map(|flag| format!("MPOL_F_{flag}"));
    let flags = flags.filter(|flag| takes("BIND", std::slice::from_ref(flag)));
    MemoryPolicyBuilder::default()
        .modes(modes.collect::<Vec<_>>())
        .flags(flags.collect::<Vec<_>>())
        .build()
        .expect("every field has a default")
}

fn mount_extensions() -> oci_spec::runtime::MountExtensions {
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let mount = json!({ "destination": "/data", "source": "/data", "type": "none", "options": ["bind"],
        "uidMappings": map, "gidMappings": map });
    let idmap = IDMapBuilder::default().enabled(takes(&json!({ "mounts": [mount] })));
    MountExtensionsBuilder::default()
        .idmap(idmap.build().expect("every field has a default"))
        .build()
        .expect("every field has a default")
}

fn net_devices() -> oci_spec::runtime::NetDevices {
    let enabled = takes(&in_linux("netDevices", json!({ "eth0": { "name": "eth0" } })));
    NetDevicesBuilder::default()
        .enabled(enabled)
        .build()
        .expect("every field has a default")
}

fn in_linux(field: &str, value: Value) -> Value {
    json!({ "linux": { field: value } })
}

/// Whether a container that has this besides the bare necessities can be planned for a machine that lacks nothing.
fn takes(more: &Value) -> bool {
    let mut spec = json!({
        "ociVersion": SPEC_VERSION_MAX,
        "root": { "path": "rootfs" },
        "process": { "args": ["/bin/true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "network" }] },
    });
    merge(&mut spec, more);
    let spec = serde_json::from_value::<Spec>(spec);
    // A value that is not valid is of a field that is known.
    spec.is_ok_and(|spec| {
        let planned = plan(&spec, &capable(), &PlanOptions::new("/"));
        !matches!(planned, Err(Error::Unsupported { .. }))
    })
}

/// Lists are replaced.
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// A machine that lacks nothing.
fn capable() -> HostFacts {
    HostFacts {
        uid: 0,
        gid: 0,
        privilege: Privilege::Full,
        kernel: (u32::MAX, 0),
        cgroups: cgroup::Host::parse(b"", b"", ""),
        last_capability: CAPABILITIES.len() as u32 - 1,
        apparmor: true,
        selinux: true,
        resctrl: Some("/sys/fs/resctrl".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_planner_refuses_is_not_listed() {
        assert!(takes(&json!({})));
        assert!(!takes(&json!({ "windows": { "layerFolders": ["a"] } })));
        assert!(!takes(&in_linux(
            "personality",
            json!({ "domain": "PER_LINUX", "flags": ["no-such-flag"] })
        )));
        assert!(!takes(&in_linux(
            "namespaces",
            json!([{ "type": "mount" }, { "type": "no-such-kind" }])
        )));
    }

    #[test]
    fn the_document_has_all_of_the_specifications_words() {
        let features = serde_json::to_value(features()).expect("JSON");
        let list = |pointer: &str| -> Vec<String> {
            let list = features.pointer(pointer).and_then(Value::as_array).expect(pointer);
            list.iter().map(|v| v.as_str().expect("text").to_owned()).collect()
        };
        assert_eq!(list("/hooks"), HOOKS);
        assert_eq!(
            list("/linux/namespaces"),
            ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
        );
        assert_eq!(list("/linux/capabilities").len(), 41);
        let seccomp = list("/linux/seccomp/actions");
        assert_eq!(seccomp.len(), 9);
        assert!(seccomp.is_sorted() && seccomp.contains(&"SCMP_ACT_NOTIFY".to_owned()));
        let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"].map(|op| format!("SCMP_CMP_{op}"));
        assert_eq!(list("/linux/seccomp/operators"), operators);
        let archs = list("/linux/seccomp/archs");
        assert!(
            archs.is_sorted() && archs.contains(&"SCMP_ARCH_X86_64".to_owned()),
            "{archs:?}"
        );
        assert_eq!(list("/linux/seccomp/knownFlags").len(), 4);
        for option in [
            "ro",
            "rro",
            "rw",
            "nosuid",
            "rnosuid",
            "rbind",
            "tmpcopyup",
            "idmap",
            "ridmap",
            "runbindable",
            "nolazytime",
        ] {
            assert!(list("/mountOptions").contains(&option.to_owned()), "{option}");
        }
        for filesystems in ["nofail", "user", "mode=755"] {
            assert!(
                !list("/mountOptions").contains(&filesystems.to_owned()),
                "{filesystems}"
            );
        }
        assert_eq!(features.pointer("/linux/cgroup/v2"), Some(&json!(true)));
        assert_eq!(list("/linux/memoryPolicy/modes").len(), 7);
    }
}
