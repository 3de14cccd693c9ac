//! Writing records without allocating: a container's monitor does it for as long as the container lives.

use std::io::{Cursor, Write};
use std::time::Duration;

use rustix::io::Errno;

use super::clock::Timestamp;
use super::{LogFile, LogFormat, OutputStream, Rotating};
use crate::Result;

/// How much is written at once.
const BUFFER: usize = 64 * 1024;

/// A log that records are written to. What was put in is in the file after a [`flush`](Self::flush).
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: Rotating,
    format: LogFormat,
    buffer: [u8; BUFFER],
    used: usize,
}

impl LogWriter {
    /// Opens a log to go on with it.
    pub(crate) fn open(log: &LogFile) -> Result<Self> {
        Ok(Self::new(Rotating::open(log)?, log.form()))
    }

    /// Goes on with a log that is open.
    pub(crate) fn new(file: Rotating, format: LogFormat) -> Self {
        Self {
            file,
            format,
            buffer: [0; BUFFER],
            used: 0,
        }
    }

    /// What of its memory holds nothing.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.used..).unwrap_or_default()
    }

    /// Puts a record in. One that does not fit in the file goes into the next, with what follows.
    pub(crate) fn put(&mut self, stream: OutputStream, at: Duration, piece: &[u8]) -> std::result::Result<(), Errno> {
        let time = Timestamp::new(at);
        let format = self.format;
        let mut length = 0;
        compose(format, stream, &time, piece, &mut |bytes| length += bytes.len());
        if self.file.is_full(self.used, length) {
            self.flush()?;
            self.file.rotate()?;
        }
        if self.used + length > BUFFER {
            self.flush()?;
        }
        let mut outcome = Ok(());
        compose(format, stream, &time, piece, &mut |bytes| {
            if outcome.is_ok() {
                outcome = self.add(bytes);
            }
        });
        outcome
    }

    fn add(&mut self, mut bytes: &[u8]) -> std::result::Result<(), Errno> {
        while !bytes.is_empty() {
            let room = self.buffer.get_mut(self.used..).unwrap_or_default();
            let length = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(length);
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.used += length;
            bytes = later;
            if self.used == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what was put in. What can't be written is lost: a medium that fails must not stop the container.
    pub(crate) fn flush(&mut self) -> std::result::Result<(), Errno> {
        let used = std::mem::take(&mut self.used);
        self.file.append(self.buffer.get(..used).unwrap_or_default())
    }
}

/// Hands the parts of a record on, one after the other.
fn compose(format: LogFormat, stream: OutputStream, time: &Timestamp, piece: &[u8], out: &mut impl FnMut(&[u8])) {
    match format {
        LogFormat::Json => {
            out(b"{\"log\":\"");
            for chunk in piece.utf8_chunks() {
                escape(chunk.valid().as_bytes(), out);
                if !chunk.invalid().is_empty() {
                    out("\u{fffd}".as_bytes());
                }
            }
            out(b"\",\"stream\":\"");
            out(stream.name().as_bytes());
            out(b"\",\"time\":\"");
            out(time.as_bytes());
            out(b"\"}\n");
        }
        LogFormat::Cri => {
            let (tag, line) = match piece.strip_suffix(b"\n") {
                Some(line) => (" F ", line),
                None => (" P ", piece),
            };
            for part in [
                time.as_bytes(),
                b" ",
                stream.name().as_bytes(),
                tag.as_bytes(),
                line,
                b"\n",
            ] {
                out(part);
            }
        }
    }
}

/// Text inside a string of JSON (RFC 8259, section 7).
fn escape(text: &[u8], out: &mut impl FnMut(&[u8])) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let (plain, special) = rest.split_at(at);
        out(plain);
        let Some((byte, after)) = special.split_first() else {
            return;
        };
        match byte {
            b'"' => out(b"\\\""),
            b'\\' => out(b"\\\\"),
            b'\n' => out(b"\\n"),
            b'\r' => out(b"\\r"),
            b'\t' => out(b"\\t"),
            0x08 => out(b"\\b"),
            0x0c => out(b"\\f"),
            byte => {
                let mut code = Cursor::new([0u8; 6]);
                let _ = write!(code, "\\u{byte:04x}");
                out(code.get_ref());
            }
        }
        rest = after;
    }
    out(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(piece: &[u8]) -> String {
        let mut record = Vec::new();
        let time = Timestamp::new(Duration::ZERO);
        compose(LogFormat::Json, OutputStream::Stderr, &time, piece, &mut |part| {
            record.extend_from_slice(part)
        });
        String::from_utf8(record).expect("it is text")
    }

    #[test]
    fn a_record_is_json_whatever_was_said() {
        let every: Vec<u8> = (0..=255).collect();
        let pieces: [&[u8]; 4] = [
            b"plain\n",
            "thr\u{e9}\u{1f600}".as_bytes(),
            b"\xff\xc3(\xe2\x82",
            &every,
        ];
        for piece in pieces {
            let expected = serde_json::to_string(&String::from_utf8_lossy(piece)).expect("JSON");
            assert_eq!(
                composed(piece),
                format!("{{\"log\":{expected},\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:00.000000000Z\"}}\n")
            );
        }
    }

    #[test]
    fn a_record_that_is_longer_than_what_is_written_at_once_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFile::new(folder.path().join("log")).rotate(10, 3);
        let mut writer = LogWriter::open(&log).expect("it opens");
        let long = vec![1u8; 2 * BUFFER];
        for piece in [&b"a\n"[..], &long, b"b\n"] {
            writer
                .put(OutputStream::Stdout, Duration::ZERO, piece)
                .expect("it is put in");
        }
        writer.flush().expect("it is written");
        let records = crate::LogReader::open(log.path())
            .expect("it opens")
            .all()
            .expect("readable");
        let lengths: Vec<_> = records.iter().map(|record| record.text.len()).collect();
        assert_eq!(lengths, [2, long.len(), 2]);
    }
}
