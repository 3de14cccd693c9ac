use std::ffi::{CStr, CString};

use longshore_linux::{AttrChange, CStringArray, CapabilitySets, Depth, MountAttr, Namespaces, Propagation, SchedAttr};

use crate::seccomp::Filter;

/// A place for a descriptor that the program works with: filled by the host before the clone, or by an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u16);

impl Slot {
    /// The socket on which the child reports.
    pub(crate) const REPORT: Self = Self(0);
    /// The listening socket on which the start signal comes.
    pub(crate) const START: Self = Self(1);
    pub(crate) const STDIN: Self = Self(2);
    pub(crate) const STDOUT: Self = Self(3);
    pub(crate) const STDERR: Self = Self(4);
    /// The root being assembled.
    pub(crate) const ROOT: Self = Self(5);
    /// A process whose namespaces are joined.
    pub(crate) const INIT: Self = Self(6);
    /// The first one that the plan hands out.
    pub(crate) const FIRST_FREE: u16 = 7;
}

/// A path inside the root being assembled, laid out for descriptor-wise resolution: it never leaves the root, whatever symlinks are
/// in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InRoot {
    /// Its components, without `.`, `..` and empty ones.
    pub(crate) names: Vec<CString>,
    /// The paths of its ancestors and itself, relative to the root: `a`, `a/b`, ...
    pub(crate) prefixes: Vec<CString>,
}

impl InRoot {
    /// The whole path, relative to the root; `.` for the root itself.
    pub(crate) fn whole(&self) -> &CStr {
        self.prefixes.last().map_or(c".", |p| p.as_c_str())
    }

    /// The path of the directory that it is in, and its name there; none for the root itself.
    pub(crate) fn split(&self) -> Option<(&CStr, &CStr)> {
        let (name, above) = self.names.split_last()?;
        let above = above.len().checked_sub(1).and_then(|at| self.prefixes.get(at));
        Some((above.map_or(c".", |prefix| prefix.as_c_str()), name))
    }
}

/// A parameter of a filesystem: a flag when it has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FsParam {
    pub(crate) key: CString,
    pub(crate) value: Option<CString>,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A new instance of a filesystem, by the mount API.
    Fs {
        fs_type: CString,
        params: Vec<FsParam>,
        /// What to take instead when the kernel does not let this user namespace mount the filesystem.
        fallback: Option<Fallback>,
    },
    /// The same by mount(2), for what the mount API can't take.
    Legacy {
        fs_type: CString,
        source: CString,
        /// Flags of the filesystem, as mount(2) has them.
        flags: u32,
        data: CString,
        /// Names for directories in the data, which by their own do not fit: symbolic links in a directory that is the working one meanwhile.
        names: Vec<ShortName>,
    },
    /// A file or tree of the host.
    Bind { path: CString, depth: Depth },
    /// A file or tree of the root being assembled, with what is mounted in it by then.
    Inside { at: InRoot, depth: Depth },
    /// A detached mount that the host made.
    Detached(Slot),
    /// A file or tree of the host that was opened before.
    Opened { slot: Slot, depth: Depth },
    /// What the path of a directory leads to that the host opened: an ordinary host can make no mount.
    Named(Slot),
    /// What is mounted there already: a bind mount, or a filesystem, whose own parameters change too.
    There { params: Option<Vec<FsParam>> },
}

/// A name that stands for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShortName {
    pub(crate) name: CString,
    pub(crate) path: CString,
}

/// What takes the place of a filesystem that may not be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// A tree of the host, of which nothing may be written.
    ReadOnly(CString),
    /// A mount of the host's namespace.
    Tree(CString),
    /// A detached mount that the host made.
    Detached(Slot),
}

/// What a mount point is; a missing one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Directory,
    /// A directory that no symbolic link leads to.
    DirectoryItself,
    /// A directory or a file, whichever the source is.
    LikeSource,
    /// A directory; a new tmpfs over it has the mode that it had, if it was there.
    Tmpfs,
    /// `/proc`, over which nothing but a procfs may lie: what is bound there must be one.
    Proc,
    /// A directory of this name, to be made in a filesystem that this program has made, mounted and kept at hand: nobody else has put anything there.
    Within(Slot),
}

/// Attributes of one mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) change: AttrChange,
    /// What happens if some of the source's are locked.
    pub(crate) locked: Option<Locked>,
}

/// Attributes that a user namespace may not clear on what it got from its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    /// By the kernel: then this less is asked.
    ByKernel(AttrChange),
    /// On a mount that the host made, where the kernel does not: they stay, and clearing one of these on purpose is an error, as it would be
    /// had the child made the mount.
    ByUs { cleared: MountAttr },
}

