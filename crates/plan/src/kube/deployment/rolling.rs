//! The way from one revision to the next: by steps within the bounds, or all at once.

use super::{Rollout, Set};

impl Rollout<'_, '_> {
    /// A step of a rolling update: the new set grows first, then the old ones shrink.
    pub(super) fn roll(&mut self) {
        let (surge, unavailable) = self.bounds();
        let limit = self.replicas + surge;
        let Some(new) = self.new.clone() else {
            let room = (limit - self.total()).max(0);
            self.make_new(room.min(self.replicas));
            return;
        };
        if new.replicas != self.replicas {
            let size = if new.replicas > self.replicas {
                self.replicas
            } else {
                let room = (limit - self.total()).max(0);
                new.replicas + room.min(self.replicas - new.replicas)
            };
            if size != new.replicas {
                self.new = Some(self.resize(&new, size));
                return;
            }
        }
        self.shrink_old(&new, unavailable);
    }

    fn shrink_old(&mut self, new: &Set, unavailable: i32) {
        let old: i32 = self.old.iter().map(|s| s.replicas).sum();
        if old == 0 {
            return;
        }
        let least = self.replicas - unavailable;
        let not_yet = new.replicas - new.available;
        let mut room = self.total() - least - not_yet;
        if room <= 0 {
            return;
        }
        // Pods that do not work go first: nobody misses them.
        for i in 0..self.old.len() {
            let set = self.old[i].clone();
            let broken = (set.replicas - set.available).clamp(0, room);
            if broken > 0 {
                self.old[i] = self.resize(&set, set.replicas - broken);
                room -= broken;
            }
        }
        let available: i32 = self.sets().map(|s| s.available.min(s.replicas)).sum();
        let mut room = available - least;
        for i in 0..self.old.len() {
            if room <= 0 {
                break;
            }
            let set = self.old[i].clone();
            let fewer = set.replicas.min(room);
            // One write for each set and plan.
            if fewer > 0 && !self.w.wrote(&set.object.key) {
                self.old[i] = self.resize(&set, set.replicas - fewer);
                room -= fewer;
            }
        }
    }

    /// All old pods end before the first new one is made.
    pub(super) fn recreate(&mut self) {
        let mut shrank = false;
        for i in 0..self.old.len() {
            let set = self.old[i].clone();
            if set.replicas > 0 {
                self.old[i] = self.resize(&set, 0);
                shrank = true;
            }
        }
        let running = self.old.iter().any(|s| {
            let mut pods = self.w.k.pods_of(&s.object.meta.uid);
            pods.any(|p| !p.info.phase.is_final())
        });
        if shrank || running {
            return;
        }
        match self.new.clone() {
            None => self.make_new(self.replicas),
            Some(new) if new.replicas != self.replicas => {
                self.new = Some(self.resize(&new, self.replicas));
            }
            Some(_) => {}
        }
    }
}
