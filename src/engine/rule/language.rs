//! The language as a table: which keys a mapping has, what each takes, and what it means in a line. One description for whatever
//! needs the keys without a file at hand: the JSON Schema for editors ([`schema`](super::schema)), and the order in which `fmt` writes
//! them.
//!
//! What is right and what is not is said by `check/`, which reads the values. That both know the same keys is held by an assertion in
//! [`Fields::finish`](super::check) and by a test that asks `check` for the keys of every mapping.

use self::Takes::{
    Anything, Bool, Condition, Date, Duration, Either, Expression, Instant, List, Map, Money, Name, Number, Of, Percent, Slug, Text,
    TimeOfDay, Words, Zone,
};

/// A mapping with fixed keys.
#[derive(Debug)]
pub struct Shape {
    /// As findings call it: "a rule", "`send`".
    pub what: &'static str,
    /// In the order in which `fmt` writes them.
    pub keys: &'static [Key],
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub takes: Takes,
    pub is_required: bool,
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Debug)]
pub enum Takes {
    Text,
    /// Small letters, digits, dashes: at least so many.
    Slug(u8),
    Bool,
    Number(i64, i64),
    Percent,
    Duration,
    Money,
    /// `"10:00"`, or `"10:00-12:00"`.
    TimeOfDay,
    Instant,
    Date,
    /// An IANA zone, or `user`.
    Zone,
    Condition,
    Expression,
    Words(&'static [&'static str]),
    /// A name that the project declares.
    Name(Names),
    List(&'static Takes),
    /// Names of the writer's own choice, each with such a value.
    Map(&'static Takes),
    Of(&'static Shape),
    Either(&'static [Takes]),
    Anything,
    /// The language has it, this version does not carry it out.
    Later,
}

/// Names that a project declares, so that an editor can offer them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Names {
    Rule,
    Event,
    DateAttribute,
    Feature,
    Template,
    Class,
    Coupon,
    Benefit,
    Bundle,
    Level,
    Calendar,
    Notified,
    /// A condition too; its single words are segments.
    Segment,
}

const fn key(name: &'static str, takes: Takes, doc: &'static str) -> Key {
    Key { name, takes, is_required: false, doc }
}

const fn must(name: &'static str, takes: Takes, doc: &'static str) -> Key {
    Key { name, takes, is_required: true, doc }
}

const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, takes: Takes::Later, is_required: false, doc }
}

const CHANNELS: Takes = List(&Words(&["email", "push", "sms", "whatsapp", "inapp", "webhook"]));
const CATEGORY: Takes = Words(&["marketing", "service", "transactional"]);
const CATEGORIES: Takes = List(&CATEGORY);
const WEEKDAYS: Takes = List(&Text);
const MAX_LATE: Takes = Either(&[Duration, Words(&["end_of_local_day", "end_of_calendar"])]);
const POSITIVE: Takes = Number(1, i32::MAX as i64);
const ANSWER: Takes = Words(&["wait", "drop"]);

// ----------------------------------------------------------------------------------------------------------------------- files

pub const FILE: Shape = Shape {
    what: "a file",
    keys: &[
        must("rekindle", Words(&["1"]), "The version of the format."),
        key("events", Map(&Of(&EVENT)), "What may arrive, by the names that rules use."),
        key("attributes", Map(&Of(&ATTRIBUTE)), "What the shop knows of a person."),
        key("features", Map(&Of(&FEATURE)), "Counts, sums and expressions with names."),
        key("segments", Map(&Of(&SEGMENT)), "Conditions with names."),
        key("program", Of(&PROGRAM), "Points, tiers, benefits and coupons."),
        key("policy", Of(&POLICY), "The shop's rules about its rules."),
        key("rules", List(&Of(&RULE)), "Who gets what, when, unless."),
        key("tests", List(&Of(&TEST)), "What rules must do, given people and events."),
        later("blueprints", "Rules with inputs."),
        later("monitors", "Figures that are watched."),
    ],
};

pub const EVENT: Shape = Shape {
    what: "an event",
    keys: &[
        must("name", Text, "Its name on the wire: `Order Completed`."),
        key("active", Bool, "Whether it counts as the person being there. Default: false."),
        key("properties", Map(&Of(&PROPERTY)), "What it says, by name."),
    ],
};

const TYPES: Takes = Words(&["bool", "int", "float", "string", "enum", "date", "timestamp", "money", "list"]);

pub const PROPERTY: Shape = Shape {
    what: "a property",
    keys: &[
        must("type", TYPES, "Its type."),
        key("values", List(&Text), "The words of an enum."),
        key("required", Bool, "Whether every such event has it; else guard it in conditions. Default: false."),
    ],
};

pub const ATTRIBUTE: Shape = Shape {
    what: "an attribute",
    keys: &[
        must("type", TYPES, "Its type."),
        key("values", List(&Text), "The words of an enum."),
        key("default", Anything, "What a person without it has."),
        key("optional", Bool, "Whether it may be missing; then guard it in conditions."),
        key("update", Words(&["last", "max", "min", "first"]), "Which of several values counts. Default: last."),
        key("pii", Bool, "Personal data: masked in traces. Default: false."),
        key("source", Text, "Who alone may write it."),
        key("max_age", Duration, "Older than that it counts as missing."),
        key("consent", Of(&TRAIT_CONSENT), "What a yes or no of it says about consent."),
    ],
};

