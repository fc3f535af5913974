//! Identifiers: Docker's 64 hex digits, Swarm's 25 base-36 digits. Pure: the caller supplies random bytes.

use std::fmt::Write as _;

/// A Docker-style identifier (containers, images, local networks): 64 lower-case hex digits of 32 bytes.
pub fn hex64(random: [u8; 32]) -> String {
    random.iter().fold(String::with_capacity(64), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// A Swarm-style identifier (nodes, services, tasks, overlay networks): 25 digits of base 36, the first of
/// them never above `f5lxx1zz5pnorynqglhzmsp33` (the largest 128-bit value).
pub fn base36(random: u128) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut out = [b'0'; 25];
    let mut rest = random;
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[(rest % 36) as usize];
        rest /= 36;
    }
    out.iter().map(|&b| char::from(b)).collect()
}

/// The first 12 digits, as the docker client prints them.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    &id[..id.len().min(12)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_alphabets() {
        assert_eq!(hex64([0xab; 32]), "ab".repeat(32));
        assert_eq!(base36(0), "0".repeat(25));
        assert_eq!(base36(u128::MAX), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(base36(35).as_bytes()[24], b'z');
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("abc"), "abc");
    }
}
