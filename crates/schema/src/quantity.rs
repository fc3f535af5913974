//! Quantities of resources: `100m`, `1.5Gi`, `1e3`, in their canonical form.

use std::cmp::Ordering;
use std::fmt;

/// The family of a quantity's suffix, kept when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

/// An amount: a number of thousand-millionths (nanos), with the form it was written in.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 7] = [
    ("", 0),
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Reads one; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && (*c == '-' || *c == '+'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        let negative = number.starts_with('-');
        let number = number.trim_start_matches(['-', '+']);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let (form, factor) = Self::suffix(suffix)?;
        let mut digits: i128 = 0;
        for c in whole.chars().chain(fraction.chars()).take(30) {
            digits = digits.checked_mul(10)?.checked_add(i128::from(c.to_digit(10)?))?;
        }
        let scale = 10i128.checked_pow(u32::try_from(fraction.len().min(30)).ok()?)?;
        let (top, bottom) = factor;
        // Rounded away from zero, as amounts smaller than a nano cannot be held.
        let scaled = digits.checked_mul(top)?;
        let by = scale.checked_mul(bottom)?;
        let nanos = scaled / by + i128::from(scaled % by != 0);
        let limit = i128::from(i64::MAX) * NANO;
        let nanos = nanos.min(limit);
        Some(Self {
            nanos: if negative { -nanos } else { nanos },
            form,
        })
    }

    /// The form of a suffix, and what it multiplies by, in nanos, as a fraction.
    fn suffix(suffix: &str) -> Option<(Form, (i128, i128))> {
        if let Some((_, bits)) = BINARY.iter().skip(1).find(|(s, _)| *s == suffix) {
            return Some((Form::Binary, (NANO << bits, 1)));
        }
        let power = |p: i32| {
            let nanos = p + 9;
            let ten = |n: i32| 10i128.checked_pow(n.unsigned_abs());
            Some(if nanos >= 0 {
                (ten(nanos)?, 1)
            } else {
                (1, ten(nanos)?)
            })
        };
        if let Some((_, p)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
            return Some((Form::Decimal, power(*p)?));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let p: i32 = exponent.parse().ok()?;
        (-30..=20).contains(&p).then_some(())?;
        Some((Form::Exponent, power(p)?))
    }

    /// A whole number.
    pub fn whole(number: i64) -> Self {
        Self {
            nanos: i128::from(number) * NANO,
            form: Form::Decimal,
        }
    }

    /// Zero, in the form of plain numbers.
    pub fn zero() -> Self {
        Self::whole(0)
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        let by = NANO / 1000;
        i64::try_from(self.nanos.div_euclid(by) + i128::from(self.nanos.rem_euclid(by) != 0))
            .unwrap_or(i64::MAX)
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        i64::try_from(self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0))
            .unwrap_or(i64::MAX)
    }

    /// Whether it is less than zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The sum, in the form of the first.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            form,
        }
    }

    /// The difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            form: self.form,
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        if self.form == Form::Binary && whole {
            let units = self.nanos / NANO;
            if units.abs() >= 1024 {
                let fits = |bits: &u32| units % (1i128 << bits) == 0;
                if let Some((suffix, bits)) = BINARY.iter().rev().find(|(_, bits)| fits(bits)) {
                    return write!(f, "{}{suffix}", units >> bits);
                }
            }
            return write!(f, "{units}");
        }
        let fits = |p: i32| self.nanos % 10i128.pow((p + 9).unsigned_abs()) == 0;
        for (suffix, p) in DECIMAL.iter().rev() {
            if fits(*p) {
                let number = self.nanos / 10i128.pow((p + 9).unsigned_abs());
                return match self.form {
                    Form::Exponent if *p != 0 => write!(f, "{number}e{p}"),
                    Form::Exponent => write!(f, "{number}"),
                    _ => write!(f, "{number}{suffix}"),
                };
            }
        }
        write!(f, "{}n", self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("100M", "100M"),
            ("0", "0"),
            ("-1", "-1"),
            ("1500m", "1500m"),
            ("0.1Gi", "107374182400m"),
            ("512", "512"),
            ("500Ki", "500Ki"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        for bad in ["", "a", "1.2.3", "1Xi", "--1", "Gi", "1 "] {
            assert!(Quantity::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn amounts_compare_and_round_up() {
        let q = |t| Quantity::parse(t).unwrap();
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1"), q("1000m"));
        assert_eq!(q("1500u").millis(), 2);
        assert_eq!(q("1500m").units(), 2);
        assert_eq!(q("1Gi").plus(q("1Gi")).to_string(), "2Gi");
        assert_eq!(Quantity::zero().plus(q("1Mi")).to_string(), "1Mi");
    }
}
