//! Events of log streams in the store: in chunks, the oldest of which go when a stream has too many.

use tripod_model::aws::{LogChunk, LogChunkSpec, LogEvent, LogGroup, LogGroupSpec, LogStream, LogStreamSpec};
use tripod_model::ecs::object_name;
use tripod_model::{Error, Result, Time};
use tripod_raft::RaftError;
use tripod_store::{Expected, Txn, TxnError};

use crate::db::{Snapshot, TypedTxn, key, to_error};
use crate::manager::Manager;
use crate::new_uid;

/// Bytes of a chunk, from which on the next one is written.
const CHUNK: u64 = 128 << 10;
/// Chunks that a stream keeps.
const KEPT: u64 = 64;
/// Bytes that AWS counts for each event beside its text.
const OVERHEAD: u64 = 26;

/// `metadata.name` of a log group.
pub fn group_object(region: &str, group: &str) -> String {
    object_name(&format!("log-group/{region}"), group)
}

/// `metadata.name` of a log stream.
pub fn stream_object(region: &str, group: &str, stream: &str) -> String {
    object_name(&format!("log-stream/{region}/{group}"), stream)
}

fn chunk_object(stream: &str, number: u64) -> String {
    format!("{stream}-{number:08}")
}

/// The events that a stream keeps, in order of coming in.
///
/// # Errors
/// Those of the store.
pub fn events(state: &Snapshot, stream: &LogStream) -> Result<Vec<LogEvent>> {
    let mut out = Vec::new();
    for number in stream.spec.oldest..=stream.spec.chunk {
        let name = chunk_object(&stream.metadata.name, number);
        if let Some(chunk) = state.get::<LogChunk>("", &name)? {
            out.extend(chunk.spec.events);
        }
    }
    Ok(out)
}

impl Manager {
    /// Makes a group and a stream where they are not there.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`] without the group when it is not to be made.
    pub async fn log_stream_ensure(
        &self,
        region: &str,
        group: &str,
        stream: &str,
        make_group: bool,
    ) -> Result<()> {
        let state = self.db().snapshot();
        let now = Time::now();
        if state.get::<LogGroup>("", &group_object(region, group))?.is_none() {
            if !make_group {
                return Err(Error::not_found("The specified log group does not exist."));
            }
            let spec = LogGroupSpec {
                region: region.to_owned(),
                name: group.to_owned(),
                class: "STANDARD".into(),
                ..LogGroupSpec::default()
            };
            let made = LogGroup::new(group_object(region, group), new_uid(), now, spec);
            // Somebody else may have made it meanwhile.
            let _ = self.db().create(&made).await;
        }
        let name = stream_object(region, group, stream);
        if state.get::<LogStream>("", &name)?.is_none() {
            let spec = LogStreamSpec {
                region: region.to_owned(),
                group: group.to_owned(),
                name: stream.to_owned(),
                ..LogStreamSpec::default()
            };
            let _ = self
                .db()
                .create(&LogStream::new(name, new_uid(), now, spec))
                .await;
        }
        Ok(())
    }

    /// Adds events (milliseconds since 1970, text) to a stream.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`] when the stream is not there.
    pub async fn log_append(
        &self,
        region: &str,
        group: &str,
        stream: &str,
        lines: &[(i64, String)],
    ) -> Result<()> {
        let name = stream_object(region, group, stream);
        loop {
            let state = self.db().snapshot();
            let found = state.get::<LogStream>("", &name)?;
            let mut object =
                found.ok_or_else(|| Error::not_found("The specified log stream does not exist."))?;
            let txn = append(&state, &mut object, lines)?;
            match self.db().try_submit(txn).await {
                Ok(_) => return Ok(()),
                Err(RaftError::Rejected(TxnError::Conflict { .. })) => {}
                Err(e) => return Err(to_error(e)),
            }
        }
    }

    /// Removes a stream with its events.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn log_stream_remove(&self, stream: &LogStream) -> Result<()> {
        let mut txn = Txn::new().remove(stream);
        for number in stream.spec.oldest..=stream.spec.chunk {
            txn = txn.delete(key::<LogChunk>("", &chunk_object(&stream.metadata.name, number)));
        }
        self.db().submit(txn).await.map(drop)
    }
}

/// The transaction that adds lines to a stream.
fn append(state: &Snapshot, stream: &mut LogStream, lines: &[(i64, String)]) -> Result<Txn> {
    let now = Time::now().as_millisecond();
    let name = stream.metadata.name.clone();
    let mut txn = Txn::new();
    let mut chunk = state.get::<LogChunk>("", &chunk_object(&name, stream.spec.chunk))?;
    for part in batches(lines, &mut stream.spec.bytes) {
        if part.begins {
            stream.spec.chunk += 1;
            stream.spec.bytes = 0;
            chunk = None;
        }
        let mut made = chunk.take().unwrap_or_else(|| {
            let spec = LogChunkSpec {
                stream: name.clone(),
                number: stream.spec.chunk,
                events: Vec::new(),
            };
            LogChunk::new(
                chunk_object(&name, stream.spec.chunk),
                new_uid(),
                Time::now(),
                spec,
            )
        });
        for (at, message) in part.lines {
            made.spec.events.push(LogEvent {
                at: *at,
                ingested: now,
                number: stream.spec.events,
                message: message.clone(),
            });
            stream.spec.events += 1;
            stream.spec.bytes += message.len() as u64 + OVERHEAD;
            stream.spec.first = Some(stream.spec.first.map_or(*at, |t| t.min(*at)));
            stream.spec.last = Some(stream.spec.last.map_or(*at, |t| t.max(*at)));
        }
        txn = if made.metadata.resource_version.is_empty() {
            txn.insert(&made)
        } else {
            txn.replace(&made)
        };
    }
    stream.spec.ingested = Some(now);
    while stream.spec.chunk - stream.spec.oldest >= KEPT {
        let key = key::<LogChunk>("", &chunk_object(&name, stream.spec.oldest));
        txn = txn.check(key.clone(), Expected::Exists).delete(key);
        stream.spec.oldest += 1;
    }
    Ok(txn.replace(stream))
}

struct Batch<'l> {
    /// It begins a chunk.
    begins: bool,
    lines: &'l [(i64, String)],
}

/// Lines by the chunk into which they go.
fn batches<'l>(lines: &'l [(i64, String)], held: &mut u64) -> Vec<Batch<'l>> {
    let mut out = Vec::new();
    let (mut from, mut bytes, mut begins) = (0, *held, *held >= CHUNK);
    if begins {
        bytes = 0;
    }
    for (i, (_, message)) in lines.iter().enumerate() {
        bytes += message.len() as u64 + OVERHEAD;
        if bytes >= CHUNK {
            out.push(Batch {
                begins,
                lines: &lines[from..=i],
            });
            (from, bytes, begins) = (i + 1, 0, true);
        }
    }
    if from < lines.len() {
        out.push(Batch {
            begins,
            lines: &lines[from..],
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fill_chunks() {
        let long = "x".repeat(70 << 10);
        let lines: Vec<(i64, String)> = (0..3).map(|i| (i, long.clone())).collect();
        let parts = batches(&lines, &mut 0);
        let shape: Vec<(bool, usize)> = parts.iter().map(|p| (p.begins, p.lines.len())).collect();
        assert_eq!(shape, [(false, 2), (true, 1)]);
        let full = batches(&lines[..1], &mut CHUNK.clone());
        assert!(full[0].begins);
    }
}
