//! What the world says back: signatures, callbacks, suppression, consent.

mod callbacks;
mod http;
mod signatures;
