//! API machinery over values: schemas, defaulting, validation and patches.
