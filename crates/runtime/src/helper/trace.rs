//! libcontainer tells the cause of a failure only to its log. This keeps the errors that it logs, in a file that the
//! container's first process can still write to after it has changed its root.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct Errors {
    file: File,
}

/// Keeps errors from now on, in this process and those forked from it.
pub(super) fn keep_errors(path: &Path) -> std::io::Result<()> {
    let file = File::options().append(true).create(true).open(path)?;
    // A second call in the same process changes nothing.
    let _ = tracing::subscriber::set_global_default(Errors { file });
    Ok(())
}

/// The error that was logged first: the cause of the others.
pub(super) fn first_error(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find(|l| !l.is_empty()).map(str::to_owned)
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let text = line.0.replace('\n', " ") + "\n";
        let _ = (&self.file).write_all(text.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
