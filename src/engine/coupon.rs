//! Coupons: codes, their life, their redemption.
//!
//! A coupon that travels with a message is reserved with the decision, issued as the message goes out (its life begins then), released
//! if the message never goes. Codes are derived, not drawn: the same message or run has the same code however often it is decided. They
//! are derived with the database's secret ([`Salt`]): who knows the ids alone cannot guess them.
//!
//! Not here: whether the budget allows it (the gate `budget`, and [`super::benefit::grant`]); imported code lists.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use serde_json::{Value as Json, json};

use super::absorb::{self, ORDER_COMPLETED};
use super::action::MessageId;
use super::event::Event;
use super::points::{Booked, OwnEvent};
use super::profile::{Coupon, Name, Profile};
use super::rule::expr::Names;
use super::rule::{CouponSource, CouponType, CouponValue, Offer};
use super::time::{DAY_MS, Span, Timestamp};

/// Digits and capitals without 0, 1, I and O, which people confuse on paper and on the phone.
const SYMBOLS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
const CODE_LENGTH: usize = 12;
/// Coupons that are used up or over are kept so long for whoever asks.
const CLOSED_KEPT_MS: i64 = 30 * DAY_MS;
/// The event with which a shop reports a redemption that is no order.
const COUPON_REDEEMED: &str = "coupon_redeemed";

/// The secret that codes are derived with. Empty in rule tests and replays, whose codes nobody can use.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Salt(Arc<[u8]>);

impl Salt {
    pub fn new(secret: &[u8]) -> Self {
        Salt(secret.into())
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// The code of an origin: 60 bits of its HMAC-SHA-256.
pub fn code(salt: &Salt, origin: &str) -> Name {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt.0), origin.as_bytes());
    let bits = tag.as_ref().iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let symbols = (0..CODE_LENGTH).filter_map(|place| SYMBOLS.get((bits >> (5 * place) & 31) as usize));
    Name::from(symbols.map(|symbol| char::from(*symbol)).collect::<String>())
}

/// What one coupon of that type takes from its budget, in minor units: its value; for a share of an order, which is not known ahead,
/// the share of 100 units.
pub fn face_value(coupon: &CouponType) -> i64 {
    match coupon.value {
        CouponValue::Money(money) => money.minor,
        CouponValue::Share(basis_points) => i64::from(basis_points),
    }
}

/// Open for use at `now`: issued, not used, not over.
pub fn is_open(coupon: &Coupon, now: Timestamp) -> bool {
    coupon.issued_at.is_some_and(|at| at <= now) && coupon.redeemed_at.is_none() && now < coupon.until
}

/// Coupons the person could use at `now`, and until when that stands.
pub fn open(profile: &Profile, now: Timestamp) -> (i64, Timestamp) {
    let open = profile.coupons.iter().filter(|coupon| is_open(coupon, now));
    open.fold((0, Timestamp::FOREVER), |(count, until), coupon| (count + 1, until.min(coupon.until)))
}

/// Reserves the coupon of a message: it has its code, its life has not begun. Returns its face value; the error says why there is none.
pub fn reserve(
    profile: &mut Profile,
    names: Names<'_>,
    offer: &Offer,
    message: MessageId,
    rule: &Name,
    salt: &Salt,
    now: Timestamp,
) -> Result<i64, String> {
    let kind = known(names, &offer.coupon)?;
    tidy(profile, now);
    if profile.coupons.iter().all(|coupon| coupon.message != Some(message)) {
        profile.coupons.push(Coupon {
            offer: offer.coupon.clone(),
            code: code_of(kind, &offer.coupon, salt, &message.to_string())?,
            issued_at: None,
            valid: offer.valid.unwrap_or(kind.valid),
            until: Timestamp::FOREVER,
            redeemed_at: None,
            message: Some(message),
            source: rule.clone(),
        });
    }
    Ok(face_value(kind))
}

