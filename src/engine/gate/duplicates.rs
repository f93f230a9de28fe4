//! The last gate: not the same text twice. Two rules that send one template, a rule that was copied and changed its id, a step that was
//! renamed while it was due: the dedupe key holds none of these back, the person reads the same thing again.
//!
//! What the text is, is known only when it has been written, so this gate is asked at the send-intent alone. It is as exact as the caps
//! and for the same reason: the text's hash is stamped on the slot in the transaction that commits the intent, before a byte leaves, and
//! a slot is given back only when its message definitely did not go out.

use crate::engine::action::{Channel, MessageId};
use crate::engine::profile::{Profile, Slot};
use crate::engine::rule::Duplicates;
use crate::engine::time::Timestamp;

/// The hash of what goes out on a channel: the same words by another channel are another text, so that alternatives and ladders go on.
pub fn text_hash<'a>(channel: Channel, parts: impl Iterator<Item = (&'static str, &'a str)>) -> u64 {
    let mut text = channel.name().to_owned();
    for (name, part) in parts {
        text.push('\0');
        text.push_str(name);
        text.push('\0');
        text.push_str(part);
    }
    twox_hash::XxHash3_64::oneshot(text.as_bytes())
}

/// Stamps the text on its message's slot, unless the person has had it within the span: then the sentence that says so.
pub fn stamp(policy: &Duplicates, profile: &mut Profile, message: MessageId, text: u64, now: Timestamp) -> Result<(), String> {
    let since = now.plus_ms(-policy.within_ms);
    // one that waits for another attempt will go: like every pending slot it counts
    let stands = |slot: &&Slot| slot.message != message && slot.text == Some(text) && slot.sent_at.is_none_or(|at| at > since);
    if let Some(slot) = profile.slots.iter().find(stands) {
        let when = slot.sent_at.map_or_else(|| "is on its way".to_owned(), |at| format!("went on {at}"));
        return Err(format!("the same text {when}, by rule {}", slot.rule));
    }
    if let Some(slot) = profile.slots.iter_mut().find(|slot| slot.message == message) {
        slot.text = Some(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::profile::Category;

    #[test]
    fn a_text_is_the_same_on_one_channel_within_the_span() {
        let text = |channel, words: &str| text_hash(channel, [("sms", words)].into_iter());
        let now = Timestamp::from_ms(1_000_000);
        let policy = Duplicates { within_ms: 1_000, categories: vec![Category::Marketing] };
        for (before, sent_at, stops) in [
            (text(Channel::Sms, "hello"), Some(now.plus_ms(-999)), true),
            (text(Channel::Sms, "hello"), Some(now.plus_ms(-1_000)), false), // the window is half-open
            (text(Channel::Sms, "hello"), None, true),
            (text(Channel::Sms, "hello!"), None, false),
            (text(Channel::Whatsapp, "hello"), None, false),
            (text_hash(Channel::Sms, [("text", "hello")].into_iter()), None, false),
        ] {
            let slot = |id, text, sent_at| Slot {
                message: MessageId(id),
                rule: "first".into(),
                category: Category::Marketing,
                channel: Channel::Sms,
                sent_at,
                text,
            };
            let mut profile = Profile::new("anna");
            profile.slots = vec![slot(1, Some(before), sent_at), slot(2, None, Some(now))];
            let answer = stamp(&policy, &mut profile, MessageId(2), text(Channel::Sms, "hello"), now);
            assert_eq!(answer.is_err(), stops, "{sent_at:?}");
            assert_eq!(profile.slots.last().and_then(|slot| slot.text).is_none(), stops);
            // the message itself, tried again, does not stand in its own way
            profile.slots.remove(0);
            assert_eq!(stamp(&policy, &mut profile, MessageId(2), text(Channel::Sms, "hello"), now), Ok(()));
        }
    }
}
