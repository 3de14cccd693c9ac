//! What `runc spec` prints.

use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount,
    MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec,
};

use super::device::deny_all;
use super::volume::mount;
use super::{IdMappings, empty_linux};
use crate::Result;

/// Which cgroup hierarchy a spec is made for: `runc spec` asks for a cgroup namespace on v2 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupVersion {
    /// v1, or hybrid.
    V1,
    /// v2 alone.
    V2,
}

/// The spec of `runc spec`, value for value that of runc 1.1: a shell on a terminal, a read-only root, three
/// capabilities. A template for a person to edit; containers of images are built by
/// [`SpecBuilder`](crate::SpecBuilder).
pub fn runc_spec(cgroups: CgroupVersion) -> Spec {
    let mut spec = Spec::default();
    spec.set_version("1.0.2-dev".to_owned());
    spec.set_root(Some(root()));
    spec.set_process(Some(process()));
    spec.set_hostname(Some("runc".to_owned()));
    spec.set_mounts(Some(mounts()));
    spec.set_annotations(None);
    spec.set_linux(Some(linux(cgroups)));
    spec
}

/// The spec of `runc spec --rootless` for a user and group of the host.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for an id that can't be mapped.
pub fn runc_rootless_spec(cgroups: CgroupVersion, uid: u32, gid: u32) -> Result<Spec> {
    let mut spec = runc_spec(cgroups);
    let (uids, gids) = IdMappings::single(uid, gid).for_spec()?;
    for entry in spec.mounts_mut().iter_mut().flatten() {
        if entry.typ().as_deref() == Some("sysfs") {
            *entry = mount("/sys", "none", "/sys", list("rbind,nosuid,noexec,nodev,ro"));
        }
        if let Some(options) = entry.options_mut() {
            options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        }
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(None);
        linux.set_uid_mappings(Some(uids));
        linux.set_gid_mappings(Some(gids));
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
        namespaces.push(namespace(LinuxNamespaceType::User));
    }
    Ok(spec)
}

fn root() -> Root {
    let mut root = Root::default();
    root.set_path("rootfs".into());
    root.set_readonly(Some(true));
    root
}

fn process() -> Process {
    let held: Capabilities = [Capability::AuditWrite, Capability::Kill, Capability::NetBindService].into();
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(held.clone()));
    capabilities.set_effective(Some(held.clone()));
    capabilities.set_permitted(Some(held));
    // runc listed ambient ones until 1.1, which nothing could raise: none is inheritable.
    capabilities.set_ambient(None);
    capabilities.set_inheritable(None);
    let files = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(1024u64)
        .hard(1024u64);
    let mut process = Process::default();
    process.set_terminal(Some(true));
    process.set_args(Some(vec!["sh".to_owned()]));
    process.set_env(Some(vec![
        format!("PATH={}", super::environment::DEFAULT_PATH),
        "TERM=xterm".to_owned(),
    ]));
    process.set_cwd("/".into());
    process.set_capabilities(Some(capabilities));
    process.set_rlimits(Some(vec![files.build().expect("every field has a default")]));
    process.set_no_new_privileges(Some(true));
    process
}

fn mounts() -> Vec<Mount> {
    let proc = MountBuilder::default()
        .destination("/proc")
        .typ("proc")
        .source("proc")
        .build();
    vec![
        proc.expect("every field has a default"),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            list("nosuid,strictatime,mode=755,size=65536k"),
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            list("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            list("nosuid,noexec,nodev,mode=1777,size=65536k"),
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", list("nosuid,noexec,nodev")),
        mount("/sys", "sysfs", "sysfs", list("nosuid,noexec,nodev,ro")),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            list("nosuid,noexec,nodev,relatime,ro"),
        ),
    ]
}

fn linux(cgroups: CgroupVersion) -> Linux {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if cgroups == CgroupVersion::V2 {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(vec![deny_all()]));
    let mut linux = empty_linux();
    linux.set_resources(Some(resources));
    linux.set_namespaces(Some(kinds.into_iter().map(namespace).collect()));
    linux.set_masked_paths(Some(list(
        "/proc/acpi,/proc/asound,/proc/kcore,/proc/keys,/proc/latency_stats,/proc/timer_list,/proc/timer_stats,\
         /proc/sched_debug,/sys/firmware,/proc/scsi",
    )));
    linux.set_readonly_paths(Some(list("/proc/bus,/proc/fs,/proc/irq,/proc/sys,/proc/sysrq-trigger")));
    linux
}

fn namespace(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}
