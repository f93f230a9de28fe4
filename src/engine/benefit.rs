//! Benefits: what a person is entitled to, by tier or by grant, and grants that come as one.
//!
//! A grant is made once per source (rule, run, step), and a bundle all or nothing. Benefits of a tier are not stored: they are read
//! from the level the person has.

use std::collections::BTreeMap;

use serde_json::json;

use super::coupon::{self, Gift, Salt};
use super::points::Booked;
use super::profile::{Entitlement, Name, Profile};
use super::rule::expr::Names;
use super::rule::{Bundle, CouponType, Grant, Program};
use super::tier;
use super::time::{Span, Timestamp};

/// The entitlement that remembers when a bundle may come again.
const BUNDLE_PREFIX: &str = "bundle:";

/// Who grants, when, and what of each coupon's budget is used already.
#[derive(Debug, Clone)]
pub struct GrantOrder<'a> {
    pub at: Timestamp,
    pub rule: Name,
    pub run: u32,
    pub step: Name,
    /// Coupon name to the face value (minor units) reserved in this calendar month of the shop's zone.
    pub budgets: &'a BTreeMap<Name, i64>,
    /// What codes of coupons are derived with.
    pub salt: &'a Salt,
}

/// Makes a grant whole or not at all. Returns what it takes of which coupon's budget; the error says why it cannot be made.
pub fn grant(
    profile: &mut Profile,
    names: Names<'_>,
    grant: &Grant,
    expires: Option<Span>,
    order: GrantOrder<'_>,
    booked: &mut Booked,
) -> Result<Vec<(Name, i64)>, String> {
    let program = names.program.ok_or("the rule set has no program")?;
    let source = Name::from(format!("{}/{}/{}", order.rule, order.run, order.step));
    profile.entitlements.retain(|entitlement| entitlement.until > order.at);
    match grant {
        Grant::Coupon(name) => {
            within_budget(program, name, &order)?;
            let face_value = coupon::give(profile, names, Gift { name, expires, source: &source, at: order.at, salt: order.salt }, booked)?;
            Ok(vec![(name.clone(), face_value)])
        }
        Grant::Benefit(name) => {
            entitle(profile, names, name, expires, &source, order.at, booked)?;
            Ok(vec![])
        }
        Grant::Bundle(name) => {
            let bundle = program.bundles.get(name).ok_or_else(|| format!("the program has no bundle {name} any more"))?;
            // on a copy: a part that cannot be given leaves nothing of the others behind
            let (mut with_it, mut said) = (profile.clone(), Booked::default());
            let used = give_bundle(&mut with_it, names, (name, bundle), expires, &source, &order, &mut said)?;
            *profile = with_it;
            booked.postings.append(&mut said.postings);
            booked.events.append(&mut said.events);
            Ok(used)
        }
    }
}

fn give_bundle(
    profile: &mut Profile,
    names: Names<'_>,
    (name, bundle): (&Name, &Bundle),
    expires: Option<Span>,
    source: &Name,
    order: &GrantOrder<'_>,
    booked: &mut Booked,
) -> Result<Vec<(Name, i64)>, String> {
    let program = names.program.ok_or("the rule set has no program")?;
    let key = Name::from(format!("{BUNDLE_PREFIX}{name}"));
    if let Some(last) = profile.entitlements.iter().find(|entitlement| entitlement.key == key && entitlement.until > order.at) {
        return Err(format!("once_per: {name} was granted on {}, again from {}", last.from, last.until));
    }
    let mut used = vec![];
    if let Some(coupon) = &bundle.coupon {
        within_budget(program, coupon, order)?;
        let gift = Gift { name: coupon, expires, source, at: order.at, salt: order.salt };
        used.push((coupon.clone(), coupon::give(profile, names, gift, booked)?));
    }
    if let Some(benefit) = &bundle.benefit {
        entitle(profile, names, benefit, expires, source, order.at, booked)?;
    }
    if let Some((up, lasts)) = bundle.overlay {
        tier::overlay(profile, names, up, lasts, order.at, source, booked)?;
    }
    if let Some(once_per) = bundle.once_per {
        let until = once_per.after(order.at, &names.policy.zone_of(profile));
        profile.entitlements.push(Entitlement { key, value: 1, from: order.at, until, source: source.clone() });
    }
    Ok(used)
}

fn within_budget(program: &Program, name: &Name, order: &GrantOrder<'_>) -> Result<(), String> {
    let Some(CouponType { budget: Some(budget), .. }) = program.coupons.get(name) else { return Ok(()) };
    let face_value = program.coupons.get(name).map_or(0, coupon::face_value);
    let used = order.budgets.get(name).copied().unwrap_or(0);
    if used.saturating_add(face_value) <= budget.minor {
        return Ok(());
    }
    Err(format!("the budget of {name} ({budget} a month) is used up"))
}

fn entitle(
    profile: &mut Profile,
    names: Names<'_>,
    name: &Name,
    expires: Option<Span>,
    source: &Name,
    at: Timestamp,
    booked: &mut Booked,
) -> Result<(), String> {
    let kind = names.program.and_then(|program| program.benefits.get(name));
    let kind = kind.ok_or_else(|| format!("the program has no benefit {name} any more"))?;
    if profile.entitlements.iter().any(|entitlement| entitlement.key == *name && entitlement.source == *source) {
        return Ok(());
    }
    let until = expires.map_or(Timestamp::FOREVER, |span| span.after(at, &names.policy.zone_of(profile)));
    let value = if kind.is_flag { 1 } else { kind.default.max(1) };
    profile.entitlements.push(Entitlement { key: name.clone(), value, from: at, until, source: source.clone() });
    let said_until = (!until.is_forever()).then(|| until.to_string());
    booked.say("benefit_granted", at, json!({ "benefit": **name, "value": value, "until": said_until }));
    Ok(())
}

