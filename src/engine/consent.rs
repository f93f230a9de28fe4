//! May we write to this person, on this channel, for this purpose? What must be on record stands in `policy.consent`; the records
//! are facts in the profile.

use super::action::Channel;
use super::event::Value;
use super::profile::{Category, Consent, Profile};
use super::rule::{ConsentBasis, Policy};
use super::time::Timestamp;

/// The basis that suffices everywhere: the person asked for it.
const OPT_IN: &str = "opt_in";

/// Whether the policy and the records allow a message of that category on that channel; otherwise one clause that says why not.
pub fn check(policy: &Policy, profile: &Profile, category: Category, channel: Channel, now: Timestamp) -> Result<(), String> {
    let purpose = category.name();
    let record = profile.consents.iter().find(|((p, c), _)| &**p == purpose && *c == channel).map(|(_, record)| record);
    let Some(ConsentBasis::Recorded { basis, countries }) = policy.consent.get(&category) else {
        // `always`, or a category without a line: `check` demands a line for marketing (RK0401), the others need no record. A no is
        // a no all the same, except to what a purchase itself makes necessary.
        return match record.filter(|record| !record.granted && category != Category::Transactional) {
            Some(record) => Err(format!("{purpose} on {channel} was refused at {}", record.at)),
            None => Ok(()),
        };
    };
    let required = countries.get(profile.country()).unwrap_or(basis);
    match record {
        None => Err(format!("no {purpose} consent for {channel} on record")),
        Some(record) if !record.granted => Err(format!("{purpose} consent for {channel} was withdrawn at {}", record.at)),
        Some(Consent { expires_at: Some(at), .. }) if *at <= now => Err(format!("{purpose} consent for {channel} ended at {at}")),
        Some(record) if &*record.basis == OPT_IN || record.basis == *required => Ok(()),
        Some(record) => Err(format!("{purpose} consent for {channel} rests on `{}`, `{required}` is required", record.basis)),
    }
}

/// Whether a message on that channel has somewhere to go: an address, where one is needed, that is not on the suppression list.
pub fn address(profile: &Profile, channel: Channel, addresses_given: bool, now: Timestamp) -> Result<(), String> {
    let address = profile.addresses.get(&channel).map(|address| &address.value);
    if let Some(entry) = profile.suppressed.get(&channel).filter(|entry| entry.until.is_none_or(|until| until > now)) {
        // a new address is another address: the list names the old one
        let is_another = matches!(address, Some(Value::Text(now)) if *now != entry.address);
        if !is_another {
            return Err(format!("the {channel} address is suppressed: {} at {}", entry.reason, entry.at));
        }
    }
    if addresses_given || address.is_some() || !channel.needs_address() { Ok(()) } else { Err(format!("no {channel} address")) }
}

/// The next instant at which what the records say changes by itself: a consent or a suppression ends.
pub fn changes_at(profile: &Profile, now: Timestamp) -> Timestamp {
    let ends = profile.consents.values().filter_map(|consent| consent.expires_at);
    let ends = ends.chain(profile.suppressed.values().filter_map(|entry| entry.until));
    ends.filter(|at| *at > now).min().unwrap_or(Timestamp::FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_written_to_elsewhere_needs_an_address() {
        let (profile, now) = (Profile::new("ana"), Timestamp::from_ms(0));
        let reached = Channel::ALL.into_iter().filter(|channel| address(&profile, *channel, false, now).is_ok());
        assert_eq!(reached.collect::<Vec<_>>(), [Channel::Inapp, Channel::Webhook]);
    }
}
