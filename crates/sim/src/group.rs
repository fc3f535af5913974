//! Agreement among managers as Raft has it: terms, votes, a log. What is in `term`, `voted` and `log` is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use tripod_store::Txn;

/// An entry of the log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) txn: Arc<Txn>,
}

/// What managers say to each other.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Vote {
        term: u64,
        last: (u64, usize),
    },
    Voted {
        term: u64,
        granted: bool,
    },
    Append {
        term: u64,
        /// Number of entries before these, and the term of the last of them.
        before: (usize, u64),
        entries: Vec<Entry>,
        commit: usize,
    },
    Appended {
        term: u64,
        /// How many entries agree; `None` when those before did not.
        agreed: Option<usize>,
        /// How many entries there are.
        length: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// One manager's part.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) own: usize,
    pub(crate) size: usize,
    pub(crate) term: u64,
    voted: Option<usize>,
    pub(crate) log: Vec<Entry>,
    pub(crate) role: Role,
    pub(crate) leader: Option<usize>,
    /// Entries known to be on the disks of a majority.
    pub(crate) commit: usize,
    votes: BTreeSet<usize>,
    next: Vec<usize>,
    agreed: Vec<usize>,
    /// When the manager stands for election if it hears nothing.
    pub(crate) election_at: u64,
    /// Votes for all who ask: a fault.
    pub(crate) votes_for_anyone: bool,
}

/// Answers and requests, by who is to get them.
pub(crate) type Out = Vec<(usize, Said)>;

impl Group {
    pub(crate) fn new(own: usize, size: usize) -> Self {
        Self {
            own,
            size,
            term: 0,
            voted: None,
            log: Vec::new(),
            role: Role::Follower,
            leader: None,
            commit: 0,
            votes: BTreeSet::new(),
            next: vec![0; size],
            agreed: vec![0; size],
            election_at: 0,
            votes_for_anyone: false,
        }
    }

    /// The process ends and begins again: what is not on disk is forgotten.
    pub(crate) fn restart(&mut self) {
        (self.role, self.leader, self.commit) = (Role::Follower, None, 0);
        self.votes.clear();
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |e| e.term), self.log.len())
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.own;
        (0..self.size).filter(move |i| *i != own)
    }

    pub(crate) fn campaign(&mut self) -> Out {
        self.term += 1;
        (self.role, self.leader, self.voted) = (Role::Candidate, None, Some(self.own));
        self.votes = BTreeSet::from([self.own]);
        let vote = Said::Vote {
            term: self.term,
            last: self.last(),
        };
        self.others().map(|i| (i, vote.clone())).collect()
    }

    /// A new term was heard of.
    fn follow(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted) = (term, None);
            (self.role, self.leader) = (Role::Follower, None);
        }
    }

    /// Writes to the own log; the number of entries with it.
    pub(crate) fn append(&mut self, txn: Txn) -> usize {
        self.log.push(Entry {
            term: self.term,
            txn: Arc::new(txn),
        });
        self.log.len()
    }

    /// What a leader tells all others, signs of life included.
    pub(crate) fn replicate(&self) -> Out {
        self.others().map(|i| (i, self.append_for(i))).collect()
    }

    fn append_for(&self, i: usize) -> Said {
        let from = self.next[i].min(self.log.len());
        let until = self.log.len().min(from + 64);
        Said::Append {
            term: self.term,
            before: (from, from.checked_sub(1).map_or(0, |k| self.log[k].term)),
            entries: self.log[from..until].to_vec(),
            commit: self.commit,
        }
    }

    /// Takes a message; whether it came from a leader or made this manager one, and the answers.
    pub(crate) fn hear(&mut self, from: usize, said: Said) -> (bool, Out) {
        match said {
            Said::Vote { term, last } => {
                self.follow(term);
                let fit = self.voted.is_none_or(|v| v == from) && last >= self.last();
                let fit = fit || self.votes_for_anyone;
                let granted = term == self.term && fit && self.role == Role::Follower;
                if granted {
                    self.voted = Some(from);
                }
                let term = self.term;
                (granted, vec![(from, Said::Voted { term, granted })])
            }
            Said::Voted { term, granted } => {
                self.follow(term);
                if self.role != Role::Candidate || term != self.term || !granted {
                    return (false, Vec::new());
                }
                self.votes.insert(from);
                if self.votes.len() * 2 <= self.size {
                    return (false, Vec::new());
                }
                (self.role, self.leader) = (Role::Leader, Some(self.own));
                self.next = vec![self.log.len(); self.size];
                self.agreed = vec![0; self.size];
                // An entry of its own term lets it learn what of the others' is on a majority.
                self.append(Txn::new());
                (true, self.replicate())
            }
            Said::Append {
                term,
                before,
                entries,
                commit,
            } => self.take(from, term, before, entries, commit),
            Said::Appended { term, agreed, length } => {
                self.follow(term);
                if self.role != Role::Leader || term != self.term {
                    return (false, Vec::new());
                }
                match agreed {
                    Some(n) => {
                        self.agreed[from] = self.agreed[from].max(n);
                        self.next[from] = self.next[from].max(n);
                    }
                    None => self.next[from] = self.next[from].saturating_sub(16).min(length),
                }
                self.count();
                let more = self.next[from] < self.log.len();
                let again = more.then(|| (from, self.append_for(from)));
                (false, again.into_iter().collect())
            }
        }
    }

    fn take(
        &mut self,
        from: usize,
        term: u64,
        (before, before_term): (usize, u64),
        entries: Vec<Entry>,
        commit: usize,
    ) -> (bool, Out) {
        self.follow(term);
        let answer = |agreed, group: &Self| {
            let said = Said::Appended {
                term: group.term,
                agreed,
                length: group.log.len(),
            };
            vec![(from, said)]
        };
        if term < self.term {
            return (false, answer(None, self));
        }
        if self.role == Role::Leader {
            // Two leaders in one term: only a fault of the votes makes it; the check tells.
            return (false, Vec::new());
        }
        (self.role, self.leader) = (Role::Follower, Some(from));
        let fits = before <= self.log.len() && (before == 0 || self.log[before - 1].term == before_term);
        if !fits {
            return (true, answer(None, self));
        }
        let agreed = before + entries.len();
        for (i, entry) in entries.into_iter().enumerate() {
            let at = before + i;
            if self.log.get(at).is_some_and(|known| known.term != entry.term) {
                self.log.truncate(at);
            }
            if at == self.log.len() {
                self.log.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(agreed));
        (true, answer(Some(agreed), self))
    }

    /// A leader counts disks.
    fn count(&mut self) {
        let own = self.log.len();
        let mut lengths: Vec<usize> = self.others().map(|i| self.agreed[i]).chain([own]).collect();
        lengths.sort_unstable();
        let majority = lengths[(self.size - 1) / 2];
        if majority > self.commit && self.log[majority - 1].term == self.term {
            self.commit = majority;
        }
    }
}
