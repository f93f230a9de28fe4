//! The suppression list: addresses that must not be written to, known by a keyed hash, with the reason. It outlives the people on it.
//!
//! It is asked in the transaction that records the intent to send, by the hash of the address that the message would go to. What it
//! says there becomes a fact of the person (`suppressed`, `unsubscribed`), which is due at once; the gates then say the rest. So a
//! person who is imported anew, or shares an address with somebody, is stopped without anybody having to search for them.

use ring::hmac;

use crate::engine::action::Channel;
use crate::engine::event::Event;
use crate::engine::profile::Category;
use crate::engine::time::{DAY_MS, Timestamp};
use crate::store::ProfileId;

/// Soft bounces on so many different days ...
pub const SOFT_BOUNCE_DAYS: usize = 3;
/// ... within so long put an address on the list ...
pub const SOFT_BOUNCE_WITHIN_MS: i64 = 10 * DAY_MS;
/// ... for so long.
pub const SOFT_BOUNCE_UNTIL_MS: i64 = 90 * DAY_MS;

/// Why an address is on the list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// It does not exist, or takes no mail.
    HardBounce,
    /// It did not take mail on several days.
    SoftBounce,
    /// The person said that our mail is spam. Never over by itself.
    Complaint,
    /// The person wants no more of a category. Never over by itself.
    Unsubscribe,
    /// An operator's word.
    Manual,
    /// Its person was erased.
    Erased,
}

impl Reason {
    pub const ALL: [Reason; 6] =
        [Reason::HardBounce, Reason::SoftBounce, Reason::Complaint, Reason::Unsubscribe, Reason::Manual, Reason::Erased];

