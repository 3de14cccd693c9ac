use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use super::bus::{Bus, Refusal, Target};
use super::properties::Property;
use super::wire::{Reader, Value, put_all};
use super::*;

fn unit(path: &str) -> Result<Unit> {
    let path = Some(Path::new(path)).filter(|path| !path.as_os_str().is_empty());
    Unit::new(&ContainerId::new("x").expect("an id"), path, Instance::System)
}

#[test]
fn units_are_named_by_the_path() {
    for (path, name, slice, group) in [
        (
            "",
            "longshore-x.scope",
            "system.slice",
            "system.slice/longshore-x.scope",
        ),
        (
            ":docker:abc",
            "docker-abc.scope",
            "system.slice",
            "system.slice/docker-abc.scope",
        ),
        (
            "machine-a-b.slice:libpod:1",
            "libpod-1.scope",
            "machine-a-b.slice",
            "machine.slice/machine-a.slice/machine-a-b.slice/libpod-1.scope",
        ),
        ("-.slice:p:n", "p-n.scope", "-.slice", "p-n.scope"),
        ("a.slice::a-b.slice", "a-b.slice", "a.slice", "a.slice/a-b.slice"),
    ] {
        let unit = unit(path).expect(path);
        assert_eq!((unit.name.as_str(), unit.slice.as_str()), (name, slice));
        assert_eq!(unit.group, Path::new(group));
        assert_eq!(unit.is_slice(), name.ends_with(".slice"));
    }
}

#[test]
fn what_systemd_could_not_name_is_refused() {
    for path in [
        "/a/b",
        "a:b",
        "a:b:c:d",
        "a:b:c",
        "a--b.slice:p:n",
        "-a.slice:p:n",
        "../x.slice:p:n",
        "a/b.slice:p:n",
        ".slice:p:n",
        "..slice:p:n",
        ":p:../../etc",
        ":p/q:n",
        ":p:",
        ":p:a b",
    ] {
        let error = unit(path).expect_err(path);
        assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{error}");
        assert!(error.to_string().starts_with("linux.cgroupsPath: "), "{error}");
    }
}

/// What systemd does for a scope, in its own hierarchy and v2's: makes the group and puts the processes into it.
fn take_in(body: &[Value]) {
    let (Value::Text(name), Value::Array(_, properties)) = (&body[0], &body[2]) else {
        panic!("{body:?}");
    };
    let pids = properties.iter().find_map(|property| {
        let Value::Struct(pair) = property else { return None };
        match &pair[1] {
            Value::Variant(inside) if pair[0] == Value::text("PIDs") => Some(&**inside),
            _ => None,
        }
    });
    let Some(Value::Array(_, pids)) = pids.filter(|_| name.starts_with("longshoretest-")) else {
        return;
    };
    for (mount, _) in hierarchies().iter().filter(|(_, is_systemds)| *is_systemds) {
        let group = mount.join("longshoretest.slice").join(name);
        std::fs::create_dir_all(&group).expect("a group");
        for pid in pids {
            let Value::U32(pid) = pid else { panic!("{pid:?}") };
            std::fs::write(group.join("cgroup.procs"), pid.to_string()).expect("it enters");
        }
    }
}

/// The hierarchies' mount points, and whether systemd makes scopes there (it does in more of v1, and need not).
fn hierarchies() -> Vec<(PathBuf, bool)> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let of = |line: &str| {
        let point = line.split(' ').nth(4)?.into();
        let (_, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup")
            .then_some((point, kind.starts_with("cgroup2 ") || kind.ends_with("name=systemd")))
    };
    mounts.lines().filter_map(of).collect()
}

