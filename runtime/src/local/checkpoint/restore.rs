use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::outside::{self, EXTERNAL, JOINED, Root, text};
use super::{
    CLONE_NEWNET, DESCRIPTORS, Directories, check_mounts, check_version, config, places, response_pid, rootfs,
};
use crate::cgroup::Cgroup;
use crate::checkpoint::{CriuOptions, Kind, Options, Response, RestoreRequest, Service, request};
use crate::host::io_error;
use crate::io::Streams;
use crate::local::container::Container;
use crate::local::create::{Pending, claim, connect, limits};
use crate::local::process::Watched;
use crate::local::record::{ProcessName, Record};
use crate::local::{Shared, hooks};
use crate::{Drained, Error, Keyring, Lifetime, Reaper, Result, Stdio, resctrl};

const LOG: &str = "restore.log";
/// Where the root filesystem is bound, in the container's state directory and in a mount namespace of its own.
const ROOT: &str = "criu-root";

/// Makes a container out of a checkpoint. Blocks.
pub(in crate::local) fn restore(shared: &Shared, asked: RestoreRequest) -> Result<Pending> {
    let RestoreRequest {
        id,
        bundle,
        spec,
        io,
        criu,
        lsm_profile,
        lsm_mount_context,
        reaper,
    } = asked;
    let bundle = std::path::absolute(&bundle).map_err(io_error(format!("find the bundle {}", bundle.display())))?;
    check_mounts(&spec)?;
    check_version(&criu)?;
    if let Some(wanted) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) {
        resctrl::check(wanted, shared.facts.resctrl.as_deref())?;
    }
    let limits = limits(shared, &spec)?;
    let directories = Directories::open(&criu, LOG)?;
    let pipes = pipes(&criu.images)?;

    let made = claim(shared, &id, &spec, &limits, Lifetime::Detached)?;
    let (dir, cgroup) = made.parts();
    let mut streams = io.into_streams();
    let drained = streams.drained();
    let has_terminal = spec
        .process()
        .as_ref()
        .and_then(|process| process.terminal())
        .unwrap_or(false);
    let (stdio, mut waiting) = if has_terminal {
        (None, Some(streams))
    } else {
        (Some(streams.open()?), None)
    };
    let mut record = Record {
        id: id.to_string(),
        init: ProcessName { pid: 0, start: 0 },
        lifetime: Lifetime::Detached,
        bundle,
        created: SystemTime::now(),
        cgroups: cgroup.location(),
        steps: 0,
        monitor: None,
        keyring: Keyring::default(),
        resctrl: made.resctrl(),
        spec,
    };
    let root = dir.path().join(ROOT);
    let restoring = Restoring {
        shared,
        spec: &record.spec.clone(),
        bundle: &record.bundle.clone(),
        criu: &criu,
        lsm: (lsm_profile, lsm_mount_context),
        cgroup,
        directories: &directories,
        root: &root,
        pipes: &pipes,
    };
    let talked = places::on_a_thread(|| restoring.run(stdio, &mut record, &mut waiting));
    let pidfd = talked.map_err(|error| directories.explain(error))?;
    // In this namespace it is an empty directory.
    let _ = fs::remove_dir(&root);
    cgroup.confine_devices(&limits)?;
    dir.save(&record)?;
    let init = Watched::new(record.init.pid, Some(pidfd), drained.map(Drained::wait));
    let (dir, cgroup) = made.keep();
    let container = Arc::new(Container::made(id, dir, record, (init, None), cgroup.rest()));
    let pending = Pending::new(&container);
    if reaper != Reaper::Heir {
        container.watch(shared.reactor.as_ref())?;
    }
    container.let_go_of_record();
    Ok(pending)
}

/// The names of the pipes that its streams were, by number.
fn pipes(images: &Path) -> Result<Vec<(String, i32)>> {
    let path = images.join(DESCRIPTORS);
    let bytes = fs::read(&path).map_err(io_error(format!("read {}", path.display())))?;
    let streams: Vec<String> = serde_json::from_slice(&bytes).map_err(|error| Error::Corrupt {
        path,
        reason: error.to_string(),
    })?;
    let numbered = streams.into_iter().zip(0..3);
    Ok(numbered.filter(|(stream, _)| stream.contains("pipe:")).collect())
}

/// What the restoring thread works with.
struct Restoring<'a> {
    shared: &'a Shared,
    spec: &'a Spec,
    bundle: &'a Path,
    criu: &'a CriuOptions,
    /// Another profile, and another context of mounts.
    lsm: (Option<String>, Option<String>),
    cgroup: &'a Cgroup,
    directories: &'a Directories,
    root: &'a Path,
    pipes: &'a [(String, i32)],
}

