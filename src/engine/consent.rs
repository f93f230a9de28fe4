//! May we write to this person, on this channel, for this purpose? What must be on record stands in `policy.consent`; the records
//! are facts in the profile.

use super::action::Channel;
use super::event::Value;
use super::profile::{Category, Profile};
use super::rule::{ConsentBasis, Policy};

/// The basis that suffices everywhere: the person asked for it.
const OPT_IN: &str = "opt_in";

/// Whether the policy and the records allow a message of that category on that channel; otherwise one clause that says why not.
pub fn check(policy: &Policy, profile: &Profile, category: Category, channel: Channel) -> Result<(), String> {
    let Some(ConsentBasis::Recorded { basis, countries }) = policy.consent.get(&category) else {
        // `always`, or a category without a line: `check` demands a line for marketing (RK0401), the others need none
        return Ok(());
    };
    let required = countries.get(profile.country()).unwrap_or(basis);
    let purpose = category.name();
    match profile.consents.iter().find(|((p, c), _)| &**p == purpose && *c == channel).map(|(_, record)| record) {
        None => Err(format!("no {purpose} consent for {channel} on record")),
        Some(record) if !record.granted => Err(format!("{purpose} consent for {channel} was withdrawn at {}", record.at)),
        Some(record) if &*record.basis == OPT_IN || record.basis == *required => Ok(()),
        Some(record) => Err(format!("{purpose} consent for {channel} rests on `{}`, `{required}` is required", record.basis)),
    }
}

/// Whether a message on that channel has somewhere to go: an address that is not on the suppression list.
pub fn address(profile: &Profile, channel: Channel, addresses_given: bool) -> Result<(), String> {
    let address = profile.addresses.get(&channel).map(|address| &address.value);
    if let Some(entry) = profile.suppressed.get(&channel) {
        // a new address is another address: the list names the old one
        let is_another = matches!(address, Some(Value::Text(now)) if *now != entry.address);
        if !is_another {
            return Err(format!("the {channel} address is suppressed: {} at {}", entry.reason, entry.at));
        }
    }
    if addresses_given || address.is_some() { Ok(()) } else { Err(format!("no {channel} address")) }
}
