//! Nothing is late by accident: past its planned instant plus `max_late` a message ends as expired.

use super::{Answer, Ask};

pub fn check(ask: &Ask<'_>) -> Answer {
    match ask.send() {
        Some(send) if ask.now > send.deadline => Answer::Expire { because: format!("too late: it had to go out by {}", send.deadline) },
        _ => Answer::Pass,
    }
}
