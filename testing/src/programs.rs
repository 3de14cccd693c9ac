use std::io::{Error, Result, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program, to be executed, as `cp` does.
///
/// Linux executes no file that somebody has open for writing (`ETXTBSY`), and what one test has open while it writes, the child that another
/// test starts in that moment has open too. So a process of its own writes it.
///
/// # Errors
/// When `cp` can't be started or fails; it tells on standard error why.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let status = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status()?;
    succeeded(status)
}

/// Writes a script, to be executed, in the same way.
///
/// # Errors
/// As [`copy_program`].
pub fn write_program(to: impl AsRef<Path>, text: &str) -> Result<()> {
    let mut writer = Command::new("sh")
        .args(["-euc", "cat >\"$0\"; chmod 755 \"$0\""])
        .arg(to.as_ref())
        .stdin(Stdio::piped())
        .spawn()?;
    let mut pipe = writer.stdin.take().expect("it was asked for");
    pipe.write_all(text.as_bytes())?;
    drop(pipe);
    succeeded(writer.wait()?)
}

fn succeeded(status: std::process::ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(Error::other(format!("the program that writes it: {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_can_be_executed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (script, copy) = (folder.path().join("script"), folder.path().join("copy"));
        write_program(&script, "#!/bin/sh\necho \"$1\"\n").expect("written");
        copy_program(&script, &copy).expect("copied");
        for program in [script, copy] {
            let output = Command::new(program).arg("said").output().expect("it runs");
            assert_eq!(output.stdout, b"said\n");
        }
        assert!(copy_program(folder.path().join("none"), folder.path().join("x")).is_err());
    }
}