#[test]
fn a_container_has_its_groups_where_systemd_made_them() {
    let mut manager = Manager::detect().expect("the machine is understood");
    let id = ContainerId::new(format!("u{}", std::process::id())).expect("an id");
    let resources = serde_json::from_str(r#"{ "pids": { "limit": 7 } }"#).expect("resources");
    let limits = Limits::compile(Some(&resources), manager.host());
    if !rustix::process::geteuid().is_root() || limits.is_err() {
        longshore_testing::skip("needs root and the pids controller");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        // One conversation each: start, limits, stop.
        (0..3)
            .map(|_| serve(listener.accept().expect("a client").0, "done"))
            .collect::<Vec<_>>()
    });
    unit::BUS.set(Some(format!("unix:path={}", path.display())));
    manager.set_driver(Driver::Systemd(Instance::System));
    let path = format!("longshoretest.slice:longshoretest:{id}");
    let unit = manager
        .unit(&id, Some(Path::new(&path)))
        .expect("valid")
        .expect("systemd is asked");
    let placeholder = crate::host::Placeholder::new().expect("a process");
    let annotations = [("org.systemd.property.CollectMode".to_owned(), "'inactive'".to_owned())].into();
    let order = Order {
        id: &id,
        unit: &unit,
        resources: Some(&resources),
        annotations: Some(&annotations),
        owner: None,
        pid: placeholder.pid,
    };
    let made = manager.create_unit(order, &limits.expect("compiled"));
    let checks = made.map(|cgroup| {
        let places = cgroup.location().places;
        let groups: Vec<_> = places.iter().map(|p| p.mount.join(&p.path)).collect();
        let pids = cgroup.pids();
        let limit = groups
            .iter()
            .find_map(|group| std::fs::read_to_string(group.join("pids.max")).ok());
        let text = serde_json::to_string(&cgroup.location()).expect("a state file");
        let updated = manager.update_unit(&unit, &resources);
        drop(placeholder);
        let again = manager.open(&serde_json::from_str(&text).expect("the same"));
        let removed = again.and_then(|cgroup| cgroup.remove());
        let left = groups.iter().filter(|group| group.exists()).count();
        (groups, pids, limit, updated, removed, left)
    });
    for (mount, _) in hierarchies() {
        let slice = mount.join("longshoretest.slice");
        let _ = (std::fs::remove_dir(slice.join(&unit.name)), std::fs::remove_dir(slice));
    }
    let (groups, pids, limit, updated, removed, left) = checks.unwrap_or_else(|e| panic!("{e}"));
    updated.expect("told");
    removed.expect("removed");
    assert!(
        groups.iter().all(|group| group.ends_with(&unit.group)) && left == 0,
        "{groups:?}"
    );
    assert_eq!(pids.expect("read").len(), 1, "what holds the place");
    assert_eq!(limit.as_deref(), Some("7\n"));
    let told = server.join().expect("it ended well");
    assert_eq!(members(&told[1]).last(), Some(&"SetUnitProperties"));
    assert_eq!(members(&told[2])[3..], ["StopUnit", "ResetFailedUnit"]);
    let properties = format!("{:?}", told[0].last().expect("calls").body);
    assert!(
        properties.contains("CollectMode") && properties.contains("TasksMax"),
        "{properties}"
    );
}

/// A message of the client.
#[derive(Debug)]
struct Call {
    serial: u32,
    member: String,
    body: Vec<Value>,
}

fn read_call(stream: &mut UnixStream) -> Option<Call> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).ok()?;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(
        (head[0], head[1], head[3]),
        (b'l', 1, 1),
        "a call, little-endian, of version 1"
    );
    let (body, fields) = (number(4) as usize, number(12) as usize);
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).expect("the whole message");
    let mut whole = head[12..].to_vec();
    whole.extend([0; 4]);
    whole.extend(&rest[..fields]);
    let list = Reader::new(&whole).values("a(yv)").expect("fields");
    let Value::Array(_, fields_list) = &list[0] else {
        panic!("{list:?}");
    };
    let field = |wanted: u8| {
        fields_list.iter().find_map(|field| match field {
            Value::Struct(pair) if pair[0] == Value::Byte(wanted) => Some(&pair[1]),
            _ => None,
        })
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::Variant(inside)) => match &**inside {
            Value::Text(text) | Value::Signature(text) | Value::Path(text) => text.clone(),
            other => panic!("{other:?}"),
        },
        _ => String::new(),
    };
    let body = Reader::new(&rest[fields.next_multiple_of(8)..]).values(&text(field(8)));
    Some(Call {
        serial: number(8),
        member: text(field(3)),
        body: body.expect("a body as its signature says"),
    })
}