/// Begins the life of a message's coupon, as the message goes out. The event is for the caller to append; none if the message has no
/// coupon or it was issued already.
pub fn issue(profile: &mut Profile, names: Names<'_>, message: MessageId, now: Timestamp) -> Option<OwnEvent> {
    let zone = names.policy.zone_of(profile);
    let coupon = profile.coupons.iter_mut().find(|coupon| coupon.message == Some(message) && coupon.issued_at.is_none())?;
    coupon.issued_at = Some(now);
    coupon.until = coupon.valid.after(now, &zone);
    let mut booked = Booked::default();
    booked.say("coupon_issued", now, properties(coupon));
    booked.events.pop()
}

/// Frees the coupon of a message that never went out. One that was issued stays with the person.
pub fn release(profile: &mut Profile, message: MessageId) {
    profile.coupons.retain(|coupon| coupon.message != Some(message) || coupon.issued_at.is_some());
}

/// A coupon to be given at once.
#[derive(Clone, Copy)]
pub struct Gift<'a> {
    /// Name in the program.
    pub name: &'a Name,
    /// Replaces the coupon's own `valid`.
    pub expires: Option<Span>,
    /// Run and step that give it: the same source gives it once.
    pub source: &'a Name,
    pub at: Timestamp,
    pub salt: &'a Salt,
}

/// Gives a coupon at once, without a message. Returns the face value; the error says why not.
pub fn give(profile: &mut Profile, names: Names<'_>, gift: Gift<'_>, booked: &mut Booked) -> Result<i64, String> {
    let Gift { name, expires, source, at, salt } = gift;
    let kind = known(names, name)?;
    tidy(profile, at);
    if profile.coupons.iter().any(|coupon| coupon.source == *source && coupon.offer == *name) {
        return Ok(0);
    }
    let valid = expires.unwrap_or(kind.valid);
    let coupon = Coupon {
        offer: name.clone(),
        code: code_of(kind, name, salt, &format!("{}\0{source}", profile.key))?,
        issued_at: Some(at),
        valid,
        until: valid.after(at, &names.policy.zone_of(profile)),
        redeemed_at: None,
        message: None,
        source: source.clone(),
    };
    booked.say("coupon_issued", at, properties(&coupon));
    profile.coupons.push(coupon);
    Ok(face_value(kind))
}

/// Hears of redemptions: an order that names codes in its property `coupon` (one or a list), or the shop's own event `coupon_redeemed`.
/// A code that the person does not hold, or that was over by then, redeems nothing.
pub fn redeem(profile: &mut Profile, event: &Event, names: Names<'_>, booked: &mut Booked) {
    let name = absorb::rule_name(event, names.dictionary);
    let is_order = name.as_deref() == Some(ORDER_COMPLETED);
    if event.kind == super::event::EventKind::Engine || !(is_order || name.as_deref() == Some(COUPON_REDEEMED)) {
        return;
    }
    let codes: Vec<&str> = match event.property("coupon").or_else(|| event.property("code")) {
        Some(Json::String(code)) => vec![code],
        Some(Json::Array(codes)) => codes.iter().filter_map(Json::as_str).collect(),
        _ => return,
    };
    let at = event.occurred_at;
    for coupon in profile.coupons.iter_mut().filter(|coupon| is_open(coupon, at)) {
        if codes.iter().any(|code| code.trim().eq_ignore_ascii_case(&coupon.code)) {
            coupon.redeemed_at = Some(at);
            // the shop's own event is heard by rules as it is
            if is_order {
                booked.say(COUPON_REDEEMED, at, properties(coupon));
            }
        }
    }
}

fn known<'a>(names: Names<'a>, name: &str) -> Result<&'a CouponType, String> {
    names.program.and_then(|program| program.coupons.get(name)).ok_or_else(|| format!("the program has no coupon {name} any more"))
}

fn code_of(kind: &CouponType, name: &Name, salt: &Salt, origin: &str) -> Result<Name, String> {
    match kind.source {
        CouponSource::Generated => Ok(code(salt, origin)),
        CouponSource::Shared => Ok(name.clone()),
        CouponSource::Pool => Err(format!("coupon {name} draws on a pool of codes, which is not yet available")),
    }
}

fn properties(coupon: &Coupon) -> Json {
    let until = (!coupon.until.is_forever()).then(|| coupon.until.to_string());
    json!({ "coupon": *coupon.offer, "code": *coupon.code, "until": until })
}

