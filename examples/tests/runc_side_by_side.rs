//! `longshore-runc` and `runc` on the same bundle: the same exit codes, output and messages.
#![allow(clippy::unwrap_used)]

mod runc;

use longshore_testing::skip;
use runc::{Bench, OURS, beside_runc, run};
use serde_json::{Value, json};

/// A bench with runc beside, or the end of the test.
macro_rules! bench {
    ($script:expr) => {
        match beside_runc($script) {
            Ok(bench) => bench,
            Err(why) => return skip(&why),
        }
    };
}

#[test]
fn exit_codes_of_a_foreground_run() {
    let bench = bench!("echo out; echo err >&2; exit 3");
    let id = bench.id("run");
    let ran = bench.alike(&["run", &id]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(3), "out\n", "err\n")
    );
    for (args, code) in [(json!(["true"]), 0), (json!(["sh", "-c", "exit 255"]), 255)] {
        bench.edit(|config| config["process"]["args"] = args);
        assert_eq!(bench.alike(&["run", &id]).code, Some(code));
    }
    // In a pid namespace of its own, init is safe from its own signals.
    bench.edit(|config| {
        config["process"]["args"] = json!(["sh", "-c", "kill -9 $$"]);
        config["linux"]["namespaces"].as_array_mut().unwrap().remove(0);
    });
    let killed = bench.alike(&["run", &id]);
    assert_eq!((killed.code, killed.stderr.as_str()), (Some(137), ""));
    bench.end();
}

#[test]
fn programs_that_cannot_be_run() {
    let bench = bench!("true");
    let id = bench.id("run");
    std::fs::write(bench.bundle().join("rootfs/etc/plain"), "not a program").unwrap();
    for program in ["nope", "/nope", "/etc/plain"] {
        bench.edit(|config| config["process"]["args"] = json!([program]));
        let ran = bench.alike(&["run", &id]);
        assert_eq!(ran.code, Some(1), "{program}");
        assert_eq!(bench.alike(&["state", &id]).code, Some(1), "nothing is left");
    }
    bench.end();
}

#[test]
fn an_id_that_is_not_there() {
    let bench = bench!("true");
    std::fs::create_dir(bench.root(OURS)).unwrap();
    std::fs::create_dir(bench.root("runc")).unwrap();
    for args in [
        &["state", "no"][..],
        &["start", "no"],
        &["kill", "no"],
        &["delete", "no"],
        &["delete", "--force", "no"],
        &["exec", "no", "true"],
        &["ps", "no"],
        &["pause", "no"],
        &["resume", "no"],
        &["events", "--stats", "no"],
        &["list"],
        &["list", "-q"],
        &["list", "--format", "json"],
        &["list", "--format", "xml"],
        &["state", "a b"],
        &["state", "../x"],
        &["state", ""],
        &["run", "a/b"],
        &["create", ""],
    ] {
        bench.alike(args);
    }
    bench.end();
}

#[test]
fn a_life_from_create_to_delete() {
    let bench = bench!("trap 'exit 7' TERM; while :; do sleep 1 & wait; done");
    let id = bench.id("life");
    let id = id.as_str();
    bench.alike(&["create", "--pid-file", "pid", id]);
    bench.alike(&["create", id]);
    bench.alike(&["state", id]);
    bench.alike(&["list"]);
    bench.alike(&["list", "-f", "json"]);
    bench.alike(&["list", "-q"]);
    bench.alike(&["start", id]);
    bench.both_are(id, "running");
    bench.alike(&["start", id]);
    bench.alike(&["state", id]);
    bench.alike(&["delete", id]);
    bench.alike(&["kill", id, "NOSUCH"]);
    bench.alike(&["resume", id]);
    bench.alike(&["kill", id, "sigterm"]);
    bench.both_are(id, "stopped");
    bench.alike(&["state", id]);
    bench.alike(&["list"]);
    bench.alike(&["start", id]);
    bench.alike(&["kill", id]);
    bench.alike(&["exec", id, "true"]);
    bench.alike(&["pause", id]);
    bench.alike(&["events", "--stats", id]);
    bench.alike(&["delete", id]);
    bench.alike(&["delete", id]);
    bench.end();
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let bench = bench!("true");
    let id = bench.id("created");
    bench.alike(&["create", &id]);
    bench.alike(&["delete", &id]);
    bench.alike(&["state", &id]);
    bench.alike(&["create", &id]);
    bench.alike(&["kill", &id, "KILL"]);
    bench.both_are(&id, "stopped");
    bench.alike(&["delete", &id]);
    bench.end();
}

