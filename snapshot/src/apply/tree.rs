use std::collections::{HashSet, VecDeque};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, Stat, Timespec};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::apply::archive::invalid;
use crate::apply::lower::{Found, Layer, Lowers};
use crate::apply::mine::Mine;
use crate::apply::path::join;
use crate::apply::tally::Tally;
use crate::apply::target::Target;
use crate::apply::{Ownership, Skipped};
use crate::remove::remove_all;
use crate::{Error, Result, at, usage};

/// How many symbolic links are followed on the way to a directory; the kernel's own limit.
const LINKS_MAX: usize = 40;

/// The tree that a layer is unpacked into, and where in it we are.
///
/// # How nothing gets out of it
/// We walk from the root one component at a time, each opened by its name in the descriptor of the one before, and never through a symbolic
/// link (`O_NOFOLLOW`); no `..` is ever given to the kernel. A symbolic link on the way, in the layer or below it, is read and its target walked
/// in the same manner, an absolute one from the root and with `..` stopping at the root, as the container would see it. Files are
/// then made by one name in the last descriptor.
///
/// The open directories from the root to where we are form a stack. An archive is mostly sorted, so the next entry's directory is mostly the
/// top of it. A directory's mode and modification time are final when it leaves the stack, after everything was made in it; if it is
/// entered again they are put back again. So memory does not grow with the layer.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) lowers: Option<Lowers>,
    pub(super) opaque: &'static CStr,
    pub(super) ownership: Ownership,
    /// Whose a new file is.
    pub(super) caller: (Option<Uid>, Option<Gid>),
    stack: Vec<Dir>,
    /// The path by which the top of the stack was entered, symbolic links in it.
    entered: Option<Vec<u8>>,
    /// What this layer made, when the target was not empty.
    pub(super) mine: Option<Mine>,
    /// What was copied up from a lower layer although no entry of this layer is in it: directories that hold a whiteout or were
    /// passed through, targets of hard links. It is not this layer's, so a whiteout hides it.
    pub(super) brought: HashSet<Vec<u8>>,
    /// The caller is bound by the modes of the directories.
    bound_by_modes: bool,
    pub(super) usage: Tally,
    pub(super) skipped: Skipped,
}

/// An open directory on the way from the root.
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    name: Vec<u8>,
    /// What it gets when it is left, if anything was made in it.
    mtime: Option<Timespec>,
    touched: bool,
    /// Bytes of it that were counted so far.
    counted: u64,
    /// The mode that it gets when it is left.
    mode: Option<Mode>,
    /// The lower directories that it is merged from, once somebody asked.
    layers: Option<Vec<Layer>>,
}

/// What to do with a directory that is nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Stop,
}

enum Step {
    Entered,
    Link(Vec<u8>),
    Missing,
}

impl Tree {
    pub(super) fn open(target: Target, ownership: Ownership) -> Result<Self> {
        let fd =
            rustix::fs::open(&target.dir, at::DIRECTORY, Mode::empty()).map_err(at::failed("opening", &target.dir))?;
        let empty = at::is_empty(&fd).map_err(at::failed("reading", &target.dir))?;
        let (mine, usage) = match empty {
            true => (None, Tally::of_nothing()),
            false => (Some(Mine::default()), Tally::unknown()),
        };
        let (lowers, opaque) = match &target.overlay {
            Some(overlay) => (Some(Lowers::open(&overlay.lowers, overlay.opaque)?), overlay.opaque),
            None => (None, c""),
        };
        let layers = lowers.as_ref().map(Lowers::all).unwrap_or_default();
        let mut tree = Self {
            root: target.dir,
            lowers,
            opaque,
            ownership,
            caller: (Some(rustix::process::geteuid()), Some(rustix::process::getegid())),
            stack: Vec::new(),
            entered: None,
            mine,
            brought: HashSet::new(),
            bound_by_modes: !rustix::process::geteuid().is_root(),
            usage,
            skipped: Skipped::default(),
        };
        tree.push(Vec::new(), fd, None)?;
        tree.top_mut().layers = Some(layers);
        tree.usage.resized(0, tree.stack[0].counted);
        Ok(tree)
    }

