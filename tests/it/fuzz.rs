//! Whatever comes from outside is read without a panic: rule files, templates, settings, provider files, events and callbacks, as they
//! stand in a corpus (tests/data/fuzz and what other tests read) and changed by chance. The chance is the same in each run, and the rounds
//! are bounded; `FUZZ_ROUNDS` asks for more. That a panic would be found is shown by planting one.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use rekindle::channel::http::provider::{Description, shipped};
use rekindle::engine::decide::{Context, World, decide};
use rekindle::engine::profile::Profile;
use rekindle::engine::rule::RuleSet;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::Timestamp;
use rekindle::feedback::callback::read;
use rekindle::feedback::signature::{Call as Signed, Verifier};
use rekindle::ingest::wire::{Call, Origin, Received, message};
use rekindle::message::Templates;
use rekindle::rulebook::Rulebook;
use rekindle::settings::Settings;
use serde_json::Value as Json;

/// Changed texts that each reader is given.
const ROUNDS: usize = 4_000;
/// Changes of one text at most.
const CHANGES: usize = 4;
/// A text does not grow beyond this.
const BYTES_MAX: usize = 16 << 10;

/// What breaks readers: limits of numbers and of time, signs of every grammar that is read here, texts that are no text.
const TOKENS: [&[u8]; 40] = [
    b"0",
    b"-1",
    b"-0.0",
    b"1e309",
    b"1e-309",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
    b"1000000000001",
    b"0.1e1",
    b"null",
    b"true",
    b"NaN",
    b"\"\"",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":",
    b":",
    b",",
    b"'",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xf0\x9f\x9b\x92",
    b"\n",
    b"\r",
    b"\t- ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"{{ x }}",
    b"{% for i in (1..9) %}",
    b"9999999d",
    b"9999-12-31T23:59:60Z",
    b"-262143-01-01",
    b"24:00",
    b"%00%ff+&=",
];

/// The first of them are numbers.
const NUMBERS: usize = 10;

/// A chance that is the same in each run (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    fn range(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let at = self.below(length + 1);
        at..(at + self.below(longest)).min(length)
    }

    fn change(&mut self, text: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let other = &corpus[self.below(corpus.len())];
        match self.below(8) {
            0 => drop(text.drain(self.range(text.len(), 16))),
            1 => drop(text.splice(self.range(text.len(), 4), TOKENS[self.below(TOKENS.len())].iter().copied())),
            // the values of what is written there
            2 => {
                if let Some(value) = self.value(text) {
                    text.splice(value, TOKENS[self.below(TOKENS.len())].iter().copied());
                }
            }
            3 => {
                if let Some(number) = self.number(text) {
                    text.splice(number, TOKENS[self.below(NUMBERS)].iter().copied());
                }
            }
            4 => {
                let part = other[self.range(other.len(), 64)].to_vec();
                let at = self.range(text.len(), 8);
                text.splice(at, part);
            }
            5 => {
                let part = text[self.range(text.len(), 64)].to_vec();
                let at = self.below(text.len() + 1);
                text.splice(at..at, part);
            }
            6 => text.truncate(self.below(text.len() + 1)),
            _ if !text.is_empty() => {
                let at = self.below(text.len());
                text[at] ^= 1 << self.below(8);
            }
            _ => {}
        }
        text.truncate(BYTES_MAX);
    }

    /// Changes the meaning and keeps the grammar: some value of a JSON text becomes another, or goes.
    fn change_json(&mut self, text: &mut Vec<u8>) {
        let Ok(mut root) = serde_json::from_slice::<Json>(text) else { return };
        let mut node = &mut root;
        // down to some value, never the whole
        let mut is_whole = true;
        while std::mem::take(&mut is_whole) || self.below(3) > 0 {
            let inner: Vec<&mut Json> = match node {
                Json::Object(fields) => fields.values_mut().collect(),
                Json::Array(items) => items.iter_mut().collect(),
                _ => break,
            };
            let count = inner.len();
            match inner.into_iter().nth(self.below(count)) {
                Some(inner) => node = inner,
                None => return,
            }
        }
        match (self.below(3), &mut *node) {
            (0, Json::Object(fields)) => {
                let place = self.below(fields.len());
                let key = fields.keys().nth(place).cloned().unwrap_or_default();
                fields.remove(&key);
            }
            (1, Json::Array(items)) => items.extend(items.clone()),
            _ => {
                let choice = if node.is_number() { NUMBERS } else { TOKENS.len() };
                let token = String::from_utf8_lossy(TOKENS[self.below(choice)]).into_owned();
                *node = serde_json::from_str(&token).unwrap_or(Json::String(token));
            }
        }
        *text = root.to_string().into_bytes();
    }

    /// Where some value stands: what lies between a colon and the end of what follows.
    fn value(&mut self, text: &[u8]) -> Option<std::ops::Range<usize>> {
        let colons: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b':' || **byte == b'=').map(|(at, _)| at).collect();
        let colon = *colons.get(self.below(colons.len()))?;
        let from = (colon + 1..text.len()).find(|at| text[*at] != b' ')?;
        let end = (from..text.len()).find(|at| matches!(text[*at], b',' | b'}' | b']' | b'\n' | b'&'));
        Some(from..end.unwrap_or(text.len()))
    }

    fn number(&mut self, text: &[u8]) -> Option<std::ops::Range<usize>> {
        let part_of = |at: usize| text.get(at).is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
        let starts: Vec<usize> = (0..text.len()).filter(|at| part_of(*at) && (*at == 0 || !part_of(at - 1))).collect();
        let from = *starts.get(self.below(starts.len()))?;
        Some(from..(from..text.len()).find(|at| !part_of(*at)).unwrap_or(text.len()))
    }
}

