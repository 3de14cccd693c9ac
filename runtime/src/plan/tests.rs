//! Programs as a person reads them, and what is refused, without root.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;
use crate::{Error, cgroup};

fn facts(privilege: Privilege) -> HostFacts {
    let mountinfo = b"31 1 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
    HostFacts {
        uid: if privilege == Privilege::Full { 0 } else { 1000 },
        gid: if privilege == Privilege::Full { 0 } else { 1000 },
        privilege,
        kernel: (6, 12),
        cgroups: cgroup::Host::parse(mountinfo, b"2:cpu,cpuacct:/\n", ""),
        last_capability: 40,
        apparmor: false,
        selinux: false,
        resctrl: None,
    }
}

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "args": ["sh", "-c", "true"], "cwd": "/work", "env": ["PATH=/bin:/usr/bin"],
            "user": { "uid": 1000, "gid": 1000, "additionalGids": [5] },
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/data", "source": "/srv/data", "options": ["rbind", "rro", "nosuid"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"] },
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "network", "path": "/run/netns/a" }],
            "sysctl": { "net.ipv4.ip_forward": "1" },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn compile(spec: &Value, privilege: Privilege) -> crate::Result<Program> {
    let spec: Spec = serde_json::from_value(spec.clone()).expect("a runtime spec");
    plan(&spec, &facts(privilege), &PlanOptions::new("/bundle"))
}

#[test]
fn a_program_reads_as_what_a_start_does() {
    insta::assert_snapshot!(compile(&spec(), Privilege::Full).expect("it compiles"));
}

#[test]
fn a_program_of_an_ordinary_user_maps_him_to_root() {
    let mut spec = spec();
    spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    spec["linux"]["namespaces"] =
        json!([{ "type": "user" }, { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "network" }]);
    insta::assert_snapshot!(compile(&spec, Privilege::None).expect("it compiles"));
}

#[test]
fn a_user_namespace_made_by_root_gets_its_mounts_from_the_host() {
    let mut spec = spec();
    spec["linux"]["namespaces"] = json!([{ "type": "user" }, { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "network", "path": "/run/netns/a" }]);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    insta::assert_snapshot!(compile(&spec, Privilege::Full).expect("it compiles"));
}

/// A kernel that has trees of mounts which are attached to nothing.
fn newer_facts() -> HostFacts {
    HostFacts {
        kernel: (6, 15),
        ..facts(Privilege::Full)
    }
}

#[test]
fn a_container_that_shares_its_mount_namespace_has_a_root_apart() {
    let mut spec = spec();
    spec["root"]["readonly"] = json!(false);
    spec["linux"]["namespaces"] =
        json!([{ "type": "pid" }, { "type": "uts" }, { "type": "network", "path": "/run/netns/a" }]);
    spec["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
    let parsed: Spec = serde_json::from_value(spec.clone()).expect("a runtime spec");
    let options = PlanOptions::new("/bundle");
    insta::assert_snapshot!(plan(&parsed, &newer_facts(), &options).expect("it compiles"));
    let error = plan(&parsed, &facts(Privilege::Full), &options).expect_err("the kernel is older");
    assert!(error.to_string().contains("needs Linux 6.15"), "{error}");

    // A path in the list makes it somebody else's, and the rest the same.
    spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "mount", "path": "/m" }));
    let parsed: Spec = serde_json::from_value(spec).expect("a runtime spec");
    let program = plan(&parsed, &newer_facts(), &options)
        .expect("it compiles")
        .to_string();
    let at = |text: &str| program.find(text).unwrap_or_else(|| panic!("{text}: {program}"));
    assert!(
        at("join mount") < at("apart") && at("apart") < at("change root"),
        "{program}"
    );
    assert!(!program.contains("make /"), "{program}");
}

type Change = fn(&mut Value);

