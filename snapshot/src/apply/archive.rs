use rustix::fs::{Dev, Timespec};
use tar_core::parse::{Limits as TarLimits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE, PaxExtensions, SparseEntry};

use crate::apply::Limits;
use crate::apply::stream::Stream;
use crate::{Error, Result, at};

/// The longest name of an extended attribute (`XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;

/// One entry of a layer, its extensions resolved and its numbers checked.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the archive gives it.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content that follow in the archive, without padding.
    pub(super) content: u64,
}

#[derive(Debug)]
pub(super) enum EntryKind {
    File,
    /// A file with holes: where the pieces of content belong, and its length.
    Sparse(Vec<SparseEntry>, u64),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharDevice(Dev),
    BlockDevice(Dev),
    Fifo,
}

impl Entry {
    /// How much the archive takes for the content.
    pub(super) fn padding(&self) -> u64 {
        self.content.next_multiple_of(HEADER_SIZE as u64) - self.content
    }

    /// An error that names this entry.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> Error {
        invalid(&self.path, reason)
    }
}

pub(super) fn invalid(path: &[u8], reason: impl Into<String>) -> Error {
    Error::InvalidLayer {
        entry: String::from_utf8_lossy(path).into_owned(),
        reason: reason.into(),
    }
}

/// The reader of a tar archive's headers.
pub(super) struct Archive {
    parser: Parser,
}

/// What is next in the archive.
enum Next {
    Entry(Box<Entry>, usize),
    Pass(usize),
    More(usize),
    End(usize),
}

impl Archive {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut parser = Parser::new(TarLimits {
            max_metadata_size: limits.metadata,
            max_path_len: Some(limits.path),
            max_sparse_entries: limits.sparse,
            ..TarLimits::default()
        });
        // It takes a time before 1970 for malformed. Numbers that count are checked in `pax`.
        parser.set_ignore_pax_errors(true);
        Self { parser }
    }

    /// The next entry, its content still in the stream. `None` is the end: the end marker, or, as other readers allow, the end of
    /// the bytes where a header would begin.
    pub(super) fn next(&mut self, stream: &mut Stream) -> Result<Option<Box<Entry>>> {
        loop {
            let offset = stream.offset();
            match self.parse(stream.peek(), offset)? {
                Next::Entry(entry, consumed) => {
                    stream.consume(consumed);
                    return Ok(Some(entry));
                }
                Next::Pass(consumed) => stream.consume(consumed),
                Next::End(consumed) => {
                    stream.consume(consumed);
                    return Ok(None);
                }
                Next::More(want) => {
                    let got = stream.fill(want)?;
                    if got < want {
                        return self.ended(stream.peek(), offset);
                    }
                }
            }
        }
    }

    /// The bytes are at their end and the parser wants more.
    fn ended(&self, rest: &[u8], offset: u64) -> Result<Option<Box<Entry>>> {
        let only_zeros = rest.iter().all(|byte| *byte == 0);
        if rest.is_empty() || (rest.len() == HEADER_SIZE && only_zeros) {
            return Ok(None);
        }
        Err(Error::DamagedLayer {
            offset,
            reason: "it ends in the middle of an entry's header".into(),
        })
    }

    fn parse(&mut self, bytes: &[u8], offset: u64) -> Result<Next> {
        match self.parser.parse(bytes).map_err(|error| explain(error, offset))? {
            ParseEvent::NeedData { min_bytes } => Ok(Next::More(min_bytes)),
            ParseEvent::End { consumed } => Ok(Next::End(consumed)),
            // As containerd and Docker: defaults for all entries are not applied.
            ParseEvent::GlobalExtensions { consumed, .. } => Ok(Next::Pass(consumed)),
            ParseEvent::Entry { consumed, entry } => Ok(Next::Entry(resolve(entry, None)?, consumed)),
            ParseEvent::SparseEntry {
                consumed,
                mut entry,
                sparse_map,
                real_size,
            } => {
                entry.size = sparse_content(&entry, &sparse_map)?;
                Ok(Next::Entry(resolve(entry, Some((sparse_map, real_size)))?, consumed))
            }
        }
    }
}

/// Bytes of content of a sparse file: the sum of its pieces. When a PAX 1.0 sparse file has a `size` record, that counts the map as well,
/// which the parser has passed over already.
fn sparse_content(entry: &ParsedEntry<'_>, map: &[SparseEntry]) -> Result<u64> {
    let size_has_map = || {
        entry
            .pax
            .is_some_and(|pax| PaxExtensions::new(pax).get("size").is_some())
    };
    match map.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.length)) {
        Some(sum) if sum == entry.size || (sum < entry.size && size_has_map()) => Ok(sum),
        _ => Err(invalid(&entry.path, "its sparse map and its size do not agree")),
    }
}

fn resolve(entry: ParsedEntry<'_>, sparse: Option<(Vec<SparseEntry>, u64)>) -> Result<Box<Entry>> {
    let path = entry.path.to_vec();
    if path.contains(&0) {
        return Err(invalid(&path, "a name can't contain a zero byte"));
    }
    let kind = kind(&entry, sparse, &path)?;
    let mtime = match entry.pax.map(pax) {
        Some(Err(reason)) => return Err(invalid(&path, reason)),
        Some(Ok(Some(mtime))) => mtime,
        // A base-256 number may be negative: the bits are right.
        _ => Timespec {
            tv_sec: entry.mtime as i64,
            tv_nsec: 0,
        },
    };
    let content = match kind {
        EntryKind::File | EntryKind::Sparse(..) => entry.size,
        // As Go's reader: for other types the size says nothing and no content follows.
        _ => 0,
    };
    let xattrs: Vec<_> = entry
        .xattrs
        .into_iter()
        .map(|(k, v)| (k.into_owned(), v.into_owned()))
        .collect();
    check_xattrs(&xattrs, &path)?;
    Ok(Box::new(Entry {
        kind,
        mode: entry.mode & 0o7777,
        uid: id(entry.uid, &path, "uid")?,
        gid: id(entry.gid, &path, "gid")?,
        mtime,
        xattrs,
        content,
        path,
    }))
}