impl Restoring<'_> {
    fn run(
        &self,
        stdio: Option<Stdio>,
        record: &mut Record,
        waiting: &mut Option<Box<dyn Streams>>,
    ) -> Result<OwnedFd> {
        let rootfs = rootfs(self.bundle, self.spec)?;
        let root = Root::open(&rootfs)?;
        places::enter_own_namespace()?;
        // The one that was opened is the same directory, of the other namespace's mount.
        let inside = Root::open(&rootfs)?;
        places::make(&inside, self.spec, self.bundle)?;
        places::bind_root(&rootfs, self.root)?;
        let (mut options, passed) = self.options(&root)?;
        let service = Service::start(&self.criu.program, stdio.as_ref(), &passed)?;
        drop(stdio);
        options.groups = self.join(service.pid())?;
        if let Some(group) = &record.resctrl {
            group.join(service.pid())?;
        }
        let mut restored = None;
        let message = request(Kind::Restore, &options);
        let answer = service.talk(Kind::Restore, &message, |response, fd| {
            self.on_notification(response, fd, record, waiting, &mut restored)
        })?;
        match restored {
            Some(pidfd) => Ok(pidfd),
            None => self.adopt(&answer, record),
        }
    }

    fn options(&self, root: &Root) -> Result<(Options, Vec<OwnedFd>)> {
        let (spec, criu) = (self.spec, self.criu);
        let mode = self.shared.cgroups.host().mode();
        let mut mounts = Vec::new();
        for mount in outside::mounts(spec, self.bundle, &self.cgroup.location(), mode) {
            mounts.push((text(&root.real(&mount.inside))?, text(&mount.source)?));
        }
        let mut inherited = self.pipes.to_vec();
        let mut passed = Vec::new();
        for (kind, _, name) in EXTERNAL {
            let Some(path) = outside::joined(spec, kind) else {
                continue;
            };
            inherited.push((name.to_owned(), Service::PASSED + passed.len() as i32));
            let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            passed.push(opened.map_err(io_error(format!("open the namespace {}", path.display())))?);
        }
        let mut join = Vec::new();
        for (kind, word) in JOINED {
            if let Some(path) = outside::joined(spec, kind) {
                join.push((word, text(&path)?));
            }
        }
        let options = Options {
            images: self.directories.images.as_raw_fd(),
            work: self.directories.work.as_ref().map(AsRawFd::as_raw_fd),
            log: LOG,
            root: text(self.root)?,
            flags: criu.flags,
            cgroups: criu.cgroups,
            empty_namespaces: CLONE_NEWNET,
            config: config(criu, spec),
            mounts,
            inherited,
            join,
            lsm_profile: self.lsm.0.clone(),
            lsm_mount_context: self.lsm.1.clone(),
            is_restore: true,
            ..Options::default()
        };
        Ok((options, passed))
    }

    /// Puts CRIU, and with it what it restores, into the container's groups; which these are, as the kernel tells them.
    fn join(&self, pid: i32) -> Result<Vec<(String, String)>> {
        let entry = self.cgroup.entry()?;
        let fail = || format!("put criu (pid {pid}) into the container's cgroups");
        for tasks in &entry.tasks {
            rustix::io::write(tasks, pid.to_string().as_bytes()).map_err(io_error(fail()))?;
        }
        if let Some(group) = &entry.unified {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let procs = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty()).map_err(io_error(fail()))?;
            rustix::io::write(&procs, pid.to_string().as_bytes()).map_err(io_error(fail()))?;
        }
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).map_err(io_error(format!("read {path}")))?;
        let group = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        };
        Ok(text.lines().filter_map(group).collect())
    }

    fn on_notification(
        &self,
        response: &Response,
        fd: Option<OwnedFd>,
        record: &mut Record,
        waiting: &mut Option<Box<dyn Streams>>,
        restored: &mut Option<OwnedFd>,
    ) -> Result<()> {
        match response.notification.as_str() {
            "setup-namespaces" => {
                let init = self.adopt(response, record)?;
                hooks::run_create(hooks::Inside {
                    shared: self.shared,
                    record,
                    cgroup: self.cgroup,
                    init: init.as_fd(),
                })
            }
            "post-restore" => {
                *restored = Some(self.adopt(response, record)?);
                Ok(())
            }
            "orphan-pts-master" => fd.map_or(Ok(()), |master| connect(waiting, master)),
            _ => Ok(()),
        }
    }

    /// The restored process, which is this program's child.
    fn adopt(&self, response: &Response, record: &mut Record) -> Result<OwnedFd> {
        let pid = response_pid(response)?;
        record.init = ProcessName::of(pid)?;
        let opened = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH);
        opened
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(io_error(format!("open a pidfd of the restored process {pid}")))
    }
}
