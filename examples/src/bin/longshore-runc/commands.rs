//! The commands: static tables of what each is called, takes and says of itself.

use crate::args::{Arguments, Arity, Flag, Order, Takes};
use crate::failure::Outcome;
use crate::global::Global;
use crate::{bundle, checkpoint, exec, lifecycle, query, resources};

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Its arguments, as the usage line shows them.
    pub(crate) usage: &'static str,
    pub(crate) details: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) order: Order,
    pub(crate) arity: Arity,
    pub(crate) run: fn(&Global, &Arguments) -> Outcome,
}

const fn switch(name: &'static str, short: char, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Nothing,
        help,
    }
}

const fn value(name: &'static str, short: char, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Value,
        help,
    }
}

const fn values(name: &'static str, short: char, help: &'static str) -> Flag {
    Flag {
        name,
        short,
        takes: Takes::Values,
        help,
    }
}

const BUNDLE: Flag = value(
    "bundle",
    'b',
    "the bundle's directory, which has the config.json (default: the working directory)",
);
const CONSOLE_SOCKET: Flag = value(
    "console-socket",
    ' ',
    "Unix socket that is sent the master side of the terminal, for a detached process with one",
);
const PIDFD_SOCKET: Flag = value("pidfd-socket", ' ', "Unix socket that is sent a pidfd of the process");
const PID_FILE: Flag = value(
    "pid-file",
    ' ',
    "file that the process's pid is written to, as the host numbers it",
);
const DETACH: Flag = switch("detach", 'd', "return as soon as the process runs");
const NO_PIVOT: Flag = switch(
    "no-pivot",
    ' ',
    "change the root without pivot_root (not supported yet: an error)",
);
const NO_NEW_KEYRING: Flag = switch(
    "no-new-keyring",
    ' ',
    "leave the container the caller's session keyring",
);
const PRESERVE_FDS: Flag = value(
    "preserve-fds",
    ' ',
    "how many further descriptors the process gets, from 3 on",
);
const NO_SUBREAPER: Flag = switch(
    "no-subreaper",
    ' ',
    "leave processes that lose their parent to the host's reaper instead of adopting them",
);
const IMAGES: Flag = value(
    "image-path",
    ' ',
    "directory of CRIU's image files (default: \"checkpoint\")",
);
const WORK: Flag = value(
    "work-path",
    ' ',
    "directory of CRIU's log and statistics (default: that of the images)",
);
const TCP_ESTABLISHED: Flag = switch("tcp-established", ' ', "keep established TCP connections");
const EXTERNAL_SOCKETS: Flag = switch("ext-unix-sk", ' ', "allow Unix sockets with an end outside");
const SHELL_JOB: Flag = switch("shell-job", ' ', "allow a session whose leader is outside");
const LAZY_PAGES: Flag = switch("lazy-pages", ' ', "move pages of memory only when they are asked for");
const FILE_LOCKS: Flag = switch("file-locks", ' ', "keep file locks");
const AUTO_DEDUP: Flag = switch("auto-dedup", ' ', "drop pages that a later image has newer");
const CGROUPS_MODE: Flag = value(
    "manage-cgroups-mode",
    ' ',
    "how CRIU treats cgroups: 'soft', 'full', 'strict' or 'ignore' (default: \"soft\")",
);
const EMPTY_NAMESPACE: Flag = values(
    "empty-ns",
    ' ',
    "make this namespace without what was in it: 'network', which it always is",
);
const FORMAT: Flag = value("format", 'f', "'table' or 'json' (default: \"table\")");

