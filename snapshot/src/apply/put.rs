use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tar_core::SparseEntry;

use crate::apply::archive::{Entry, EntryKind};
use crate::apply::lower::Found;
use crate::apply::path::{normalize, split};
use crate::apply::stream::Stream;
use crate::apply::tree::{Dir, Missing, Tree};
use crate::apply::{Limits, Ownership};
use crate::copy::copy_node;
use crate::{Error, Result, at};

impl Tree {
    /// Makes what the entry describes, as `name` in directory `parent`; what was there is replaced, a directory by a directory merged.
    pub(super) fn put(
        &mut self,
        entry: &mut Entry,
        (parent, name): (&[u8], &[u8]),
        stream: &mut Stream,
        limits: &Limits,
    ) -> Result<()> {
        if let EntryKind::HardLink(target) = &entry.kind {
            let target = normalize(target, limits)?;
            return self.put_hard_link(entry, (parent, name), &target);
        }
        self.enter(parent, Missing::Create)?;
        // Marked first: a directory is entered.
        self.mark(name);
        self.filter_xattrs(entry);
        match &entry.kind {
            EntryKind::Directory => self.put_directory(entry, name),
            EntryKind::File => self.put_file(entry, name, |file| write_plain(file, entry.content, stream)),
            EntryKind::Sparse(map, size) => self.put_file(entry, name, |file| write_sparse(file, map, *size, stream)),
            EntryKind::Symlink(target) => self.put_node(entry, name, FileType::Symlink, |dir| {
                rustix::fs::symlinkat(&target[..], dir, name)
            }),
            EntryKind::Fifo => self.put_special(entry, name, FileType::Fifo, 0),
            EntryKind::CharDevice(device) => self.put_special(entry, name, FileType::CharacterDevice, *device),
            EntryKind::BlockDevice(device) => self.put_special(entry, name, FileType::BlockDevice, *device),
            EntryKind::HardLink(_) => unreachable!("done above"),
        }
    }

