//! The reference: conditions made at random, each with its text for the engine and a plain reading of its own that scans everything and
//! computes nothing in advance. Deliberately slow.

use std::rc::Rc;

use jiff::civil::Date;
use rekindle::engine::action::Channel;
use rekindle::engine::event::Value;
use rekindle::engine::profile::{Consent, Profile, Series};
use rekindle::engine::rule::AggregateFunction;
use rekindle::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp, Zone};

use super::world::{FEATURES, LEVELS, Rng, money_text};

/// What a plain reading sees.
pub struct Sight<'s> {
    pub profile: &'s Profile,
    pub zone: &'s Zone,
    pub now: Timestamp,
    pub calendar_around: Date,
    /// Ask about the local calendar more often.
    pub near_change: bool,
}

type Reading<T> = Rc<dyn Fn(&Sight<'_>) -> T>;

/// A text and what it means.
pub struct Formula {
    pub text: String,
    pub truth: Reading<bool>,
    /// Parts of the profile that it reads: see `CHANGES` in the properties.
    pub touches: Vec<&'static str>,
}

struct Number {
    text: String,
    value: Reading<i64>,
    touches: Vec<&'static str>,
    is_money: bool,
}

pub fn formula(rng: &mut Rng, sight: &Sight<'_>, depth: u32) -> Formula {
    if depth == 0 || rng.chance(25) {
        return leaf(rng, sight);
    }
    match rng.range(0, 9) {
        0..=1 => {
            let inner = formula(rng, sight, depth - 1);
            let truth = inner.truth;
            let text = format!("{}({})", rng.pick(&["!", "not "]), inner.text);
            Formula { text, truth: Rc::new(move |sight| !truth(sight)), touches: inner.touches }
        }
        2 => {
            let (a, b) = (formula(rng, sight, depth - 1), formula(rng, sight, depth - 1));
            let (x, y) = (a.truth, b.truth);
            let text = format!("({}) == ({})", a.text, b.text);
            Formula { text, truth: Rc::new(move |sight| x(sight) == y(sight)), touches: [a.touches, b.touches].concat() }
        }
        kind => {
            let is_all = kind <= 6;
            let parts: Vec<Formula> = (0..rng.range(2, 4)).map(|_| formula(rng, sight, depth - 1)).collect();
            let joint = *rng.pick(if is_all { &["&&", "and"] } else { &["||", "or"] });
            let text = parts.iter().map(|part| format!("({})", part.text)).collect::<Vec<_>>().join(&format!(" {joint} "));
            let touches = parts.iter().flat_map(|part| part.touches.clone()).collect();
            let truths: Vec<_> = parts.into_iter().map(|part| part.truth).collect();
            let truth: Reading<bool> = Rc::new(move |sight| {
                // every part is asked: no short cut
                let answers: Vec<bool> = truths.iter().map(|truth| truth(sight)).collect();
                if is_all { answers.iter().all(|t| *t) } else { answers.iter().any(|t| *t) }
            });
            Formula { text, truth, touches }
        }
    }
}

fn leaf(rng: &mut Rng, sight: &Sight<'_>) -> Formula {
    if sight.near_change && rng.chance(50) {
        return local(rng, sight);
    }
    match rng.range(0, 3) {
        0 => flag(rng, sight),
        1 => {
            let number = number(rng, false);
            compared(rng, sight, number)
        }
        2 => {
            let number = number(rng, true);
            compared(rng, sight, number)
        }
        _ => {
            let number = calculated(rng);
            compared(rng, sight, number)
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------- numbers

fn named(text: impl Into<String>, touches: &[&'static str], value: impl Fn(&Sight<'_>) -> i64 + 'static) -> Number {
    Number { text: text.into(), value: Rc::new(value), touches: touches.to_vec(), is_money: false }
}

/// Whole units from `since` to now, counted one by one.
fn counted_units(since: Timestamp, unit_ms: i64, now: Timestamp) -> i64 {
    let mut units = now.ms_since(since) / unit_ms - 3;
    while since.plus_ms((units + 1) * unit_ms) <= now {
        units += 1;
    }
    units
}

fn seen(series: &Series, days: Option<i64>, now: Timestamp) -> Vec<(Timestamp, i64)> {
    let inside = |at: Timestamp| at <= now && days.is_none_or(|days| at.plus_ms(days * DAY_MS) > now);
    series.points.iter().filter(|p| inside(p.at)).map(|p| (p.at, p.value)).collect()
}

fn silent_since(profile: &Profile) -> Timestamp {
    profile.activity.last_active_at.or(profile.first_seen_at).expect("somebody seen")
}

fn spend(sight: &Sight<'_>, days: Option<i64>) -> i64 {
    let sum = |series: &Series| seen(series, days, sight.now).iter().map(|(_, value)| value).sum::<i64>();
    sum(&sight.profile.orders) - sum(&sight.profile.refunds)
}

fn lots(sight: &Sight<'_>, keep: impl Fn(&rekindle::engine::profile::Lot, bool) -> bool) -> i64 {
    let is_active = |lot: &rekindle::engine::profile::Lot| lot.activates_at <= sight.now && sight.now < lot.expires_at;
    sight.profile.wallet.lots.iter().filter(|lot| keep(lot, is_active(lot))).map(|lot| lot.left).sum()
}

fn tier_now(sight: &Sight<'_>) -> String {
    let rank = |id: &str| LEVELS.iter().position(|(level, _)| *level == id).unwrap_or(0);
    let base = sight.profile.tier.base.as_deref().unwrap_or(LEVELS[0].0);
    let overlay = sight.profile.tier.overlay.as_ref().filter(|o| o.from <= sight.now && sight.now < o.until);
    overlay.map_or(base, |o| if rank(&o.tier) > rank(base) { &o.tier } else { base }).to_owned()
}

fn feature(sight: &Sight<'_>, index: usize) -> Option<i64> {
    let (name, function, days) = FEATURES[index];
    let points = sight.profile.features.get(name).map(|series| seen(series, days, sight.now)).unwrap_or_default();
    let values = || points.iter().map(|(_, value)| *value);
    match function {
        AggregateFunction::Count | AggregateFunction::Sum => Some(values().sum()),
        AggregateFunction::Distinct => Some(values().collect::<std::collections::BTreeSet<_>>().len() as i64),
        AggregateFunction::Max => values().max(),
        AggregateFunction::Min => values().min(),
        AggregateFunction::Last => points.iter().max().map(|(_, value)| *value),
    }
}

fn attribute<'s>(sight: &'s Sight<'_>, name: &str, days: Option<i64>) -> Option<&'s Value> {
    let stored = sight.profile.attributes.get(name)?;
    days.is_none_or(|days| sight.now < stored.at.plus_ms(days * DAY_MS)).then_some(&stored.value)
}

fn instant_attribute(sight: &Sight<'_>) -> Option<Timestamp> {
    match attribute(sight, "renews_at", None)? {
        Value::Instant(at) => Some(*at),
        _ => None,
    }
}

fn number(rng: &mut Rng, of_facts: bool) -> Number {
    if of_facts { fact_number(rng) } else { time_number(rng) }
}

fn time_number(rng: &mut Rng) -> Number {
    let local_date = |sight: &Sight<'_>, at: Timestamp| at.local(sight.zone).date();
    match rng.range(0, 9) {
        0..=1 => named("days_silent", &["activity"], |s| counted_units(silent_since(s.profile), DAY_MS, s.now)),
        2 => named("tenure_days", &["first_seen"], |s| counted_units(s.profile.first_seen_at.expect("seen"), DAY_MS, s.now)),
        3 => named("(days_since_order ?? 0)", &["orders"], |s| s.profile.orders.last_at.map_or(0, |at| counted_units(at, DAY_MS, s.now))),
        4 => named("(hours_since(last_order_at) ?? 7)", &["orders"], |s| {
            s.profile.orders.last_at.map_or(7, |at| counted_units(at, HOUR_MS, s.now))
        }),
        5 => named("(days_since(renews_at) ?? -9)", &["attributes"], |s| {
            instant_attribute(s).map_or(-9, |at| counted_units(at, DAY_MS, s.now))
        }),
        6 => named("(local_days_since(last_active_at) ?? 3)", &["activity", "zone"], move |s| {
            let Some(at) = s.profile.activity.last_active_at else { return 3 };
            i64::from((local_date(s, s.now) - local_date(s, at)).get_days())
        }),
        7 => named("(local_days_since(renews_at) ?? 0)", &["attributes", "zone"], move |s| {
            let Some(at) = instant_attribute(s) else { return 0 };
            i64::from((local_date(s, s.now) - local_date(s, at)).get_days())
        }),
        _ => named("local_hour", &["zone"], |s| i64::from(s.now.local(s.zone).hour())),
    }
}

fn fact_number(rng: &mut Rng) -> Number {
    let windows = [Some(30), Some(90), Some(365), None];
    match rng.range(0, 19) {
        0..=3 => {
            let days = *rng.pick(&windows);
            let text = days.map_or("orders_lifetime".to_owned(), |days| format!("orders_{days}d"));
            named(text, &["orders"], move |s| seen(&s.profile.orders, days, s.now).len() as i64)
        }
        4..=7 => {
            let days = *rng.pick(&[Some(30), Some(90), Some(180), Some(365), None]);
            let text = days.map_or("spend_lifetime".to_owned(), |days| format!("spend_{days}d"));
            Number { is_money: true, ..named(text, &["orders"], move |s| spend(s, days)) }
        }
        8 => {
            let days = *rng.pick(&[7, 28]);
            named(format!("active_days_{days}d"), &["activity", "zone"], move |s| {
                let recent = s.profile.activity.recent.iter().filter(|at| at.plus_ms(days * DAY_MS) > s.now);
                recent.map(|at| at.local(s.zone).date()).collect::<std::collections::BTreeSet<_>>().len() as i64
            })
        }
        9 => named("sessions_14d", &["activity"], |s| {
            let recent = &s.profile.activity.recent;
            let starts = |i: &usize| *i == 0 || recent[*i].ms_since(recent[*i - 1]) >= 30 * MINUTE_MS;
            (0..recent.len()).filter(starts).filter(|i| recent[*i].plus_ms(14 * DAY_MS) > s.now).count() as i64
        }),
        10 => named("silent_spells_365d", &["activity"], |s| {
            let present = s.profile.activity.last_active_at.map(|at| at.plus_ms(30 * DAY_MS));
            let spells = s.profile.activity.spells.iter().copied().chain(present);
            spells.filter(|at| *at <= s.now && at.plus_ms(365 * DAY_MS) > s.now).count() as i64
        }),
        11 => named("points", &["wallet"], |s| lots(s, |_, active| active)),
        12 => named("points_of('bonus')", &["wallet"], |s| lots(s, |lot, active| active && &*lot.class == "bonus")),
        13 => named("points_pending", &["wallet"], |s| lots(s, |lot, _| lot.activates_at > s.now)),
        14 => named("points_expiring(3d)", &["wallet"], |s| {
            lots(s, |lot, active| active && !lot.expires_at.is_forever() && lot.expires_at.ms_since(s.now) <= 3 * DAY_MS)
        }),
        15 => named("coupons_open", &["coupons"], |s| {
            let open = |c: &&rekindle::engine::profile::Coupon| c.issued_at.is_some() && c.redeemed_at.is_none() && c.until > s.now;
            s.profile.coupons.iter().filter(open).count() as i64
        }),
        16 => named("sends_7d('sms')", &["slots"], |s| {
            let sent = s.profile.slots.iter().filter(|slot| slot.channel == Channel::Sms).filter_map(|slot| slot.sent_at);
            sent.filter(|at| at.plus_ms(7 * DAY_MS) > s.now).count() as i64
        }),
        17 => Number {
            is_money: true,
            ..named("tier_gap", &["orders", "tier"], |s| {
                let base = s.profile.tier.base.as_deref().unwrap_or("basic");
                let above = LEVELS.iter().skip_while(|(id, _)| *id != base).nth(1);
                above.map_or(0, |(_, from)| (from - spend(s, Some(180))).max(0))
            })
        },
        18 => named("(score ?? -1)", &["attributes"], |s| match attribute(s, "score", Some(14)) {
            Some(Value::Int(score)) => *score,
            _ => -1,
        }),
        _ => {
            let index = rng.range(0, FEATURES.len() as i64 - 1) as usize;
            let text = match FEATURES[index].1 {
                AggregateFunction::Max | AggregateFunction::Min | AggregateFunction::Last => format!("({} ?? 2)", FEATURES[index].0),
                _ => FEATURES[index].0.to_owned(),
            };
            named(text, &["features"], move |s| feature(s, index).unwrap_or(2))
        }
    }
}

fn any_number(rng: &mut Rng) -> Number {
    loop {
        let of_facts = rng.chance(50);
        let number = number(rng, of_facts);
        if !number.is_money {
            return number;
        }
    }
}

fn calculated(rng: &mut Rng) -> Number {
    let (a, b) = (any_number(rng), any_number(rng));
    let c = rng.range(1, 9);
    let (x, y) = (a.value.clone(), b.value.clone());
    let both = [a.touches.clone(), b.touches.clone()].concat();
    let (a_text, b_text) = (a.text, b.text);
    match rng.range(0, 6) {
        0 => Number { text: format!("{a_text} + {c}"), value: Rc::new(move |s| x(s) + c), touches: a.touches, is_money: false },
        1 => Number { text: format!("{c} - {a_text}"), value: Rc::new(move |s| c - x(s)), touches: a.touches, is_money: false },
        2 => Number { text: format!("-({a_text} - {c})"), value: Rc::new(move |s| -(x(s) - c)), touches: a.touches, is_money: false },
        3 => Number { text: format!("{a_text} * 2 - {b_text}"), value: Rc::new(move |s| x(s) * 2 - y(s)), touches: both, is_money: false },
        4 => Number { text: format!("min({a_text}, {b_text})"), value: Rc::new(move |s| x(s).min(y(s))), touches: both, is_money: false },
        5 => Number { text: format!("{a_text} % {c}"), value: Rc::new(move |s| x(s) % c), touches: a.touches, is_money: false },
        _ => Number { text: format!("max({a_text}, {c})"), value: Rc::new(move |s| x(s).max(c)), touches: a.touches, is_money: false },
    }
}

/// Against a constant near its present value, so that something happens soon.
fn compared(rng: &mut Rng, sight: &Sight<'_>, number: Number) -> Formula {
    let near = (number.value)(sight);
    let edge = near + if number.is_money { rng.range(-2, 1) * 9_000 } else { rng.range(-1, 3) };
    compared_with(rng, edge, number)
}

fn compared_with(rng: &mut Rng, edge: i64, number: Number) -> Formula {
    let value = number.value;
    let written = if number.is_money { format!("\"{}\"", money_text(edge)) } else { edge.to_string() };
    let (text, truth): (String, Reading<bool>) = match rng.range(0, 8) {
        0..=2 => (format!("{} >= {written}", number.text), Rc::new(move |s| value(s) >= edge)),
        3 => (format!("{} < {written}", number.text), Rc::new(move |s| value(s) < edge)),
        4 => (format!("{written} >= {}", number.text), Rc::new(move |s| edge >= value(s))),
        5 => (format!("{} > {written}", number.text), Rc::new(move |s| value(s) > edge)),
        6 => (format!("{} = {written}", number.text), Rc::new(move |s| value(s) == edge)),
        7 if !number.is_money => {
            (format!("{} not in [{edge}, {}]", number.text, edge + 1), Rc::new(move |s| ![edge, edge + 1].contains(&value(s))))
        }
        8 if !number.is_money => (
            format!("{} > {edge}.5", number.text),
            Rc::new(move |s| value(s) as f64 > edge as f64 + 0.5 * if edge < 0 { -1.0 } else { 1.0 }),
        ),
        _ => (format!("{} != {written}", number.text), Rc::new(move |s| value(s) != edge)),
    };
    Formula { text, truth, touches: number.touches }
}

// --------------------------------------------------------------------------------------------------------------------- flags

fn said(text: impl Into<String>, touches: &[&'static str], truth: impl Fn(&Sight<'_>) -> bool + 'static) -> Formula {
    Formula { text: text.into(), truth: Rc::new(truth), touches: touches.to_vec() }
}

fn flag(rng: &mut Rng, sight: &Sight<'_>) -> Formula {
    match rng.range(0, 17) {
        0 => said("is_new", &["first_seen"], |s| s.now < s.profile.first_seen_at.expect("seen").plus_ms(30 * DAY_MS)),
        1 => {
            let minutes = (sight.now.ms_since(silent_since(sight.profile)) / MINUTE_MS + rng.range(-60, 3_000)).max(0);
            said(format!("silent_for >= {}h{}m", minutes / 60, minutes % 60), &["activity"], move |s| {
                s.now.ms_since(silent_since(s.profile)) >= minutes * MINUTE_MS
            })
        }
        2..=5 => local(rng, sight),
        6..=7 => {
            let (name, zone, days) = if rng.chance(50) {
                ("here", "America/Santiago", vec![(-40, -3), (0, 0), (1, 1), (3, 5)])
            } else {
                ("there", "Pacific/Apia", vec![(-1, 0), (2, 2)])
            };
            let zone = Zone::named(zone).expect("a zone");
            said(format!("in_calendar('{name}')"), &[], move |s| {
                let offset = i64::from((s.now.local(&zone).date() - s.calendar_around).get_days());
                days.iter().any(|(from, to)| *from <= offset && offset <= *to)
            })
        }
        8 => {
            let level = rng.pick(&LEVELS).0;
            said(format!("tier != '{level}'"), &["tier"], move |s| tier_now(s) != level)
        }
        9 => said("base_tier in ['gold', 'silver']", &["tier"], |s| matches!(s.profile.tier.base.as_deref(), Some("gold" | "silver"))),
        10 => said("entitled('early-access')", &["tier", "entitlements"], |s| {
            s.profile.entitlements.iter().any(|e| e.value != 0 && e.from <= s.now && s.now < e.until)
        }),
        11 => said("(vip ?? false)", &["attributes"], |s| matches!(attribute(s, "vip", Some(30)), Some(Value::Bool(true)))),
        12 => said("has(risk) && risk * 2.0 >= 0.75", &["attributes"], |s| match attribute(s, "risk", Some(7)) {
            Some(Value::Float(risk)) => risk * 2.0 >= 0.75,
            _ => false,
        }),
        13 => said("!has(next_expiry_at) || days_since(next_expiry_at) >= -2", &["wallet"], |s| {
            let active = s.profile.wallet.lots.iter().filter(|lot| lot.left > 0 && lot.activates_at <= s.now && s.now < lot.expires_at);
            let next = active.map(|lot| lot.expires_at).filter(|at| !at.is_forever()).min();
            next.is_none_or(|at| at.ms_since(s.now) <= 2 * DAY_MS)
        }),
        14 => said("plan == 'pro' && country in ['DE', 'BR']", &["attributes", "country"], |s| {
            matches!(attribute(s, "plan", None), Some(Value::Text(plan)) if &**plan == "pro") && ["DE", "BR"].contains(&s.profile.country())
        }),
        15 => said("reachable == reachable('sms')", &["consents", "country"], |s| {
            let closed = |channel| s.profile.suppressed.get(&channel).is_some_and(|entry| entry.until.is_none_or(|at| s.now < at));
            let addressed = |channel| s.profile.addresses.contains_key(&channel) && !closed(channel);
            let holds = |c: &Consent| c.granted && c.expires_at.is_none_or(|at| s.now < at);
            let agreed = s.profile.consents.iter().any(|((_, channel), c)| *channel == Channel::Sms && holds(c) && &*c.basis == "opt_in");
            (agreed && addressed(Channel::Sms)) == addressed(Channel::Sms)
        }),
        16 => said("consent('marketing', 'sms')", &["consents"], |s| {
            s.profile.consents.values().any(|c| c.granted && c.expires_at.is_none_or(|at| s.now < at))
        }),
        _ => said("老客户", &["orders", "activity"], |s| {
            seen(&s.profile.orders, Some(90), s.now).len() >= 2 && counted_units(silent_since(s.profile), DAY_MS, s.now) < 20
        }),
    }
}

/// A question about the person's calendar.
fn local(rng: &mut Rng, sight: &Sight<'_>) -> Formula {
    match rng.range(0, 5) {
        0..=1 => {
            let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let chosen: Vec<usize> = (0..rng.range(1, 3)).map(|_| rng.range(0, 6) as usize).collect();
            let list: Vec<String> = chosen.iter().map(|day| format!("'{}'", days[*day])).collect();
            said(format!("local_weekday in [{}]", list.join(", ")), &["zone"], move |s| {
                let today = s.now.local(s.zone).weekday().to_monday_zero_offset() as usize;
                chosen.contains(&today)
            })
        }
        2..=3 => {
            let date = sight.now.local(sight.zone).date().saturating_add(jiff::Span::new().days(rng.range(-1, 3)));
            match rng.range(0, 2) {
                0 => said(format!("local_date >= '{date}'"), &["zone"], move |s| s.now.local(s.zone).date() >= date),
                1 => said(format!("local_date == '{date}'"), &["zone"], move |s| s.now.local(s.zone).date() == date),
                _ => said("has(birth_date) && local_date > birth_date", &["zone", "attributes"], |s| {
                    match attribute(s, "birth_date", None) {
                        Some(Value::Date(birth)) => s.now.local(s.zone).date() > *birth,
                        _ => false,
                    }
                }),
            }
        }
        4 => {
            let hour = i64::from(sight.now.local(sight.zone).hour()) + rng.range(-2, 3);
            compared_with(rng, hour, named("local_hour", &["zone"], |s| i64::from(s.now.local(s.zone).hour())))
        }
        _ => {
            let since = silent_since(sight.profile).min(sight.now);
            let passed = i64::from((sight.now.local(sight.zone).date() - since.local(sight.zone).date()).get_days());
            let text = "(local_days_since(last_active_at) ?? 3)";
            let days = named(text, &["activity", "zone"], |s| {
                let Some(at) = s.profile.activity.last_active_at else { return 3 };
                i64::from((s.now.local(s.zone).date() - at.local(s.zone).date()).get_days())
            });
            let edge = passed + rng.range(-1, 2);
            compared_with(rng, edge, days)
        }
    }
}
