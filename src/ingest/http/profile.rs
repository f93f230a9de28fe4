//! One person read back, for a till or a shop front: tier, points, benefits, coupons. From the person's row alone, as it stands at this
//! instant; events that came in and have not been looked at yet are counted beside it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Refusal, Refused};
use super::{Ingest, keys};
use crate::engine::event::Value;
use crate::engine::profile::{Name, Profile};
use crate::engine::rule::RuleSet;
use crate::engine::rule::expr::{Names, Subject};
use crate::engine::time::Timestamp;
use crate::engine::{benefit, coupon, features, points, tier};
use crate::store::{Glance, Identity, KeyScope};

/// How the id is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdKind {
    #[default]
    User,
    Anonymous,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// `user` (default) or `anonymous`.
    #[serde(default)]
    #[param(inline)]
    by: IdKind,
}

/// A person at one instant.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileView {
    /// Our own number of the person; it stays, whatever ids come and go.
    pub profile: i64,
    /// The instant for which this is said.
    #[schema(format = DateTime)]
    pub as_of: String,
    /// Events on record that the figures do not know yet: usually 0, and then only for a moment.
    pub events_waiting: usize,
    /// None without tiers in the program.
    pub tier: Option<TierView>,
    pub points: PointsView,
    pub entitlements: Vec<EntitlementView>,
    /// Issued, not used, not over.
    pub coupons: Vec<CouponView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TierView {
    /// The tier that applies, a temporary upgrade included.
    pub name: String,
    /// The tier earned.
    pub base: String,
    /// End of a temporary upgrade.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// When the base tier is reviewed next.
    #[schema(format = DateTime)]
    pub review_at: Option<String>,
    /// The tier above the base tier; none at the top.
    pub next: Option<String>,
    /// What is missing to it.
    pub gap: Option<Amount>,
    /// What is missing to keep the base tier at its review.
    pub keep_gap: Option<Amount>,
}

/// Money in minor units with its currency, or a count without.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Amount {
    pub amount: i64,
    pub currency: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PointsView {
    pub spendable: i64,
    /// Granted, not spendable yet.
    pub pending: i64,
    pub classes: Vec<ClassView>,
}

