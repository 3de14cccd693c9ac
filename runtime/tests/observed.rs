//! What a program inside sees of each field of the spec.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use longshore_runtime::{DeleteMode, Executor};
use serde_json::{Value, json};
use support::{chain, place, spec};

fn shell(line: &str) -> Value {
    spec(&["sh", "-c", line])
}

#[tokio::test]
async fn each_namespace_is_its_own() {
    let Some(place) = place() else { return };
    for kind in ["pid", "mnt", "ipc", "uts", "net", "cgroup", "user"] {
        let mut spec = shell(&format!("readlink /proc/self/ns/{kind}"));
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "cgroup" }));
        if kind == "user" {
            namespaces.push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
        }
        let inside = place.run(&spec).await;
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link");
        assert_eq!(inside.status.code, 0, "{kind}: {inside:?}");
        assert!(inside.stdout.starts_with(&format!("{kind}:[")), "{inside:?}");
        assert_ne!(inside.stdout.trim(), outside.to_string_lossy(), "{kind} is the host's");
    }
}

#[tokio::test]
async fn a_namespace_that_is_left_out_is_the_hosts() {
    let Some(place) = place() else { return };
    let mut spec = shell("readlink /proc/self/ns/net; readlink /proc/self/ns/pid");
    // sysfs shows the network namespace of who mounts it, and needs no own one.
    spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }]);
    let outcome = place.run(&spec).await;
    let host = |kind: &str| {
        fs::read_link(format!("/proc/self/ns/{kind}"))
            .expect("a link")
            .to_string_lossy()
            .into_owned()
    };
    assert_eq!(outcome.stdout, format!("{}\n{}\n", host("net"), host("pid")));
}

#[tokio::test]
async fn namespaces_are_joined_by_path() {
    let Some(place) = place() else { return };
    let mut other = std::process::Command::new("unshare")
        .args([
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "sleep",
            "1000",
        ])
        .spawn()
        .expect("unshare starts");
    let child = loop {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", other.id())).unwrap_or_default();
        match children.split_whitespace().next() {
            Some(child) => break child.to_owned(),
            None => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    };
    let link = |kind: &str| {
        fs::read_link(format!("/proc/{child}/ns/{kind}"))
            .expect("a link")
            .to_string_lossy()
            .into_owned()
    };
    let path = |kind: &str| format!("/proc/{child}/ns/{kind}");
    let mut spec = shell("readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid");
    spec["linux"]["namespaces"] = json!([
        { "type": "mount" }, { "type": "uts" },
        { "type": "network", "path": path("net") },
        { "type": "ipc", "path": path("ipc") },
        { "type": "pid", "path": path("pid") },
    ]);
    let outcome = place.try_run(&spec).await;
    let expected = format!("{}\n{}\n{}\n", link("net"), link("ipc"), link("pid"));
    other.kill().expect("it is killed");
    other.wait().expect("it ends");
    assert_eq!(outcome.unwrap_or_else(|e| panic!("{}", chain(&e))).stdout, expected);
}

#[tokio::test]
async fn a_time_namespace_of_the_hosts_is_joined_with_a_user_namespace() {
    let Some(place) = place() else { return };
    if !std::path::Path::new("/proc/self/timens_offsets").exists() {
        return support::skipped("needs time namespaces");
    }
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let mut first = spec(&["sleep", "1000"]);
    let namespaces = first["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.extend([json!({ "type": "user" }), json!({ "type": "time" })]);
    first["linux"]["uidMappings"] = map.clone();
    first["linux"]["gidMappings"] = map.clone();
    // With offsets it is made before the user namespace, which does not own it then.
    first["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": 7_000_000 } });
    let id = support::new_id();
    let request = place.request(&id, &first, longshore_runtime::Io::null());
    let state = place
        .executor
        .create(request)
        .await
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    let pid = state.pid.expect("it lives");

    let mut second = shell("readlink /proc/self/ns/time; readlink /proc/self/ns/user; cat /proc/self/timens_offsets");
    let kinds = [
        ("user", "user"),
        ("time", "time"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
    ];
    let joined = kinds.map(|(kind, file)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    second["linux"]["namespaces"] = joined.into();
    second["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "mount" }));
    let outcome = place.try_run(&second).await;
    let links = ["time", "user"].map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a link"));
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    let outcome = outcome.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines[..2], links.each_ref().map(|l| l.to_string_lossy()), "{outcome:?}");
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("monotonic") && l.contains("7000000")),
        "{outcome:?}"
    );
}

/// A pair of network devices of this machine; gone with the value.
struct Pair {
    ours: String,
    theirs: String,
}

