use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::LinuxSeccomp;

use super::{Arch, Filter, compile};
use crate::Result;

/// How many profiles a cache keeps: an application has one or a few.
const CAPACITY: usize = 16;

/// Compiled filters by the content of their profiles: an application that starts a thousand containers with one profile compiles it once.
///
/// A handle; its clones share what is kept. The [capacity](Self::capacity) is bounded, and what was used longest ago goes first. A cache changes no
/// outcome, so that all caches are equal.
#[derive(Clone, Debug, Default)]
pub struct FilterCache {
    /// Used last first.
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    profile: LinuxSeccomp,
    native: Arch,
    filter: Filter,
}

impl FilterCache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most profiles that are kept.
    pub const fn capacity(&self) -> usize {
        CAPACITY
    }

    /// As [`compile`], once for each profile. Others wait while one compiles: most of them want the same filter.
    ///
    /// # Errors
    /// As [`compile`]; a failure is not kept.
    pub fn compile(&self, profile: &LinuxSeccomp, native: Arch) -> Result<Filter> {
        // Nothing is half done when a compilation panics.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|k| k.native == native && k.profile == *profile) {
            kept[..=at].rotate_right(1);
            return Ok(kept[0].filter.clone());
        }
        let filter = compile(profile, native)?;
        if !filter.unknown.is_empty() {
            tracing::warn!(names = ?filter.unknown, "the seccomp profile names system calls that no ABI is known to have; they are left out");
        }
        kept.truncate(CAPACITY - 1);
        let (profile, stored) = (profile.clone(), filter.clone());
        kept.insert(
            0,
            Kept {
                profile,
                native,
                filter: stored,
            },
        );
        Ok(filter)
    }
}

impl PartialEq for FilterCache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for FilterCache {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn profile(errno: usize) -> LinuxSeccomp {
        let value = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno,
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
        serde_json::from_value(value).expect("a profile")
    }

    #[test]
    fn one_profile_is_compiled_once() {
        let cache = FilterCache::new();
        let compiled = |errno| cache.compile(&profile(errno), Arch::X86_64).expect("compiles");
        let first = compiled(1);
        assert_eq!(first, compile(&profile(1), Arch::X86_64).expect("compiles"));
        assert!(
            Arc::ptr_eq(&first.instructions, &compiled(1).instructions),
            "it is the same one"
        );
        let other = cache.clone().compile(&profile(1), Arch::Aarch64).expect("compiles");
        assert_ne!(first.instructions, other.instructions, "another machine's");
        assert_ne!(first.instructions, compiled(2).instructions, "another profile's");
        assert!(Arc::ptr_eq(&first.instructions, &compiled(1).instructions));
    }

    #[test]
    fn the_one_that_was_used_longest_ago_goes() {
        let cache = FilterCache::new();
        let compiled = |errno| {
            cache
                .compile(&profile(errno), Arch::X86_64)
                .expect("compiles")
                .instructions
        };
        let (first, second) = (compiled(0), compiled(1));
        for errno in 2..CAPACITY {
            compiled(errno);
        }
        assert!(Arc::ptr_eq(&first, &compiled(0)), "all of them fit");
        compiled(CAPACITY);
        assert!(Arc::ptr_eq(&first, &compiled(0)), "it was used just now");
        assert!(!Arc::ptr_eq(&second, &compiled(1)), "it was not");
        assert_eq!(cache.kept.lock().expect("no panic").len(), CAPACITY);
    }

    #[test]
    fn a_failure_is_told_each_time() {
        let cache = FilterCache::new();
        for _ in 0..2 {
            cache
                .compile(&profile(70_000), Arch::X86_64)
                .expect_err("no such errno");
        }
        assert!(cache.kept.lock().expect("no panic").is_empty());
    }
}
