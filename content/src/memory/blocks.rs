//! Bytes in memory that grow at the end while others read them.

use std::sync::{PoisonError, RwLock};

use crate::Result;
use crate::blob::Source;

/// Each block but the last is full.
const BLOCK: usize = 256 << 10;

#[derive(Default)]
pub(crate) struct Blocks(RwLock<Vec<Vec<u8>>>);

impl Blocks {
    pub(crate) fn append(&self, mut data: &[u8]) {
        let mut blocks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        while !data.is_empty() {
            if blocks.last().is_none_or(|block| block.len() == BLOCK) {
                blocks.push(Vec::new());
            }
            let last = blocks.last_mut().expect("one was just pushed if there was none");
            let (now, later) = data.split_at(data.len().min(BLOCK - last.len()));
            last.extend_from_slice(now);
            data = later;
        }
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blocks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} bytes", blocks.iter().map(Vec::len).sum::<usize>())
    }
}

impl Source for Blocks {
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let blocks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut offset) = usize::try_from(offset) else {
            return Ok(0);
        };
        let mut done = 0;
        while done < buf.len() {
            let Some(rest) = blocks.get(offset / BLOCK).and_then(|block| block.get(offset % BLOCK..)) else {
                break;
            };
            let count = rest.len().min(buf.len() - done);
            if count == 0 {
                break;
            }
            buf[done..done + count].copy_from_slice(&rest[..count]);
            done += count;
            offset += count;
        }
        Ok(done)
    }

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<Result<usize>> {
        Some(self.read(offset, buf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_appended_across_blocks() {
        let data: Vec<u8> = (0..BLOCK * 2 + 100).map(|n| (n / 3) as u8).collect();
        let blocks = Blocks::default();
        for piece in data.chunks(1000) {
            blocks.append(piece);
        }
        for (offset, length) in [(0, data.len()), (BLOCK - 1, 2), (BLOCK * 2 + 99, 1), (BLOCK, BLOCK)] {
            let mut buf = vec![0; length];
            assert_eq!(blocks.read(offset as u64, &mut buf).unwrap(), length);
            assert_eq!(buf, data[offset..offset + length]);
        }
        let mut buf = [0; 10];
        assert_eq!(blocks.read(data.len() as u64 - 4, &mut buf).unwrap(), 4);
        assert_eq!(blocks.read(data.len() as u64, &mut buf).unwrap(), 0);
        assert_eq!(blocks.read(u64::MAX, &mut buf).unwrap(), 0);
    }
}
