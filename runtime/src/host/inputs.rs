use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use longshore_linux::{Depth, MountAttr};
use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::io_error;
use crate::cgroup::Location;
use crate::init::{EMPTY, sources};
use crate::plan::op::{HostInput, Slot, Source};
use crate::plan::paths::cpath;
use crate::plan::{Privilege, Program};
use crate::{Error, Result, Stdio};

/// The descriptors that a child starts with, by slot. All are 3 or higher and close-on-exec.
#[derive(Debug)]
pub(crate) struct Inputs {
    owned: Vec<OwnedFd>,
    slots: Vec<RawFd>,
    /// The first number that the child does not use for something else.
    lowest: RawFd,
}

impl Inputs {
    /// Opens what the program needs of the host, and the socket to talk over, whose other end it returns.
    pub(crate) fn open(program: &Program, cgroups: &Location) -> Result<(Self, OwnedFd)> {
        let mut inputs = Self {
            owned: Vec::new(),
            slots: vec![EMPTY; usize::from(program.slots)],
            lowest: 3 + program.descriptors.map_or(0, |(_, count)| count.into()),
        };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io_error("make a socket pair to talk to a container's init process"))?;
        inputs.put(Slot::REPORT, theirs)?;
        for (slot, input, field) in &program.inputs {
            let fd = open(input, field, cgroups)?;
            inputs.put(*slot, fd)?;
        }
        Ok((inputs, ours))
    }

    /// Fills a slot.
    pub(crate) fn put(&mut self, slot: Slot, fd: OwnedFd) -> Result<()> {
        // The child puts its streams onto 0 to 2, and further descriptors above; the host may have other things there.
        let fd = if fd.as_raw_fd() < self.lowest {
            rustix::io::fcntl_dupfd_cloexec(&fd, self.lowest).map_err(io_error("duplicate a descriptor"))?
        } else {
            fd
        };
        self.slots[usize::from(slot.0)] = fd.as_raw_fd();
        self.owned.push(fd);
        Ok(())
    }

    /// The tasks files of cgroups that the child is to join, after the program's own slots.
    pub(crate) fn put_tasks(&mut self, tasks: Vec<OwnedFd>) -> Result<()> {
        for file in tasks {
            let slot = Slot(self.slots.len() as u16);
            self.slots.push(EMPTY);
            self.put(slot, file)?;
        }
        Ok(())
    }

    /// The further descriptors that the program was compiled for.
    pub(crate) fn put_descriptors(&mut self, program: &Program, descriptors: Vec<OwnedFd>) -> Result<()> {
        let first = program.descriptors.map_or(0, |(first, _)| first.0);
        for (slot, descriptor) in (first..).zip(descriptors) {
            self.put(Slot(slot), descriptor)?;
        }
        Ok(())
    }

    /// The container's ends of its streams.
    pub(crate) fn put_streams(&mut self, streams: Stdio) -> Result<()> {
        self.put(Slot::STDIN, streams.stdin)?;
        self.put(Slot::STDOUT, streams.stdout)?;
        self.put(Slot::STDERR, streams.stderr)
    }

    /// The numbers by slot, for the child to write into.
    pub(super) fn slots(&mut self) -> &mut [RawFd] {
        &mut self.slots
    }
}

fn open(input: &HostInput, field: &str, cgroups: &Location) -> Result<OwnedFd> {
    match input {
        HostInput::Namespace { path, .. } => {
            openat(CWD, path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| Error::Step {
                field: field.to_owned(),
                step: format!("open the namespace {path:?}"),
                source: errno.into(),
            })
        }
        HostInput::OwnCgroup {
            mounted,
            inherited,
            privilege,
        } => {
            let place = cgroups.places.iter().find(|p| p.mount == *mounted);
            let path = mounted.join(place.map_or(inherited, |place| &place.path));
            let path = cpath(field, &path)?;
            if *privilege == Privilege::None {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return openat(CWD, &path, flags, Mode::empty()).map_err(|errno| Error::Step {
                    field: field.to_owned(),
                    step: format!("open the group {path:?}"),
                    source: errno.into(),
                });
            }
            let depth = Depth::Mount;
            make(&Source::Bind { path, depth }, field)
        }
        HostInput::Mount(source) => make(source, field),
        HostInput::Proc => open_proc().map_err(|errno| Error::Step {
            field: field.to_owned(),
            step: "open /proc, which must be the root of a procfs".into(),
            source: errno.into(),
        }),
    }
}

fn open_proc() -> Result<OwnedFd, Errno> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    const PROC_ROOT_INODE: u64 = 1;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, c"/proc", flags, Mode::empty())?;
    let is_root = fstatfs(&proc)?.f_type as u64 == PROC_SUPER_MAGIC && fstat(&proc)?.st_ino == PROC_ROOT_INODE;
    if is_root { Ok(proc) } else { Err(Errno::NODEV) }
}

fn make(source: &Source, field: &str) -> Result<OwnedFd> {
    sources::make(source, MountAttr::empty()).map_err(|failure| Error::Step {
        field: field.to_owned(),
        step: format!("{source}: {}", failure.call.text()),
        source: failure.errno.into(),
    })
}
