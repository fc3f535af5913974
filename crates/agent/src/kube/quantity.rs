//! Quantities of resources (`100m`, `1.5Gi`, `1e3`) as numbers.

use tripod_model::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// In thousandths, rounded up; `None` for text that is no quantity.
pub(super) fn milli(q: &Quantity) -> Option<i128> {
    let text = q.0.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (mantissa, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = mantissa.starts_with('-');
    let digits = format!("{}{fraction}", mantissa.trim_start_matches(['-', '+']));
    let value: i128 = if digits.is_empty() {
        return None;
    } else {
        digits.parse().ok()?
    };
    let places = u32::try_from(fraction.len()).ok()?;
    let (factor, exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let exponent = exponent + 3 - i32::try_from(places).ok()?;
    let scaled = value.checked_mul(factor)?;
    let power = |n: i32| 10_i128.checked_pow(n.unsigned_abs());
    let milli = if exponent >= 0 {
        scaled.checked_mul(power(exponent)?)?
    } else {
        let divisor = power(exponent)?;
        (scaled + divisor - 1) / divisor
    };
    Some(if negative { -milli } else { milli })
}

/// In whole units, rounded up.
pub(super) fn units(q: &Quantity) -> Option<i64> {
    i64::try_from((milli(q)? + 999).div_euclid(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, want) in [
            ("1", 1000),
            ("100m", 100),
            ("0.1", 100),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1500u", 2),
            ("-1", -1000),
        ] {
            assert_eq!(milli(&Quantity(text.into())), Some(want), "{text}");
        }
        assert_eq!(units(&Quantity("1100m".into())), Some(2));
        for bad in ["", "x", "1x", "Ki"] {
            assert_eq!(milli(&Quantity(bad.into())), None, "{bad}");
        }
    }
}
