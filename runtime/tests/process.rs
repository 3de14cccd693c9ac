//! What the program of a container is given besides its identity: a home, keys, a place among the others.

mod support;

use std::fs;
use std::io::Read;

use longshore_runtime::{ContainerId, DeleteMode, ExecRequest, Executor, Io, Keyring, ProcessId};
use serde_json::{Value, json};
use support::{Place, chain, new_id, place, skipped, spec};

fn shell(line: &str) -> Value {
    spec(&["sh", "-c", line])
}

async fn running(place: &Place, spec: &Value, keyring: Keyring) -> ContainerId {
    let id = new_id();
    let request = place.request(&id, spec, Io::null()).keyring(keyring);
    let created = place.executor.create(request).await;
    created.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let started = place.executor.start(&id).await;
    started.unwrap_or_else(|e| panic!("{}", chain(&e)));
    id
}

async fn exec(place: &Place, id: &ContainerId, process: Value) -> Result<String, longshore_runtime::Error> {
    let (io, mut ends) = Io::pipe().expect("pipes");
    let name = new_id().to_string();
    let process = serde_json::from_value(process).expect("a process");
    place.executor.exec(id, ExecRequest::new(&name, process, io)).await?;
    place.executor.wait(id, &ProcessId::Exec(name)).await.expect("it ends");
    let mut out = String::new();
    ends.stdout.read_to_string(&mut out).expect("text");
    ends.stderr.read_to_string(&mut out).expect("text");
    Ok(out)
}

