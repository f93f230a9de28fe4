//! The program: points, tiers, benefits, coupons, bundles, declared as data.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::Section;
use super::dictionary::event_name;
use super::read::{Fields, Findings, parse_percent, unknown};
use crate::engine::features;
use crate::engine::money::{Currency, Money};
use crate::engine::profile::Name;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::syntax::{Entry, Node};
use crate::engine::rule::{
    Benefit, Bundle, CouponSource, CouponType, CouponValue, Dictionary, Downgrade, Earn, EarnAmount, Expiry, Jurisdiction, Pack, Penalty,
    PointClass, Program, ReviewRhythm, TierLevel, Tiers,
};
use crate::engine::time::{DAY_MS, Span};

const PACKS: [(&str, Pack); 4] = [
    ("no-takes", Pack::NoTakes),
    ("bonus-only", Pack::BonusOnly),
    ("strict-notice", Pack::StrictNotice),
    ("as-programmed", Pack::AsProgrammed),
];

/// A notice of a deduction stands at least that long before it, unless the program says more.
const GRACE_DEFAULT: Span = Span::days(7);

/// Reads the program. The tiers' metric is looked up later, when features are known ([`check_metric`]).
pub fn program(section: &Section<'_>, findings: &Findings, dictionary: &Dictionary) -> Option<Program> {
    let node = section.as_node()?;
    let mut fields = Fields::of(&node, "`program`", findings)?;
    let currency = fields.required("currency", "RK0102", "write the shop's currency: `currency: GBP`");
    let currency = currency.and_then(|node| self::currency(node, findings));
    let jurisdiction = fields.read("jurisdiction", |node| jurisdiction(node, findings));
    let reader = Reader { findings, dictionary, currency };
    let benefits = fields.get("benefits").map(|node| reader.all(node, Reader::benefit)).unwrap_or_default();
    let coupons = fields.get("coupons").map(|node| reader.all(node, Reader::coupon)).unwrap_or_default();
    let bundles = fields.get("bundles").map(|node| reader.all(node, |r, entry| r.bundle(entry, &benefits, &coupons))).unwrap_or_default();
    let tiers = fields.read("tiers", |node| reader.tiers(node, &benefits));
    let points = fields.get("points").and_then(|node| reader.points(node));
    fields.not_yet("rates");
    fields.finish();
    let (classes, earn, penalty) = points.unwrap_or_else(|| (BTreeMap::new(), Vec::new(), no_penalty()));
    let jurisdiction = jurisdiction.unwrap_or_else(|| Jurisdiction { packs: BTreeMap::new(), otherwise: Pack::NoTakes });
    Some(Program { currency: currency?, jurisdiction, classes, earn, penalty, tiers, benefits, coupons, bundles })
}

fn no_penalty() -> Penalty {
    Penalty { classes: Vec::new(), keep: 0, cap: None, grace: GRACE_DEFAULT }
}

fn currency(node: &Node, findings: &Findings) -> Option<Currency> {
    let text = findings.text(node, "a currency like `GBP`")?;
    let currency = Currency::from_str(text).ok();
    if currency.is_none() {
        findings.wrong(node, format!("`{text}` is no currency"), "three capital letters: `USD`, `EUR`, `GBP`".to_owned());
    }
    currency
}

fn jurisdiction(node: &Node, findings: &Findings) -> Option<Jurisdiction> {
    let mut fields = Fields::of(node, "`jurisdiction`", findings)?;
    fields.read("by", |node| findings.one_of(node, &[("country", ())]));
    let mut packs = BTreeMap::new();
    for entry in fields.get("packs").and_then(Node::entries).unwrap_or_default() {
        let code = &entry.key.text;
        let shaped = code.split('-').next().is_some_and(|country| country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()));
        if !shaped {
            let message = format!("`{code}` is no country");
            let finding = Diagnostic::error("RK0102", entry.key_place.clone(), message).len(code.chars().count());
            findings.add(finding.help("countries are two capital letters, with a region if need be: `AT`, `CA-QC`"));
        }
        if let Some(pack) = findings.one_of(&entry.value, &PACKS) {
            packs.insert(code.clone(), pack);
        }
    }
    let otherwise = fields.required("else", "RK0102", "say what holds elsewhere: `else: bonus-only`, or `else: no-takes`");
    let otherwise = otherwise.and_then(|node| findings.one_of(node, &PACKS));
    fields.finish();
    Some(Jurisdiction { packs, otherwise: otherwise? })
}

