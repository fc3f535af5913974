//! Quantities: decimal numbers with SI, binary or exponent suffixes, as Kubernetes writes them.

use std::fmt;
use std::str::FromStr;

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `k`, `M`, `m` …
    #[default]
    Decimal,
    /// `Ki`, `Mi` …
    Binary,
    /// `e3`.
    Exponent,
}

/// A quantity: billionths, which is the finest that Kubernetes keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantity {
    /// Billionths.
    pub nano: i128,
    /// How it was written.
    pub format: Format,
}

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 9] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const NANO: i128 = 1_000_000_000;

impl FromStr for Quantity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let end = text
            .char_indices()
            .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && matches!(c, '+' | '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        let (unsigned, sign) = match number.strip_prefix('-') {
            Some(rest) => (rest, -1),
            None => (number.strip_prefix('+').unwrap_or(number), 1),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') || unsigned.len() > 30 {
            return Err(());
        }
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(drop)?;
        let scale = i32::try_from(fraction.len()).map_err(drop)?;
        let (format, base, power) = suffix_of(suffix).ok_or(())?;
        let mut nano = digits.checked_mul(base).ok_or(())?;
        let exponent = 9 + power - scale;
        let shift = 10_i128.checked_pow(exponent.unsigned_abs()).ok_or(())?;
        nano = if exponent >= 0 {
            nano.checked_mul(shift).ok_or(())?
        } else {
            // What is finer than a billionth counts as one.
            (nano + shift - 1) / shift
        };
        Ok(Self {
            nano: sign * nano,
            format,
        })
    }
}

fn suffix_of(suffix: &str) -> Option<(Format, i128, i32)> {
    if suffix.is_empty() {
        return Some((Format::Decimal, 1, 0));
    }
    if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
        return Some((Format::Binary, 1_i128 << (10 * (i + 1)), 0));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Format::Decimal, 1, *power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    (exponent.abs() <= 18).then_some((Format::Exponent, 1, exponent))
}

impl Quantity {
    /// So many wholes.
    pub fn of(whole: i64, format: Format) -> Self {
        Self {
            nano: i128::from(whole) * NANO,
            format,
        }
    }

    /// The sum; written as the first that is not zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self {
            nano: self.nano.saturating_add(other.nano),
            format,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.nano < 0 { "-" } else { "" }, self.nano.abs());
        if size == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && size % NANO == 0 && size / NANO >= 1024 {
            let (mut n, mut suffix) = (size / NANO, "");
            for next in BINARY {
                if n % 1024 != 0 {
                    break;
                }
                (n, suffix) = (n / 1024, next);
            }
            return write!(f, "{sign}{n}{suffix}");
        }
        let (mut n, mut power) = (size, -9);
        while n % 1000 == 0 && power < 18 {
            (n, power) = (n / 1000, power + 3);
        }
        if self.format == Format::Exponent && power != 0 {
            return write!(f, "{sign}{n}e{power}");
        }
        let suffix = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(s, _)| s);
        write!(f, "{sign}{n}{suffix}")
    }
}

fn ceil(text: &str, unit: i128) -> i64 {
    let nano = text.parse::<Quantity>().map_or(0, |q| q.nano);
    let up = if nano > 0 {
        (nano + unit - 1) / unit
    } else {
        nano / unit
    };
    i64::try_from(up).unwrap_or(i64::MAX)
}

/// Thousandths, rounded up; 0 for what is no quantity.
pub fn milli(text: &str) -> i64 {
    ceil(text, NANO / 1000)
}

/// Wholes, rounded up; 0 for what is no quantity.
pub fn whole(text: &str) -> i64 {
    ceil(text, NANO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_canonically() {
        for (text, canonical) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1500m", "1500m"),
            ("1000m", "1"),
            ("128Mi", "128Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("-5", "-5"),
            ("512", "512"),
            ("0.5Ki", "512"),
        ] {
            let parsed: Quantity = text.parse().unwrap();
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
        for bad in ["", "a", "1x", "1.2.3", "--1", "Mi", "1 "] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
        assert_eq!(
            (milli("0.0001"), milli("2"), whole("1Ki"), whole("100m")),
            (1, 2000, 1024, 1)
        );
    }
}
