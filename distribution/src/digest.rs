use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The digest of `bytes` under `algorithm`; `None` when the algorithm is none that we compute.
pub(crate) fn digest_of(algorithm: &DigestAlgorithm, bytes: &[u8]) -> Option<Digest> {
    let (name, hex) = match algorithm {
        DigestAlgorithm::Sha256 => ("sha256", hex(&Sha256::digest(bytes))),
        DigestAlgorithm::Sha384 => ("sha384", hex(&Sha384::digest(bytes))),
        DigestAlgorithm::Sha512 => ("sha512", hex(&Sha512::digest(bytes))),
        _ => return None,
    };
    Some(Digest::from_str(&format!("{name}:{hex}")).expect("a computed digest is well-formed"))
}

/// The SHA-256 digest of `bytes`, by which everything that has no name yet is named.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    digest_of(&DigestAlgorithm::Sha256, bytes).expect("sha256 is computed here")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").as_ref(), empty);
        let other = DigestAlgorithm::from("md5");
        assert_eq!(digest_of(&other, b""), None);
        assert!(digest_of(&DigestAlgorithm::Sha512, b"x").is_some_and(|digest| digest.digest().len() == 128));
    }
}