const CREATE_FLAGS: &[Flag] = &[
    BUNDLE,
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    PID_FILE,
    NO_PIVOT,
    NO_NEW_KEYRING,
    PRESERVE_FDS,
];
const RUN_FLAGS: &[Flag] = &[
    BUNDLE,
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    DETACH,
    switch("keep", ' ', "keep the container after its end"),
    PID_FILE,
    NO_SUBREAPER,
    NO_PIVOT,
    NO_NEW_KEYRING,
    PRESERVE_FDS,
];
pub(crate) const EXEC_FLAGS: &[Flag] = &[
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    value("cwd", ' ', "working directory, inside the container"),
    values("env", 'e', "one more variable of the environment, NAME=VALUE"),
    switch("tty", 't', "give the process a terminal"),
    value("user", 'u', "user, and group, by number: UID[:GID]"),
    values("additional-gids", 'g', "one more supplementary group, by number"),
    value(
        "process",
        'p',
        "file with the process, as in config.json, instead of a command and these flags",
    ),
    DETACH,
    PID_FILE,
    value("process-label", ' ', "SELinux label of the process"),
    value("apparmor", ' ', "AppArmor profile of the process"),
    switch("no-new-privs", ' ', "keep the process from gaining privileges"),
    values("cap", 'c', "one more capability, like CAP_NET_ADMIN"),
    PRESERVE_FDS,
    values(
        "cgroup",
        ' ',
        "enter this cgroup inside the container's, PATH or, on v1, CONTROLLER[,CONTROLLER...]:PATH",
    ),
    switch(
        "ignore-paused",
        ' ',
        "enter a paused container, too; the process waits until it is resumed",
    ),
];
pub(crate) const UPDATE_FLAGS: &[Flag] = &[
    value(
        "resources",
        'r',
        "file with linux.resources of the runtime spec as JSON, or '-' for standard input; other flags do not count then",
    ),
    value("blkio-weight", ' ', "share of block I/O, 10 to 1000"),
    value("cpu-period", ' ', "period of the processor quota, in microseconds"),
    value(
        "cpu-quota",
        ' ',
        "processor time in each period, in microseconds; -1 is no limit",
    ),
    value("cpu-burst", ' ', "processor time that may be saved up, in microseconds"),
    value("cpu-share", ' ', "share of processor time against other containers"),
    value("cpu-rt-period", ' ', "period of the realtime quota, in microseconds"),
    value("cpu-rt-runtime", ' ', "realtime in each period, in microseconds"),
    value("cpu-idle", ' ', "1 lets it run only when nothing else does"),
    value("cpuset-cpus", ' ', "processors it may run on, like 0-2,4"),
    value("cpuset-mems", ' ', "memory nodes it may use"),
    value("memory", ' ', "most memory, in bytes, or with k, m, g; -1 is no limit"),
    value("kernel-memory", ' ', "without effect: Linux has no such limit any more"),
    value("kernel-memory-tcp", ' ', "most memory for TCP, on cgroup v1"),
    value("memory-reservation", ' ', "memory it is left when memory is short"),
    value("memory-swap", ' ', "most memory and swap together; -1 is no limit"),
    value("pids-limit", ' ', "most processes and threads"),
    value(
        "l3-cache-schema",
        ' ',
        "Intel RDT cache schema (not supported yet: an error)",
    ),
    value(
        "mem-bw-schema",
        ' ',
        "Intel RDT memory bandwidth schema (not supported yet: an error)",
    ),
];

pub(crate) const CHECKPOINT_FLAGS: &[Flag] = &[
    IMAGES,
    WORK,
    value(
        "parent-path",
        ' ',
        "images of an earlier checkpoint, relative to this one's, that have what has not changed",
    ),
    switch("leave-running", ' ', "let the container go on"),
    TCP_ESTABLISHED,
    switch(
        "tcp-skip-in-flight",
        ' ',
        "leave out TCP connections that are not accepted yet",
    ),
    switch("link-remap", ' ', "give names to files that have none any more"),
    EXTERNAL_SOCKETS,
    SHELL_JOB,
    LAZY_PAGES,
    value(
        "status-fd",
        ' ',
        "descriptor that gets a zero byte when pages can be asked for",
    ),
    value("page-server", ' ', "server that takes the pages, ADDRESS:PORT"),
    FILE_LOCKS,
    switch("pre-dump", ' ', "save the memory only, and let the container go on"),
    CGROUPS_MODE,
    EMPTY_NAMESPACE,
    AUTO_DEDUP,
];
const RESTORE_FLAGS: &[Flag] = &[
    CONSOLE_SOCKET,
    IMAGES,
    WORK,
    TCP_ESTABLISHED,
    EXTERNAL_SOCKETS,
    SHELL_JOB,
    FILE_LOCKS,
    CGROUPS_MODE,
    BUNDLE,
    DETACH,
    PID_FILE,
    NO_SUBREAPER,
    NO_PIVOT,
    EMPTY_NAMESPACE,
    AUTO_DEDUP,
    LAZY_PAGES,
    value("lsm-profile", ' ', "another LSM profile for the processes, TYPE:NAME"),
    value("lsm-mount-context", ' ', "another SELinux context for the mounts"),
];

const ID: &str = "<container-id>";
const ONE: Arity = Arity::Exactly(1);

