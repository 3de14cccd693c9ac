//! The programs of the command line.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use longshore_linux::{Namespaces, set_namespace, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::bundle::{self, Bundle};
use crate::pairs::Table;

/// A tree that Debian's crun 1.8.1 takes for the whole of cgroups where v1 has the controllers.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A runtime that is a program.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// Its state directory.
    pub(crate) root: PathBuf,
    short: PathBuf,
    long: PathBuf,
    /// The mount namespace that it needs.
    namespace: Option<Arc<OwnedFd>>,
}

/// Those that are there.
#[derive(Debug)]
pub(crate) struct Peers<'a> {
    bundle: &'a Bundle,
    pub(crate) ours: Option<Peer>,
    pub(crate) runc: Option<Peer>,
    pub(crate) crun: Option<Peer>,
}

impl Peer {
    fn new(name: &'static str, program: Option<PathBuf>, bundle: &Bundle) -> Option<Self> {
        let Some(program) = program else {
            println!("NOT FOUND: {name}");
            return None;
        };
        let root = bundle.path().join(format!("state-{name}"));
        std::fs::create_dir(&root).expect("a directory");
        Some(Self {
            name,
            program,
            root,
            short: bundle.short(),
            long: bundle.long(),
            namespace: None,
        })
    }

    /// Has a command run where the peer works; all are started in the same way, whether they need it or not.
    pub(crate) fn prepare(&self, command: &mut Command) {
        let namespace = self.namespace.clone();
        let enter = move || match &namespace {
            Some(namespace) => Ok(set_namespace(namespace.as_fd(), Namespaces::MOUNT)?),
            None => Ok(()),
        };
        // SAFETY: one system call, which is async-signal-safe.
        unsafe { command.pre_exec(enter) };
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.prepare(&mut command);
        command
    }

    fn must(&self, words: &[&str]) {
        let status = self.command(words).status().expect("it starts");
        assert!(status.success(), "{} {words:?}", self.name);
    }

    /// A container that ends at once.
    pub(crate) fn run(&self) {
        self.must(&["run", "--bundle", text(&self.short), bundle::new_id().as_str()]);
    }

    /// A container that stays until it is dropped.
    fn stay(&self) -> Staying<'_> {
        let id = bundle::new_id().to_string();
        self.must(&["run", "--detach", "--bundle", text(&self.long), &id]);
        Staying { peer: self, id }
    }

    /// Peak memory of the largest process of a run, in KiB.
    fn peak(&self) -> f64 {
        let mut command = Command::new("/proc/self/exe");
        command.arg("peak").arg(&self.program).arg("--root").arg(&self.root);
        command.args(["run", "--bundle", text(&self.short), bundle::new_id().as_str()]);
        self.prepare(&mut command);
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("this program starts again");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().parse().expect("a number")
    }
}

/// A container that stays.
#[derive(Debug)]
struct Staying<'a> {
    peer: &'a Peer,
    id: String,
}

impl Staying<'_> {
    fn exec(&self) {
        self.peer.must(&["exec", &self.id, "/bin/true"]);
    }
}

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        let _ = self.peer.command(&["delete", "--force", &self.id]).status();
    }
}

impl<'a> Peers<'a> {
    pub(crate) fn find(bundle: &'a Bundle) -> Self {
        let ours = Peer::new("longshore-runc", our_program(), bundle);
        if ours.is_none() {
            println!("  build it: examples/build-static");
        }
        let mut crun = Peer::new("crun", in_path("crun"), bundle);
        if let Some(crun) = &mut crun {
            crun.namespace = without_unified().map(Arc::new);
        }
        Self {
            bundle,
            ours,
            runc: Peer::new("runc", in_path("runc"), bundle),
            crun,
        }
    }

    pub(crate) fn print_sizes(&self, table: &mut Table) {
        let Some(ours) = &self.ours else { return };
        let size = std::fs::metadata(&ours.program).expect("it is there").len();
        table.numbers(
            "size of longshore-runc / 4 MiB",
            "< 1",
            "KiB",
            size as f64 / 1024.0,
            4096.0,
        );
        if let Some(crun) = &self.crun {
            table.numbers(
                "peak memory of run: longshore-runc / crun",
                "<= 1",
                "KiB",
                ours.peak(),
                crun.peak(),
            );
        }
    }

    pub(crate) fn compare_runs(&self, table: &mut Table) {
        let Some(ours) = &self.ours else { return };
        for (peer, wanted) in [(&self.runc, "<= 0.15"), (&self.crun, "<= 0.5")] {
            if let Some(peer) = peer {
                let row = format!("run true: longshore-runc / {}", peer.name);
                table.time(&row, wanted, || ours.run(), || peer.run());
            }
        }
        let floor = || {
            let mut command = Command::new("/proc/self/exe");
            command
                .arg("floor")
                .arg(self.bundle.rootfs())
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            ours.prepare(&mut command);
            assert!(
                command.status().expect("this program starts again").success(),
                "the floor"
            );
        };
        table.time(
            "run true: longshore-runc / floor as a program",
            "<= 1.3",
            || ours.run(),
            floor,
        );
    }

    pub(crate) fn compare_execs(&self, table: &mut Table) {
        let Some(ours) = &self.ours else { return };
        for (peer, wanted) in [(&self.runc, ""), (&self.crun, "<= 0.5")] {
            if let Some(peer) = peer {
                let (here, there) = (ours.stay(), peer.stay());
                let row = format!("exec true: longshore-runc / {}", peer.name);
                table.time(&row, wanted, || here.exec(), || there.exec());
            }
        }
    }
}

/// What `peak` does: runs a program and prints how much memory the largest of its processes had at once.
///
/// It is done by a small program that forks: a process starts with the peak of what it was cloned from.
pub(crate) fn peak(words: &[&str]) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::null());
    // SAFETY: nothing is done; but with something to do, a fork is made.
    unsafe { command.pre_exec(|| Ok(())) };
    assert!(command.status().expect("it starts").success(), "{words:?}");
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    println!("{}", usage.expect("it is known").max_rss());
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn our_program() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("LONGSHORE_RUNC") {
        return Some(given.into());
    }
    let own = std::env::current_exe().ok()?;
    let targets = std::fs::read_dir(own.ancestors().nth(3)?).ok()?;
    let mut built = targets
        .flatten()
        .map(|target| target.path().join("dist/longshore-runc"));
    built.find(|program| program.exists())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.exists())
}

/// A mount namespace in which the v2 tree beside v1 is hidden; none where there is none.
fn without_unified() -> Option<OwnedFd> {
    if !Path::new(UNIFIED).exists() {
        return None;
    }
    let made = std::thread::spawn(|| -> Result<OwnedFd, std::io::Error> {
        unshare(Namespaces::MOUNT)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount("none", UNIFIED, "tmpfs", MountFlags::empty(), c"")?;
        Ok(std::fs::File::open("/proc/thread-self/ns/mnt")?.into())
    });
    let namespace = made.join().expect("no panic");
    Some(namespace.expect("a mount namespace"))
}