#[test]
fn exec_exit_codes_and_messages() {
    let bench = bench!("while :; do sleep 1; done");
    let id = bench.id("exec");
    let id = id.as_str();
    bench.alike(&["run", "-d", id]);
    bench.both_are(id, "running");
    let ran = bench.alike(&["exec", id, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(7), "out\n", "err\n")
    );
    assert_eq!(
        bench
            .alike(&["exec", "-e", "A=b c", "--cwd", "/tmp", id, "sh", "-c", "echo $A $(pwd)"])
            .stdout,
        "b c /tmp\n"
    );
    assert_eq!(
        bench.alike(&["exec", "-u", "5:6", "-g", "7", id, "id"]).stdout,
        "uid=5 gid=6 groups=7\n"
    );
    assert_eq!(bench.alike(&["exec", id, "nope"]).code, Some(255));
    assert_eq!(bench.alike(&["exec", id, "/nope"]).code, Some(255));
    bench.alike(&["exec", "-t", "-d", id, "true"]);
    std::fs::write(
        bench.bundle().join("process.json"),
        r#"{"args":["sh","-c","exit 9"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}"#,
    )
    .unwrap();
    assert_eq!(bench.alike(&["exec", "-p", "process.json", id]).code, Some(9));
    bench.alike(&["exec", "-p", "nope.json", id]);
    bench.alike(&["ps", "-f", "xml", id]);
    bench.alike(&["delete", "-f", id]);
    bench.end();
}

#[test]
fn bundles_and_flags_that_are_wrong() {
    let bench = bench!("true");
    let id = bench.id("wrong");
    let id = id.as_str();
    for args in [
        &["run", "-b", "/nope", id][..],
        &["run", "-b", "/proc", id],
        &["run", "--console-socket", "/nope", id],
        &["create", "--console-socket", "/nope", id],
        &["run", "-d", "--pid-file", "/nope/pid", id],
        &["run", "--log", "x"],
        &["spec"],
    ] {
        let ours = bench.ours(args);
        let theirs = run(bench.command("runc", args), &bench);
        assert_eq!(ours.code, theirs.code, "{args:?}");
        let message = |said: &str| {
            said.lines()
                .find_map(|line| line.split_once("msg="))
                .map(|(_, message)| message.to_owned())
        };
        assert_eq!(message(&ours.stderr), message(&theirs.stderr), "{args:?}");
    }
    bench.edit(|config| config["process"]["terminal"] = true.into());
    bench.alike(&["run", "-d", id]);
    bench.alike(&["run", "-d", "--console-socket", "/nope/socket", id]);
    bench.end();
}

#[test]
fn the_log_file_has_the_same_form() {
    let bench = bench!("true");
    for form in ["text", "json"] {
        let mut said = Vec::new();
        for program in [OURS, "runc"] {
            let log = bench.path("log");
            let _ = std::fs::remove_file(&log);
            let mut command = bench.command(program, &[]);
            command.args(["--log", log.to_str().unwrap(), "--log-format", form, "state", "no"]);
            let ran = run(command, &bench);
            let line = std::fs::read_to_string(&log).unwrap();
            let fields = match form {
                "json" => {
                    let line: Value = serde_json::from_str(&line).unwrap();
                    let time = line["time"].as_str().unwrap();
                    assert_eq!((time.len(), time.ends_with('Z')), (20, true), "{time}");
                    json!([line["level"], line["msg"]])
                }
                _ => line.split_once("level=").unwrap().1.into(),
            };
            said.push((ran.code, ran.stderr, fields));
        }
        assert_eq!(said[0], said[1], "ours first");
    }
    bench.end();
}

#[test]
fn the_specs_are_one() {
    let bench = bench!("true");
    for flags in [&["spec"][..], &["spec", "--rootless"]] {
        let specs = [OURS, "runc"].map(|program| {
            let folder = bench.path("spec");
            std::fs::create_dir(&folder).unwrap();
            let mut command = bench.command(program, flags);
            let ran = run(
                std::mem::replace(command.current_dir(&folder), std::process::Command::new("true")),
                &bench,
            );
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
            std::fs::remove_dir_all(&folder).unwrap();
            serde_json::from_str::<Value>(&text).unwrap();
            without_ambient(&text)
        });
        assert_eq!(specs[0], specs[1], "ours first");
    }
    bench.end();
}

/// runc up to 1.1 lists ambient capabilities that no kernel raises: none is inheritable. Later ones do not.
fn without_ambient(config: &str) -> String {
    let Some(begin) = config.find(",\n\t\t\t\"ambient\": [") else {
        return config.to_owned();
    };
    let length = config[begin..].find(']').unwrap() + 1;
    format!("{}{}", &config[..begin], &config[begin + length..])
}

