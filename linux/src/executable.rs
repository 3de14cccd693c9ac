//! What `/proc/self/exe` leads to, and exchanging it: a process that is a copy of another can let go of that one's file.

use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create, openat, readlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount_attr::{AttrChange, Depth, MountAttr, mount_setattr};
use crate::procfs::read_procfs;
use crate::raw::syscall;

/// A part of the program's file in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    length: usize,
    /// Where in the file.
    offset: u64,
    protection: i32,
    /// Whether memory has been written here, so that the file has something else.
    changed: bool,
}

/// The kernel's `struct prctl_mm_map` (prctl(2), `PR_SET_MM_MAP`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// From how many bytes on a mount costs less than a copy in memory.
const LARGE: usize = 8 << 20;

/// How many copies of this process a preparation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copies {
    /// Some: what the others need again is not made for each.
    Many,
    /// One, or a few: what costs much to take down is not made.
    Few,
}

/// What it takes for a copy of this process to let go of the program's file, so that nobody who gets hold of the copy can execute or open
/// it by `/proc/PID/exe`: there will be an empty file that can't be written.
///
/// The kernel allows it to a process in whose memory the file is mapped no more. So each part of the program is mapped again, in the same
/// place, through another mount of the same file; only what has been written since the program started is copied.
#[derive(Debug)]
pub struct SealedExecutable {
    /// What `/proc/self/exe` will be.
    empty: OwnedFd,
    path: CString,
    identity: (u64, u64),
    /// The file through a read-only mount that is in no namespace, and that mount.
    elsewhere: Option<(OwnedFd, OwnedFd)>,
    parts: Box<[Part]>,
    map: MemoryMap,
}

impl SealedExecutable {
    /// Prepares it. Nothing of this process changes.
    ///
    /// # Errors
    /// `ENODATA` when procfs does not tell what it should, and those of memfd_create(2).
    pub fn of_this_program(copies: Copies) -> Result<Self, Errno> {
        let executable = openat(CWD, c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&executable)?;
        let parts = read_parts(stat.st_ino).filter(|p| !p.is_empty()).ok_or(Errno::NODATA)?;
        let size: usize = parts.iter().filter(|p| !p.changed).map(|p| p.length).sum();
        let numbers = String::from_utf8(read_procfs("/proc/self/stat")?).map_err(|_| Errno::NODATA)?;
        Ok(Self {
            empty: empty_file()?,
            path: readlinkat(CWD, c"/proc/self/exe", Vec::new())?,
            identity: (stat.st_dev, stat.st_ino),
            // Taking the mount down makes somebody wait for all CPUs, which takes as long as to copy a few megabytes.
            elsewhere: (copies == Copies::Many || size > LARGE)
                .then(|| read_only(&executable).ok())
                .flatten(),
            parts,
            map: map(&numbers).ok_or(Errno::NODATA)?,
        })
    }

