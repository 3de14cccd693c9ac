//! Names that the distribution specification allows ("Pulling manifests").

/// Whether `name` is a repository name: components of lower-case letters and digits, joined by `.`, `_`, `__` or
/// dashes, separated by slashes; at most 255 bytes.
pub(crate) fn is_repository(name: &str) -> bool {
    name.len() <= 255 && name.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = component.as_bytes().split(|&byte| alphanumeric(byte));
    let ends = [component.as_bytes().first(), component.as_bytes().last()];
    ends.into_iter().all(|end| end.is_some_and(|&byte| alphanumeric(byte)))
        && separators
            .into_iter()
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

/// Whether `tag` is a tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|&byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in ["a", "library/alpine", "a.b_c__d-e--f/0", "x/y/z"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a._b",
            "a b",
            "../a",
            "ü",
            &"a".repeat(256),
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "_x", "V1.0-rc_2", "1"] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }
}
