use oci_spec::image::ImageConfiguration;

use crate::{Error, Result};

/// Signals by name (signal(7)), with the numbers of x86 and ARM.
const SIGNALS: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

/// The first real-time signal that the C library leaves to programs.
const RTMIN: i32 = 34;
/// The last real-time signal.
const RTMAX: i32 = 64;

/// The signal that stops a container whose image names none.
pub const DEFAULT_STOP_SIGNAL: i32 = 15;

/// The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) when there is no such signal.
pub fn signal_number(text: &str) -> Result<i32> {
    let unknown = || Error::option("signal", text, "there is no such signal; see signal(7)");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().map_err(|_| unknown())?;
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(offset), _) => RTMIN + offset_of(offset).ok_or_else(unknown)?,
        (_, Some(offset)) => RTMAX - offset_of(offset).ok_or_else(unknown)?,
        _ => return Err(unknown()),
    };
    if (RTMIN..=RTMAX).contains(&number) {
        Ok(number)
    } else {
        Err(unknown())
    }
}

fn offset_of(text: &str) -> Option<i32> {
    let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The signal that asks a container of this image to end: its `StopSignal`, else SIGTERM.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) when the image names no signal that exists.
pub fn stop_signal(image: &ImageConfiguration) -> Result<i32> {
    match image
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().as_deref())
    {
        None | Some("") => Ok(DEFAULT_STOP_SIGNAL),
        Some(name) => signal_number(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let cases = [
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("TERM", 15),
            ("15", 15),
            ("1", 1),
            ("64", 64),
            ("SIGKILL", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN+30", 64),
            ("WINCH", 28),
            ("QUIT", 3),
        ];
        for (text, number) in cases {
            assert_eq!(signal_number(text).expect(text), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal() {
        for text in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            "99999999999999",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+-3",
            "RTMIN++3",
            "RTMIN+",
            "TERM ",
        ] {
            assert_eq!(
                signal_number(text).expect_err(text).kind(),
                crate::ErrorKind::Invalid,
                "{text}"
            );
        }
    }
}
