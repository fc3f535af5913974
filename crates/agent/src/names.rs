//! Names of containers: what is allowed, and making one up.

use rand::Rng;
use tripod_model::{Error, Result};

const ADJECTIVES: &[&str] = &[
    "amber", "bold", "brisk", "calm", "candid", "clever", "copper", "crisp", "daring", "eager", "early",
    "fair", "fleet", "fond", "gentle", "glad", "golden", "grand", "green", "hardy", "honest", "jolly",
    "keen", "kind", "light", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plain", "proud", "quick", "quiet", "rapid", "ready", "round", "silver", "sincere",
    "smooth", "sober", "solid", "steady", "still", "sunny", "swift", "tidy", "tough", "true", "vivid",
    "warm", "wise", "witty", "young", "zealous",
];
const NOUNS: &[&str] = &[
    "anchor", "apple", "badger", "basin", "beacon", "birch", "bridge", "brook", "canal", "cedar", "clover",
    "comet", "crane", "dune", "falcon", "ferry", "finch", "fjord", "forest", "garden", "glacier", "harbor",
    "hazel", "heron", "island", "jetty", "lagoon", "lantern", "lark", "ledger", "linden", "maple", "marsh",
    "meadow", "mill", "moth", "oak", "orbit", "otter", "panda", "pebble", "pier", "pine", "planet", "plover",
    "quarry", "raven", "reef", "ridge", "river", "robin", "sail", "sparrow", "spruce", "stork", "summit",
    "tern", "tide", "valley", "willow",
];

/// A made-up name such as `swift_heron`; after some tries with a number, so that one is always free.
pub fn generate(mut taken: impl FnMut(&str) -> bool) -> String {
    let mut rng = rand::rng();
    for attempt in 0.. {
        let adjective = ADJECTIVES[rng.random_range(0..ADJECTIVES.len())];
        let noun = NOUNS[rng.random_range(0..NOUNS.len())];
        let name = match attempt {
            0..6 => format!("{adjective}_{noun}"),
            _ => format!("{adjective}_{noun}{}", rng.random_range(0..1_000_000)),
        };
        if !taken(&name) {
            return name;
        }
    }
    unreachable!("the loop ends by returning")
}

/// Checks a name of the user's (a leading slash is allowed and dropped).
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let ok = bare.len() > 1
        && bare.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bare
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if ok {
        return Ok(bare);
    }
    Err(Error::invalid(format_args!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    ))
    .at("name"))
}

/// A new random identifier of 64 hex digits.
pub fn new_id() -> String {
    tripod_model::id::hex64(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["web", "/web", "a1", "my_app.1-x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "-web", "we b", "web/1", "wéb"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let mut first = None;
        let name = generate(|n| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| n.to_owned());
            is_first
        });
        assert!(check(&name).is_ok());
    }
}
