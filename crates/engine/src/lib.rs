//! Admission, transactions, controller loops and node sessions over the store.