fn process(line: &str) -> Value {
    json!({ "args": ["sh", "-c", line], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
}

#[tokio::test]
async fn home_is_what_the_containers_passwd_says_unless_it_is_given() {
    let Some(place) = place() else { return };
    let passwd = place.dir.path().join("rootfs/etc/passwd");
    fs::write(
        &passwd,
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .expect("a file");
    for (uid, env, expected) in [
        (0, &["PATH=/bin"][..], "HOME=/root"),
        (1000, &["PATH=/bin", "HOME="], "HOME=/home/user"),
        (1001, &["PATH=/bin"], "HOME=/"),
        (0, &["HOME=/given", "PATH=/bin"], "HOME=/given"),
        (0, &["HOME=/first", "PATH=/bin", "HOME=/given"], "HOME=/given"),
    ] {
        let mut spec = spec(&["env"]);
        spec["process"]["user"] = json!({ "uid": uid, "gid": 0 });
        spec["process"]["env"] = json!(env);
        let outcome = place.run(&spec).await;
        let homes: Vec<_> = outcome.stdout.lines().filter(|l| l.starts_with("HOME=")).collect();
        assert_eq!(homes, [expected], "{env:?} {outcome:?}");
    }
    let id = running(&place, &spec(&["sleep", "1000"]), Keyring::Own).await;
    let mut other = process("echo $HOME");
    other["user"]["uid"] = json!(1000);
    assert_eq!(exec(&place, &id, other).await.expect("it runs"), "/home/user\n");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

/// Whatever an image has in the place of the file, a start neither waits nor fails.
#[tokio::test]
async fn a_passwd_file_that_is_none_is_as_good_as_none() {
    let Some(place) = place() else { return };
    let etc = place.dir.path().join("rootfs/etc");
    let passwd = etc.join("passwd");
    for kind in ["missing", "directory", "fifo", "loop", "proc", "fd", "long"] {
        let _ = fs::remove_file(&passwd);
        match kind {
            "directory" => fs::create_dir(&passwd).expect("a directory"),
            "fifo" => rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, 0o644.into(), 0)
                .expect("a FIFO"),
            "loop" => std::os::unix::fs::symlink("passwd", &passwd).expect("a link"),
            "proc" => std::os::unix::fs::symlink("/proc/kmsg", &passwd).expect("a link"),
            "fd" => std::os::unix::fs::symlink("/proc/self/fd/0", &passwd).expect("a link"),
            "long" => fs::write(&passwd, "x".repeat(8 << 20) + "\nroot:x:0:0::/late:\n").expect("a file"),
            _ => {}
        }
        assert_eq!(place.run(&shell("echo $HOME")).await.stdout, "/\n", "{kind}");
        let _ = fs::remove_dir(&passwd);
    }
}

#[tokio::test]
async fn a_container_has_a_session_keyring_of_its_own_and_its_processes_share_it() {
    let Some(place) = place() else { return };
    if !std::path::Path::new("/proc/keys").exists() {
        skipped("the kernel has no /proc/keys");
        return;
    }
    for user in [false, true] {
        let mut spec = spec(&["sleep", "1000"]);
        if user {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "user" }));
        }
        let id = running(&place, &spec, Keyring::Own).await;
        // Those of other containers may be in sight too.
        let line = |id: &ContainerId| format!("grep '_ses.{id}:' /proc/keys");
        let first = exec(&place, &id, process(&line(&id))).await.expect("it runs");
        let second = exec(&place, &id, process(&line(&id))).await.expect("it runs");
        // The serial number, flags, usage, timeout and permissions come first.
        let key = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (one, two) = (key(&first), key(&second));
        assert_eq!(
            (first.lines().count(), second.lines().count()),
            (1, 1),
            "{first}{second}"
        );
        assert_eq!(one[0], two[0], "another process has the same");
        let permissions = u32::from_str_radix(&one[4], 16).expect("hexadecimal");
        let search = if user { 0x8 } else { 0x8_0000 };
        assert_eq!(permissions & search, search, "{first}");
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
        let id = running(&place, &spec, Keyring::Inherited).await;
        let none = exec(&place, &id, process(&line(&id))).await.expect("it runs");
        assert_eq!(none, "");
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test]
async fn scheduler_and_priorities_are_set() {
    let Some(place) = place() else { return };
    let mut spec = shell("");
    spec["process"]["args"] = json!([
        "/bin/busybox",
        "sh",
        "-c",
        "cat /proc/self/stat; busybox ionice; cat /proc/self/personality"
    ]);
    spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    // What an ordinary user gets, root must have set for him.
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let outcome = place.run(&spec).await;
    let (stat, rest) = outcome.stdout.split_once('\n').unwrap_or_else(|| panic!("{outcome:?}"));
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    assert_eq!((fields[16], fields[38]), ("7", "3"), "{outcome:?}");
    assert!(rest.starts_with("idle"), "{outcome:?}");
    assert!(rest.ends_with("00000008\n"), "{outcome:?}");
    // SCHED_DEADLINE takes none that has more runtime than period.
    spec["process"]["scheduler"] =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 1_000_000, "period": 1_000_000 });
    let error = place.try_run(&spec).await.expect_err("it is refused");
    assert!(
        chain(&error).starts_with("process.scheduler: scheduler 6"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn memory_is_where_the_policy_says() {
    let Some(place) = place() else { return };
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        skipped("the kernel has no NUMA");
        return;
    }
    let mut spec = shell("grep -m1 -o bind[^\\ ]* /proc/self/numa_maps");
    spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    assert_eq!(place.run(&spec).await.stdout, "bind=static:0\n");
    spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "" });
    let error = place.try_run(&spec).await.expect_err("no node is none to bind to");
    assert!(chain(&error).starts_with("linux.memoryPolicy"), "{}", chain(&error));
}

/// The CPUs on which the calling thread may run.
fn own_cpus() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").expect("readable");
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    list.expect("a list").trim().to_owned()
}

