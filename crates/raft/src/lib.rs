//! The log on disk and the agreement about it.
