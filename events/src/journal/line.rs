//! One line of a journal: `<crc32 in hex> <JSON>`.

use std::io::{BufRead, Read};

use serde::{Deserialize, Serialize};

use super::crc::crc32;
use crate::Event;

/// A line that is longer is not written, and not read.
pub(super) const MAX_LINE: usize = 1 << 20;

/// Bytes of the checksum and the space after it.
const HEAD: usize = 9;

/// What a journal tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Told {
    /// An event.
    Event(Event),
    /// So many events that were emitted about here were not kept.
    Missed(u64),
}

/// What a journal tells, and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its number: one more than that of the entry before it.
    pub sequence: u64,
    /// What it is.
    #[serde(flatten)]
    pub told: Told,
}

impl Entry {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match &self.told {
            Told::Event(event) => Some(event),
            Told::Missed(_) => None,
        }
    }
}

/// Appends an entry as a line; `false` when it would be too long.
pub(super) fn write(entry: &Entry, lines: &mut Vec<u8>) -> bool {
    let start = lines.len();
    lines.extend_from_slice(b"00000000 ");
    // Text and numbers can't fail to become JSON, and a vector can't fail to take it.
    let written = serde_json::to_writer(&mut *lines, entry).is_ok();
    if !written || lines.len() - start >= MAX_LINE {
        lines.truncate(start);
        return false;
    }
    let crc = format!("{:08x}", crc32(&lines[start + HEAD..]));
    lines[start..start + HEAD - 1].copy_from_slice(crc.as_bytes());
    lines.push(b'\n');
    true
}

/// What the next line is.
#[derive(Debug)]
pub(super) enum Line {
    /// An entry, of so many bytes.
    Entry(Entry, u64),
    /// The end, or a line that is not whole yet, or not any more.
    Torn,
    /// A whole line that is damaged, of so many bytes.
    Damaged(u64),
}

/// Reads the next line, never more than [`MAX_LINE`] of it.
pub(super) fn read(reader: &mut impl BufRead) -> std::io::Result<Line> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        if line.len() <= MAX_LINE {
            return Ok(Line::Torn);
        }
        return Ok(Line::Damaged(line.len() as u64 + skip_line(reader)?));
    }
    let length = line.len() as u64;
    Ok(match parse(&line[..line.len() - 1]) {
        Some(entry) => Line::Entry(entry, length),
        None => Line::Damaged(length),
    })
}

/// Skips to the end of a line that is no line of ours, and tells how far that was.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let bytes = reader.fill_buf()?;
        let (end, found) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        skipped += end as u64;
        reader.consume(end);
        if found {
            return Ok(skipped);
        }
    }
}

fn parse(line: &[u8]) -> Option<Entry> {
    let (head, json) = line.split_at_checked(HEAD)?;
    let crc = u32::from_str_radix(std::str::from_utf8(&head[..HEAD - 1]).ok()?, 16).ok()?;
    (head[HEAD - 1] == b' ' && crc == crc32(json)).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind;

    fn entry(sequence: u64, name: &str) -> Entry {
        let kind = EventKind::ImageDelete { name: name.into() };
        Entry {
            sequence,
            told: Told::Event(Event::now("ns", kind)),
        }
    }

    #[test]
    fn lines_come_back_and_damage_is_seen() {
        let mut lines = Vec::new();
        assert!(write(&entry(1, "a\nb"), &mut lines));
        let first = lines.len();
        let missed = Entry {
            sequence: 2,
            told: Told::Missed(7),
        };
        assert!(write(&missed, &mut lines));
        assert!(!write(&entry(3, &"x".repeat(MAX_LINE)), &mut lines), "too long");
        let mut reader = &lines[..];
        let mut next = || read(&mut reader).expect("in memory");
        assert!(matches!(next(), Line::Entry(entry, length) if entry.sequence == 1 && length == first as u64));
        assert!(matches!(next(), Line::Entry(entry, _) if entry == missed));
        assert!(matches!(next(), Line::Torn));

        for at in 0..first - 1 {
            let mut bad = lines.clone();
            bad[at] ^= 1;
            let line = read(&mut &bad[..]).expect("in memory");
            // A flipped bit may make an end of line, and then a shorter line.
            assert!(
                matches!(line, Line::Damaged(length) if length <= first as u64),
                "byte {at}: {line:?}"
            );
        }
        assert!(matches!(read(&mut &lines[..first - 1]).expect("in memory"), Line::Torn));
        let mut long = vec![b'x'; MAX_LINE * 2];
        long.push(b'\n');
        assert!(
            matches!(read(&mut &long[..]).expect("in memory"), Line::Damaged(length) if length == long.len() as u64)
        );
    }
}