pub const TRAIT_CONSENT: Shape = Shape {
    what: "`consent` of an attribute",
    keys: &[
        must("purpose", CATEGORY, "What the consent is for."),
        must("channels", CHANNELS, "On which channels."),
        key("basis", Text, "What a yes rests on. Default: opt_in."),
        key("text_version", Text, "Which text the person agreed to."),
    ],
};

pub const FEATURE: Shape = Shape {
    what: "a feature",
    keys: &[
        key("expr", Expression, "Computed from other names."),
        key("count", Name(Names::Event), "How many such events."),
        key("sum", Text, "Sum of `event.property`."),
        key("min", Text, "Smallest `event.property`."),
        key("max", Text, "Largest `event.property`."),
        key("last", Text, "Latest `event.property`."),
        key("distinct", Text, "How many different values of `event.property`."),
        key("window", Either(&[Duration, Words(&["lifetime"])]), "Over how long; required but for `expr`. A day has 24 hours here."),
        key("bucket", Either(&[Duration, Words(&["exact"])]), "Coarser and cheaper: edges of buckets. Default: exact."),
        key("keep", Number(1, 10_000), "How many events are kept exactly. Default: 500."),
        key("where", Condition, "Only events for which this holds: `event.x`."),
        key("unit", Text, "For people who read it."),
        key("doc", Text, "For people who read it."),
    ],
};

pub const SEGMENT: Shape = Shape {
    what: "a segment",
    keys: &[
        key("name", Text, "For people who read it."),
        key("when", Condition, "Who belongs to it; or `file` and `column`."),
        key("file", Text, "A list of people: a CSV file of the rules directory, as `lists/autumn.csv`."),
        key("column", Text, "The list's column that holds user ids."),
    ],
};

// ----------------------------------------------------------------------------------------------------------------------- rules

pub const RULE: Shape = Shape {
    what: "a rule",
    keys: &[
        must("id", Slug(3), "Identity of state and dedupe keys; never reuse one."),
        key("name", Text, "What the rule does, in a line."),
        must("owner", Text, "Who answers for it."),
        key("tags", List(&Slug(1)), "Caps and pauses may select by tag."),
        key("kpi", Text, "What it is to move."),
        key("review_by", Date, "When it should be looked at again."),
        key("doc", Text, "Why it is as it is."),
        key("enabled", Bool, "False: runs end as `disabled`. Default: true."),
        key("mode", Words(&["live", "shadow"]), "`shadow` decides and records, and does nothing. Default: live."),
        key("active", Of(&ACTIVE), "Outside: no entry, running ones end as `expired`. Default: always."),
        later("use", "A blueprint."),
        later("with", "Inputs of the blueprint."),
        key("audience", Either(&[Name(Names::Segment), Condition]), "Who: asked at entry and again at each step. Default: everyone."),
        key("priority", Number(0, 100), "Who asks first for a slot. Default: 50."),
        key("when", Condition, "Trigger: a run starts when it turns true and ends when it turns false."),
        key("event", Name(Names::Event), "Trigger: a run for each `key` (default: one per person)."),
        key("where", Condition, "Only events for which this holds: `event.x`."),
        key("key", Expression, "One run for each of its values: `event.order_id`."),
        key("at", Of(&AT), "Trigger: the calendar."),
        key("max_late", MAX_LATE, "How late after its planned instant a thing may still happen. Default: by category."),
        key("unless", Condition, "No entry while true; ends a run as `left`."),
        key("only_if_at_start", Condition, "Asked once, as the run would start; false: no run for this passage."),
        key(
            "existing",
            Either(&[Words(&["skip", "enter"]), Text]),
            "What becomes of those who fulfil `when` already: `skip`, `enter` or `spread(7d)`. Required with `when`.",
        ),
        key("for", Duration, "How long it must hold before the run starts. Default: 0."),
        key("reentry", Either(&[Words(&["never"]), Of(&REENTRY)]), "When the same person may start again. Default: { after: 30d }."),
        key("at_most", Text, "Per person, over all keys: `1 per 7d`."),
        key("max_entries", Either(&[POSITIVE, Percent]), "The brake: beyond so many in 60 minutes entries wait."),
        key("while_running", Words(&["ignore", "restart", "parallel"]), "A second event for the same key. Default: ignore."),
        key("stop_on", Of(&STOP_ON), "Ends the run as `stopped`."),
        key("holdout", Percent, "Never treated, always measured. Default: 0%."),
        later("rollout", "Stages with growing shares."),
        later("experiment", "Arms, a metric and a decision."),
        later("guardrails", "Monitors of this rule."),
        must("steps", List(&Of(&STEP)), "What happens."),
        key("on_exit", List(&Of(&STEP)), "Steps that run when the run ends early."),
    ],
};