/// One mount into the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOp {
    pub(crate) source: Source,
    pub(crate) attr: Attributes,
    /// Changes of all mounts below too (`rro` and its kin).
    pub(crate) tree_attr: AttrChange,
    /// In this order.
    pub(crate) propagation: Vec<(Propagation, Depth)>,
    pub(crate) at: InRoot,
    pub(crate) target: Target,
    /// Whether a new tmpfs starts with a copy of what it covers.
    pub(crate) copy_up: bool,
    /// How owners are mapped, which the host does.
    pub(crate) id_map: Option<MountIds>,
    /// Where the mount stays at hand until all is in it.
    pub(crate) keep: Option<Slot>,
    /// The SELinux label that its root gets, where the filesystem has no parameter for it.
    pub(crate) label: Option<CString>,
}

/// Owners of files as a mount shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountIds {
    pub(crate) depth: Depth,
    /// `None` is those of the container's own user namespace.
    pub(crate) maps: Option<IdMaps>,
}

/// When the child waits for the host to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rendezvous {
    /// The host has placed the child: id maps are written.
    Placed,
    /// The child is in its network namespace: the host moves devices there.
    NetDevices,
    /// The host runs the hooks of the create phase.
    Hooks,
    /// Who starts it runs the startContainer hooks.
    StartHooks,
    /// The container is created: the host has written its state.
    Created,
    /// The next thing is the program; the end of the socket tells the host that it runs.
    Ready,
    /// The host connects to the seccomp agent.
    Agent,
}

/// When the working directory is entered: root may where the user may not, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    BeforeUser,
    AsUser,
}

/// What becomes of something that is in a link's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It stays.
    Keep,
    /// It goes.
    Replace,
}

/// What the old root's tree is to the host's when it is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// None of its mounts hands anything on to the host.
    Apart,
    /// Some may: they are cut off first.
    CutOff,
}

/// Where a root is put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Assembly {
    /// Over `/` of a mount namespace of the container's own.
    #[default]
    OverOld,
    /// Attached to nothing, in a mount namespace that others have too.
    Apart,
}

/// One operation of the child. What each does is in [`crate::init`]; all of its strings are laid out here.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Report, and wait for the host.
    Meet(Rendezvous),
    /// Die when the host does (the thread that cloned), or live on.
    ParentDeathSignal(i32),
    /// Nothing in a shared PID namespace may trace us or look through our descriptors.
    Undumpable,
    /// Who made us may look at us again, for as long as hooks of the create phase run.
    Dumpable,
    /// Open a directory of the host while the ids are still the host's.
    OpenPlace {
        slot: Slot,
        path: CString,
    },
    /// Move the root that is being assembled from over `/` onto such a directory.
    MoveRoot {
        onto: Slot,
        old: Old,
    },
    /// Become root of the new user namespace.
    BecomeRoot {
        groups: bool,
    },
    /// Write `0` into each tasks file that the host gave: the caller moves itself.
    JoinCgroups,
    Unshare(Namespaces),
    SetNs {
        slot: Slot,
        kind: Namespaces,
    },
    NewSession,
    /// Change the propagation of the tree that was inherited, or of the mount at its root.
    Propagate {
        propagation: Propagation,
        depth: Depth,
    },
    /// Take the root that was joined as the root.
    OpenRoot,
    /// Make the root the root of this process only.
    ChangeRoot,
    /// Open what will be copied of the host before the root lies over `/`: from then on a `..` that climbs so far ends in the root. The copy is made
    /// in its turn, as a mount is as old as its copy and mountinfo has the oldest first; but at once where the root would be in it.
    Open {
        slot: Slot,
        path: CString,
        depth: Depth,
    },
    /// Make the root's mount and put it where it is assembled.
    Root {
        assembly: Assembly,
        source: Source,
        attr: AttrChange,
        propagation: Vec<(Propagation, Depth)>,
    },
    Mount(Box<MountOp>),
    Node(Box<NodeOp>),
    /// The host's node of the same path bound, where mknod(2) is not allowed.
    BindNode(Box<NodeOp>),
    Symlink {
        at: InRoot,
        target: CString,
        over: Over,
    },
    /// Open a terminal in the container's devpts and send its master side to the host.
    Terminal {
        rows: u16,
        columns: u16,
        uid: u32,
    },
    /// Bind the terminal over `/dev/console`.
    Console(InRoot),
    Stdio,
    /// Put descriptors onto the numbers from 3 on, where the program has them.
    Descriptors {
        first: Slot,
        count: u16,
    },
    Sysctl {
        name: CString,
        value: CString,
    },
    Mask {
        at: InRoot,
        /// The SELinux label of what hides a directory.
        label: Option<CString>,
    },
    ReadOnlyPath(InRoot),
    /// Attributes of the finished root.
    RootAttr {
        set: MountAttr,
        propagation: Option<Propagation>,
        depth: Depth,
    },
    /// Make a directory unless it is there.
    Directory(InRoot),
    /// Make a mount read-only that was kept at hand.
    Close(Slot),
    /// Let go of a mount that was kept at hand.
    LetGo(Slot),
    PivotRoot(Old),
    /// The root over the old one, which stays below without its procfs and sysfs.
    EnterByMove,
    /// Streams that are the host's null device become the container's own.
    OwnNull,
    Hostname(CString),
    Domainname(CString),
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    },
    /// Leave the session keyring for one of this name.
    Keyring {
        name: CString,
        permissions: u32,
    },
    /// Write to one of our own attributes, through the host's procfs.
    Attribute {
        proc: Slot,
        attribute: Attribute,
        value: CString,
    },
    Scheduler(SchedAttr),
    IoPriority {
        class: u8,
        level: u8,
    },
    CpuAffinity(Box<[u64]>),
    /// Run wherever the cgroups let it, whatever the host was confined to.
    AnyCpu,
    MemoryPolicy {
        mode: u32,
        nodes: Box<[u64]>,
    },
    Personality(u32),
    /// Find the user's home directory.
    Home {
        uid: u32,
    },
    Umask(u32),
    Groups(Vec<u32>),
    User {
        uid: u32,
        gid: u32,
    },
    KeepCapabilities,
    Bounding {
        drop: Vec<u32>,
    },
    Capabilities {
        sets: CapabilitySets,
        ambient: u64,
    },
    NoNewPrivileges,
    Chdir {
        path: CString,
        when: When,
    },
    /// Load the filter, and hand its listener over.
    Seccomp(Filter),
    FindProgram,
    AwaitStart,
    CloseOnExec {
        from: i32,
    },
    Execute,
}

