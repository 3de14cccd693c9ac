//! Each rule of the builder. What whole specs look like is in `tests/specs.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxDeviceCgroup, LinuxNamespaceType, LinuxResources, Mount, PosixRlimitType, Process,
};

use super::*;
use crate::{CapabilityName, DEFAULT_CAPABILITIES, Error, ErrorKind, NoFiles, all_capabilities};

fn image(config: ConfigBuilder) -> ImageConfiguration {
    let config = config.build().expect("a config");
    ImageConfigurationBuilder::default()
        .config(config)
        .build()
        .expect("an image")
}

fn config() -> ConfigBuilder {
    ConfigBuilder::default()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn base() -> SpecBuilder {
    SpecBuilder::without_image().args(["true"])
}

fn built(builder: &SpecBuilder) -> Spec {
    builder.build(&NoFiles).unwrap_or_else(|error| panic!("{error}"))
}

fn process(builder: SpecBuilder) -> Process {
    built(&builder).process().clone().expect("a process")
}

fn linux(builder: SpecBuilder) -> Linux {
    built(&builder).linux().clone().expect("linux")
}

fn resources(builder: SpecBuilder) -> LinuxResources {
    linux(builder).resources().clone().expect("resources")
}

fn mounts(builder: SpecBuilder) -> Vec<Mount> {
    built(&builder).mounts().clone().expect("mounts")
}

fn mount_at(mounts: &[Mount], path: &str) -> Option<Mount> {
    let mut at = mounts.iter().filter(|mount| mount.destination() == Path::new(path));
    let found = at.next().cloned();
    assert!(at.next().is_none(), "two mounts at {path}");
    found
}

fn refused(builder: SpecBuilder) -> Error {
    let error = builder.build(&NoFiles).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    error
}

#[test]
fn the_command_follows_dockers_rules() {
    let both = image(
        config()
            .entrypoint(strings(&["/entry", "-e"]))
            .cmd(strings(&["cmd", "-c"])),
    );
    let command = |builder: SpecBuilder| process(builder).args().clone().expect("args");
    assert_eq!(command(SpecBuilder::new(&both)), ["/entry", "-e", "cmd", "-c"]);
    assert_eq!(command(SpecBuilder::new(&both).args(["x"])), ["/entry", "-e", "x"]);
    assert_eq!(
        command(SpecBuilder::new(&both).args(Vec::<String>::new())),
        ["/entry", "-e"]
    );
    assert_eq!(command(SpecBuilder::new(&both).entrypoint(["/other"])), ["/other"]);
    assert_eq!(
        command(SpecBuilder::new(&both).entrypoint(["/other"]).args(["x"])),
        ["/other", "x"]
    );
    assert_eq!(command(SpecBuilder::new(&both).entrypoint([""]).args(["x"])), ["x"]);
    let only_cmd = image(config().cmd(strings(&["sh"])));
    assert_eq!(command(SpecBuilder::new(&only_cmd)), ["sh"]);
    assert_eq!(command(SpecBuilder::new(&only_cmd).args(["ls", ""])), ["ls", ""]);
    for builder in [
        SpecBuilder::new(&both).entrypoint(Vec::<String>::new()),
        SpecBuilder::new(&only_cmd).args(Vec::<String>::new()),
        SpecBuilder::without_image(),
    ] {
        assert!(matches!(refused(builder), Error::NoCommand));
    }
    refused(SpecBuilder::without_image().args([""]));
    refused(SpecBuilder::without_image().args(["a", "b\0"]));
}

#[test]
fn the_environment_is_merged_in_order() {
    let image =
        image(
            config()
                .cmd(strings(&["sh"]))
                .env(strings(&["A=1", "PATH=/image", "B=2", "A=3", "EMPTY=", "EQ=a=b"])),
        );
    let env = |builder: SpecBuilder| process(builder).env().clone().expect("env");
    assert_eq!(
        env(SpecBuilder::new(&image)),
        ["PATH=/image", "A=3", "B=2", "EMPTY=", "EQ=a=b", "HOME=/"]
    );
    let builder = SpecBuilder::new(&image)
        .env("B=x")
        .env("C=4")
        .env("A")
        .hostname("host")
        .terminal(Terminal::default());
    assert_eq!(
        env(builder),
        [
            "PATH=/image",
            "HOSTNAME=host",
            "TERM=xterm",
            "B=x",
            "EMPTY=",
            "EQ=a=b",
            "C=4",
            "HOME=/"
        ]
    );
    assert_eq!(
        env(base()),
        [format!("PATH={}", environment::DEFAULT_PATH), "HOME=/".into()]
    );
    assert_eq!(
        env(base().env("HOME=/h")),
        [format!("PATH={}", environment::DEFAULT_PATH), "HOME=/h".into()]
    );
    assert_eq!(env(base().env("HOME").env("PATH")), Vec::<String>::new());
    refused(base().env("=x"));
    refused(base().env("A=\0"));
}

#[test]
fn the_user_is_looked_up_and_gets_its_home_and_groups() {
    let files = BTreeMap::from([
        (
            PathBuf::from("/etc/passwd"),
            b"root:x:0:0::/root:\nweb:x:33:33::/srv/web:\n".to_vec(),
        ),
        (
            PathBuf::from("/etc/group"),
            b"web:x:33:\nssl:x:44:web\naudio:x:29:\n".to_vec(),
        ),
    ]);
    let image = image(config().cmd(strings(&["sh"])).user("web"));
    let spec = SpecBuilder::new(&image)
        .group("audio")
        .group("44")
        .umask(0o27)
        .build(&files)
        .expect("a spec");
    let process = spec.process().clone().expect("a process");
    assert_eq!((process.user().uid(), process.user().gid()), (33, 33));
    assert_eq!(process.user().additional_gids().clone(), Some(vec![33, 44, 29]));
    assert_eq!(process.user().umask(), Some(0o27));
    assert!(
        process
            .env()
            .clone()
            .expect("env")
            .contains(&"HOME=/srv/web".to_owned())
    );
    let root = SpecBuilder::new(&image).user("root").build(&files).expect("a spec");
    assert!(
        root.process()
            .clone()
            .expect("a process")
            .env()
            .clone()
            .expect("env")
            .contains(&"HOME=/root".to_owned())
    );
    assert!(matches!(
        SpecBuilder::new(&image).build(&NoFiles),
        Err(Error::UnknownUser(_))
    ));
    refused(base().umask(0o1000));
    refused(base().user("a:b:c"));
}

#[test]
fn the_working_directory_is_absolute_and_clean() {
    let cwd = |builder: SpecBuilder| process(builder).cwd().clone();
    let of = |dir: &str| image(config().cmd(strings(&["sh"])).working_dir(dir));
    assert_eq!(cwd(base()), Path::new("/"));
    assert_eq!(cwd(SpecBuilder::new(&of(""))), Path::new("/"));
    assert_eq!(cwd(SpecBuilder::new(&of("/srv//app/../x/"))), Path::new("/srv/x"));
    assert_eq!(cwd(SpecBuilder::new(&of("app"))), Path::new("/app"));
    assert_eq!(cwd(SpecBuilder::new(&of("/image")).cwd("/mine")), Path::new("/mine"));
    refused(base().cwd("relative"));
    // CVE-2024-21626 was a working directory in /proc/self/fd: the executor must check it, and here it stays as it is.
    assert_eq!(cwd(base().cwd("/proc/self/fd/7")), Path::new("/proc/self/fd/7"));
}

#[test]
fn terminals_limits_and_scores() {
    let with = process(
        base()
            .terminal(Terminal::sized(80, 24))
            .rlimit(PosixRlimitType::RlimitNofile, 1, 2)
            .oom_score_adj(-500),
    );
    assert_eq!(with.terminal(), Some(true));
    assert_eq!(
        with.console_size().map(|size| (size.width(), size.height())),
        Some((80, 24))
    );
    assert_eq!(with.rlimits().as_ref().map(Vec::len), Some(1));
    assert_eq!(with.oom_score_adj(), Some(-500));
    let without = process(base());
    assert_eq!(
        (
            without.terminal(),
            without.console_size().is_some(),
            without.rlimits().is_some()
        ),
        (None, false, false)
    );
    let twice = base()
        .rlimit(PosixRlimitType::RlimitNofile, 1, 2)
        .rlimit(PosixRlimitType::RlimitNofile, 3, 4);
    assert_eq!(process(twice).rlimits().clone().expect("one").len(), 1);
    refused(base().rlimit(PosixRlimitType::RlimitCore, 2, 1));
    refused(base().oom_score_adj(1001));
}

fn sets(builder: SpecBuilder) -> (Capabilities, Option<Capabilities>) {
    let capabilities = process(builder).capabilities().clone().expect("capabilities");
    assert_eq!(capabilities.effective(), capabilities.permitted());
    assert_eq!((capabilities.inheritable(), capabilities.ambient()), (&None, &None));
    (
        capabilities.bounding().clone().expect("bounding"),
        capabilities.effective().clone(),
    )
}

#[test]
fn capabilities_are_dockers_and_change_in_order() {
    let defaults: Capabilities = DEFAULT_CAPABILITIES.into_iter().collect();
    assert_eq!(sets(base()), (defaults.clone(), Some(defaults.clone())));
    assert_eq!(sets(base().user("1000")), (defaults.clone(), None));
    let (bounding, _) = sets(base().cap_add(Capability::NetAdmin).cap_drop(Capability::Chown));
    assert!(bounding.contains(&Capability::NetAdmin) && !bounding.contains(&Capability::Chown));
    let (bounding, _) = sets(base().cap_drop(CapabilityName::All).cap_add(Capability::Chown));
    assert_eq!(bounding, Capabilities::from([Capability::Chown]));
    assert_eq!(sets(base().cap_add(CapabilityName::All)).0, all_capabilities());
    assert_eq!(sets(base().privileged()).0, all_capabilities());
    let limit = Capabilities::from([Capability::Chown, Capability::SysAdmin]);
    assert_eq!(sets(base().privileged().limit_capabilities(limit.clone())).0, limit);
}

#[test]
fn privileges_can_not_be_raised_unless_told() {
    let deny = |builder: SpecBuilder| process(builder).no_new_privileges();
    assert_eq!(deny(base()), Some(true));
    assert_eq!(deny(base().new_privileges(NewPrivileges::Allow)), Some(false));
    assert_eq!(deny(base().privileged()), Some(false));
    assert_eq!(
        deny(base().privileged().new_privileges(NewPrivileges::Deny)),
        Some(true)
    );
}

#[test]
fn seccomp_follows_capabilities_and_can_be_replaced() {
    assert!(linux(base()).seccomp().is_some());
    assert_ne!(
        linux(base()).seccomp(),
        linux(base().cap_add(Capability::SysAdmin)).seccomp()
    );
    assert_eq!(linux(base().seccomp(Seccomp::Unconfined)).seccomp(), &None);
    assert_eq!(linux(base().privileged()).seccomp(), &None);
    let own = oci_spec::runtime::LinuxSeccomp::default();
    assert_eq!(
        linux(base().seccomp(Seccomp::Profile(Box::new(own.clone())))).seccomp(),
        &Some(own)
    );
    assert!(linux(base().privileged().seccomp(Seccomp::Default)).seccomp().is_some());
}

#[test]
fn labels_go_where_they_belong() {
    let builder = base().apparmor("docker-default").selinux("u:r:p:s0", "u:r:f:s0");
    let process = process(builder.clone());
    assert_eq!(process.apparmor_profile().as_deref(), Some("docker-default"));
    assert_eq!(process.selinux_label().as_deref(), Some("u:r:p:s0"));
    assert_eq!(linux(builder).mount_label().as_deref(), Some("u:r:f:s0"));
}

#[test]
fn privileged_opens_what_is_masked() {
    let open = built(&base().privileged());
    let linux = open.linux().clone().expect("linux");
    assert_eq!((linux.masked_paths(), linux.readonly_paths()), (&None, &None));
    let mounts = open.mounts().clone().expect("mounts");
    assert!(
        mounts
            .iter()
            .all(|mount| mount.options().iter().flatten().all(|option| option != "ro"))
    );
    assert_eq!(
        linux
            .resources()
            .clone()
            .expect("resources")
            .devices()
            .clone()
            .expect("rules")
            .len(),
        1
    );
    let still = base().privileged().masked_paths(["/secret"]).mask(["/more"]);
    assert_eq!(
        super::tests::linux(still).masked_paths().clone(),
        Some(strings(&["/secret", "/more"]))
    );
}

#[test]
fn mounts_of_the_caller_stand_in_for_default_ones() {
    let bind = |text: &str| text.parse::<Bind>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let all = mounts(
        base()
            .bind(bind("/h/deep:/a/b/c"))
            .bind(bind("/h/a:/a:ro"))
            .bind(bind("/h/shm:/dev/shm")),
    );
    let shm = mount_at(&all, "/dev/shm").expect("shm");
    assert_eq!(shm.source().clone(), Some("/h/shm".into()));
    let order: Vec<_> = all
        .iter()
        .rev()
        .take(3)
        .rev()
        .map(|mount| mount.destination().clone())
        .collect();
    assert_eq!(order, [Path::new("/a"), Path::new("/dev/shm"), Path::new("/a/b/c")]);
    let dev = mounts(base().bind(bind("/dev:/dev")));
    assert!(mount_at(&dev, "/dev/pts").is_none() && mount_at(&dev, "/dev/shm").is_none());
    assert!(mount_at(&dev, "/proc").is_some());
    let twice = mounts(base().bind(bind("/one:/x")).bind(bind("/two:/x/")));
    assert_eq!(
        mount_at(&twice, "/x").expect("one").source().clone(),
        Some("/two".into())
    );
}

#[test]
fn volumes_are_written_as_docker_writes_them() {
    let options = |text: &str| {
        let bind: Bind = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        mount_at(&mounts(base().bind(bind)), "/x")
            .expect("a mount")
            .options()
            .clone()
            .expect("options")
    };
    assert_eq!(options("/s:/x"), ["rbind", "rprivate"]);
    assert_eq!(options("/s:/x:ro"), ["rbind", "rprivate", "ro"]);
    assert_eq!(
        options("/s:/x:rw,nosuid,nodev"),
        ["rbind", "rprivate", "rw", "nosuid", "nodev"]
    );
    assert_eq!(options("/s:/x:bind,rslave,rro"), ["bind", "rslave", "rro"]);
    for text in [
        "",
        "/s",
        "s:/x",
        "/s:x",
        "/s:/",
        "/s:/x/..",
        "/s:/x:ro:rw",
        "/s:/x:z",
        "/s:/x:ro,rw",
        "/s:/x:upperdir=/etc",
        ":/x",
        "/s:",
        "name:/x",
    ] {
        text.parse::<Bind>().expect_err(text);
    }
}

#[test]
fn tmpfs_is_safe_unless_told() {
    let options = |text: &str| {
        let tmpfs: Tmpfs = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        mount_at(&mounts(base().tmpfs(tmpfs)), "/t")
            .expect("a mount")
            .options()
            .clone()
            .expect("options")
    };
    assert_eq!(options("/t"), ["noexec", "nosuid", "nodev"]);
    assert_eq!(
        options("/t:size=64m,mode=1777"),
        ["noexec", "nosuid", "nodev", "size=64m", "mode=1777"]
    );
    assert_eq!(options("/t:exec,nodev"), ["nosuid", "nodev", "exec"]);
    for text in ["", "t", "/", "/t:upperdir=x", "/t:size", "/t:ro=1", "/t:bind"] {
        text.parse::<Tmpfs>().expect_err(text);
    }
}

#[test]
fn volumes_of_an_image_stay_in_the_root_unless_told() {
    let image = image(config().cmd(strings(&["sh"])).volumes(strings(&["/data", "/cache"])));
    assert!(mount_at(&mounts(SpecBuilder::new(&image)), "/data").is_none());
    let builder = SpecBuilder::new(&image)
        .image_volumes(ImageVolumes::Tmpfs)
        .bind(Bind::new("/h", "/cache"));
    let all = mounts(builder);
    assert_eq!(
        mount_at(&all, "/data").expect("a mount").typ().as_deref(),
        Some("tmpfs")
    );
    assert_eq!(
        mount_at(&all, "/cache").expect("a mount").typ().as_deref(),
        Some("bind")
    );
}

#[test]
fn the_root_can_be_read_only_and_elsewhere() {
    assert_eq!(
        built(&base())
            .root()
            .clone()
            .map(|root| (root.path().clone(), root.readonly())),
        Some(("rootfs".into(), None))
    );
    let other = built(&base().read_only().root_path("/srv/root"));
    assert_eq!(
        other.root().clone().map(|root| (root.path().clone(), root.readonly())),
        Some(("/srv/root".into(), Some(true)))
    );
}

fn kinds(builder: SpecBuilder) -> Vec<(LinuxNamespaceType, Option<PathBuf>)> {
    let namespaces = linux(builder).namespaces().clone().expect("namespaces");
    namespaces
        .iter()
        .map(|namespace| (namespace.typ(), namespace.path().clone()))
        .collect()
}

#[test]
fn namespaces_are_new_shared_or_joined() {
    use LinuxNamespaceType as Kind;
    let all = kinds(base());
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|(_, path)| path.is_none()));
    let builder = base()
        .network(Namespace::Path("/run/netns/x".into()))
        .pid(Namespace::Host)
        .ipc(Namespace::Host)
        .uts(Namespace::Host)
        .cgroup_namespace(Namespace::Host);
    assert_eq!(
        kinds(builder),
        [(Kind::Network, Some("/run/netns/x".into())), (Kind::Mount, None)]
    );
    refused(base().network(Namespace::Path("netns".into())));
    assert!(kinds(base().user_namespace(IdMappings::single(1000, 1000))).contains(&(Kind::User, None)));
}

