//! The root without pivot_root(2): the old tree stays in the mount namespace, and must not show a procfs or sysfs without masks. With one,
//! a user namespace inside could mount its own (mount_namespaces(7), "Restrictions on mount namespaces"), and write to what is masked.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use longshore_linux::{Depth, Propagation};
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, move_mount, unmount};
use rustix::process::fchdir;

use super::mounts::propagate;
use super::report::{At, Call, Failure};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// How often the table is read: each time something of it was hidden, which may have hidden or shown others.
const PASSES: u32 = 64;
/// The longest line of the table that is read.
const LINE: usize = 8192;

/// Moves the root over the old one and enters it.
pub(super) fn enter_by_move(root: impl AsFd, proc: &OwnedFd) -> Result<(), Failure> {
    match move_mount(&root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
        // It lies there already.
        Ok(()) | Err(Errno::LOOP) => {}
        Err(errno) => return Err(errno).at(Call::Attach),
    }
    // Absolute paths still start at the old root, below the new one.
    let mut passes = 0;
    while hide_one_pass(proc)? {
        passes += 1;
        if passes == PASSES {
            return Err(Errno::BUSY).at(Call::HideOld);
        }
    }
    fchdir(&root).at(Call::Chdir)?;
    rustix::process::chroot(c".").at(Call::PivotRoot)?;
    rustix::process::chdir(c"/").at(Call::Chdir)
}

/// Reads the table of mounts once; whether something was hidden.
fn hide_one_pass(proc: &OwnedFd) -> Result<bool, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let table = openat(proc, c"self/mountinfo", flags, Mode::empty()).at(Call::HideOld)?;
    let mut buffer = [0u8; LINE];
    let (mut filled, mut hidden) = (0, false);
    loop {
        let free = buffer.get_mut(filled..).filter(|free| !free.is_empty());
        let free = free.ok_or(Errno::NAMETOOLONG).at(Call::HideOld)?;
        let read = match rustix::io::read(&table, free) {
            Err(Errno::INTR) => continue,
            read => read.at(Call::HideOld)?,
        };
        if read == 0 {
            return Ok(hidden);
        }
        filled += read;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|b| *b == b'\n') {
            if let Some(path) = whole_pseudo_mount(&mut buffer[start..start + length]) {
                hidden |= hide(path)?;
            }
            start += length + 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

/// The mount point in a line of mountinfo that is about the root of a procfs or sysfs (proc_pid_mountinfo(5)). It is written over the line.
fn whole_pseudo_mount(line: &mut [u8]) -> Option<&CStr> {
    let separator = line.windows(3).position(|w| w == b" - ")?;
    let fs_type = line.get(separator + 3..)?.split(|b| *b == b' ').next()?;
    if fs_type != b"proc" && fs_type != b"sysfs" {
        return None;
    }
    let mut fields = line.split(|b| *b == b' ');
    let root = fields.nth(3)?;
    let length = fields.next()?.len();
    if root != b"/" {
        return None;
    }
    let start = line
        .splitn(5, |b| *b == b' ')
        .take(4)
        .map(|field| field.len() + 1)
        .sum::<usize>();
    let (mut from, mut to) = (start, start);
    while from < start + length {
        // Some characters are a backslash and three octal digits.
        let octal = line.get(from + 1..from + 4).filter(|_| line[from] == b'\\');
        let value = octal.and_then(|digits| {
            let digit = |value: u32, d: &u8| (b'0'..=b'7').contains(d).then(|| value * 8 + u32::from(d - b'0'));
            digits.iter().try_fold(0, digit)
        });
        match value {
            Some(value) => {
                line[to] = value as u8;
                from += 4;
            }
            None => {
                line[to] = line[from];
                from += 1;
            }
        }
        to += 1;
    }
    // The line has more fields, so that there is place.
    *line.get_mut(to)? = 0;
    CStr::from_bytes_until_nul(line.get(start..)?).ok()
}

/// Takes the mount at a path of the old tree away, or covers it where that is not allowed. The same path in the container's tree is
/// not reached: the table has both.
fn hide(path: &CStr) -> Result<bool, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let shown = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(false),
        there => fstatfs(there.at(Call::HideOld)?).at(Call::HideOld)?.f_type as u64,
    };
    if shown != PROC_SUPER_MAGIC && shown != SYSFS_MAGIC {
        return Ok(false);
    }
    // What is unmounted here stays on the host.
    match propagate(path, Propagation::Slave, Depth::Tree) {
        Ok(()) => {}
        // A directory in one that is mounted further up.
        Err(Failure {
            errno: Errno::INVAL, ..
        }) => return Ok(false),
        Err(failure) => return Err(failure),
    }
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::INVAL | Errno::PERM) => {
            mount(c"tmpfs", path, c"tmpfs", MountFlags::RDONLY, None).at(Call::HideOld)?
        }
        answer => answer.at(Call::HideOld)?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_the_whole_of_a_procfs_or_sysfs_are_found() {
        for (line, expected) in [
            ("22 27 0:21 / /proc rw,relatime - proc proc rw", Some(c"/proc")),
            (
                "22 27 0:21 / /a\\040b\\134/sys rw shared:1 master:2 - sysfs x rw",
                Some(c"/a b\\/sys"),
            ),
            ("22 27 0:21 /sys /proc/sys rw - proc proc rw", None),
            ("22 27 0:21 / /dev rw - tmpfs proc rw", None),
            ("22 27 0:21 / /x\\04 rw - proc proc rw", Some(c"/x\\04")),
            ("", None),
            (" - proc", None),
        ] {
            let mut bytes = line.as_bytes().to_vec();
            assert_eq!(whole_pseudo_mount(&mut bytes), expected, "{line}");
        }
    }
}
