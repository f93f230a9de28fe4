//! Rules as they mean something: the compiled form of the files. `syntax` is the YAML as written, `check` finds what is wrong with
//! it, `expr` is the condition language; what they produce stands here and is all that the rest of the engine sees.

pub mod check;
pub mod diagnostic;
pub mod difference;
pub mod expr;
pub mod format;
pub mod language;
pub mod list;
pub mod schema;
pub mod suggest;
pub mod syntax;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time, Weekday};

use self::diagnostic::SourceFile;
use self::expr::{Condition, Expr, ValueType};
use super::action::Channel;
use super::money::{Currency, Money};
use super::profile::{Category, Name, Profile};
use super::time::{DAY_MS, HOUR_MS, Span, Timestamp, Zone};

/// All rules with what they refer to, compiled and checked as one: swapped as one.
#[derive(Debug)]
pub struct RuleSet {
    /// Hash of all texts: the version that stands on every decision.
    pub version: u64,
    pub rules: Vec<Rule>,
    pub dictionary: Dictionary,
    pub policy: Policy,
    pub program: Option<Program>,
    /// What it was read from: runs under way are read again under whatever set is in force ([`check::under_present`]).
    pub files: Arc<[SourceFile]>,
    pub templates: Arc<TemplateCatalog>,
}

impl RuleSet {
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|r| &*r.id == id)
    }

    /// The rule that people call so: by its id, or by the id of its file where it is in shadow.
    pub fn called(&self, id: &str) -> Option<&Rule> {
        self.rule(id).or_else(|| self.rules.iter().find(|rule| rule.shadow && rule.id.strip_suffix(SHADOW) == Some(id)))
    }
}

/// What follows the id of a rule in shadow: its state is its own, and nobody's on the day it goes live.
pub const SHADOW: &str = "@shadow";

/// The names that rules may use.
#[derive(Debug, Default)]
pub struct Dictionary {
    /// By the name rules use (`order_completed`).
    pub events: BTreeMap<Name, EventType>,
    /// Wire name (`Order Completed`) to the name rules use.
    pub wire_names: HashMap<Name, Name>,
    pub attributes: Vec<AttributeType>,
    pub features: Vec<FeatureType>,
    pub segments: Vec<Segment>,
    /// The program's currency; money of another meets it only through `rates`.
    pub currency: Option<Currency>,
}

#[derive(Debug, Clone)]
pub struct EventType {
    pub name: Name,
    pub wire_name: Name,
    /// Counts as the person being there.
    pub active: bool,
    pub properties: BTreeMap<Name, PropertyType>,
    pub declared_at: Place,
}

#[derive(Debug, Clone)]
pub struct PropertyType {
    pub value_type: ValueType,
    pub required: bool,
}

#[derive(Debug, Clone)]
pub struct AttributeType {
    pub name: Name,
    pub value_type: ValueType,
    pub optional: bool,
    pub default: Option<super::event::Value>,
    pub update: Update,
    pub pii: bool,
    pub source: Option<Name>,
    /// Older than that: absent.
    pub max_age_ms: Option<i64>,
    /// The trait tells of consent.
    pub consent: Option<TraitConsent>,
    pub declared_at: Place,
}

/// What a yes or no in a trait (`newsletter: true`) says of consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraitConsent {
    pub purpose: Category,
    pub channels: Vec<Channel>,
    /// What a yes rests on; default `opt_in`.
    pub basis: Name,
    /// Which text the person agreed to, if it is always the same.
    pub text_version: Option<Name>,
}

/// How late or repeated values of an attribute merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Update {
    #[default]
    Last,
    Max,
    Min,
    First,
}

#[derive(Debug)]
pub struct FeatureType {
    pub name: Name,
    pub kind: FeatureKind,
    pub doc: Option<String>,
    pub declared_at: Place,
}

