//! What containers say, in systemd's journal: its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL), spoken without a library of its own.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{OutputStream, Pieces};
use crate::host::io_error;
use crate::io::carry;
use crate::{Drained, Io, OutputGuard, Result, Stdio, Streams};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Output that goes into systemd's journal, a line an entry, with the fields that Docker's driver gives them: `MESSAGE`, `PRIORITY` (6 for output, 3 for errors), `CONTAINER_ID` (the
/// first twelve characters), `CONTAINER_ID_FULL`, `CONTAINER_NAME`, `CONTAINER_TAG` and `SYSLOG_IDENTIFIER` (the tag), and `CONTAINER_PARTIAL_MESSAGE` for a part of a line (one of more than
/// 16 KiB, or one that never ended).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLog {
    id: String,
    name: String,
    tag: String,
    socket: PathBuf,
}

impl JournalLog {
    /// Of a container of this id and name. Its tag is the beginning of the id.
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            tag: short(&id).to_owned(),
            name: name.into(),
            socket: SOCKET.into(),
            id,
        }
    }

    /// The same with another tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = tag.into();
        self
    }

    /// The same for a journal that listens elsewhere than at `/run/systemd/journal/socket`.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }
}

/// As Docker shows ids.
fn short(id: &str) -> &str {
    let end = id.char_indices().nth(12).map_or(id.len(), |(at, _)| at);
    &id[..end]
}

impl Io {
    /// Output and errors as entries of systemd's journal. No input.
    ///
    /// Threads of this program carry the output, whatever the container's lifetime: one that is to say more when this program has ended has its output in a [log](Self::log). A journal
    /// that does not take entries holds the container up, as a full pipe does; entries that it refuses, because it is not there, say, are lost.
    /// Whoever waits for the end of the container is told when the last entry is sent.
    pub fn journald(log: JournalLog) -> Self {
        let (guard, drained) = Drained::pair();
        Self::custom(Journald {
            log,
            guard,
            drained: Some(drained),
        })
    }
}

#[derive(Debug)]
struct Journald {
    log: JournalLog,
    guard: OutputGuard,
    drained: Option<Drained>,
}

impl Journald {
    fn carry(&self, journal: &Arc<Journal>, stream: OutputStream, from: OwnedFd) -> Result<()> {
        let mut entries = Entries {
            stream,
            journal: Arc::clone(journal),
            pieces: Box::new(Pieces::new()),
        };
        carry(stream.name(), from, Some(self.guard.clone()), move |bytes| {
            Ok(entries.take(bytes)?)
        })
    }
}

impl Streams for Journald {
    fn open(self: Box<Self>) -> Result<Stdio> {
        let journal = Arc::new(Journal::open(&self.log)?);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io_error("make a pipe"));
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        self.carry(&journal, OutputStream::Stdout, from_stdout)?;
        self.carry(&journal, OutputStream::Stderr, from_stderr)?;
        Ok(Stdio {
            stdin: crate::io::null(rustix::fs::OFlags::RDONLY)?,
            stdout,
            stderr,
        })
    }

    fn console(self: Box<Self>, master: OwnedFd) -> Result<()> {
        let journal = Arc::new(Journal::open(&self.log)?);
        self.carry(&journal, OutputStream::Stdout, master)
    }

    fn drained(&mut self) -> Option<Drained> {
        self.drained.take()
    }
}

/// Sends a stream's lines, each as an entry. What is left without an end of line is sent when the stream ends.
struct Entries {
    stream: OutputStream,
    journal: Arc<Journal>,
    pieces: Box<Pieces>,
}

impl Entries {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let (journal, stream, mut outcome) = (&self.journal, self.stream, Ok(()));
        self.pieces
            .take(bytes, |piece| outcome = outcome.and(journal.send(stream, piece)));
        outcome
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let (journal, stream) = (&self.journal, self.stream);
        // A medium that fails must not stop the container: what it does not take is lost.
        self.pieces.finish(|piece| {
            let _ = journal.send(stream, piece);
        });
    }
}

