use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Info, Result, Usage};

/// The version of the format; a newer one is refused.
const FORMAT: u32 = 1;
/// Records that nobody needs any more are cleared away when there are more than this and more than those needed.
const GARBAGE: u64 = 4096;

/// A snapshot as the log keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its directory; stays when the snapshot is committed.
    pub(crate) id: u64,
    pub(crate) info: Info,
    /// Of a committed one, once somebody asked.
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Record {
    /// The first line.
    Format(u32),
    /// This is how the snapshot of that id is from now on.
    Put(Entry),
    /// There is no snapshot of that id any more.
    Drop(u64),
}

/// The file that says which snapshots there are: one line a change, each with a checksum, only ever appended to.
///
/// A change is one write(2), so a killed process leaves a change whole or cut off in the last line, which the next open takes away. A damaged
/// line that has a good one after it was not cut off by us, and is reported.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    path: PathBuf,
    len: u64,
    records: u64,
}

impl Log {
    /// Opens or creates the log, and reads it.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Vec<Record>)> {
        let failed = |action| io(action, &path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("reading"))?;
        let (records, good) = parse(&bytes, &path)?;
        if good < bytes.len() {
            file.set_len(good as u64).map_err(failed("truncating"))?;
        }
        let mut log = Self {
            file,
            len: good as u64,
            records: records.len() as u64,
            path,
        };
        if records.is_empty() {
            log.append(&Record::Format(FORMAT))?;
        }
        Ok((log, records))
    }

    /// Writes one change. It survives the end of the process, but a loss of power only after [`sync`](Self::sync).
    pub(crate) fn append(&mut self, record: &Record) -> Result<()> {
        let written = self.file.write_all(&line(record));
        if let Err(source) = written {
            // A part of the line may be there; what follows must not be appended to it.
            let _ = self.file.set_len(self.len);
            return Err(io("writing", &self.path)(source));
        }
        self.len += line(record).len() as u64;
        self.records += 1;
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(io("syncing", &self.path))
    }

    /// Another descriptor of the file, to sync it without holding up those who write.
    pub(crate) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(io("opening", &self.path))
    }

    /// Whether most of the log is of no use.
    pub(crate) fn is_wasteful(&self, live: usize) -> bool {
        self.records > live as u64 * 2 + GARBAGE
    }

    /// Writes the log anew with these entries only, and puts it in the place of the old one at once.
    pub(crate) fn rewrite<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> Result<()> {
        let new_path = self.path.with_extension("new");
        let mut bytes = line(&Record::Format(FORMAT));
        let mut records = 1;
        for entry in entries {
            bytes.extend(line(&Record::Put(entry.clone())));
            records += 1;
        }
        let failed = |action| io(action, &new_path);
        // What an interrupted rewrite left must not be appended to.
        let _ = std::fs::remove_file(&new_path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new_path)
            .map_err(failed("creating"))?;
        file.write_all(&bytes).map_err(failed("writing"))?;
        file.sync_all().map_err(failed("syncing"))?;
        std::fs::rename(&new_path, &self.path).map_err(failed("renaming"))?;
        sync_parent(&self.path)?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.records = records;
        Ok(())
    }
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io("syncing", dir))
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("strings, numbers and times have a JSON form");
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    line
}

fn checksum(json: &[u8]) -> String {
    Sha256::digest(json)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The records, and how many bytes of the log are good.
fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, usize)> {
    let corrupt = |reason: String| Error::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let mut records = Vec::new();
    let mut good = 0;
    let mut bad = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match (parse_line(line), bad) {
            (Some(Record::Format(version)), None) if version != FORMAT => {
                return Err(corrupt(format!(
                    "format {version} is not known; a newer version wrote it"
                )));
            }
            (Some(record), None) => {
                records.push(record);
                good += line.len();
            }
            (Some(_), Some(at)) => return Err(corrupt(format!("the line at byte {at} is damaged"))),
            (None, _) => bad = bad.or(Some(good)),
        }
    }
    Ok((records, good))
}

fn parse_line(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    if &sum[..8] != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn put(id: u64) -> Record {
        Record::Put(Entry {
            id,
            info: Info::new(format!("key-{id}"), None, Kind::Active, Default::default()),
            usage: None,
        })
    }

    #[test]
    fn a_cut_off_line_is_taken_away_and_a_damaged_one_reported() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let (mut log, records) = Log::open(path.clone()).unwrap();
        assert!(records.is_empty());
        for id in 0..3 {
            log.append(&put(id)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..40 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut log, records) = Log::open(path.clone()).unwrap();
            assert_eq!(records.len(), 3, "format and two");
            log.append(&put(9)).unwrap();
            assert_eq!(Log::open(path.clone()).unwrap().1.len(), 4);
        }
        let mut damaged = whole.clone();
        damaged[60] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(Log::open(path), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn rewriting_keeps_what_is_needed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let (mut log, _) = Log::open(path.clone()).unwrap();
        for id in 0..100 {
            log.append(&put(id)).unwrap();
        }
        let Record::Put(kept) = put(7) else { unreachable!() };
        log.rewrite([&kept].into_iter()).unwrap();
        log.append(&Record::Drop(7)).unwrap();
        assert_eq!(Log::open(path).unwrap().1.len(), 3);
    }
}
