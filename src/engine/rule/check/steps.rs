//! Steps and their actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::condition::Compiler;
use super::derive;
use super::ladder;
use super::policy::max_late;
use super::program::{RESTORE_WITHIN_MS, overlay};
use super::read::{Fields, time_meant, unknown};
use super::rules::time_window;
use super::templates;
use crate::engine::action::Channel;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::expr::{Expr, ValueType};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{Entry, Node};
use crate::engine::rule::{
    Action, CouponSource, Grant, MaxLate, Offer, Pack, Program, Require, Required, Send, SendAt, Step, TakeAction, TakeAmount,
    TemplateCatalog, TierAction,
};
use crate::engine::time::Span;

/// The keys of which a step has exactly one.
const ACTIONS: [&str; 9] = ["send", "points", "take", "tier", "grant", "set", "webhook", "call", "alert"];
/// Actions that the language has and this version does not carry out.
const ACTIONS_NOT_YET: [&str; 2] = ["webhook", "call"];

pub struct StepReader<'c> {
    pub compiler: Compiler<'c>,
    pub templates: &'c TemplateCatalog,
}

/// The ids of the steps before, with what each is; a ladder's further rungs stand here too.
#[derive(Default)]
struct Before<'n> {
    steps: Vec<(&'n str, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Send,
    Ladder,
    Other,
}

impl Kind {
    fn of(node: &Node) -> Kind {
        match node.get("send") {
            Some(send) if send.get("ladder").is_some() => Kind::Ladder,
            Some(_) => Kind::Send,
            None => Kind::Other,
        }
    }
}

impl<'n> Before<'n> {
    fn position(&self, id: &str) -> Option<(usize, Kind)> {
        let index = self.steps.iter().position(|(other, _)| *other == id)?;
        self.steps.get(index).map(|(_, kind)| (index, *kind))
    }

    fn push(&mut self, node: &'n Node) {
        let id = node.get("id").and_then(Node::text).unwrap_or_default();
        self.steps.push((id, Kind::of(node)));
        self.steps.extend((1..ladder::rungs(node)).map(|_| ("", Kind::Ladder)));
    }
}

/// A step as it was read: what several rungs share stands once.
struct Read {
    step: Step,
    rungs: Vec<ladder::Written>,
}

