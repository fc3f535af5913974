//! Signals by name and number (Linux, all architectures that Tripod is built for).

use tripod_model::{Error, Result};

/// SIGKILL.
pub const SIGKILL: i32 = 9;
/// SIGTERM.
pub const SIGTERM: i32 = 15;
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

const NAMES: [(&str, i32); 35] = [
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
    ("RTMIN", SIGRTMIN),
];

/// The number of `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`; case does not matter.
pub fn parse(text: &str) -> Result<i32> {
    let bad = || Error::invalid(format_args!("invalid signal: {text}"));
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=SIGRTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(bad())
        };
    }
    let offset = |rest: &str| rest.parse::<i32>().map_err(|_| bad());
    let number = if let Some(rest) = name.strip_prefix("RTMIN+") {
        SIGRTMIN + offset(rest)?
    } else if let Some(rest) = name.strip_prefix("RTMAX-") {
        SIGRTMAX - offset(rest)?
    } else if name == "RTMAX" {
        SIGRTMAX
    } else {
        NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, n)| *n)
            .ok_or_else(bad)?
    };
    if (1..=SIGRTMAX).contains(&number) {
        Ok(number)
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sigint", 2),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "NOPE", "0", "65", "-1", "RTMIN+99"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