#[tokio::test]
async fn a_container_runs_on_all_cpus_of_its_cgroup_whatever_its_host_was_confined_to() {
    let all = own_cpus();
    let first: u32 = all
        .split([',', '-'])
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    if all == first.to_string() || first > 63 {
        return skipped("there is one CPU only, or too many");
    }
    // This thread alone, and what it starts from here on.
    longshore_linux::set_cpu_affinity(&[1 << first]).expect("confined");
    let Some(place) = place() else { return };
    let line = "grep Cpus_allowed_list /proc/self/status";
    let id = running(&place, &spec(&["sleep", "1000"]), Keyring::Own).await;
    let out = exec(&place, &id, process(line)).await.expect("executed");
    assert_eq!(out.split_ascii_whitespace().last(), Some(all.as_str()), "of an exec");
    assert_eq!(own_cpus(), first.to_string(), "the host stays where it was");
    let pid = place.executor.state(&id).await.expect("a state").pid.expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    assert!(
        status.contains(&format!("Cpus_allowed_list:\t{all}\n")),
        "of the first process: {status}"
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn a_process_that_is_executed_runs_on_the_cpus_it_is_given() {
    let Some(place) = place() else { return };
    let id = running(&place, &spec(&["sleep", "1000"]), Keyring::Own).await;
    let all = own_cpus();
    let line = "grep Cpus_allowed_list /proc/self/status";
    for (affinity, expected) in [
        (json!({ "initial": "0", "final": "0" }), "0"),
        (json!({ "initial": "0" }), "0"),
        (json!({ "final": "0" }), "0"),
        (json!({}), all.as_str()),
    ] {
        let mut process = process(line);
        process["execCPUAffinity"] = affinity.clone();
        let out = exec(&place, &id, process)
            .await
            .unwrap_or_else(|e| panic!("{affinity}: {}", chain(&e)));
        assert_eq!(out.split_ascii_whitespace().last(), Some(expected), "{affinity}");
    }
    let mut none = process(line);
    none["execCPUAffinity"] = json!({ "final": "8000" });
    let error = exec(&place, &id, none).await.expect_err("there is no such CPU");
    assert!(
        chain(&error).starts_with("process.execCPUAffinity.final"),
        "{}",
        chain(&error)
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn a_time_namespace_has_its_offsets() {
    let Some(place) = place() else { return };
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        skipped("the kernel has no time namespaces");
        return;
    }
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").expect("readable");
        text.split('.')
            .next()
            .and_then(|s| s.parse::<u64>().ok())
            .expect("a number")
    };
    for user in [false, true] {
        let mut spec = spec(&["sleep", "1000"]);
        spec["linux"]["namespaces"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "type": "time" }));
        if user {
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "user" }));
        }
        spec["linux"]["timeOffsets"] =
            json!({ "boottime": { "secs": 1_000_000, "nanosecs": 5 }, "monotonic": { "secs": 2 } });
        let before = uptime();
        let id = running(&place, &spec, Keyring::Own).await;
        let line =
            "cat /proc/1/timens_offsets; readlink /proc/self/ns/time; readlink /proc/1/ns/time; cat /proc/uptime";
        let out = exec(&place, &id, process(line))
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        let words: Vec<_> = out.split_ascii_whitespace().collect();
        assert_eq!(words[..6], ["monotonic", "2", "0", "boottime", "1000000", "5"], "{out}");
        assert_eq!(words[6], words[7], "an exec is in it too");
        assert_ne!(
            Some(words[6]),
            fs::read_link("/proc/self/ns/time").expect("a link").to_str()
        );
        let inside: u64 = words[8]
            .split('.')
            .next()
            .and_then(|s| s.parse().ok())
            .expect("a number");
        assert!((before + 1_000_000..=uptime() + 1_000_001).contains(&inside), "{out}");
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
        // Without offsets the clone makes it.
        spec["linux"].as_object_mut().expect("a map").remove("timeOffsets");
        let id = running(&place, &spec, Keyring::Own).await;
        let out = exec(&place, &id, process(line))
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert!(out.starts_with("monotonic           0         0"), "{out}");
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test]
async fn labels_of_modules_that_are_not_there_are_refused_by_their_field() {
    let Some(place) = place() else { return };
    let facts = longshore_runtime::HostFacts::gather().expect("facts");
    for (name, enabled) in [("apparmorProfile", facts.apparmor), ("selinuxLabel", facts.selinux)] {
        if enabled {
            skipped(&format!("{name}: the module is enabled here"));
            continue;
        }
        let mut spec = spec(&["true"]);
        spec["process"][name] = json!("unconfined");
        let error = place.try_run(&spec).await.expect_err("it can't be set");
        assert!(
            error.to_string().starts_with(&format!("process.{name}: not supported")),
            "{error}"
        );
        let id = running(&place, &support::spec(&["sleep", "1000"]), Keyring::Own).await;
        let mut other = process("true");
        other[name] = json!("unconfined");
        let error = exec(&place, &id, other).await.expect_err("it can't be set");
        assert!(
            error.to_string().starts_with(&format!("process.{name}: not supported")),
            "{error}"
        );
        place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    }
}

