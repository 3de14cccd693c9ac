//! A connection to a D-Bus daemon: authentication, calls, and signals that are waited for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use super::wire::{MOST, Malformed, Reader, Value, put_all};

/// How long the bus may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A message that came in.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    answers: u32,
    member: String,
    /// The name of an error.
    error: String,
    pub(super) body: Vec<Value>,
}

/// What a call on the bus ends with.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The other side answers with an error: its name and its words.
    Named(String, String),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Io(malformed.into())
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while a reply was waited for.
    signals: VecDeque<Message>,
}

/// Which member of which object is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

const DAEMON: Target<'_> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

impl Bus {
    /// Connects by the address of a bus (D-Bus specification, "Server Addresses"); the first that works, of those that are Unix sockets.
    pub(super) fn connect(addresses: &str) -> Result<Self, Refusal> {
        let mut last = io::Error::new(io::ErrorKind::Unsupported, "no address of a Unix socket");
        for address in addresses.split(';') {
            let Some(address) = socket(address) else { continue };
            match address.and_then(|address| UnixStream::connect_addr(&address)) {
                Ok(stream) => return Self::greet(stream),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn greet(stream: UnixStream) -> Result<Self, Refusal> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self {
            stream,
            serial: 0,
            signals: VecDeque::new(),
        };
        // The user is told in hexadecimal digits of its decimal ones.
        let user = rustix::process::geteuid().as_raw().to_string();
        let digits: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.stream
            .write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            let refused = io::Error::new(io::ErrorKind::PermissionDenied, format!("the bus answers '{answer}'"));
            return Err(refused.into());
        }
        bus.stream.write_all(b"BEGIN\r\n")?;
        bus.call(DAEMON, &[])?;
        Ok(bus)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if line.len() > 512 {
                return Err(Malformed.into());
            }
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Calls, and waits for the reply.
    pub(super) fn call(&mut self, target: Target<'_>, body: &[Value]) -> Result<Vec<Value>, Refusal> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&call_message(serial, target, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                REPLY if message.answers == serial => return Ok(message.body),
                ERROR if message.answers == serial => {
                    let words = message
                        .body
                        .first()
                        .and_then(Value::as_text)
                        .unwrap_or_default()
                        .to_owned();
                    return Err(Refusal::Named(message.error, words));
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Asks to be sent the signals that a rule describes.
    pub(super) fn subscribe(&mut self, rule: &str) -> Result<(), Refusal> {
        let target = Target {
            member: "AddMatch",
            ..DAEMON
        };
        self.call(target, &[Value::text(rule)]).map(drop)
    }

    /// Waits for the next signal of this name.
    pub(super) fn signal(&mut self, member: &str) -> Result<Message, Refusal> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind == SIGNAL && message.member == member {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message, Refusal> {
        // Order of bytes, kind, flags, version; length of the body, serial, length of the fields.
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || body > MOST || fields > MOST {
            return Err(Malformed.into());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let mut whole = head[12..16].to_vec();
        // The fields begin at byte 16 of the message, a multiple of 8; here, at byte 8.
        whole.extend([0; 4]);
        whole.extend(&rest[..fields]);
        let mut message = Message {
            kind: head[1],
            answers: 0,
            member: String::new(),
            error: String::new(),
            body: Vec::new(),
        };
        let mut signature = String::new();
        let list = Reader::new(&whole).values("a(yv)")?;
        if let Some(Value::Array(_, fields)) = list.into_iter().next() {
            for field in fields {
                field_of(&mut message, &mut signature, &field);
            }
        }
        message.body = Reader::new(&rest[fields.next_multiple_of(8)..]).values(&signature)?;
        Ok(message)
    }
}

fn field_of(message: &mut Message, signature: &mut String, field: &Value) {
    let Value::Struct(pair) = field else { return };
    let [Value::Byte(code), Value::Variant(value)] = &pair[..] else {
        return;
    };
    match (code, &**value) {
        (3, Value::Text(member)) => message.member.clone_from(member),
        (4, Value::Text(error)) => message.error.clone_from(error),
        (5, Value::U32(serial)) => message.answers = *serial,
        (8, Value::Signature(text)) => signature.clone_from(text),
        _ => {}
    }
}

fn call_message(serial: u32, target: Target<'_>, body: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_all(&mut bytes, body);
    let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(1, Value::Path(target.path.into())),
        field(2, Value::text(target.interface)),
        field(3, Value::text(target.member)),
        field(6, Value::text(target.destination)),
    ];
    let signature: String = body.iter().map(Value::signature).collect();
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    let mut message = vec![b'l', CALL, 0, 1];
    message.extend((bytes.len() as u32).to_le_bytes());
    message.extend(serial.to_le_bytes());
    put_all(&mut message, &[Value::Array("(yv)".into(), fields)]);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(bytes);
    message
}

/// The socket of `unix:path=/run/dbus/system_bus_socket` or `unix:abstract=...`; none for other kinds of addresses.
fn socket(address: &str) -> Option<io::Result<SocketAddr>> {
    let keys = address.strip_prefix("unix:")?;
    let value = |key: &str| {
        let found = keys
            .split(',')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        found.map(unescape)
    };
    if let Some(path) = value("path") {
        return Some(SocketAddr::from_pathname(path));
    }
    value("abstract").map(|name| SocketAddr::from_abstract_name(name.as_bytes()))
}

/// Undoes the `%2f` of addresses.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
