//! A state as a stream of bytes, and back.
//!
//! Layout (integers little-endian): the magic `TRIPSNP1`; revision u64; count u64; then `count` times a length u32
//! and that many bytes of an object (postcard); at the end a CRC-32 of everything before it. Indices are rebuilt on
//! reading.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::error::SnapshotError;
use crate::object::StoredObject;
use crate::state::State;

const MAGIC: &[u8; 8] = b"TRIPSNP1";
/// No single object comes near this; a length beyond it is damage.
const MAX_OBJECT: u32 = 64 << 20;

struct Summing<T> {
    inner: T,
    crc: crc32fast::Hasher,
}

impl<T: Write> Summing<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Summing<T> {
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(buffer)?;
        self.crc.update(buffer);
        Ok(())
    }

    fn take_u64(&mut self) -> io::Result<u64> {
        let mut word = [0; 8];
        self.take(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }
}

impl State {
    /// Writes the whole state, one object at a time. Wrap the writer in a buffer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_snapshot(&self, writer: impl Write) -> io::Result<()> {
        let mut out = Summing {
            inner: writer,
            crc: crc32fast::Hasher::new(),
        };
        out.put(MAGIC)?;
        out.put(&self.revision.to_le_bytes())?;
        out.put(&(self.len() as u64).to_le_bytes())?;
        let mut buffer = Vec::new();
        for object in self.tables.values().flat_map(|table| table.values()) {
            buffer.clear();
            buffer = postcard::to_extend(&**object, buffer).map_err(io::Error::other)?;
            out.put(&(buffer.len() as u32).to_le_bytes())?;
            out.put(&buffer)?;
        }
        let crc = out.crc.clone().finalize();
        out.inner.write_all(&crc.to_le_bytes())
    }

    /// Reads what [`State::write_snapshot`] wrote. Wrap the reader in a buffer.
    ///
    /// # Errors
    /// If the data ends early, is damaged, or is of another format.
    pub fn read_snapshot(reader: impl Read) -> Result<Self, SnapshotError> {
        let mut from = Summing {
            inner: reader,
            crc: crc32fast::Hasher::new(),
        };
        let mut magic = [0; 8];
        from.take(&mut magic)?;
        if &magic != MAGIC {
            return Err(SnapshotError::Damaged("unknown format".into()));
        }
        let mut state = Self::new();
        state.revision = from.take_u64()?;
        let count = from.take_u64()?;
        let mut buffer = Vec::new();
        for _ in 0..count {
            let mut word = [0; 4];
            from.take(&mut word)?;
            let length = u32::from_le_bytes(word);
            if length > MAX_OBJECT {
                return Err(SnapshotError::Damaged(format!("an object of {length} bytes")));
            }
            buffer.resize(length as usize, 0);
            from.take(&mut buffer)?;
            let mut object: StoredObject =
                postcard::from_bytes(&buffer).map_err(|e| SnapshotError::Damaged(e.to_string()))?;
            object.key = state.intern(&object.key);
            state.insert(Arc::new(object));
        }
        let mut crc = [0; 4];
        from.inner.read_exact(&mut crc)?;
        if u32::from_le_bytes(crc) != from.crc.finalize() {
            return Err(SnapshotError::Damaged("checksum".into()));
        }
        Ok(state)
    }
}