/// An attribute of a process that security modules read (proc_pid_attr(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// AppArmor's for the next execve; in the place that all modules shared where it has none of its own.
    AppArmorExec,
    /// The label for the next execve.
    Exec,
    /// The label of new keys.
    KeyCreate,
}

/// A device node, FIFO or file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeOp {
    pub(crate) at: InRoot,
    /// Its path on the host, where one may be bound.
    pub(crate) host: CString,
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// An operation and the spec's field that asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) field: String,
    pub(crate) op: Op,
}

/// What the host opens before the clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostInput {
    /// A namespace to join.
    Namespace { path: CString, kind: Namespaces },
    /// The container's own group in the hierarchy that is mounted there, or the one that it inherits: as a detached mount, or as a directory
    /// if the host can't make one.
    OwnCgroup {
        mounted: std::path::PathBuf,
        inherited: std::path::PathBuf,
        privilege: super::Privilege,
    },
    /// A mount that the host makes, because the child's user namespace may not.
    Mount(Source),
    /// The host's procfs.
    Proc,
}

/// The program's file and arguments.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    /// The files to try, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) args: CStringArray,
    pub(crate) env: CStringArray,
    pub(crate) home: Home,
}

/// Where the variable `HOME` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// It is among the others, or not wanted.
    AsGiven,
    /// The last one is exchanged for what the container's passwd file says.
    FromPasswd,
}

/// A range of ids for a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdMapping {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// Id maps of a new user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) users: Vec<IdMapping>,
    pub(crate) groups: Vec<IdMapping>,
}

/// A network device of the host's that becomes the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    pub(crate) field: String,
    pub(crate) name: CString,
    /// Its name in the container; with `%d` at its end, one that the kernel completes.
    pub(crate) inside: CString,
}

/// A compiled container: everything that its start will do, decided and laid out. `Display` prints it for a person.
#[derive(Clone, Debug)]
pub struct Program {
    /// New namespaces, all made by the clone.
    pub(crate) unshare: Namespaces,
    /// Joined before the clone by a process of its own, because only its children enter (PID), or because the privilege is lost
    /// afterwards (a new user namespace).
    pub(crate) join_first: Vec<(Slot, Namespaces)>,
    pub(crate) id_maps: Option<IdMaps>,
    /// Written by the host before the child goes on (proc_pid_oom_score_adj(5)).
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) inputs: Vec<(Slot, HostInput, String)>,
    /// How many slots; those of the cgroups' files come after them.
    pub(crate) slots: u16,
    pub(crate) steps: Vec<Step>,
    pub(crate) executable: Executable,
    pub(crate) terminal: bool,
    /// The slots of the program's further descriptors: the first and how many.
    pub(crate) descriptors: Option<(Slot, u16)>,
    /// What is written to `timens_offsets` before the clone, and the procfs for it.
    pub(crate) time_offsets: Option<(Slot, CString)>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) warnings: Vec<String>,
}

impl Program {
    /// What is not as the spec has it, although it is no error: for a log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it is to run in the root of the process that it joins, which no namespace leads to.
    pub(crate) fn enters_root_of_init(&self) -> bool {
        let mut ops = self.steps.iter().map(|step| &step.op);
        let made = ops.clone().any(|op| matches!(op, Op::Root { .. }));
        !made && ops.any(|op| matches!(op, Op::ChangeRoot))
    }

    /// Whether the child must be cloned by a helper that has prepared itself first.
    pub(crate) fn needs_helper(&self) -> bool {
        !self.join_first.is_empty() || self.time_offsets.is_some()
    }
}
