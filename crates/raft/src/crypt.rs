//! Encryption at rest.
//!
//! Everything that holds objects (log records, snapshots) is encrypted with a random data key that is made once per
//! directory. The data key lies in `keyring.json`, either open or wrapped with the operator's unlock key: locking and
//! unlocking a manager rewrites that small file only.
//!
//! Every file has a key of its own, derived from the data key and the file's random salt (HKDF-SHA256), so that
//! random 96-bit nonces never come near a collision. The cipher is ChaCha20-Poly1305.

use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::error::RaftError;
use crate::files;

/// An unlock key or a data key.
pub(crate) type Key = [u8; 32];
/// Distinguishes the keys of files.
pub(crate) type Salt = [u8; 16];

/// How many bytes sealing adds.
pub(crate) const OVERHEAD: usize = NONCE_LEN + 16;
const WRAP_AAD: &[u8] = b"tripod keyring 1";

/// Fills an array with random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // getrandom(2) with a valid buffer does not fail on a running system.
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel's random numbers");
    bytes
}

/// Seals and opens with one key.
pub(crate) struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Sealer {
    fn new(key: UnboundKey) -> Self {
        Self {
            key: LessSafeKey::new(key),
            random: SystemRandom::new(),
        }
    }

    fn raw(key: &Key) -> Self {
        Self::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes"))
    }

    /// Appends nonce, ciphertext and tag of `plain` to `out`.
    pub(crate) fn seal(&self, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the kernel's random numbers");
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut out[start..],
            )
            .expect("far below the cipher's length limit");
        out.extend_from_slice(tag.as_ref());
    }

    /// Decrypts what [`Sealer::seal`] made, in place; `None` if it is not authentic.
    pub(crate) fn open<'a>(&self, aad: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, body) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.key
            .open_in_place(nonce, Aad::from(aad), body)
            .ok()
            .map(|plain| &*plain)
    }
}

/// Gives the key of each file of one directory.
pub(crate) struct Keyring {
    path: PathBuf,
    data_key: Key,
}

#[derive(Serialize, Deserialize)]
struct KeyringFile {
    format: u32,
    locked: bool,
    /// The data key in hexadecimal, or sealed by the unlock key if `locked`.
    key: String,
}

impl Keyring {
    /// Opens the keyring of a directory, or makes one, locked if an unlock key is given. An unlock key given for an
    /// open keyring is not looked at.
    pub(crate) fn open(dir: &Path, unlock: Option<&Key>) -> Result<Self, RaftError> {
        let path = dir.join("keyring.json");
        let Some(text) = files::read(&path)? else {
            let keyring = Self {
                path,
                data_key: random(),
            };
            keyring.lock(unlock)?;
            return Ok(keyring);
        };
        let file: KeyringFile = serde_json::from_slice(&text).map_err(|e| RaftError::corrupt(&path, e))?;
        if file.format != 1 {
            return Err(RaftError::corrupt(
                &path,
                format!("unknown format {}", file.format),
            ));
        }
        let mut key = unhex(&file.key).ok_or_else(|| RaftError::corrupt(&path, "no key"))?;
        let plain = if file.locked {
            Sealer::raw(unlock.ok_or(RaftError::Locked)?)
                .open(WRAP_AAD, &mut key)
                .ok_or(RaftError::Locked)?
        } else {
            &key
        };
        let data_key = plain
            .try_into()
            .map_err(|_| RaftError::corrupt(&path, "a key of another length"))?;
        Ok(Self { path, data_key })
    }

    /// From now on the directory opens only with `unlock` (or without any key, if `None`).
    pub(crate) fn lock(&self, unlock: Option<&Key>) -> Result<(), RaftError> {
        let mut sealed = Vec::new();
        let key = match unlock {
            Some(unlock) => {
                Sealer::raw(unlock).seal(WRAP_AAD, &self.data_key, &mut sealed);
                &sealed[..]
            }
            None => &self.data_key[..],
        };
        let file = KeyringFile {
            format: 1,
            locked: unlock.is_some(),
            key: hex(key),
        };
        let text = serde_json::to_vec(&file).expect("plain data");
        files::replace(&self.path, &text)
    }

    /// The key of the file with this salt.
    pub(crate) fn sealer(&self, salt: &Salt) -> Sealer {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.data_key);
        let okm = prk
            .expand(&[b"tripod store file"], &CHACHA20_POLY1305)
            .expect("one block of output");
        Sealer::new(UnboundKey::from(okm))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
