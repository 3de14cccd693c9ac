//! Applying image layers to a prepared snapshot.

mod ahead;
mod archive;
mod decompress;
mod hash;
pub(crate) mod lower;
mod mine;
mod options;
pub(crate) mod path;
mod put;
mod source;
mod stream;
mod tally;
mod target;
mod tree;
mod whiteout;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::thread;

use longshore_linux::Mount;

pub use self::decompress::Decompressor;
pub use self::options::{Applied, ApplyOptions, Compression, Limits, Ownership, Skipped};

use self::ahead::Ahead;
use self::archive::{Archive, Entry};
pub(crate) use self::hash::Hash;
use self::path::Subject;
use self::stream::Stream;
use self::target::Target;
use self::tree::Tree;
use crate::{Error, Result};

/// Extended attributes: names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Unpacks a layer into the snapshot that `mounts` (from [`prepare`](crate::Snapshotter::prepare)) describe. Mounts nothing: it works on the
/// directory of a bind mount, or on the upper directory of an overlay mount, writing what overlay would have written.
///
/// Blocks: call it from a thread of its own. The layer is read once, to its last byte, and memory does not grow with it, save for a
/// directory that was not empty before, where 16 bytes are kept of each path. Reading and inflating go on ahead of the files, on a second thread that ends before
/// this returns: after an error, when the read that it is in has returned.
///
/// - *Whiteouts* (`.wh.name`, `.wh..wh..opq`) hide what was there before the layer, and never what is in it, in whatever order they come. In a plain
///   directory that is removed; in an overlay it becomes a device 0:0 or an opaque directory.
/// - *Paths*: absolute ones start at the root. Symbolic links in the middle of one are followed as the container would, inside the
///   root. One whose `..` leaves the root is an error.
/// - *Replacing*: a later entry takes the place of an earlier file of that name; a directory entry for an existing directory changes its
///   metadata only. Directories that no entry describes get the metadata of the one in the layer below, or 0755.
/// - *Metadata*: owner, mode with set-uid, set-gid and sticky, modification time to the nanosecond, extended attributes of PAX records
///   `SCHILY.xattr.*`. Left out and counted are overlay's own attributes (a layer could uncover other files by them) and SELinux labels (which are
///   this machine's to give). Hard links keep the metadata of what they link to. Holes of sparse files are kept. PAX global headers are not
///   applied, as in containerd and Docker.
///
/// The layout follows the layer chapter of the OCI image specification; containerd's and umoci's results are the same but for what is said here.
///
/// # Errors
/// [`InvalidLayer`](crate::ErrorKind::InvalidLayer) for what a layer must not be or try, [`Verification`](crate::ErrorKind::Verification) when the diffID differs,
/// [`Unsupported`](crate::ErrorKind::Unsupported) for mounts that it can't write to, and what the source and the system answer. After an error the
/// snapshot holds a part of the layer: remove it. Nothing outside of the snapshot's directory is ever written.
///
/// # Example
/// ```
/// # fn main() -> longshore_snapshot::Result<()> {
/// use longshore_linux::Mount;
/// use longshore_snapshot::{ApplyOptions, apply_layer};
///
/// # let root = tempfile::tempdir().unwrap();
/// let empty_layer = [0; 1024];
/// let applied = apply_layer(&[Mount::bind(root.path())], &empty_layer[..], &ApplyOptions::default())?;
/// assert_eq!((applied.entries, applied.size), (0, 1024));
/// # Ok(())
/// # }
/// ```
pub fn apply_layer(mounts: &[Mount], layer: impl Read + Send, options: &ApplyOptions) -> Result<Applied> {
    let mut tree = Tree::open(Target::of(mounts)?, options.ownership)?;
    // When making the files fails, the stream goes first, which ends the thread that reads ahead.
    thread::scope(|scope| {
        let stream = Stream::new(Ahead::start(scope, layer, options.compression)?, options);
        apply_stream(&mut tree, stream, options)
    })
}

fn apply_stream(tree: &mut Tree, mut stream: Stream, options: &ApplyOptions) -> Result<Applied> {
    let mut archive = Archive::new(&options.limits);
    let mut entries = 0;
    while let Some(mut entry) = archive.next(&mut stream)? {
        entries += 1;
        apply_entry(tree, &mut entry, &mut stream, options)?;
        stream.skip(entry.padding())?;
    }
    tree.finish()?;
    let (diff_id, size) = stream.finish()?;
    match &options.diff_id {
        Some(expected) if *expected != diff_id => Err(Error::DiffIdMismatch {
            expected: expected.to_string(),
            actual: diff_id.to_string(),
        }),
        _ => Ok(Applied {
            diff_id,
            size,
            entries,
            usage: tree.usage.total(),
            skipped: tree.skipped,
        }),
    }
}

fn apply_entry(tree: &mut Tree, entry: &mut Entry, stream: &mut Stream, options: &ApplyOptions) -> Result<()> {
    let path = path::normalize(&entry.path, &options.limits)?;
    let subject = path::subject(&path, &entry.path)?;
    let content = entry.content;
    match subject {
        Subject::Root => tree.put_root(entry)?,
        Subject::Name(parent, name) => return tree.put(entry, (parent, name), stream, &options.limits),
        Subject::Whiteout(parent, name) => tree.whiteout(parent, name)?,
        Subject::Opaque(parent) => tree.opaque(parent)?,
        Subject::Ignored => {}
    }
    stream.skip(content)
}

/// Bytes of a path as the standard library wants them.
pub(crate) fn os(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path)
}