pub const ACTIVE: Shape = Shape {
    what: "`active`",
    keys: &[
        key("from", Instant, "First instant."),
        key("until", Instant, "No more from here on."),
        key("zone", Zone, "Whose clock; needed unless the instants have an offset."),
    ],
};

pub const AT: Shape = Shape {
    what: "`at`",
    keys: &[
        key("daily", Bool, "Every day."),
        key("weekly", WEEKDAYS, "On these weekdays: `[mon, thu]`, `[mon..fri]`."),
        key("monthly", Either(&[Number(1, 31), Words(&["last"])]), "On this day of the month."),
        key("yearly", Name(Names::DateAttribute), "On the day of this attribute."),
        key("once", Instant, "At this instant."),
        key("cron", Text, "Minute, hour, day of month, month, weekday: `30 9 * * 1-5`."),
        key("calendar", Name(Names::Calendar), "On the first day of each range of a calendar."),
        key("moment", Text, "A timestamp of the person: `tier_review_at`."),
        key("before", Duration, "So long before the moment."),
        key("after", Duration, "So long after the moment."),
        key("time", TimeOfDay, "Time of day."),
        key("zone", Zone, "`user` is where each person lives."),
        key("feb_29", Words(&["feb_28", "mar_1"]), "In years without one."),
    ],
};

pub const REENTRY: Shape = Shape {
    what: "`reentry`",
    keys: &[must("after", Duration, "Counted from the start of the run before."), key("max", POSITIVE, "So often in a lifetime.")],
};

pub const STOP_ON: Shape = Shape {
    what: "`stop_on`",
    keys: &[
        must("event", Name(Names::Event), "The event that ends the run."),
        key("match", Text, "A property that must be that of the event that started the run: `event.order_id`."),
    ],
};

pub const STEP: Shape = Shape {
    what: "a step",
    keys: &[
        must("id", Slug(1), "Part of what keeps a message from going out twice."),
        key("after", Duration, "Since the start of the run. Default: 0."),
        key("require", Of(&REQUIRE), "Waits until an earlier step is that far."),
        key("send_at", Either(&[TimeOfDay, Of(&SEND_AT)]), "Moves the step to the first such local time."),
        key("if", Condition, "False: the step is skipped."),
        later("arms", "Arms of an experiment."),
        key("max_late", MAX_LATE, "How late it may still happen."),
        key("send", Of(&SEND), "A message."),
        key("points", Of(&POINTS), "Gives points."),
        key("take", Of(&TAKE), "Takes points, after a notice of its own."),
        key("tier", Of(&TIER), "Sets or lifts the tier."),
        key("grant", Of(&GRANT), "Gives a coupon, a benefit or a bundle."),
        key("set", Map(&Expression), "Writes attributes."),
        later("webhook", "Tells another system."),
        later("call", "Asks another system."),
        key("alert", Of(&ALERT), "Tells somebody in the shop."),
    ],
};

pub const SEND_AT: Shape = Shape {
    what: "`send_at`",
    keys: &[must("between", TimeOfDay, "A window within one day."), key("days", WEEKDAYS, "Only on these weekdays.")],
};

pub const REQUIRE: Shape = Shape {
    what: "`require`",
    keys: &[
        must("step", Text, "An earlier step."),
        key("outcome", Words(&["done", "accepted", "delivered", "opened"]), "How far it must be. Default: done."),
    ],
};

pub const SEND: Shape = Shape {
    what: "`send`",
    keys: &[
        must("template", Name(Names::Template), "A folder of `templates/`."),
        key("channels", CHANNELS, "Alternatives in order, not all of them."),
        key("ladder", List(&Of(&RUNG)), "One channel after the other, as long as that is needed."),
        key("category", CATEGORY, "Default: the policy's."),
        key("offer", Either(&[Name(Names::Coupon), Of(&OFFER)]), "A coupon, issued as the message goes out."),
        key("data", Map(&Text), "Texts for the template's variables, in Liquid."),
        key("languages", List(&Text), "Only these translations."),
        key("max_late", MAX_LATE, "How late it may still go out."),
    ],
};

pub const RUNG: Shape = Shape {
    what: "a rung",
    keys: &[
        must("channel", Words(&["email", "push", "sms", "whatsapp", "inapp", "webhook"]), "By which channel."),
        key("after", Duration, "Since the first rung; every rung but the first has it."),
        key("unless", Words(&["accepted", "delivered", "opened"]), "Not needed once a rung before has come that far."),
    ],
};

pub const OFFER: Shape = Shape {
    what: "`offer`",
    keys: &[
        must("coupon", Name(Names::Coupon), "A coupon of the program."),
        key("valid", Duration, "How long from the sending on; replaces the coupon's own."),
    ],
};

pub const POINTS: Shape = Shape {
    what: "`points`",
    keys: &[
        must("add", POSITIVE, "How many."),
        must("class", Name(Names::Class), "Of which class."),
        key("expires", Duration, "Replaces the class's own expiry."),
        key("reason", Slug(1), "The word in the ledger."),
    ],
};