    /// The program's file, as device and inode (stat(2)).
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Lets go of the file, in a copy of the process that prepared it. Async-signal-safe.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE` in the caller's user namespace or, on a kernel without
    /// `CONFIG_CHECKPOINT_RESTORE`, without `CAP_SYS_RESOURCE` in the first one. The process goes on as it was, but for the memory it takes.
    ///
    /// # Safety
    /// The caller is a copy of the process that prepared it (`fork`, or clone without `CLONE_VM`), has one thread, and has changed no
    /// protection of the program's own memory since.
    pub unsafe fn take_effect(&self) -> Result<(), Errno> {
        // In a mount namespace of its own the file is on another mount there by its own path.
        let opened = match &self.elsewhere {
            Some(_) => None,
            None => self.open_by_path(),
        };
        let file = self.elsewhere.as_ref().map(|(file, _)| file).or(opened.as_ref());
        if let Some(file) = file {
            // SAFETY: the caller's promise is passed on.
            match unsafe { self.replace_all(Some(file)) }.and_then(|()| self.exchange()) {
                Err(Errno::BUSY) => {}
                done => return done,
            }
        }
        // Without one it is on the same mount, and another has to be made: a copy of all of it would cost as much as the rest of a start.
        if let Some(apart) = self.elsewhere.is_none().then(|| self.open_apart()).flatten() {
            // SAFETY: the caller's promise is passed on.
            match unsafe { self.replace_unchanged(&apart) }.and_then(|()| self.exchange()) {
                Err(Errno::BUSY) => {}
                done => return done,
            }
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.replace_all(None) }?;
        self.exchange()
    }

    /// The file through a read-only mount that is this process's alone, and gone when nothing of it is mapped any more.
    fn open_apart(&self) -> Option<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, self.path.as_c_str(), flags).ok()?;
        let read_only = AttrChange {
            set: MountAttr::RDONLY,
            ..AttrChange::default()
        };
        mount_setattr(&tree, c"", Depth::Mount, read_only).ok()?;
        let mut path = [0u8; 32];
        // Numbers are written without allocating.
        write!(&mut path[..], "/proc/self/fd/{}\0", tree.as_raw_fd()).ok()?;
        let path = CStr::from_bytes_until_nul(&path).ok()?;
        let file = openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        self.is_the_program(&file).then_some(file)
    }

    fn is_the_program(&self, file: &OwnedFd) -> bool {
        fstat(file).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity)
    }

    fn open_by_path(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(CWD, self.path.as_c_str(), flags, Mode::empty()).ok()?;
        self.is_the_program(&file).then_some(file)
    }

    /// # Safety
    /// As [`take_effect`](Self::take_effect); the file is the program's.
    unsafe fn replace_all(&self, file: Option<&OwnedFd>) -> Result<(), Errno> {
        for part in &self.parts {
            match file.filter(|_| !part.changed) {
                // SAFETY: the caller's promise is passed on.
                Some(file) => unsafe { map_again(part, file) }?,
                // SAFETY: as above.
                None => unsafe { copy(part) }?,
            }
        }
        Ok(())
    }

    /// The same where what has been written is a copy already.
    ///
    /// # Safety
    /// As [`take_effect`](Self::take_effect); the file is the program's.
    unsafe fn replace_unchanged(&self, file: &OwnedFd) -> Result<(), Errno> {
        let mut unchanged = self.parts.iter().filter(|part| !part.changed);
        // SAFETY: the caller's promise is passed on.
        unchanged.try_for_each(|part| unsafe { map_again(part, file) })
    }

    fn exchange(&self) -> Result<(), Errno> {
        const PR_SET_MM_EXE_FILE: i32 = 13;
        const PR_SET_MM_MAP: i32 = 14;
        // SAFETY: an argument of 0 is none that the kernel takes; it answers with the present end.
        let brk = unsafe { syscall!(libc::SYS_brk, 0) }?;
        let map = MemoryMap {
            brk,
            exe_fd: self.empty.as_raw_fd() as u32,
            ..self.map
        };
        let size = size_of::<MemoryMap>();
        // SAFETY: the structure has the size that is passed and outlives the call; all of it but the file is as it was.
        match unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, 0) } {
            // A kernel that can't checkpoint has this one, for those with CAP_SYS_RESOURCE.
            Err(Errno::INVAL) => {
                let fd = self.empty.as_raw_fd();
                // SAFETY: no memory is passed.
                unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_MM, PR_SET_MM_EXE_FILE, fd, 0, 0) }.map(drop)
            }
            done => done.map(drop),
        }
    }
}

/// A file that is executable, empty, and stays so.
fn empty_file() -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// The file through a mount of its own that is read-only and in no namespace.
fn read_only(executable: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(executable, c"", flags)?;
    let read_only = AttrChange {
        set: MountAttr::RDONLY,
        ..AttrChange::default()
    };
    mount_setattr(&tree, c"", Depth::Mount, read_only)?;
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let file = openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((file, tree))
}

/// Maps the same bytes of the same file in the same place.
///
/// # Safety
/// As [`SealedExecutable::take_effect`]; the file is the program's, and nothing has been written to the part.
unsafe fn map_again(part: &Part, file: &OwnedFd) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let (fd, place) = (file.as_raw_fd(), part.start as *mut libc::c_void);
    // SAFETY: the same bytes, with the same protection, take the place of themselves in one step.
    unsafe {
        syscall!(
            libc::SYS_mmap,
            place,
            part.length,
            part.protection,
            flags,
            fd,
            part.offset
        )
    }?;
    Ok(())
}

/// Puts a copy of the part's bytes in its place.
///
/// # Safety
/// As [`SealedExecutable::take_effect`].
unsafe fn copy(part: &Part) -> Result<(), Errno> {
    let place = part.start as *mut libc::c_void;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    // All of it is written at once: without a fault for each page.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: new memory, wherever there is room.
    let copy = unsafe { syscall!(libc::SYS_mmap, 0, part.length, writable, flags, -1, 0) }?;
    // SAFETY: both are as long; all parts can be read, and nobody writes to this one meanwhile: there is one thread, which is here.
    unsafe { std::ptr::copy_nonoverlapping(place.cast::<u8>(), copy as *mut u8, part.length) };
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the new memory is ours; the move puts the same bytes into the place of themselves in one step.
    unsafe {
        syscall!(libc::SYS_mprotect, copy, part.length, part.protection)?;
        syscall!(libc::SYS_mremap, copy, part.length, part.length, flags, place)?;
    }
    Ok(())
}

/// Reads as much of proc_pid_smaps(5) as it takes: the program's parts are together, and what comes after them may be large.
fn read_parts(inode: u64) -> Option<Box<[Part]>> {
    let maps = String::from_utf8(read_procfs("/proc/self/maps").ok()?).ok()?;
    let is_part = |line: &&str| line.split_ascii_whitespace().nth(4).and_then(|i| i.parse().ok()) == Some(inode);
    let count = maps.lines().filter(is_part).count();
    let file = std::io::BufReader::with_capacity(4096, std::fs::File::open("/proc/self/smaps").ok()?);
    let (mut text, mut found) = (String::new(), 0);
    for line in std::io::BufRead::lines(file) {
        let line = line.ok()?;
        found += usize::from(is_part(&line.as_str()));
        let last = found == count && line.starts_with("Anonymous:");
        text.push_str(&line);
        text.push('\n');
        if last {
            break;
        }
    }
    parts(&text, inode).filter(|parts| parts.len() == count)
}

/// The parts of a file in proc_pid_smaps(5); none when one of them can't be exchanged.
fn parts(maps: &str, inode: u64) -> Option<Box<[Part]>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut inside = false;
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [range, protection, offset, _, file, ..] if range.contains('-') && !range.ends_with(':') => {
                inside = file.parse() == Ok(inode);
                if inside {
                    parts.push(part(range, protection, offset)?);
                }
            }
            ["Anonymous:", size, ..] if inside && size != "0" => parts.last_mut()?.changed = true,
            _ => {}
        }
    }
    Some(parts.into())
}

fn part(range: &str, protection: &str, offset: &str) -> Option<Part> {
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    let bytes = protection.as_bytes();
    let bit = |i: usize, letter, bit| if bytes.get(i) == Some(&letter) { bit } else { 0 };
    let protection = bit(0, b'r', libc::PROT_READ) | bit(1, b'w', libc::PROT_WRITE) | bit(2, b'x', libc::PROT_EXEC);
    // Shared memory, and what can't be read, is nothing that a linker makes of a program.
    let usual = bytes.get(3) == Some(&b'p') && protection & libc::PROT_READ != 0;
    usual.then_some(Part {
        start,
        length,
        offset: u64::from_str_radix(offset, 16).ok()?,
        protection,
        changed: protection & libc::PROT_WRITE != 0,
    })
}

/// The fields of proc_pid_stat(5) that the kernel wants back.
fn map(stat: &str) -> Option<MemoryMap> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // The field after the name is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(MemoryMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        ..MemoryMap::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555a0e000000-555a0e001000 r--p 00000000 fe:00 77                   /bin/p
Anonymous:             0 kB
555a0e001000-555a0e002000 r-xp 00001000 fe:00 77                   /bin/p
Anonymous:             0 kB
555a0e003000-555a0e004000 r--p 00002000 fe:00 77                   /bin/p
Size:                  4 kB
Anonymous:             4 kB
555a0e004000-555a0e01d000 rw-p 00003000 fe:00 77                   /bin/p
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 78                   /lib/l
Anonymous:             4 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                    [stack]
";

    /// What a copy of this process finds as its own file after it has let go of it.
    fn as_seen_by_a_copy(copies: Copies) -> (Result<(), Errno>, (u64, u64), SealedExecutable) {
        let sealed = SealedExecutable::of_this_program(copies).expect("procfs tells");
        let (ours, theirs) = rustix::pipe::pipe().expect("a pipe");
        // SAFETY: the child calls only what is async-signal-safe.
        match unsafe { crate::clone3(crate::CloneOptions::default()) }.expect("a copy") {
            crate::Cloned::Child => {
                // SAFETY: this is the copy, with one thread.
                let done = unsafe { sealed.take_effect() };
                let stat = rustix::fs::stat(c"/proc/self/exe");
                let words = match (done, stat) {
                    (Err(errno), _) | (Ok(()), Err(errno)) => [errno.raw_os_error() as u64, 0, 0],
                    (Ok(()), Ok(stat)) => [0, stat.st_dev, stat.st_ino],
                };
                let mut bytes = [0u8; 24];
                for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                    to.copy_from_slice(&word.to_ne_bytes());
                }
                let _ = rustix::io::write(&theirs, &bytes);
                crate::exit_now(0)
            }
            crate::Cloned::Parent { pidfd, .. } => {
                drop(theirs);
                let mut bytes = [0u8; 24];
                let length = rustix::io::read(&ours, &mut bytes).expect("readable");
                let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut poll, None).expect("it ends");
                crate::reap(&pidfd).expect("a child");
                assert_eq!(length, 24, "the copy did not survive it");
                let word = |i: usize| u64::from_ne_bytes(bytes[i * 8..][..8].try_into().expect("eight"));
                let done = match word(0) {
                    0 => Ok(()),
                    errno => Err(Errno::from_raw_os_error(errno as i32)),
                };
                (done, (word(1), word(2)), sealed)
            }
        }
    }

    #[test]
    fn a_copy_lets_go_of_the_programs_file() {
        for copies in [Copies::Many, Copies::Few] {
            let (done, identity, sealed) = as_seen_by_a_copy(copies);
            match done {
                Err(Errno::PERM | Errno::INVAL) => {
                    return longshore_testing::skip("needs CAP_SYS_ADMIN and a kernel with CONFIG_CHECKPOINT_RESTORE");
                }
                done => done.expect("it can be exchanged"),
            }
            let empty = fstat(&sealed.empty).expect("it is open");
            assert_eq!(identity, (empty.st_dev, empty.st_ino), "{copies:?}");
            let own = rustix::fs::stat(c"/proc/self/exe").expect("it is there");
            assert_eq!(sealed.identity(), (own.st_dev, own.st_ino), "this process is as it was");
        }
    }

    #[test]
    fn the_parts_of_the_program_are_found_and_what_was_written() {
        let parts = parts(SMAPS, 77).expect("they are usual");
        let read: Vec<_> = parts
            .iter()
            .map(|p| (p.length, p.offset, p.protection, p.changed))
            .collect();
        assert_eq!(
            read,
            [
                (0x1000, 0, 1, false),
                (0x1000, 0x1000, 5, false),
                (0x1000, 0x2000, 1, true),
                (0x19000, 0x3000, 3, true),
            ]
        );
        assert!(super::parts(&SMAPS.replace("rw-p 00003000", "rw-s 00003000"), 77).is_none());
        assert!(super::parts(&SMAPS.replace("r-xp 00001000", "--xp 00001000"), 77).is_none());
    }
}