/// The points of one class.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassView {
    pub class: String,
    pub spendable: i64,
    /// What lapses next, if anything does by the clock alone.
    pub next_lapse: Option<LapseView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LapseView {
    pub points: i64,
    #[schema(format = DateTime)]
    pub at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EntitlementView {
    pub benefit: String,
    /// 1 for what one has or has not.
    pub value: i64,
    /// Stands at least until then while no fact changes; none: until one does.
    #[schema(format = DateTime)]
    pub until: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CouponView {
    pub offer: String,
    pub code: String,
    #[schema(format = DateTime)]
    pub until: String,
}

/// Read one person back
///
/// From the person's row alone, as it stands now.
#[utoipa::path(get, path = "/v1/profiles/{id}", tag = "people", operation_id = "profile", params(("id" = String, Path, description = "A user id"), Asked),
    security(("key" = []), ("bearer" = [])), responses(
    (status = 200, description = "The person", body = ProfileView),
    (status = 400, description = "The question is not understood", body = Refused),
    (status = 401, description = "No key, or an unknown one", body = Refused),
    (status = 403, description = "The key is for something else", body = Refused),
    (status = 404, description = "Nobody is known by this id", body = Refused),
    (status = 503, description = "The database does not answer", body = Refused)
))]
pub async fn read(
    State(ingest): State<Arc<Ingest>>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<ProfileView>, Refusal> {
    let key = keys::presented(&headers).ok_or(Refusal::NoKey)?;
    let bearer = ingest.keys.recognise(&key).await?.ok_or(Refusal::UnknownKey)?;
    if bearer.scope != KeyScope::Read {
        return Err(Refusal::WrongScope("sending events, not for reading people"));
    }
    let Path(id) = path.map_err(|_| Refusal::Question("the id is not UTF-8 text".into()))?;
    let Query(asked) = asked.map_err(|_| Refusal::Question("`by` is `user` or `anonymous`".into()))?;
    let identity = match asked.by {
        IdKind::User => Identity::User(Name::from(id)),
        IdKind::Anonymous => Identity::Anonymous(Name::from(id)),
    };
    let seen = ingest.store.glance(&identity).await?.ok_or(Refusal::Unknown)?;
    Ok(Json(view(&seen, &ingest.rules.snapshot().rules, ingest.clock.now())))
}

fn view(seen: &Glance, rules: &RuleSet, now: Timestamp) -> ProfileView {
    let (profile, names) = (&seen.profile, rules.names());
    ProfileView {
        profile: seen.id.0,
        as_of: now.to_string(),
        events_waiting: seen.waiting,
        tier: tier_view(profile, names, now),
        points: points_view(profile, now),
        entitlements: entitlements(profile, names, now),
        coupons: profile.coupons.iter().filter(|coupon| coupon::is_open(coupon, now)).map(coupon_view).collect(),
    }
}

fn tier_view(profile: &Profile, names: Names<'_>, now: Timestamp) -> Option<TierView> {
    let tiers = names.program?.tiers.as_ref()?;
    let (name, until) = tier::effective(profile, names, now);
    let lowest = tiers.levels.first().map(|level| level.id.clone())?;
    let base = profile.tier.base.clone().unwrap_or(lowest);
    let place = tiers.levels.iter().position(|level| level.id == base);
    let next = place.and_then(|place| tiers.levels.get(place + 1)).map(|level| level.id.to_string());
    Some(TierView {
        name: name.as_ref().unwrap_or(&base).to_string(),
        base: base.to_string(),
        until: moment(until),
        review_at: profile.tier.review_at.and_then(moment),
        gap: next.is_some().then(|| amount(profile, names, "tier_gap", now)).flatten(),
        keep_gap: amount(profile, names, "tier_keep_gap", now),
        next,
    })
}

/// What a name of the rules' language says of the person: money or a count.
fn amount(profile: &Profile, names: Names<'_>, name: &str, now: Timestamp) -> Option<Amount> {
    let subject = Subject { profile, now, event: None, run: None };
    match features::read(names, subject, name).ok()?.0? {
        Value::Money(money) => Some(Amount { amount: money.minor, currency: Some(money.currency.code().to_owned()) }),
        Value::Int(count) => Some(Amount { amount: count, currency: None }),
        _ => None,
    }
}

fn points_view(profile: &Profile, now: Timestamp) -> PointsView {
    let wallet = &profile.wallet;
    let mut classes: Vec<&Name> = wallet.lots.iter().filter(|lot| lot.is_active(now)).map(|lot| &lot.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let class_view = |class: &Name| {
        let lots = || wallet.lots.iter().filter(|lot| lot.class == *class && lot.is_active(now));
        let next = lots().map(|lot| lot.expires_at).min();
        let lapse = |at: Timestamp| {
            Some(LapseView { points: lots().filter(|lot| lot.expires_at == at).map(|lot| lot.left).sum(), at: moment(at)? })
        };
        ClassView { class: class.to_string(), spendable: points::balance(wallet, Some(class), now).0, next_lapse: next.and_then(lapse) }
    };
    PointsView {
        spendable: points::balance(wallet, None, now).0,
        pending: points::pending(wallet, now).0,
        classes: classes.into_iter().map(class_view).collect(),
    }
}

fn entitlements(profile: &Profile, names: Names<'_>, now: Timestamp) -> Vec<EntitlementView> {
    let benefits = names.program.map(|program| program.benefits.keys()).into_iter().flatten();
    let granted = benefits.filter_map(|name| {
        let (value, until) = benefit::entitled(profile, names, name, now);
        (value > 0).then(|| EntitlementView { benefit: name.to_string(), value, until: moment(until) })
    });
    granted.collect()
}

fn coupon_view(coupon: &crate::engine::profile::Coupon) -> CouponView {
    CouponView { offer: coupon.offer.to_string(), code: coupon.code.to_string(), until: coupon.until.to_string() }
}

/// An instant in words; none where only a fact can bring it.
fn moment(at: Timestamp) -> Option<String> {
    (!at.is_forever()).then(|| at.to_string())
}
