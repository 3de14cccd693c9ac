use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::{OutputStream, clock, rotate};
use crate::Result;
use crate::host::io_error;

/// The longest record that is believed to be one. Ours are of 16 KiB and what escapes make of them.
const LONGEST_RECORD: usize = 1 << 20;

/// How often files whose names change are looked at again before the reader says that there is nothing new at present.
const TRIES: u32 = 8;

/// A line of a container's output, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// Where it was written.
    pub stream: OutputStream,
    /// When.
    pub time: SystemTime,
    /// What, with its end of line; without one it is a part, and the next record of the stream goes on with it.
    pub text: Vec<u8>,
}

impl LogRecord {
    /// The time as RFC 3339 has it, in UTC with nanoseconds.
    pub fn timestamp(&self) -> String {
        clock::timestamp(self.time)
    }
}

/// Reads a log: what is in its files, from the oldest record on, then whatever is written, also over rotations. Blocks for as long as the disk takes.
///
/// Any number may read while one writes. A reader that is slower than so many rotations that its file is gone misses what was in it. Lines
/// that are no record, as a crash may leave one, are passed over.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<Opened>,
    /// A line whose end has yet to be written.
    line: Vec<u8>,
    oversized: bool,
    tail: VecDeque<LogRecord>,
}

#[derive(Debug)]
struct Opened {
    reader: BufReader<File>,
    identity: (u64, u64),
}

