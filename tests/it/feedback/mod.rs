//! What the world says back: signatures, callbacks, suppression, consent.

mod callbacks;
mod erasure;
mod http;
mod signatures;
