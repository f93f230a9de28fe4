//! A coupon's budget: face value reserved in this calendar month of the shop's zone. Full: wait for the next month, or drop.

use super::{Answer, Ask};
use crate::engine::coupon;
use crate::engine::time::{Timestamp, Zone};

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(offer) = ask.send().and_then(|send| send.offer) else { return Answer::Pass };
    let Some(program) = &ask.ctx.rules.program else { return Answer::Pass };
    let Some(coupon) = program.coupons.get(&offer.coupon) else {
        return Answer::Drop { because: format!("the program has no coupon {} any more", offer.coupon) };
    };
    let reserved_already = ask.profile.coupons.iter().any(|c| c.message.is_some() && c.message == ask.send().and_then(|send| send.own));
    let Some(budget) = coupon.budget.filter(|_| !reserved_already) else { return Answer::Pass };
    let here: i64 = ask.budget_used.iter().filter(|(coupon, ..)| *coupon == offer.coupon).map(|(.., value)| value).sum();
    let used = ask.ctx.world.budgets.get(&offer.coupon).copied().unwrap_or(0).saturating_add(here);
    if used.saturating_add(coupon::face_value(coupon)) <= budget.minor {
        return Answer::Pass;
    }
    let because = format!("the budget of {} ({budget} a month) is used up", offer.coupon);
    Answer::by_policy(ask.on_block().budget, ask.until_deadline(next_month(&ask.ctx.rules.policy.zone.last, ask.now)), because)
}

fn next_month(zone: &Zone, now: Timestamp) -> Timestamp {
    let last = now.local(zone).date().last_of_month();
    last.tomorrow().map_or(Timestamp::FOREVER, |first| zone.start_of_day(first))
}