#[test]
fn usage_errors_end_alike() {
    let bench = bench!("true");
    for args in [
        &["bogus"][..],
        &["state"],
        &["state", "a", "b"],
        &["run", "--bogus", "x"],
        &["kill", "a", "b", "c"],
        &["exec"],
    ] {
        let theirs = run(bench.command("runc", args), &bench);
        let ours = bench.ours(args);
        assert_eq!(ours.code, theirs.code, "{args:?}");
        assert_ne!(ours.code, Some(0));
        assert!(ours.stderr.contains("level=error"), "{ours:?}");
        assert_eq!(
            ours.stdout.contains("Incorrect Usage"),
            theirs.stdout.contains("Incorrect Usage"),
            "{args:?}"
        );
    }
    let _: &Bench = &bench;
    bench.end();
}

#[test]
fn features_are_those_of_runc_at_least() {
    let bench = bench!("true");
    let ask = |ran: runc::Ran| -> Value {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let theirs = ask(run(bench.command("runc", &["features"]), &bench));
    let ours = ask(bench.ours(&["features"]));
    for list in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
        "/linux/seccomp/supportedFlags",
    ] {
        let words = |all: &Value| all.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let ours = words(&ours);
        assert!(!ours.is_empty(), "{list}");
        for word in words(&theirs) {
            // Filesystems have these, and newer runcs leave them to them.
            let of_filesystems = word == "acl" || word == "noacl";
            assert!(ours.contains(&word) != of_filesystems, "{list}: {word}");
        }
    }
    for both in [
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/seccomp/enabled",
        "/linux/apparmor/enabled",
    ] {
        assert_eq!(ours.pointer(both), theirs.pointer(both), "{both}");
    }
    bench.end();
}

#[test]
fn a_plan_tells_what_a_start_would_do_and_does_nothing() {
    let bench = match Bench::new("exit 3") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    let here = bench.ours(&["plan", "--bundle", ".", "box"]);
    assert_eq!((here.code, here.stderr.as_str()), (Some(0), ""));
    let steps: Vec<_> = here.stdout.lines().filter(|line| line.starts_with("child ")).collect();
    for (what, why) in [
        ("mount proc", "# mounts[0]"),
        ("pivot root", "# root.path"),
        ("join keyring _ses.box", "# process"),
        ("await start", "# process"),
        ("execute", "# process.args"),
    ] {
        assert!(
            steps.iter().any(|line| line.contains(what) && line.ends_with(why)),
            "{what} {why}: {}",
            here.stdout
        );
    }
    assert!(here.stdout.contains("clone  mount "), "{}", here.stdout);
    assert!(!bench.root(OURS).exists(), "it has made something");
    let named = bench.ours(&["plan"]);
    assert!(named.stdout.contains("join keyring _ses.bundle"), "{named:?}");
    bench.edit(|config| config["process"]["cwd"] = json!("not/absolute"));
    let refused = bench.ours(&["plan"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("process.cwd"), "{refused:?}");
    assert_eq!(bench.ours(&["plan", "a", "b"]).code, Some(1));
    assert_eq!(bench.ours(&["plan", "not/an/id"]).code, Some(1));
}

#[test]
fn debugging_tells_what_others_look_for_and_what_happens() {
    let bench = match Bench::new("exit 3") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    let quiet = bench.ours(&["run", &bench.id("quiet")]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(3), ""));
    let told = bench.ours(&["--debug", "run", &bench.id("told")]);
    assert_eq!(told.code, Some(3));
    let mut rest = told.stderr.as_str();
    for words in [
        "level=debug msg=\"nsexec container setup",
        "child process in init()",
        "init: closing the pipe to signal completion",
    ] {
        let at = rest.find(words).unwrap_or_else(|| panic!("{words}: {told:?}"));
        rest = &rest[at..];
    }
    bench.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let id = bench.id("exec");
    assert_eq!(bench.ours(&["run", "--detach", &id]).code, Some(0));
    let told = bench.ours(&["--debug", "exec", &id, "true"]);
    let deleted = bench.ours(&["delete", "--force", &id]);
    assert_eq!((told.code, deleted.code), (Some(0), Some(0)), "{told:?}");
    assert!(told.stderr.contains("setns_init: about to exec"), "{told:?}");
}

#[test]
fn a_mount_that_fails_is_told_in_the_words_that_others_look_for() {
    let bench = match Bench::new("true") {
        Ok(bench) => bench,
        Err(why) => return skip(&why),
    };
    let bind = json!({ "source": "/no/such/source", "destination": "/mnt", "options": ["bind"] });
    bench.edit(|config| config["mounts"].as_array_mut().unwrap().push(bind));
    let failed = bench.ours(&["run", &bench.id("a")]);
    assert_eq!(failed.code, Some(1));
    let words =
        "runc run failed: unable to start container process: error during container init: error mounting mounts[";
    assert!(failed.stderr.contains(words), "{failed:?}");
    assert!(failed.stderr.contains("no such file or directory"), "{failed:?}");
}