impl LogReader {
    /// Opens a log, which need not be there yet.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it can't be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let oldest = rotate::files(&path).into_iter().next();
        let file = Opened::open(oldest.as_ref().unwrap_or(&path)).map_err(failed(&path))?;
        Ok(Self {
            path,
            file,
            line: Vec::new(),
            oversized: false,
            tail: VecDeque::new(),
        })
    }

    /// The same from only so many records before the present end, of those that `matches` takes.
    ///
    /// # Errors
    /// As [`next_record`](Self::next_record).
    pub fn tail(mut self, count: usize, matches: impl Fn(&LogRecord) -> bool) -> Result<Self> {
        let mut tail = VecDeque::new();
        while let Some(record) = self.next_record()? {
            if matches(&record) {
                tail.push_back(record);
            }
            if tail.len() > count {
                tail.pop_front();
            }
        }
        self.tail = tail;
        Ok(self)
    }

    /// The next record; `None` when there is none at present. One that follows asks again later.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the file can't be read.
    pub fn next_record(&mut self) -> Result<Option<LogRecord>> {
        if let Some(record) = self.tail.pop_front() {
            return Ok(Some(record));
        }
        loop {
            if let Some(record) = self.record_here()? {
                return Ok(Some(record));
            }
            let Some(next) = self.newer() else { return Ok(None) };
            // What was written before the other file was there; nothing is afterwards.
            if let Some(record) = self.record_here()? {
                return Ok(Some(record));
            }
            // What has no end by now never gets one.
            self.line.clear();
            self.file = Some(next);
        }
    }

    /// The next record of the file that is read.
    fn record_here(&mut self) -> Result<Option<LogRecord>> {
        while self.line_is_whole().map_err(failed(&self.path))? {
            let record = (!std::mem::take(&mut self.oversized))
                .then(|| parse(&self.line))
                .flatten();
            self.line.clear();
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// All records that there are at present.
    ///
    /// # Errors
    /// As [`next_record`](Self::next_record).
    pub fn all(&mut self) -> Result<Vec<LogRecord>> {
        std::iter::from_fn(|| self.next_record().transpose()).collect()
    }

    /// Whether somebody may write more. A container that has ended may have said something that is still on its way into its log: who follows
    /// the log to its end asks this after the container has ended, and then reads what there is.
    pub fn is_written(&self) -> bool {
        let Some(all) = Opened::all(&self.path) else {
            return true;
        };
        all.iter().any(|file| rotate::is_written(file.reader.get_ref()))
    }

    /// The file after the one that is read, if there is one; none while a rotation is just going on.
    fn newer(&self) -> Option<Opened> {
        let all = Opened::all(&self.path)?;
        let Some(own) = &self.file else {
            return all.into_iter().next();
        };
        match all.iter().position(|file| file.identity == own.identity) {
            Some(at) => all.into_iter().nth(at + 1),
            // One whose file is gone goes on with the oldest that there is.
            None if own.is_gone() => all.into_iter().next(),
            None => None,
        }
    }

    /// Reads on until the line has an end; it may have none yet.
    fn line_is_whole(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        loop {
            let bytes = file.reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(bytes.len(), |end| end + 1);
            self.oversized |= self.line.len() + length > LONGEST_RECORD;
            if !self.oversized {
                self.line.extend_from_slice(&bytes[..length]);
            }
            file.reader.consume(length);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

impl Opened {
    /// All files of a log, from the oldest to the newest; none that can be relied on while a rotation is just going on.
    fn all(path: &Path) -> Option<Vec<Self>> {
        for _ in 0..TRIES {
            let all = Self::all_by_name(path);
            let again = Self::all_by_name(path);
            // Names change one after the other: what is the same twice was so at one time.
            if all
                .iter()
                .map(|file| file.identity)
                .eq(again.iter().map(|file| file.identity))
            {
                return Some(all);
            }
        }
        None
    }

    fn all_by_name(path: &Path) -> Vec<Self> {
        let files = rotate::files(path).into_iter().chain([path.to_owned()]);
        files.filter_map(|file| Self::open(&file).ok().flatten()).collect()
    }

    fn is_gone(&self) -> bool {
        self.reader.get_ref().metadata().is_ok_and(|file| file.nlink() == 0)
    }

    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        Ok(Some(Self {
            reader: BufReader::new(file),
            identity: (metadata.dev(), metadata.ino()),
        }))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> crate::Error {
    io_error(format!("read the log {}", path.display()))
}

#[derive(Deserialize)]
struct Json {
    log: String,
    stream: OutputStream,
    time: String,
}

/// Reads a record of either form.
fn parse(line: &[u8]) -> Option<LogRecord> {
    if line.first() == Some(&b'{') {
        let Json { log, stream, time } = serde_json::from_slice(line).ok()?;
        return Some(LogRecord {
            stream,
            time: clock::parse(&time)?,
            text: log.into_bytes(),
        });
    }
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (time, stream, tag) = (clock::parse(word()?)?, word()?, word()?);
    let stream = match stream {
        "stdout" => OutputStream::Stdout,
        "stderr" => OutputStream::Stderr,
        _ => return None,
    };
    let mut text = words.next()?.to_vec();
    // There may be more tags, after colons.
    if tag.split(':').next() == Some("P") {
        text.pop();
    }
    Some(LogRecord { stream, time, text })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::logs::{Lines, LogWriter};
    use crate::{LogFile, LogFormat};

    fn writer(log: &LogFile) -> Lines {
        let file = Arc::new(Mutex::new(LogWriter::open(log).expect("it opens")));
        Lines::new(OutputStream::Stdout, &file)
    }

    fn texts(records: Vec<LogRecord>) -> String {
        let texts = records.into_iter().map(|record| record.text).collect::<Vec<_>>();
        String::from_utf8(texts.concat()).expect("text")
    }

    /// A process that another test has just forked may have a copy of the descriptor for a moment.
    fn until_closed(reader: &LogReader) {
        while reader.is_written() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_reader_follows_over_rotations_and_misses_nothing() {
        for format in [LogFormat::Json, LogFormat::Cri] {
            let folder = tempfile::tempdir().expect("a folder");
            let log = LogFile::new(folder.path().join("log")).format(format).rotate(1000, 4);
            let mut reader = LogReader::open(log.path()).expect("it need not be there");
            assert_eq!(reader.next_record().expect("readable"), None);
            assert!(!reader.is_written());
            let (mut lines, mut read, mut written) = (writer(&log), String::new(), String::new());
            for number in 0..500 {
                let line = format!("line {number}\n");
                lines.take(line.as_bytes()).expect("it is written");
                written.push_str(&line);
                // Never so far behind that its file is gone.
                if number % 20 == 7 {
                    read.push_str(&texts(reader.all().expect("readable")));
                }
            }
            read.push_str(&texts(reader.all().expect("readable")));
            assert_eq!(read, written);
            assert!(reader.is_written());
            drop(lines);
            until_closed(&reader);
            assert_eq!(rotate::files(log.path()).len(), 3, "it was rotated");
        }
    }

    #[test]
    fn a_reader_of_a_file_that_is_gone_goes_on_with_the_oldest() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(1, 2);
        let mut lines = writer(&log);
        lines.take(b"1\n").expect("it is written");
        let mut reader = LogReader::open(log.path()).expect("it opens");
        lines.take(b"2\n3\n4\n").expect("it is written");
        assert_eq!(texts(reader.all().expect("readable")), "1\n3\n4\n");
    }

    #[test]
    fn one_who_reads_while_another_writes_has_each_record_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(4000, 1000);
        let mut lines = writer(&log);
        let count = 5000;
        let writing = std::thread::spawn(move || {
            for number in 0..count {
                lines.take(format!("{number}\n").as_bytes()).expect("it is written");
            }
        });
        let mut reader = LogReader::open(log.path()).expect("it need not be there");
        let mut expected = 0;
        while expected < count {
            for record in reader.all().expect("readable") {
                assert_eq!(String::from_utf8_lossy(&record.text), format!("{expected}\n"));
                expected += 1;
            }
        }
        writing.join().expect("it ends");
        until_closed(&reader);
        assert_eq!(reader.next_record().expect("readable"), None);
    }

    #[test]
    fn the_tail_is_of_what_matches() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log"));
        let mut lines = writer(&log);
        lines.take(b"1\nx\n2\n3\nx\n").expect("it is written");
        let number = |record: &LogRecord| record.text != b"x\n";
        let open = || LogReader::open(log.path()).expect("it opens");
        let tail = |count| texts(open().tail(count, number).expect("readable").all().expect("readable"));
        assert_eq!(
            (tail(0), tail(2), tail(9)),
            (String::new(), "2\n3\n".into(), "1\n2\n3\n".into())
        );
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let long = "x".repeat(LONGEST_RECORD + 1);
        let good = r#"{"log":"good\n","stream":"stderr","time":"2026-01-01T00:00:00Z","more":1}"#;
        let text = format!("{{\"log\":\"tor\n{long}\n{good}\n2026-01-01T00:00:00Z stdout F:x also\nnot whole");
        std::fs::write(&path, text).expect("a file");
        let records = LogReader::open(&path).expect("it opens").all().expect("readable");
        assert_eq!(texts(records), "good\nalso\n");
    }
}
