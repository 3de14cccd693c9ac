use std::fs;

use oci_spec::runtime::{LinuxDeviceType, Spec};
use serde_json::{Value, json};

use super::*;
use crate::{ErrorKind, NoFiles, SpecBuilder};

/// Directories with specifications in them.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("low")).unwrap();
        fs::create_dir(folder.path().join("high")).unwrap();
        Self { folder }
    }

    fn put(&self, name: &str, text: impl ToString) {
        fs::write(self.folder.path().join(name), text.to_string()).unwrap();
    }

    fn read(&self) -> Cdi {
        Cdi::read(["low", "missing", "high"].map(|name| self.folder.path().join(name))).unwrap()
    }
}

/// A specification whose devices each set a variable.
fn pumps(version: &str, names: &[&str], value: &str) -> Value {
    let device = |name: &&str| json!({"name": name, "containerEdits": {"env": [format!("PUMP={value}")]}});
    json!({"cdiVersion": version, "kind": "acme.example/pump", "devices": names.iter().map(device).collect::<Vec<_>>()})
}

/// One device with these edits, in a specification with those.
fn one(version: &str, device: Value, general: Value) -> Value {
    json!({"cdiVersion": version, "kind": "acme.example/pump", "containerEdits": general,
        "devices": [{"name": "one", "containerEdits": device}]})
}

fn spec(cdi: &Cdi, names: &[&str]) -> Spec {
    let edits = cdi.resolve(names).unwrap();
    let builder = SpecBuilder::without_image().args(["run"]).user("1000:1000");
    builder
        .env("GIVEN=1")
        .env("PUMP=mine")
        .with_cdi(edits)
        .build(&NoFiles)
        .unwrap()
}

fn env(spec: &Spec) -> Vec<String> {
    let process = spec.process().as_ref().unwrap();
    let ours = |entry: &&String| ["GIVEN=", "PUMP=", "ALL="].iter().any(|name| entry.starts_with(name));
    process.env().iter().flatten().filter(ours).cloned().collect()
}

#[test]
fn all_that_a_specification_may_ask_for_is_in_the_spec() {
    let site = Site::new();
    let general = json!({"env": ["ALL=yes"], "additionalGids": [0, 44]});
    let device = json!({
        "env": ["PUMP=one"],
        "deviceNodes": [
            {"path": "/dev/a", "type": "c", "major": 240, "minor": 7, "fileMode": 0o640, "permissions": "rw", "uid": 5, "gid": 6},
            {"path": "/dev/b", "hostPath": "/dev/zero"},
            {"path": "/dev/pipe", "type": "p"},
        ],
        "netDevices": [{"hostInterfaceName": "acme7", "name": "eth1"}],
        "mounts": [
            {"hostPath": "/opt/acme", "containerPath": "/opt/acme", "options": ["ro", "nosuid"]},
            {"hostPath": "acme", "containerPath": "/run/acme", "type": "tmpfs", "options": ["nodev"]},
        ],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/acme", "args": ["acme", "up"], "env": ["A=b"], "timeout": 3}],
        "additionalGids": [45],
        "intelRdt": {"closID": "pumps", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "enableCMT": true},
    });
    site.put("low/acme.json", one("1.1.0", device, general));
    let spec = spec(&site.read(), &["acme.example/pump=one"]);
    assert_eq!(env(&spec), ["GIVEN=1", "PUMP=one", "ALL=yes"]);
    assert_eq!(
        spec.process().as_ref().unwrap().user().additional_gids(),
        &Some(vec![1000, 44, 45])
    );
    let linux = spec.linux().as_ref().unwrap();
    let nodes = linux.devices().as_ref().unwrap();
    let shown: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                node.path().to_str().unwrap(),
                node.typ(),
                node.major(),
                node.minor(),
                node.uid(),
                node.gid(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("/dev/a", LinuxDeviceType::C, 240, 7, Some(5), Some(6)),
            ("/dev/b", LinuxDeviceType::C, 1, 5, Some(1000), Some(1000)),
            ("/dev/pipe", LinuxDeviceType::P, 0, 0, Some(1000), Some(1000)),
        ]
    );
    assert_eq!(nodes[0].file_mode(), Some(0o640));
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    let given: Vec<_> = rules[rules.len() - 2..]
        .iter()
        .map(|rule| (rule.allow(), rule.major(), rule.minor(), rule.access().clone().unwrap()))
        .collect();
    assert_eq!(
        given,
        [
            (true, Some(240), Some(7), "rw".to_owned()),
            (true, Some(1), Some(5), "rwm".to_owned())
        ]
    );
    let mounts = spec.mounts().as_ref().unwrap();
    let at = |path: &str| {
        mounts
            .iter()
            .find(|mount| mount.destination() == Path::new(path))
            .unwrap()
    };
    let options = |path: &str| at(path).options().clone().unwrap();
    assert_eq!(
        (at("/opt/acme").typ(), options("/opt/acme")),
        (&None, vec!["ro".into(), "nosuid".into(), "bind".into()])
    );
    assert_eq!(
        (at("/run/acme").typ(), options("/run/acme")),
        (&Some("tmpfs".into()), vec!["nodev".to_owned()])
    );
    let hooks = spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap();
    assert_eq!(
        (hooks[0].path().as_path(), hooks[0].timeout()),
        (Path::new("/usr/bin/acme"), Some(3))
    );
    let rdt = linux.intel_rdt().as_ref().unwrap();
    assert_eq!(
        (rdt.clos_id().as_deref(), *rdt.enable_monitoring()),
        (Some("pumps"), Some(true))
    );
    let net = linux.net_devices().as_ref().unwrap();
    assert_eq!(net["acme7"].name().as_deref(), Some("eth1"));
    assert_eq!(spec.version(), "1.3.0");
}