/// The value of a benefit for a person, the largest of what the program gives everybody, the level and grants give; 0: not entitled.
/// And until when that stands.
pub fn entitled(profile: &Profile, names: Names<'_>, key: &str, now: Timestamp) -> (i64, Timestamp) {
    let Some(program) = names.program else { return (0, Timestamp::FOREVER) };
    let kind = program.benefits.get(key);
    let by_default = kind.filter(|kind| !kind.is_flag).map_or(0, |kind| kind.default);
    let (level, mut until) = tier::effective(profile, names, now);
    let level = level.and_then(|level| program.tiers.as_ref()?.levels.iter().find(|known| known.id == level));
    let by_level = level.is_some_and(|level| level.benefits.iter().any(|benefit| &**benefit == key));
    let mut value = by_default.max(i64::from(by_level));
    for entitlement in profile.entitlements.iter().filter(|entitlement| &*entitlement.key == key) {
        if now < entitlement.from {
            until = until.min(entitlement.from);
        } else if now < entitlement.until {
            until = until.min(entitlement.until);
            value = value.max(entitlement.value);
        }
    }
    (value, until)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Shop, day, profile, shop};
    use super::*;

    fn granted(
        shop: &Shop,
        profile: &mut Profile,
        what: &Grant,
        (at, run): (Timestamp, u32),
        used: i64,
        booked: &mut Booked,
    ) -> Result<Vec<(Name, i64)>, String> {
        let budgets = BTreeMap::from([(Name::from("back5"), used)]);
        let order = GrantOrder { at, rule: "rule".into(), run, step: "step".into(), budgets: &budgets, salt: &Salt::default() };
        grant(profile, shop.names(), what, Some(Span::days(7)), order, booked)
    }

    #[test]
    fn a_benefit_is_granted_once_per_source_and_ends() {
        let (shop, mut profile, mut booked) = (shop(), profile(), Booked::default());
        let what = Grant::Benefit("early-access".into());
        for _ in 0..2 {
            granted(&shop, &mut profile, &what, (day(0), 1), 0, &mut booked).expect("a benefit");
        }
        assert_eq!((profile.entitlements.len(), booked.events.len()), (1, 1));
        assert_eq!(entitled(&profile, shop.names(), "early-access", day(6)), (1, day(7)));
        assert_eq!(entitled(&profile, shop.names(), "early-access", day(7)).0, 0);
    }

    #[test]
    fn a_benefit_comes_by_level_by_default_or_not_at_all() {
        let (shop, mut profile, mut booked) = (shop(), profile(), Booked::default());
        let table = [("basic-desk", 1), ("silver-desk", 0), ("return-window", 7), ("gold-desk", 0)];
        for (key, value) in table {
            assert_eq!(entitled(&profile, shop.names(), key, day(0)).0, value, "{key}");
        }
        tier::overlay(&mut profile, shop.names(), 1, Span::days(30), day(0), &"x".into(), &mut booked).expect("tiers");
        assert_eq!(entitled(&profile, shop.names(), "silver-desk", day(0)), (1, day(30)));
    }

    #[test]
    fn a_bundle_comes_whole_and_once_per_its_span() {
        let (shop, mut profile, mut booked) = (shop(), profile(), Booked::default());
        let what = Grant::Bundle("winback".into());
        let used = granted(&shop, &mut profile, &what, (day(0), 1), 0, &mut booked).expect("a bundle");
        assert_eq!(used, [(Name::from("back5"), 500)]);
        // `expires` replaces the coupon's `valid`, the overlay keeps its own span
        assert_eq!((profile.coupons[0].until, profile.tier.overlay.as_ref().map(|overlay| overlay.until)), (day(7), Some(day(30))));
        let again = granted(&shop, &mut profile, &what, (day(179), 2), 0, &mut booked).expect_err("too soon");
        assert!(again.starts_with("once_per"), "{again}");
        granted(&shop, &mut profile, &what, (day(180), 3), 0, &mut booked).expect("again");
    }

    #[test]
    fn what_cannot_be_granted_whole_leaves_nothing_behind() {
        let (shop, mut profile, mut booked) = (shop(), profile(), Booked::default());
        let table = [
            (Grant::Bundle("broken".into()), 0, "pool"),
            (Grant::Bundle("winback".into()), 701, "budget"),
            (Grant::Coupon("back5".into()), 701, "budget"),
            (Grant::Benefit("gone".into()), 0, "no benefit gone"),
        ];
        for (what, used, why) in table {
            let said = granted(&shop, &mut profile, &what, (day(0), 1), used, &mut booked).expect_err("a reason");
            assert!(said.contains(why), "{said}");
        }
        assert_eq!((&profile, booked.events.len()), (&super::super::sample::profile(), 0));
        granted(&shop, &mut profile, &Grant::Coupon("back5".into()), (day(0), 1), 700, &mut booked).expect("exactly within");
    }
}
