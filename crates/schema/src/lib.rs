//! API machinery over values: the registry of kinds, types, defaulting, validation, selectors, patches, tables.
//!
//! Objects are `serde_json` values here; nothing reads a clock or the store.

pub mod apply;
pub mod decode;
pub mod defaults;
pub mod definitions;
pub mod failure;
pub mod kinds;
pub mod openapi;
pub mod openapi_proto;
pub mod patch;
pub mod proto;
pub mod quantity;
pub mod selector;
pub mod table;
pub mod types;
pub mod validate;
pub mod value;

pub use failure::{Cause, Failure};
pub use kinds::{Kind, Sub, registry};
pub use types::{Ty, types};