impl Pair {
    fn make(name: &str, number: u32) -> Option<Self> {
        let pair = Self {
            ours: format!("ls{:x}{name}", std::process::id()),
            theirs: format!("ls{:x}{name}p", std::process::id()),
        };
        let line = format!(
            "ip link add {} type veth peer name {} && ip link set {1} mtu 1789 address 02:11:22:33:44:55 && \
             ip address add 192.0.2.{number}/28 dev {1} && ip -6 address add 2001:db8::{number}/64 dev {1} nodad; \
             ip address add 192.0.2.{number}/32 scope host dev {1}; ip link set {1} up",
            pair.ours, pair.theirs
        );
        let made = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .expect("sh");
        if !made.status.success() {
            support::skipped(&format!(
                "needs veth devices: {}",
                String::from_utf8_lossy(&made.stderr)
            ));
            return None;
        }
        Some(pair)
    }

    fn is_whole(&self) -> bool {
        std::path::Path::new("/sys/class/net").join(&self.theirs).exists()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The other end goes with it, wherever it is.
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", &self.ours])
            .output();
    }
}

#[tokio::test]
async fn network_devices_move_in_with_their_addresses() {
    let Some(place) = place() else { return };
    if let Err(why) = longshore_testing::require_tool("ip") {
        return support::skipped(&why);
    }
    let (Some(a), Some(b)) = (Pair::make("a", 1), Pair::make("b", 2)) else {
        return;
    };
    let mut spec = shell("ip address");
    spec["linux"]["netDevices"] = json!({ &a.theirs: { "name": "lo" } });
    let error = place.try_run(&spec).await.expect_err("there is one already");
    let text = chain(&error);
    assert!(
        text.contains(&format!("linux.netDevices.{}", a.theirs)) && text.contains("File exists"),
        "{text}"
    );
    spec["linux"]["netDevices"] = json!({ &a.theirs: {}, "no-such-device": {} });
    let error = place.try_run(&spec).await.expect_err("there is no such device");
    let text = chain(&error);
    assert!(
        text.contains("linux.netDevices.no-such-device") && text.contains("No such device"),
        "{text}"
    );
    assert!(a.is_whole(), "nothing is moved unless everything can be");

    spec["linux"]["netDevices"] = json!({ &a.theirs: { "name": "inside" }, &b.theirs: { "name": "net%d" } });
    for user_namespace in [false, true] {
        let (a, b) = match user_namespace {
            false => (None, None),
            true => (Pair::make("c", 1), Pair::make("d", 2)),
        };
        if let (Some(a), Some(b)) = (&a, &b) {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            spec["linux"]["netDevices"] = json!({ &a.theirs: { "name": "inside" }, &b.theirs: { "name": "net%d" } });
        }
        let outcome = place.run(&spec).await;
        assert_eq!(outcome.status.code, 0, "{outcome:?}");
        let told = |name: &str| {
            let mut lines = outcome
                .stdout
                .lines()
                .skip_while(|line| !line.contains(&format!(": {name}@")));
            let head = lines.next().unwrap_or_else(|| panic!("no {name}: {outcome:?}"));
            let rest = lines
                .take_while(|line| line.starts_with(' '))
                .collect::<Vec<_>>()
                .join("\n");
            (head.to_owned(), rest)
        };
        for (name, number) in [("inside", 1), ("net0", 2)] {
            let (head, rest) = told(name);
            assert!(head.contains("UP") && head.contains("mtu 1789"), "{head}");
            let mut parts = vec![
                "link/ether 02:11:22:33:44:55".to_owned(),
                format!("inet 192.0.2.{number}/28"),
            ];
            if std::path::Path::new("/proc/net/if_inet6").exists() {
                parts.push(format!("inet6 2001:db8::{number}/64"));
            }
            for part in parts {
                assert!(rest.contains(&part), "{part} is missing: {rest}");
            }
            assert!(
                !rest.contains("/32"),
                "what is good on the host only stays there: {rest}"
            );
        }
    }
}