    /// Sets metadata of the root directory.
    pub(super) fn put_root(&mut self, entry: &mut Entry) -> Result<()> {
        if !matches!(entry.kind, EntryKind::Directory) {
            return Err(entry.invalid("the root must be a directory"));
        }
        self.filter_xattrs(entry);
        self.enter(b"", Missing::Create)?;
        let fd = self.top().fd.try_clone().map_err(|source| Error::Io {
            action: "opening",
            path: self.root.clone(),
            source,
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(self.failed("reading", b""))?;
        let root = Dir::existing(Vec::new(), fd, &stat, None, false).map_err(self.failed("opening", b""))?;
        let root = self.describe_dir(root, entry, b"")?;
        self.replace_root(root);
        Ok(())
    }

    fn put_directory(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let dir = match rustix::fs::mkdirat(self.here(), name, Mode::RWXU) {
            Ok(()) => {
                self.usage.made();
                self.new_dir(name)?
            }
            Err(Errno::EXIST) => self.existing_dir(name)?,
            Err(errno) => return Err(self.failed("creating", name)(errno)),
        };
        let dir = self.describe_dir(dir, entry, name)?;
        self.enter_new(name, dir);
        Ok(())
    }

    /// A directory just made: what a lower directory of that name has and the entry does not mention stays as it is.
    fn new_dir(&mut self, name: &[u8]) -> Result<Dir> {
        let fd = at::open_dir(&self.top().fd, name).map_err(self.failed("opening", name))?;
        let mut dir = Dir::new(name.to_vec(), fd);
        if self.is_overlay()
            && let Found::Directory(layers) = self.find_below(name)?
        {
            let (_, xattrs) = self.lower_dir(name, layers[0])?;
            at::set_xattrs_of(&dir.fd, &xattrs).map_err(self.failed("setting attributes of", name))?;
            dir.set_layers(layers);
        }
        Ok(dir)
    }

    /// Something is there: a directory stays, anything else gives way to one that shows nothing of the lower layers.
    fn existing_dir(&mut self, name: &[u8]) -> Result<Dir> {
        let opened = match self.bound_by_modes() {
            true => at::open_locked_dir(&self.top().fd, name),
            false => at::open_dir(&self.top().fd, name).map(|fd| (fd, None)),
        };
        match opened {
            Ok((fd, locked)) => {
                let stat = rustix::fs::fstat(&fd).map_err(self.failed("reading", name))?;
                Dir::existing(name.to_vec(), fd, &stat, locked, self.bound_by_modes())
                    .map_err(self.failed("opening", name))
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.discard(name).map_err(self.failed("replacing", name))?;
                let dir = self.make_dir(name)?;
                if self.is_overlay() {
                    self.make_opaque(&dir.fd)
                        .map_err(self.failed("marking as opaque", name))?;
                }
                Ok(dir)
            }
            Err(errno) => Err(self.failed("opening", name)(errno)),
        }
    }

    /// Owner, attributes, mode and time of a directory. Its time is set when it is left.
    fn describe_dir(&mut self, mut dir: Dir, entry: &Entry, name: &[u8]) -> Result<Dir> {
        self.set_owner_of(&dir.fd, entry, name)?;
        self.skipped.xattrs +=
            at::set_xattrs_of(&dir.fd, &entry.xattrs).map_err(self.failed("setting attributes of", name))?;
        dir.set_mode(mode(entry), self.bound_by_modes())
            .map_err(self.failed("setting the mode of", name))?;
        dir.set_mtime(entry.mtime);
        Ok(dir)
    }

    fn put_file(
        &mut self,
        entry: &Entry,
        name: &[u8],
        write: impl FnOnce(&OwnedFd) -> Result<(), Trouble>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let first = self.first_mode(entry);
        let file = self.place(name, |dir| rustix::fs::openat(dir, name, flags, first))?;
        write(&file).map_err(|trouble| match trouble {
            Trouble::Layer(error) => error,
            Trouble::Writing(errno) => self.failed("writing", name)(errno),
        })?;
        self.describe_file(&file, entry, name)?;
        rustix::fs::futimens(&file, &at::mtime_of(entry.mtime)).map_err(self.failed("setting the time of", name))?;
        Ok(())
    }

    /// What a file is made with: its mode, if it is the maker's own anyway, else one for nobody but the maker until the owner is set.
    fn first_mode(&self, entry: &Entry) -> Mode {
        // Attributes can be set only by who may write.
        let least = Mode::RUSR | Mode::WUSR;
        match self.ownership == Ownership::Caller || owner(entry) == self.caller {
            true => mode(entry) & (Mode::RWXU | Mode::RWXG | Mode::RWXO) | least,
            false => least,
        }
    }

    /// Owner, attributes and mode of a file, where they are not right already: each takes a system call, and most files need none. And counts it.
    fn describe_file(&mut self, file: &OwnedFd, entry: &Entry, name: &[u8]) -> Result<()> {
        let read = |tree: &Self| rustix::fs::fstat(file).map_err(tree.failed("reading", name));
        let mut stat = read(self)?;
        let (uid, gid) = at::owner(&stat);
        if self.ownership == Ownership::Keep && (uid, gid) != owner(entry) {
            self.set_owner_of(file, entry, name)?;
        }
        if !entry.xattrs.is_empty() {
            self.skipped.xattrs +=
                at::set_xattrs_of(file, &entry.xattrs).map_err(self.failed("setting attributes of", name))?;
            // They may take a block, and a list of access rights changes the mode.
            stat = read(self)?;
        }
        if Mode::from_raw_mode(stat.st_mode) != mode(entry) {
            rustix::fs::fchmod(file, mode(entry)).map_err(self.failed("setting the mode of", name))?;
        }
        self.usage.made_as(&stat);
        Ok(())
    }

    fn put_special(&mut self, entry: &Entry, name: &[u8], kind: FileType, device: rustix::fs::Dev) -> Result<()> {
        if kind == FileType::CharacterDevice && device == 0 && self.is_overlay() {
            return Err(entry.invalid("device 0:0 is overlay's whiteout, which a layer can't contain as a device"));
        }
        if kind != FileType::Fifo && self.ownership == Ownership::Caller {
            self.skipped.devices += 1;
            return Ok(());
        }
        self.put_node(entry, name, kind, |dir| {
            rustix::fs::mknodat(dir, name, kind, mode(entry), device)
        })
    }

    /// Anything that has no content: made by one call, described by its name.
    fn put_node(
        &mut self,
        entry: &Entry,
        name: &[u8],
        kind: FileType,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<()> {
        self.place(name, make)?;
        if self.ownership == Ownership::Keep {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(self.here(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.failed("setting the owner of", name))?;
        }
        self.skipped.xattrs +=
            at::set_xattrs_at(self.here(), name, &entry.xattrs).map_err(self.failed("setting attributes of", name))?;
        if kind != FileType::Symlink {
            // The umask has had its say, and a change of owner takes set-uid away.
            rustix::fs::chmodat(self.here(), name, mode(entry), AtFlags::empty())
                .map_err(self.failed("setting the mode of", name))?;
        }
        let times = at::mtime_of(entry.mtime);
        rustix::fs::utimensat(self.here(), name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("setting the time of", name))?;
        self.count(name)
    }

    fn put_hard_link(&mut self, entry: &Entry, (parent, name): (&[u8], &[u8]), target: &[u8]) -> Result<()> {
        let (target_parent, target_name) = split(target);
        let no_target = || {
            let target = String::from_utf8_lossy(target).into_owned();
            entry.invalid(format!(
                "it is a hard link to '{target}', which does not exist or is a directory"
            ))
        };
        if target_name.is_empty() || !self.enter(target_parent, Missing::Stop)? {
            return Err(no_target());
        }
        if !self.bring_up(target_name)? {
            return Err(no_target());
        }
        let real_target = self.path_of_name(target_name);
        let from = self.top().fd.try_clone().map_err(|source| Error::Io {
            action: "opening",
            path: self.root.join(super::os(target_parent)),
            source,
        })?;
        self.enter(parent, Missing::Create)?;
        self.mark(name);
        if self.path_of_name(name) == real_target {
            return Ok(());
        }
        let locked = self.unlock(&from).map_err(self.failed("opening the target of", name))?;
        let linked = self.place(name, |dir| {
            rustix::fs::linkat(&from, target_name, dir, name, AtFlags::empty())
        });
        at::lock_again(&from, locked).map_err(self.failed("setting the mode of the target of", name))?;
        match linked {
            // It was inside of what it replaces.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(no_target()),
            answer => answer,
        }
    }

    /// Makes a directory that was left already accessible to its owner again; gives the mode to be restored.
    fn unlock(&self, dir: &OwnedFd) -> rustix::io::Result<Option<Mode>> {
        if !self.bound_by_modes() {
            return Ok(None);
        }
        let mode = Mode::from_raw_mode(rustix::fs::fstat(dir)?.st_mode);
        if mode.contains(Mode::RWXU) {
            return Ok(None);
        }
        rustix::fs::fchmod(dir, mode | Mode::RWXU)?;
        Ok(Some(mode))
    }

    /// Sees to it that `name` is in our own tree, copying it up from a lower layer; false if there is no such file.
    fn bring_up(&mut self, name: &[u8]) -> Result<bool> {
        match at::stat(&self.top().fd, name) {
            Ok(stat) if self.is_overlay() && at::is_whiteout(&stat) => return Ok(false),
            Ok(stat) => return Ok(at::file_type(&stat) != FileType::Directory),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.failed("reading", name)(errno)),
        }
        let Found::Other(layer, stat) = self.find_below(name)? else {
            return Ok(false);
        };
        let (dir, last) = self.lowers().parent(layer, &self.path_of_name(name))?;
        let ownership = self.ownership;
        copy_node(dir.as_fd(), &last, &stat, self.here(), name, ownership).map_err(self.failed("copying up", name))?;
        self.count(name)?;
        let path = self.path_of_name(name);
        self.brought.insert(path);
        Ok(true)
    }

    /// Makes `name`; if something is there already, after removing that.
    fn place<T>(&mut self, name: &[u8], make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>) -> Result<T> {
        match make(self.here()) {
            Err(Errno::EXIST) => {
                self.discard(name).map_err(self.failed("replacing", name))?;
                make(self.here()).map_err(self.failed("creating", name))
            }
            answer => answer.map_err(self.failed("creating", name)),
        }
    }

    fn set_owner_of(&self, file: impl AsFd, entry: &Entry, name: &[u8]) -> Result<()> {
        if self.ownership == Ownership::Caller {
            return Ok(());
        }
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(file, uid, gid).map_err(self.failed("setting the owner of", name))
    }

    /// Takes away the attributes that a layer has no say in: overlay's own, by which it could show files of other directories,
    /// and the label by which SELinux on this machine decides.
    fn filter_xattrs(&mut self, entry: &mut Entry) {
        let before = entry.xattrs.len();
        entry
            .xattrs
            .retain(|(key, _)| !at::is_overlay_xattr(key) && key != b"security.selinux");
        self.skipped.xattrs += (before - entry.xattrs.len()) as u64;
    }
}

/// Writing a file fails on either side.
enum Trouble {
    Layer(Error),
    Writing(Errno),
}

fn write_plain(file: &OwnedFd, content: u64, stream: &mut Stream) -> Result<(), Trouble> {
    let mut rest = content;
    while rest > 0 {
        let got = write_chunk(file, rest, stream)?;
        rest -= got;
    }
    Ok(())
}

fn write_chunk(file: &OwnedFd, max: u64, stream: &mut Stream) -> Result<u64, Trouble> {
    let mut bytes = stream.chunk(max).map_err(Trouble::Layer)?;
    let got = bytes.len();
    while !bytes.is_empty() {
        let written = at::retry(|| rustix::io::write(file, bytes)).map_err(Trouble::Writing)?;
        bytes = &bytes[written..];
    }
    stream.consume(got);
    Ok(got as u64)
}

fn write_sparse(file: &OwnedFd, map: &[SparseEntry], size: u64, stream: &mut Stream) -> Result<(), Trouble> {
    for piece in map {
        if piece.length > 0 {
            rustix::fs::seek(file, SeekFrom::Start(piece.offset)).map_err(Trouble::Writing)?;
            write_plain(file, piece.length, stream)?;
        }
    }
    rustix::fs::ftruncate(file, size).map_err(Trouble::Writing)
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}