pub const TAKE: Shape = Shape {
    what: "`take`",
    keys: &[
        must("notice", Text, "The step that announces it."),
        key("percent", Percent, "Of the balance of the class at that moment."),
        key("amount", POSITIVE, "So many points."),
        key("of", Name(Names::Class), "The class. Default: bonus."),
        must("max", POSITIVE, "Never more than that."),
        key("keep", Number(0, i32::MAX as i64), "Never below that. Default: 0."),
        must("reason", Slug(1), "The word in the ledger."),
        key("min_notice", Duration, "Longer than the programme's grace."),
        key("restore", Of(&RESTORE), "What comes back when the person does. Default: all within 60 days."),
    ],
};

pub const RESTORE: Shape =
    Shape { what: "`restore`", keys: &[key("within", Duration, "Default: 60d."), key("share", Percent, "Default: 100%.")] };

pub const TIER: Shape = Shape {
    what: "`tier`",
    keys: &[
        key("to", Name(Names::Level), "Sets the base tier."),
        key("protect", Duration, "No downgrade within that time."),
        key("overlay", Of(&OVERLAY), "Lifts the tier for a while."),
    ],
};

pub const OVERLAY: Shape =
    Shape { what: "an overlay", keys: &[must("up", Number(1, 20), "How many levels."), must("for", Duration, "How long.")] };

pub const GRANT: Shape = Shape {
    what: "`grant`",
    keys: &[
        key("coupon", Name(Names::Coupon), "A coupon of the program."),
        key("benefit", Name(Names::Benefit), "A benefit of the program."),
        key("bundle", Name(Names::Bundle), "A bundle of the program."),
        must("expires", Duration, "How long it lasts."),
    ],
};

pub const ALERT: Shape = Shape {
    what: "`alert`",
    keys: &[
        must("level", Words(&["notice", "warning", "critical"]), "How urgent."),
        must("notify", List(&Name(Names::Notified)), "Names of `policy.notify`."),
        key("text", Text, "Liquid: `user.x`, `event.x`."),
    ],
};

// ----------------------------------------------------------------------------------------------------------------------- tests

pub const TEST: Shape = Shape {
    what: "a test",
    keys: &[
        must("name", Text, "What is shown, in a line."),
        must("rules", List(&Name(Names::Rule)), "The rules in force; the first is the one that `when` and `state` speak of."),
        must("start", Instant, "The first instant, absolute."),
        key("zone", Zone, "Of days in offsets, and of the person. Default: UTC."),
        key("rule_live_since", Either(&[Duration, Instant, Text]), "How long the rules have been live. Default: -365d."),
        key("given", Of(&GIVEN), "What is so before the first look."),
        key("each", List(&Of(&CASE)), "Cases that lie over `given`."),
        must("timeline", List(&Of(&LINE)), "What happens, and what is expected, when."),
    ],
};

pub const GIVEN: Shape = Shape {
    what: "`given`",
    keys: &[
        key("user", Map(&Anything), "`id`, `country`, `tier`, `first_seen_at`, `last_active_at`, `consent`, and attributes."),
        key("lots", List(&Of(&LOT)), "Points that the person has."),
        key("events", List(&Of(&GIVEN_EVENT)), "What happened before."),
        key("deliver", Map(&Words(&["accepted", "delivered", "failed", "bounced", "ambiguous"])), "What each channel answers."),
        key("jurisdiction", Words(&["no-takes", "bonus-only", "strict-notice", "as-programmed"]), "The pack that applies."),
        key("holdout", Bool, "True: everybody is held out."),
    ],
};

pub const CASE: Shape = Shape {
    what: "a case",
    keys: &[
        must("case", Text, "Its name."),
        key("user", Map(&Anything), "Lies over `given.user`."),
        key("lots", List(&Of(&LOT)), "Replaces `given.lots`."),
        key("events", List(&Of(&GIVEN_EVENT)), "Replaces `given.events`."),
        key("deliver", Map(&Anything), "Replaces `given.deliver`."),
        key("jurisdiction", Text, "Replaces `given.jurisdiction`."),
        key("holdout", Bool, "Replaces `given.holdout`."),
    ],
};

pub const LOT: Shape = Shape {
    what: "a lot",
    keys: &[
        must("class", Name(Names::Class), "Of which class."),
        must("points", Number(0, i64::MAX), "How many."),
        key("granted", Text, "When: an offset like `-30d`, or an instant."),
        key("expires", Text, "When: an offset like `+30d`, or an instant."),
    ],
};

pub const GIVEN_EVENT: Shape = Shape {
    what: "a given event",
    keys: &[
        must("at", Text, "When: an offset like `-30d`, or an instant."),
        must("name", Name(Names::Event), "The event, as rules call it."),
        key("properties", Map(&Anything), "What it says."),
    ],
};

pub const LINE: Shape = Shape {
    what: "a line of a timeline",
    keys: &[
        must("at", Text, "When: an offset like `+10d6h`, or an instant."),
        key("event", Of(&LINE_EVENT), "Something happens."),
        key("identify", Map(&Anything), "New attributes."),
        key("consent", Of(&LINE_CONSENT), "Consent is given or withdrawn."),
        key("expect", Of(&EXPECT), "What is so."),
    ],
};

