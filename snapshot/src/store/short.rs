//! Short names of snapshots' directories.

use std::collections::HashSet;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::Store;
use crate::{Result, at};

/// The directory of the short names.
const DIR: &str = "l";

impl Store {
    /// A short path of the root directory of a snapshot; the link is made if it is not there.
    pub(crate) fn short_name(&self, id: u64) -> Result<PathBuf> {
        let inner = format!("{DIR}/{}", letters(id));
        let path = self.root.join(&inner);
        let make = || rustix::fs::symlinkat(format!("../snapshots/{id}/fs"), &self.dirs, format!("../{inner}"));
        let answer = match make() {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&self.dirs, format!("../{DIR}"), Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(at::failed("creating", self.root.join(DIR))(errno)),
                }
                make()
            }
            answer => answer,
        };
        match answer {
            Ok(()) | Err(Errno::EXIST) => Ok(path),
            Err(errno) => Err(at::failed("creating the short name", path)(errno)),
        }
    }

    /// Removes the short name, if the snapshot has one. What stays leads nowhere, as numbers are not used twice, and goes at the next cleanup.
    pub(super) fn remove_short_name(&self, id: u64) {
        let _ = rustix::fs::unlinkat(&self.dirs, format!("../{DIR}/{}", letters(id)), AtFlags::empty());
    }

    /// Removes the short names of what is not known.
    pub(super) fn clean_short_names(&self, known: &HashSet<u64>) -> Result<()> {
        let path = self.root.join(DIR);
        let dir = match at::open_dir(&self.dirs, format!("../{DIR}").as_bytes()) {
            Err(Errno::NOENT) => return Ok(()),
            dir => dir.map_err(at::failed("opening", &path))?,
        };
        let known: HashSet<Vec<u8>> = known.iter().map(|id| letters(*id).into_bytes()).collect();
        for (name, _) in at::list(&dir).map_err(at::failed("reading", &path))? {
            if !known.contains(&name) {
                match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(at::failed("removing a short name in", &path)(errno)),
                }
            }
        }
        Ok(())
    }
}

/// A number in digits and letters.
fn letters(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            return text.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_letters() {
        for (number, text) in [
            (0, "0"),
            (35, "z"),
            (36, "10"),
            (46_655, "zzz"),
            (u64::MAX, "3w5e11264sgsf"),
        ] {
            assert_eq!(letters(number), text);
        }
    }
}
