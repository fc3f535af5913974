//! Every decision as a pure function of a view, the time and a seed.
