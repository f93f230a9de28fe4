//! What the demo assumes of people of whom only orders are known: consent, language, zone, phone, push. The assumptions are one file
//! (`config/demo.yaml`); here they become facts of their own, under a source of their own, so that nobody can mistake them for data.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use anyhow::Context;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value as Json, json};

use crate::channel::recording::Shares;
use crate::engine::event::{Event, EventKind};
use crate::engine::profile::Name;
use crate::engine::time::{Timestamp, zones_of_country};
use crate::ingest::Incoming;
use crate::store::Identity;

/// The shipped assumptions.
const SHIPPED: &str = include_str!("../../../config/demo.yaml");
/// The source that stands on assumed facts.
pub const SOURCE: &str = "assumed";

/// What is assumed, as `config/demo.yaml` says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumptions {
    salt: String,
    /// Country of whom the data names none.
    pub country: String,
    pub consent: Consent,
    push: Share,
    phone: Share,
    /// Whether who has no address gets one at example.com.
    email: bool,
    languages: BTreeMap<String, Vec<String>>,
    language: String,
    zone: ZoneOf,
    receipts: Receipts,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    soft_opt_in: SoftOptIn,
    opt_in: Share,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SoftOptIn {
    countries: Vec<String>,
    share: Percent,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    share: Percent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ZoneOf {
    ByCountry,
    /// Left to the policy.
    None,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipts {
    failed: Percent,
    ambiguous: Percent,
    resolved: Percent,
    bounced: Percent,
    silent: Percent,
    delayed: Percent,
}

/// A share in basis points, written `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Percent(u16);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = number.filter(|percent| (0.0..=100.0).contains(percent));
        let share = share.ok_or_else(|| de::Error::custom(format!("`{text}` is no share; write it like `5%`")))?;
        Ok(Percent((share * 100.0).round() as u16))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 100.0)
    }
}

impl Assumptions {
    pub fn shipped() -> anyhow::Result<Self> {
        serde_yaml::from_str(SHIPPED).context("config/demo.yaml")
    }

    /// How the recording channel plays its provider.
    pub fn shares(&self) -> Shares {
        Shares {
            failed_bp: self.receipts.failed.0,
            ambiguous_bp: self.receipts.ambiguous.0,
            resolved_bp: self.receipts.resolved.0,
            bounced_bp: self.receipts.bounced.0,
            silent_bp: self.receipts.silent.0,
            delayed_bp: self.receipts.delayed.0,
        }
    }

    /// One line for each assumption, for the summary.
    pub fn lines(&self) -> Vec<String> {
        let soft = &self.consent.soft_opt_in;
        let languages: Vec<String> = self.languages.iter().map(|(language, of)| format!("{language} in {}", of.join(", "))).collect();
        let zone = match self.zone {
            ZoneOf::ByCountry => "the country's most important one",
            ZoneOf::None => "as the policy says",
        };
        vec![
            format!(
                "marketing consent: {} of buyers in {} (soft opt-in), {} elsewhere (opt-in)",
                soft.share,
                soft.countries.join(", "),
                self.consent.opt_in.share
            ),
            format!(
                "push token: {}; phone number: {}; country, where the data names none: {}",
                self.push.share, self.phone.share, self.country
            ),
            format!("language: {}, else {}; time zone: {zone}", languages.join("; "), self.language),
            format!(
                "receipts are simulated: {} refused, {} ambiguous, {} bounced, {} without an answer, {} days late",
                self.receipts.failed, self.receipts.ambiguous, self.receipts.bounced, self.receipts.silent, self.receipts.delayed
            ),
        ]
    }

    /// The facts with what is assumed of each person beside their first one, and of each country they move to. `facts` are sorted by
    /// time.
    pub fn apply(&self, facts: Vec<Incoming>) -> Vec<Incoming> {
        let mut known: HashSet<Identity> = HashSet::new();
        let mut countries: BTreeMap<Identity, Name> = BTreeMap::new();
        let mut all = Vec::with_capacity(facts.len() * 2);
        for fact in facts {
            let first = known.insert(fact.identity.clone());
            let said = fact.event.text_property("country").filter(|_| fact.event.kind == EventKind::Identify).map(Name::from);
            let moved = said.as_ref().is_some_and(|said| countries.get(&fact.identity) != Some(said));
            if first || moved {
                let country = said.clone().unwrap_or_else(|| Name::from(self.country.as_str()));
                countries.insert(fact.identity.clone(), country.clone());
                all.extend(self.about(&fact, &country, said.is_none(), first));
            }
            all.push(fact);
        }
        all
    }

    /// The assumed facts that come with `fact`, at its own instant.
    fn about(&self, fact: &Incoming, country: &str, without_country: bool, first: bool) -> Vec<Incoming> {
        let (Identity::User(id) | Identity::Anonymous(id)) = &fact.identity;
        let mut traits = Map::new();
        traits.insert("locale".into(), json!(self.language_of(country)));
        if let (ZoneOf::ByCountry, Some(zone)) = (self.zone, zones_of_country(country).next()) {
            traits.insert("zone".into(), json!(zone));
        }
        if without_country {
            traits.insert("country".into(), json!(country));
        }
        let mut facts = Vec::new();
        if first {
            self.add_addresses(id, fact, &mut traits);
            for (channel, basis) in self.consents(id, country, &traits) {
                let properties =
                    json!({ "purpose": "marketing", "channel": channel, "granted": true, "basis": basis, "source": "config/demo.yaml" });
                facts.push(assumed(fact, EventKind::Consent, &format!("consent-{channel}"), properties));
            }
        }
        facts.insert(0, assumed(fact, EventKind::Identify, "traits", Json::Object(traits)));
        facts
    }