    pub(super) fn is_overlay(&self) -> bool {
        self.lowers.is_some()
    }

    /// The directory that was entered last.
    pub(super) fn top(&self) -> &Dir {
        self.stack.last().expect("the root is never left")
    }

    fn top_mut(&mut self) -> &mut Dir {
        self.stack.last_mut().expect("the root is never left")
    }

    /// The descriptor of the directory that was entered last, for making or removing something in it.
    pub(super) fn here(&mut self) -> BorrowedFd<'_> {
        let top = self.top_mut();
        top.touched = true;
        top.fd.as_fd()
    }

    pub(super) fn at_root(&self) -> bool {
        self.stack.len() == 1
    }

    /// The real path of the directory that was entered last.
    pub(super) fn path_here(&self) -> Vec<u8> {
        self.path_of(self.stack.len() - 1)
    }

    /// The real path of `name` in it.
    pub(super) fn path_of_name(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path_here(), name)
    }

    fn path_of(&self, depth: usize) -> Vec<u8> {
        let mut path = Vec::new();
        for dir in &self.stack[1..=depth] {
            path = join(&path, &dir.name);
        }
        path
    }

    /// An error about `name` in the directory that was entered last. What it says is made only when there is one.
    pub(super) fn failed<'a>(&'a self, action: &'static str, name: &'a [u8]) -> impl FnOnce(Errno) -> Error + use<'a> {
        move |errno| {
            let path = self.path_of_name(name);
            match errno {
                Errno::NAMETOOLONG => invalid(&path, "a name in it is longer than the filesystem allows"),
                errno => at::failed(action, self.root.join(super::os(&path)))(errno),
            }
        }
    }

    /// Goes to the directory of that (normalized) path; false if it is missing and not to be made.
    ///
    /// A directory that only a lower layer has is made here with that one's owner, mode, attributes and time.
    pub(super) fn enter(&mut self, path: &[u8], missing: Missing) -> Result<bool> {
        if self.entered.as_deref() == Some(path) {
            return Ok(true);
        }
        self.entered = None;
        let mut todo: VecDeque<Vec<u8>> = components(path).collect();
        let mut depth = 0usize;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                depth = depth.saturating_sub(1);
                continue;
            }
            if self.stack.get(depth + 1).is_some_and(|dir| dir.name == name) {
                depth += 1;
                continue;
            }
            self.leave_to(depth)?;
            match self.step(&name, missing)? {
                Step::Entered => depth += 1,
                Step::Missing => return Ok(false),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(invalid(path, "there are too many symbolic links on its way"));
                    }
                    if target.starts_with(b"/") {
                        depth = 0;
                    }
                    for name in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(name);
                    }
                }
            }
        }
        self.leave_to(depth)?;
        self.entered = Some(path.to_vec());
        Ok(true)
    }

    /// Goes into a directory just made or found by an entry.
    pub(super) fn enter_new(&mut self, name: &[u8], dir: Dir) {
        let entered = self.entered.take();
        self.stack.push(dir);
        self.entered = entered.map(|parent| join(&parent, name));
    }

    /// Leaves all directories, giving each its mode and time.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.leave_to(0)?;
        let root = self.stack.pop().expect("the root is never left");
        let counted = root.counted;
        let bytes = root
            .leave()
            .map_err(at::failed("setting mode and time of", &self.root))?;
        self.usage.resized(counted, bytes);
        Ok(())
    }

    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.stack.len() > depth + 1 {
            self.entered = None;
            let path = self.path_here();
            let dir = self.stack.pop().expect("longer than depth");
            let counted = dir.counted;
            let bytes = dir
                .leave()
                .map_err(at::failed("setting mode and time of", self.root.join(super::os(&path))))?;
            self.usage.resized(counted, bytes);
        }
        Ok(())
    }

    fn step(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        let opened = match self.bound_by_modes {
            true => at::open_locked_dir(&self.top().fd, name),
            false => at::open_dir(&self.top().fd, name).map(|fd| (fd, None)),
        };
        match opened {
            Ok((fd, locked)) => {
                self.push(name.to_vec(), fd, locked)?;
                Ok(Step::Entered)
            }
            Err(Errno::NOENT) => self.step_into_lower(name, missing),
            Err(Errno::NOTDIR | Errno::LOOP) => self.step_over_other(name, missing),
            Err(errno) => Err(self.failed("opening", name)(errno)),
        }
    }

    /// Our own tree does not have it.
    fn step_into_lower(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        match self.find_below(name)? {
            Found::Directory(layers) => {
                let dir = self.copy_up_dir(name, layers)?;
                let path = self.path_of_name(name);
                self.brought.insert(path);
                self.stack.push(dir);
                Ok(Step::Entered)
            }
            Found::Other(layer, stat) if at::file_type(&stat) == FileType::Symlink => {
                let path = self.path_of_name(name);
                let (dir, last) = self.lowers().parent(layer, &path)?;
                let target =
                    rustix::fs::readlinkat(dir, &last[..], Vec::new()).map_err(self.failed("reading", name))?;
                Ok(Step::Link(target.into_bytes()))
            }
            // A whiteout below what is no directory hides nothing: umoci writes such for a directory that became a file.
            Found::Other(..) if missing == Missing::Stop => Ok(Step::Missing),
            Found::Other(..) => Err(self.not_a_directory(name)),
            Found::Nothing if missing == Missing::Stop => Ok(Step::Missing),
            Found::Nothing => {
                let dir = self.implied_dir(name)?;
                self.stack.push(dir);
                Ok(Step::Entered)
            }
        }
    }

    /// Our own tree has it, and it is no directory.
    fn step_over_other(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        let stat = at::stat(&self.top().fd, name).map_err(self.failed("reading", name))?;
        if at::file_type(&stat) == FileType::Symlink {
            let target =
                rustix::fs::readlinkat(&self.top().fd, name, Vec::new()).map_err(self.failed("reading", name))?;
            return Ok(Step::Link(target.into_bytes()));
        }
        if missing == Missing::Stop {
            return Ok(Step::Missing);
        }
        if !(self.is_overlay() && at::is_whiteout(&stat)) {
            return Err(self.not_a_directory(name));
        }
        rustix::fs::unlinkat(self.here(), name, rustix::fs::AtFlags::empty()).map_err(self.failed("removing", name))?;
        self.usage.whiteouts_removed(1);
        let dir = self.implied_dir(name)?;
        self.make_opaque(&dir.fd)
            .map_err(self.failed("marking as opaque", name))?;
        self.stack.push(dir);
        Ok(Step::Entered)
    }

    fn not_a_directory(&self, name: &[u8]) -> Error {
        invalid(
            &self.path_of_name(name),
            "something is to be put below it, but it is not a directory",
        )
    }

    /// Puts an existing directory on the stack.
    fn push(&mut self, name: Vec<u8>, fd: OwnedFd, locked: Option<Mode>) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).map_err(at::failed("reading a directory of", &self.root))?;
        let dir = Dir::existing(name, fd, &stat, locked, self.bound_by_modes)
            .map_err(at::failed("opening a directory of", &self.root))?;
        self.stack.push(dir);
        Ok(())
    }

    /// A directory that the layer takes for granted and nobody described: 0755 and the caller's, as containerd makes it.
    fn implied_dir(&mut self, name: &[u8]) -> Result<Dir> {
        let dir = self.make_dir(name)?;
        rustix::fs::fchmod(&dir.fd, Mode::from_raw_mode(0o755)).map_err(self.failed("setting the mode of", name))?;
        Ok(dir)
    }

    /// A directory of the lower layers, made here with the metadata that it has there.
    fn copy_up_dir(&mut self, name: &[u8], layers: Vec<Layer>) -> Result<Dir> {
        let (stat, xattrs) = self.lower_dir(name, layers[0])?;
        let mut dir = self.make_dir(name)?;
        if self.ownership == Ownership::Keep {
            let (uid, gid) = at::owner(&stat);
            rustix::fs::fchown(&dir.fd, uid, gid).map_err(self.failed("setting the owner of", name))?;
        }
        at::set_xattrs_of(&dir.fd, &xattrs).map_err(self.failed("setting attributes of", name))?;
        dir.set_mode(Mode::from_raw_mode(stat.st_mode), self.bound_by_modes)
            .map_err(self.failed("setting the mode of", name))?;
        dir.layers = Some(layers);
        dir.set_mtime(at::mtime(&stat).last_modification);
        Ok(dir)
    }

    /// Metadata of directory `name` in a lower layer.
    pub(super) fn lower_dir(&self, name: &[u8], layer: Layer) -> Result<(Stat, super::Xattrs)> {
        let (dir, last) = self.lowers().parent(layer, &self.path_of_name(name))?;
        let stat = at::stat(&dir, &last).map_err(self.failed("reading the lower directory of", name))?;
        let xattrs = at::xattrs(dir.as_fd(), &last).map_err(self.failed("reading the attributes below", name))?;
        Ok((stat, xattrs))
    }

    /// Makes directory `name`, for nobody but the caller yet, and opens it.
    pub(super) fn make_dir(&mut self, name: &[u8]) -> Result<Dir> {
        rustix::fs::mkdirat(self.here(), name, Mode::RWXU).map_err(self.failed("creating", name))?;
        self.usage.made();
        let fd = at::open_dir(&self.top().fd, name).map_err(self.failed("opening", name))?;
        Ok(Dir::new(name.to_vec(), fd))
    }

    pub(super) fn lowers(&self) -> &Lowers {
        self.lowers.as_ref().expect("only an overlay finds something below")
    }

    /// What the lower layers show under `name`.
    pub(super) fn find_below(&mut self, name: &[u8]) -> Result<Found> {
        let layers = self.layers_of(self.stack.len() - 1)?;
        if layers.is_empty() {
            return Ok(Found::Nothing);
        }
        self.lowers().find(&layers, &self.path_of_name(name))
    }

    /// The lower directories that the directory entered last is merged from.
    pub(super) fn layers_here(&mut self) -> Result<Vec<Layer>> {
        self.layers_of(self.stack.len() - 1)
    }

    fn layers_of(&mut self, depth: usize) -> Result<Vec<Layer>> {
        if let Some(layers) = &self.stack[depth].layers {
            return Ok(layers.clone());
        }
        // Only the root has no parent, and its layers are known from the start.
        let above = self.layers_of(depth - 1)?;
        let layers = if above.is_empty() {
            Vec::new()
        } else {
            let path = self.path_of(depth);
            let opaque = self.lowers().is_opaque(&self.stack[depth].fd);
            if opaque.map_err(at::failed("reading", self.root.join(super::os(&path))))? {
                Vec::new()
            } else {
                match self.lowers().find(&above, &path)? {
                    Found::Directory(layers) => layers,
                    Found::Nothing | Found::Other(..) => Vec::new(),
                }
            }
        };
        self.stack[depth].layers = Some(layers.clone());
        Ok(layers)
    }

    /// The directory entered last shows nothing of the lower layers from now on.
    pub(super) fn cut_off_here(&mut self) {
        self.top_mut().layers = Some(Vec::new());
    }

    /// Marks a directory as hiding what the lower layers have.
    pub(super) fn make_opaque(&self, dir: impl AsFd) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(dir, self.opaque, b"y", rustix::fs::XattrFlags::empty())
    }

    /// Puts another description of the root in the place of the one on the stack, which has only the root on it.
    pub(super) fn replace_root(&mut self, mut root: Dir) {
        root.layers = self.stack[0].layers.take();
        root.counted = self.stack[0].counted;
        self.stack[0] = root;
    }

    pub(super) fn bound_by_modes(&self) -> bool {
        self.bound_by_modes
    }

    /// Removes `name` in the directory entered last, and all that is in it.
    pub(super) fn discard(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        self.usage.about_to_remove(&self.stack[self.stack.len() - 1].fd, name);
        remove_all(self.here(), name)
    }

    /// Counts `name`, which was made in the directory entered last.
    pub(super) fn count(&mut self, name: &[u8]) -> Result<()> {
        let stat = at::stat(&self.top().fd, name).map_err(self.failed("reading", name))?;
        self.usage.made_as(&stat);
        Ok(())
    }

    /// Notes that this layer made or changed `name` in the directory entered last.
    pub(super) fn mark(&mut self, name: &[u8]) {
        if self.mine.is_some() || !self.brought.is_empty() {
            let path = self.path_of_name(name);
            self.mark_path(&path);
        }
    }

    /// Notes that this layer has the directory entered last.
    pub(super) fn mark_here(&mut self) {
        let path = self.path_here();
        self.mark_path(&path);
    }

    fn mark_path(&mut self, path: &[u8]) {
        if let Some(mine) = &mut self.mine {
            mine.add_with_parents(path);
        }
        let mut rest = path;
        while !self.brought.is_empty() && !rest.is_empty() {
            self.brought.remove(rest);
            rest = super::path::split(rest).0;
        }
    }

    /// Whether `path` is of this layer, rather than of what was there before it.
    pub(super) fn is_mine(&self, path: &[u8]) -> bool {
        match &self.mine {
            Some(mine) => mine.contains(path),
            None => !self.brought.contains(path),
        }
    }
}

