//! Names and functions: what each word of a condition is read from, in what type.

use std::sync::Arc;

use super::eval::{Computed, Items, Number, Real, Test, Text, WEEKDAYS};
use super::syntax::{Form, Syntax};
use super::types::{Checker, Typed};
use super::{ExprError, ValueType};
use crate::engine::action::Channel;
use crate::engine::features::{self, AttributeSlot, BuiltIn, EventSlot, FeatureSlot, Kind, Moment, Read, Source};
use crate::engine::profile::{Category, Name, RunOutcome};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::{AggregateFunction, AttributeType, FeatureKind, FeatureType, PropertyType};
use crate::engine::time::{DAY_MS, HOUR_MS, Span, Timestamp};

/// The closed list of words as a type.
pub(super) fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Arc<[Arc<str>]> {
    words.into_iter().map(Arc::from).collect()
}

impl Checker<'_> {
    /// A bare name.
    pub(super) fn name(&mut self, name: &Name, node: &Syntax) -> Option<Typed> {
        if let Some(built_in) = features::built_in(name) {
            return self.built_in(built_in, node);
        }
        let dictionary = self.scope.names.dictionary;
        if let Some(attribute) = dictionary.attributes.iter().find(|attribute| attribute.name == *name) {
            return Some(self.attribute(attribute));
        }
        if let Some(feature) = dictionary.features.iter().find(|feature| feature.name == *name) {
            return Some(self.feature(feature));
        }
        if let Some(segment) = dictionary.segments.iter().find(|segment| segment.name == *name) {
            self.reads.segments.insert(name.clone());
            self.reads.extend(&segment.condition.reads);
            self.absence = self.absence.or(segment.condition.absence);
            return Some(Typed::of(Computed::Test(segment.condition.test.clone())));
        }
        self.unknown_name(name, node);
        None
    }

    fn unknown_name(&mut self, name: &str, node: &Syntax) {
        if let Some(function) = features::FUNCTIONS.iter().find(|function| function.name == name) {
            let error = ExprError::new("RK0203", node.at, node.len(), format!("`{name}` is a function"));
            return self.errors.push(error.help(format!("write `{}`", function.form)));
        }
        if name == "now" {
            let error = ExprError::new("RK0203", node.at, node.len(), "there is no `now` in conditions".to_owned());
            return self.errors.push(
                error.help("`days_since(x)`, `local_hour`, `local_weekday`, `local_date` and `in_calendar(\"x\")` ask for the time"),
            );
        }
        let dictionary = self.scope.names.dictionary;
        let declared = dictionary.attributes.iter().map(|a| &*a.name).chain(dictionary.features.iter().map(|f| &*f.name));
        let segments = dictionary.segments.iter().map(|s| &*s.name);
        let mut known: Vec<&str> = features::built_in_names().collect();
        known.extend(declared.chain(segments));
        let suggestion = nearest(name, known).map(|near| match self.describe(near) {
            Some(doc) => format!("did you mean `{near}`? ({doc})"),
            None => format!("did you mean `{near}`?"),
        });
        let (code, message) = if self.is_flag_position {
            ("RK0201", format!("unknown segment or flag `{name}`"))
        } else {
            ("RK0203", format!("unknown name `{name}`: no feature, attribute or segment"))
        };
        let mut error = ExprError::new(code, node.at, node.len(), message);
        error.help = match name {
            // the day as the person has it; other instants are compared by how long ago they are
            "today" | "now" => Some("today's date is `local_date`; how long ago something was is `days_since(x)`".to_owned()),
            _ if self.is_flag_position => suggestion,
            _ => suggestion.or_else(|| Some(format!("if it is meant as a text, it stands in quotes: `\"{name}\"`"))),
        };
        self.errors.push(error);
    }

    /// What a name means and where it is declared, for suggestions.
    fn describe(&self, name: &str) -> Option<String> {
        if let Some(built_in) = features::built_in(name) {
            return Some(built_in.doc.to_owned());
        }
        let dictionary = self.scope.names.dictionary;
        let place = dictionary.features.iter().find(|f| &*f.name == name).map(|f| &f.declared_at);
        let place = place.or_else(|| dictionary.attributes.iter().find(|a| &*a.name == name).map(|a| &a.declared_at));
        let place = place.or_else(|| dictionary.segments.iter().find(|s| &*s.name == name).map(|s| &s.declared_at))?;
        (place.line > 0).then(|| format!("{}:{}", place.file, place.line))
    }

    fn built_in(&mut self, built_in: &'static BuiltIn, node: &Syntax) -> Option<Typed> {
        self.reads.names.insert(Name::from(built_in.name));
        let typed = match &built_in.read {
            Read::Later => {
                let message = format!("`{}` ({}) is not yet available", built_in.name, built_in.doc);
                self.errors.push(ExprError::new("RK0203", node.at, node.len(), message));
                return None;
            }
            Read::Number(source) => self.number(source.clone(), built_in.kind),
            Read::IsNew => {
                self.reads.clock = true;
                let age = Number::Source(Source::Age(Moment::FirstSeen, DAY_MS));
                Typed::of(Computed::Test(Test::Not(Box::new(Test::AtLeast(age, 30)))))
            }
            Read::Country => Typed::text(Text::Country, None),
            Read::Locale => Typed::text(Text::Locale, None),
            Read::Zone => Typed::text(Text::Zone, None),
            Read::Jurisdiction => Typed::text(Text::Jurisdiction, None),
            Read::Weekday => {
                self.reads.clock = true;
                Typed::text(Text::Weekday, Some(words(WEEKDAYS)))
            }
            Read::Tier => self.tier(Text::Tier, node)?,
            Read::BaseTier => self.tier(Text::BaseTier, node)?,
            Read::TierGap(to_keep) => self.tier_gap(*to_keep, node)?,
        };
        if matches!(built_in.name, "days_silent" | "silent_for" | "days_since_order") {
            self.absence = super::Absence { plain: true, negated: true };
        }
        // an age is known as long as the instant that it counts from
        let key = if built_in.name == "days_since_order" { "last_order_at" } else { built_in.name };
        Some(if built_in.optional { typed.optional(key) } else { typed })
    }

    fn number(&mut self, source: Source, kind: Kind) -> Typed {
        self.reads.clock |= moves_by_clock(&source);
        let is_count = counts(&source);
        let value_type = match kind {
            Kind::Bool => ValueType::Bool,
            Kind::Money => ValueType::Money,
            Kind::Instant => ValueType::Instant,
            Kind::Duration => ValueType::Duration,
            Kind::Date => ValueType::Date,
            _ => ValueType::Int,
        };
        let is_continuous = matches!(source, Source::Age(_, 1));
        let number = Number::Source(source);
        let computed = if kind == Kind::Bool { Computed::Test(Test::Holds(number)) } else { Computed::Number(number, value_type) };
        Typed { unit_ms: kind.unit_ms(), is_count, is_continuous, ..Typed::of(computed) }
    }

    fn tier(&mut self, text: Text, node: &Syntax) -> Option<Typed> {
        let Some(tiers) = self.scope.names.program.and_then(|program| program.tiers.as_ref()) else {
            self.no_tiers(node);
            return None;
        };
        self.reads.clock |= matches!(text, Text::Tier);
        Some(Typed::text(text, Some(words(tiers.levels.iter().map(|level| &*level.id)))))
    }

    fn tier_gap(&mut self, to_keep: bool, node: &Syntax) -> Option<Typed> {
        let names = self.scope.names;
        let Some(tiers) = names.program.and_then(|program| program.tiers.as_ref()) else {
            self.no_tiers(node);
            return None;
        };
        let source = if to_keep {
            Source::TierKeepGap
        } else {
            // an unknown metric is an error of the program, not of this text
            Source::TierGap(Box::new(features::metric_source(names, &tiers.metric)?))
        };
        self.reads.clock |= !to_keep;
        let value_type = if features::metric_is_money(names, &tiers.metric) { ValueType::Money } else { ValueType::Int };
        Some(Typed::of(Computed::Number(Number::Source(source), value_type)))
    }

    fn no_tiers(&mut self, node: &Syntax) {
        let error = ExprError::new("RK0203", node.at, node.len(), format!("`{}`: the program has no tiers", node.written(self.text)));
        self.errors.push(error.help("declare `program.tiers` with its levels"));
    }

    fn attribute(&mut self, attribute: &AttributeType) -> Typed {
        self.reads.names.insert(attribute.name.clone());
        self.reads.clock |= attribute.max_age_ms.is_some();
        let slot =
            Arc::new(AttributeSlot { name: attribute.name.clone(), default: attribute.default.clone(), max_age_ms: attribute.max_age_ms });
        let typed = match &attribute.value_type {
            ValueType::Text => Typed::text(Text::Attribute(slot), None),
            ValueType::Enum(words) => Typed::text(Text::Attribute(slot), Some(words.clone())),
            ValueType::Float => Typed::of(Computed::Real(Real::Attribute(slot))),
            ValueType::List => Typed::of(Computed::Items(Items::Attribute(slot))),
            ValueType::Bool => Typed::of(Computed::Test(Test::Holds(Number::Source(Source::Attribute(slot))))),
            other => Typed::of(Computed::Number(Number::Source(Source::Attribute(slot)), other.clone())),
        };
        if attribute.default.is_none() { typed.optional(&attribute.name) } else { typed }
    }

    fn feature(&mut self, feature: &FeatureType) -> Typed {
        self.reads.features.insert(feature.name.clone());
        let aggregate = match &feature.kind {
            FeatureKind::Expr(expr) => {
                self.reads.extend(&expr.reads);
                self.absence = self.absence.or(expr.absence);
                let typed = Typed::of(expr.computed.clone());
                return if expr.optional { typed.optional(&feature.name) } else { typed };
            }
            FeatureKind::Aggregate(aggregate) => aggregate,
        };
        self.reads.clock |= aggregate.window_ms.is_some();
        let slot = FeatureSlot {
            name: feature.name.clone(),
            function: aggregate.function,
            value_type: aggregate.value_type.clone(),
            window_ms: aggregate.window_ms,
        };
        let slot = Arc::new(slot);
        let counts = matches!(slot.function, AggregateFunction::Count | AggregateFunction::Distinct);
        let typed = match &aggregate.value_type {
            _ if counts => Typed::of(Computed::Number(Number::Source(Source::Feature(slot)), ValueType::Int)),
            ValueType::Float => Typed::of(Computed::Real(Real::Feature(slot))),
            ValueType::Text | ValueType::Enum(_) | ValueType::List => {
                let words = if let ValueType::Enum(words) = &aggregate.value_type { Some(words.clone()) } else { None };
                Typed::text(Text::Feature(slot), words)
            }
            ValueType::Bool => Typed::of(Computed::Test(Test::Holds(Number::Source(Source::Feature(slot))))),
            other => Typed::of(Computed::Number(Number::Source(Source::Feature(slot)), other.clone())),
        };
        let adds_up = counts || aggregate.function == AggregateFunction::Sum;
        let typed = Typed { is_count: adds_up, ..typed };
        if adds_up { typed } else { typed.optional(&feature.name) }
    }

    /// `event.x`, `run.x`.
    pub(super) fn property(&mut self, base: &str, name: &Name, node: &Syntax) -> Option<Typed> {
        match base {
            "event" => self.event_property(name, node),
            "run" => self.run_property(name, node),
            "saved" | "input" => {
                self.errors.push(ExprError::new("RK0203", node.at, node.len(), format!("`{base}.{name}` is not yet available")));
                None
            }
            _ => {
                let error = ExprError::new("RK0203", node.at, node.len(), format!("`{base}` has no properties"));
                self.errors.push(error.help("only `event.x` and `run.x` have a point; a person's attributes stand by themselves"));
                None
            }
        }
    }

    fn event_property(&mut self, name: &Name, node: &Syntax) -> Option<Typed> {
        let Some(event) = self.scope.event else {
            let error =
                ExprError::new("RK0202", node.at, node.len(), format!("there is no event here that `event.{name}` could be read from"));
            self.errors
                .push(error.help("`event.x` stands in `where`, `key`, in steps of a rule with `event`, and in `where` of a feature"));
            return None;
        };
        let Some(property) = event.properties.get(name) else {
            let known: Vec<&str> = event.properties.keys().map(|key| &**key).collect();
            let message = format!("event `{}` has no property `{name}`", event.name);
            let help = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `event.{near}`?"),
                None if known.is_empty() => format!("declare it under `events: {}: properties`", event.name),
                None => format!("declared are {} ({}:{})", known.join(", "), event.declared_at.file, event.declared_at.line),
            };
            self.errors.push(ExprError::new("RK0202", node.at, node.len(), message).help(help));
            return None;
        };
        self.reads.event.insert(name.clone());
        Some(event_value(name, property))
    }

    fn run_property(&mut self, name: &str, node: &Syntax) -> Option<Typed> {
        if self.scope.steps.is_empty() {
            let error = ExprError::new("RK0203", node.at, node.len(), format!("there is no run here that `run.{name}` could be read from"));
            self.errors.push(error.help("`run.x` stands in the steps of a rule"));
            return None;
        }
        match name {
            "outcome" => Some(
                Typed::text(Text::RunOutcome, Some(words(RunOutcome::ALL.map(RunOutcome::name)))).optional("run.outcome").known_in_run(),
            ),
            "number" => Some(Typed::of(Computed::Number(Number::Source(Source::RunNumber), ValueType::Int))),
            "started_at" => Some(Typed::of(Computed::Number(Number::Source(Source::Moment(Moment::RunStart)), ValueType::Instant))),
            _ => {
                let error = ExprError::new("RK0203", node.at, node.len(), format!("a run has no `{name}`"));
                self.errors.push(error.help("a run has `run.outcome` (in `on_exit`), `run.number`, `run.started_at`"));
                None
            }
        }
    }

    // -------------------------------------------------------------------------------------------------------------- functions

    pub(super) fn call(&mut self, name: &Name, args: &[Syntax], node: &Syntax) -> Option<Typed> {
        let Some(function) = features::FUNCTIONS.iter().find(|function| function.name == &**name) else {
            let mut error = ExprError::new("RK0203", node.at, name.chars().count(), format!("unknown function `{name}`"));
            error.help = match nearest(name, features::FUNCTIONS.iter().map(|function| function.name)) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if features::built_in(name).is_some() => Some(format!("`{name}` stands without brackets")),
                None => None,
            };
            self.errors.push(error);
            return None;
        };
        if !function.available {
            let message = format!("`{name}` ({}) is not yet available", function.doc);
            self.errors.push(ExprError::new("RK0203", node.at, node.len(), message));
            return None;
        }
        let arity = match &**name {
            "consent" => 2..=2,
            "min" | "max" => 2..=8,
            _ => 1..=1,
        };
        if !arity.contains(&args.len()) {
            let message = format!(
                "`{name}` takes {} values, {} stand here",
                if *arity.end() > 2 {
                    "two or more"
                } else if *arity.end() == 2 {
                    "two"
                } else {
                    "one"
                },
                args.len()
            );
            self.errors.push(ExprError::new("RK0203", node.at, node.len(), message).help(format!("write `{}`", function.form)));
            return None;
        }
        let first = args.first()?;
        match &**name {
            "has" => self.has(first),
            "days_since" => self.since(first, Some(DAY_MS)),
            "hours_since" => self.since(first, Some(HOUR_MS)),
            "local_days_since" => self.since(first, None),
            "min" | "max" => self.extreme(&**name == "max", args, node),
            "round" => self.round(first),
            "lower" => self.lower(first),
            "len" => self.len(first),
            _ => self.lookup(name, args, node),
        }
    }

    /// Functions of a name in quotes.
    fn lookup(&mut self, name: &Name, args: &[Syntax], node: &Syntax) -> Option<Typed> {
        let key = self.constant_text(args.first()?, name)?;
        let at = args.first()?;
        self.reads.names.insert(name.clone());
        match &**name {
            "in_calendar" => self.in_calendar(&key, at),
            "consent" => {
                let channel_node = args.get(1)?;
                let channel_name = self.constant_text(channel_node, name)?;
                let purposes = Category::ALL.map(Category::name);
                self.one_of(&key, &purposes, "purpose", "RK0203", at)?;
                let channel = self.channel(&channel_name, channel_node)?;
                Some(self.number(Source::Consent(key, channel), Kind::Bool))
            }
            "reachable" => {
                let channel = self.channel(&key, at)?;
                Some(self.number(Source::Reachable(Some(channel)), Kind::Bool))
            }
            "running" => {
                let rules: Vec<&str> = self.scope.rules.iter().map(|rule| &**rule).collect();
                self.one_of(&key, &rules, "rule", "RK0203", at)?;
                self.reads.rules.insert(key.clone());
                Some(self.number(Source::Running(key), Kind::Bool))
            }
            "done" => {
                let steps: Vec<&str> = self.scope.steps.iter().map(|step| &**step).collect();
                let index = self.one_of(&key, &steps, "step", "RK0114", at)?;
                // further rungs of a ladder follow it as `ID.2`, `ID.3`
                let is_rung = |step: &&&str| step.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.'));
                let rungs = steps.iter().skip(index + 1).take_while(is_rung).count();
                Some(self.number(Source::Done(index..index + 1 + rungs), Kind::Bool))
            }
            "points_of" => {
                let classes: Vec<&str> =
                    self.scope.names.program.map_or(Vec::new(), |program| program.classes.keys().map(|c| &**c).collect());
                self.one_of(&key, &classes, "class of points", "RK0225", at)?;
                Some(self.number(Source::Points(Some(key)), Kind::Int))
            }
            "points_expiring" => {
                let Ok(span) = key.parse::<Span>() else {
                    let error = ExprError::new("RK0204", at.at, at.len(), format!("`{key}` is no duration"));
                    self.errors.push(error.help("write `points_expiring(\"14d\")`"));
                    return None;
                };
                Some(self.number(Source::PointsExpiring(span.exact_ms()), Kind::Int))
            }
            "entitled" => {
                let benefits: Vec<&str> =
                    self.scope.names.program.map_or(Vec::new(), |program| program.benefits.keys().map(|b| &**b).collect());
                self.one_of(&key, &benefits, "benefit", "RK0241", at)?;
                Some(self.number(Source::Entitled(key), Kind::Bool))
            }
            "sends_7d" => {
                let channel = self.channel(&key, at)?;
                let sends = self.number(Source::Sends(channel, 7 * DAY_MS), Kind::Int);
                Some(Typed { is_count: false, ..sends })
            }
            "last_sent_at" => {
                let channel = self.channel(&key, at)?;
                let sent = self.number(Source::Moment(Moment::LastSent(channel)), Kind::Instant);
                Some(sent.optional(&node.canonical()))
            }
            _ => None,
        }
    }

    fn constant_text(&mut self, node: &Syntax, function: &str) -> Option<Name> {
        match &node.form {
            Form::Text(text) => return Some(text.clone()),
            Form::Span(span) if function == "points_expiring" => return Some(Name::from(span.to_string())),
            _ => {}
        }
        let written = node.written(self.text);
        let error = ExprError::new("RK0204", node.at, node.len(), format!("`{function}` wants a name in quotes"));
        self.errors.push(error.help(format!("write `{function}(\"{written}\")`")));
        None
    }

    fn one_of(&mut self, name: &str, known: &[&str], what: &str, code: &'static str, node: &Syntax) -> Option<usize> {
        if let Some(index) = known.iter().position(|known| *known == name) {
            return Some(index);
        }
        let mut error = ExprError::new(code, node.at, node.len(), format!("there is no {what} `{name}`"));
        error.help = match nearest(name, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `\"{near}\"`?")),
            None if known.is_empty() => None,
            None => Some(format!("there are {}", known.join(", "))),
        };
        self.errors.push(error);
        None
    }

    fn channel(&mut self, name: &str, node: &Syntax) -> Option<Channel> {
        let names = Channel::ALL.map(Channel::name);
        self.one_of(name, &names, "channel", "RK0203", node).and_then(|index| Channel::ALL.get(index).copied())
    }

    fn in_calendar(&mut self, name: &Name, node: &Syntax) -> Option<Typed> {
        let policy = self.scope.names.policy;
        let known: Vec<&str> = policy.calendars.keys().map(|calendar| &**calendar).collect();
        self.one_of(name, &known, "calendar", "RK0203", node)?;
        self.reads.calendars.insert(name.clone());
        self.reads.clock = true;
        let calendar = policy.calendars.get(name)?;
        let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (from, to) in &calendar.ranges {
            let until = to.tomorrow().map_or(Timestamp::FOREVER, |next| calendar.zone.start_of_day(next));
            let from = calendar.zone.start_of_day(*from);
            match spans.last_mut().filter(|last| last.1 >= from) {
                Some(last) => last.1 = last.1.max(until),
                None => spans.push((from, until)),
            }
        }
        Some(Typed::of(Computed::Test(Test::InSpans(spans.into()))))
    }

    fn has(&mut self, argument: &Syntax) -> Option<Typed> {
        let typed = self.typed(argument)?;
        self.remember(argument, &typed);
        let inner = match typed.computed {
            // an age is known as long as the instant that it counts from
            Computed::Number(Number::Source(Source::Age(moment, _)), _) => {
                Computed::Number(Number::Source(Source::Moment(moment)), ValueType::Instant)
            }
            Computed::Number(Number::Age(since, _) | Number::LocalDays(since), _) => Computed::Number(*since, ValueType::Instant),
            other => other,
        };
        Some(Typed::of(Computed::Test(Test::Known(Box::new(inner)))))
    }

    /// Time since an instant: exact units, or (none) calendar days.
    fn since(&mut self, argument: &Syntax, unit_ms: Option<i64>) -> Option<Typed> {
        let typed = self.typed(argument)?;
        self.remember(argument, &typed);
        let (Computed::Number(since, ValueType::Instant), optional) = (typed.computed, typed.optional) else {
            let error = ExprError::new("RK0204", argument.at, argument.len(), format!("`{}` is no instant", argument.written(self.text)));
            self.errors.push(error.help("an instant is `last_order_at`, `tier_since`, an attribute of type timestamp ..."));
            return None;
        };
        self.reads.clock = true;
        if matches!(
            since,
            Number::Source(Source::Moment(Moment::LastActive | Moment::LastOrder | Moment::SilentSince) | Source::Feature(_))
        ) {
            self.absence = super::Absence { plain: true, negated: true };
        }
        let number = match (since, unit_ms) {
            (Number::Source(Source::Moment(moment)), Some(unit_ms)) => Number::Source(Source::Age(moment, unit_ms)),
            (since, Some(unit_ms)) => Number::Age(Box::new(since), unit_ms),
            (since, None) => Number::LocalDays(Box::new(since)),
        };
        let typed = Typed::of(Computed::Number(number, ValueType::Int));
        Some(Typed { unit_ms: Some(unit_ms.unwrap_or(DAY_MS)), optional, ..typed })
    }

    fn round(&mut self, argument: &Syntax) -> Option<Typed> {
        let typed = self.typed(argument)?;
        let optional = typed.optional.clone();
        let computed = match typed.computed {
            Computed::Real(real) => Computed::Number(Number::Round(Box::new(real)), ValueType::Int),
            whole @ Computed::Number(_, ValueType::Int) => whole,
            other => return self.wrong_argument(argument, &other, "a number"),
        };
        Some(Typed { optional, ..Typed::of(computed) })
    }

    fn lower(&mut self, argument: &Syntax) -> Option<Typed> {
        let typed = self.typed(argument)?;
        let optional = typed.optional.clone();
        match typed.computed {
            Computed::Text(text, _) => Some(Typed { optional, ..Typed::text(Text::Lower(Box::new(text)), None) }),
            other => self.wrong_argument(argument, &other, "a text"),
        }
    }

    fn len(&mut self, argument: &Syntax) -> Option<Typed> {
        let typed = self.typed(argument)?;
        let optional = typed.optional.clone();
        let number = match typed.computed {
            Computed::Text(text, _) => Number::TextLength(Box::new(text)),
            Computed::Items(items) => Number::ListLength(items),
            other => return self.wrong_argument(argument, &other, "a text or a list"),
        };
        Some(Typed { optional, ..Typed::of(Computed::Number(number, ValueType::Int)) })
    }

    fn wrong_argument(&mut self, argument: &Syntax, computed: &Computed, wanted: &str) -> Option<Typed> {
        let message = format!("`{}` is {}, {wanted} is wanted", argument.written(self.text), super::types::kind_of(computed));
        self.errors.push(ExprError::new("RK0204", argument.at, argument.len(), message));
        None
    }
}

