//! Templates that cannot be written, whoever they are for. One message that cannot be written fails by itself (its value is missing, it is too
//! long): the others go on. Several in a row and none in between are the template's fault: its rule is paused with the reason, and
//! what cannot be written waits with its slot instead of being lost. Mending the template and `rekindle resume --rule` lets it go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::engine::profile::Name;
use crate::message::RenderError;

/// So many messages in a row, and it is the template.
const IN_A_ROW: u32 = 3;

/// Failures in a row, by rule and template.
#[derive(Default)]
pub struct Spoiled(Mutex<HashMap<(Name, Name), u32>>);

impl Spoiled {
    /// Looks at what became of some messages, in order: rule, template, and the error if it could not be written. Answers the rules whose
    /// template is at fault, with the sentence.
    pub fn judge<'m>(&self, written: impl Iterator<Item = (&'m Name, &'m Name, Option<&'m RenderError>)>) -> BTreeMap<Name, String> {
        // counts are whole at any time
        let mut in_a_row = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spoiled = BTreeMap::new();
        for (rule, template, error) in written {
            let key = (rule.clone(), template.clone());
            match error {
                None => drop(in_a_row.remove(&key)),
                Some(RenderError::Value { .. }) => {} // what is missing is this person's
                Some(error) => {
                    let count = in_a_row.entry(key).or_default();
                    *count += 1;
                    if *count >= IN_A_ROW {
                        spoiled.insert(rule.clone(), format!("template `{template}` cannot be written: {error}"));
                    }
                }
            }
        }
        // whoever resumes it begins to count anew
        in_a_row.retain(|(rule, _), _| !spoiled.contains_key(rule));
        spoiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_are_the_templates_fault_and_one_that_is_written_begins_anew() {
        let (rule, template, other) = (Name::from("hello"), Name::from("greeting"), Name::from("thanks"));
        let broken = RenderError::Liquid { part: "text", because: "division by zero".into() };
        let lacking = RenderError::Value { name: "city".into(), because: "nobody said it".into() };
        let spoiled = Spoiled::default();
        let judge = |errors: &[Option<&RenderError>]| spoiled.judge(errors.iter().map(|error| (&rule, &template, *error)));
        assert!(judge(&[Some(&broken), Some(&broken)]).is_empty());
        assert!(judge(&[None, Some(&broken)]).is_empty(), "one was written in between");
        assert!(judge(&[Some(&lacking), Some(&lacking), Some(&lacking)]).is_empty(), "whose value is missing is not the template");
        assert!(spoiled.judge(std::iter::once((&rule, &other, Some(&broken)))).is_empty(), "another template");
        let found = judge(&[Some(&broken), Some(&broken)]);
        assert_eq!(found.get(&rule).map(String::as_str), Some("template `greeting` cannot be written: text: division by zero"));
        assert!(judge(&[Some(&broken)]).is_empty(), "counted anew");
    }
}
