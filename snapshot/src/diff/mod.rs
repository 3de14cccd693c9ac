//! Making a layer out of what changed in a snapshot.

mod compare;
mod compress;
mod content;
mod found;
mod header;
mod options;
mod sides;
mod snapshot;
mod upper;
mod write;

use std::io::Write;
use std::path::{Path, PathBuf};

use longshore_linux::Mount;
use rustix::fs::Stat;
use rustix::io::Errno;

pub use self::compress::Compressor;
pub use self::options::{Change, ChangeKind, DiffOptions, Diffed, LeftOut};
pub use self::snapshot::{diff_snapshot, snapshot_changes};

use self::compare::Comparison;
use self::found::{Found, What};
use self::sides::Sides;
use self::upper::Upper;
use self::write::Writer;
use crate::{Error, Result, at};

/// Writes what changed between a snapshot's parent and the snapshot as a layer: an uncompressed tar archive.
///
/// `parent` are the mounts of a [`view`](crate::Snapshotter::view) of the parent, empty for a snapshot on nothing. For an overlay mount with an upper
/// directory it may be empty too: that says itself what is below. [`diff_snapshot`] does all that for a snapshot's key.
///
/// Blocks: call it from a thread of its own. Nothing is mounted.
///
/// - *Overlay*: only the topmost directory is read, so the time follows the changes and not the tree. Its whiteouts become `.wh.name`, its opaque directories get a
///   `.wh..wh..opq` where there is something to hide.
/// - *Copies* (native): the two trees are compared, files that seem the same by their content as well.
/// - *Reproducible*: the same tree gives the same bytes. Entries are sorted, numeric owners only, no times but the modification time (see
///   [`DiffOptions::latest`]), extended attributes sorted.
/// - *Whole*: owners, modes, times to the nanosecond, extended attributes, hard links, devices, FIFOs, holes of large files (PAX 1.0), names of any bytes. Directories on
///   the way to a change are entries, and so are all names of a file when one of them changed: unpackers need not see the layers below.
/// - *Left out*, and counted: sockets, names that begin with `.wh.`, devices 0:0. Of attributes, overlay's own and SELinux's label are not written.
///
/// The tree may change meanwhile (pause the container to have a moment of it): files that go are left out, a file that becomes shorter is filled with zeros.
/// Whoever writes to the tree has no means to show other files than its own: every file is opened by its name in the descriptor of its directory, no
/// symbolic link is followed, and no device or FIFO is ever opened.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) when the mounts are not one snapshot apart, or hold what no layer can, and what the system and `out` answer. What was
/// written then is no layer.
///
/// # Example
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use longshore_linux::Mount;
/// use longshore_snapshot::{DiffOptions, Ownership, diff_layer};
///
/// # let root = tempfile::tempdir()?;
/// std::fs::write(root.path().join("hello"), "world\n")?;
/// let mut layer = Vec::new();
/// let options = DiffOptions::default().ownership(Ownership::Caller);
/// let made = diff_layer(&[], &[Mount::bind(root.path())], &mut layer, &options)?;
/// assert_eq!((made.entries, made.size), (2, layer.len() as u64)); // the root and the file
/// # Ok(())
/// # }
/// ```
pub fn diff_layer(parent: &[Mount], mounts: &[Mount], out: impl Write, options: &DiffOptions) -> Result<Diffed> {
    let (root, found) = find(parent, mounts)?;
    Writer::open(&root, out, options)?.write(found)
}

/// What changed between a snapshot's parent and the snapshot, sorted, as `docker diff` tells it: a directory on the way to a change is changed, what was in a
/// removed directory is not listed. The root directory is not listed either.
///
/// Mounts as for [`diff_layer`]. Blocks.
///
/// # Errors
/// As [`diff_layer`].
///
/// # Example
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use longshore_linux::Mount;
/// use longshore_snapshot::changes;
///
/// # let root = tempfile::tempdir()?;
/// # let (old, new) = (root.path().join("old"), root.path().join("new"));
/// # for dir in [&old, &new] { std::fs::create_dir(dir)?; }
/// std::fs::write(old.join("gone"), "")?;
/// std::fs::write(new.join("here"), "")?;
/// let changes = changes(&[Mount::bind(&old)], &[Mount::bind(&new)])?;
/// let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
/// assert_eq!(lines, ["D /gone", "A /here"]);
/// # Ok(())
/// # }
/// ```
pub fn changes(parent: &[Mount], mounts: &[Mount]) -> Result<Vec<Change>> {
    let (_, found) = find(parent, mounts)?;
    let listed = found.paths.into_iter().filter(|(key, _)| !key.0.is_empty());
    Ok(listed
        .map(|(key, what)| Change {
            kind: match what {
                What::Put(kind) | What::PutOpaque(kind) => kind,
                What::Gone | What::GoneWithParent => ChangeKind::Deleted,
            },
            path: Path::new("/").join(crate::apply::os(&key.0)),
        })
        .collect())
}

/// The directory that the files are read from, and which.
fn find(parent: &[Mount], mounts: &[Mount]) -> Result<(PathBuf, Found)> {
    match Sides::of(parent, mounts)? {
        Sides::Upper { dir, lowers, marks } => {
            let found = Upper::open(&dir, &lowers, marks)?.look()?;
            Ok((dir, found))
        }
        Sides::Trees { old, new } => {
            let found = Comparison::open(&old, &new)?.look()?;
            Ok((new, found))
        }
    }
}

/// Whether a name means something else in a layer.
fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(crate::apply::path::WHITEOUT)
}

/// Whether two files are of the same type, mode and owner.
fn same_description(one: &Stat, other: &Stat) -> bool {
    (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
}

fn failed(action: &'static str, root: &Path, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
    let (full, shown) = (root.join(crate::apply::os(path)), shown(path));
    move |errno| match errno {
        Errno::NAMETOOLONG => Error::Unrepresentable {
            path: shown,
            reason: "its path is too long".to_owned(),
        },
        errno => at::failed(action, full)(errno),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