impl Dir {
    /// A directory just made.
    pub(super) fn new(name: Vec<u8>, fd: OwnedFd) -> Self {
        Self {
            fd,
            name,
            mtime: None,
            touched: false,
            counted: 0,
            mode: None,
            layers: Some(Vec::new()),
        }
    }

    /// One that was there: it gets its time back when it is left, and its mode if we must change that to work in it.
    pub(super) fn existing(
        name: Vec<u8>,
        fd: OwnedFd,
        stat: &Stat,
        locked: Option<Mode>,
        bound_by_modes: bool,
    ) -> rustix::io::Result<Self> {
        let mut dir = Self::new(name, fd);
        dir.layers = None;
        dir.counted = usage::bytes(stat);
        dir.mtime = Some(at::mtime(stat).last_modification);
        let mode = locked.unwrap_or(Mode::from_raw_mode(stat.st_mode));
        if bound_by_modes && !mode.contains(Mode::RWXU) {
            dir.set_mode(mode, bound_by_modes)?;
        }
        Ok(dir)
    }

    /// Sets the mode, for its owner's work in it only when it is left.
    pub(super) fn set_mode(&mut self, mode: Mode, bound_by_modes: bool) -> rustix::io::Result<()> {
        self.mode = None;
        if bound_by_modes && !mode.contains(Mode::RWXU) {
            self.mode = Some(mode);
            return rustix::fs::fchmod(&self.fd, mode | Mode::RWXU);
        }
        rustix::fs::fchmod(&self.fd, mode)
    }

    /// Sets the time that it gets when it is left.
    pub(super) fn set_mtime(&mut self, mtime: Timespec) {
        self.mtime = Some(mtime);
        self.touched = true;
    }

    pub(super) fn set_layers(&mut self, layers: Vec<Layer>) {
        self.layers = Some(layers);
    }

    /// Gives it its mode and time, and tells how many bytes it takes.
    fn leave(self) -> rustix::io::Result<u64> {
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(&self.fd, mode)?;
        }
        let Some(mtime) = self.mtime.filter(|_| self.touched) else {
            return match self.touched {
                true => Ok(usage::bytes(&rustix::fs::fstat(&self.fd)?)),
                false => Ok(self.counted),
            };
        };
        rustix::fs::futimens(&self.fd, &at::mtime_of(mtime))?;
        Ok(usage::bytes(&rustix::fs::fstat(&self.fd)?))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
}
