//! Why a condition is as it is: its tree as written, each part with its truth, the values it read, and until when that stands.

use std::sync::Arc;

use super::eval::{Computed, Test};
use crate::engine::event::Value;
use crate::engine::features::Question;
use crate::engine::time::Timestamp;

/// One line of an explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// 0 for the whole condition.
    pub depth: usize,
    /// As written; `all of`, `any of`, `none of` for groups.
    pub text: String,
    /// None: it cannot be answered, see `trouble`.
    pub truth: Option<bool>,
    /// Names it reads with their values (none: missing).
    pub values: Vec<(String, Option<Value>)>,
    /// Until when the truth stands.
    pub until: Timestamp,
    /// What the rule's author says of it.
    pub why: Option<String>,
    /// False: another part has decided already.
    pub needed: bool,
    /// The part that decides how long the whole stands.
    pub witness: bool,
    pub trouble: Option<String>,
}

/// The written form beside the compiled one.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    pub text: String,
    pub why: Option<String>,
    pub shape: Shape,
    pub test: Arc<Test>,
    pub children: Vec<Outline>,
    /// Names in a leaf.
    pub values: Vec<(String, Computed)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Leaf,
    All,
    Any,
    /// Negation of its one child.
    Not,
    /// A name for its one child: a segment.
    Named,
}

impl Outline {
    pub fn leaf(text: String, test: Test, values: Vec<(String, Computed)>) -> Self {
        Outline { text, why: None, shape: Shape::Leaf, test: Arc::new(test), children: Vec::new(), values }
    }

    pub fn explain(&self, question: &Question<'_>) -> Vec<Leaf> {
        let mut lines = Vec::new();
        self.write(question, 0, true, true, &mut lines);
        lines
    }

    fn write(&self, question: &Question<'_>, depth: usize, needed: bool, witness: bool, lines: &mut Vec<Leaf>) {
        let judged = self.test.verdict(question);
        let (truth, until, trouble) = match judged {
            Ok(verdict) => (Some(verdict.truth), verdict.until, None),
            Err(trouble) => (None, trouble.missing().unwrap_or(Timestamp::FOREVER), Some(super::EvalError::from(trouble).0)),
        };
        let read = |(name, computed): &(String, Computed)| (name.clone(), computed.value(question).ok().map(|(value, _)| value));
        lines.push(Leaf {
            depth,
            text: self.text.clone(),
            truth,
            values: self.values.iter().map(read).collect(),
            until,
            why: self.why.clone(),
            needed,
            witness,
            trouble,
        });
        let decider = self.decider(question, truth);
        for (index, child) in self.children.iter().enumerate() {
            let (child_needed, child_witness) = match decider {
                Decider::Child(decider) => (needed && index == decider, witness && index == decider),
                Decider::Everything(first_to_change) => (needed, witness && Some(index) == first_to_change),
            };
            child.write(question, depth + 1, child_needed, child_witness, lines);
        }
    }

    /// Which child the truth rests on.
    fn decider(&self, question: &Question<'_>, truth: Option<bool>) -> Decider {
        let deciding = match self.shape {
            Shape::All => false,
            Shape::Any => true,
            Shape::Leaf | Shape::Not | Shape::Named => return Decider::Everything(Some(0)),
        };
        let verdicts: Vec<_> = self.children.iter().map(|child| child.test.verdict(question).ok()).collect();
        let standing = |wanted: bool| {
            let verdicts = verdicts.iter().enumerate();
            verdicts.filter_map(move |(index, verdict)| verdict.filter(|v| v.truth == wanted).map(|v| (index, v.until)))
        };
        if truth == Some(deciding) {
            // of equals the first: `max_by_key` alone would take the last
            let longest = standing(deciding).fold(None, |best: Option<(usize, Timestamp)>, next| match best {
                Some(best) if best.1 >= next.1 => Some(best),
                _ => Some(next),
            });
            return longest.map_or(Decider::Everything(None), |(index, _)| Decider::Child(index));
        }
        Decider::Everything(standing(!deciding).min_by_key(|(_, until)| *until).map(|(index, _)| index))
    }
}

enum Decider {
    /// One child decides, the others are not needed.
    Child(usize),
    /// All are needed; this one may change first.
    Everything(Option<usize>),
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, Subject, parse};
    use crate::engine::profile::Profile;
    use crate::engine::sample::{day, shop};

    #[test]
    fn the_tree_says_what_decides_and_what_is_not_needed() {
        let shop = shop();
        let mut profile = Profile::new("u1");
        profile.activity.last_active_at = Some(day(0));
        profile.first_seen_at = Some(day(0));
        let condition =
            parse::condition("days_silent >= 30 && (points > 100 || orders_30d >= 1)", &Scope::of(shop.names())).expect("a condition");
        let leaves = condition.explain(shop.names(), Subject { profile: &profile, now: day(3), event: None, run: None });
        let told: Vec<String> = leaves
            .iter()
            .map(|leaf| {
                let values: Vec<String> =
                    leaf.values.iter().map(|(name, value)| format!(" {name}={}", value.as_ref().expect("a value"))).collect();
                let marks = (if leaf.needed { "" } else { " (not needed)" }, if leaf.witness { " *" } else { "" });
                format!(
                    "{}{} {:?}{}{}{}",
                    "  ".repeat(leaf.depth),
                    leaf.text,
                    leaf.truth.expect("a truth"),
                    values.concat(),
                    marks.0,
                    marks.1
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "all of false *",
                "  days_silent >= 30 false days_silent=3 (not needed)",
                "  any of false *",
                "    points > 100 false points=0 *",
                "    orders_30d >= 1 false orders_30d=0",
            ]
        );
    }
}
