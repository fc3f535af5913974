//! Schedules: five fields of minute, hour, day, month and weekday, or a word for them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use tripod_model::Time;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The day of the month, or of the week, is not named: then both must hold instead of either.
    any_day: bool,
    /// `@every`: seconds between times.
    every: Option<i64>,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Days that are looked at for the next time: a leap day may be eight years away.
const HORIZON: usize = 366 * 9;

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(word) = text.strip_prefix('@') {
            let fields = match word {
                "yearly" | "annually" => "0 0 1 1 *",
                "monthly" => "0 0 1 * *",
                "weekly" => "0 0 * * 0",
                "daily" | "midnight" => "0 0 * * *",
                "hourly" => "0 * * * *",
                other => return every(other),
            };
            return fields.parse();
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: {fields:?}",
                fields.len()
            ));
        };
        let weekdays = field(weekday, 0, 7, &WEEKDAYS)?;
        Ok(Self {
            minutes: field(minute, 0, 59, &[])?,
            hours: field(hour, 0, 23, &[])?,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, &MONTHS)?,
            // 7 is Sunday too.
            weekdays: weekdays & 0x7f | weekdays >> 7,
            any_day: [day, weekday].iter().any(|f| f.starts_with(['*', '?'])),
            every: None,
        })
    }
}

fn every(word: &str) -> Result<Schedule, String> {
    let text = word
        .strip_prefix("every ")
        .ok_or_else(|| format!("unrecognized descriptor: @{word}"))?;
    let span: jiff::SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| format!("failed to parse duration @{word}"))?;
    Ok(Schedule {
        minutes: 0,
        hours: 0,
        days: 0,
        months: 0,
        weekdays: 0,
        any_day: true,
        every: Some(span.as_secs().max(1)),
    })
}

fn field(text: &str, least: u64, most: u64, names: &[&str]) -> Result<u64, String> {
    let number = |s: &str| -> Result<u64, String> {
        let lower = s.to_ascii_lowercase();
        if let Some(i) = names.iter().position(|n| *n == lower) {
            return Ok(i as u64 + least);
        }
        s.parse().map_err(|_| format!("failed to parse int from {s}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => {
                    let first = number(range)?;
                    (first, if step.is_some() { most } else { first })
                }
            },
        };
        let step = step.unwrap_or(1);
        if first < least || last > most || first > last || step == 0 {
            return Err(format!("{part} is not within {least} to {most}"));
        }
        let mut n = first;
        while n <= last {
            bits |= 1 << n;
            n += step;
        }
    }
    Ok(bits)
}

fn has(bits: u64, n: i8) -> bool {
    bits >> n & 1 == 1
}

impl Schedule {
    fn is_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month())
            && if self.any_day {
                day && weekday
            } else {
                day || weekday
            }
    }

    /// The first time after `after`.
    pub fn next(&self, after: Time, zone: &TimeZone) -> Option<Time> {
        if let Some(seconds) = self.every {
            return after.checked_add(jiff::SignedDuration::from_secs(seconds)).ok();
        }
        let local = zone.to_datetime(after);
        let mut date = local.date();
        for n in 0..HORIZON {
            if self.is_day(date)
                && let Some(at) = self.first_on(date, (n == 0).then_some(local), after, zone)
            {
                return Some(at);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn first_on(&self, date: Date, from: Option<DateTime>, after: Time, zone: &TimeZone) -> Option<Time> {
        let start = from.map_or(0, |d| d.hour());
        for hour in (start..24).filter(|h| has(self.hours, *h)) {
            for minute in (0..60).filter(|m| has(self.minutes, *m)) {
                let local = date.at(hour, minute, 0, 0);
                let at = zone.to_zoned(local).ok()?;
                // An hour that the clocks leave out has no such time.
                if at.datetime() == local && at.timestamp() > after {
                    return Some(at.timestamp());
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        schedule.next(after.parse().unwrap(), &zone).unwrap().to_string()
    }

    #[test]
    fn next_times() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("*/5 * * * *", "2026-01-01T00:03:10Z", "2026-01-01T00:05:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("30 4 1,15 * 5", "2026-01-01T05:00:00Z", "2026-01-02T04:30:00Z"),
            ("0 12 * * MON-FRI", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule}");
        }
        assert_eq!(
            next("0 9 * * *", "2026-07-01T00:00:00Z", "Europe/Berlin"),
            "2026-07-01T07:00:00Z"
        );
    }

    #[test]
    fn what_is_no_schedule() {
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@often",
            "a * * * *",
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }
}
