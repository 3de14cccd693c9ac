use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{LogWriter, OutputStream};

/// The longest piece of a line in one record, as Docker and containerd have it.
pub(super) const LONGEST_PIECE: usize = 16 * 1024;

/// Cuts a stream into lines, and long lines into pieces, without allocating.
#[derive(Debug)]
pub(crate) struct Pieces {
    pending: [u8; LONGEST_PIECE],
    filled: usize,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        Self {
            pending: [0; LONGEST_PIECE],
            filled: 0,
        }
    }

    /// What of its memory holds nothing.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        self.pending.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes what the stream brings, and hands on the pieces that are whole by it.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = self.pending.get_mut(self.filled..).unwrap_or_default();
            let most = room.len().min(bytes.len());
            let end = bytes.iter().take(most).position(|byte| *byte == b'\n');
            let (now, later) = bytes.split_at(end.map_or(most, |at| at + 1));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled += now.len();
            bytes = later;
            if end.is_some() {
                self.finish(&mut each);
            } else if let Some(full) = self.pending.get(..self.filled).filter(|p| p.len() == LONGEST_PIECE) {
                let cut = whole_characters(full);
                each(full.get(..cut).unwrap_or_default());
                self.pending.copy_within(cut.., 0);
                self.filled -= cut;
            }
        }
    }

    /// Hands on what is left without an end of line.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let filled = std::mem::take(&mut self.filled);
        if let Some(piece) = self.pending.get(..filled).filter(|piece| !piece.is_empty()) {
            each(piece);
        }
    }
}

/// Writes a stream's lines, each as a record. What is left without an end of line is written when the stream ends.
pub(crate) struct Lines {
    stream: OutputStream,
    file: Arc<Mutex<LogWriter>>,
    pieces: Box<Pieces>,
}

impl Lines {
    pub(crate) fn new(stream: OutputStream, file: &Arc<Mutex<LogWriter>>) -> Self {
        Self {
            stream,
            file: Arc::clone(file),
            pieces: Box::new(Pieces::new()),
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.write(|pieces, each| pieces.take(bytes, each))
    }

    fn write(&mut self, cut: impl FnOnce(&mut Pieces, &mut dyn FnMut(&[u8]))) -> Result<(), Errno> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, mut outcome) = (self.stream, Ok(()));
        cut(&mut self.pieces, &mut |piece| {
            outcome = outcome.and(file.put(stream, now(), piece));
        });
        outcome.and(file.flush())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // A medium that fails must not stop the container: what does not fit is lost.
        let _ = self.write(|pieces, each| pieces.finish(each));
    }
}

fn now() -> Duration {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap_or_default()
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
    use crate::{LogFile, LogFormat, LogReader};

    /// What is read of a log that was written in these pieces.
    fn logged(format: LogFormat, pieces: &[&[u8]]) -> (String, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).format(format);
        let file = Arc::new(Mutex::new(LogWriter::open(&log).expect("it opens")));
        let mut lines = Lines::new(OutputStream::Stderr, &file);
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