#[test]
fn hostnames_are_checked_and_need_a_namespace() {
    assert_eq!(built(&base()).hostname(), &None);
    assert_eq!(
        built(&base().hostname("web-1.example")).hostname().as_deref(),
        Some("web-1.example")
    );
    let shared = built(&base().hostname("web").uts(Namespace::Host));
    assert_eq!(shared.hostname(), &None);
    assert!(
        !shared
            .process()
            .clone()
            .expect("a process")
            .env()
            .clone()
            .expect("env")
            .contains(&"HOSTNAME=web".to_owned())
    );
    for name in ["", "a b", "a\n", &"x".repeat(65), "ü"] {
        refused(base().hostname(name));
    }
}

#[test]
fn sysctls_stay_in_the_containers_namespaces() {
    let set = |builder: SpecBuilder| linux(builder).sysctl().clone().unwrap_or_default();
    assert_eq!(set(base()).len(), 2);
    assert!(set(base().network(Namespace::Host)).is_empty());
    assert_eq!(set(base().user_namespace(IdMappings::single(1, 1))).len(), 1);
    let builder = base()
        .sysctl("net.ipv4.ip_forward", "1")
        .sysctl("kernel.shmmax", "1")
        .sysctl("fs.mqueue.msg_max", "9")
        .sysctl("net.ipv4.ip_unprivileged_port_start", "1024");
    assert_eq!(set(builder.clone())["net.ipv4.ip_unprivileged_port_start"], "1024");
    assert_eq!(set(builder).len(), 5);
    for name in [
        "vm.swappiness",
        "kernel.core_pattern",
        "kernel.hostname",
        "net/ipv4/ip_forward",
        "net..ipv4",
        "fs.file-max",
        "",
        "net.ipv4.conf/../../../kernel/core_pattern",
    ] {
        refused(base().sysctl(name, "1"));
    }
    refused(base().network(Namespace::Host).sysctl("net.ipv4.ip_forward", "1"));
    refused(base().ipc(Namespace::Host).sysctl("kernel.shmmax", "1"));
}