/// A connection to the journal.
#[derive(Debug)]
struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// The fields that all entries have.
    common: Vec<u8>,
}

impl Journal {
    fn open(log: &JournalLog) -> Result<Self> {
        let at = |path: &Path| {
            format!(
                "reach systemd's journal at {} (does systemd-journald run?)",
                path.display()
            )
        };
        let fail = |errno| io_error(at(&log.socket))(errno);
        let address = SocketAddrUnix::new(&log.socket).map_err(fail)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(fail)?;
        connect(&socket, &address).map_err(fail)?;
        let mut common = Vec::new();
        for (name, value) in [
            ("CONTAINER_ID", short(&log.id)),
            ("CONTAINER_ID_FULL", &log.id),
            ("CONTAINER_NAME", &log.name),
            ("CONTAINER_TAG", &log.tag),
            ("SYSLOG_IDENTIFIER", &log.tag),
        ] {
            field(&mut common, name, value.as_bytes());
        }
        Ok(Self {
            socket,
            address,
            common,
        })
    }

    /// Sends a piece of a line as an entry.
    fn send(&self, stream: OutputStream, piece: &[u8]) -> Result<(), Errno> {
        let mut entry = self.common.clone();
        let priority: &[u8] = match stream {
            OutputStream::Stdout => b"6",
            OutputStream::Stderr => b"3",
        };
        field(&mut entry, "PRIORITY", priority);
        let line = piece.strip_suffix(b"\n");
        if line.is_none() {
            field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut entry, "MESSAGE", line.unwrap_or(piece));
        match self.send_all(&[IoSlice::new(&entry)], &mut SendAncillaryBuffer::default()) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_file(&entry),
            // It was restarted: its socket is another one now.
            Err(Errno::CONNREFUSED | Errno::NOTCONN) => {
                connect(&self.socket, &self.address)?;
                self.send_all(&[IoSlice::new(&entry)], &mut SendAncillaryBuffer::default())
            }
            sent => sent,
        }
    }

    /// Sends an entry that is too large for a datagram: in a file in memory that nobody can change any more.
    fn send_file(&self, entry: &[u8]) -> Result<(), Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"longshore-journal", flags)?);
        file.write_all(entry)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        fcntl_add_seals(
            &file,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        if !rights.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(Errno::NOBUFS);
        }
        self.send_all(&[], &mut rights)
    }

    fn send_all(&self, bytes: &[IoSlice<'_>], rights: &mut SendAncillaryBuffer<'_, '_, '_>) -> Result<(), Errno> {
        loop {
            match sendmsg(&self.socket, bytes, rights, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// Adds a field: `NAME=value` and an end of line, or, for a value of several lines, the name, an end of line, the length in eight bytes, little end first, and the value.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{IoSliceMut, Read, Seek};
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;
    use crate::ErrorKind;

    type Fields = BTreeMap<String, Vec<u8>>;

    /// What a journal reads of an entry.
    fn parse(mut entry: &[u8]) -> Fields {
        let mut fields = Fields::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&entry[..end], &entry[end + 1..]);
            let (name, value, rest) = match line.iter().position(|byte| *byte == b'=') {
                Some(at) => (&line[..at], &line[at + 1..], rest),
                None => {
                    let (length, rest) = rest.split_at(8);
                    let length = u64::from_le_bytes(length.try_into().expect("eight")) as usize;
                    assert_eq!(rest[length], b'\n');
                    (line, &rest[..length], &rest[length + 1..])
                }
            };
            let name = String::from_utf8(name.to_vec()).expect("a name");
            assert!(fields.insert(name, value.to_vec()).is_none(), "once");
            entry = rest;
        }
        assert!(entry.is_empty());
        fields
    }

    /// The next entry, and whether it came in a file.
    fn receive(journal: &UnixDatagram) -> (Fields, bool) {
        let mut bytes = vec![0; 1 << 20];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(
            journal,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut rights,
            RecvFlags::empty(),
        )
        .expect("read");
        if let Some(message) = rights.drain().next() {
            let RecvAncillaryMessage::ScmRights(mut files) = message else {
                panic!("no file")
            };
            let mut file = File::from(files.next().expect("a file"));
            assert!(
                file.set_len(1).is_err() && file.write_all(b"x").is_err(),
                "it is sealed"
            );
            let mut whole = Vec::new();
            file.rewind().expect("to the beginning");
            file.read_to_end(&mut whole).expect("readable");
            assert_eq!(read.bytes, 0);
            return (parse(&whole), true);
        }
        (parse(&bytes[..read.bytes]), false)
    }

    fn site() -> (tempfile::TempDir, UnixDatagram, JournalLog) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bound");
        let log = JournalLog::new("0123456789abcdef", "web").socket(path);
        (folder, journal, log)
    }

    fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
        fields.get(name).map(|value| std::str::from_utf8(value).expect("text"))
    }

    #[test]
    fn lines_are_entries() {
        let (_folder, journal, log) = site();
        let streams = Io::journald(log.tag("shop\nfront")).into_streams();
        let stdio = streams.open().expect("open");
        File::from(stdio.stdout)
            .write_all(b"one\n\xff two\nha")
            .expect("written");
        let entries: Vec<Fields> = (0..3).map(|_| receive(&journal).0).collect();
        for (name, value) in [
            ("CONTAINER_ID", "0123456789ab"),
            ("CONTAINER_ID_FULL", "0123456789abcdef"),
            ("CONTAINER_NAME", "web"),
            ("CONTAINER_TAG", "shop\nfront"),
            ("SYSLOG_IDENTIFIER", "shop\nfront"),
            ("PRIORITY", "6"),
        ] {
            assert!(
                entries.iter().all(|entry| text(entry, name) == Some(value)),
                "{name}: {entries:?}"
            );
        }
        let messages: Vec<&[u8]> = entries.iter().map(|entry| &entry["MESSAGE"][..]).collect();
        assert_eq!(messages, [&b"one"[..], b"\xff two", b"ha"]);
        let partial = |entry: &Fields| text(entry, "CONTAINER_PARTIAL_MESSAGE") == Some("true");
        assert_eq!(entries.iter().map(partial).collect::<Vec<_>>(), [false, false, true]);

        let mut long = vec![b'x'; 20_000];
        long.push(b'\n');
        File::from(stdio.stderr).write_all(&long).expect("written");
        let ((first, _), (second, _)) = (receive(&journal), receive(&journal));
        assert!(
            partial(&first) && !partial(&second) && text(&first, "PRIORITY") == Some("3"),
            "{second:?}"
        );
        assert_eq!(first["MESSAGE"].len() + second["MESSAGE"].len(), 20_000);
    }

    #[test]
    fn what_is_too_large_for_a_datagram_goes_in_a_sealed_file() {
        let (_folder, journal, log) = site();
        let sender = Journal::open(&log).expect("open");
        let large = vec![b'y'; 8 << 20];
        sender.send(OutputStream::Stdout, &large).expect("sent");
        let (fields, in_file) = receive(&journal);
        assert!(in_file && fields["MESSAGE"] == large && text(&fields, "CONTAINER_NAME") == Some("web"));
        sender.send(OutputStream::Stdout, b"small\n").expect("sent");
        assert!(!receive(&journal).1);
    }

    #[test]
    fn a_journal_that_was_restarted_is_found_again_and_one_that_is_not_there_is_told() {
        let (folder, journal, log) = site();
        let sender = Journal::open(&log).expect("open");
        drop(journal);
        let path = folder.path().join("socket");
        std::fs::remove_file(&path).expect("removed");
        assert!(sender.send(OutputStream::Stdout, b"lost\n").is_err());
        let journal = UnixDatagram::bind(&path).expect("bound");
        sender.send(OutputStream::Stdout, b"found\n").expect("sent");
        assert_eq!(text(&receive(&journal).0, "MESSAGE"), Some("found"));

        let nowhere = Io::journald(log.socket(folder.path().join("none"))).into_streams();
        let error = nowhere.open().expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("systemd-journald run?"), "{error}");
    }
}