/// The tiers' metric: a built-in or declared feature that is money or a count.
pub fn check_metric(section: &Section<'_>, findings: &Findings, dictionary: &Dictionary, program: &Program) {
    let Some(tiers) = &program.tiers else { return };
    let Some(node) = section.get("tiers").and_then(|node| node.get("qualify")).and_then(|node| node.get("metric")) else { return };
    let Some(metric_type) = metric_type(&tiers.metric, dictionary) else {
        let declared = dictionary.features.iter().map(|feature| &*feature.name);
        return unknown(findings, "RK0203", node, "feature", features::built_in_names().map(|name| -> &str { name }).chain(declared));
    };
    if !matches!(metric_type, ValueType::Money | ValueType::Int) {
        findings.error("RK0204", node, format!("`{}` is neither money nor a count", tiers.metric), "`spend_365d` is usual".to_owned());
        return;
    }
    let levels = section.get("tiers").and_then(|node| node.get("levels")).and_then(Node::items).unwrap_or_default();
    for from in levels.iter().filter_map(|level| level.get("from")) {
        let is_money = from.text().is_some_and(|text| Money::from_str(text).is_ok());
        let text = from.text().unwrap_or_default();
        match metric_type {
            ValueType::Money if !is_money => {
                let help = format!("write `{text} {}`", program.currency);
                findings.error("RK0409", from, format!("`{}` is money, `{text}` is not", tiers.metric), help);
            }
            ValueType::Int if is_money => {
                findings.error("RK0204", from, format!("`{}` is a count, `{text}` is money", tiers.metric), None);
            }
            _ => {}
        }
    }
}

fn metric_type(name: &str, dictionary: &Dictionary) -> Option<ValueType> {
    let declared = dictionary.features.iter().find(|feature| &*feature.name == name).map(|feature| feature.value_type().clone());
    declared.or_else(|| features::built_in_type(name))
}

struct Reader<'f> {
    findings: &'f Findings,
    dictionary: &'f Dictionary,
    currency: Option<Currency>,
}

type Points = (BTreeMap<Name, PointClass>, Vec<Earn>, Penalty);

