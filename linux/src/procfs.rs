use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, read, retry_on_intr};

/// Reads a file of procfs(5), whose size the kernel does not tell and whose text it makes anew for every read: few large reads cost
/// less than many small ones.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read_procfs(path: &str) -> Result<Vec<u8>, Errno> {
    const CHUNK: usize = 16 * 1024;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(CHUNK);
        if retry_on_intr(|| read(&file, rustix::buffer::spare_capacity(&mut bytes)))? == 0 {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_file_is_read() {
        let whole = std::fs::read("/proc/self/limits").expect("readable");
        assert_eq!(read_procfs("/proc/self/limits"), Ok(whole));
        assert_eq!(read_procfs("/proc/self/nothing"), Err(Errno::NOENT));
    }
}
