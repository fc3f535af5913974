//! Indexes of a Job's pods, and lists of them as text: `0,2-4`.

use std::collections::BTreeSet;

use super::super::pod::KPod;
use super::{FAILURES, INDEX};

/// Reads a list; what is no number is left out.
pub(super) fn parse(text: &str) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            all.extend(first..=last);
        }
    }
    all
}

/// Writes a list; three or more in a row become a range, as do two.
pub(super) fn text(all: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &n in all {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => ranges.push((n, n)),
        }
    }
    let texts = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The index of a pod.
pub(super) fn of(pod: &KPod) -> Option<i32> {
    pod.pod.metadata.annotations.get(INDEX)?.parse().ok()
}

/// How often the index of a pod failed before it.
pub(super) fn failures(pod: &KPod) -> i32 {
    let text = pod.pod.metadata.annotations.get(FAILURES);
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_written() {
        for list in ["", "0", "0,1", "0-2", "1,3-5,7", "0,1,3-9"] {
            assert_eq!(text(&parse(list)), list);
        }
    }
}