fn send(stream: &mut UnixStream, kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) {
    let mut bytes = Vec::new();
    put_all(&mut bytes, body);
    let signature: String = body.iter().map(Value::signature).collect();
    let fields = fields.into_iter().chain([(8, Value::Signature(signature))]);
    let fields = fields.map(|(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]));
    let mut message = vec![b'l', kind, 1, 1];
    message.extend((bytes.len() as u32).to_le_bytes());
    message.extend(7u32.to_le_bytes());
    put_all(&mut message, &[Value::Array("(yv)".into(), fields.collect())]);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(bytes);
    stream.write_all(&message).expect("sent");
}

/// A bus with a systemd on it that has a failed unit of the wanted name, and says `result` of each job. Returns the calls it was sent.
fn systemd(listener: &UnixListener, result: &str) -> Vec<Call> {
    let (stream, _) = listener.accept().expect("a client");
    serve(stream, result)
}

fn serve(mut stream: UnixStream, result: &str) -> Vec<Call> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"BEGIN\r\n") {
        stream.read_exact(&mut byte).expect("it authenticates");
        line.push(byte[0]);
        if line.ends_with(b"\r\n") && !line.ends_with(b"BEGIN\r\n") {
            stream.write_all(b"OK 1234\r\n").expect("accepted");
        }
    }
    let mut calls: Vec<Call> = Vec::new();
    while let Some(call) = read_call(&mut stream) {
        let answer = |kind, error: Option<&str>, body: &[Value], stream: &mut UnixStream| {
            let error = error.map(|error| (4, Value::text(error)));
            let fields = [(5, Value::U32(call.serial))].into_iter().chain(error).collect();
            send(stream, kind, fields, body);
        };
        let seen = |member: &str| calls.iter().any(|before| before.member == member);
        match call.member.as_str() {
            "StartTransientUnit" if !seen("ResetFailedUnit") => {
                let words = [Value::text("it exists")];
                answer(3, Some("org.freedesktop.systemd1.UnitExists"), &words, &mut stream);
            }
            "StartTransientUnit" | "StopUnit" => {
                if call.member == "StartTransientUnit" {
                    take_in(&call.body);
                }
                // The signal may be faster than the reply, and other jobs end as well.
                for job in ["/job/other", "/job/1"] {
                    let body = [
                        Value::U32(1),
                        Value::Path(job.into()),
                        Value::text("u"),
                        Value::text(if job == "/job/1" { result } else { "failed" }),
                    ];
                    send(&mut stream, 4, vec![(3, Value::text("JobRemoved"))], &body);
                }
                answer(2, None, &[Value::Path("/job/1".into())], &mut stream);
            }
            "Get" => {
                let version = Value::Variant(Box::new(Value::text("252.39-1~deb12u1")));
                answer(2, None, &[version], &mut stream);
            }
            _ => answer(2, None, &[], &mut stream),
        }
        calls.push(call);
    }
    calls
}

/// Holds a conversation and returns what the other side was told.
fn converse(result: &'static str, talk: impl FnOnce(&mut Systemd)) -> Vec<Call> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bus socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || systemd(&listener, result));
    let address = format!(
        "tcp:host=x;unix:path={}",
        path.display().to_string().replace(' ', "%20")
    );
    let mut systemd = Systemd::at(&address).expect("connected");
    talk(&mut systemd);
    drop(systemd);
    server.join().expect("it ended well")
}

