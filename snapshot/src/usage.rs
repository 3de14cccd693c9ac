use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::{Usage, at};

/// Counts what directory `name` in `dir` takes on disk, itself included; a file with several hard links once.
///
/// Files that come and go meanwhile are counted or not.
pub(crate) fn count(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let top = match at::open_dir(dir, name) {
        Err(Errno::NOENT) => return Ok(usage),
        top => top?,
    };
    add(&mut usage, &rustix::fs::fstat(&top)?);
    let names = at::list(&top)?;
    let mut open = vec![(top, names)];
    while let Some((dir, names)) = open.last_mut() {
        let Some((name, _)) = names.pop() else {
            open.pop();
            continue;
        };
        let stat = match at::stat(&*dir, &name) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let is_dir = at::file_type(&stat) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        add(&mut usage, &stat);
        if is_dir {
            match at::open_dir(&*dir, &name) {
                Ok(inner) => {
                    let names = at::list(&inner)?;
                    open.push((inner, names));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(usage)
}

/// Counts what would be freed if `name` in `dir` were removed with all that is in it: of a file with several hard links nothing while one stays.
pub(crate) fn freed(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Usage> {
    let mut usage = Usage::default();
    let mut links: HashMap<(u64, u64), u64> = HashMap::new();
    let mut todo = vec![(rustix::io::fcntl_dupfd_cloexec(dir, 0)?, vec![name.to_vec()])];
    while let Some((dir, names)) = todo.last_mut() {
        let Some(name) = names.pop() else {
            todo.pop();
            continue;
        };
        let stat = at::stat(&*dir, &name)?;
        if at::file_type(&stat) == FileType::Directory {
            let inner = at::open_dir(&*dir, &name)?;
            let names = at::list(&inner)?.into_iter().map(|(name, _)| name).collect();
            todo.push((inner, names));
        } else if stat.st_nlink > 1 {
            let seen = links.entry((stat.st_dev, stat.st_ino)).or_default();
            *seen += 1;
            if *seen < stat.st_nlink as u64 {
                continue;
            }
        }
        add(&mut usage, &stat);
    }
    Ok(usage)
}

/// Bytes on disk.
pub(crate) fn bytes(stat: &Stat) -> u64 {
    // st_blocks counts units of 512 bytes, whatever the block size.
    stat.st_blocks as u64 * 512
}

fn add(usage: &mut Usage, stat: &Stat) {
    usage.inodes += 1;
    usage.bytes += bytes(stat);
}
