//! Names that can't be guessed.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

/// 64 hex digits.
pub(crate) fn token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut seed = Vec::with_capacity(64);
    // Never blocks once the machine is up.
    if let Ok(random) = File::open("/dev/urandom") {
        let _ = random.take(32).read_to_end(&mut seed);
    }
    // Different at any rate, where there is no /dev.
    seed.extend(RandomState::new().build_hasher().finish().to_le_bytes());
    seed.extend(COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    longshore_content::sha256(&seed).digest().to_owned()
}
