//! Who is never treated, so that the others can be compared with somebody. First the shop's own holdout (one salt: the same people
//! everywhere), then the rule's. Asked once per run; the answer stands and is written to `exposures` for both sides alike.

use super::{Answer, Ask, Asked, bucket};
use crate::engine::decide::Context;
use crate::engine::profile::{Category, Exposure, Name, Profile};
use crate::engine::rule::{Rule, SHADOW};

/// A held-out run walks its steps, but of its actions only transactional sends happen, and service sends of a rule that takes
/// nothing.
pub fn check(ask: &Ask<'_>) -> Answer {
    let exposure = ask.exposure.or_else(|| assign(ask.ctx, ask.rule, ask.profile).map(|(exposure, _)| exposure));
    let exempt = match ask.action {
        Asked::Send(send) => match send.category {
            Category::Transactional => true,
            Category::Service => !ask.rule.takes,
            Category::Marketing => false,
        },
        Asked::Other => false,
    };
    if exposure == Some(Exposure::HeldOut) && !exempt {
        return Answer::Skip { because: "in the holdout: measured, never treated".to_owned() };
    }
    Answer::Pass
}

/// The side this person is on for this rule and by which holdout (`policy` or the rule's id); none if holdouts do not concern the
/// rule.
pub fn assign(ctx: &Context<'_>, rule: &Rule, profile: &Profile) -> Option<(Exposure, Name)> {
    if !rule.treats {
        return None;
    }
    let policy = || Name::from("policy");
    if ctx.world.holdout_all {
        return Some((Exposure::HeldOut, policy()));
    }
    if ctx.world.holdout_off {
        return Some((Exposure::Treated, policy()));
    }
    if let Some(holdout) = &ctx.rules.policy.holdout
        && bucket(&holdout.salt, &profile.key) < holdout.share_bp
    {
        return Some((Exposure::HeldOut, policy()));
    }
    // in shadow the same people are left out as on the day it goes live
    let salt = rule.id.strip_suffix(SHADOW).unwrap_or(&rule.id);
    if rule.holdout_bp > 0 && bucket(salt, &profile.key) < rule.holdout_bp {
        return Some((Exposure::HeldOut, rule.id.clone()));
    }
    Some((Exposure::Treated, policy()))
}