/// All commands, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "checkpoint",
        about: "save a running container to disk",
        usage: ID,
        details: "CRIU, a program of its own, saves its processes; the container is deleted, unless it is to go on.",
        flags: CHECKPOINT_FLAGS,
        order: Order::Anywhere,
        arity: ONE,
        run: checkpoint::checkpoint,
    },
    Command {
        name: "create",
        about: "create a container",
        usage: ID,
        details: "Makes the container of a bundle. Its program waits for `start`. The id must be one that no other\ncontainer below the same --root has.",
        flags: CREATE_FLAGS,
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::create,
    },
    Command {
        name: "delete",
        about: "delete what a container holds after its end",
        usage: ID,
        details: "Removes the cgroup and the state of a stopped container, after which its id is free again. One that\nwas never started is ended first.",
        flags: &[switch(
            "force",
            'f',
            "kill it first if it runs; a container that does not exist is no error",
        )],
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::delete,
    },
    Command {
        name: "events",
        about: "tell what a container uses, and when it runs out of memory",
        usage: ID,
        details: "Prints one JSON object a line: the container's figures at each interval, and `oom` whenever the kernel found no\nmemory for it. It ends when the container does.",
        flags: &[
            value(
                "interval",
                ' ',
                "time between two sets of figures, like 100ms or 1m30s (default: 5s)",
            ),
            switch("stats", ' ', "print the figures of this moment, then end"),
        ],
        order: Order::Anywhere,
        arity: ONE,
        run: crate::events::events,
    },
    Command {
        name: "exec",
        about: "execute another process inside a container",
        usage: "<container-id> <command> [command options]  || -p process.json <container-id>",
        details: "The process starts as the container's own is described, changed by the flags. What stands behind the\ncommand is the command's own.",
        flags: EXEC_FLAGS,
        order: Order::BeforeArguments,
        arity: Arity::AtLeast(1),
        run: exec::exec,
    },
    Command {
        name: "features",
        about: "show what this program supports",
        usage: "",
        details: "Prints JSON in the form of the runtime specification's features document.",
        flags: &[],
        order: Order::Anywhere,
        arity: Arity::Exactly(0),
        run: crate::features::features,
    },
    Command {
        name: "kill",
        about: "send a signal (default: SIGTERM) to a container's init process",
        usage: "<container-id> [signal]",
        details: "The signal is a number or a name, with or without SIG.",
        flags: &[switch("all", 'a', "send it to all processes of the container")],
        order: Order::BeforeArguments,
        arity: Arity::Between(1, 2),
        run: lifecycle::kill,
    },
    Command {
        name: "list",
        about: "list the containers below the state directory",
        usage: "",
        details: "",
        flags: &[FORMAT, switch("quiet", 'q', "print the ids only")],
        order: Order::Anywhere,
        arity: Arity::Exactly(0),
        run: query::list,
    },
    Command {
        name: "pause",
        about: "freeze all processes of a container",
        usage: ID,
        details: "",
        flags: &[],
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::pause,
    },
    Command {
        name: "plan",
        about: "print what the start of a bundle will do, step by step",
        usage: "[container-id]",
        details: "Compiles config.json and runs nothing. Each line is one operation, with the field that asks for it:\nwhat the host does before the clone and beside it, then what the child does, from the clone to the program. The id is only for what is\nnamed after the container; without one, it is the bundle's.",
        flags: &[BUNDLE],
        order: Order::Anywhere,
        arity: Arity::Between(0, 1),
        run: bundle::plan,
    },
    Command {
        name: "ps",
        about: "show the processes inside a container",
        usage: "<container-id> [ps options]",
        details: "The table is what ps(1) prints, of these processes.",
        flags: &[FORMAT],
        order: Order::BeforeArguments,
        arity: Arity::AtLeast(1),
        run: query::ps,
    },
    Command {
        name: "restore",
        about: "make a container out of a checkpoint",
        usage: ID,
        details: "The bundle is that of the container that was saved.",
        flags: RESTORE_FLAGS,
        order: Order::Anywhere,
        arity: ONE,
        run: checkpoint::restore,
    },
    Command {
        name: "resume",
        about: "thaw the processes of a paused container",
        usage: ID,
        details: "",
        flags: &[],
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::resume,
    },
    Command {
        name: "run",
        about: "create and run a container",
        usage: ID,
        details: "Creates the container of a bundle and starts it. In the foreground, signals go to the container's init\nprocess, its exit code becomes this program's, processes that lose their parent are adopted and reaped, and the container is\ndeleted at its end. It survives this program's being killed.",
        flags: RUN_FLAGS,
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::run,
    },
    Command {
        name: "spec",
        about: "write a config.json to start from",
        usage: "",
        details: "It describes a shell in a read-only root filesystem at `rootfs`. One that is there is not overwritten.",
        flags: &[
            value("bundle", 'b', "the bundle's directory (default: the working directory)"),
            switch(
                "rootless",
                ' ',
                "for a user who is not root: in a user namespace, without limits",
            ),
        ],
        order: Order::Anywhere,
        arity: Arity::Exactly(0),
        run: bundle::spec,
    },
    Command {
        name: "start",
        about: "start the program of a created container",
        usage: ID,
        details: "",
        flags: &[],
        order: Order::Anywhere,
        arity: ONE,
        run: lifecycle::start,
    },
    Command {
        name: "state",
        about: "print the state of a container",
        usage: ID,
        details: "Prints the runtime specification's state as JSON, and rootfs, created and owner besides.",
        flags: &[],
        order: Order::Anywhere,
        arity: ONE,
        run: query::state,
    },
    Command {
        name: "update",
        about: "change the limits of a container",
        usage: ID,
        details: "",
        flags: UPDATE_FLAGS,
        order: Order::Anywhere,
        arity: ONE,
        run: resources::update,
    },
];