fn kind(entry: &ParsedEntry<'_>, sparse: Option<(Vec<SparseEntry>, u64)>, path: &[u8]) -> Result<EntryKind> {
    if let Some((map, size)) = sparse {
        check_sparse(&map, size, path)?;
        return Ok(EntryKind::Sparse(map, size));
    }
    let target = || match entry.link_target.as_deref() {
        Some(target) if target.contains(&0) => Err(invalid(path, "a link's target can't contain a zero byte")),
        Some(target) => Ok(target.to_vec()),
        None => Err(invalid(path, "it is a link without a target")),
    };
    let device = || {
        let (major, minor) = (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
        rustix::fs::makedev(major, minor)
    };
    Ok(match entry.entry_type {
        // Archives older than the directory type mark a directory by its name.
        EntryType::Regular if path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink(target()?),
        EntryType::Link => EntryKind::HardLink(target()?),
        EntryType::Char => EntryKind::CharDevice(device()),
        EntryType::Block => EntryKind::BlockDevice(device()),
        EntryType::Fifo => EntryKind::Fifo,
        other => {
            let byte = char::from(other.to_byte());
            return Err(invalid(
                path,
                format!("entries of type '{}' are not supported", byte.escape_default()),
            ));
        }
    })
}

/// The pieces of a sparse file must be in order, apart, and inside the file.
fn check_sparse(map: &[SparseEntry], size: u64, path: &[u8]) -> Result<()> {
    let mut at = 0;
    for piece in map {
        let end = piece.offset.checked_add(piece.length);
        match end {
            Some(end) if piece.offset >= at && end <= size => at = end,
            _ => {
                return Err(invalid(
                    path,
                    "its sparse map is not in order or goes beyond the file's length",
                ));
            }
        }
    }
    if size > i64::MAX as u64 {
        return Err(invalid(path, "its length is impossible"));
    }
    Ok(())
}

fn id(id: u64, path: &[u8], what: &str) -> Result<u32> {
    match u32::try_from(id) {
        // The last one means "leave as it is" to chown(2).
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(invalid(path, format!("its {what} {id} is out of range"))),
    }
}

/// Checks what the kernel would refuse without telling which it was.
fn check_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)], path: &[u8]) -> Result<()> {
    for (name, value) in xattrs {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) || value.len() > at::XATTR_MAX {
            let start = name[..name.len().min(40)].escape_ascii();
            let (name_len, len) = (name.len(), value.len());
            return Err(invalid(
                path,
                format!(
                    "its extended attribute '{start}', {name_len} bytes of name and {len} of value, is none that the kernel takes"
                ),
            ));
        }
    }
    Ok(())
}

/// Checks the numbers of a PAX header, and gives the modification time if it has one.
fn pax(pax: &[u8]) -> Result<Option<Timespec>, String> {
    let mut mtime = None;
    for record in PaxExtensions::new(pax) {
        let record = record.map_err(|error| error.to_string())?;
        let key = record.key_bytes();
        let value = || String::from_utf8_lossy(record.value_bytes());
        match key {
            b"mtime" => {
                mtime = Some(decimal_time(&value()).ok_or_else(|| format!("its mtime '{}' is not a time", value()))?)
            }
            b"size" | b"uid" | b"gid" if value().parse::<u64>().is_err() => {
                return Err(format!(
                    "its {} '{}' is not a number",
                    String::from_utf8_lossy(key),
                    value()
                ));
            }
            _ => {}
        }
    }
    Ok(mtime)
}

/// A decimal number of seconds, which may be negative and have a fraction; finer than nanoseconds is cut off.
fn decimal_time(text: &str) -> Option<Timespec> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(seconds) || !all_digits(fraction) || (seconds.is_empty() && fraction.is_empty()) {
        return None;
    }
    let seconds: i64 = if seconds.is_empty() { 0 } else { seconds.parse().ok()? };
    let nanos: i64 = format!("{:0<9.9}", fraction).parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        },
        (true, 0) => Timespec {
            tv_sec: -seconds,
            tv_nsec: 0,
        },
        // The fraction of a timespec counts upwards also before 1970.
        (true, _) => Timespec {
            tv_sec: -seconds - 1,
            tv_nsec: 1_000_000_000 - nanos,
        },
    })
}

fn explain(error: ParseError, offset: u64) -> Error {
    match error {
        ParseError::Header(cause) if offset == 0 => Error::DamagedLayer {
            offset,
            reason: format!("it is not a tar archive ({cause})"),
        },
        ParseError::Header(cause) => Error::DamagedLayer {
            offset,
            reason: cause.to_string(),
        },
        ParseError::OrphanedMetadata | ParseError::UnexpectedEof { .. } => Error::DamagedLayer {
            offset,
            reason: error.to_string(),
        },
        other => Error::InvalidLayer {
            entry: format!("(the one at byte {offset})"),
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            (".5", Some((0, 500_000_000))),
            ("", None),
            (".", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            let got = decimal_time(text).map(|t| (t.tv_sec, t.tv_nsec));
            assert_eq!(got, expected, "{text}");
        }
    }
}
