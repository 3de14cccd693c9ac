use longshore_content::Hasher;
use oci_spec::image::{Digest, DigestAlgorithm};

/// The digest of `bytes` under `algorithm`; `None` when the algorithm is none that we compute.
pub(crate) fn digest_of(algorithm: &DigestAlgorithm, bytes: &[u8]) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm).ok()?;
    hasher.update(bytes);
    Some(hasher.finish())
}
