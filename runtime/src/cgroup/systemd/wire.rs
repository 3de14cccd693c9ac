//! D-Bus values as bytes: the specification's "Marshaling (Wire Format)", little-endian, as far as a conversation with systemd needs it.

use std::fmt;

/// Nothing that systemd says to us is longer; the specification allows 64 MiB.
pub(super) const MOST: usize = 1 << 20;

/// How deep values may be nested.
const DEEPEST: usize = 16;

/// A value, which knows its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Of values of this type.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        Self::Array("y".into(), bytes.into_iter().map(Self::Byte).collect())
    }

    pub(crate) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(of, _) => format!("a{of}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Variant(_) => "v".into(),
        }
    }

    /// The text of a string or a path.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) => Some(text),
            Self::Variant(inside) => inside.as_text(),
            _ => None,
        }
    }
}

/// How a value of a type begins: at a multiple of this.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Appends values to a message.
pub(super) fn put_all(out: &mut Vec<u8>, values: &[Value]) {
    values.iter().for_each(|value| put(out, value));
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A text of a call of ours is far below 4 GiB.
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
    out.push(0);
}

fn put(out: &mut Vec<u8>, value: &Value) {
    align(out, alignment(&value.signature()));
    match value {
        Value::Byte(byte) => out.push(*byte),
        Value::Bool(truth) => out.extend(u32::from(*truth).to_le_bytes()),
        Value::I32(number) => out.extend(number.to_le_bytes()),
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::I64(number) => out.extend(number.to_le_bytes()),
        Value::U64(number) => out.extend(number.to_le_bytes()),
        Value::Double(number) => out.extend(number.to_le_bytes()),
        Value::Text(text) | Value::Path(text) => put_text(out, text),
        Value::Signature(signature) => put_signature(out, signature),
        Value::Array(of, values) => {
            let length = out.len();
            out.extend([0; 4]);
            align(out, alignment(of));
            let start = out.len();
            put_all(out, values);
            let bytes = ((out.len() - start) as u32).to_le_bytes();
            out[length..length + 4].copy_from_slice(&bytes);
        }
        Value::Struct(fields) => put_all(out, fields),
        Value::Variant(inside) => {
            put_signature(out, &inside.signature());
            put(out, inside);
        }
    }
}

fn put_signature(out: &mut Vec<u8>, signature: &str) {
    out.push(signature.len() as u8);
    out.extend(signature.as_bytes());
    out.push(0);
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message of the bus that is not well-formed")
    }
}

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, malformed.to_string())
    }
}

/// Reads values of a signature, of which either may be anything.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_values(bytes: &[u8], signature: &str) {
    let _ = Reader::new(bytes).values(signature);
}

/// Takes values from a message.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    /// Values of all the types of a signature.
    pub(super) fn values(&mut self, signature: &str) -> Result<Vec<Value>, Malformed> {
        self.several(signature, 0)
    }

    fn several(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split(signature)?;
            values.push(self.value(first, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed)
    }

    fn short_text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.take(1)?[0]);
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed)
    }

    fn value(&mut self, signature: &str, depth: usize) -> Result<Value, Malformed> {
        if depth > DEEPEST {
            return Err(Malformed);
        }
        self.align(alignment(signature))?;
        Ok(match signature.as_bytes()[0] {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(u32::from_le_bytes(self.array()?) != 0),
            b'i' => Value::I32(i32::from_le_bytes(self.array()?)),
            b'u' | b'h' => Value::U32(u32::from_le_bytes(self.array()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.array()?)),
            b't' => Value::U64(u64::from_le_bytes(self.array()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.array()?)),
            b's' => Value::Text(self.text()?),
            b'o' => Value::Path(self.text()?),
            b'g' => Value::Signature(self.short_text()?),
            b'v' => {
                let inside = self.short_text()?;
                let (first, rest) = split(&inside)?;
                if !rest.is_empty() {
                    return Err(Malformed);
                }
                Value::Variant(Box::new(self.value(first, depth + 1)?))
            }
            b'a' => self.array_of(&signature[1..], depth)?,
            b'(' | b'{' => Value::Struct(self.several(&signature[1..signature.len() - 1], depth + 1)?),
            _ => return Err(Malformed),
        })
    }

    fn array_of(&mut self, of: &str, depth: usize) -> Result<Value, Malformed> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        self.align(alignment(of))?;
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
            .ok_or(Malformed)?;
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(of, depth + 1)?);
            // A struct of nothing is no type, and an array of them would have no end.
            if self.at == before {
                return Err(Malformed);
            }
        }
        if self.at != end {
            return Err(Malformed);
        }
        Ok(Value::Array(of.to_owned(), values))
    }
}

/// The first complete type of a signature, and the rest.
fn split(signature: &str) -> Result<(&str, &str), Malformed> {
    let bytes = signature.as_bytes();
    if !signature.is_ascii() || bytes.len() > 255 {
        return Err(Malformed);
    }
    let mut at = 0;
    while bytes.get(at) == Some(&b'a') {
        at += 1;
    }
    let mut open = 0usize;
    loop {
        match bytes.get(at).ok_or(Malformed)? {
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1).ok_or(Malformed)?,
            _ => {}
        }
        at += 1;
        if open == 0 {
            return Ok(signature.split_at(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(values: &[Value]) -> Vec<Value> {
        let signature: String = values.iter().map(Value::signature).collect();
        let mut bytes = Vec::new();
        put_all(&mut bytes, values);
        Reader::new(&bytes).values(&signature).expect("well-formed")
    }

    #[test]
    fn what_is_written_is_read() {
        let property = Value::Struct(vec![
            Value::text("MemoryMax"),
            Value::Variant(Box::new(Value::U64(u64::MAX))),
        ]);
        let values = vec![
            Value::Byte(1),
            Value::text("a"),
            Value::Bool(true),
            Value::Array("(sv)".into(), vec![property.clone(), property]),
            Value::Array("(sa(sv))".into(), Vec::new()),
            Value::bytes([1, 2, 3]),
            Value::Double(0.5),
            Value::I64(-1),
            Value::Path("/a".into()),
            Value::Signature("a{sv}".into()),
        ];
        assert_eq!(round(&values), values);
    }

    #[test]
    fn bytes_are_where_the_specification_puts_them() {
        let mut bytes = Vec::new();
        put_all(
            &mut bytes,
            &[Value::text("ab"), Value::Array("t".into(), vec![Value::U64(1)])],
        );
        let text = [2, 0, 0, 0, b'a', b'b', 0, 0];
        // The length does not have the gap before the first element in it.
        let array = [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..8], text);
        assert_eq!(bytes[8..12], array[..4]);
        assert_eq!(bytes[16..], array[8..]);
    }

    #[test]
    fn an_array_of_nothing_ends() {
        for signature in ["a()", "a(}", "a{}", "a(())"] {
            let bytes = [4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            assert!(Reader::new(&bytes).values(signature).is_err(), "{signature}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), signature in "[ybiuxtdsogva(){}]{0,12}") {
            let _ = Reader::new(&bytes).values(&signature);
        }
    }
}