fn members(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.member.as_str()).collect()
}

#[test]
fn a_unit_is_started_in_place_of_a_failed_one_and_stopped() {
    let unit = unit(":longshore:x").expect("valid");
    let about = About {
        unified: true,
        version: 252,
    };
    let calls = converse("done", |systemd| {
        assert_eq!(systemd.version().expect("told"), 252);
        let mut properties = properties::of_unit("x", &unit, 4711, about);
        properties.push(Property::new("MemoryMax", Value::U64(5)));
        systemd.start(&unit, &properties).expect("started");
        systemd
            .set(&unit, &[Property::new("TasksMax", Value::U64(7))])
            .expect("set");
        systemd.stop(&unit).expect("stopped");
    });
    assert_eq!(
        members(&calls),
        [
            "Hello",
            "AddMatch",
            "Subscribe",
            "Get",
            "StartTransientUnit",
            "ResetFailedUnit",
            "StartTransientUnit",
            "SetUnitProperties",
            "StopUnit",
            "ResetFailedUnit"
        ]
    );
    let start = &calls[6].body;
    assert_eq!(start[..2], [Value::text("longshore-x.scope"), Value::text("replace")]);
    assert_eq!(start[3], Value::Array("(sa(sv))".into(), vec![]));
    let Value::Array(_, properties) = &start[2] else {
        panic!("{start:?}");
    };
    for (name, value) in [
        ("Slice", Value::text("system.slice")),
        ("Delegate", Value::Bool(true)),
        ("PIDs", Value::Array("u".into(), vec![Value::U32(4711)])),
        ("IOAccounting", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        ("MemoryMax", Value::U64(5)),
    ] {
        assert!(
            properties.contains(&Property::new(name, value).value()),
            "{name}: {properties:?}"
        );
    }
    assert_eq!(calls[7].body[1], Value::Bool(true), "until the machine is switched off");
}

#[test]
fn a_job_that_fails_is_an_error() {
    let unit = unit(":longshore:x").expect("valid");
    converse("failed", |systemd| {
        let error = systemd.start(&unit, &[]).expect_err("its job failed");
        let text = format!("{error}: {}", std::error::Error::source(&error).expect("a cause"));
        assert_eq!(
            text,
            "start the systemd unit longshore-x.scope: its job ended as 'failed'"
        );
    });
}

/// A real daemon takes what is written here, and has no systemd.
#[test]
fn a_real_bus_understands() {
    let daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--print-address"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut daemon) = daemon else {
        longshore_testing::skip("needs dbus-daemon (Debian's package dbus-daemon)");
        return;
    };
    let mut address = String::new();
    let _ = BufReader::new(daemon.stdout.as_mut().expect("piped")).read_line(&mut address);
    let talked = Bus::connect(address.trim()).map(|mut bus| {
        let body = [
            Value::text("x.scope"),
            Value::Array("(sv)".into(), vec![Property::new("A", Value::bytes([1, 2])).value()]),
        ];
        let call = Target {
            destination: "org.longshore.Nobody",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        };
        let own = Target {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "ListNames",
        };
        (
            bus.call(call, &body),
            bus.subscribe("type='signal'"),
            bus.call(own, &[]),
        )
    });
    let _ = daemon.kill();
    let _ = daemon.wait();
    if address.is_empty() {
        longshore_testing::skip("dbus-daemon does not run here");
        return;
    }
    let (call, subscribed, names) = talked.expect("it connects");
    let Err(Refusal::Named(name, _)) = call else {
        panic!("{call:?}");
    };
    assert_eq!(name, "org.freedesktop.DBus.Error.ServiceUnknown");
    subscribed.expect("a rule");
    let names = names.expect("a list");
    assert!(
        matches!(&names[..], [Value::Array(of, names)] if of == "s" && !names.is_empty()),
        "{names:?}"
    );
}
