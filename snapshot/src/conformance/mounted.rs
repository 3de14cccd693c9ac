use std::os::fd::{AsFd, OwnedFd};

use longshore_linux::Mount;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::at;
use crate::remove::remove_all;

/// A snapshot mounted nowhere: a descriptor of a mount that is in no mount table and gone when it is closed.
#[derive(Debug)]
pub struct Mounted(OwnedFd);

type Answer<T> = rustix::io::Result<T>;

impl Mounted {
    /// Mounts what a snapshotter returned. Needs root (or `CAP_SYS_ADMIN` in a user namespace) for an overlay mount.
    ///
    /// # Panics
    /// When it is not one bind or overlay mount, or the kernel refuses it.
    pub fn new(mounts: &[Mount]) -> Self {
        let [mount] = mounts else {
            panic!("one mount expected: {mounts:?}")
        };
        match mount.fs_type.as_str() {
            "bind" => {
                Self(rustix::fs::openat(CWD, &mount.source, at::DIRECTORY, Mode::empty()).expect("opening the source"))
            }
            "overlay" => Self(overlay(mount).unwrap_or_else(|errno| panic!("mounting {mount:?}: {errno}"))),
            other => panic!("the suite can't mount '{other}'"),
        }
    }

    /// The root directory.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// A path by which std can reach a file in it.
    pub fn path(&self, inner: &str) -> std::path::PathBuf {
        String::from_utf8(at::proc_path(self.0.as_fd(), inner.as_bytes()))
            .expect("both are UTF-8")
            .into()
    }

    /// Writes a file.
    pub fn write(&self, path: &str, content: &str) {
        std::fs::write(self.path(path), content).unwrap_or_else(|error| panic!("writing {path}: {error}"));
    }

    /// What is in a file; `None` if there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// Makes a directory.
    pub fn mkdir(&self, path: &str, mode: u32) {
        let made = rustix::fs::mkdirat(&self.0, path, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::fs::chmodat(&self.0, path, Mode::from_raw_mode(mode), AtFlags::empty()));
        made.unwrap_or_else(|errno| panic!("making {path}: {errno}"));
    }

    /// Removes a file or a tree.
    pub fn remove(&self, path: &str) {
        remove_all(&self.0, path.as_bytes()).unwrap_or_else(|errno| panic!("removing {path}: {errno}"));
    }

    /// Renames.
    pub fn rename(&self, from: &str, to: &str) -> Answer<()> {
        rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::empty())
    }

    /// Changes the owner.
    pub fn chown(&self, path: &str, uid: u32, gid: u32) {
        let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&self.0, path, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)
            .unwrap_or_else(|errno| panic!("chown {path}: {errno}"));
    }

    /// Changes the mode.
    pub fn chmod(&self, path: &str, mode: u32) {
        rustix::fs::chmodat(&self.0, path, Mode::from_raw_mode(mode), AtFlags::empty())
            .unwrap_or_else(|errno| panic!("chmod {path}: {errno}"));
    }

    /// Permission bits and owner; `None` if there is no such file.
    pub fn stat(&self, path: &str) -> Option<(u32, u32, u32)> {
        match at::stat(&self.0, path.as_bytes()) {
            Ok(stat) => Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)),
            Err(Errno::NOENT) => None,
            Err(errno) => panic!("stat {path}: {errno}"),
        }
    }

    /// All names below the root, sorted; directories end in a slash.
    pub fn names(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            let fd = rustix::fs::openat(
                &self.0,
                if dir.is_empty() { "." } else { &dir },
                at::DIRECTORY,
                Mode::empty(),
            );
            for (name, _) in at::list(fd.expect("opening a directory")).expect("listing") {
                let path = format!("{dir}{}", name.escape_ascii());
                let stat = at::stat(&self.0, path.as_bytes()).expect("stat of a listed file");
                if at::file_type(&stat) == FileType::Directory {
                    todo.push(format!("{path}/"));
                    found.push(format!("{path}/"));
                } else {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Whether writing is refused by the mount.
    pub fn refuses_writes(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.0, "write-test", flags, Mode::RUSR);
        matches!(made, Err(Errno::ROFS))
    }
}

fn overlay(mount: &Mount) -> Answer<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut attributes = MountAttrFlags::empty();
    for option in &mount.options {
        match option.split_once('=') {
            None if option == "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            None => rustix::mount::fsconfig_set_flag(&fs, option)?,
            // The kernel takes values of up to 255 bytes; `lowerdir+` (Linux 6.7) takes one directory at a time.
            Some(("lowerdir", dirs)) => {
                for dir in dirs.split(':') {
                    rustix::mount::fsconfig_set_string(&fs, "lowerdir+", dir)?;
                }
            }
            Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value)?,
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