impl StepReader<'_> {
    /// `steps` and `on_exit`; ids are unique over both.
    pub fn all(&self, steps: Option<&Node>, on_exit: Option<&Node>) -> (Vec<Step>, Vec<Step>) {
        let findings = self.compiler.findings;
        let listed = |node: Option<&Node>| -> Vec<Node> {
            node.map(|node| findings.list(node, "[{ id: tell, send: { ... } }]").to_vec()).unwrap_or_default()
        };
        let (step_nodes, exit_nodes) = (listed(steps), listed(on_exit));
        if let Some(node) = steps
            && node.items().is_some_and(<[Node]>::is_empty)
        {
            findings.wrong(node, "a rule without steps does nothing", None);
        }
        self.check_ids(step_nodes.iter().chain(&exit_nodes));
        let named = |node: &Node| -> Option<Vec<Name>> {
            let id = node.get("id")?.text()?;
            Some((1..=ladder::rungs(node)).map(|number| ladder::id(id, number)).collect())
        };
        let names: Vec<Name> = step_nodes.iter().chain(&exit_nodes).filter_map(named).flatten().collect();
        let reader = StepReader { compiler: Compiler { steps: &names, ..self.compiler }, templates: self.templates };
        let mut before = Before::default();
        let mut latest = Span::ZERO;
        let mut read = Vec::new();
        for node in &step_nodes {
            let step = reader.step(node, &before, false);
            if let Some(Read { step, .. }) = &step {
                if step.after.exact_ms() < latest.exact_ms() {
                    let at = node.get("after").unwrap_or(node);
                    let message = format!("`{}` comes after {} here, the step before it after {latest}", step.id, step.after);
                    let help = "`after` counts from the start of the run; steps stand in the order of their times".to_owned();
                    findings.error("RK0306", at, message, help);
                }
                latest = step.after;
            }
            before.push(node);
            read.push(step);
        }
        self.check_notices(&step_nodes);
        let exits = exit_nodes.iter().filter_map(|node| reader.step(node, &before, true)).map(|read| read.step).collect();
        let is_whole = read.iter().all(Option::is_some);
        let mut steps = Vec::new();
        for Read { step, rungs } in read.into_iter().flatten() {
            ladder::expand(step, rungs, &mut steps);
        }
        if is_whole {
            derive::link(&mut steps);
        }
        (steps, exits)
    }

    fn check_ids<'n>(&self, nodes: impl Iterator<Item = &'n Node>) {
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for id in nodes.filter_map(|node| node.get("id")) {
            let Some(text) = id.text() else { continue };
            match seen.get(text) {
                Some(line) => {
                    let message = format!("there is a step `{text}` already (line {line})");
                    self.compiler.findings.error("RK0113", id, message, "give this one another id".to_owned());
                }
                None => drop(seen.insert(text, id.place.line)),
            }
        }
    }

    /// Each `take` has a notice of its own (I10), and a template that prints one is sent by a step that is one.
    fn check_notices(&self, nodes: &[Node]) {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for node in nodes {
            let Some(notice) = node.get("take").and_then(|take| take.get("notice")) else { continue };
            let (Some(text), id) = (notice.text(), node.get("id").and_then(Node::text).unwrap_or_default()) else { continue };
            if let Some(other) = taken.insert(text, id) {
                let message = format!("`{text}` announces `{other}` already; each `take` has a notice of its own");
                let help = "write a step that sends another notice, and name it here".to_owned();
                self.compiler.findings.error("RK0404", notice, message, help);
            }
        }
        for node in nodes {
            let Some(template) = node.get("send").and_then(|send| send.get("template")) else { continue };
            let prints_notice = template.text().and_then(|name| self.templates.get(name)).is_some_and(|info| info.has_notice);
            if prints_notice && !node.get("id").and_then(Node::text).is_some_and(|id| taken.contains_key(id)) {
                let message = format!("template `{}` prints `notice`, and no take names this step", template.text().unwrap_or_default());
                let help = "name it in a later `take: { notice: ... }`, or send another template".to_owned();
                self.compiler.findings.error("RK0404", template, message, help);
            }
        }
    }

    fn step(&self, node: &Node, before: &Before<'_>, is_exit: bool) -> Option<Read> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "a step", findings)?;
        let id_node = fields.required("id", "RK0102", "`id: tell`");
        let id = id_node.and_then(|node| findings.slug(node, 1));
        let after = match fields.get("after") {
            Some(node) if is_exit => {
                findings.wrong(node, "steps of `on_exit` have no `after`: they follow at once", "remove it".to_owned());
                None
            }
            Some(node) => findings.span(node),
            None => Some(Span::ZERO),
        };
        let send_at = fields.get("send_at").map(|node| self.send_at(node));
        let condition = fields.get("if").map(|node| self.compiler.condition(node));
        fields.not_yet("arms");
        let require = fields.get("require").map(|node| self.require(node, before));
        let max_late = fields.get("max_late").map(|node| max_late(node, findings));
        let action = self.action(&mut fields, before, is_exit);
        fields.finish();
        let (action, own_max_late, rungs) = action?;
        let step = Step {
            id: id?,
            place: id_node.map_or_else(|| node.place.clone(), |node| node.place.clone()),
            after: after?,
            send_at: flat(send_at)?,
            condition: flat(condition)?.map(Arc::new),
            require: flat(require)?,
            max_late: own_max_late.or(flat(max_late)?),
            action,
            wakes_on: 0,
            notice_of: None,
            rung: None,
        };
        Some(Read { step, rungs })
    }

    fn send_at(&self, node: &Node) -> Option<SendAt> {
        let findings = self.compiler.findings;
        let (window, days) = match node.entries() {
            None => (node, Vec::new()),
            Some(_) => {
                let mut fields = Fields::of(node, "`send_at`", findings)?;
                let window = fields.required("between", "RK0302", "`between: \"09:30-11:30\"`");
                let days = fields.get("days").map(|node| findings.weekdays(node)).unwrap_or_default();
                fields.finish();
                (window?, days)
            }
        };
        let text = findings.text(window, "a time like \"10:00\" or \"09:30-11:30\"")?;
        let Some((from, to)) = time_window(text) else {
            let meant = match text.split_once('-') {
                Some((from, to)) => time_meant(from).zip(time_meant(to)).map(|(from, to)| format!("{from}-{to}")),
                None => time_meant(text),
            };
            let help = meant.map(|meant| format!("write \"{meant}\""));
            let help = help.unwrap_or_else(|| "write \"10:00\", or a window: \"09:30-11:30\"".to_owned());
            findings.error("RK0302", window, format!("`{text}` is no time of day"), help);
            return None;
        };
        if to < from {
            findings.error("RK0302", window, "the window ends before it begins", "it lies within one day: \"09:30-11:30\"".to_owned());
            return None;
        }
        Some(SendAt { from, to, days })
    }

    fn require(&self, node: &Node, before: &Before<'_>) -> Option<Require> {
        const OUTCOMES: [(&str, Required); 4] =
            [("done", Required::Done), ("accepted", Required::Accepted), ("delivered", Required::Delivered), ("opened", Required::Opened)];
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`require`", findings)?;
        let step_node = fields.required("step", "RK0114", "name an earlier step: `step: warn-1`");
        let outcome_node = fields.get("outcome");
        let outcome = outcome_node.map_or(Some(Required::Done), |node| findings.one_of(node, &OUTCOMES));
        fields.finish();
        let (step, kind) = self.earlier(step_node?, before, "RK0114")?;
        let outcome = outcome?;
        if let Some(node) = outcome_node.filter(|_| kind == Kind::Other && outcome != Required::Done) {
            findings.error("RK0114", node, "that step sends nothing, so it can only be `done`", "`outcome: done`".to_owned());
        }
        Some(Require { step, outcome })
    }

    /// The index of a step that stands before this one, and what it is.
    fn earlier(&self, node: &Node, before: &Before<'_>, code: &'static str) -> Option<(usize, Kind)> {
        let text = self.compiler.findings.text(node, "the id of an earlier step")?;
        if let Some(found) = before.position(text) {
            return Some(found);
        }
        let later = self.compiler.steps.iter().any(|step| &**step == text);
        let message = if later { format!("step `{text}` does not stand before this one") } else { format!("there is no step `{text}`") };
        let suggestion =
            nearest(text, before.steps.iter().map(|(id, _)| *id).filter(|id| !id.is_empty())).map(|id| format!("did you mean `{id}`?"));
        self.compiler.findings.error(code, node, message, suggestion);
        None
    }

    // -------------------------------------------------------------------------------------------------------------- actions

    /// The one action, and the `max_late` and the rungs of a send.
    fn action(
        &self,
        fields: &mut Fields<'_, '_>,
        before: &Before<'_>,
        is_exit: bool,
    ) -> Option<(Action, Option<MaxLate>, Vec<ladder::Written>)> {
        let findings = self.compiler.findings;
        let given: Vec<&str> = ACTIONS.into_iter().filter(|action| fields.has(action)).collect();
        if given.len() != 1 && !(given.is_empty() && fields.has_like(&ACTIONS)) {
            let message = match given.as_slice() {
                [] => "this step does nothing".to_owned(),
                several => format!("this step has {} actions: {}", several.len(), several.join(", ")),
            };
            let help = format!("exactly one of {}; make it two steps if need be", ACTIONS.join(", "));
            findings.error("RK0121", fields.node, message, help);
        }
        let refused = ACTIONS_NOT_YET.into_iter().filter(|key| fields.not_yet(key)).count();
        let send = fields.get("send").map(|node| self.send(node, is_exit));
        let points = fields.get("points").map(|node| self.points(node));
        let take = fields.get("take").map(|node| self.take(node, before, is_exit));
        let tier = fields.get("tier").map(|node| self.tier(node));
        let grant = fields.get("grant").map(|node| self.grant(node));
        let set = fields.get("set").map(|node| self.set(node));
        let alert = fields.get("alert").map(|node| self.alert(node));
        if given.len() != 1 || refused > 0 {
            return None;
        }
        if let Some(send) = send {
            let (send, max_late, rungs) = send?;
            return Some((Action::Send(send), max_late, rungs));
        }
        let action = points.or(take).or(tier).or(grant).or(set).or(alert);
        action.flatten().map(|action| (action, None, Vec::new()))
    }

    fn send(&self, node: &Node, is_exit: bool) -> Option<(Send, Option<MaxLate>, Vec<ladder::Written>)> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`send`", findings)?;
        let template = fields.required("template", "RK0230", "name a template: `template: welcome`");
        let ladder_node = fields.get("ladder");
        let rungs = ladder_node.map(|node| ladder::read(node, &mut fields, is_exit, findings));
        let channels_node = match ladder_node {
            Some(node) => Some(node),
            None => fields.required("channels", "RK0102", "name at least one channel: `channels: [push, email]`"),
        };
        let channels = match &rungs {
            Some(rungs) => rungs.as_ref().map(|rungs| rungs.iter().map(|rung| rung.channel).collect()),
            None => channels_node.map(|node| findings.channels(node)),
        };
        if let (Some([]), Some(node)) = (channels.as_deref(), channels_node.filter(|node| node.items().is_some_and(<[Node]>::is_empty))) {
            findings.wrong(node, "no channel is named", "`channels: [push, email]`".to_owned());
        }
        if let (Some(channels), Some(node)) = (&channels, channels_node) {
            self.check_ways_out(channels, node);
        }
        let category_node = fields.get("category");
        let category = match category_node {
            Some(node) => findings.category(node),
            None => Some(self.compiler.policy.default_category),
        };
        let data = fields.get("data").map(|node| self.data(node)).unwrap_or_default();
        let languages_node = fields.get("languages");
        let languages = languages_node.map(|node| findings.names(node, "[en, pt]")).unwrap_or_default();
        let offer_node = fields.get("offer");
        let offer = offer_node.map(|node| self.offer(node));
        let max_late = fields.get("max_late").map(|node| max_late(node, findings));
        fields.finish();
        let send = Send {
            template: template.and_then(|node| findings.name(node, "the name of a template"))?,
            channels: channels.filter(|channels| !channels.is_empty())?,
            category: category?,
            data,
            languages,
            offer: flat(offer)?,
        };
        let places =
            templates::Places { send: node, template: template?, category: category_node, languages: languages_node, offer: offer_node };
        templates::check(&send, &places, self.templates, findings);
        if send.category == Category::Marketing {
            findings.note_marketing(&node.place);
        }
        Some((send, flat(max_late)?, flat(rungs)?.unwrap_or_default()))
    }

    /// The policy says by whom each channel goes. What it does not name is passed over for the send's next channel; if it names none of
    /// them, nothing ever goes out. A policy without channels is not set up yet: its messages wait.
    fn check_ways_out(&self, channels: &[Channel], node: &Node) {
        let named = &self.compiler.policy.channels;
        if !named.is_empty() && !channels.is_empty() && channels.iter().all(|channel| !named.contains_key(channel)) {
            let message = "the policy names a provider for none of these channels: what is sent by them fails";
            let there: Vec<&str> = named.keys().map(|channel| channel.name()).collect();
            let help = format!("name it in `policy.channels` (there: {}), or `provider: recording` to try it", there.join(", "));
            self.compiler.findings.warning("RK0411", node, message, help);
        }
    }

    /// Liquid strings, by the name the template knows them under.
    fn data(&self, node: &Node) -> Vec<(Name, String)> {
        let findings = self.compiler.findings;
        let Some(fields) = Fields::of(node, "`data`", findings) else { return Vec::new() };
        let entries = fields.node.entries().unwrap_or_default();
        let read = |entry: &Entry| {
            let text = findings.text(&entry.value, "a text, with `{{ ... }}` where it varies")?;
            Some((entry.key.text.clone(), text.to_owned()))
        };
        entries.iter().filter_map(read).collect()
    }

    fn offer(&self, node: &Node) -> Option<Offer> {
        let findings = self.compiler.findings;
        if node.entries().is_none() {
            return self.coupon(node).map(|coupon| Offer { coupon, valid: None });
        }
        let mut fields = Fields::of(node, "`offer`", findings)?;
        let coupon = fields.required("coupon", "RK0225", "name a coupon of the program: `coupon: COME-BACK-10`");
        let coupon = coupon.and_then(|node| self.coupon(node));
        let valid = fields.get("valid").map(|node| findings.span(node));
        fields.finish();
        Some(Offer { coupon: coupon?, valid: flat(valid)? })
    }

    fn coupon(&self, node: &Node) -> Option<Name> {
        let name = self.compiler.findings.name(node, "the name of a coupon")?;
        let program = self.program(node, "coupons")?;
        let Some(coupon) = program.coupons.get(&name) else {
            unknown(self.compiler.findings, "RK0225", node, "coupon", program.coupons.keys().map(|name| &**name));
            return None;
        };
        if coupon.budget.is_none() && coupon.source == CouponSource::Generated {
            let message = format!("coupon `{name}` has no `budget`: nothing bounds what it may cost");
            self.compiler.findings.warning("RK0406", node, message, "write `budget: 5000 USD per month` in the program".to_owned());
        }
        Some(name)
    }

    fn program(&self, node: &Node, what: &str) -> Option<&Program> {
        if self.compiler.program.is_none() && !self.compiler.broken.contains("program") {
            let message = format!("no program declares {what}");
            self.compiler.findings.error("RK0225", node, message, "write a file with `program:`".to_owned());
        }
        self.compiler.program
    }

    fn class(&self, node: &Node) -> Option<Name> {
        let name = self.compiler.findings.name(node, "a class of points")?;
        let program = self.program(node, "classes of points")?;
        if program.classes.contains_key(&name) {
            return Some(name);
        }
        unknown(self.compiler.findings, "RK0225", node, "class of points", program.classes.keys().map(|name| &**name));
        None
    }

    fn points(&self, node: &Node) -> Option<Action> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`points`", findings)?;
        let add_node = fields.required("add", "RK0102", "say how many: `add: 100`");
        let add = match add_node.filter(|node| node.text().is_some_and(|text| text.starts_with('-'))) {
            Some(node) => {
                let help = "a deduction is a `take`, with a notice of its own".to_owned();
                findings.wrong(node, "points are given, not taken, by `points`", help);
                None
            }
            None => add_node.and_then(|node| findings.number(node, 1, i64::from(i32::MAX))),
        };
        let class = fields.required("class", "RK0102", "name a class of points: `class: bonus`").and_then(|node| self.class(node));
        let expires = fields.get("expires").map(|node| findings.span(node));
        let reason = fields.get("reason").map(|node| findings.slug(node, 1));
        fields.finish();
        Some(Action::Points {
            class: class?,
            add: add?,
            expires: flat(expires)?,
            reason: flat(reason)?.unwrap_or_else(|| Name::from("points")),
        })
    }

    fn take(&self, node: &Node, before: &Before<'_>, is_exit: bool) -> Option<Action> {
        let findings = self.compiler.findings;
        if is_exit {
            findings.error("RK0404", node, "`on_exit` takes nothing: nobody was told of it", "make it a step with a notice".to_owned());
        }
        let mut fields = Fields::of(node, "`take`", findings)?;
        let notice_node =
            fields.required("notice", "RK0404", "name the step that announces it: `notice: warn-1`; no key switches this off");
        let notice = notice_node.and_then(|node| self.notice(node, before));
        let percent = fields.read("percent", |node| findings.percent(node)).map(TakeAmount::Share);
        let amount = fields.read("amount", |node| findings.number(node, 1, i64::from(i32::MAX))).map(TakeAmount::Points);
        if fields.has("percent") == fields.has("amount") {
            findings.wrong(node, "exactly one of `percent`, `amount` says how much is taken", None);
        }
        let max = fields.required("max", "RK0102", "say what it never exceeds: `max: 300`");
        let max = max.and_then(|node| findings.number(node, 1, i64::from(i32::MAX)));
        let of = match fields.get("of") {
            Some(node) => self.class(node).map(|class| (class, node)),
            None => Some((Name::from("bonus"), node)),
        };
        let keep = fields.read("keep", |node| findings.number(node, 0, i64::from(i32::MAX))).unwrap_or(0);
        let reason = fields.required("reason", "RK0102", "the word that stands in the ledger: `reason: silence-1`");
        let reason = reason.and_then(|node| findings.slug(node, 1));
        let min_notice = fields.get("min_notice").map(|node| findings.span(node));
        let restore = fields.get("restore").map(|node| self.restore(node));
        fields.finish();
        let (of, of_node) = of?;
        self.check_takeable(&of, of_node)?;
        let (restore_within_ms, restore_share) = flat(restore)?.unwrap_or((RESTORE_WITHIN_MS, 100));
        Some(Action::Take(TakeAction {
            notice: notice?,
            amount: percent.or(amount)?,
            of,
            max: max?,
            keep,
            reason: reason?,
            min_notice: flat(min_notice)?,
            restore_within_ms,
            restore_share,
        }))
    }

    fn notice(&self, node: &Node, before: &Before<'_>) -> Option<usize> {
        let (index, kind) = self.earlier(node, before, "RK0404")?;
        let id = node.text().unwrap_or_default();
        let (message, help) = match kind {
            Kind::Send => return Some(index),
            Kind::Ladder => {
                (format!("step `{id}` is a ladder: each of its rungs would announce another day"), "name a step with `channels`")
            }
            Kind::Other => (format!("step `{id}` sends nothing, so it announces nothing"), "name an earlier step with `send`"),
        };
        self.compiler.findings.error("RK0404", node, message, help.to_owned());
        None
    }

    /// A take that the program or every pack forbids would wait for ever.
    fn check_takeable(&self, class: &Name, node: &Node) -> Option<()> {
        let findings = self.compiler.findings;
        let program = self.program(node, "points")?;
        if !program.classes.contains_key(class) {
            unknown(findings, "RK0225", node, "class of points", program.classes.keys().map(|name| &**name));
            return None;
        }
        if !program.penalty.classes.contains(class) {
            let message = format!("`program.points.penalty.classes` does not have `{class}`, so nothing of it can be taken");
            findings.error("RK0405", node, message, format!("write `penalty: {{ classes: [{class}], ... }}` in the program if it may be"));
            return None;
        }
        if program.jurisdiction.otherwise == Pack::NoTakes && program.jurisdiction.packs.values().all(|pack| *pack == Pack::NoTakes) {
            let message = "no policy pack of the program allows deductions anywhere";
            let help = "whoever answers for it says where: `jurisdiction: { by: country, else: bonus-only }` in the program".to_owned();
            findings.error("RK0405", node, message, help);
            return None;
        }
        Some(())
    }

    fn restore(&self, node: &Node) -> Option<(i64, u8)> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`restore`", findings)?;
        let within = fields.get("within").map(|node| findings.exact_ms(node));
        let share = fields.get("share").map(|node| findings.percent(node));
        fields.finish();
        let share = flat(share)?.map_or(100, |bp| bp / 100);
        Some((flat(within)?.unwrap_or(RESTORE_WITHIN_MS), u8::try_from(share).ok()?))
    }

    fn tier(&self, node: &Node) -> Option<Action> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`tier`", findings)?;
        let to_node = fields.get("to");
        let to = to_node.and_then(|node| findings.name(node, "a level"));
        let protect = fields.get("protect").map(|node| findings.span(node));
        let lifted = fields.read("overlay", |node| overlay(node, findings));
        if fields.has("to") == fields.has("overlay") {
            findings.wrong(node, "exactly one of `to`, `overlay` says what happens to the tier", None);
        }
        fields.finish();
        let tiers = self.compiler.program.and_then(|program| program.tiers.as_ref());
        if let (Some(tiers), Some(to), Some(node)) = (tiers, &to, to_node)
            && !tiers.levels.iter().any(|level| level.id == *to)
        {
            unknown(findings, "RK0204", node, "level", tiers.levels.iter().map(|level| &*level.id));
            return None;
        }
        match (to, lifted) {
            (Some(tier), _) => Some(Action::Tier(TierAction::To { tier, protect: flat(protect)?.unwrap_or(Span::ZERO) })),
            (None, lifted) => lifted.map(|(up, lasts)| Action::Tier(TierAction::Overlay { up, lasts })),
        }
    }

    fn grant(&self, node: &Node) -> Option<Action> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`grant`", findings)?;
        let given = ["coupon", "benefit", "bundle"].into_iter().filter(|key| fields.has(key)).count();
        if given != 1 {
            findings.wrong(node, "exactly one of `coupon`, `benefit`, `bundle` says what is granted", None);
        }
        let coupon = fields.get("coupon").and_then(|node| self.coupon(node)).map(Grant::Coupon);
        let benefit = fields.get("benefit").and_then(|node| {
            let name = findings.name(node, "a benefit")?;
            let program = self.program(node, "benefits")?;
            if !program.benefits.contains_key(&name) {
                unknown(findings, "RK0225", node, "benefit", program.benefits.keys().map(|name| &**name));
                return None;
            }
            Some(Grant::Benefit(name))
        });
        let bundle = fields.get("bundle").and_then(|node| {
            let name = findings.name(node, "a bundle")?;
            let program = self.program(node, "bundles")?;
            if !program.bundles.contains_key(&name) {
                unknown(findings, "RK0225", node, "bundle", program.bundles.keys().map(|name| &**name));
                return None;
            }
            Some(Grant::Bundle(name))
        });
        let expires = fields.required("expires", "RK0102", "say how long it lasts: `expires: 7d`").and_then(|node| findings.span(node));
        fields.finish();
        Some(Action::Grant { grant: coupon.or(benefit).or(bundle).filter(|_| given == 1)?, expires: Some(expires?) })
    }

    fn set(&self, node: &Node) -> Option<Action> {
        let findings = self.compiler.findings;
        let fields = Fields::of(node, "`set`", findings)?;
        let mut values = Vec::new();
        let mut sound = true;
        for entry in fields.node.entries().unwrap_or_default() {
            match self.assignment(&entry.key.text, entry) {
                Some(expr) => values.push((entry.key.text.clone(), expr)),
                None => sound = false,
            }
        }
        if values.is_empty() && sound {
            findings.wrong(node, "nothing is set", "`set: { favourite: '\"garden\"' }`".to_owned());
            return None;
        }
        sound.then_some(Action::Set(values))
    }

    fn assignment(&self, name: &str, entry: &Entry) -> Option<Expr> {
        let findings = self.compiler.findings;
        let attributes = &self.compiler.dictionary.attributes;
        let width = name.chars().count();
        let Some(attribute) = attributes.iter().find(|attribute| &*attribute.name == name) else {
            if self.compiler.broken.contains(name) {
                return None;
            }
            let mut finding = Diagnostic::error("RK0203", entry.key_place.clone(), format!("unknown attribute `{name}`")).len(width);
            finding.help = nearest(name, attributes.iter().map(|attribute| &*attribute.name)).map(|name| format!("did you mean `{name}`?"));
            findings.add(finding);
            return None;
        };
        if let Some(source) = &attribute.source {
            let place = &attribute.declared_at;
            let message = format!("only `{source}` may write `{name}` ({}:{})", place.file, place.line);
            findings.add(Diagnostic::error("RK0221", entry.key_place.clone(), message).len(width));
            return None;
        }
        let (expr, value_type) = self.compiler.expression(&entry.value)?;
        if !fits(&value_type, &attribute.value_type) {
            let message = format!("`{name}` is {}, this is {}", described(&attribute.value_type), described(&value_type));
            findings.error("RK0204", &entry.value, message, None);
            return None;
        }
        Some(expr)
    }

    fn alert(&self, node: &Node) -> Option<Action> {
        let findings = self.compiler.findings;
        let mut fields = Fields::of(node, "`alert`", findings)?;
        let level = fields.required("level", "RK0102", "`level: notice`, warning or critical");
        let level = level.and_then(|node| findings.one_of(node, &["notice", "warning", "critical"].map(|word| (word, word))));
        let text = fields.read("text", |node| findings.text(node, "a text"));
        let notify = fields.required("notify", "RK0227", "say whom: `notify: [anna]`, declared in `policy.notify`");
        let notify = notify.map(|node| findings.list_of(node, "[anna]", |item| self.notified(item)));
        fields.finish();
        Some(Action::Alert { level: Name::from(level?), text: text.map(str::to_owned), notify: notify? })
    }

    fn notified(&self, node: &Node) -> Option<Name> {
        let name = self.compiler.findings.name(node, "a name of `policy.notify`")?;
        let known = &self.compiler.policy.notify;
        if !known.contains_key(&name) {
            unknown(self.compiler.findings, "RK0227", node, "name to notify", known.keys().map(|name| &**name));
        }
        Some(name)
    }
}

/// A value that was given and could not be read spoils the whole; one that was not given does not.
fn flat<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

fn fits(given: &ValueType, wanted: &ValueType) -> bool {
    match (given, wanted) {
        (ValueType::Int, ValueType::Float) | (ValueType::Text, ValueType::Enum(_)) | (ValueType::Enum(_), ValueType::Text) => true,
        (ValueType::Enum(_), ValueType::Enum(_)) => true,
        (given, wanted) => given == wanted,
    }
}

fn described(value_type: &ValueType) -> &'static str {
    match value_type {
        ValueType::Bool => "true or false",
        ValueType::Int => "a whole number",
        ValueType::Float => "a number",
        ValueType::Text => "a text",
        ValueType::Enum(_) => "one of a list of words",
        ValueType::Date => "a date",
        ValueType::Instant => "a timestamp",
        ValueType::Duration => "a duration",
        ValueType::Money => "money",
        ValueType::List => "a list",
    }
}
