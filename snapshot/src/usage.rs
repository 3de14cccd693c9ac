use std::collections::HashSet;
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

fn add(usage: &mut Usage, stat: &Stat) {
    usage.inodes += 1;
    // st_blocks counts units of 512 bytes, whatever the block size.
    usage.bytes += stat.st_blocks as u64 * 512;
}
