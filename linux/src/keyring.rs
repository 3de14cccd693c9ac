//! Session keyrings (session-keyring(7), keyctl(2)).

use std::ffi::CStr;

use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
const KEYCTL_SETPERM: i32 = 5;
const KEYCTL_DESCRIBE: i32 = 6;

/// Leaves the session keyring for the one of this name, which is made if there is none that may be joined, and lets those that `permissions`
/// says do more with it than it allows already. Async-signal-safe.
///
/// # Errors
/// `ENOSYS` from a kernel without keys, `EDQUOT` when the user has too many, `EACCES` for one that must not be joined.
pub fn join_session_keyring(name: &CStr, permissions: u32) -> Result<(), Errno> {
    // SAFETY: the name ends in a null and outlives the call.
    let key = unsafe { syscall!(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }?;
    if permissions == 0 {
        return Ok(());
    }
    let mut text = [0u8; 512];
    // SAFETY: the kernel writes at most as many bytes as are passed, and returns how many it would write.
    let length = unsafe { syscall!(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, text.as_mut_ptr(), text.len()) }?;
    let text = text.get(..length as usize).ok_or(Errno::NAMETOOLONG)?;
    let allowed = allowed(text).ok_or(Errno::INVAL)?;
    // SAFETY: no memory is passed.
    unsafe { syscall!(libc::SYS_keyctl, KEYCTL_SETPERM, key, allowed | permissions) }?;
    Ok(())
}

/// The permissions in the kernel's description of a key: `type;uid;gid;permissions;description`.
fn allowed(description: &[u8]) -> Option<u32> {
    let field = description.split(|b| *b == b';').nth(3)?;
    let digit = |all: Option<u32>, b: &u8| Some(all?.checked_mul(16)? | char::from(*b).to_digit(16)?);
    field.iter().fold(Some(0), digit).filter(|_| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(allowed(b"keyring;0;0;3f130000;_ses.x"), Some(0x3f13_0000));
        assert_eq!(allowed(b"keyring;0;0;;x"), None);
        assert_eq!(allowed(b"keyring;0;0;fffffffff;x"), None);
        assert_eq!(allowed(b"keyring;0;0"), None);
    }

    #[test]
    fn a_thread_joins_a_keyring_of_its_own() {
        // In a process of its own: the credentials of a thread can't be given back.
        let joined = std::thread::spawn(|| join_session_keyring(c"_ses.longshore-test", 0x0008_0000)).join();
        match joined.expect("no panic") {
            Ok(()) => {}
            Err(errno) => longshore_testing::skip(&format!("no session keyring here: {errno}")),
        }
    }
}
