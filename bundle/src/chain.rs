use longshore_content::sha256;
use oci_spec::image::{Digest, DigestAlgorithm, ImageConfiguration};

use crate::{Error, Result};

/// The diffIDs of an image, lowest layer first.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for one that is no digest, or of another algorithm than sha256, sha384 and
/// sha512.
pub fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let parse = |(index, value): (usize, &String)| {
        let invalid = |reason: String| Error::InvalidDiffId {
            index,
            value: value.clone(),
            reason,
        };
        let digest: Digest = value
            .parse()
            .map_err(|error: oci_spec::OciSpecError| invalid(error.to_string()))?;
        match digest.algorithm() {
            DigestAlgorithm::Sha256 | DigestAlgorithm::Sha384 | DigestAlgorithm::Sha512 => Ok(digest),
            _ => Err(invalid("only sha256, sha384 and sha512 are supported".to_owned())),
        }
    };
    config.rootfs().diff_ids().iter().enumerate().map(parse).collect()
}

/// The chainIDs of a stack of layers, lowest first (image spec, "Layer ChainID").
///
/// A chainID names the filesystem that results from a layer on top of all below it; it is the name of the layer's
/// committed snapshot.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.to_string(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()).to_string(),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_layer_is_its_own_chain() {
        let one = sha256(b"one");
        assert_eq!(chain_ids(std::slice::from_ref(&one)), [one.to_string()]);
        assert!(chain_ids(&[]).is_empty());
    }

    /// The figures are those that `printf '%s %s' A B | sha256sum` gives.
    #[test]
    fn a_chain_is_the_hash_of_the_text_of_the_two() {
        let a: Digest = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        let b: Digest = format!("sha256:{}", "b".repeat(64)).parse().expect("a digest");
        let chain = chain_ids(&[a.clone(), b.clone(), a.clone()]);
        assert_eq!(chain[0], a.to_string());
        assert_eq!(
            chain[1],
            "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"
        );
        assert_eq!(
            chain[2],
            "sha256:406364a4bd8d39df8107071d4494fa73814420337124657ec5999b072e5d3352"
        );
    }
}
