//! Another number of replicas in the middle of a rollout: shared out in proportion.

use super::{DESIRED, MAX, Rollout, Set};

impl Rollout<'_, '_> {
    /// Whether the number of replicas changed since a set was sized.
    pub(super) fn is_scaling(&self) -> bool {
        let mut active = self.sets().filter(|s| s.replicas > 0);
        active.any(|s| s.annotated(DESIRED).is_some_and(|n| n != self.replicas))
    }

    /// Sizes the sets for the number of replicas without going on with a rollout.
    pub(super) fn scale_all(&mut self) {
        let active: Vec<usize> = (0..self.old.len())
            .filter(|&i| self.old[i].replicas > 0)
            .collect();
        let new_active = self.new.as_ref().is_some_and(|n| n.replicas > 0);
        if active.is_empty() || (active.len() == 1 && !new_active && self.new.is_none()) {
            // Only one set has pods, or the latest is to have them.
            match (self.new.clone(), active.first()) {
                (_, Some(&i)) => {
                    let set = self.old[i].clone();
                    self.size(set, None, Some(i));
                }
                (Some(new), None) => self.size(new, None, None),
                (None, None) => {}
            }
            return;
        }
        if self.is_saturated() {
            for i in active {
                let set = self.old[i].clone();
                self.size(set, Some(0), Some(i));
            }
            return;
        }
        if self.recreates() {
            return;
        }
        self.scale_in_proportion();
    }

    fn size(&mut self, set: Set, replicas: Option<i32>, old: Option<usize>) {
        let replicas = replicas.unwrap_or(self.replicas);
        let annotated = set.annotated(DESIRED) == Some(self.replicas);
        if set.replicas == replicas && annotated {
            return;
        }
        let sized = self.resize(&set, replicas);
        match old {
            Some(i) => self.old[i] = sized,
            None => self.new = Some(sized),
        }
    }

    /// Whether the new set alone is what is asked for.
    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|n| {
            n.replicas == self.replicas
                && n.annotated(DESIRED) == Some(self.replicas)
                && n.available == self.replicas
        })
    }

    fn scale_in_proportion(&mut self) {
        let (surge, _) = self.bounds();
        let allowed = if self.replicas > 0 {
            self.replicas + surge
        } else {
            0
        };
        let total = self.total();
        let mut left = allowed - total;
        let grows = left > 0;
        let mut sets: Vec<(Option<usize>, Set)> = (0..self.old.len())
            .filter(|&i| self.old[i].replicas > 0)
            .map(|i| (Some(i), self.old[i].clone()))
            .collect();
        sets.extend(self.new.clone().filter(|n| n.replicas > 0).map(|n| (None, n)));
        // Growing, the largest and newest first; shrinking, the largest and oldest.
        sets.sort_by_key(|(_, s)| (std::cmp::Reverse(s.replicas), s.age()));
        if grows {
            sets.sort_by(|(_, a), (_, b)| b.replicas.cmp(&a.replicas).then(b.age().cmp(&a.age())));
        }
        let mut sizes: Vec<i32> = sets.iter().map(|(_, s)| s.replicas).collect();
        if left != 0 {
            for (at, (_, set)) in sets.iter().enumerate() {
                let part = self.part(set, allowed);
                let part = if grows {
                    part.clamp(0, left.max(0))
                } else {
                    part.clamp(left.min(0), 0)
                };
                sizes[at] += part;
                left -= part;
            }
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + left).max(0);
        }
        for ((old, set), size) in sets.into_iter().zip(sizes) {
            self.size(set, Some(size), old);
        }
    }

    /// The share of a set in the change of size.
    fn part(&self, set: &Set, allowed: i32) -> i32 {
        let before = set
            .annotated(MAX)
            .filter(|n| *n > 0)
            .unwrap_or(self.replicas.max(1));
        let scaled = f64::from(set.replicas) * f64::from(allowed) / f64::from(before);
        // The numbers are small: no rounding of the type can be seen.
        #[allow(clippy::cast_possible_truncation)]
        let scaled = scaled.round() as i32;
        scaled - set.replicas
    }
}