pub const LINE_EVENT: Shape = Shape {
    what: "an event of a timeline",
    keys: &[
        must("name", Name(Names::Event), "The event, as rules call it."),
        key("properties", Map(&Anything), "What it says."),
        key("occurred_at", Text, "When it happened, if it arrives late."),
    ],
};

pub const LINE_CONSENT: Shape = Shape {
    what: "`consent` of a timeline",
    keys: &[
        must("purpose", CATEGORY, "What for."),
        must("channel", Words(&["email", "push", "sms", "whatsapp", "inapp", "webhook"]), "On which channel."),
        must("granted", Bool, "Yes or no."),
    ],
};

pub const EXPECT: Shape = Shape {
    what: "`expect`",
    keys: &[
        key("when", Bool, "Whether the rule's `when` is true."),
        key("state", Words(&["idle", "waiting", "pending", "running", "done"]), "Where the person stands with the rule."),
        key("outcome", Words(&["done", "left", "stopped", "expired", "disabled", "superseded"]), "How the latest run ended."),
        key("next_check", Text, "When the person is looked at next: `+10d`, or `never`."),
        key("sent", Anything, "Templates sent since the start, or `{ template: channel }`; exact unless `includes:`."),
        key("never_sent", Anything, "Templates that were not sent."),
        key("points", Number(0, i64::MAX), "Spendable points."),
        key("points_of", Map(&Anything), "Spendable points by class."),
        key("tier", Text, "The tier in effect."),
        key("ledger", Anything, "Reasons of postings in order."),
        key("blocked", Map(&Anything), "Steps that are held, and by what."),
        key("attributes", Map(&Anything), "Values of names."),
        key("entered", Number(0, i64::MAX), "How often a run began."),
        key("shadowed", Anything, "Steps of rules in shadow that would have acted."),
    ],
};

// --------------------------------------------------------------------------------------------------------------------- program

pub const PROGRAM: Shape = Shape {
    what: "`program`",
    keys: &[
        must("currency", Text, "Three capital letters: `GBP`."),
        key("jurisdiction", Of(&JURISDICTION), "Where what may be taken. Default: nothing anywhere."),
        key("points", Of(&PROGRAM_POINTS), "Classes of points, how they are earned, what a deduction may touch."),
        key("tiers", Of(&TIERS), "Levels, and what they are measured by."),
        key("benefits", Map(&Of(&BENEFIT)), "What people may have."),
        key("coupons", Map(&Of(&COUPON)), "Codes, what they are worth and what they may cost."),
        key("bundles", Map(&Of(&BUNDLE)), "Several things at once: all or nothing."),
        later("rates", "Rates between currencies."),
    ],
};

const PACK: Takes = Words(&["no-takes", "bonus-only", "strict-notice", "as-programmed"]);

pub const JURISDICTION: Shape = Shape {
    what: "`jurisdiction`",
    keys: &[
        key("by", Words(&["country"]), "By the person's country."),
        key("packs", Map(&PACK), "Country, or country and region, and its pack: `AT: no-takes`."),
        must("else", PACK, "Everywhere else."),
    ],
};

pub const PROGRAM_POINTS: Shape = Shape {
    what: "`points` of the program",
    keys: &[
        must("classes", Map(&Of(&CLASS)), "Classes of points."),
        key("earn", List(&Of(&EARN)), "What is earned by which event."),
        key("penalty", Of(&PENALTY), "What a `take` may touch."),
    ],
};

pub const CLASS: Shape =
    Shape { what: "a class of points", keys: &[must("expiry", Either(&[Words(&["never"]), Of(&EXPIRY)]), "When points of it expire.")] };

pub const EXPIRY: Shape = Shape {
    what: "`expiry`",
    keys: &[
        key("rolling", Duration, "So long after they were given: `24mo`."),
        key("inactivity", Duration, "So long after the last active event."),
        key("round", Words(&["month_end"]), "To the end of the month."),
        later("calendar", "On dates."),
    ],
};

pub const EARN: Shape = Shape {
    what: "an earn entry",
    keys: &[
        must("event", Name(Names::Event), "By which event."),
        key("rate", Text, "By the money of its `total`: `1 per 1 GBP`."),
        key("points", POSITIVE, "So many each time."),
        must("class", Name(Names::Class), "Of which class."),
        key("pending", Either(&[Duration, Of(&PENDING)]), "Not spendable until then."),
        key("limit", Of(&LIMIT), "At most so often."),
    ],
};

pub const PENDING: Shape = Shape { what: "`pending`", keys: &[must("until", Duration, "So long.")] };

pub const LIMIT: Shape =
    Shape { what: "`limit`", keys: &[must("max", POSITIVE, "So often."), must("window", Duration, "In so long a time.")] };

pub const PENALTY: Shape = Shape {
    what: "`penalty`",
    keys: &[
        must("classes", List(&Name(Names::Class)), "What a deduction may touch."),
        key("keep", Number(0, i64::MAX), "Never below that."),
        key("cap", Text, "Of what was there: `30% per 365d`."),
        key("grace", Duration, "So long between notice and deduction. Default: 7d."),
    ],
};