#[tokio::test]
async fn an_apparmor_profile_is_that_of_the_program() {
    let Some(place) = place() else { return };
    if !longshore_runtime::HostFacts::gather().expect("facts").apparmor {
        skipped("needs AppArmor");
        return;
    }
    let mut spec = shell("cat /proc/self/attr/current");
    // The one that needs no profile to be loaded, and one that is not there.
    spec["process"]["apparmorProfile"] = json!("unconfined");
    assert_eq!(place.run(&spec).await.stdout, "unconfined\n");
    spec["process"]["apparmorProfile"] = json!("longshore-no-such-profile");
    let error = place.try_run(&spec).await.expect_err("there is no such profile");
    assert!(
        chain(&error).starts_with("process.apparmorProfile"),
        "{}",
        chain(&error)
    );
}

/// What a guest has that boots with a module for this test: `None` says why this is none.
fn guest_with(module: &str, enabled: bool) -> Option<()> {
    // A profile or a policy is of the whole machine.
    if !enabled || std::env::var_os("LONGSHORE_GUEST").is_none() {
        skipped(&format!("needs a guest that boots with security={module}"));
        return None;
    }
    Some(())
}

#[tokio::test]
async fn an_apparmor_profile_is_a_containers_and_an_execs_and_binds() {
    let Some(place) = place() else { return };
    let enabled = longshore_runtime::HostFacts::gather().expect("facts").apparmor;
    let Some(()) = guest_with("apparmor", enabled) else {
        return;
    };
    let Ok(parser) = longshore_testing::require_tool("apparmor_parser") else {
        return skipped("needs apparmor_parser");
    };
    let profiles = place.dir.path().join("profiles");
    let text = |name: &str, secret: &str| {
        format!(
            "profile {name} flags=(attach_disconnected) {{ file, capability, mount, signal, ptrace, network, unix,\n\
             deny /**/rootfs/{secret} rw,\ndeny /{secret} rw,\n}}\n"
        )
    };
    fs::write(
        &profiles,
        text("longshore-box", "one") + &text("longshore-other", "two"),
    )
    .expect("a file");
    let parser = |option: &str| {
        let loaded = std::process::Command::new(&parser)
            .args([option, "-K"])
            .arg(&profiles)
            .status();
        assert!(loaded.expect("it runs").success(), "apparmor_parser {option}");
    };
    parser("-r");
    for name in ["one", "two"] {
        fs::write(place.dir.path().join("rootfs").join(name), name).expect("a file");
    }
    let look = "cat /proc/self/attr/current; cat /one /two 2>/dev/null";
    let mut spec = shell(&format!("{{ {look}; }} > /seen; sleep 1000"));
    spec["process"]["apparmorProfile"] = json!("longshore-box");
    let id = running(&place, &spec, Keyring::Own).await;
    let seen = || fs::read_to_string(place.dir.path().join("rootfs/seen")).unwrap_or_default();
    support::wait_while_it_lives(&place, &id, || seen().contains("two")).await;
    assert_eq!(seen(), "longshore-box (enforce)\ntwo");
    // One that says nothing has the container's, another its own.
    assert_eq!(
        exec(&place, &id, process(look)).await.expect("it runs"),
        "longshore-box (enforce)\ntwo"
    );
    let mut other = process(look);
    other["apparmorProfile"] = json!("longshore-other");
    assert_eq!(
        exec(&place, &id, other).await.expect("it runs"),
        "longshore-other (enforce)\none"
    );
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    parser("-R");
}

