//! The part of protobuf's encoding that CRIU's service speaks: numbers and bytes, in fields.

/// Writes the fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writer(Vec<u8>);

const NUMBER: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number; a negative one takes ten bytes, as protobuf's int32 does.
    pub(super) fn number(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3 | NUMBER);
        self.varint(value as u64);
        self
    }

    /// A truth, written only if it is one.
    pub(super) fn flag(&mut self, field: u32, is_set: bool) -> &mut Self {
        if is_set {
            self.number(field, 1);
        }
        self
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn message(&mut self, field: u32, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// What is in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(number as i64),
            Self::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }
}

/// The fields of a message, by number; none if it is not one.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            NUMBER => Value::Number(varint(&mut bytes)?),
            BYTES => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            EIGHT_BYTES => Value::Bytes(take(&mut bytes, 8)?),
            FOUR_BYTES => Value::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        fields.push((field, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Writer::default();
        inner.number(1, -1).bytes(2, b"text");
        let mut outer = Writer::default();
        outer.number(1, 300).message(5, &inner).flag(6, false).flag(70, true);
        let bytes = outer.finish();
        assert_eq!(bytes[..3], [0x08, 0xac, 0x02], "the encoding's own example");
        let read = fields(&bytes).expect("a message");
        assert_eq!((read[0], read[2]), ((1, Value::Number(300)), (70, Value::Number(1))));
        assert_eq!(read.len(), 3);
        let inner = fields(read[1].1.bytes().expect("bytes")).expect("a message");
        assert_eq!((inner[0].1.number(), inner[1].1), (Some(-1), Value::Bytes(b"text")));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let mut whole = Writer::default();
        whole.bytes(2, b"text").number(3, 1 << 40);
        let whole = whole.finish();
        for length in [1, 2, 5, whole.len() - 1] {
            assert_eq!(fields(&whole[..length]), None, "{length}");
        }
        assert_eq!(
            fields(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None
        );
        assert_eq!(fields(&[0x0b]), None, "groups are not spoken");
    }
}