pub const TIERS: Shape = Shape {
    what: "`tiers`",
    keys: &[
        must("qualify", Of(&QUALIFY), "What is measured, and when it is reviewed."),
        must("levels", List(&Of(&LEVEL)), "Lowest first; the first begins at 0."),
        key("upgrade", Words(&["at_once"]), "Up at once."),
        key("downgrade", Of(&DOWNGRADE), "Down at the review, after notice and grace."),
    ],
};

pub const QUALIFY: Shape = Shape {
    what: "`qualify`",
    keys: &[
        must("metric", Name(Names::Feature), "A feature that is money or a count."),
        must("review", Words(&["anniversary", "month", "quarter", "year"]), "How often."),
    ],
};

pub const LEVEL: Shape = Shape {
    what: "a level",
    keys: &[
        must("id", Slug(1), "Its name."),
        must("from", Either(&[Money, Number(0, i64::MAX)]), "From where on."),
        key("benefits", List(&Name(Names::Benefit)), "What comes with it."),
    ],
};

pub const DOWNGRADE: Shape = Shape {
    what: "`downgrade`",
    keys: &[
        key("step", Words(&["one", "all"]), "How far down. Default: one."),
        key("grace", Duration, "So long after the review. Default: 30d."),
        key("notice", Duration, "`tier_at_risk` comes so long before the review. Default: 30d."),
    ],
};

pub const BENEFIT: Shape = Shape {
    what: "a benefit",
    keys: &[
        must("kind", Words(&["flag", "days", "percent"]), "What it is."),
        key("default", Either(&[Number(0, i32::MAX as i64), Percent]), "What everybody has."),
        key("merge", Words(&["max", "min", "sum"]), "Where several give it. Default: max."),
        key("hidden", Bool, "Not listed until granted."),
    ],
};

pub const COUPON: Shape = Shape {
    what: "a coupon",
    keys: &[
        must("value", Either(&[Percent, Money]), "What it is worth."),
        must("source", Words(&["generated", "shared", "pool"]), "Where codes come from (`pool` is not yet available)."),
        must("valid", Duration, "How long."),
        key("minimum", Either(&[Words(&["none"]), Money]), "What an order must reach; the shop keeps it."),
        key("budget", Text, "What codes may cost: `5000 GBP per month`."),
    ],
};

pub const BUNDLE: Shape = Shape {
    what: "a bundle",
    keys: &[
        key("coupon", Name(Names::Coupon), "A coupon of the program."),
        key("benefit", Name(Names::Benefit), "A benefit of the program."),
        key("tier_overlay", Of(&OVERLAY), "Lifts the tier for a while."),
        key("once_per", Duration, "At most once in so long a time."),
    ],
};

// ---------------------------------------------------------------------------------------------------------------------- policy

pub const POLICY: Shape = Shape {
    what: "`policy`",
    keys: &[
        key("time", Of(&TIME), "Whose clock, and what is late."),
        key("consent", Of(&CONSENT), "What must be on record before a send."),
        key("categories", Of(&CATEGORIES_OF), "What a send is by default, and how late each may be."),
        key("holdout", Of(&HOLDOUT), "The same people everywhere: never treated, always measured."),
        key("priority", Of(&PRIORITY), "Who asks first."),
        key("caps", List(&Of(&CAP)), "So much, and not more."),
        key("quiet_hours", List(&Of(&QUIET)), "Where several lines match, all must be open."),
        key("duplicates", Of(&DUPLICATES), "Not the same text twice."),
        key("on_block", Of(&ON_BLOCK), "What waits, and what is dropped."),
        key("inhibit", List(&Of(&INHIBIT)), "No such messages while something is so."),
        key("sources", Either(&[Words(&["none"]), Of(&SOURCES)]), "Silence of the source is not silence of the people."),
        key("notify", Map(&Of(&NOTIFY)), "Whom alerts may reach."),
        key("channels", Of(&CHANNELS_OF), "Who carries what."),
        key("calendars", Map(&Of(&CALENDAR)), "Days with names."),
        later("targets", "Systems that rules may tell or ask."),
    ],
};

pub const TIME: Shape = Shape {
    what: "`time`",
    keys: &[
        must("zone", Of(&ZONE), "Where people live, and what holds where nothing is known."),
        key("dst", Of(&DST), "When clocks change."),
        key("lateness", Of(&LATENESS), "How old an event may be."),
        key("week_start", Words(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), "Default: mon."),
    ],
};

pub const ZONE: Shape = Shape {
    what: "`zone`",
    keys: &[
        key("user_attribute", Text, "The attribute that names a person's zone."),
        key("else", Words(&["country", "last"]), "Where it is missing."),
        must("last", Zone, "Where nothing is known; also the shop's own."),
    ],
};

pub const DST: Shape = Shape {
    what: "`dst`",
    keys: &[
        key("gap", Words(&["shift_forward"]), "A time that does not exist."),
        key("overlap", Words(&["first"]), "A time that exists twice."),
    ],
};