fn tidy(profile: &mut Profile, now: Timestamp) {
    profile.coupons.retain(|coupon| {
        let closed_at = coupon.redeemed_at.unwrap_or(coupon.until);
        now < closed_at.plus_ms(CLOSED_KEPT_MS)
    });
}

#[cfg(test)]
mod tests {
    use super::super::sample::{day, event, profile, shop};
    use super::*;
    use serde_json::json;

    fn offer(name: &str, valid: Option<Span>) -> Offer {
        Offer { coupon: name.into(), valid }
    }

    #[test]
    fn codes_are_long_unambiguous_and_always_the_same() {
        let (salt, other) = (Salt::new(b"a secret"), Salt::new(b"another one"));
        let codes: std::collections::BTreeSet<Name> = (0..10_000).map(|n| code(&salt, &n.to_string())).collect();
        assert_eq!(codes.len(), 10_000);
        for code in codes {
            assert!(code.len() >= 10 && code.bytes().all(|b| SYMBOLS.contains(&b)), "{code}");
        }
        assert_eq!(code(&salt, "a"), code(&salt, "a"));
        assert!(code(&salt, "a") != code(&other, "a"), "the ids alone give no code");
        assert_eq!(format!("{salt:?}"), "Salt(..)");
    }

    #[test]
    fn the_life_of_an_offer_begins_as_its_message_goes_out() {
        let (shop, mut profile, rule) = (shop(), profile(), Name::from("rule"));
        let names = shop.names();
        let worth = reserve(&mut profile, names, &offer("back5", None), MessageId(1), &rule, &Salt::default(), day(0));
        assert_eq!((worth, open(&profile, day(0)).0), (Ok(500), 0));
        reserve(&mut profile, names, &offer("back5", Some(Span::days(2))), MessageId(2), &rule, &Salt::default(), day(0))
            .expect("a second one");
        assert!(issue(&mut profile, names, MessageId(2), day(3)).is_some());
        assert!(issue(&mut profile, names, MessageId(2), day(4)).is_none(), "once");
        assert_eq!(open(&profile, day(3)), (1, day(5)));
        release(&mut profile, MessageId(1));
        release(&mut profile, MessageId(2));
        assert_eq!(profile.coupons.len(), 1, "what was issued stays");
    }

    #[test]
    fn no_message_ever_has_an_empty_code() {
        let (shop, mut profile) = (shop(), profile());
        for name in ["listed", "gone"] {
            assert!(
                reserve(&mut profile, shop.names(), &offer(name, None), MessageId(1), &"rule".into(), &Salt::default(), day(0)).is_err()
            );
        }
        reserve(&mut profile, shop.names(), &offer("TEN", None), MessageId(1), &"rule".into(), &Salt::default(), day(0))
            .expect("a shared code");
        assert_eq!(profile.coupons.iter().map(|coupon| &*coupon.code).collect::<Vec<_>>(), ["TEN"]);
    }

    #[test]
    fn an_order_redeems_the_codes_it_names_while_they_are_open() {
        let order = |at, coupon: Json| event("Order Completed", at, json!({ "order_id": "1", "total": 9.0, "coupon": coupon }));
        let (shop, mut profile, mut booked) = (shop(), profile(), Booked::default());
        let (name, source, salt) = ("back5".into(), "r/1/s".into(), Salt::default());
        let gift = Gift { name: &name, expires: None, source: &source, at: day(0), salt: &salt };
        give(&mut profile, shop.names(), gift, &mut booked).expect("a coupon");
        give(&mut profile, shop.names(), gift, &mut booked).expect("the same coupon");
        assert_eq!(profile.coupons.len(), 1, "one source, one coupon");
        let code = profile.coupons[0].code.to_lowercase();
        for (at, coupon) in [(day(1), json!("nonsense")), (day(14), json!(code)), (day(2), json!(["x", code])), (day(3), json!(code))] {
            redeem(&mut profile, &order(at, coupon), shop.names(), &mut booked);
        }
        assert_eq!(profile.coupons[0].redeemed_at, Some(day(2)), "over on day 14, used up on day 3");
        assert_eq!(booked.events.iter().map(|own| &*own.name).collect::<Vec<_>>(), ["coupon_issued", "coupon_redeemed"]);
    }
}
