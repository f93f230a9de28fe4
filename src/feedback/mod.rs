//! Feedback: what the world says back. Providers report what became of messages, people unsubscribe: every word of it is proved to
//! come from whom it says ([`signature`]), read by the provider's own description ([`callback`]), and recorded as facts ([`record`]). What stands on the public listener is in [`http`].
//!
//! It asks nobody anything: no call that comes in causes one that goes out.

pub mod callback;
pub mod http;
pub mod page;
pub mod preferences;
pub mod record;
pub mod signature;