/// The first text at which the reader panics, with its words.
fn panics(corpus: &[Vec<u8>], rounds: usize, reader: impl Fn(&[u8])) -> Option<(Vec<u8>, String)> {
    let mut chance = Chance(7);
    for round in 0..corpus.len() + rounds {
        let mut text = corpus[round % corpus.len()].clone();
        if round >= corpus.len() {
            let keeps_grammar = chance.below(2) == 0;
            for _ in 0..=chance.below(CHANGES) {
                if keeps_grammar { chance.change_json(&mut text) } else { chance.change(&mut text, corpus) }
            }
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| reader(&text))) {
            let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            return Some((text, words.unwrap_or_default()));
        }
    }
    None
}

fn never_panics(what: &str, corpus: &[Vec<u8>], reader: impl Fn(&[u8])) {
    assert!(corpus.len() >= 3, "{what}: a corpus of {}", corpus.len());
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    if let Some((text, words)) = panics(corpus, rounds, reader) {
        panic!("{what}: `{words}` at {:?} (put it into tests/data/fuzz)", String::from_utf8_lossy(&text));
    }
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every file below some folders that ends so.
fn files(folders: &[&str], ending: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|path| folder(path)).collect();
    while let Some(directory) = open.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&directory).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn now() -> Timestamp {
    Timestamp::parse("2026-03-02T10:00:00Z").expect("an instant")
}

#[test]
fn no_rule_file_makes_the_check_panic() {
    let corpus = files(&["tests/data/rules", "rules"], ".yaml");
    never_panics("rule files", &corpus, |bytes| {
        let book = Rulebook::of(vec![SourceFile { path: "fuzz.yaml".into(), text: text(bytes).into() }]);
        book.render_errors();
    });
}

#[test]
fn no_template_makes_its_reader_panic() {
    let corpus = files(&["rules/templates"], ".liquid");
    let about = "rekindle: 1\ntemplate: { purpose: account }".to_owned();
    never_panics("templates", &corpus, |bytes| {
        let parts = ["subject", "text", "html", "sms"].map(|part| (format!("fuzz/en/{part}.liquid"), text(bytes)));
        let files: Vec<(String, String)> = [("fuzz/template.yaml".to_owned(), about.clone())].into_iter().chain(parts).collect();
        Templates::parse(&files);
    });
}

#[test]
fn no_settings_and_no_provider_file_make_their_readers_panic() {
    let settings = files(&["config"], ".yaml");
    never_panics("settings", &settings, |bytes| drop(Settings::read("fuzz.yaml", &text(bytes))));
    let providers = files(&["config/providers"], ".yaml");
    never_panics("provider files", &providers, |bytes| drop(Description::read("fuzz.yaml", &text(bytes))));
}

