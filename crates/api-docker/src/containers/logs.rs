//! The log of a container as a stream.

use bytes::Bytes;
use futures::StreamExt as _;
use tripod_agent::ports::{LogLine, LogQuery, OutputStream};

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::framing::{self, MULTIPLEXED, RAW};
use crate::reply::{self, Reply};
use crate::when;

pub(crate) async fn logs(docker: &Docker, call: &Call, id: &str) -> Reply {
    let query = query(call)?;
    let record = docker.agent().container(id)?;
    let format = Format {
        tty: record.spec.tty,
        timestamps: call.query.flag("timestamps"),
    };
    let kind = if record.spec.tty || call.version.0 < 42 {
        RAW
    } else {
        MULTIPLEXED
    };
    let lines = docker.agent().logs(&record.id, query).await?;
    let pieces = lines.map(move |line| {
        Ok::<Bytes, std::convert::Infallible>(match line {
            Ok(line) => format.line(&line),
            Err(e) => format.error(&e.message),
        })
    });
    reply::stream(kind, pieces)
}

/// Which part of the log is wanted.
pub(crate) fn query(call: &Call) -> Result<LogQuery, Fault> {
    let q = &call.query;
    let (stdout, stderr) = (q.flag("stdout"), q.flag("stderr"));
    if !stdout && !stderr {
        return Err(Fault::bad("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogQuery {
        stdout,
        stderr,
        follow: q.flag("follow"),
        since: q.time("since")?,
        until: q.time("until")?,
        tail: q.text("tail").parse().ok(),
        details: q.flag("details"),
    })
}

/// How lines are written.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub(crate) tty: bool,
    pub(crate) timestamps: bool,
}

impl Format {
    /// A line, with its header unless the container has a terminal.
    pub(crate) fn line(self, line: &LogLine) -> Bytes {
        let stamp = if self.timestamps {
            format!("{} ", when::log_stamp(line.at))
        } else {
            String::new()
        };
        let attrs = line.attrs.as_ref().map(|a| format!("{a} ")).unwrap_or_default();
        match (self.tty, stamp.is_empty() && attrs.is_empty()) {
            (true, true) => line.data.clone(),
            (true, false) => [stamp.as_bytes(), attrs.as_bytes(), &line.data].concat().into(),
            (false, _) => framing::framed(
                framing::number(line.stream),
                &[stamp.as_bytes(), attrs.as_bytes(), &line.data],
            ),
        }
    }

    /// An error of the daemon, after which the client reads no further.
    pub(crate) fn system_error(self, message: &str) -> Bytes {
        let text = format!("Error grabbing logs: {message}\n");
        match self.tty {
            true => text.into(),
            false => framing::framed(framing::SYSTEM_ERROR, &[text.as_bytes()]),
        }
    }

    fn error(self, message: &str) -> Bytes {
        let at = tripod_model::Time::now();
        let data = Bytes::from(format!("Error grabbing logs: {message}\n"));
        Format {
            timestamps: false,
            ..self
        }
        .line(&LogLine {
            stream: OutputStream::Stderr,
            at,
            data,
            attrs: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = LogLine {
            stream: OutputStream::Stdout,
            at: tripod_model::Time::new(1, 2).unwrap(),
            data: Bytes::from_static(b"hi\n"),
            attrs: Some("a=b".into()),
        };
        let plain = Format {
            tty: true,
            timestamps: true,
        }
        .line(&line);
        assert_eq!(&plain[..], b"1970-01-01T00:00:01.000000002Z a=b hi\n");
        let framed = Format {
            tty: false,
            timestamps: false,
        }
        .line(&LogLine { attrs: None, ..line });
        assert_eq!(&framed[..], b"\x01\0\0\0\0\0\0\x03hi\n");
    }
}
