use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The hold of one process on a database: a lock on the file beside it, which says who holds it.
///
/// redb locks its own file too, but can't tell by whom. The kernel drops the lock with the process, so what a dead one left in the file is harmless.
#[derive(Debug)]
#[must_use = "the lock ends with the guard"]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(database: &Path) -> Result<Self> {
        let path = lock_path(database);
        let io = |action| {
            let path = path.clone();
            move |source: std::io::Error| Error::Io {
                action,
                path,
                source: source.into(),
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("opening the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: database.into(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("locking")(source)),
        }
        let write = |mut file: &File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&file).map_err(io("writing the lock file"))?;
        Ok(Self { _file: file })
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Who wrote the lock file: `pid 17, longshored`. `None` when it was caught before it did.
fn holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => Some(format!("pid {pid}, {}", name.trim())),
        Err(_) => Some(format!("pid {pid}")),
    }
}