pub const LATENESS: Shape = Shape {
    what: "`lateness`",
    keys: &[
        key("start", Duration, "An older event starts nothing. Default: 72h."),
        key("correct", Duration, "An older event undoes nothing but takes and lapses. Default: 7d."),
    ],
};

const BASIS: Takes = Either(&[Words(&["always"]), Of(&CONSENT_RULE)]);

pub const CONSENT: Shape = Shape {
    what: "`consent`",
    keys: &[
        must("marketing", BASIS, "Before a marketing message."),
        key("service", BASIS, "Before a service message."),
        key("transactional", BASIS, "Before the answer to what the person just did."),
    ],
};

pub const CONSENT_RULE: Shape = Shape {
    what: "a consent rule",
    keys: &[
        must("basis", Words(&["opt_in", "soft_opt_in"]), "What a yes must rest on."),
        key("countries", Map(&Words(&["opt_in", "soft_opt_in"])), "Otherwise there: `GB: soft_opt_in`."),
    ],
};

pub const CATEGORIES_OF: Shape = Shape {
    what: "`categories`",
    keys: &[
        must("default", CATEGORY, "What a send is unless it says otherwise."),
        key("marketing", Of(&CATEGORY_OF), "Default: 24h."),
        key("service", Of(&CATEGORY_OF), "Default: 72h."),
        key("transactional", Of(&CATEGORY_OF), "Default: 4d."),
    ],
};

pub const CATEGORY_OF: Shape = Shape { what: "a category", keys: &[key("max_late", MAX_LATE, "How late a message may still go out.")] };

pub const HOLDOUT: Shape = Shape {
    what: "`holdout`",
    keys: &[must("share", Percent, "How many."), must("salt", Text, "Decides who; another salt draws other people.")],
};

pub const PRIORITY: Shape = Shape {
    what: "`priority`",
    keys: &[
        key("default", Number(0, 100), "Of rules that say nothing. Default: 50."),
        key("one_marketing_send_per", Duration, "At most one marketing message in that time."),
    ],
};

pub const CAP: Shape = Shape {
    what: "a cap",
    keys: &[
        must("id", Slug(1), "Its name."),
        must("per", Words(&["user", "all", "key"]), "Counted for each person (`all` and `key` are not yet available)."),
        must("max", POSITIVE, "So many."),
        must("window", Either(&[Duration, Words(&["local_day", "local_week", "local_month"])]), "In so long a time."),
        key("channels", CHANNELS, "Only these. Default: all."),
        key("categories", CATEGORIES, "Only these. Default: all."),
        key("tags", List(&Text), "Only rules with such a tag. Default: all."),
        key("on_block", ANSWER, "Default: as in `on_block`."),
        later("min_gap", "Between two messages."),
        later("theme", "The same theme on no more than so many days running."),
    ],
};

pub const QUIET: Shape = Shape {
    what: "a line of quiet hours",
    keys: &[
        key("from", TimeOfDay, "From then on."),
        key("to", TimeOfDay, "Until then."),
        key("days", WEEKDAYS, "Only on these weekdays; without hours the whole day."),
        must("zone", Zone, "`user` is where each person lives."),
        key("countries", List(&Text), "Only there. Default: everywhere."),
        key("channels", CHANNELS, "Only these. Default: all."),
        key("categories", CATEGORIES, "Only these. Default: all."),
    ],
};

pub const DUPLICATES: Shape = Shape {
    what: "`duplicates`",
    keys: &[
        must("within", Duration, "So long it is the same to one person."),
        key("categories", CATEGORIES, "Default: marketing and service."),
    ],
};

pub const ON_BLOCK: Shape = Shape {
    what: "`on_block`",
    keys: &[
        key("quiet_hours", ANSWER, "Default: wait."),
        key("cap", ANSWER, "Default: wait."),
        key("priority", ANSWER, "Default: wait."),
        key("budget", ANSWER, "Default: wait."),
        key("inhibit", ANSWER, "Default: drop."),
    ],
};

pub const INHIBIT: Shape = Shape {
    what: "an inhibition",
    keys: &[
        must("when", Condition, "While this is true ..."),
        key("categories", CATEGORIES, "... no such messages. Default: all."),
        must("why", Text, "What `explain` says."),
    ],
};

pub const SOURCES: Shape = Shape { what: "`sources`", keys: &[key("quiet", Of(&QUIET_SOURCE), "When a source counts as quiet.")] };

pub const QUIET_SOURCE: Shape = Shape {
    what: "`quiet`",
    keys: &[
        key("below", Percent, "Of its own baseline. Default: 20%."),
        key("of", Words(&["same_weekday_hours_last_4_weeks"]), "The baseline."),
        key("for", Duration, "So long. Default: 6h."),
        key("min_baseline", POSITIVE, "Asked only where so many events are usual. Default: 20."),
        key("holds", List(&Words(&["absence", "penalty"])), "What waits meanwhile."),
    ],
};