#[tokio::test]
async fn network_devices_move_into_a_namespace_that_is_joined() {
    let Some(place) = place() else { return };
    if let Err(why) = longshore_testing::require_tool("ip") {
        return support::skipped(&why);
    }
    let Some(pair) = Pair::make("j", 3) else { return };
    let mut other = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", "echo; exec sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare");
    let mut line = [0];
    std::io::Read::read_exact(other.stdout.as_mut().expect("a pipe"), &mut line).expect("it is there");
    let mut spec = shell("ip address show dev there");
    spec["linux"]["netDevices"] = json!({ &pair.theirs: { "name": "there" } });
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "network", "path": format!("/proc/{}/ns/net", other.id()) }));
    let outcome = place.try_run(&spec).await;
    // It is its namespace's, not the container's.
    spec["linux"]["netDevices"] = json!({});
    let later = place.try_run(&spec).await;
    other.kill().expect("it is there");
    other.wait().expect("it ends");
    for outcome in [outcome, later] {
        let outcome = outcome.unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert!(outcome.stdout.contains("inet 192.0.2.3/28"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_user_namespace_maps_ids_and_root_in_it_is_nobody_outside() {
    let Some(place) = place() else { return };
    let mut spec = shell("id -u; cat /proc/self/uid_map; touch /tmp/made; ls -ln /dev/null; echo x > /dev/null");
    spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    let tmp = place.dir.path().join("rootfs/tmp");
    std::os::unix::fs::chown(&tmp, Some(100_000), Some(100_000)).expect("chown");
    let outcome = place.run(&spec).await;
    assert_eq!(outcome.status.code, 0, "{outcome:?}");
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", "100000", "65536"], "{outcome:?}");
    assert_eq!(fs::metadata(tmp.join("made")).expect("it was made").uid(), 100_000);
}

#[tokio::test]
async fn capabilities_are_those_of_the_spec() {
    let Some(place) = place() else { return };
    let outcome = place.run(&shell("grep Cap /proc/self/status")).await;
    let value = |name: &str| {
        let line = outcome.stdout.lines().find(|l| l.starts_with(name)).expect(name);
        u64::from_str_radix(line.split_whitespace().last().expect("a value"), 16).expect("hexadecimal")
    };
    assert_eq!(value("CapBnd"), 0x21, "kill and chown");
    assert_eq!(value("CapEff"), 0x21);
    assert_eq!(value("CapPrm"), 0x21);
    assert_eq!(value("CapInh"), 0);
    assert_eq!(value("CapAmb"), 0);
}

#[tokio::test]
async fn ambient_capabilities_reach_a_program_of_an_ordinary_user() {
    let Some(place) = place() else { return };
    let mut spec = shell("id -u; id -g; grep -E 'CapEff|CapAmb|Groups|NoNewPrivs' /proc/self/status; umask");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27 });
    let kill = json!(["CAP_KILL"]);
    spec["process"]["capabilities"] =
        json!({ "bounding": kill, "effective": kill, "permitted": kill, "inheritable": kill, "ambient": kill });
    let outcome = place.run(&spec).await;
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    let expected = [
        "1000",
        "1001",
        "Groups:",
        "5",
        "7",
        "CapEff:",
        "0000000000000020",
        "CapAmb:",
        "0000000000000020",
    ];
    assert_eq!(words[..9], expected, "{outcome:?}");
    assert_eq!(words[9..], ["NoNewPrivs:", "1", "0027"], "{outcome:?}");
}

#[tokio::test]
async fn seccomp_decides_with_and_without_no_new_privileges() {
    let Some(place) = place() else { return };
    for no_new_privileges in [true, false] {
        let mut spec = shell("mkdir /tmp/x; echo $?; grep -E '^Seccomp:' /proc/self/status");
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
        });
        let outcome = place.run(&spec).await;
        assert_eq!(outcome.stdout, "1\nSeccomp:\t2\n", "{outcome:?}");
        assert!(outcome.stderr.contains("not supported"), "{outcome:?}");
    }
}

#[tokio::test]
async fn masked_and_read_only_paths_are() {
    let Some(place) = place() else { return };
    let out = place
        .sh("cat /proc/kcore | wc -c; ls /proc/acpi | wc -l; echo 1 > /proc/sys/kernel/panic || echo refused")
        .await;
    assert_eq!(out.replace(' ', ""), "0\n0\nrefused\n");
}

#[tokio::test]
async fn a_read_only_root_is_read_only_and_its_mounts_are_not() {
    let Some(place) = place() else { return };
    let mut spec = shell("touch /x || echo refused; touch /dev/shm/x && echo fine");
    spec["root"]["readonly"] = json!(true);
    assert_eq!(place.run(&spec).await.stdout, "refused\nfine\n");
}