    fn add_addresses(&self, id: &str, fact: &Incoming, traits: &mut Map<String, Json>) {
        if self.email && fact.event.property("email").is_none() {
            let local: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
            // people whose ids differ only in what an address cannot hold must not share one
            traits.insert("email".into(), json!(format!("{local}.{:08x}@example.com", self.hash("email", id) as u32)));
        }
        if self.is_in("push", id, self.push.share) {
            traits.insert("push_token".into(), json!(format!("assumed-{:016x}", self.hash("token", id))));
        }
        if self.is_in("phone", id, self.phone.share) {
            // numbers that Ofcom keeps for drama, never given to anybody
            traits.insert("phone".into(), json!(format!("+447700900{:03}", self.hash("number", id) % 1000)));
        }
    }

    /// The channels on which this person agreed to marketing, each with its basis.
    fn consents(&self, id: &str, country: &str, traits: &Map<String, Json>) -> Vec<(&'static str, &'static str)> {
        let soft = &self.consent.soft_opt_in;
        let is_soft = soft.countries.iter().any(|c| c == country);
        let (basis, share) = if is_soft { ("soft_opt_in", soft.share) } else { ("opt_in", self.consent.opt_in.share) };
        if !self.is_in("consent", id, share) {
            return Vec::new();
        }
        let mut consents = vec![("email", basis)];
        consents.extend(traits.contains_key("push_token").then_some(("push", "opt_in")));
        consents.extend(traits.contains_key("phone").then_some(("sms", "opt_in")));
        consents
    }

    fn language_of(&self, country: &str) -> &str {
        let spoken = self.languages.iter().find(|(_, countries)| countries.iter().any(|c| c == country));
        spoken.map_or(&self.language, |(language, _)| language)
    }

    fn is_in(&self, what: &str, id: &str, share: Percent) -> bool {
        self.hash(what, id) % 10_000 < u64::from(share.0)
    }

    fn hash(&self, what: &str, id: &str) -> u64 {
        twox_hash::XxHash3_64::oneshot(format!("{}\0{what}\0{id}", self.salt).as_bytes())
    }
}

/// A fact of our own about the person of `fact`. Its id sorts before those of the data, so that who orders and is known in the same
/// instant is known first.
fn assumed(fact: &Incoming, kind: EventKind, what: &str, properties: Json) -> Incoming {
    let Json::Object(properties) = properties else { return fact.clone() };
    let at: Timestamp = fact.event.occurred_at;
    let event = Event {
        id: Name::from(format!("!assumed:{what}:{}", fact.event.id)),
        kind,
        name: Name::from(""),
        occurred_at: at,
        received_at: at,
        source: Name::from(SOURCE),
        properties,
    };
    Incoming { identity: fact.identity.clone(), link: None, event }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::ingest::file::{Origin, Received, events_of};

    fn facts(rows: &[String]) -> Vec<Incoming> {
        let origin = Origin::new("shop", Received::AsItHappened);
        events_of(Cursor::new(rows.join("\n")), origin).map(|row| row.expect("a good row")).collect()
    }

    fn identify(user: &str, country: &str, at: &str) -> String {
        format!(r#"{{"type":"identify","userId":"{user}","timestamp":"{at}","traits":{{"country":"{country}","email":"x@example.com"}}}}"#)
    }

    #[test]
    fn the_shipped_file_is_read_and_every_run_assumes_the_same() {
        let assumptions = Assumptions::shipped().expect("it is shipped");
        let rows: Vec<String> = (0..2000).map(|n| identify(&format!("u{n}"), if n % 2 == 0 { "GB" } else { "FR" }, "2011-01-01")).collect();
        let all = assumptions.apply(facts(&rows));
        assert_eq!(all, assumptions.apply(facts(&rows)));
        let consents = |basis: &str| {
            let by_mail =
                |i: &&Incoming| i.event.text_property("channel") == Some("email") && i.event.text_property("basis") == Some(basis);
            all.iter().filter(by_mail).count()
        };
        assert!((870..930).contains(&consents("soft_opt_in")), "{} of 1000 at 90 %", consents("soft_opt_in"));
        assert!((600..700).contains(&consents("opt_in")), "{} of 1000 at 65 %", consents("opt_in"));
        assert!(all.iter().all(|i| i.event.kind != EventKind::Consent || &*i.event.source == SOURCE));
    }

    #[test]
    fn who_moves_gets_the_language_and_zone_of_the_new_country_once() {
        let assumptions = Assumptions::shipped().expect("it is shipped");
        let rows = [identify("u", "GB", "2011-01-01"), identify("u", "DE", "2011-02-01"), identify("u", "DE", "2011-03-01")];
        let all = assumptions.apply(facts(&rows));
        let said: Vec<_> = all.iter().filter(|i| i.event.kind == EventKind::Identify && &*i.event.source == SOURCE).collect();
        let read = |name: &str| said.iter().map(|i| i.event.text_property(name).expect("a text").to_owned()).collect::<Vec<_>>();
        assert_eq!(read("locale"), ["en", "de"]);
        assert_eq!(read("zone"), ["Europe/London", "Europe/Berlin"]);
    }

    #[test]
    fn who_comes_without_a_country_or_an_address_gets_both() {
        let assumptions = Assumptions::shipped().expect("it is shipped");
        let row =
            r#"{"type":"track","userId":"a b","event":"Order Completed","timestamp":"2011-01-01","properties":{"total":5}}"#.to_owned();
        let all = assumptions.apply(facts(&[row]));
        let first = &all[0].event;
        assert_eq!(first.text_property("country"), Some("GB"));
        assert!(first.text_property("email").is_some_and(|email| email.starts_with("ab.") && email.ends_with("@example.com")));
    }
}
