//! Rekindle: rules in YAML over user state decide who gets which message, penalty or benefit, and when.

pub mod engine;
