//! The bare system calls for the same container: what a program that knows this one spec, and nothing of what may go wrong, would do.
//!
//! No record of the container, no start signal, nobody who could exec into it, no defence against its image: paths are trusted.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use longshore_linux::{
    AttrChange, CStringArray, CapabilitySets, CloneOptions, Cloned, Depth, Exit, MountAttr, Namespaces, Propagation,
    clone3, close_on_exec_from, drop_bounding_capability, execve, exit_now, mount_setattr, reap, set_capabilities,
    set_group, set_groups, set_parent_death_signal, set_rlimit, set_user,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root, setsid};

const NOSUID_NODEV_NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

type Parameters = &'static [(&'static CStr, &'static CStr)];

/// Type, parameters, attributes, place; the parents are there or made by what comes before.
const FILESYSTEMS: [(&CStr, Parameters, MountAttrFlags, &CStr); 6] = [
    (c"proc", &[], MountAttrFlags::empty(), c"proc"),
    (
        c"tmpfs",
        &[(c"mode", c"755"), (c"size", c"65536k")],
        MountAttrFlags::MOUNT_ATTR_NOSUID,
        c"dev",
    ),
    (
        c"devpts",
        &[(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")],
        MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC),
        c"dev/pts",
    ),
    (
        c"tmpfs",
        &[(c"mode", c"1777"), (c"size", c"65536k")],
        NOSUID_NODEV_NOEXEC,
        c"dev/shm",
    ),
    (c"mqueue", &[], NOSUID_NODEV_NOEXEC, c"dev/mqueue"),
    (
        c"sysfs",
        &[],
        NOSUID_NODEV_NOEXEC.union(MountAttrFlags::MOUNT_ATTR_RDONLY),
        c"sys",
    ),
];

const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"/proc/kcore", c"dev/core"),
    (c"pts/ptmx", c"dev/ptmx"),
];

const READ_ONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

const MASKED: [&CStr; 10] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"proc/sched_debug",
    c"sys/firmware",
    c"proc/scsi",
];

const DEVICE_RULES: [&str; 10] = [
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// `CAP_KILL`, `CAP_NET_BIND_SERVICE`, `CAP_AUDIT_WRITE`.
const CAPABILITIES: u64 = 1 << 5 | 1 << 10 | 1 << 29;
const LAST_CAPABILITY: u32 = 40;

/// One tree of cgroups.
#[derive(Debug)]
struct Hierarchy {
    path: PathBuf,
    is_v2: bool,
    /// Its name inside the container.
    inside: CString,
}

/// The container, as often as one likes.
#[derive(Debug)]
pub(crate) struct Floor {
    rootfs: CString,
    hierarchies: Vec<Hierarchy>,
    args: CStringArray,
    env: CStringArray,
}

impl Floor {
    pub(crate) fn new(rootfs: &Path) -> Self {
        Self {
            rootfs: c(rootfs),
            hierarchies: hierarchies(),
            args: CStringArray::new(vec![c"/bin/true".into()]),
            env: CStringArray::new(vec![c"PATH=/bin".into(), c"TERM=xterm".into()]),
        }
    }

    /// A life, from the groups to their removal.
    pub(crate) fn life(&self) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("longshore-floor-{}-{number}", std::process::id());
        let groups: Vec<PathBuf> = self.hierarchies.iter().map(|h| h.path.join(&name)).collect();
        let tasks: Vec<File> = (self.hierarchies.iter().zip(&groups))
            .filter_map(|(hierarchy, group)| hierarchy.make(group))
            .collect();
        let unified = (self.hierarchies.iter().zip(&groups))
            .find(|(hierarchy, _)| hierarchy.is_v2)
            .map(|(_, group)| File::open(group).expect("it was made"));
        let places: Vec<CString> = groups.iter().map(|group| c(group)).collect();
        let mut options = CloneOptions::new(
            Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::PID | Namespaces::NETWORK,
        );
        options.cgroup = unified.as_ref().map(AsFd::as_fd);
        // SAFETY: the child makes system calls only, out of what has been laid out here.
        match unsafe { clone3(options) }.expect("a clone") {
            Cloned::Child => match self.become_container(&tasks, &places) {
                Err(errno) => exit_now(errno.raw_os_error() as u8),
            },
            Cloned::Parent { pidfd, .. } => wait(&pidfd),
        }
        for group in groups {
            fs::remove_dir(group).expect("it is empty");
        }
    }

    fn become_container(&self, tasks: &[File], groups: &[CString]) -> Result<std::convert::Infallible, Errno> {
        set_parent_death_signal(9)?;
        for file in tasks {
            rustix::io::write(file, b"0")?;
        }
        if tasks.is_empty() {
            longshore_linux::unshare(Namespaces::CGROUP)?;
        }
        setsid()?;
        rustix::system::sethostname(b"runc")?;
        rustix::process::umask(Mode::empty());
        let root = self.make_root(groups)?;
        hide(&root)?;
        let read_only = AttrChange {
            set: MountAttr::RDONLY,
            ..AttrChange::default()
        };
        mount_setattr(&root, c"", Depth::Mount, read_only)?;
        fchdir(&root)?;
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        chdir(c"/")?;
        self.lower_and_execute()
    }

    fn make_root(&self, groups: &[CString]) -> Result<OwnedFd, Errno> {
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        let root = copy(CWD, &self.rootfs, OpenTreeFlags::AT_RECURSIVE)?;
        attach(&root, CWD, c"/")?;
        for (fs_type, parameters, attributes, place) in FILESYSTEMS {
            if place.to_bytes().starts_with(b"dev/") {
                mkdirat(&root, place, Mode::from_raw_mode(0o755))?;
            }
            attach(&filesystem(fs_type, parameters, attributes)?, &root, place)?;
        }
        self.show_groups(&root, groups)?;
        for (place, major, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            mknodat(&root, place, FileType::CharacterDevice, mode, makedev(major, minor))?;
        }
        for (target, place) in LINKS {
            symlinkat(target, &root, place)?;
        }
        Ok(root)
    }

    fn show_groups(&self, root: &OwnedFd, groups: &[CString]) -> Result<(), Errno> {
        let all_v2 = self.hierarchies.iter().all(|hierarchy| hierarchy.is_v2);
        if all_v2 {
            let attributes = NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
            return attach(&filesystem(c"cgroup2", &[], attributes)?, root, c"sys/fs/cgroup");
        }
        let tree = filesystem(c"tmpfs", &[(c"mode", c"755")], NOSUID_NODEV_NOEXEC)?;
        attach(&tree, root, c"sys/fs/cgroup")?;
        for (hierarchy, group) in self.hierarchies.iter().zip(groups).filter(|(h, _)| !h.is_v2) {
            let group = copy(CWD, group, OpenTreeFlags::empty())?;
            let change = AttrChange {
                set: MountAttr::RDONLY | MountAttr::NOSUID | MountAttr::NODEV | MountAttr::NOEXEC,
                propagation: Some(Propagation::Slave),
                ..AttrChange::default()
            };
            mount_setattr(&group, c"", Depth::Mount, change)?;
            mkdirat(&tree, &hierarchy.inside, Mode::from_raw_mode(0o755))?;
            attach(&group, &tree, &hierarchy.inside)?;
        }
        let read_only = AttrChange {
            set: MountAttr::RDONLY,
            ..AttrChange::default()
        };
        mount_setattr(&tree, c"", Depth::Mount, read_only)
    }

    fn lower_and_execute(&self) -> Result<std::convert::Infallible, Errno> {
        const RLIMIT_NOFILE: u32 = 7;
        set_rlimit(RLIMIT_NOFILE, 1024, 1024)?;
        for number in (0..=LAST_CAPABILITY).filter(|number| CAPABILITIES & (1 << number) == 0) {
            drop_bounding_capability(number)?;
        }
        set_groups(&[])?;
        set_group(0)?;
        set_user(0)?;
        rustix::thread::set_no_new_privs(true)?;
        set_capabilities(CapabilitySets {
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
            ..CapabilitySets::default()
        })?;
        close_on_exec_from(3)?;
        Err(execve(c"/bin/true", &self.args, &self.env))
    }
}