#[test]
fn limits_are_checked_and_converted() {
    let r = resources(
        base()
            .memory(64 << 20)
            .memory_swap(SwapLimit::Total(64 << 20))
            .memory_reservation(32 << 20)
            .cpus(1.5)
            .cpu_shares(512)
            .cpuset_cpus("0-3,7")
            .cpuset_mems("0")
            .pids_limit(100),
    );
    let memory = r.memory().expect("memory");
    assert_eq!(
        (memory.limit(), memory.swap(), memory.reservation()),
        (Some(64 << 20), Some(64 << 20), Some(32 << 20))
    );
    let cpu = r.cpu().clone().expect("cpu");
    assert_eq!(
        (cpu.quota(), cpu.period(), cpu.shares()),
        (Some(150_000), Some(100_000), Some(512))
    );
    assert_eq!(
        (cpu.cpus().as_deref(), cpu.mems().as_deref()),
        (Some("0-3,7"), Some("0"))
    );
    assert_eq!(r.pids().expect("pids").limit(), 100);
    let none = resources(base());
    assert_eq!((none.memory(), none.cpu(), none.pids()), (&None, &None, &None));
    let unlimited = resources(base().memory(64 << 20).memory_swap(SwapLimit::Unlimited));
    assert_eq!(unlimited.memory().expect("memory").swap(), Some(-1));
    assert_eq!(
        resources(base().cpu_quota(-1, 100_000))
            .cpu()
            .clone()
            .expect("cpu")
            .quota(),
        Some(-1)
    );
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for builder in [
        base().memory(1 << 20),
        base().memory(u64::MAX),
        base().memory_swap(SwapLimit::Unlimited),
        base().memory(64 << 20).memory_swap(SwapLimit::Total(1)),
        base().memory(64 << 20).memory_reservation(65 << 20),
        base().cpus(0.0),
        base().cpus(-1.0),
        base().cpus(f64::NAN),
        base().cpus(f64::INFINITY),
        base().cpus(1.0).cpu_quota(1000, 1000),
        base().cpu_quota(1, 100_000),
        base().cpu_quota(1000, 1),
        base().cpu_shares(1),
        base().cpuset_cpus(""),
        base().cpuset_cpus("3-1"),
        base().cpuset_cpus("0,,1"),
        base().cpuset_cpus("0-+1"),
        base().cpuset_mems("a"),
        base().pids_limit(0),
    ] {
        refused(builder);
    }
}