pub const NOTIFY: Shape = Shape {
    what: "an address to notify",
    keys: &[
        key("email", Text, "An address, or `owner`."),
        key("webhook", Text, "A reference like `env:SLACK_URL`."),
        key("kind", Text, "What is behind the webhook."),
    ],
};

const CHANNEL: Takes = Of(&CHANNEL_OF);

pub const CHANNELS_OF: Shape = Shape {
    what: "`channels`",
    keys: &[
        key("email", CHANNEL, "E-mail."),
        key("push", CHANNEL, "Push messages to apps."),
        key("sms", CHANNEL, "Text messages."),
        key("whatsapp", CHANNEL, "WhatsApp."),
        key("inapp", CHANNEL, "Messages within the app."),
        key("webhook", CHANNEL, "A system of your own."),
    ],
};

pub const CHANNEL_OF: Shape = Shape {
    what: "a channel",
    keys: &[
        must("provider", Text, "A name of the administrator's file, or `recording`."),
        key("timeout", Duration, "For each answer."),
        key("retries", Number(0, 20), "After the first attempt."),
        key("rate", Text, "`200/s`, `2000/d`."),
        key("warm_up", Of(&WARM_UP), "More each day."),
        key("cost", Text, "Of a message: `0.012 USD`."),
        key("templates_only", Bool, "Only approved texts. Default: false."),
        key("sender", Of(&SENDER), "From whom e-mails are."),
    ],
};

pub const WARM_UP: Shape = Shape {
    what: "`warm_up`",
    keys: &[must("start", Text, "On the first day: `2000/d`."), must("grow", Percent, "How much more each day.")],
};

pub const SENDER: Shape = Shape {
    what: "`sender`",
    keys: &[
        must("from", Text, "`The shop <news@shop.example>`."),
        key("reply_to", Text, "Where answers go."),
        key("postal_address", Text, "Where the shop receives letters."),
        key("list_id", Text, "The name of the list: `news.shop.example`."),
    ],
};

pub const CALENDAR: Shape = Shape {
    what: "a calendar",
    keys: &[must("zone", Zone, "Whose days."), must("days", List(&Text), "Dates and ranges: `2026-11-06..2026-11-10`.")],
};

// ------------------------------------------------------------------------------------------------------------------- templates

pub const TEMPLATE_FILE: Shape = Shape {
    what: "a template's file",
    keys: &[must("rekindle", Words(&["1"]), "The version of the format."), must("template", Of(&TEMPLATE), "What the template is for.")],
};

pub const TEMPLATE: Shape = Shape {
    what: "a template",
    keys: &[
        must(
            "purpose",
            Words(&["marketing", "transactional", "penalty_notice", "tier_notice", "points_statement", "order", "account"]),
            "What it is for. What may go out as `service` is a closed list.",
        ),
        key("variables", Map(&Of(&VARIABLE)), "Names that a step's `data` fills."),
        key("samples", List(&Map(&Anything)), "Values with which `check` renders every translation."),
        key("states", Map(&Words(&["draft", "machine", "reviewed"])), "How far each translation has been looked at."),
    ],
};

pub const VARIABLE: Shape = Shape {
    what: "a variable",
    keys: &[
        must("type", Words(&["string", "int", "float", "bool", "date", "timestamp", "money"]), "Its type."),
        key("optional", Bool, "Whether it may be missing. Default: false."),
    ],
};

/// Every mapping that `check` reads key by key.
pub const READ_BY_CHECK: [&Shape; 64] = [
    &EVENT,
    &PROPERTY,
    &ATTRIBUTE,
    &TRAIT_CONSENT,
    &FEATURE,
    &SEGMENT,
    &RULE,
    &ACTIVE,
    &AT,
    &REENTRY,
    &STOP_ON,
    &STEP,
    &SEND_AT,
    &REQUIRE,
    &SEND,
    &RUNG,
    &OFFER,
    &POINTS,
    &TAKE,
    &RESTORE,
    &TIER,
    &OVERLAY,
    &GRANT,
    &ALERT,
    &PROGRAM,
    &JURISDICTION,
    &PROGRAM_POINTS,
    &CLASS,
    &EXPIRY,
    &EARN,
    &PENDING,
    &LIMIT,
    &PENALTY,
    &TIERS,
    &QUALIFY,
    &LEVEL,
    &DOWNGRADE,
    &BENEFIT,
    &COUPON,
    &BUNDLE,
    &POLICY,
    &TIME,
    &ZONE,
    &DST,
    &LATENESS,
    &CONSENT,
    &CONSENT_RULE,
    &CATEGORIES_OF,
    &CATEGORY_OF,
    &HOLDOUT,
    &PRIORITY,
    &CAP,
    &QUIET,
    &DUPLICATES,
    &ON_BLOCK,
    &INHIBIT,
    &SOURCES,
    &QUIET_SOURCE,
    &NOTIFY,
    &CHANNELS_OF,
    &CHANNEL_OF,
    &WARM_UP,
    &SENDER,
    &CALENDAR,
];

/// The mapping that findings call so.
pub fn shape(what: &str) -> Option<&'static Shape> {
    READ_BY_CHECK.into_iter().find(|shape| shape.what == what)
}

impl Shape {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}
