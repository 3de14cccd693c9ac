//! Headers of tar entries: ustar, with a PAX header before it for what that can't hold.

use rustix::fs::Timespec;

/// What an entry says of a file.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    /// Bytes that follow in the archive.
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// The length of a file with holes, a map of which is at the beginning of its content (PAX 1.0).
    pub(super) real_size: Option<u64>,
}

/// The largest number of seven octal digits.
const OCTAL_7: u64 = 0o7_777_777;
/// The largest number of eleven octal digits.
const OCTAL_11: u64 = 0o77_777_777_777;

impl Header<'_> {
    /// The bytes of the entry, its content not among them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let records = self.records();
        if !records.is_empty() {
            let name = truncated(b"PaxHeaders.0/", self.path);
            let mut header = [0; 512];
            fields(&mut header, &name, b'x', 0o644, records.len() as u64);
            checksum(&mut header);
            bytes.extend(header);
            bytes.extend(&records);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend(self.ustar());
        bytes
    }

    fn ustar(&self) -> [u8; 512] {
        let name = match self.real_size {
            Some(_) => truncated(b"GNUSparseFile.0/", self.path),
            None => truncated(b"", self.path),
        };
        let mut header = [0; 512];
        fields(&mut header, &name, self.kind, self.mode, self.size.min(OCTAL_11));
        octal(&mut header[108..116], u64::from(self.uid).min(OCTAL_7));
        octal(&mut header[116..124], u64::from(self.gid).min(OCTAL_7));
        let seconds = u64::try_from(self.mtime.tv_sec).unwrap_or(0);
        octal(&mut header[136..148], seconds.min(OCTAL_11));
        let link = truncated(b"", self.link);
        header[157..157 + link.len()].copy_from_slice(&link);
        octal(&mut header[329..337], u64::from(self.device.0));
        octal(&mut header[337..345], u64::from(self.device.1));
        checksum(&mut header);
        header
    }

    /// The PAX records, always in the same order.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if let Some(size) = self.real_size {
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.minor", b"0");
            record(&mut records, b"GNU.sparse.name", self.path);
            record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        } else if self.path.len() > 100 {
            record(&mut records, b"path", self.path);
        }
        if self.link.len() > 100 {
            record(&mut records, b"linkpath", self.link);
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if u64::from(id) > OCTAL_7 {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if self.size > OCTAL_11 {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        let fits = u64::try_from(self.mtime.tv_sec).is_ok_and(|seconds| seconds <= OCTAL_11);
        if self.mtime.tv_nsec != 0 || !fits {
            record(&mut records, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (key, value) in self.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        records
    }
}

/// What a header needs besides owner and time.
fn fields(header: &mut [u8; 512], name: &[u8], kind: u8, mode: u32, size: u64) {
    header[..name.len()].copy_from_slice(name);
    octal(&mut header[100..108], u64::from(mode));
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 0);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], 0);
    octal(&mut header[337..345], 0);
}

/// The sum of all bytes, its own field taken for spaces.
fn checksum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
}

/// Octal digits to the field's end, but for a zero byte there.
fn octal(field: &mut [u8], mut number: u64) {
    let (last, digits) = field.split_last_mut().expect("no field is empty");
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

/// As much of a path as the header's field takes; where that is not all, a record has the whole.
fn truncated(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    let mut name = [prefix, path].concat();
    name.truncate(100);
    name
}

/// `LENGTH KEY=VALUE`, the length with itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(format!("{len} ").into_bytes());
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// Seconds with a fraction, without zeros at its end. The fraction of a timespec counts upwards also before 1970.
fn decimal(time: Timespec) -> String {
    let nanos = time.tv_nsec;
    let (sign, seconds, nanos) = match (time.tv_sec, nanos) {
        (seconds, 0) => return seconds.to_string(),
        (seconds, nanos) if seconds < 0 => ("-", -(seconds + 1), 1_000_000_000 - nanos),
        (seconds, nanos) => ("", seconds, nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (sec, nsec, text) in [
            (0, 0, "0"),
            (-3, 0, "-3"),
            (1, 500_000_000, "1.5"),
            (-2, 750_000_000, "-1.25"),
            (-1, 1, "-0.999999999"),
            (1_700_000_000, 123_456_789, "1700000000.123456789"),
        ] {
            let time = Timespec {
                tv_sec: sec,
                tv_nsec: nsec,
            };
            assert_eq!(decimal(time), text);
        }
    }

    #[test]
    fn records_count_themselves() {
        for len in [0, 90, 91, 92, 93, 989, 990, 991] {
            let mut bytes = Vec::new();
            record(&mut bytes, b"path", &vec![b'x'; len]);
            let said: usize = std::str::from_utf8(&bytes)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, bytes.len());
        }
    }
}
