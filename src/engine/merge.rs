//! Two profiles turn out to be one person. The facts of the one that goes are heard anew by the one that stays, each once; so whatever
//! follows from facts (attributes, counts, points, tier) follows from all of them. What the shop did for the one that goes is no
//! fact that can be heard again: its messages count against the caps of the one that stays, and its coupons are that person's. They
//! travel in the properties of one event of the engine's own, [`PROFILE_MERGED`].
//!
//! What ends with the one that goes: its runs, and the points and benefits that rules gave it. Its ledger stays on record.

use serde_json::{Map, Value as Json, json};

use super::action::{Channel, MessageId};
use super::event::{Event, EventKind};
use super::profile::{Category, Coupon, Name, Profile, Slot};
use super::time::Timestamp;

/// The event that brings what was carried over; rules hear nothing of it.
pub const PROFILE_MERGED: &str = "profile_merged";

/// The event for the profile that stays. `number` is the gone profile's, so that the same merge made twice is one event; messages of
/// `cancelled` never go out, and every other one may have reached the person by `at`.
pub fn event(gone: &Profile, number: i64, cancelled: &[MessageId], at: Timestamp) -> Event {
    let slots: Vec<Json> = gone.slots.iter().filter(|slot| !cancelled.contains(&slot.message)).map(|slot| slot_json(slot, at)).collect();
    let coupons: Vec<Json> = gone.coupons.iter().filter_map(coupon_json).collect();
    let properties = Map::from_iter([("slots".to_owned(), Json::Array(slots)), ("coupons".to_owned(), Json::Array(coupons))]);
    Event {
        id: Name::from(format!("merged-{number}")),
        kind: EventKind::Engine,
        name: Name::from(PROFILE_MERGED),
        occurred_at: at,
        received_at: at,
        source: Name::from("rekindle"),
        properties,
    }
}

/// Takes in what was carried over; a second time it changes nothing.
pub(super) fn absorb(profile: &mut Profile, event: &Event) {
    let rows = |name: &str| event.property(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    for slot in rows("slots").iter().filter_map(read_slot) {
        if profile.slots.iter().all(|known| known.message != slot.message) {
            profile.slots.push(slot);
        }
    }
    for coupon in rows("coupons").iter().filter_map(read_coupon) {
        if profile.coupons.iter().all(|known| known.code != coupon.code) {
            profile.coupons.push(coupon);
        }
    }
}

fn slot_json(slot: &Slot, at: Timestamp) -> Json {
    let Slot { message, rule, category, channel, sent_at, text } = slot;
    let sent_at = sent_at.unwrap_or(at).as_ms();
    json!({
        "message": message.to_string(), "rule": &**rule, "category": category.name(), "channel": channel.name(), "sent_at": sent_at,
        // no number of JSON holds 64 bits everywhere
        "text": text.map(|hash| format!("{hash:016x}")),
    })
}

fn read_slot(json: &Json) -> Option<Slot> {
    let text = |name: &str| json.get(name)?.as_str();
    Some(Slot {
        message: MessageId::parse(text("message")?)?,
        rule: Name::from(text("rule")?),
        category: Category::named(text("category")?)?,
        channel: Channel::named(text("channel")?)?,
        sent_at: Some(Timestamp::from_ms(json.get("sent_at")?.as_i64()?)),
        text: text("text").and_then(|hash| u64::from_str_radix(hash, 16).ok()),
    })
}

/// None for a coupon that was never issued: its message does not go out.
fn coupon_json(coupon: &Coupon) -> Option<Json> {
    let Coupon { offer, code, issued_at, valid, until, redeemed_at, message, source } = coupon;
    Some(json!({
        "offer": &**offer, "code": &**code, "issued_at": issued_at.as_ref()?.as_ms(), "valid": valid.to_string(), "until": until.as_ms(),
        "redeemed_at": redeemed_at.map(Timestamp::as_ms), "message": message.map(|id| id.to_string()), "source": &**source,
    }))
}

fn read_coupon(json: &Json) -> Option<Coupon> {
    let text = |name: &str| json.get(name)?.as_str();
    let instant = |name: &str| json.get(name)?.as_i64().map(Timestamp::from_ms);
    Some(Coupon {
        offer: Name::from(text("offer")?),
        code: Name::from(text("code")?),
        issued_at: Some(instant("issued_at")?),
        valid: text("valid")?.parse().ok()?,
        until: instant("until")?,
        redeemed_at: instant("redeemed_at"),
        message: text("message").and_then(MessageId::parse),
        source: Name::from(text("source")?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::time::Span;
    use super::*;

    #[test]
    fn slots_and_coupons_come_over_once_and_what_was_cancelled_does_not() {
        let slot = |message, sent_at| Slot {
            message: MessageId(message),
            rule: Name::from("cart"),
            category: Category::Marketing,
            channel: Channel::Email,
            sent_at,
            text: None,
        };
        let coupon = |code: &str, issued_at| Coupon {
            offer: Name::from("COME-BACK"),
            code: Name::from(code),
            issued_at,
            valid: Span::days(7),
            until: Timestamp::from_ms(900),
            redeemed_at: None,
            message: Some(MessageId(1)),
            source: Name::from("cart"),
        };
        let at = Timestamp::from_ms(100);
        let gone = Profile {
            slots: vec![slot(1, Some(Timestamp::from_ms(7))), slot(2, None), slot(3, None)],
            coupons: vec![coupon("A", Some(Timestamp::from_ms(7))), coupon("B", None)],
            ..Profile::new("gone")
        };
        let merged = event(&gone, 5, &[MessageId(3)], at);
        let mut stays = Profile { slots: vec![slot(9, None)], ..Profile::new("stays") };
        for _ in 0..2 {
            absorb(&mut stays, &merged);
            assert_eq!(stays.slots, [slot(9, None), slot(1, Some(Timestamp::from_ms(7))), slot(2, Some(at))]);
            assert_eq!(stays.coupons, [coupon("A", Some(Timestamp::from_ms(7)))]);
        }
    }
}