impl Hierarchy {
    /// Makes a group; the file by which a process of v1 enters it.
    fn make(&self, group: &Path) -> Option<File> {
        fs::create_dir(group).expect("a group");
        if self.is_v2 {
            return None;
        }
        let write = |name: &str, text: &[u8]| {
            let mut file = File::options()
                .write(true)
                .open(group.join(name))
                .expect("a file of the group");
            file.write_all(text).expect("the kernel takes it");
        };
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(self.path.join(name)) {
                write(name, &all);
            }
        }
        if group.join("devices.deny").exists() {
            write("devices.deny", b"a");
            for rule in DEVICE_RULES {
                write("devices.allow", rule.as_bytes());
            }
        }
        let tasks = File::options().write(true).open(group.join("tasks"));
        Some(tasks.expect("a group of v1 has it"))
    }
}

fn hide(root: &OwnedFd) -> Result<(), Errno> {
    for place in READ_ONLY {
        let Some(tree) = absent(copy(root, place, OpenTreeFlags::AT_RECURSIVE))? else {
            continue;
        };
        let change = AttrChange {
            set: MountAttr::RDONLY,
            ..AttrChange::default()
        };
        mount_setattr(&tree, c"", Depth::Tree, change)?;
        attach(&tree, root, place)?;
    }
    let empty = filesystem(c"tmpfs", &[(c"nr_blocks", c"1")], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    for place in MASKED {
        let Some(target) = absent(openat(root, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))? else {
            continue;
        };
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode).is_dir();
        let cover = match is_directory {
            true => copy(&empty, c"", OpenTreeFlags::AT_EMPTY_PATH)?,
            false => copy(CWD, c"/dev/null", OpenTreeFlags::empty())?,
        };
        attach(&cover, root, place)?;
    }
    Ok(())
}

fn absent<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some),
    }
}

fn copy(from: impl AsFd, path: &CStr, more: OpenTreeFlags) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(from, path, flags | more)
}

fn attach(tree: &OwnedFd, root: impl AsFd, place: &CStr) -> Result<(), Errno> {
    move_mount(tree, c"", root, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn filesystem(fs_type: &CStr, parameters: Parameters, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let fs = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for &(key, value) in parameters {
        fsconfig_set_string(&fs, key, value)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn wait(pidfd: &OwnedFd) {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    while poll(&mut ended, None).is_err() {}
    let exit = reap(pidfd).expect("our child");
    assert!(matches!(exit, Exit::Code(0)), "the floor's container: {exit:?}");
}

/// Every hierarchy that is mounted (proc_pid_mountinfo(5)).
fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let of_line = |line: &str| {
        let (place, fs_type) = line.split_once(" - ")?;
        let path = PathBuf::from(place.split(' ').nth(4)?);
        let fs_type = fs_type.split(' ').next()?;
        fs_type.starts_with("cgroup").then(|| Hierarchy {
            inside: c(Path::new(path.file_name().unwrap_or_default())),
            is_v2: fs_type == "cgroup2",
            path,
        })
    };
    mounts.lines().filter_map(of_line).collect()
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
}
