use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::super::Host;
use super::{Limits, cpu, io};
use crate::{ErrorKind, Result};

fn v1() -> Host {
    let controllers = [
        "cpu", "cpuset", "memory", "devices", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma",
    ];
    let mount = |c: &&str| format!("1 1 0:1 / /{c} rw - cgroup none rw,{c}\n");
    let own = |c: &&str| format!("4:{c}:/\n");
    let (mounts, owns): (String, String) = (
        controllers.iter().map(mount).collect(),
        controllers.iter().map(own).collect(),
    );
    Host::parse(mounts.as_bytes(), owns.as_bytes(), "")
}

fn v2() -> Host {
    Host::parse(
        b"1 1 0:1 / /c rw - cgroup2 none rw",
        b"0::/",
        "cpu cpuset io memory pids hugetlb rdma",
    )
}

fn compile(resources: Value, host: &Host) -> Result<Limits> {
    let resources: LinuxResources = serde_json::from_value(resources).expect("resources");
    Limits::compile(Some(&resources), host)
}

/// `file=value` of each write.
fn writes(resources: Value, host: &Host) -> Vec<String> {
    let limits = compile(resources, host).expect("compiles");
    limits
        .writes
        .iter()
        .map(|w| format!("{}={}", w.files[0], w.value))
        .collect()
}

fn refusal(resources: Value, host: &Host) -> (ErrorKind, String) {
    let error = compile(resources, host).expect_err("refused");
    (error.kind(), error.to_string())
}

#[test]
fn what_is_not_asked_for_is_not_touched() {
    for host in [v1(), v2()] {
        for nothing in [
            json!({}),
            json!({ "cpu": {}, "memory": {}, "blockIO": {}, "hugepageLimits": [], "network": {} }),
            json!({ "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" }, "memory": { "limit": 0, "swap": 0,
                "disableOOMKiller": false }, "blockIO": { "weight": 0 }, "network": { "classID": 0, "priorities": [] } }),
        ] {
            assert_eq!(writes(nothing.clone(), &host), [""; 0], "{nothing}");
        }
        assert!(Limits::compile(None, &host).expect("compiles").writes.is_empty());
    }
}