impl Reader<'_> {
    /// A mapping of names to things of one kind.
    fn all<T>(&self, node: &Node, read: impl Fn(&Self, &Entry) -> Option<T>) -> BTreeMap<Name, T> {
        let Some(fields) = Fields::of(node, "this section", self.findings) else { return BTreeMap::new() };
        let entries = fields.node.entries().unwrap_or_default();
        entries.iter().filter_map(|entry| read(self, entry).map(|thing| (entry.key.text.clone(), thing))).collect()
    }

    /// Money of the program's own currency.
    fn money(&self, node: &Node) -> Option<Money> {
        let money = self.findings.money(node)?;
        self.own(node, money)
    }

    fn own(&self, node: &Node, money: Money) -> Option<Money> {
        match self.currency {
            Some(currency) if currency != money.currency => {
                let message = format!("no rate from {} to the program's {currency}", money.currency);
                self.findings.error("RK0242", node, message, format!("give the amount in {currency}"));
                None
            }
            _ => Some(money),
        }
    }

    // --------------------------------------------------------------------------------------------------------------- points

    fn points(&self, node: &Node) -> Option<Points> {
        let mut fields = Fields::of(node, "`points` of the program", self.findings)?;
        let classes = fields.required("classes", "RK0102", "declare at least one: `classes: { bonus: { expiry: { rolling: 12mo } } }`");
        let classes = classes.map(|node| self.all(node, Self::class)).unwrap_or_default();
        let earn = fields
            .get("earn")
            .map(|node| self.findings.list_of(node, "[{ event: ..., points: ..., class: ... }]", |item| self.earn(item, &classes)));
        let penalty = fields.get("penalty").and_then(|node| self.penalty(node, &classes));
        fields.finish();
        Some((classes, earn.unwrap_or_default(), penalty.unwrap_or_else(no_penalty)))
    }

    fn class(&self, entry: &Entry) -> Option<PointClass> {
        let mut fields = Fields::of(&entry.value, "a class of points", self.findings)?;
        let expiry = fields.required("expiry", "RK0102", "write `expiry: { rolling: 24mo }`, `{ inactivity: 30d }` or `never`");
        let expiry = expiry.and_then(|node| self.expiry(node));
        fields.finish();
        Some(PointClass { expiry: expiry? })
    }

    fn expiry(&self, node: &Node) -> Option<Expiry> {
        if node.text().is_some() {
            return self.findings.one_of(node, &[("never", Expiry::Never)]);
        }
        let mut fields = Fields::of(node, "`expiry`", self.findings)?;
        let rolling = fields.read("rolling", |node| self.findings.span(node));
        let inactivity = fields.read("inactivity", |node| self.findings.span(node));
        let round = fields.get("round");
        let month_end = round.and_then(|node| self.findings.one_of(node, &[("month_end", true)])).unwrap_or(false);
        let is_refused = fields.not_yet("calendar");
        let named = [fields.has("rolling"), fields.has("inactivity"), is_refused].into_iter().filter(|given| *given).count();
        fields.finish();
        if named != 1 {
            self.findings.wrong(node, "exactly one of `rolling`, `inactivity` says when points expire", None);
            return None;
        }
        match (rolling, inactivity) {
            (Some(span), _) => Some(Expiry::Rolling { span, month_end }),
            (_, Some(_)) if round.is_some() => {
                self.findings.wrong(node, "`round` goes with `rolling` only", None);
                None
            }
            (_, inactivity) => inactivity.map(Expiry::Inactivity),
        }
    }

    fn earn(&self, node: &Node, classes: &BTreeMap<Name, PointClass>) -> Option<Earn> {
        let mut fields = Fields::of(node, "an earn entry", self.findings)?;
        let event = fields.required("event", "RK0102", "name the event: `event: order_completed`");
        let event = event.and_then(|node| event_name(node, self.dictionary, self.findings));
        let rate_node = fields.get("rate");
        let rate = rate_node.and_then(|node| self.rate(node));
        let fixed = fields.read("points", |node| self.findings.number(node, 1, i64::from(i32::MAX)));
        if fields.has("rate") == fields.has("points") {
            self.findings.wrong(node, "exactly one of `rate`, `points` says how much is earned", None);
        }
        let class = fields.required("class", "RK0102", "name a class of points: `class: earned`");
        let class = class.and_then(|node| self.known_class(node, classes));
        let pending = fields.get("pending").map(|node| self.pending(node)).unwrap_or(Some(Span::ZERO));
        let limit = fields.read("limit", |node| self.limit(node));
        fields.finish();
        if let (Some(event), Some(node)) = (event, rate_node)
            && !event.properties.get("total").is_some_and(|property| property.value_type == ValueType::Money)
        {
            let message = format!("`{}` has no `total` of type money, so a rate has nothing to count", event.name);
            self.findings.error("RK0202", node, message, format!("declare it ({}:{})", event.declared_at.file, event.declared_at.line));
        }
        let amount = rate.or(fixed.map(EarnAmount::Fixed))?;
        Some(Earn { event: event?.name.clone(), amount, class: class?, pending: pending?, limit })
    }

    /// `1 per 1 USD`.
    fn rate(&self, node: &Node) -> Option<EarnAmount> {
        let (points, money) = self.findings.per(node, "1 per 1 USD")?;
        let parsed =
            points.parse::<i64>().ok().filter(|points| *points > 0).zip(Money::from_str(money).ok().filter(|money| money.minor > 0));
        let Some((points, per)) = parsed else {
            self.findings.wrong(node, "a rate is points per so much money", "write it like `1 per 1 USD`".to_owned());
            return None;
        };
        self.own(node, per).map(|per| EarnAmount::Rate { points, per })
    }

    /// `14d` or `{ until: 14d }`.
    fn pending(&self, node: &Node) -> Option<Span> {
        if node.entries().is_none() {
            return self.findings.span(node);
        }
        let mut fields = Fields::of(node, "`pending`", self.findings)?;
        let until = fields.required("until", "RK0102", "`until: 14d`").and_then(|node| self.findings.span(node));
        fields.finish();
        until
    }

    fn limit(&self, node: &Node) -> Option<(u32, i64)> {
        let mut fields = Fields::of(node, "`limit`", self.findings)?;
        let max = fields.required("max", "RK0102", "`max: 5`").and_then(|node| self.findings.number(node, 1, i64::from(u32::MAX)));
        let window = fields.required("window", "RK0102", "`window: 30d`").and_then(|node| self.findings.exact_ms(node));
        fields.finish();
        Some((u32::try_from(max?).ok()?, window?))
    }

    fn known_class(&self, node: &Node, classes: &BTreeMap<Name, PointClass>) -> Option<Name> {
        let name = self.findings.name(node, "a class of points")?;
        if classes.contains_key(&name) {
            return Some(name);
        }
        unknown(self.findings, "RK0225", node, "class of points", classes.keys().map(|name| &**name));
        None
    }

    fn penalty(&self, node: &Node, classes: &BTreeMap<Name, PointClass>) -> Option<Penalty> {
        let mut fields = Fields::of(node, "`penalty`", self.findings)?;
        let touched = fields.required("classes", "RK0102", "name what a deduction may touch: `classes: [bonus]`");
        let touched = touched.map(|node| self.findings.list_of(node, "[bonus]", |item| self.known_class(item, classes)));
        let keep = fields.read("keep", |node| self.findings.number(node, 0, i64::MAX)).unwrap_or(0);
        let cap = fields.read("cap", |node| {
            let (share, window) = self.findings.per(node, "30% per 365d")?;
            let Some(share) = parse_percent(share) else {
                self.findings.wrong(node, format!("`{share}` is no percentage"), "write it like `30% per 365d`".to_owned());
                return None;
            };
            Some((share, self.findings.per_span(node, window)?))
        });
        let grace = fields.read("grace", |node| self.findings.span(node)).unwrap_or(GRACE_DEFAULT);
        fields.finish();
        Some(Penalty { classes: touched?, keep, cap, grace })
    }

    // ---------------------------------------------------------------------------------------------------------------- tiers

    fn tiers(&self, node: &Node, benefits: &BTreeMap<Name, Benefit>) -> Option<Tiers> {
        let mut fields = Fields::of(node, "`tiers`", self.findings)?;
        let qualify = fields.required("qualify", "RK0102", "say what counts: `qualify: { metric: spend_365d, review: quarter }`");
        let qualify = qualify.and_then(|node| self.qualify(node));
        let levels_node = fields.required("levels", "RK0102", "list the levels, lowest first: `[{ id: bronze, from: 0 GBP }]`");
        let levels =
            levels_node.map(|node| self.findings.list_of(node, "[{ id: bronze, from: 0 GBP }]", |item| self.level(item, benefits)));
        let levels = levels.unwrap_or_default();
        self.check_order(levels_node, &levels);
        fields.read("upgrade", |node| self.findings.one_of(node, &[("at_once", ())]));
        let downgrade = fields.get("downgrade").and_then(|node| self.downgrade(node));
        fields.finish();
        let (metric, review) = qualify?;
        let downgrade = downgrade.unwrap_or(Downgrade { one_step: true, grace: Span::days(30), notice: Span::days(30) });
        (!levels.is_empty()).then_some(Tiers { metric, review, levels, downgrade })
    }

    fn qualify(&self, node: &Node) -> Option<(Name, ReviewRhythm)> {
        const RHYTHMS: [(&str, ReviewRhythm); 4] = [
            ("anniversary", ReviewRhythm::Anniversary),
            ("month", ReviewRhythm::Month),
            ("quarter", ReviewRhythm::Quarter),
            ("year", ReviewRhythm::Year),
        ];
        let mut fields = Fields::of(node, "`qualify`", self.findings)?;
        let metric = fields.required("metric", "RK0102", "name a feature: `metric: spend_365d`");
        let metric = metric.and_then(|node| self.findings.name(node, "the name of a feature"));
        let review = fields.required("review", "RK0102", "say how often: `review: quarter`");
        let review = review.and_then(|node| self.findings.one_of(node, &RHYTHMS));
        fields.finish();
        Some((metric?, review?))
    }

    fn level(&self, node: &Node, benefits: &BTreeMap<Name, Benefit>) -> Option<TierLevel> {
        let mut fields = Fields::of(node, "a level", self.findings)?;
        let id = fields.required("id", "RK0102", "`id: silver`").and_then(|node| self.findings.slug(node, 1));
        let from = fields.required("from", "RK0102", "say from where: `from: 300 GBP`");
        let from = from.and_then(|node| match node.text().map(str::parse::<i64>) {
            Some(Ok(count)) => Some(count),
            _ => self.money(node).map(|money| money.minor),
        });
        let held = fields.get("benefits").map(|node| {
            self.findings.list_of(node, "[free-shipping]", |item| {
                let name = self.findings.name(item, "a benefit")?;
                if !benefits.contains_key(&name) {
                    unknown(self.findings, "RK0241", item, "benefit", benefits.keys().map(|name| &**name));
                }
                Some(name)
            })
        });
        fields.finish();
        Some(TierLevel { id: id?, from: from?, benefits: held.unwrap_or_default() })
    }

    fn check_order(&self, node: Option<&Node>, levels: &[TierLevel]) {
        let Some(items) = node.and_then(Node::items).filter(|items| items.len() == levels.len()) else { return };
        for ((before, level), item) in levels.iter().zip(levels.iter().skip(1)).zip(items.iter().skip(1)) {
            let at = item.get("from").unwrap_or(item);
            if level.from <= before.from {
                let message = format!("`{}` does not begin above `{}`", level.id, before.id);
                self.findings.error("RK0240", at, message, "levels stand lowest first, each higher than the one before".to_owned());
            }
            if level.id == before.id {
                self.findings.error("RK0240", item, format!("`{}` stands twice", level.id), None);
            }
        }
        if let (Some(first), Some(item)) = (levels.first(), items.first())
            && first.from != 0
        {
            let at = item.get("from").unwrap_or(item);
            let message = format!("the lowest level `{}` does not begin at 0, so some would have none", first.id);
            self.findings.error("RK0240", at, message, "let it begin at 0".to_owned());
        }
    }

    fn downgrade(&self, node: &Node) -> Option<Downgrade> {
        let mut fields = Fields::of(node, "`downgrade`", self.findings)?;
        let one_step = fields.read("step", |node| self.findings.one_of(node, &[("one", true), ("all", false)])).unwrap_or(true);
        let grace = fields.read("grace", |node| self.findings.span(node)).unwrap_or(Span::days(30));
        let notice = fields.read("notice", |node| self.findings.span(node)).unwrap_or(Span::days(30));
        fields.finish();
        Some(Downgrade { one_step, grace, notice })
    }

    // ------------------------------------------------------------------------------------------------- benefits and coupons

    fn benefit(&self, entry: &Entry) -> Option<Benefit> {
        let mut fields = Fields::of(&entry.value, "a benefit", self.findings)?;
        let kind = fields.required("kind", "RK0102", "say what it is: `kind: flag`, `days` or `percent`");
        let is_flag = kind.and_then(|node| self.findings.one_of(node, &[("flag", true), ("days", false), ("percent", false)]));
        let default = fields.read("default", |node| match node.text().and_then(parse_percent) {
            Some(basis_points) => Some(i64::from(basis_points / 100)),
            None => self.findings.number(node, 0, i64::from(i32::MAX)),
        });
        if let Some(node) = fields.get("merge") {
            match self.findings.one_of(node, &[("max", true), ("min", false), ("sum", false)]) {
                Some(true) | None => {}
                Some(false) => {
                    self.findings.add(super::read::not_yet(node.place.clone(), &format!("merge: {}", node.text().unwrap_or_default())));
                }
            }
        }
        let hidden = fields.read("hidden", |node| self.findings.bool(node)).unwrap_or(false);
        fields.finish();
        Some(Benefit { is_flag: is_flag?, default: default.unwrap_or(0), hidden })
    }

    fn coupon(&self, entry: &Entry) -> Option<CouponType> {
        let mut fields = Fields::of(&entry.value, "a coupon", self.findings)?;
        let value = fields.required("value", "RK0102", "say what it is worth: `value: 10%` or `value: 5 GBP`");
        let value = value.and_then(|node| match node.text().and_then(parse_percent) {
            Some(basis_points) => Some(CouponValue::Share(basis_points)),
            None if node.text().is_some_and(|text| text.parse::<f64>().is_ok()) => {
                let text = node.text().unwrap_or_default();
                let help = format!("write `{text}%`, or an amount with its currency");
                self.findings.wrong(node, format!("`{text}` of what?"), help);
                None
            }
            None => self.money(node).map(CouponValue::Money),
        });
        let source = fields.required("source", "RK0102", "say where codes come from: `source: generated` or `shared`");
        let source = source.and_then(|node| {
            let sources = [("generated", CouponSource::Generated), ("shared", CouponSource::Shared), ("pool", CouponSource::Pool)];
            let source = self.findings.one_of(node, &sources)?;
            if source == CouponSource::Pool {
                self.findings.add(super::read::not_yet(node.place.clone(), "source: pool"));
            }
            Some(source)
        });
        let valid = fields.required("valid", "RK0102", "say how long: `valid: 14d`").and_then(|node| self.findings.span(node));
        // what an order must reach is kept by the shop; here it is only read, so that a file may say it
        if let Some(node) = fields.get("minimum").filter(|node| node.text() != Some("none")) {
            self.money(node);
        }
        let budget = fields.read("budget", |node| {
            let (money, window) = self.findings.per(node, "5000 USD per month")?;
            if window != "month" {
                self.findings.wrong(node, format!("a budget is per month, not per `{window}`"), "`5000 USD per month`".to_owned());
                return None;
            }
            let Ok(money) = Money::from_str(money) else {
                self.findings.wrong(node, format!("`{money}` is no amount of money"), "`5000 USD per month`".to_owned());
                return None;
            };
            self.own(node, money)
        });
        fields.finish();
        Some(CouponType { value: value?, source: source?, valid: valid?, budget })
    }

    fn bundle(&self, entry: &Entry, benefits: &BTreeMap<Name, Benefit>, coupons: &BTreeMap<Name, CouponType>) -> Option<Bundle> {
        let mut fields = Fields::of(&entry.value, "a bundle", self.findings)?;
        let mut known = |key, what, names: Vec<&str>| {
            let node = fields.get(key)?;
            let name = self.findings.name(node, "a name")?;
            if !names.contains(&&*name) {
                unknown(self.findings, "RK0241", node, what, names);
            }
            Some(name)
        };
        let coupon = known("coupon", "coupon", coupons.keys().map(|name| &**name).collect());
        let benefit = known("benefit", "benefit", benefits.keys().map(|name| &**name).collect());
        let overlay = fields.read("tier_overlay", |node| overlay(node, self.findings));
        let once_per = fields.read("once_per", |node| self.findings.span(node));
        let is_empty = !["coupon", "benefit", "tier_overlay"].iter().any(|key| fields.has(key));
        fields.finish();
        if is_empty {
            self.findings.wrong(&entry.value, "a bundle without coupon, benefit and tier_overlay gives nothing", None);
            return None;
        }
        Some(Bundle { coupon, benefit, overlay, once_per })
    }
}

/// `{ up: 1, for: 30d }`.
pub fn overlay(node: &Node, findings: &Findings) -> Option<(u8, Span)> {
    let mut fields = Fields::of(node, "an overlay", findings)?;
    let up = fields.required("up", "RK0102", "how many levels: `up: 1`").and_then(|node| findings.number(node, 1, 20));
    let lasts = fields.required("for", "RK0102", "how long: `for: 30d`").and_then(|node| findings.span(node));
    fields.finish();
    Some((u8::try_from(up?).ok()?, lasts?))
}

/// The window of a `restore` unless the rule says otherwise.
pub const RESTORE_WITHIN_MS: i64 = 60 * DAY_MS;
