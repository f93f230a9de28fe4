//! What the world says back: signatures, callbacks, suppression, consent.

mod callbacks;
mod erasure;
pub mod http;
mod signatures;
