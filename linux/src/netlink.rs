//! Messages of rtnetlink(7), built and read by hand: a container engine needs a handful of them, and no more of the protocol.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, send, socket_with};

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

// linux/netlink.h
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel sends no more at once (netlink(7)).
const LARGEST: usize = 32 << 10;
/// How often a list is read again that changed meanwhile.
const TRIES: u32 = 32;

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of this type, with what comes between its header and its attributes.
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let acknowledged = if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | acknowledged).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// Adds an attribute. None of those that are sent here is longer than an interface's name.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).expect("attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).expect("requests are short");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// A message of the kernel: its type and what comes after its header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The attributes after this many bytes.
    pub(crate) fn attributes(&self, skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
        let mut rest = self.body.get(skip..).unwrap_or_default();
        std::iter::from_fn(move || {
            let length = usize::from(number(rest, 0)?);
            // The two highest bits say what is in it, not which it is.
            let kind = number(rest, 2)? & 0x3fff;
            let value = rest.get(ATTRIBUTE..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A socket to the kernel's side of one network namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// What a message means for the talk that it belongs to.
enum Turn {
    More,
    Over,
    Again,
}

impl Socket {
    /// In the namespace that the calling thread is in.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // The protocol number 0 is NETLINK_ROUTE's.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks, and waits for all of the answer.
    pub(crate) fn ask(&mut self, request: &mut Request) -> Result<Vec<Answer>, Errno> {
        for _ in 0..TRIES {
            if let Some(answers) = self.try_ask(request)? {
                return Ok(answers);
            }
        }
        Err(Errno::AGAIN)
    }

    /// None when the list changed while it was read.
    fn try_ask(&mut self, request: &mut Request) -> Result<Option<Vec<Answer>>, Errno> {
        self.sequence += 1;
        send(&self.fd, request.finish(self.sequence), SendFlags::empty())?;
        let (mut answers, mut whole) = (Vec::new(), true);
        let mut buffer = vec![0; LARGEST];
        loop {
            let (_, length, from) = match recvfrom(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            // Only the kernel has number 0; another process could pretend.
            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            let mut rest = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            while !rest.is_empty() {
                let length = number32(rest, 0).map_or(0, |length| length as usize);
                let message = rest.get(..length).filter(|m| m.len() >= HEADER).ok_or(Errno::BADMSG)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if number32(message, 8) != Some(self.sequence) {
                    continue;
                }
                match turn(message)? {
                    Turn::More => {}
                    Turn::Again => whole = false,
                    Turn::Over => return Ok(whole.then_some(answers)),
                }
                answers.push(Answer {
                    kind: number(message, 4).unwrap_or(0),
                    body: message[HEADER..].to_vec(),
                });
            }
        }
    }
}

fn turn(message: &[u8]) -> Result<Turn, Errno> {
    let interrupted = number(message, 6).is_some_and(|flags| flags & NLM_F_DUMP_INTR != 0);
    match number(message, 4) {
        Some(NLMSG_ERROR) => match number32(message, HEADER).map(u32::cast_signed) {
            Some(0) => Ok(Turn::Over),
            Some(errno) => Err(Errno::from_raw_os_error(-errno)),
            None => Err(Errno::BADMSG),
        },
        Some(NLMSG_DONE) => Ok(Turn::Over),
        _ if interrupted => Ok(Turn::Again),
        _ => Ok(Turn::More),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_netlink_has_it() {
        let mut request = Request::new(16, NLM_F_CREATE, &[1, 2, 3, 4])
            .attribute(3, b"lo\0")
            .attribute(5, &[9]);
        let bytes = request.finish(7);
        assert_eq!(bytes.len(), HEADER + 4 + 8 + 8);
        assert_eq!(number32(bytes, 0), Some(bytes.len() as u32));
        assert_eq!((number(bytes, 4), number(bytes, 6)), (Some(16), Some(NLM_F_CREATE | 5)));
        assert_eq!(number32(bytes, 8), Some(7));
        assert_eq!(
            &bytes[20..28],
            [&7u16.to_ne_bytes()[..], &3u16.to_ne_bytes(), b"lo\0\0"].concat()
        );
    }

    #[test]
    fn attributes_that_do_not_fit_end_the_list() {
        let mut body = Request::new(16, 0, &[0; 4])
            .attribute(1, b"abcde")
            .attribute(2, b"f")
            .bytes;
        let of = |body: &[u8]| {
            let answer = Answer {
                kind: 16,
                body: body[HEADER..].to_vec(),
            };
            answer
                .attributes(4)
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&body), [(1, b"abcde".to_vec()), (2, b"f".to_vec())]);
        body.truncate(body.len() - 4);
        assert_eq!(of(&body), [(1, b"abcde".to_vec())], "its value is missing");
        body[20] = 200;
        assert_eq!(of(&body), [], "it is longer than the message");
        body[20] = 0;
        assert_eq!(of(&body), [], "it is shorter than its own header");
    }

    #[test]
    fn the_kernels_last_word_is_told_from_the_others() {
        let message = |kind: u16, flags: u16, code: i32| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert!(matches!(turn(&message(NLMSG_ERROR, 0, 0)), Ok(Turn::Over)));
        assert!(matches!(turn(&message(NLMSG_ERROR, 0, -19)), Err(Errno::NODEV)));
        assert!(matches!(turn(&message(NLMSG_DONE, 0, 0)), Ok(Turn::Over)));
        assert!(matches!(turn(&message(16, 0, 0)), Ok(Turn::More)));
        assert!(matches!(turn(&message(16, NLM_F_DUMP_INTR, 0)), Ok(Turn::Again)));
    }
}