#[test]
fn edits_come_in_the_order_of_the_names_and_general_ones_once() {
    let site = Site::new();
    let mut document = pumps("0.6.0", &["a", "b"], "x");
    document["containerEdits"] = json!({"hooks": [{"hookName": "poststop", "path": "/bin/all"}]});
    document["devices"][0]["containerEdits"] =
        json!({"env": ["PUMP=a"], "hooks": [{"hookName": "poststop", "path": "/bin/a"}]});
    document["devices"][1]["containerEdits"] =
        json!({"env": ["PUMP=b"], "hooks": [{"hookName": "poststop", "path": "/bin/b"}]});
    site.put("low/acme.json", document);
    let cdi = site.read();
    for (names, value, order) in [
        (
            ["acme.example/pump=a", "acme.example/pump=b"],
            "PUMP=b",
            ["/bin/all", "/bin/a", "/bin/b"],
        ),
        (
            ["acme.example/pump=b", "acme.example/pump=a"],
            "PUMP=a",
            ["/bin/all", "/bin/b", "/bin/a"],
        ),
    ] {
        let spec = spec(&cdi, &names);
        assert_eq!(env(&spec), ["GIVEN=1", value]);
        let hooks = spec.hooks().as_ref().unwrap().poststop().as_ref().unwrap();
        let paths: Vec<_> = hooks.iter().map(|hook| hook.path().to_str().unwrap()).collect();
        assert_eq!(paths, order);
    }
}