impl FeatureType {
    /// The type of its value.
    pub fn value_type(&self) -> &ValueType {
        match &self.kind {
            FeatureKind::Expr(expr) => expr.value_type(),
            FeatureKind::Aggregate(aggregate) => &aggregate.value_type,
        }
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a few per rule set, made once at load")]
pub enum FeatureKind {
    Expr(Expr),
    Aggregate(Aggregate),
}

/// A declared feature over events.
#[derive(Debug)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// Event by the name rules use.
    pub event: Name,
    /// None for `count`.
    pub property: Option<Name>,
    pub value_type: ValueType,
    pub filter: Option<Condition>,
    /// Exact milliseconds; none for `lifetime`.
    pub window_ms: Option<i64>,
    pub bucket_ms: Option<i64>,
    pub keep: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateFunction {
    Count,
    Sum,
    Min,
    Max,
    Last,
    Distinct,
}

#[derive(Debug)]
pub struct Segment {
    pub name: Name,
    pub condition: Condition,
    pub declared_at: Place,
}

/// Where something stands in the files: for messages to operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Relative to the rules directory.
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

/// What the checker knows of the templates, by name.
pub type TemplateCatalog = BTreeMap<Name, TemplateInfo>;

/// A template as far as rules are concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TemplateInfo {
    /// `marketing`, `transactional`, or one of the service purposes (`penalty_notice`, `tier_notice`, `points_statement`, `order`,
    /// `account`).
    pub purpose: Name,
    pub locales: Vec<Name>,
    /// Translations whose state is not `reviewed`.
    pub unreviewed: Vec<Name>,
    /// Variables that a step's `data` may fill.
    pub variables: Vec<Name>,
    /// Those of them that it must fill.
    pub required: Vec<Name>,
    /// Prints a coupon: sends of it need an `offer`.
    pub has_offer: bool,
    /// Prints amount or date of a penalty: only a step named as `notice` may send it.
    pub has_notice: bool,
    /// Channels for which a translation is complete.
    pub channels_per_locale: BTreeMap<Name, Vec<Channel>>,
}

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {
    pub id: Name,
    pub place: Place,
    pub name: String,
    pub owner: String,
    pub doc: Option<String>,
    pub tags: Vec<Name>,
    pub enabled: bool,
    /// Decides and records beside the live rules, does nothing.
    pub shadow: bool,
    pub active: Option<Active>,
    pub audience: Option<Condition>,
    pub trigger: Trigger,
    pub unless: Option<Condition>,
    pub only_if_at_start: Option<Condition>,
    /// What happens to people who satisfy `when` as the rule first sees them.
    pub existing: Existing,
    pub max_entries: MaxEntries,
    /// `for`: must stay true that long before the run starts.
    pub hold_for: Span,
    pub reentry: Reentry,
    /// At most so many runs that sent or reserved a message, in exact milliseconds.
    pub at_most: Option<(u32, i64)>,
    pub while_running: WhileRunning,
    pub stop_on: Option<StopOn>,
    pub max_late: Option<MaxLate>,
    /// 0-100; higher asks first.
    pub priority: u8,
    pub steps: Vec<Step>,
    pub on_exit: Vec<Step>,
    /// Share held out by the rule's own salt, in basis points (10_000 = all).
    pub holdout_bp: u16,

    // -- derived at load
    /// Hash of (id, `audience`-free normalised `when`, with the segments, features and calendars it names).
    pub when_hash: u32,
    /// Hash of the rule's normalised text.
    pub hash: u64,
    /// Has a `take`.
    pub takes: bool,
    /// Has a send of category marketing, an offer or a `take`: concerned by holdouts.
    pub treats: bool,
    /// Reads `days_silent`, `days_since_*`, or a count or sum from below: held while its source is quiet.
    pub rests_on_absence: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Active {
    pub from: Timestamp,
    pub until: Timestamp,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a few per rule set, made once at load")]
pub enum Trigger {
    When(Condition),
    Event { event: Name, filter: Option<Condition>, key: Option<Expr> },
    At(At),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Skip,
    Enter,
    /// Enter, spread evenly over that span by a stable hash.
    Spread(Span),
}

/// The brake: entries in any 60 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxEntries {
    /// The larger of 1000 and 2 % of profiles.
    Default,
    Count(u64),
    /// Basis points of all profiles.
    Share(u16),
    /// No brake (the default of `at`).
    None,
}

impl MaxEntries {
    /// Entries allowed in any 60 minutes among so many profiles; none: unlimited.
    pub fn limit(self, profiles: u64) -> Option<u64> {
        match self {
            MaxEntries::Default => Some((profiles / 50).max(1000)),
            MaxEntries::Count(count) => Some(count),
            MaxEntries::Share(bp) => Some((profiles * u64::from(bp)).div_ceil(10_000)),
            MaxEntries::None => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reentry {
    Never,
    /// May start again that long after the start of the run before, at most `max` times in a lifetime.
    After {
        after: Span,
        max: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhileRunning {
    #[default]
    Ignore,
    Restart,
    Parallel,
}

#[derive(Debug)]
pub struct StopOn {
    pub event: Name,
    /// Property that must equal that of the event which started the run.
    pub matching: Option<Name>,
}

/// How late after its planned instant a thing may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLate {
    Span(Span),
    EndOfLocalDay,
    EndOfCalendar,
}

/// A calendar trigger: civil dates and a local time.
#[derive(Debug, Clone)]
pub struct At {
    pub days: AtDays,
    pub time: Time,
    /// None: the user's.
    pub zone: Option<Zone>,
    pub feb_29: Feb29,
}

#[derive(Debug, Clone)]
pub enum AtDays {
    Daily,
    Weekly(Vec<Weekday>),
    /// Day of the month (a month without it: its last day); 0 means `last`.
    Monthly(u8),
    /// A date attribute.
    Yearly(Name),
    Once(DateTime),
    /// Five fields of Unix cron, as a civil calendar.
    Cron(Arc<str>),
    /// First day of each range of a calendar.
    Calendar(Name),
    /// A timestamp feature, moved by a span (negative: before).
    Moment {
        name: Name,
        offset: Span,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Feb29 {
    #[default]
    Feb28,
    Mar1,
}

/// One step of a rule.
#[derive(Debug)]
pub struct Step {
    pub id: Name,
    pub place: Place,
    /// Since the run's start.
    pub after: Span,
    pub send_at: Option<SendAt>,
    /// Shared by the rungs of a ladder.
    pub condition: Option<Arc<Condition>>,
    pub require: Option<Require>,
    pub max_late: Option<MaxLate>,
    pub action: Action,
    /// Outcomes that a later step, notice or further channel waits for: a sum of [`super::action::Outcome::bit`].
    pub wakes_on: u16,
    /// The take whose `notice` this step is, by its index in `steps`.
    pub notice_of: Option<usize>,
    /// Set where a `ladder` was written: each of its rungs is a step.
    pub rung: Option<Rung>,
}

/// A step's place in a ladder. The first rung has the step's own id, the others `ID.2`, `ID.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Index of the ladder's first rung in `steps`.
    pub first: usize,
    /// Not needed once a rung before has come that far.
    pub unless: Required,
}

/// A window of local time that a planned instant is moved into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendAt {
    pub from: Time,
    /// Equal to `from` for a point in time; otherwise people are spread over the window by a stable hash.
    pub to: Time,
    /// Empty: every day.
    pub days: Vec<Weekday>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Require {
    /// Index of an earlier step; of a ladder its first rung, and any of them counts.
    pub step: usize,
    pub outcome: Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    Done,
    Accepted,
    Delivered,
    Opened,
}

#[derive(Debug)]
pub enum Action {
    Send(Send),
    Points {
        class: Name,
        add: i64,
        expires: Option<Span>,
        reason: Name,
    },
    Take(TakeAction),
    Tier(TierAction),
    Grant {
        grant: Grant,
        expires: Option<Span>,
    },
    /// Attribute to expression.
    Set(Vec<(Name, Expr)>),
    /// An event-like note to the owner.
    Alert {
        level: Name,
        text: Option<String>,
        notify: Vec<Name>,
    },
}

#[derive(Debug)]
pub struct Send {
    pub template: Name,
    /// Alternatives in order.
    pub channels: Vec<Channel>,
    pub category: Category,
    /// Liquid strings, rendered at send time.
    pub data: Vec<(Name, String)>,
    pub languages: Vec<Name>,
    pub offer: Option<Offer>,
}

/// A coupon that travels with a message: reserved with the decision, issued with the send-intent.
#[derive(Debug, Clone)]
pub struct Offer {
    pub coupon: Name,
    /// Replaces the coupon's own `valid`.
    pub valid: Option<Span>,
}

#[derive(Debug)]
pub struct TakeAction {
    /// Index of the step that announces it.
    pub notice: usize,
    pub amount: TakeAmount,
    pub of: Name,
    pub max: i64,
    pub keep: i64,
    pub reason: Name,
    pub min_notice: Option<Span>,
    /// Exact milliseconds.
    pub restore_within_ms: i64,
    /// Percent.
    pub restore_share: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeAmount {
    /// Basis points of the class's balance at that moment.
    Share(u16),
    Points(i64),
}

#[derive(Debug)]
pub enum TierAction {
    To { tier: Name, protect: Span },
    Overlay { up: u8, lasts: Span },
}

#[derive(Debug)]
pub enum Grant {
    Coupon(Name),
    Benefit(Name),
    Bundle(Name),
}

// ---------------------------------------------------------------------------------------------------------------- policy

/// The shop's rules about its rules.
#[derive(Debug, Clone)]
pub struct Policy {
    pub zone: ZonePolicy,
    /// An event older than that updates state and starts no run.
    pub lateness_start_ms: i64,
    /// An event older than that undoes nothing but takes and lapses.
    pub lateness_correct_ms: i64,
    pub week_start: Weekday,
    pub consent: BTreeMap<Category, ConsentBasis>,
    pub default_category: Category,
    pub max_late: BTreeMap<Category, MaxLate>,
    pub holdout: Option<Holdout>,
    pub default_priority: u8,
    /// `priority.one_marketing_send_per` in exact milliseconds: the gate `priority`, a cap of one over all marketing.
    pub one_marketing_send_ms: Option<i64>,
    pub caps: Vec<Cap>,
    pub quiet_hours: Vec<QuietHours>,
    /// None: the same text may go twice.
    pub duplicates: Option<Duplicates>,
    pub on_block: OnBlock,
    pub inhibit: Vec<Arc<Inhibit>>,
    pub sources: Option<SourcePolicy>,
    pub calendars: BTreeMap<Name, Calendar>,
    pub channels: BTreeMap<Channel, ChannelPolicy>,
    pub notify: BTreeMap<Name, String>,
}

#[derive(Debug, Clone)]
pub struct ZonePolicy {
    /// The attribute that names a person's zone, besides the built-in one.
    pub user_attribute: Option<Name>,
    pub by_country: bool,
    pub last: Zone,
}

#[derive(Debug, Clone)]
pub enum ConsentBasis {
    Always,
    /// The basis required, and countries where another suffices.
    Recorded {
        basis: Name,
        countries: BTreeMap<Name, Name>,
    },
}

#[derive(Debug, Clone)]
pub struct Holdout {
    /// Basis points.
    pub share_bp: u16,
    pub salt: Name,
}

#[derive(Debug, Clone)]
pub struct Cap {
    pub id: Name,
    pub max: u32,
    pub window: CapWindow,
    /// Empty: all.
    pub channels: Vec<Channel>,
    pub categories: Vec<Category>,
    pub tags: Vec<Name>,
    pub on_block: Option<OnBlockAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapWindow {
    /// Exact, half-open `(t - W, t]`.
    Rolling(i64),
    LocalDay,
    LocalWeek,
    LocalMonth,
}

#[derive(Debug, Clone)]
pub struct QuietHours {
    /// Closed from .. to (over midnight if from > to); the whole day if both are equal.
    pub from: Time,
    pub to: Time,
    /// Days the line applies to (the day on which it closes); empty: every day.
    pub days: Vec<Weekday>,
    /// None: the user's.
    pub zone: Option<Zone>,
    pub countries: Vec<Name>,
    pub channels: Vec<Channel>,
    pub categories: Vec<Category>,
}

/// Not the same text twice to one person within so long.
#[derive(Debug, Clone)]
pub struct Duplicates {
    /// Exact, half-open `(t - W, t]`.
    pub within_ms: i64,
    pub categories: Vec<Category>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBlockAnswer {
    Wait,
    Drop,
}

#[derive(Debug, Clone, Copy)]
pub struct OnBlock {
    pub quiet_hours: OnBlockAnswer,
    pub cap: OnBlockAnswer,
    pub priority: OnBlockAnswer,
    pub budget: OnBlockAnswer,
    pub inhibit: OnBlockAnswer,
}

impl Default for OnBlock {
    fn default() -> Self {
        use OnBlockAnswer::{Drop, Wait};
        OnBlock { quiet_hours: Wait, cap: Wait, priority: Wait, budget: Wait, inhibit: Drop }
    }
}

#[derive(Debug)]
pub struct Inhibit {
    pub when: Condition,
    pub categories: Vec<Category>,
    pub why: String,
}

impl Default for SourcePolicy {
    /// Below a fifth of the baseline for six hours, where the baseline is twenty events; absence and penalties are held.
    fn default() -> Self {
        SourcePolicy { below_percent: 20, for_ms: 6 * HOUR_MS, min_baseline: 20, holds_absence: true, holds_penalty: true }
    }
}

/// When the activity source counts as quiet against its own baseline.
#[derive(Debug, Clone, Copy)]
pub struct SourcePolicy {
    /// Percent of the baseline.
    pub below_percent: u8,
    pub for_ms: i64,
    pub min_baseline: u32,
    pub holds_absence: bool,
    pub holds_penalty: bool,
}

#[derive(Debug, Clone)]
pub struct Calendar {
    pub zone: Zone,
    /// Inclusive ranges of dates, sorted.
    pub ranges: Vec<(Date, Date)>,
}

/// By whom and how fast a channel's messages go out.
#[derive(Debug, Clone)]
pub struct ChannelPolicy {
    pub provider: Name,
    /// Where the provider is named.
    pub place: Place,
    /// How long one attempt waits for each answer; none: the protocol's own.
    pub timeout_ms: Option<i64>,
    /// Attempts after the first, while the fault is the connection's or the provider's; none: until the message is too old.
    pub retries: Option<u32>,
    pub rate: Option<Rate>,
    pub warm_up: Option<WarmUp>,
    /// WhatsApp: only texts that the provider has approved.
    pub templates_only: bool,
    pub sender: Option<Sender>,
    /// What a message costs, in millionths of the currency's unit: most cost less than a cent.
    pub cost_micros: Option<(i64, Currency)>,
}

/// So many messages in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u64,
    pub per_ms: i64,
}

/// A new sender's reputation: so many in its first day, and so much more each day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmUp {
    pub start: Rate,
    /// Basis points of growth per day.
    pub grow_bp: u32,
}

/// Who writes the e-mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// `The shop <news@shop.example>`, or the address alone.
    pub from: Name,
    pub reply_to: Option<Name>,
    /// Stands at the foot of every marketing e-mail: the law of most countries wants it.
    pub postal_address: Option<Name>,
    /// What mail programs sort by: `news.shop.example`.
    pub list_id: Option<Name>,
}

impl Default for Policy {
    /// What holds where no file says otherwise. Nobody has said then what must be on record before a marketing message, so a rule
    /// that sends one is refused (RK0401).
    fn default() -> Self {
        let max_late = [
            (Category::Marketing, MaxLate::Span(Span::hours(24))),
            (Category::Service, MaxLate::Span(Span::hours(72))),
            (Category::Transactional, MaxLate::Span(Span::days(4))),
        ];
        Policy {
            zone: ZonePolicy { user_attribute: None, by_country: true, last: Zone::UTC },
            lateness_start_ms: 72 * HOUR_MS,
            lateness_correct_ms: 7 * DAY_MS,
            week_start: Weekday::Monday,
            consent: BTreeMap::new(),
            default_category: Category::Marketing,
            max_late: BTreeMap::from(max_late),
            holdout: None,
            default_priority: 50,
            one_marketing_send_ms: None,
            caps: Vec::new(),
            quiet_hours: Vec::new(),
            duplicates: None,
            on_block: OnBlock::default(),
            inhibit: Vec::new(),
            sources: Some(SourcePolicy::default()),
            calendars: BTreeMap::new(),
            channels: BTreeMap::new(),
            notify: BTreeMap::new(),
        }
    }
}

impl Policy {
    /// The first instant of the shop's month of `now`: from there coupon budgets are counted.
    pub fn month_start(&self, now: Timestamp) -> Timestamp {
        let zone = &self.zone.last;
        zone.start_of_day(now.local(zone).date().first_of_month())
    }

    /// The zone in which things happen to this person: their own attribute, else their country's, else `last`.
    pub fn zone_of(&self, profile: &Profile) -> Zone {
        let own = profile.own_zone().or_else(|| {
            let attribute = self.zone.user_attribute.as_ref()?;
            match &profile.attributes.get(attribute)?.value {
                super::event::Value::Text(name) => Zone::named(name),
                _ => None,
            }
        });
        let by_country = || self.zone.by_country.then(|| super::time::zone_of_country(profile.country())).flatten();
        own.or_else(by_country).unwrap_or_else(|| self.zone.last.clone())
    }
}

// --------------------------------------------------------------------------------------------------------------- program

/// Points, tiers, benefits, coupons: declared as data.
#[derive(Debug, Clone)]
pub struct Program {
    pub currency: Currency,
    pub jurisdiction: Jurisdiction,
    pub classes: BTreeMap<Name, PointClass>,
    pub earn: Vec<Earn>,
    pub penalty: Penalty,
    pub tiers: Option<Tiers>,
    pub benefits: BTreeMap<Name, Benefit>,
    pub coupons: BTreeMap<Name, CouponType>,
    pub bundles: BTreeMap<Name, Bundle>,
}

/// Which policy pack applies where. A pack narrows what a penalty may do.
#[derive(Debug, Clone)]
pub struct Jurisdiction {
    /// By country, or country and region (`CA-QC`).
    pub packs: BTreeMap<Name, Pack>,
    pub otherwise: Pack,
}

/// The strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pack {
    /// No deduction at all.
    NoTakes,
    /// Bonus only, 365 days of silence, notice at least 30 days ahead (Québec, P-40.1 r.3 art. 79.6.3).
    StrictNotice,
    /// Only the classes of `penalty.classes` that are bonus or goodwill, never earned or purchased points.
    BonusOnly,
    /// What `program.points.penalty` says.
    AsProgrammed,
}

impl Jurisdiction {
    /// The pack that applies to a person: of their region, else of their country, else `else`. Whose region is unknown in a country where
    /// regions differ gets the strictest pack that may apply: nobody loses points to a gap in our data.
    pub fn pack_for(&self, profile: &Profile) -> Pack {
        let country = profile.country();
        let of_country = || self.packs.get(country).copied().unwrap_or(self.otherwise);
        match profile.attributes.get(super::absorb::REGION).map(|region| &region.value) {
            Some(super::event::Value::Text(region)) => {
                let code = region.split_once('-').map_or(&**region, |(_, code)| code);
                self.packs.get(format!("{country}-{code}").as_str()).copied().unwrap_or_else(of_country)
            }
            _ => {
                let regions = self.packs.iter().filter(|(name, _)| name.split_once('-').is_some_and(|(of, _)| of == country));
                regions.map(|(_, pack)| *pack).fold(of_country(), Pack::min)
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct PointClass {
    pub expiry: Expiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Never,
    /// That long after activation, rounded up to the end of the month if `month_end` (in the shop's zone).
    Rolling {
        span: Span,
        month_end: bool,
    },
    /// That long after the last active event.
    Inactivity(Span),
}

#[derive(Debug, Clone)]
pub struct Earn {
    /// Event by the name rules use.
    pub event: Name,
    pub amount: EarnAmount,
    pub class: Name,
    /// Spendable that long after the event.
    pub pending: Span,
    /// At most `max` times within exact milliseconds.
    pub limit: Option<(u32, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarnAmount {
    Fixed(i64),
    /// Points per so much money of the event's `total`, rounded down.
    Rate {
        points: i64,
        per: Money,
    },
}

#[derive(Debug, Clone)]
pub struct Penalty {
    pub classes: Vec<Name>,
    pub keep: i64,
    /// At most this share (basis points) of what was eligible before the window's first take, per exact milliseconds.
    pub cap: Option<(u16, i64)>,
    pub grace: Span,
}

#[derive(Debug, Clone)]
pub struct Tiers {
    /// Name of a money or count feature (`spend_180d`).
    pub metric: Name,
    pub review: ReviewRhythm,
    /// Lowest first.
    pub levels: Vec<TierLevel>,
    pub downgrade: Downgrade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewRhythm {
    /// A year after reaching or renewing the tier.
    Anniversary,
    /// At the first instant of each month, quarter or year in the shop's zone.
    Month,
    Quarter,
    Year,
}

#[derive(Debug, Clone)]
pub struct TierLevel {
    pub id: Name,
    /// Minor units for a money metric, else the count.
    pub from: i64,
    pub benefits: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
pub struct Downgrade {
    pub one_step: bool,
    pub grace: Span,
    /// `tier_at_risk` comes that long before the review.
    pub notice: Span,
}

#[derive(Debug, Clone)]
pub struct Benefit {
    pub is_flag: bool,
    pub default: i64,
    pub hidden: bool,
}

#[derive(Debug, Clone)]
pub struct CouponType {
    pub value: CouponValue,
    pub source: CouponSource,
    pub valid: Span,
    /// Face value in minor units per calendar month of the shop's zone.
    pub budget: Option<Money>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CouponValue {
    /// Basis points.
    Share(u16),
    Money(Money),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CouponSource {
    /// A code of its own for each, derived from message or run.
    Generated,
    /// One code for all: the coupon's name.
    Shared,
    /// From an imported list: not yet available.
    Pool,
}

#[derive(Debug, Clone)]
pub struct Bundle {
    pub coupon: Option<Name>,
    pub benefit: Option<Name>,
    pub overlay: Option<(u8, Span)>,
    pub once_per: Option<Span>,
}

impl Tiers {
    pub fn rank(&self, tier: &str) -> usize {
        self.levels.iter().position(|l| &*l.id == tier).unwrap_or(0)
    }

    /// The highest level that `metric` reaches.
    pub fn earned(&self, metric: i64) -> &TierLevel {
        let reached = self.levels.iter().rev().find(|level| metric >= level.from).or(self.levels.first());
        reached.expect("a program without levels has no tiers: its reader sees to it")
    }
}
