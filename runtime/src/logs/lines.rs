use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::clock::timestamp;
use super::{LogFormat, OutputStream, Rotating};

/// The longest piece of a line in one record, as Docker and containerd have it.
pub(super) const LONGEST_PIECE: usize = 16 * 1024;

/// Cuts a stream into lines, and writes each as a record. What is left without an end of line is written when the stream ends.
pub(crate) struct Lines {
    stream: OutputStream,
    file: Arc<Mutex<Rotating>>,
    format: LogFormat,
    pending: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: OutputStream, file: &Arc<Mutex<Rotating>>, format: LogFormat) -> Self {
        Self {
            stream,
            file: Arc::clone(file),
            format,
            pending: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut records = Records::default();
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        loop {
            let cut = match rest.iter().take(LONGEST_PIECE).position(|b| *b == b'\n') {
                Some(end) => end + 1,
                None if rest.len() >= LONGEST_PIECE => whole_characters(&rest[..LONGEST_PIECE]),
                None => break,
            };
            let (piece, after) = rest.split_at(cut);
            records.add(self.format, self.stream, piece)?;
            rest = after;
        }
        self.pending = rest.to_vec();
        self.write(&records)
    }

    fn write(&self, records: &Records) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write(&records.bytes, &records.ends)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut records = Records::default();
        if !self.pending.is_empty() && records.add(self.format, self.stream, &self.pending).is_ok() {
            // A medium that fails must not stop the container: what does not fit is lost.
            let _ = self.write(&records);
        }
    }
}

/// Some records, and where each ends.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn add(&mut self, format: LogFormat, stream: OutputStream, piece: &[u8]) -> io::Result<()> {
        let time = timestamp(SystemTime::now());
        match format {
            LogFormat::Json => {
                let log = &*String::from_utf8_lossy(piece);
                let stream = stream.name();
                serde_json::to_writer(
                    &mut self.bytes,
                    &Json {
                        log,
                        stream,
                        time: &time,
                    },
                )?;
            }
            LogFormat::Cri => {
                let (tag, line) = match piece.strip_suffix(b"\n") {
                    Some(line) => ('F', line),
                    None => ('P', piece),
                };
                write!(self.bytes, "{time} {stream} {tag} ")?;
                self.bytes.extend_from_slice(line);
            }
        }
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
        Ok(())
    }
}

#[derive(Serialize)]
struct Json<'a> {
    log: &'a str,
    stream: &'a str,
    time: &'a str,
}

/// How much of the bytes can be cut off without cutting a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogFile, LogReader};

    /// What is read of a log that was written in these pieces.
    fn logged(format: LogFormat, pieces: &[&[u8]]) -> (String, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).format(format);
        let file = Arc::new(Mutex::new(Rotating::open(&log).expect("it opens")));
        let mut lines = Lines::new(OutputStream::Stderr, &file, format);
        for piece in pieces {
            lines.take(piece).expect("it is written");
        }
        drop(lines);
        let text = std::fs::read_to_string(log.path()).expect("it is there");
        let records = LogReader::open(log.path()).expect("it opens").all().expect("readable");
        assert!(records.iter().all(|record| record.stream == OutputStream::Stderr));
        (text, records.into_iter().map(|record| record.text).collect())
    }

    #[test]
    fn lines_become_records_whatever_the_pieces_they_come_in() {
        for format in [LogFormat::Json, LogFormat::Cri] {
            let (text, records) = logged(format, &[b"one\ntw", b"o\n\n", b"thr\xc3", b"\xa9e"]);
            assert_eq!(records, [&b"one\n"[..], b"two\n", b"\n", "thrée".as_bytes()], "{text}");
        }
    }

    #[test]
    fn a_line_of_the_runtime_interface_says_whether_it_is_whole() {
        let (text, _) = logged(LogFormat::Cri, &[b"whole\nhalf"]);
        let ends: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, rest)| rest)
            .collect();
        assert_eq!(ends, ["stderr F whole", "stderr P half"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_is_whole_together() {
        let mut line = vec![b'x'; LONGEST_PIECE - 1];
        line.extend_from_slice("é\n".as_bytes());
        for format in [LogFormat::Json, LogFormat::Cri] {
            let (_, records) = logged(format, &[&line]);
            assert_eq!(records[0].len(), LONGEST_PIECE - 1);
            assert_eq!(records.concat(), line);
        }
    }
}
