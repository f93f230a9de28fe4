//! THE ordered list.