#[test]
fn what_is_wrong_or_not_supported_is_named_by_its_field() {
    let cases: [(Change, &str); 41] = [
        (|s| s["ociVersion"] = json!("2.0"), "ociVersion"),
        (|s| s["windows"] = json!({ "layerFolders": [] }), "windows"),
        (|s| s["process"]["args"] = json!([]), "process.args"),
        (|s| s["process"]["env"] = json!(["=x"]), "process.env[0]"),
        (|s| s["process"]["args"] = json!(["a", "b\0"]), "process.args[1]"),
        (|s| s["process"]["cwd"] = json!("work"), "process.cwd"),
        (|s| s["process"]["oomScoreAdj"] = json!(1001), "process.oomScoreAdj"),
        (|s| s["process"]["rlimits"][0]["soft"] = json!(21), "process.rlimits[0]"),
        (
            |s| s["process"]["apparmorProfile"] = json!("x"),
            "process.apparmorProfile",
        ),
        (|s| s["process"]["selinuxLabel"] = json!("x"), "process.selinuxLabel"),
        (
            |s| s["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "process.ioPriority.priority",
        ),
        (
            |s| s["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER", "priority": 1 }),
            "process.scheduler.priority",
        ),
        (
            |s| s["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 1, "deadline": 1 }),
            "process.scheduler.deadline",
        ),
        (
            |s| s["process"]["scheduler"] = json!({ "policy": "SCHED_ISO" }),
            "process.scheduler.policy",
        ),
        (
            |s| s["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "9000" }),
            "linux.memoryPolicy.nodes",
        ),
        (
            |s| s["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets",
        ),
        (
            |s| {
                s["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }, { "type": "time" }]);
                s["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } });
            },
            "linux.timeOffsets.realtime",
        ),
        (
            |s| s["process"]["capabilities"]["effective"] = json!(["CAP_CHOWN"]),
            "process.capabilities.effective",
        ),
        (|s| s["mounts"][1]["type"] = json!(""), "mounts[1].type"),
        (|s| s["mounts"][2]["destination"] = json!("/"), "mounts[2].destination"),
        (
            |s| s["mounts"][2]["destination"] = json!("/proc/self/attr"),
            "mounts[2].destination",
        ),
        (
            |s| s["mounts"][2]["destination"] = json!("/x/../proc/sys"),
            "mounts[2].destination",
        ),
        (
            // There is no user namespace whose mapping it could have.
            |s| s["mounts"][2]["options"] = json!(["bind", "idmap"]),
            "mounts[2].options",
        ),
        (
            |s| s["mounts"][2]["options"] = json!(["bind", "r0"]),
            "mounts[2].options",
        ),
        (
            |s| s["linux"]["namespaces"] = json!([{ "type": "pid" }]),
            "linux.namespaces",
        ),
        (
            |s| s["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "mount" }]),
            "linux.namespaces[1]",
        ),
        (|s| s["linux"]["namespaces"] = json!([{ "type": "mount" }]), "hostname"),
        (
            |s| s["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]),
            "linux.uidMappings",
        ),
        (
            |s| s["linux"]["sysctl"] = json!({ "kernel.panic": "1" }),
            "linux.sysctl.kernel.panic",
        ),
        (
            |s| s["linux"]["sysctl"] = json!({ "net..x": "1" }),
            "linux.sysctl.net..x",
        ),
        (
            |s| s["linux"]["rootfsPropagation"] = json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (|s| s["linux"]["intelRdt"] = json!({ "closID": "a" }), "linux.intelRdt"),
        (
            |s| {
                s["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }]);
                s["linux"]["sysctl"] = json!({});
                s["linux"]["netDevices"] = json!({ "eth0": {} });
            },
            "linux.netDevices",
        ),
        (
            |s| s["linux"]["netDevices"] = json!({ "eth0/1": {} }),
            "linux.netDevices.eth0/1",
        ),
        (
            |s| s["linux"]["netDevices"] = json!({ "eth%d": {} }),
            "linux.netDevices.eth%d",
        ),
        (
            |s| s["linux"]["netDevices"] = json!({ "eth0": { "name": "a-name-of-16-byt" } }),
            "linux.netDevices.eth0.name",
        ),
        (
            |s| s["linux"]["netDevices"] = json!({ "a": { "name": "x" }, "b": { "name": "x" } }),
            "linux.netDevices.b.name",
        ),
        (
            |s| s["linux"]["personality"] = json!({ "domain": "LINUX32", "flags": ["X"] }),
            "linux.personality.flags",
        ),
        (
            |s| s["hooks"] = json!({ "startContainer": [{ "path": "x" }] }),
            "hooks.startContainer[0].path",
        ),
        (
            |s| s["hooks"] = json!({ "poststop": [{ "path": "/x", "timeout": 0 }] }),
            "hooks.poststop[0].timeout",
        ),
        (
            |s| s["hooks"] = json!({ "createContainer": [{ "path": "/x", "args": ["a", "b\0"] }] }),
            "hooks.createContainer[0].args[1]",
        ),
    ];
    for (change, expected) in cases {
        let mut spec = spec();
        change(&mut spec);
        match compile(&spec, Privilege::Full) {
            Err(Error::InvalidSpec { field, .. } | Error::Unsupported { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn network_devices_are_moved_once_the_child_is_in_its_namespace() {
    let mut spec = spec();
    spec["linux"]["netDevices"] =
        json!({ "eth1": { "name": "" }, "eth0": { "name": "net0" }, "b": { "name": "v%d" }, "a": { "name": "v%d" } });
    let program = compile(&spec, Privilege::Full).expect("it compiles").to_string();
    let lines: Vec<_> = program
        .lines()
        .filter(|l| {
            ["network device", "join network", "netdevices"]
                .iter()
                .any(|word| l.contains(word))
        })
        .map(|l| l.split(" # ").map(str::trim_end).collect::<Vec<_>>())
        .collect();
    let expected = [
        [
            "host   move network device a into the container as v%d",
            "linux.netDevices.a",
        ],
        [
            "host   move network device b into the container as v%d",
            "linux.netDevices.b",
        ],
        [
            "host   move network device eth0 into the container as net0",
            "linux.netDevices.eth0",
        ],
        [
            "host   move network device eth1 into the container as eth1",
            "linux.netDevices.eth1",
        ],
        ["child  join network (slot 7)", "linux.namespaces[3]"],
        ["child  meet host: netdevices", "linux.netDevices"],
    ];
    assert_eq!(lines, expected, "{program}");
    spec["linux"]["namespaces"] =
        json!([{ "type": "user" }, { "type": "mount" }, { "type": "uts" }, { "type": "network" }]);
    spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    let error = compile(&spec, Privilege::None).expect_err("not for an ordinary user");
    assert!(
        error.to_string().starts_with("linux.netDevices: not supported"),
        "{error}"
    );
}

#[test]
fn labels_are_written_where_the_modules_are_enabled() {
    let mut spec = spec();
    spec["process"]["apparmorProfile"] = json!("box");
    spec["process"]["selinuxLabel"] = json!("u:r:t:s0");
    let spec: Spec = serde_json::from_value(spec).expect("a runtime spec");
    let mut facts = facts(Privilege::Full);
    facts.apparmor = true;
    facts.selinux = true;
    let mut options = PlanOptions::new("/bundle");
    options.keyring = Some("_ses.box".into());
    let program = plan(&spec, &facts, &options).expect("it compiles").to_string();
    let lines: Vec<_> = program
        .lines()
        .filter(|l| l.contains("attribute ") || l.contains("keyring"))
        .collect();
    let expected = [
        "write \"u:r:t:s0\" to attribute KeyCreate",
        "join keyring _ses.box",
        "write \"\" to attribute KeyCreate",
        "write \"exec box\" to attribute AppArmorExec",
        "write \"u:r:t:s0\" to attribute Exec",
    ];
    assert_eq!(lines.len(), expected.len(), "{program}");
    assert!(
        lines.iter().zip(expected).all(|(line, text)| line.contains(text)),
        "{lines:#?}"
    );
    assert_eq!(program.matches("open /proc").count(), 1, "{program}");
}

#[test]
fn what_is_mounted_anew_has_the_label_that_is_asked_for() {
    let mut spec = spec();
    spec["linux"]["mountLabel"] = json!("u:r:t:s0:c1,c2");
    spec["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/acpi"]);
    for mount in [
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" }),
        json!({ "destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": ["context=\"a:b:c:s0:c3,c4\""] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" }),
        json!({ "destination": "/old", "type": "ext4", "source": "/dev/x", "options": ["iversion"] }),
    ] {
        spec["mounts"].as_array_mut().expect("a list").push(mount);
    }
    let spec: Spec = serde_json::from_value(spec).expect("a runtime spec");
    let mut facts = facts(Privilege::Full);
    let without = plan(&spec, &facts, &PlanOptions::new("/bundle")).expect("it needs no SELinux");
    assert!(
        !without
            .steps
            .iter()
            .any(|step| step.op.to_string().contains("u:r:t:s0")),
        "{without}"
    );
    assert!(
        without
            .warnings()
            .iter()
            .any(|w| w.starts_with("linux.mountLabel: 'u:r:t:s0:c1,c2' is not set")),
        "{:?}",
        without.warnings()
    );
    facts.selinux = true;
    let program = plan(&spec, &facts, &PlanOptions::new("/bundle")).expect("it compiles");
    let text = program.to_string();
    let lines: Vec<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("child  mount "))
        .map(|l| l.split(" # ").next().unwrap_or_default().trim_end())
        .collect();
    let with = |start: &str| {
        *lines
            .iter()
            .find(|l| l.starts_with(start))
            .unwrap_or_else(|| panic!("{start}: {text}"))
    };
    let context = " context=u:r:t:s0:c1,c2 on ";
    assert!(with("tmpfs source=tmpfs mode=755").contains(context), "{text}");
    assert!(with("tmpfs mode=755").contains(context), "the cgroups' own: {text}");
    assert!(
        with("tmpfs source=tmpfs context").contains(" context=a:b:c:s0:c3,c4 on "),
        "{text}"
    );
    assert!(with("mqueue").ends_with(" label u:r:t:s0:c1,c2"), "{text}");
    for own in ["proc", "sysfs", "slot"] {
        assert!(!with(own).contains("c1,c2"), "{own}: {text}");
    }
    assert!(
        with("ext4").contains("context=\"u:r:t:s0:c1,c2\""),
        "mount(2) splits at commas: {text}"
    );
    let labelled =
        |step: &Step| matches!(&step.op, Op::Mask { label: Some(label), .. } if label.as_c_str() == c"u:r:t:s0:c1,c2");
    assert_eq!(program.steps.iter().filter(|step| labelled(step)).count(), 2, "{text}");
}

#[test]
fn others_are_joined_before_the_user_namespace_while_that_is_allowed() {
    let mut spec = spec();
    spec["linux"]["sysctl"] = json!({});
    let of = |kind: &str| json!({ "type": kind, "path": format!("/proc/1/ns/{kind}") });
    spec["linux"]["namespaces"] =
        json!([{ "type": "mount" }, of("user"), of("uts"), of("pid"), of("network"), of("time")]);
    spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    let joins = |privilege| {
        let program = compile(&spec, privilege).expect("it compiles").to_string();
        let words = program.lines().filter_map(|l| l.strip_prefix("join "));
        words
            .map(|l| l.split_whitespace().next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(joins(Privilege::Full), ["uts", "network", "time", "pid", "user"]);
    assert_eq!(joins(Privilege::None), ["user", "pid"]);
}

#[test]
fn a_capability_that_the_kernel_lacks_is_warned_of() {
    let mut facts = facts(Privilege::Full);
    facts.last_capability = 37;
    let mut spec = spec();
    let caps = json!(["CAP_KILL", "CAP_BPF", "CAP_PERFMON"]);
    spec["process"]["capabilities"] = json!({ "bounding": caps, "permitted": caps, "ambient": ["CAP_KILL"] });
    let spec: Spec = serde_json::from_value(spec).expect("a runtime spec");
    let program = plan(&spec, &facts, &PlanOptions::new("/bundle")).expect("it compiles");
    assert_eq!(
        program.warnings(),
        [
            "ignoring unknown or unavailable capabilities: [CAP_BPF CAP_PERFMON]",
            "can't raise ambient capability CAP_KILL: it is not permitted and inheritable",
        ]
    );
    assert!(program.to_string().starts_with("warning ignoring unknown"));
}

#[test]
fn what_a_bind_mount_does_not_take_is_warned_of() {
    let mut spec = spec();
    let bind = json!({ "destination": "/data", "source": "/srv", "options": ["bind", "ro", "mode=755"] });
    spec["mounts"].as_array_mut().expect("a list").push(bind);
    let spec: Spec = serde_json::from_value(spec).expect("a runtime spec");
    let program = plan(&spec, &facts(Privilege::Full), &PlanOptions::new("/bundle")).expect("it compiles");
    let warnings = program.warnings();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("options: 'mode' is left out")),
        "{warnings:?}"
    );
}

/// The hooks' places among the steps, and nothing of them where there are none.
#[test]
fn hooks_are_met_before_the_root_is_entered_and_after_the_start() {
    let mut spec = spec();
    let steps = |spec: &Value, privilege| {
        let program = compile(spec, privilege).expect("it compiles").to_string();
        let wanted = [
            "open",
            "slot",
            "dumpable",
            "pivot",
            "meet",
            "await",
            "execute",
            "become root",
            "filter",
        ];
        let lines = program.lines().filter_map(|l| {
            l.strip_prefix("child  ").map(|l| {
                l[..60]
                    .split(" (slot")
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
                    .to_owned()
            })
        });
        let kept =
            lines.filter(|l| wanted.iter().any(|w| l.contains(w)) && !l.starts_with("mount") && !l.starts_with("join"));
        kept.collect::<Vec<_>>()
    };
    let without = steps(&spec, Privilege::Full);
    assert!(!without.iter().any(|l| l.contains("hooks")), "{without:?}");
    spec["hooks"] = json!({ "createContainer": [{ "path": "/x" }], "startContainer": [{ "path": "/x" }] });
    let expected = [
        "meet host: placed",
        "open \"/bundle/rootfs\"",
        "undumpable",
        "open \"/srv/data\"",
        "move the root onto slot",
        "meet host: hooks",
        "pivot root",
        "undumpable",
        "meet host: created",
        "await start",
        "meet host: starthooks",
        "execute",
    ];
    assert_eq!(steps(&spec, Privilege::Full), expected);
    spec["linux"]["namespaces"] =
        json!([{ "type": "user" }, { "type": "mount" }, { "type": "uts" }, { "type": "network" }]);
    spec["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    let error = compile(&spec, Privilege::None).expect_err("not for an ordinary user");
    assert!(
        error.to_string().starts_with("hooks.startContainer: not supported"),
        "{error}"
    );
    spec["hooks"] = json!({ "prestart": [{ "path": "/x" }] });
    let ordinary = steps(&spec, Privilege::None);
    let meeting = ordinary
        .iter()
        .position(|l| l == "meet host: hooks")
        .expect("a meeting");
    assert_eq!(
        (&*ordinary[meeting - 1], &*ordinary[meeting + 1]),
        ("dumpable", "undumpable")
    );
}

#[test]
fn an_overlay_of_many_layers_names_them_one_by_one_where_the_kernel_can() {
    let layers: Vec<_> = (0..200).map(|i| format!("/layers/with-a-long-name/{i}")).collect();
    let mount = longshore_linux::Mount {
        fs_type: "overlay".into(),
        source: "overlay".into(),
        ..Default::default()
    };
    let mut options = PlanOptions::new("/bundle");
    options.rootfs = vec![mount.option(format!("lowerdir={}", layers.join(":")))];
    let spec: Spec = serde_json::from_value(spec()).expect("a runtime spec");
    let mut facts = facts(Privilege::Full);
    let program = plan(&spec, &facts, &options).expect("it compiles").to_string();
    assert_eq!(program.matches("lowerdir+=").count(), 200);
    facts.kernel = (5, 15);
    let program = plan(&spec, &facts, &options).expect("it compiles").to_string();
    assert!(program.contains("lowerdir=a:b:c:"), "{program}");
    assert!(program.contains(" rh=\"/layers/with-a-long-name/199\""), "{program}");
    // These can't be shortened.
    let long = format!("/{}", "u".repeat(4090));
    options.rootfs[0].options.push(format!("upperdir={long}"));
    let error = plan(&spec, &facts, &options).expect_err("a page can't hold it");
    assert!(error.to_string().starts_with("rootfs[0].options"), "{error}");
}