#[test]
fn processor_limits() {
    let all = json!({ "cpu": { "shares": 1024, "quota": 50000, "period": 100000, "burst": 1000, "idle": 1, "cpus": "0-1", "mems": "0" } });
    assert_eq!(
        writes(all.clone(), &v1()),
        [
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpu.idle=1",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(
        writes(all, &v2()),
        [
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpu.max.burst=1000",
            "cpu.idle=1",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(writes(json!({ "cpu": { "quota": -1 } }), &v2()), ["cpu.max=max"]);
    assert_eq!(writes(json!({ "cpu": { "quota": 7000 } }), &v2()), ["cpu.max=7000"]);
    let real_time = json!({ "cpu": { "realtimePeriod": 1000000, "realtimeRuntime": 950000 } });
    assert_eq!(
        writes(real_time.clone(), &v1()),
        ["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"]
    );
    let (kind, text) = refusal(real_time, &v2());
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.starts_with("linux.resources.cpu.realtimePeriod: "), "{text}");
    for bad in [
        json!({ "cpu": { "idle": 2 } }),
        json!({ "cpu": { "cpus": "0;1" } }),
        json!({ "cpu": { "mems": "../x y" } }),
    ] {
        assert_eq!(refusal(bad, &v1()).0, ErrorKind::Invalid);
    }
}

#[test]
fn shares_keep_their_ends_and_their_middle() {
    for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(cpu::weight(shares), weight, "{shares}");
    }
    assert!((3..=262_144).all(|s| cpu::weight(s) >= cpu::weight(s - 1)));
    assert_eq!((io::wide(10), io::wide(1000)), (1, 10_000));
}

#[test]
fn memory_limits() {
    let memory = |limit: i64, swap: i64| json!({ "memory": { "limit": limit, "swap": swap } });
    let with = |files: [&str; 2], values: [&str; 2]| -> Vec<String> {
        files.iter().zip(values).map(|(f, v)| format!("{f}={v}")).collect()
    };
    let (one, two) = (
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
        ["memory.max", "memory.swap.max"],
    );
    assert_eq!(writes(memory(4096, 8192), &v1()), with(one, ["4096", "8192"]));
    assert_eq!(writes(memory(4096, 8192), &v2()), with(two, ["4096", "4096"]));
    assert_eq!(writes(memory(4096, 4096), &v2()), with(two, ["4096", "0"]));
    assert_eq!(writes(memory(4096, -1), &v2()), with(two, ["4096", "max"]));
    assert_eq!(writes(memory(-1, 0), &v1()), with(one, ["-1", "-1"]));
    assert_eq!(writes(memory(-1, 0), &v2()), with(two, ["max", "max"]));
    assert_eq!(
        writes(json!({ "memory": { "reservation": 5 } }), &v1()),
        ["memory.soft_limit_in_bytes=5"]
    );
    assert_eq!(
        writes(json!({ "memory": { "reservation": 5 } }), &v2()),
        ["memory.low=5"]
    );
    assert_eq!(
        writes(
            json!({ "memory": { "swappiness": 60, "disableOOMKiller": true, "kernelTCP": 9 } }),
            &v1()
        ),
        [
            "memory.kmem.tcp.limit_in_bytes=9",
            "memory.swappiness=60",
            "memory.oom_control=1"
        ]
    );
    for (bad, field) in [
        (json!({ "memory": { "limit": -2 } }), "limit"),
        (memory(8192, 4096), "swap"),
        (memory(-1, 4096), "swap"),
        (json!({ "memory": { "swap": 4096 } }), "swap"),
        (json!({ "memory": { "swappiness": 201 } }), "swappiness"),
    ] {
        let (kind, text) = refusal(bad, &v2());
        assert_eq!(kind, ErrorKind::Invalid, "{text}");
        assert!(text.starts_with(&format!("linux.resources.memory.{field}: ")), "{text}");
    }
    // It is told of and left out.
    assert_eq!(writes(json!({ "memory": { "kernel": 1 } }), &v1()), [""; 0]);
    for field in ["swappiness", "kernelTCP"] {
        let (kind, text) = refusal(json!({ "memory": { field: 1 } }), &v2());
        assert_eq!(kind, ErrorKind::Unsupported, "{text}");
        assert!(text.starts_with(&format!("linux.resources.memory.{field}: ")), "{text}");
    }
}

#[test]
fn block_devices() {
    let all = json!({ "blockIO": { "weight": 500,
        "weightDevice": [{ "major": 8, "minor": 0, "weight": 1000 }],
        "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1048576 }],
        "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 0 }] } });
    assert_eq!(
        writes(all.clone(), &v1()),
        [
            "blkio.weight=500",
            "blkio.weight_device=8:0 1000",
            "blkio.throttle.read_bps_device=8:0 1048576",
            "blkio.throttle.write_iops_device=8:16 0"
        ]
    );
    assert_eq!(
        writes(all, &v2()),
        [
            "io.bfq.weight=default 500",
            "io.bfq.weight=8:0 1000",
            "io.max=8:0 rbps=1048576",
            "io.max=8:16 wiops=max"
        ]
    );
    let (kind, text) = refusal(
        json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": -1, "minor": 0, "rate": 1 }] } }),
        &v1(),
    );
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(
        text.starts_with("linux.resources.blockIO.throttleReadBpsDevice: "),
        "{text}"
    );
}

#[test]
fn the_rest() {
    let all = json!({ "pids": { "limit": 7 }, "hugepageLimits": [{ "pageSize": "2MB", "limit": 4096 }],
        "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 4 }, "a": { "hcaObjects": 1 } } });
    let (limit, max) = ("hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.max=4096");
    let rdma = ["rdma.max=a hca_object=1", "rdma.max=mlx5_1 hca_handle=3 hca_object=4"];
    assert_eq!(
        writes(all.clone(), &v1()),
        [
            "pids.max=7",
            limit,
            "hugetlb.2MB.rsvd.limit_in_bytes=4096",
            rdma[0],
            rdma[1]
        ]
    );
    assert_eq!(
        writes(all, &v2()),
        ["pids.max=7", max, "hugetlb.2MB.rsvd.max=4096", rdma[0], rdma[1]]
    );
    assert_eq!(writes(json!({ "pids": { "limit": -1 } }), &v2()), ["pids.max=max"]);
    assert_eq!(writes(json!({ "pids": { "limit": 0 } }), &v2()), ["pids.max=1"]);
    let network = json!({ "network": { "classID": 5, "priorities": [{ "name": "eth0", "priority": 2 }] } });
    assert_eq!(
        writes(network.clone(), &v1()),
        ["net_cls.classid=5", "net_prio.ifpriomap=eth0 2"]
    );
    assert_eq!(refusal(network, &v2()).0, ErrorKind::Unsupported);
    for size in ["2M", "MB", "../MB", "2/MB", ""] {
        let (kind, _) = refusal(json!({ "hugepageLimits": [{ "pageSize": size, "limit": 1 }] }), &v2());
        assert_eq!(kind, ErrorKind::Invalid, "{size}");
    }
}

#[test]
fn unified_keys_are_names_of_files_and_of_limits() {
    let unified = |key: &str| json!({ "unified": { key: "1" } });
    assert_eq!(
        writes(json!({ "pids": { "limit": 5 }, "unified": { "pids.max": "9" } }), &v2()),
        ["pids.max=5", "pids.max=9"]
    );
    let lines = json!({ "unified": { "io.max": "8:0 riops=1\n8:16 wiops=2\n" } });
    assert_eq!(writes(lines, &v2()), ["io.max=8:0 riops=1", "io.max=8:16 wiops=2"]);
    assert_eq!(writes(unified("cgroup.max.depth"), &v2()), ["cgroup.max.depth=1"]);
    for bad in [
        "",
        "memory",
        "memory.",
        ".max",
        "memory..max",
        "../x/memory.high",
        "memory/high.x",
        "cgroup.procs",
        "cgroup.kill",
        "a.b\0",
    ] {
        assert_eq!(refusal(unified(bad), &v2()).0, ErrorKind::Invalid, "{bad}");
    }
    assert_eq!(refusal(unified("misc.max"), &v2()).0, ErrorKind::Unsupported);
    assert_eq!(refusal(unified("memory.high"), &v1()).0, ErrorKind::Unsupported);
}

#[test]
fn a_controller_that_is_missing_is_named_with_the_field() {
    let bare = Host::parse(b"1 1 0:1 / /c rw - cgroup2 none rw", b"0::/", "cpu");
    for (resources, field) in [
        (json!({ "memory": { "limit": 4096 } }), "memory.limit"),
        (json!({ "pids": { "limit": 4 } }), "pids.limit"),
        (json!({ "cpu": { "cpus": "0" } }), "cpu.cpus"),
        (json!({ "blockIO": { "weight": 10 } }), "blockIO.weight"),
    ] {
        let (kind, text) = refusal(resources, &bare);
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.starts_with(&format!("linux.resources.{field}: ")), "{text}");
    }
}