    pub fn name(self) -> &'static str {
        match self {
            Reason::HardBounce => "hard_bounce",
            Reason::SoftBounce => "soft_bounce",
            Reason::Complaint => "complaint",
            Reason::Unsubscribe => "unsubscribe",
            Reason::Manual => "manual",
            Reason::Erased => "erased",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What an entry of the list forbids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Everything on that channel.
    All,
    /// Messages of one category.
    Only(Category),
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Scope::All => "all",
            Scope::Only(category) => category.name(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        if name == "all" { Some(Scope::All) } else { Category::named(name).map(Scope::Only) }
    }
}

/// A word against an address.
#[derive(Clone, Debug)]
pub struct Suppress {
    pub channel: Channel,
    /// As it was written to; kept only as its hash. Empty: only the fact is recorded.
    pub address: String,
    pub reason: Reason,
    pub scope: Scope,
    pub since: Timestamp,
    /// None: until somebody takes it off.
    pub until: Option<Timestamp>,
    /// Who said so: a provider, `import`, an operator.
    pub source: String,
    /// Known again by this if it is said twice (with `source`).
    pub id: String,
    /// A fact about a person that goes with it: if it is on record already, nothing is done.
    pub event: Option<(ProfileId, Event)>,
}

/// Takes an address off the list.
#[derive(Clone, Debug)]
pub struct Lift {
    pub channel: Channel,
    pub address: String,
    /// None: whatever the reason.
    pub reason: Option<Reason>,
    /// None: whatever the scope.
    pub scope: Option<Scope>,
    /// The fact about a person that goes with it.
    pub event: Option<(ProfileId, Event)>,
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    pub channel: Channel,
    pub reason: Reason,
    pub scope: Scope,
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    pub source: String,
}

/// Of each of a database's keys.
pub const KEY_BYTES: usize = 32;

/// Makes hashes of addresses and identities that cannot be turned back without the key.
pub struct Hasher(hmac::Key);

impl Hasher {
    pub fn new(key: &[u8]) -> Self {
        Hasher(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// 128 bits of an address in its canonical form; channels do not share addresses.
    pub fn address(&self, channel: Channel, address: &str) -> u128 {
        self.hash(&["address", channel.name(), &canonical(channel, address)])
    }

    /// 128 bits of what a sender called somebody.
    pub fn identity(&self, kind: &str, value: &str) -> u128 {
        self.hash(&["identity", kind, value])
    }

    fn hash(&self, parts: &[&str]) -> u128 {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        tag.as_ref().iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
    }
}

/// The one form of an address that is written in many: an e-mail address without regard to case, its domain as the DNS has it; a phone
/// number by its digits.
pub fn canonical(channel: Channel, address: &str) -> String {
    let address = address.trim();
    match channel {
        Channel::Email => {
            let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
            let domain = match url::Host::parse(domain) {
                Ok(url::Host::Domain(domain)) => domain,
                _ => domain.to_lowercase(),
            };
            format!("{}@{}", local.to_lowercase(), domain.trim_end_matches('.'))
        }
        Channel::Sms | Channel::Whatsapp => {
            let digits: String = address.chars().filter(char::is_ascii_digit).collect();
            match digits.strip_prefix("00") {
                Some(international) if !address.starts_with('+') => international.to_owned(),
                _ => digits,
            }
        }
        Channel::Push | Channel::Inapp | Channel::Webhook => address.to_owned(),
    }
}

/// Whether soft bounces at these instants (any order) close the address as of the last of them.
pub fn soft_bounces_close(bounced: &[Timestamp]) -> bool {
    let Some(last) = bounced.iter().max() else { return false };
    let days: std::collections::BTreeSet<i64> =
        bounced.iter().filter(|at| last.ms_since(**at) < SOFT_BOUNCE_WITHIN_MS).map(|at| at.as_ms().div_euclid(DAY_MS)).collect();
    days.len() >= SOFT_BOUNCE_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_form() {
        for (channel, written, expected) in [
            (Channel::Email, " Anna@Example.COM ", "anna@example.com"),
            (Channel::Email, "anna@bücher.example", "anna@xn--bcher-kva.example"),
            (Channel::Email, "anna@XN--BCHER-KVA.example.", "anna@xn--bcher-kva.example"),
            (Channel::Email, "\"a@b\"@example.com", "\"a@b\"@example.com"),
            (Channel::Email, "no address", "no address@"),
            (Channel::Sms, "+49 (170) 123-45", "4917012345"),
            (Channel::Sms, "0049 170 12345", "4917012345"),
            (Channel::Whatsapp, "4917012345", "4917012345"),
            (Channel::Push, "ToKeN", "ToKeN"),
        ] {
            assert_eq!(canonical(channel, written), expected);
        }
    }

    #[test]
    fn a_hash_tells_channels_kinds_and_keys_apart() {
        let (hasher, other) = (Hasher::new(b"one key"), Hasher::new(b"another"));
        let hash = hasher.address(Channel::Email, "Anna@example.com");
        assert_eq!(hash, hasher.address(Channel::Email, "anna@EXAMPLE.com"));
        let others = [
            hasher.address(Channel::Webhook, "anna@example.com"),
            hasher.identity("user", "anna@example.com"),
            other.address(Channel::Email, "anna@example.com"),
        ];
        assert!(!others.contains(&hash));
        assert_ne!(hasher.identity("user", "a"), hasher.identity("anonymous", "a"));
    }

    #[test]
    fn three_days_of_soft_bounces_within_ten_close_an_address() {
        let days = |days: &[i64]| days.iter().map(|hours| Timestamp::from_ms(hours * DAY_MS / 24)).collect::<Vec<_>>();
        for (hours, closes) in [
            (vec![], false),
            (vec![0, 1, 2, 3, 4], false),
            (vec![0, 24, 48], true),
            (vec![0, 120, 239], true),
            (vec![0, 120, 240], false),
            (vec![240, 0, 120, 130, 200], true),
        ] {
            assert_eq!(soft_bounces_close(&days(&hours)), closes, "{hours:?}");
        }
    }
}