#[test]
fn the_last_directory_counts_and_two_files_of_one_are_in_conflict() {
    let site = Site::new();
    site.put("low/acme.json", pumps("0.6.0", &["a", "b", "c"], "low"));
    site.put("high/acme.json", pumps("0.6.0", &["a", "c"], "high"));
    site.put("high/other.json", pumps("0.6.0", &["c"], "other"));
    site.put("high/notes.txt", "none");
    fs::create_dir(site.folder.path().join("high/folder.json")).unwrap();
    let cdi = site.read();
    assert!(cdi.problems().is_empty(), "{:?}", cdi.problems());
    let names: Vec<_> = cdi.devices().map(CdiName::to_string).collect();
    assert_eq!(names, ["acme.example/pump=a", "acme.example/pump=b"]);
    assert_eq!(env(&spec(&cdi, &["acme.example/pump=a"])), ["GIVEN=1", "PUMP=high"]);
    assert_eq!(env(&spec(&cdi, &["acme.example/pump=b"])), ["GIVEN=1", "PUMP=low"]);
    let error = cdi.resolve(["acme.example/pump=c"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains("high/acme.json and") && text.contains("high/other.json"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_wrong_takes_no_other_device_away_and_is_told() {
    let site = Site::new();
    site.put("low/good.yaml", pumps("0.6.0", &["good"], "x"));
    let edits = |edits: Value| one("1.0.0", edits, json!({}));
    let node = |node: Value| edits(json!({"deviceNodes": [node]}));
    for (n, (document, complaint)) in [
        (pumps("0.2.0", &["a"], "x"), "cdiVersion: '0.2.0' is not one of"),
        (pumps("2.0.0", &["a"], "x"), "cdiVersion: '2.0.0'"),
        (
            pumps("0.4.0", &["7"], "x"),
            "it is 0.4.0, but a device's name that begins with a digit came with 0.5.0",
        ),
        (pumps("0.6.0", &[], "x"), "devices: there is none"),
        (pumps("0.6.0", &["a", "a"], "x"), "'a': it is there twice"),
        (pumps("0.6.0", &["-a"], "x"), "'-a' is no name of a device"),
        (
            json!({"cdiVersion": "0.6.0", "kind": "acme", "devices": []}),
            "'acme' is no kind",
        ),
        (
            json!({"cdiVersion": "0.6.0", "kind": "1a/b", "devices": []}),
            "'1a' is no name of a vendor",
        ),
        (
            json!({"cdiVersion": "0.6.0", "kind": "a/b", "devices": [], "more": 1}),
            "unknown field `more`",
        ),
        (
            one("0.5.0", json!({"env": ["A=b"]}), json!({"additionalGids": [1]})),
            "additionalGids came with 0.7.0",
        ),
        (
            one(
                "0.3.0",
                json!({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "none"}]}),
                json!({}),
            ),
            "a mount's type came with 0.4.0",
        ),
        (edits(json!({})), "'one': its containerEdits are empty"),
        (edits(json!({"env": ["A"]})), "'A' is not of the form"),
        (
            edits(json!({"mounts": [{"hostPath": "/a", "containerPath": "b"}]})),
            "mount at 'b'",
        ),
        (
            edits(json!({"hooks": [{"hookName": "later", "path": "/a"}]})),
            "'later' is no point",
        ),
        (
            edits(json!({"hooks": [{"hookName": "poststop", "path": "a"}]})),
            "path must be absolute",
        ),
        (
            edits(json!({"hooks": [{"hookName": "poststop", "path": "/a", "timeout": 0}]})),
            "at least one second",
        ),
        (
            edits(json!({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]})),
            "netDevices came with 1.1.0",
        ),
        (edits(json!({"intelRdt": {"closID": "../x"}})), "'../x' is no closID"),
        (node(json!({"path": "dev"})), "its paths must be absolute"),
        (node(json!({"path": "/dev/a", "type": "x"})), "its type is one of"),
        (
            node(json!({"path": "/dev/a", "permissions": "rx"})),
            "permissions are made of",
        ),
        (node(json!({"path": "/dev/a", "uid": -1})), "uid"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("low/bad-{n}.json");
        site.put(&name, &document);
        let cdi = site.read();
        let problems = cdi.problems();
        assert_eq!(problems.len(), 1, "{document}: {problems:?}");
        assert!(
            problems[0].contains(&name) && problems[0].contains(complaint),
            "{document}: {problems:?}"
        );
        assert_eq!(cdi.devices().count(), 1);
        let error = cdi.resolve(["acme.example/pump=bad"]).unwrap_err().to_string();
        assert!(
            error.contains(complaint) && error.contains("there are acme.example/pump=good"),
            "{error}"
        );
        fs::remove_file(site.folder.path().join(name)).unwrap();
    }
    site.put("low/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n");
    assert!(site.read().problems()[0].contains("it is YAML"));
}

#[test]
fn nothing_is_waited_for_or_read_without_end() {
    let site = Site::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.folder.path().join("low/pipe.json"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let large = fs::File::create(site.folder.path().join("low/large.json")).unwrap();
    large.set_len(FILE_LIMIT + 1).unwrap();
    let problems = site.read().problems();
    assert!(
        problems[0].contains("longer than") && problems[1].contains("it is no file"),
        "{problems:?}"
    );
}

#[test]
fn names() {
    for name in [
        "vendor.com/class=device",
        "v/c=0",
        "a-b_c.d/e.f_g-h=i.j:k_l-m",
        "nvidia.com/gpu=all",
    ] {
        let parsed: CdiName = name.parse().unwrap();
        assert_eq!(parsed.to_string(), name);
        assert_eq!(format!("{}={}", parsed.kind(), parsed.device()), name);
    }
    for name in [
        "", "a", "a/b", "a=b", "a/b=", "/b=c", "a/=c", "a/b=c=d", "a/b/c=d", "a/b=c-", "a./b=c", "a/b=c d", "a/b=é",
        "1/b=c",
    ] {
        let error = name.parse::<CdiName>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
    }
}

#[test]
fn a_node_that_is_not_on_this_machine_is_told() {
    let site = Site::new();
    for (node, complaint) in [
        (json!({"path": "/dev/no-such-device"}), "looking at /dev/no-such-device"),
        (json!({"path": "/dev/a", "hostPath": "/etc/passwd"}), "no device node"),
        (
            json!({"path": "/dev/a", "hostPath": "/dev/null", "type": "b"}),
            "of another type",
        ),
    ] {
        site.put("low/acme.json", one("0.6.0", json!({"deviceNodes": [node]}), json!({})));
        let error = site.read().resolve(["acme.example/pump=one"]).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}
