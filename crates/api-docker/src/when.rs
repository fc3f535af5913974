//! Times as Docker writes them.

use tripod_model::Time;

/// Go's zero time: what Docker sends where something has not happened.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many digits of the second as there are.
pub(crate) fn rfc3339(t: Time) -> String {
    t.to_string()
}

/// The same, or Go's zero time.
pub(crate) fn or_never(t: Option<Time>) -> String {
    t.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// RFC 3339 with exactly nine digits, as in front of log lines.
pub(crate) fn log_stamp(t: Time) -> String {
    format!("{t:.9}")
}

/// A length of time in words, as `docker ps` shows it (`About a minute`, `3 hours`).
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let days = hours / 24;
    match seconds {
        i64::MIN..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{days} days"),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", days / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (125, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7300, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn stamps() {
        let t = Time::new(1, 5_000_000).unwrap();
        assert_eq!(rfc3339(t), "1970-01-01T00:00:01.005Z");
        assert_eq!(log_stamp(t), "1970-01-01T00:00:01.005000000Z");
        assert_eq!(or_never(None), NEVER);
    }
}
