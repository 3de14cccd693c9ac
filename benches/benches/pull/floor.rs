//! What two processors need at least: to inflate, to hash twice and to create the files. Nothing is checked, nothing is fetched, nothing is durable.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use sha2::{Digest, Sha256};

use crate::measure::{Took, clock};

/// Bytes that go by at once.
const PIECE: usize = 256 * 1024;

/// In a process of its own, as the others.
pub(crate) fn take(folder: &Path, layers: &[PathBuf]) -> Took {
    Took::by(|| {
        let mut command = Command::new("/proc/self/exe");
        command.arg("floor").arg(folder).args(layers);
        let output = command.output().expect("this program starts again");
        let text = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        (text.trim().parse().unwrap_or_else(|_| panic!("{why}")), 0.0)
    })
}

/// In that process: two threads take a layer each, the largest first.
pub(crate) fn run(target: &Path, layers: &[&str]) {
    let mut queue: Vec<(u64, &str)> = layers
        .iter()
        .map(|layer| (std::fs::metadata(layer).expect("the layer").len(), *layer))
        .collect();
    queue.sort_unstable();
    let queue = Mutex::new(queue);
    let next = || queue.lock().expect("nobody panics").pop();
    let wall = clock(|| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((size, layer)) = next() {
                        unpack(layer, &target.join(size.to_string())).expect("it unpacks");
                    }
                });
            }
        });
    });
    println!("{wall}");
}

fn unpack(layer: &str, target: &Path) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    let packed = BufReader::with_capacity(PIECE, Hashed::new(File::open(layer)?));
    let plain = flate2::bufread::MultiGzDecoder::new(packed);
    let plain = BufReader::with_capacity(PIECE, Hashed::new(plain));
    let mut archive = tar::Archive::new(plain);
    let mut buf = vec![0; PIECE];
    for entry in archive.entries()? {
        put(&mut entry?, target, &mut buf)?;
    }
    // The rest of the two streams, for the hashes.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn put(entry: &mut tar::Entry<'_, impl Read>, target: &Path, buf: &mut [u8]) -> io::Result<()> {
    let path = target.join(entry.path()?);
    let header = entry.header();
    let mode = Mode::from_raw_mode(header.mode()?);
    let (uid, gid) = (Uid::from_raw(header.uid()? as u32), Gid::from_raw(header.gid()? as u32));
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: header.mtime()? as i64,
            tv_nsec: 0,
        },
    };
    match header.entry_type() {
        tar::EntryType::Directory => std::fs::create_dir_all(&path),
        tar::EntryType::Symlink => {
            let link = entry.link_name()?.expect("a link has a target");
            std::os::unix::fs::symlink(link, &path)?;
            let here = rustix::fs::CWD;
            Ok(rustix::fs::utimensat(here, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        _ => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, mode)?;
            loop {
                let len = entry.read(buf)?;
                if len == 0 {
                    break;
                }
                let written = rustix::io::write(&file, &buf[..len])?;
                assert_eq!(written, len, "a file takes what it is given");
            }
            if !uid.is_root() {
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            Ok(rustix::fs::futimens(&file, &times)?)
        }
    }
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hash.update(&buf[..len]);
        Ok(len)
    }
}

impl<R> Drop for Hashed<R> {
    fn drop(&mut self) {
        // So that the hash is one that somebody wants.
        std::hint::black_box(self.hash.finalize_reset());
    }
}