#[tokio::test]
async fn files_and_directories_are_bound_and_mount_points_are_made() {
    let Some(place) = place() else { return };
    let data = place.dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("file"), "content").expect("a file");
    let mut spec =
        shell("cat /deep/er/file /etc/one; touch /deep/er/x || echo refused; grep /deep/er /proc/self/mountinfo");
    let mounts = spec["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({ "destination": "/deep/er", "source": data, "options": ["rbind", "ro", "nosuid"] }));
    mounts.push(json!({ "destination": "/etc/one", "source": data.join("file"), "options": ["bind"] }));
    let outcome = place.run(&spec).await;
    assert!(outcome.stdout.starts_with("contentcontentrefused\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("ro,nosuid"), "{outcome:?}");
    let here = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(
        !here.contains(place.dir.path().to_str().expect("text")),
        "a mount is left in the host"
    );
}

#[tokio::test]
async fn tmpfs_has_its_options_and_propagation_is_the_containers() {
    let Some(place) = place() else { return };
    let mut spec =
        shell("stat -c %a /scratch; grep ' /scratch ' /proc/self/mountinfo; grep ' / / ' /proc/self/mountinfo");
    spec["mounts"].as_array_mut().expect("a list").push(
        json!({ "destination": "/scratch", "type": "tmpfs", "source": "t", "options": ["size=64k", "mode=1700", "noexec"] }),
    );
    let outcome = place.run(&spec).await;
    assert!(outcome.stdout.starts_with("1700\n"), "{outcome:?}");
    assert!(
        outcome.stdout.contains("noexec") && outcome.stdout.contains("size=64k"),
        "{outcome:?}"
    );
    assert!(!outcome.stdout.contains("shared:"), "{outcome:?}");
}

#[tokio::test]
async fn devices_are_there_and_work() {
    let Some(place) = place() else { return };
    let out = place
        .sh("for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; readlink /dev/fd; readlink /dev/ptmx; echo x > /dev/null; head -c 2 /dev/zero | wc -c")
        .await;
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\n/proc/self/fd\npts/ptmx\n2\n";
    assert_eq!(out, expected);
    let mut spec = shell("stat -c '%t:%T %a %u:%g %F' /dev/fuse2 /dev/pipe");
    spec["linux"]["devices"] = json!([
        { "path": "/dev/fuse2", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 },
    ]);
    let outcome = place.run(&spec).await;
    assert_eq!(
        outcome.stdout,
        "a:e5 640 3:4 character special file\n0:0 600 0:0 fifo\n"
    );
}

#[tokio::test]
async fn limits_sysctls_and_names_are_set() {
    let Some(place) = place() else { return };
    let mut spec = shell(
        "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname /proc/sys/kernel/shmmni; cat /proc/self/oom_score_adj",
    );
    spec["domainname"] = json!("example.org");
    spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    spec["process"]["oomScoreAdj"] = json!(321);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "123" });
    assert_eq!(place.run(&spec).await.stdout, "100\n200\n1\nexample.org\n123\n321\n");
}

#[tokio::test]
async fn the_working_directory_is_made_and_entered_and_nothing_else_is_open() {
    let Some(place) = place() else { return };
    let mut spec = shell("pwd; ls /proc/self/fd");
    spec["process"]["cwd"] = json!("/work/here");
    // The fourth is that of ls on the directory.
    assert_eq!(place.run(&spec).await.stdout, "/work/here\n0\n1\n2\n3\n");
}

#[tokio::test]
async fn the_old_root_is_gone() {
    let Some(place) = place() else { return };
    let out = place
        .sh("wc -l < /proc/self/mountinfo; ls -a /.. | wc -l; ls -a / | wc -l; cd /proc/1/cwd && pwd")
        .await;
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert!(lines[0].parse::<u32>().expect("a number") < 20, "{out}");
    assert_eq!(lines[1], lines[2], "/.. is / in {out}");
}

#[tokio::test]
async fn a_symlink_of_the_image_does_not_lead_a_mount_out_of_it() {
    let Some(place) = place() else { return };
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let root = place.dir.path().join("rootfs");
    std::os::unix::fs::symlink(&outside, root.join("abs")).expect("a link");
    std::os::unix::fs::symlink("../../../../../../..", root.join("up")).expect("a link");
    fs::create_dir_all(root.join(outside.strip_prefix("/").expect("absolute"))).expect("the same inside");
    for destination in ["/abs/sub", "/up/sub2"] {
        let mut spec = shell(&format!(
            "grep -c tmpfs.*{} /proc/self/mountinfo",
            destination.rsplit('/').next().expect("a name")
        ));
        spec["mounts"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
        place
            .try_run(&spec)
            .await
            .unwrap_or_else(|e| panic!("{destination}: {}", chain(&e)));
    }
    assert_eq!(
        fs::read_dir(&outside).expect("readable").count(),
        0,
        "something was made outside the root"
    );
    assert!(root.join("sub2").exists());
}

#[tokio::test]
async fn a_mount_point_that_a_symlink_leads_into_proc_is_refused() {
    let Some(place) = place() else { return };
    std::os::unix::fs::symlink("proc/self", place.dir.path().join("rootfs/sneaky")).expect("a link");
    let mut spec = shell("true");
    spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "destination": "/sneaky/attr", "type": "tmpfs", "source": "tmpfs" }));
    let error = place.try_run(&spec).await.expect_err("it is refused");
    assert!(chain(&error).starts_with("mounts[6]"), "{}", chain(&error));
}
