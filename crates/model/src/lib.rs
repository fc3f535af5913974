//! The one kind of object: kinds, metadata, identifiers, and the neutral descriptions that every layer shares.