fn rule_texts(rules: &[LinuxDeviceCgroup]) -> Vec<String> {
    rules
        .iter()
        .map(|rule| format!("{}{rule}", if rule.allow() { '+' } else { '-' }))
        .collect()
}

#[test]
fn devices_bring_their_rules() {
    let plain = resources(base()).devices().clone().expect("rules");
    let texts = rule_texts(&plain);
    assert_eq!(texts[..3], ["-a *:* rwm", "+c *:* m", "+b *:* m"]);
    assert!(texts.contains(&"+c 1:3 rwm".to_owned()) && texts.contains(&"+c 136:* rwm".to_owned()));
    assert!(!texts.iter().any(|text| text.contains("10:229")));
    let null = Device::of_host("/dev/null")
        .expect("a device")
        .at("/dev/nothing")
        .access("r");
    let builder = base().device(null.clone());
    let given = rule_texts(&resources(builder.clone()).devices().clone().expect("rules"));
    assert_eq!(given.last().map(String::as_str), Some("+c 1:3 r"));
    let nodes = linux(builder).devices().clone().expect("nodes");
    assert_eq!(nodes[0].path(), Path::new("/dev/nothing"));
    assert_eq!((nodes[0].major(), nodes[0].minor()), (1, 3));
    refused(base().device(null.clone().access("")));
    refused(base().device(null.clone().access("rx")));
    refused(base().device(null.at("relative")));
    assert_eq!(
        Device::of_host("/etc/passwd").expect_err("a file").kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        Device::of_host("/nope").expect_err("nothing").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_hosts_devices_are_found() {
    let devices = host_devices().expect("devices");
    let spec = built(&base().privileged().devices(devices));
    let nodes = spec.linux().clone().expect("linux").devices().clone().expect("nodes");
    assert!(nodes.iter().any(|node| node.path() == Path::new("/dev/null")));
    assert!(
        nodes
            .iter()
            .all(|node| !node.path().starts_with("/dev/pts") && node.path() != Path::new("/dev/console"))
    );
}

#[test]
fn mappings_are_checked() {
    let map = |mappings: IdMappings| base().user_namespace(mappings);
    let l = linux(map(IdMappings::default()
        .uids(0, 100_000, 65536)
        .gids(0, 100_000, 65536)));
    assert_eq!(l.uid_mappings().clone().expect("uids")[0].host_id(), 100_000);
    for mappings in [
        IdMappings::default(),
        IdMappings::default().uids(0, 1000, 1),
        IdMappings::single(1, 1).uids(0, 5, 1),
        IdMappings::single(1, 1).uids(5, 1, 1),
        IdMappings::single(1, 1).uids(5, 5, 0),
        IdMappings::single(1, 1).gids(5, u32::MAX, 1),
        (0..341).fold(IdMappings::default().gids(0, 0, 1), |all, id| all.uids(id, id, 1)),
    ] {
        refused(map(mappings));
    }
}

#[test]
fn rootless_leaves_out_what_it_can_not_have() {
    let single = Rootless::new(IdMappings::single(1000, 1000));
    let spec = built(&base().rootless(single.clone()).network(Namespace::Host));
    let linux = spec.linux().clone().expect("linux");
    assert_eq!((linux.resources(), linux.cgroups_path()), (&None, &None));
    assert!(
        linux
            .namespaces()
            .clone()
            .expect("some")
            .iter()
            .any(|n| n.typ() == LinuxNamespaceType::User)
    );
    let mounts = spec.mounts().clone().expect("mounts");
    let sys = mount_at(&mounts, "/sys").expect("sys");
    assert_eq!(
        (sys.typ().as_deref(), sys.source().clone()),
        (Some("none"), Some("/sys".into()))
    );
    let pts = mount_at(&mounts, "/dev/pts")
        .expect("pts")
        .options()
        .clone()
        .expect("options");
    assert!(!pts.contains(&"gid=5".to_owned()));
    assert_eq!(
        spec.process().clone().expect("a process").user().additional_gids(),
        &None
    );
    let own_network = mount_at(&super::tests::mounts(base().rootless(single)), "/sys").expect("sys");
    assert_eq!(own_network.typ().as_deref(), Some("sysfs"));
}

#[test]
fn rootless_with_many_ids_keeps_what_is_mapped() {
    let mappings = IdMappings::default()
        .uids(0, 1000, 1)
        .uids(1, 100_000, 1000)
        .gids(0, 1000, 1)
        .gids(1, 100_000, 10);
    let builder = base()
        .rootless(Rootless::new(mappings))
        .group("7")
        .group("70")
        .user("5:5");
    let spec = built(&builder);
    assert_eq!(
        spec.process()
            .clone()
            .expect("a process")
            .user()
            .additional_gids()
            .clone(),
        Some(vec![5, 7])
    );
    let pts = mount_at(&spec.mounts().clone().expect("mounts"), "/dev/pts").expect("pts");
    assert!(pts.options().clone().expect("options").contains(&"gid=5".to_owned()));
    assert!(matches!(
        refused(builder.clone().user("2000")),
        Error::UnmappedId { what: "user", id: 2000 }
    ));
    assert!(matches!(
        refused(builder.user("5:500")),
        Error::UnmappedId { what: "group", id: 500 }
    ));
}

/// A limit that is silently not set would pass for protection.
#[test]
fn rootless_limits_need_delegated_cgroups() {
    let rootless = Rootless::new(IdMappings::single(1000, 1000));
    for builder in [
        base().memory(64 << 20),
        base().cpus(1.0),
        base().pids_limit(5),
        base().cpuset_cpus("0"),
        base().cgroups_path("/x"),
    ] {
        let error = builder
            .clone()
            .rootless(rootless.clone())
            .build(&NoFiles)
            .expect_err("no cgroup");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let delegated = built(&builder.rootless(rootless.clone().cgroups(CgroupAccess::Delegated)));
        let resources = delegated.linux().clone().expect("linux").resources().clone();
        assert_eq!(resources.and_then(|resources| resources.devices().clone()), None);
    }
}

#[test]
fn annotations_come_from_image_and_caller() {
    let config = config()
        .cmd(strings(&["sh"]))
        .stop_signal("SIGQUIT")
        .exposed_ports(strings(&["80/tcp", "443/tcp"]));
    let config = config
        .labels(std::collections::HashMap::from([(
            "a.label".to_owned(),
            "1".to_owned(),
        )]))
        .build()
        .expect("a config");
    let image = ImageConfigurationBuilder::default()
        .config(config)
        .os("linux")
        .architecture("arm64")
        .author("me")
        .build()
        .expect("an image");
    let of = |builder: SpecBuilder| built(&builder).annotations().clone().unwrap_or_default();
    let standard = of(SpecBuilder::new(&image));
    let prefixed = |name: &str| standard.get(&format!("org.opencontainers.image.{name}")).cloned();
    assert_eq!(prefixed("os").as_deref(), Some("linux"));
    assert_eq!(prefixed("architecture").as_deref(), Some("arm64"));
    assert_eq!(prefixed("exposedPorts").as_deref(), Some("443/tcp,80/tcp"));
    assert_eq!(prefixed("stopSignal").as_deref(), Some("SIGQUIT"));
    assert_eq!(prefixed("author").as_deref(), Some("me"));
    assert_eq!(prefixed("created"), None);
    assert!(!standard.contains_key("a.label"));
    let labels = of(SpecBuilder::new(&image)
        .image_annotations(ImageAnnotations::WithLabels)
        .annotation("a.label", "2"));
    assert_eq!(labels["a.label"], "2");
    assert!(of(SpecBuilder::new(&image).image_annotations(ImageAnnotations::Ignore)).is_empty());
    refused(base().annotation("", "x"));
    assert_eq!(crate::stop_signal(&image).expect("a signal"), 3);
}

#[test]
fn hooks_keep_their_order() {
    let hook = |path: &str| {
        oci_spec::runtime::HookBuilder::default()
            .path(path)
            .build()
            .expect("a hook")
    };
    let spec = built(
        &base()
            .hook(HookPoint::Poststop, hook("/one"))
            .hook(HookPoint::CreateRuntime, hook("/two"))
            .hook(HookPoint::Poststop, hook("/three")),
    );
    let hooks = spec.hooks().clone().expect("hooks");
    let paths: Vec<_> = hooks
        .poststop()
        .iter()
        .flatten()
        .map(|hook| hook.path().clone())
        .collect();
    assert_eq!(paths, [Path::new("/one"), Path::new("/three")]);
    assert_eq!(hooks.create_runtime().as_ref().map(Vec::len), Some(1));
    assert_eq!(built(&base()).hooks(), &None);
}

#[test]
fn thermal_counters_can_be_masked() {
    let paths = thermal_paths();
    assert!(
        paths
            .iter()
            .all(|path| path.starts_with("/sys/devices/system/cpu/cpu") && path.ends_with("/thermal_throttle"))
    );
    let masked = linux(base().mask(["/sys/x"])).masked_paths().clone().expect("paths");
    assert_eq!(masked.last().map(String::as_str), Some("/sys/x"));
    assert!(masked.contains(&"/proc/kcore".to_owned()));
}

#[test]
fn an_exec_is_like_the_container_unless_told() {
    let files = BTreeMap::from([(
        PathBuf::from("/etc/passwd"),
        b"root:x:0:0::/root:\nweb:x:33:33::/srv/web:\n".to_vec(),
    )]);
    let builder = base().env("A=1").cwd("/srv").oom_score_adj(5).umask(0o27);
    let spec = builder.build(&files).expect("a spec");
    let same = ExecSpec::new(&spec, ["true"]).build(&files).expect("a process");
    assert_eq!(Some(&same), spec.process().as_ref());
    let exec = ExecSpec::new(&spec, ["id", "-u"])
        .user("web")
        .env("A=2")
        .env("PATH")
        .cwd("/tmp/../x")
        .terminal(Terminal::sized(80, 25));
    let process = exec.build(&files).expect("a process");
    assert_eq!(process.args().clone().expect("args"), ["id", "-u"]);
    assert_eq!(
        process.env().clone().expect("env"),
        ["A=2", "HOME=/srv/web", "TERM=xterm"]
    );
    assert_eq!(process.cwd(), Path::new("/x"));
    assert_eq!(
        (process.user().uid(), process.user().umask(), process.oom_score_adj()),
        (33, Some(0o27), Some(5))
    );
    assert_eq!(
        (process.terminal(), process.console_size().map(|size| size.width())),
        (Some(true), Some(80))
    );
    let capabilities = process.capabilities().clone().expect("capabilities");
    assert_eq!(capabilities.effective(), &None);
    assert_eq!(capabilities.bounding().as_ref().map(|set| set.len()), Some(14));
    assert_eq!(process.no_new_privileges(), Some(true));
    let error = |exec: ExecSpec<'_>| exec.build(&files).expect_err("refused");
    assert!(matches!(error(ExecSpec::new(&spec, [""; 0])), Error::NoCommand));
    assert!(matches!(
        error(ExecSpec::new(&spec, ["x"]).user("nobody")),
        Error::UnknownUser(_)
    ));
    assert_eq!(error(ExecSpec::new(&spec, ["x"]).cwd("x")).kind(), ErrorKind::Invalid);
    assert_eq!(
        error(ExecSpec::new(&Spec::default().set_process(None).clone(), ["x"])).kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn an_exec_can_only_be_who_is_mapped() {
    let spec = built(&base().rootless(Rootless::new(IdMappings::single(1000, 1000))));
    let error = ExecSpec::new(&spec, ["x"])
        .user("5")
        .build(&NoFiles)
        .expect_err("nobody");
    assert!(matches!(error, Error::UnmappedId { what: "user", id: 5 }));
    let process = ExecSpec::new(&spec, ["x"]).user("0").build(&NoFiles).expect("root");
    assert_eq!(process.user().additional_gids(), &None);
}

#[test]
fn a_user_namespace_fits_whoever_asks_for_it() {
    let mappings = IdMappings::default().uids(0, 100_000, 1000).gids(0, 100_000, 1000);
    let builder = base().user_namespace(mappings).group("5000").group("7");
    let spec = built(&builder);
    let gids = spec
        .process()
        .clone()
        .expect("a process")
        .user()
        .additional_gids()
        .clone();
    assert_eq!(gids, Some(vec![0, 7]));
    assert!(linux(builder.clone()).resources().is_some());
    assert!(matches!(
        refused(builder.clone().user("1000")),
        Error::UnmappedId { what: "user", id: 1000 }
    ));
    let sys = |builder: SpecBuilder| mount_at(&mounts(builder), "/sys").expect("sys").typ().clone();
    assert_eq!(sys(builder.clone()).as_deref(), Some("sysfs"));
    // A network namespace that was made outside does not belong to the user namespace.
    assert_eq!(
        sys(builder.network(Namespace::Path("/run/netns/x".into()))).as_deref(),
        Some("none")
    );
}