#[tokio::test]
async fn a_selinux_label_is_a_containers_and_an_execs_and_binds() {
    let Some(place) = place() else { return };
    let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let is_selinux = fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|modules| modules.contains("selinux"));
    // One without a policy yet, which takes one.
    let Some(()) = guest_with(
        "selinux",
        is_selinux && label.trim_end_matches(['\0', '\n']) == "kernel",
    ) else {
        return;
    };
    let Ok(compiler) = longshore_testing::require_tool("checkpolicy") else {
        return skipped("needs checkpolicy");
    };
    let policy = place.dir.path().join("policy");
    let compiled = std::process::Command::new(compiler)
        .args(["-U", "allow", "-c", "31", "-o"])
        .arg(&policy)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/selinux.conf"))
        .status();
    assert!(compiled.expect("it runs").success());
    rustix::mount::mount(
        "selinuxfs",
        "/sys/fs/selinux",
        "selinuxfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .expect("mounted");
    fs::write("/sys/fs/selinux/load", fs::read(policy).expect("a policy")).expect("loaded");
    fs::write("/sys/fs/selinux/enforce", "1").expect("enforced");
    // The executor asks the machine when it is opened.
    let place = support::place().expect("as before");

    let look = "cat /proc/self/attr/current; echo; ulimit -Sn 50; ulimit -Hn 60 2>/dev/null && echo lowered";
    let mut spec = shell(&format!("{{ {look}; }} > /seen; echo end >> /seen; sleep 1000"));
    spec["process"]["selinuxLabel"] = json!("some_u:some_r:box_t");
    let id = running(&place, &spec, Keyring::Own).await;
    let seen = || fs::read_to_string(place.dir.path().join("rootfs/seen")).unwrap_or_default();
    support::wait_while_it_lives(&place, &id, || seen().contains("end")).await;
    assert_eq!(seen().replace('\0', ""), "some_u:some_r:box_t\nend\n");
    let out = exec(&place, &id, process(look)).await.expect("it runs");
    assert_eq!(out.replace('\0', ""), "some_u:some_r:box_t\n");
    let mut other = process(look);
    other["selinuxLabel"] = json!("some_u:some_r:host_t");
    let out = exec(&place, &id, other).await.expect("it runs");
    assert_eq!(out.replace('\0', ""), "some_u:some_r:host_t\nlowered\n");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    spec["process"]["selinuxLabel"] = json!("some_u:some_r:nobody_t");
    let error = place.try_run(&spec).await.expect_err("there is no such type");
    assert!(chain(&error).starts_with("process.selinuxLabel"), "{}", chain(&error));

    let mut spec = shell("cat /proc/self/mounts > /seen; echo end >> /seen; sleep 1000");
    fs::remove_file(place.dir.path().join("rootfs/seen")).expect("the first one's");
    spec["linux"]["mountLabel"] = json!("some_u:some_r:box_t");
    spec["linux"]["maskedPaths"] = json!(["/proc/sys"]);
    let id = running(&place, &spec, Keyring::Own).await;
    support::wait_while_it_lives(&place, &id, || seen().contains("end")).await;
    let pid = place.executor.state(&id).await.expect("a state").pid.expect("it lives");
    let mut label = [0; 64];
    let queue = rustix::fs::getxattr(format!("/proc/{pid}/root/dev/mqueue"), "security.selinux", &mut label);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    let seen = seen();
    let labelled = |path: &str| {
        let line = seen.lines().rev().find(|line| line.split(' ').nth(1) == Some(path));
        line.unwrap_or_else(|| panic!("{path}: {seen}"))
            .contains("context=some_u:some_r:box_t")
    };
    assert!(
        ["/dev", "/dev/shm", "/proc/sys"].iter().all(|path| labelled(path)),
        "{seen}"
    );
    assert!(
        !labelled("/proc") && !labelled("/sys"),
        "the kernel labels its own views: {seen}"
    );
    let queue = queue.map(|length| String::from_utf8_lossy(&label[..length]).replace('\0', ""));
    assert_eq!(queue.as_deref(), Ok("some_u:some_r:box_t"));
}
