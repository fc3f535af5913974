//! Amounts of processors and memory as people write them.

/// An amount, or all that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount<T> {
    /// So much.
    Some(T),
    /// What the machine has (`max`, `no-limit`).
    All,
}

impl<T: Copy> Amount<T> {
    /// The amount, where there is a limit.
    pub(crate) fn limit(self) -> Option<T> {
        match self {
            Self::Some(n) => Some(n),
            Self::All => None,
        }
    }
}

/// Least memory of a node in bytes: the kernel gives no container less than a few megabytes.
const LEAST: u64 = 64 << 20;

/// A number of processors.
pub(crate) fn cpus(text: &str) -> Result<Amount<u32>, String> {
    match text {
        "max" | "no-limit" => Ok(Amount::All),
        _ => match text.parse() {
            Ok(n) if n > 0 => Ok(Amount::Some(n)),
            _ => Err("it must be a whole number of processors, \"max\" or \"no-limit\"".into()),
        },
    }
}

/// Bytes of memory: a number with a unit (b, k, m, g, also kb, mib …), in MiB without one.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "" | "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        other => return Err(format!("unknown unit {other:?}: b, k, m, g and t are known")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size (2g, 512m, 4096)"))?;
    let bytes = (number * (1_u64 << shift) as f64) as u64;
    match bytes >= LEAST {
        true => Ok(bytes),
        false => Err(format!("a node needs {} MiB at least", LEAST >> 20)),
    }
}

/// Bytes of memory, or all of it.
pub(crate) fn memory_amount(text: &str) -> Result<Amount<u64>, String> {
    match text {
        "max" | "no-limit" => Ok(Amount::All),
        _ => memory(text).map(Amount::Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(cpus("2"), Ok(Amount::Some(2)));
        assert_eq!(cpus("max"), Ok(Amount::All));
        assert!(cpus("0").is_err() && cpus("1.5").is_err() && cpus("two").is_err());
        for (text, mib) in [
            ("4096", 4096),
            ("2g", 2048),
            ("2GB", 2048),
            ("1.5Gi", 1536),
            ("512mb", 512),
            ("1048576k", 1024),
        ] {
            assert_eq!(memory(text), Ok(mib << 20), "{text}");
        }
        for bad in ["", "g", "2x", "1m", "-5g"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert_eq!(memory_amount("no-limit"), Ok(Amount::All));
    }
}