fn event_value(name: &Name, property: &PropertyType) -> Typed {
    let slot = Arc::new(EventSlot { name: name.clone(), value_type: property.value_type.clone() });
    let typed = match &property.value_type {
        ValueType::Text => Typed::text(Text::Event(slot), None),
        ValueType::Enum(words) => Typed::text(Text::Event(slot), Some(words.clone())),
        ValueType::Float => Typed::of(Computed::Real(Real::Event(slot))),
        ValueType::List => Typed::of(Computed::Items(Items::Event(slot))),
        ValueType::Bool => Typed::of(Computed::Test(Test::Holds(Number::Source(Source::Event(slot))))),
        other => Typed::of(Computed::Number(Number::Source(Source::Event(slot)), other.clone())),
    };
    if property.required { typed } else { typed.optional(&format!("event.{name}")) }
}

/// Whether the value may change without a fact.
fn moves_by_clock(source: &Source) -> bool {
    match source {
        Source::Moment(moment) => matches!(moment, Moment::NextExpiry | Moment::TierUntil),
        Source::Orders(window) | Source::Spend(window) => window.is_some(),
        Source::Feature(slot) => slot.window_ms.is_some(),
        Source::Attribute(slot) => slot.max_age_ms.is_some(),
        Source::Event(_) | Source::InHoldout => false,
        Source::TicketsOpen | Source::DisputeOpen | Source::TierKeepGap => false,
        Source::Running(_) | Source::Done(_) | Source::RunNumber => false,
        _ => true,
    }
}

/// Counts and sums of what people do: small values of them rest on absence.
fn counts(source: &Source) -> bool {
    matches!(source, Source::Orders(_) | Source::Spend(_) | Source::ActiveDays(_) | Source::Sessions(_) | Source::Feature(_))
}
