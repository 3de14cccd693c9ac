//! Lines on standard output. When nobody reads them any more (`longshore images | head -1`) the program ends quietly, as others do.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What a shell reports of a program that SIGPIPE ended.
const SIGPIPE: i32 = 128 + 13;

/// Writes a line, or ends the program when it can't.
pub(crate) fn line(text: Arguments<'_>) {
    write(format_args!("{text}\n"));
}

/// The same without an end of line.
pub(crate) fn write(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(SIGPIPE);
        }
        eprintln!("longshore: writing to standard output: {error}");
        std::process::exit(125);
    }
}

/// Prints a line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use say;
