//! Digests: computed while bytes pass, and set aside half-way so that a resumed ingest need not hash again.

use std::fmt;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::{Error, Result};

/// Computes an OCI digest (sha256, sha384 or sha512) of bytes as they pass.
///
/// ```
/// use longshore_content::Hasher;
///
/// let mut hasher = Hasher::default();
/// hasher.update(b"hello ");
/// hasher.update(b"world");
/// assert_eq!(hasher.finish(), longshore_content::sha256(b"hello world"));
/// ```
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    ///
    /// # Errors
    /// [`UnsupportedAlgorithm`](Error::UnsupportedAlgorithm) for anything but the SHA-2 family that the OCI image
    /// specification registers.
    pub fn new(algorithm: &DigestAlgorithm) -> Result<Self> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Self(State::Sha256(Sha256::new()))),
            DigestAlgorithm::Sha384 => Ok(Self(State::Sha384(Sha384::new()))),
            DigestAlgorithm::Sha512 => Ok(Self(State::Sha512(Sha512::new()))),
            other => Err(Error::UnsupportedAlgorithm(other.to_string())),
        }
    }

    /// The hasher for what `expected` promises; sha256 when it promises nothing.
    pub(crate) fn expecting(expected: Option<&Digest>) -> Result<Self> {
        expected.map_or_else(|| Ok(Self::default()), |digest| Self::new(digest.algorithm()))
    }

    /// Which algorithm this is.
    pub fn algorithm(&self) -> DigestAlgorithm {
        match self.0 {
            State::Sha256(_) => DigestAlgorithm::Sha256,
            State::Sha384(_) => DigestAlgorithm::Sha384,
            State::Sha512(_) => DigestAlgorithm::Sha512,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(data),
            State::Sha384(hash) => hash.update(data),
            State::Sha512(hash) => hash.update(data),
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let hash = match self.0 {
            State::Sha256(hash) => to_hex(&hash.finalize()),
            State::Sha384(hash) => to_hex(&hash.finalize()),
            State::Sha512(hash) => to_hex(&hash.finalize()),
        };
        Digest::try_from(format!("{algorithm}:{hash}")).expect("a SHA-2 hash in hex is a valid digest")
    }

    /// The state in hex, to go on from later. Readable by the same minor version of `sha2` only.
    pub(crate) fn save(&self) -> String {
        match &self.0 {
            State::Sha256(hash) => to_hex(&hash.serialize()),
            State::Sha384(hash) => to_hex(&hash.serialize()),
            State::Sha512(hash) => to_hex(&hash.serialize()),
        }
    }

    /// Goes on from a saved state; `None` when it is not one.
    pub(crate) fn restore(algorithm: &DigestAlgorithm, saved: &str) -> Option<Self> {
        fn load<H: SerializableState>(saved: &str) -> Option<H> {
            let bytes = from_hex(saved)?;
            H::deserialize(&bytes.as_slice().try_into().ok()?).ok()
        }
        Some(Self(match algorithm {
            DigestAlgorithm::Sha256 => State::Sha256(load(saved)?),
            DigestAlgorithm::Sha384 => State::Sha384(load(saved)?),
            DigestAlgorithm::Sha512 => State::Sha512(load(saved)?),
            _ => return None,
        }))
    }
}

impl Default for Hasher {
    /// sha256, the algorithm that every registry speaks.
    fn default() -> Self {
        Self(State::Sha256(Sha256::new()))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

/// The sha256 digest of bytes in memory.
pub fn sha256(data: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(data);
    hasher.finish()
}

/// Lower-case hex.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // FIPS 180-2, appendices B.1 and C.1: the message "abc".
        assert_eq!(
            sha256(b"abc").as_ref(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::new(&DigestAlgorithm::Sha512).unwrap();
        hasher.update(b"abc");
        assert!(
            hasher
                .finish()
                .as_ref()
                .starts_with("sha512:ddaf35a193617abacc417349ae204131")
        );
    }

    #[test]
    fn a_saved_state_goes_on_at_any_byte() {
        let data: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for algorithm in [
            DigestAlgorithm::Sha256,
            DigestAlgorithm::Sha384,
            DigestAlgorithm::Sha512,
        ] {
            let mut whole = Hasher::new(&algorithm).unwrap();
            whole.update(&data);
            let whole = whole.finish();
            for cut in [0, 1, 63, 64, 65, 127, 128, 129, 999, 1000] {
                let mut first = Hasher::new(&algorithm).unwrap();
                first.update(&data[..cut]);
                let mut second = Hasher::restore(&algorithm, &first.save()).unwrap();
                second.update(&data[cut..]);
                assert_eq!(second.finish(), whole, "{algorithm} cut at {cut}");
            }
        }
    }

    #[test]
    fn nonsense_is_not_a_state() {
        for saved in ["", "0", "zz", "00", &"ff".repeat(200)] {
            assert!(Hasher::restore(&DigestAlgorithm::Sha256, saved).is_none(), "{saved}");
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        let error = Hasher::new(&DigestAlgorithm::from("md5")).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    }
}
