//! Rolling updates and rollbacks.
use crate::planner::Planner;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staleness {
    Clean,
}
pub(crate) fn advance(_p: &mut Planner<'_, '_>) {}
