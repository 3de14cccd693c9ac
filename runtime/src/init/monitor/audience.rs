use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, accept_with, recv, sendmsg};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::OutputStream;
use crate::attach::{Frame, LONGEST_INPUT};

/// How much waits for a reader at most. At the end there is room for one word more.
const ROOM: usize = 64 * 1024;
/// How many may be attached at once.
pub(crate) const SEATS: usize = 8;

/// One who is attached.
#[derive(Debug)]
struct Reader {
    socket: OwnedFd,
    /// How many bytes were not sent to it, because it had not read what came before.
    missed: u64,
}

/// Those who are attached: each is shown the output, and may type.
#[derive(Debug)]
pub(super) struct Audience {
    listener: OwnedFd,
    readers: [Option<Reader>; SEATS],
    /// Where input goes: a pipe, or the master side of a terminal.
    input: Option<OwnedFd>,
    is_terminal: bool,
    /// What was typed and has no room in there yet.
    pending: [u8; LONGEST_INPUT],
    begin: usize,
    end: usize,
}

impl Audience {
    pub(super) fn new(listener: OwnedFd, input: Option<OwnedFd>) -> Self {
        Self {
            listener,
            readers: [const { None }; SEATS],
            input,
            is_terminal: false,
            pending: [0; LONGEST_INPUT],
            begin: 0,
            end: 0,
        }
    }

    /// What of its memory holds nothing.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        let from = if self.begin < self.end { self.end } else { 0 };
        self.pending.get_mut(from..).unwrap_or_default()
    }

    /// Takes the container's terminal, in which is typed from now on.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) {
        self.input = Some(master);
        self.is_terminal = true;
    }

    /// The listener, if there is room for one more; and where pending input waits for room.
    pub(super) fn doors(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; 2] {
        let room = self.readers.iter().any(Option::is_none);
        let listener = Some((self.listener.as_fd(), PollFlags::IN)).filter(|_| room);
        let input = self.input.as_ref().filter(|_| self.begin < self.end);
        [listener, input.map(|input| (input.as_fd(), PollFlags::OUT))]
    }

    /// The readers and what is waited for of each. Nobody types while what was typed before has no room.
    pub(super) fn seats(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; SEATS] {
        self.readers.each_ref().map(|reader| {
            let reader = reader.as_ref()?;
            let typing = if self.begin < self.end {
                PollFlags::empty()
            } else {
                PollFlags::IN
            };
            let notice = if reader.missed > 0 {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            // Who is asked for nothing would still tell, again and again, that its other end is gone.
            Some((reader.socket.as_fd(), typing | notice)).filter(|(_, wanted)| !wanted.is_empty())
        })
    }

    /// Somebody is at the door, or more than one.
    pub(super) fn admit(&mut self) {
        // All who are there now: output that is read from here on is for them.
        for seat in self.readers.iter_mut().filter(|reader| reader.is_none()) {
            let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else {
                return;
            };
            let _ = set_socket_send_buffer_size(&socket, ROOM);
            *seat = Some(Reader { socket, missed: 0 });
        }
    }

    /// Shows output to all. Who does not keep up misses some, and is told how much.
    pub(super) fn show(&mut self, stream: OutputStream, bytes: &[u8]) {
        for seat in &mut self.readers {
            if let Some(reader) = seat
                && reader.show(stream, bytes).is_err()
            {
                *seat = None;
            }
        }
    }

    /// Something is to be done for a reader.
    pub(super) fn attend(&mut self, index: usize) {
        let Some(seat) = self.readers.get_mut(index) else {
            return;
        };
        let Some(reader) = seat else { return };
        if reader.tell_missed().is_err() {
            *seat = None;
            return;
        }
        if self.begin < self.end {
            return;
        }
        let mut said = [0u8; LONGEST_INPUT + 1];
        match recv(&reader.socket, &mut said[..], RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((_, length @ 1..)) => self.hear(said.get(..length).unwrap_or_default()),
            _ => *seat = None,
        }
    }

    fn hear(&mut self, said: &[u8]) {
        match Frame::decode(said) {
            Some(Frame::Input(bytes)) => {
                if let Some(place) = self.pending.get_mut(..bytes.len()) {
                    place.copy_from_slice(bytes);
                    (self.begin, self.end) = (0, bytes.len());
                    self.pass_on();
                }
            }
            Some(Frame::CloseInput) if !self.is_terminal => self.input = None,
            Some(Frame::Size { rows, columns }) => {
                if let Some(terminal) = self.input.as_ref().filter(|_| self.is_terminal) {
                    let size = Winsize {
                        ws_row: rows,
                        ws_col: columns,
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    let _ = tcsetwinsize(terminal, size);
                }
            }
            _ => {}
        }
    }

    /// Hands pending input to the container, as far as there is room.
    pub(super) fn pass_on(&mut self) {
        while let Some(bytes) = self.pending.get(self.begin..self.end).filter(|bytes| !bytes.is_empty()) {
            let Some(input) = &self.input else {
                self.begin = self.end;
                return;
            };
            match rustix::io::write(input, bytes) {
                Ok(length) => self.begin += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => self.input = None,
            }
        }
    }

    /// Tells those who missed something at the end.
    pub(super) fn finish(&mut self) {
        for reader in self.readers.iter_mut().flatten() {
            let _ = set_socket_send_buffer_size(&reader.socket, 2 * ROOM);
            let _ = reader.tell_missed();
        }
    }
}

impl Reader {
    fn show(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<(), Errno> {
        // What was missed is told first, when there is room again.
        if self.missed > 0 || !self.send(Frame::of_output(stream), bytes)? {
            self.missed += bytes.len() as u64;
        }
        Ok(())
    }

    fn tell_missed(&mut self) -> Result<(), Errno> {
        if self.missed > 0 && self.send(Frame::MISSED, &self.missed.to_ne_bytes())? {
            self.missed = 0;
        }
        Ok(())
    }

    /// Whether there was room for it.
    fn send(&self, kind: u8, bytes: &[u8]) -> Result<bool, Errno> {
        let kind = [kind];
        let parts = [IoSlice::new(&kind), IoSlice::new(bytes)];
        let mut none = SendAncillaryBuffer::default();
        loop {
            match sendmsg(
                &self.socket,
                &parts,
                &mut none,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(false),
                sent => return sent.map(|_| true),
            }
        }
    }
}
