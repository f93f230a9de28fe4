//! Messages by one HTTP request each, to any provider that is described as data.

pub mod provider;