/// Reads an event as the door does, and lets the shipped rules decide about whom it is about.
fn decide_about(rules: &RuleSet, bytes: &[u8]) {
    let origin = Origin::new("fuzz", Received::Live { at: now(), skew_ms: 0, future_tolerance_ms: 300_000 });
    for call in Call::ALL.into_iter().map(Some).chain([None]) {
        let Ok(incoming) = message(bytes, call, &origin) else { continue };
        let events = incoming.into_new(&rules.dictionary).map(|new| new.event).collect();
        let (older, world) = (std::collections::HashMap::new(), World::default());
        let ctx = Context { rules, older: &older, world: &world };
        let decision = decide(&ctx, Profile::new("ana"), events, now());
        rekindle::store::encoding::encode(&decision.profile);
    }
}

#[test]
fn no_event_makes_its_reader_or_a_decision_panic() {
    let book = Rulebook::open(&folder("rules")).expect("the shipped rules");
    let rules = book.set().expect("sound rules");
    never_panics("events", &files(&["tests/data/fuzz/events"], ".json"), |bytes| decide_about(&rules, bytes));
}

#[test]
fn no_callback_makes_its_reader_panic() {
    let samples: serde_yaml::Value =
        serde_yaml::from_slice(&fs::read(folder("tests/data/callbacks.yaml")).expect("samples")).expect("YAML");
    let bodies = samples.as_sequence().expect("a list").iter().map(|sample| match &sample["body"] {
        serde_yaml::Value::String(form) => form.clone().into_bytes(),
        json => serde_json::to_vec(json).expect("JSON"),
    });
    let own = files(&["tests/data/fuzz/callbacks"], "");
    let corpus: Vec<Vec<u8>> = bodies.chain(own).collect();
    let callbacks: Vec<_> =
        shipped().into_iter().filter_map(|(name, yaml)| Description::read(name, yaml).expect("a shipped file").callback).collect();
    let secrets = ["user:password", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="];
    never_panics("callbacks", &corpus, |bytes| {
        let query = text(bytes.get(..bytes.len().min(64)).unwrap_or_default());
        for callback in &callbacks {
            // who reads nothing of what cannot be read panics at nothing: the answer does not matter
            let _read = read(callback, &query, bytes, now());
            let mut headers = HeaderMap::new();
            for name in
                ["x-signature", "x-timestamp", "x-twilio-signature", "x-hub-signature-256", "webhook-signature", "webhook-timestamp"]
            {
                if let Ok(value) = http::HeaderValue::from_bytes(bytes.get(..bytes.len().min(80)).unwrap_or_default()) {
                    headers.insert(name, value);
                }
            }
            for secret in secrets {
                if let Ok(verifier) = Verifier::new(&callback.signature, &[secret]) {
                    let call = Signed { url: &query, headers: &headers, body: bytes, now: now() };
                    assert!(verifier.verify(&call).is_err() || headers.is_empty(), "chance signed it");
                }
            }
        }
    });
}

#[test]
fn a_planted_panic_is_found() {
    let corpus = files(&["tests/data/fuzz/events"], ".json");
    let event = |bytes: &[u8]| {
        let origin = Origin::new("fuzz", Received::Live { at: now(), skew_ms: 0, future_tolerance_ms: 300_000 });
        message(bytes, None, &origin).ok().map(|incoming| incoming.event)
    };
    // a sound event with a total that nobody thought of
    let found = panics(&corpus, ROUNDS, |bytes| {
        let total = event(bytes).and_then(|event| event.property("total").and_then(Json::as_f64));
        assert!(total.is_none_or(|total| total > 0.0), "a share of nothing");
    });
    let (text, words) = found.expect("the panic that was planted");
    assert!(words == "a share of nothing" && !corpus.contains(&text), "{words}: {}", String::from_utf8_lossy(&text));
    // and it is no wonder: many of the changed texts still are events
    let reached = AtomicUsize::new(0);
    panics(&corpus, ROUNDS, |bytes| _ = reached.fetch_add(usize::from(event(bytes).is_some()), Ordering::Relaxed));
    assert!(reached.load(Ordering::Relaxed) * 10 > ROUNDS, "{reached:?} events in {ROUNDS} rounds");
}
