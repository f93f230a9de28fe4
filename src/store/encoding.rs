//! A profile's state as bytes: versioned, compact, deterministic (equal profiles give equal bytes).
//!
//! Layout: one byte version, the table of distinct strings, then the fields in their order of declaration. Numbers are varints (signed
//! ones zigzag), instants are distances from the instant written before, names are places in the table. Fields are not named in the bytes:
//! a profile that gains or loses a field needs a new version, with the old reader kept beside it. Until then the compiler helps: every
//! record below is taken apart and put together field by field, so that a forgotten field does not compile.
//!
//! Reading trusts nothing: whatever the bytes are, the answer is a profile or a [`DecodeError`] that says what and where.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexSet;

use crate::engine::action::{Channel, MessageId, Outcome};
use crate::engine::event::Value;
use crate::engine::money::{Currency, Money};
use crate::engine::profile::{
    Activity, Attribute, Category, Consent, Coupon, Entitlement, Exposure, Hold, Lot, Name, Notice, Overlay, Owed, Passage, Point, Profile,
    RuleMemory, Run, RunOutcome, Series, Slot, Start, StepState, Suppressed, Take, TakeKind, TierState, Try, WaitingEntry, Wallet,
};
use crate::engine::time::{Span, Timestamp};

/// The version that is written. Older ones are read:
/// 1 knew no `Start.times`, 2 no `Slot.text`.
pub const VERSION: u8 = 3;

/// The oldest version that is read.
const OLDEST: u8 = 1;

/// Lists within lists (values of attributes) deeper than this are refused.
const DEPTH_MAX: u32 = 16;

/// Why bytes are no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}, reading {}", if what.is_empty() { "the document" } else { what })]
pub struct DecodeError {
    /// Record and field (`Coupon.until`).
    pub what: &'static str,
    pub at: usize,
    pub problem: &'static str,
}

/// The bytes of a profile.
pub fn encode(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::default().append(profile, &mut bytes);
    bytes
}

/// Encodes one profile after the other, in the same memory.
#[derive(Default)]
pub struct Encoder(Writer);

impl Encoder {
    /// Appends the bytes of a profile.
    pub fn append(&mut self, profile: &Profile, bytes: &mut Vec<u8>) {
        let writer = &mut self.0;
        writer.clear();
        profile.write(writer);
        bytes.push(VERSION);
        put_number(bytes, writer.strings.len() as u64);
        for text in &writer.strings {
            put_number(bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&writer.body);
    }
}

/// The profile of these bytes.
pub fn decode(bytes: &[u8]) -> Result<Profile, DecodeError> {
    let mut reader = Reader { bytes, version: VERSION, at: 0, strings: Vec::new(), last: 0, depth: 0 };
    reader.version = match reader.byte()? {
        version @ OLDEST..=VERSION => version,
        _ => return Err(DecodeError { what: "version", at: 0, problem: "unknown version" }),
    };
    reader.strings()?;
    let mut profile = Profile::read(&mut reader)?;
    if reader.version < 2 {
        // without a key a rule's starts were counted by its runs
        for memory in profile.rules.values_mut() {
            let unkeyed = memory.starts.iter_mut().filter(|start| start.key.is_empty());
            unkeyed.for_each(|start| start.times = start.times.max(memory.runs));
        }
    }
    if reader.at == bytes.len() { Ok(profile) } else { Err(reader.error("bytes left over")) }
}

#[derive(Default)]
struct Writer {
    body: Vec<u8>,
    strings: IndexSet<Name, ahash::RandomState>,
    last: i64,
}

/// A varint: seven bits a byte, the lowest first.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

impl Writer {
    fn clear(&mut self) {
        self.body.clear();
        self.strings.clear();
        self.last = 0;
    }

    fn byte(&mut self, byte: u8) {
        self.body.push(byte);
    }

    fn number(&mut self, number: u64) {
        put_number(&mut self.body, number);
    }

    fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    fn text(&mut self, text: &Name) {
        let place = self.strings.get_index_of(text).unwrap_or_else(|| self.strings.insert_full(Arc::clone(text)).0);
        self.number(place as u64);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// The version of the bytes.
    version: u8,
    at: usize,
    strings: Vec<Name>,
    last: i64,
    depth: u32,
}

impl Reader<'_> {
    fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError { what: "", at: self.at, problem }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| self.error("the bytes end too early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], DecodeError> {
        let end = self.at.checked_add(count).ok_or_else(|| self.error("a length beyond all bytes"))?;
        let slice = self.bytes.get(self.at..end).ok_or_else(|| self.error("the bytes end too early"))?;
        self.at = end;
        Ok(slice)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.error("a number of too many bytes"))
    }

    fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A count of things that take at least a byte each: never more than there are bytes, so that no bytes can ask for the memory of
    /// the whole machine.
    fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() - self.at.min(self.bytes.len()) => Ok(count),
            _ => Err(self.error("a count beyond the end")),
        }
    }

    fn strings(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.count()? {
            let length = self.count()?;
            let at = self.at;
            let text = std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError { what: "strings", at, problem: "not UTF-8" })?;
            let text = Arc::from(text);
            self.strings.push(text);
        }
        Ok(())
    }

    fn text(&mut self) -> Result<Name, DecodeError> {
        let place = self.number()?;
        let text = usize::try_from(place).ok().and_then(|place| self.strings.get(place));
        text.cloned().ok_or_else(|| self.error("a string that is not in the table"))
    }
}

/// What can be written into the bytes and read back.
trait Stored: Sized {
    fn write(&self, to: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Writes and reads a record field by field, in the order given, which is the order in the bytes.
macro_rules! record {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl Stored for $name {
            fn write(&self, to: &mut Writer) {
                let $name { $($field),* } = self;
                $($field.write(to);)*
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                $(let $field = Stored::read(from).map_err(|e| named(e, concat!(stringify!($name), ".", stringify!($field))))?;)*
                Ok($name { $($field),* })
            }
        }
    };
}

/// Numbers as varints, refused where they do not fit.
macro_rules! unsigned {
    ($($number:ty),*) => { $(
        impl Stored for $number {
            fn write(&self, to: &mut Writer) {
                to.number(u64::from(*self));
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let number = from.number()?;
                <$number>::try_from(number).map_err(|_| from.error("a number that is too large"))
            }
        }
    )* };
}

/// A closed list of words, by its place in the list. The order of such a list is part of the format.
macro_rules! word {
    ($($name:ident in $all:expr;)*) => { $(
        impl Stored for $name {
            fn write(&self, to: &mut Writer) {
                let place = $all.iter().position(|word| word == self);
                to.number(place.unwrap_or($all.len()) as u64);
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let place = from.number()?;
                let word = usize::try_from(place).ok().and_then(|place| $all.get(place)).copied();
                word.ok_or_else(|| from.error("a word that is not in its list"))
            }
        }
    )* };
}

/// The innermost field names the error; what lies around it keeps silent.
fn named(error: DecodeError, what: &'static str) -> DecodeError {
    if error.what.is_empty() { DecodeError { what, ..error } } else { error }
}

unsigned!(u8, u16, u32, u64);

word! {
    Channel in Channel::ALL;
    Category in Category::ALL;
    Outcome in Outcome::ALL;
    RunOutcome in RunOutcome::ALL;
    TakeKind in [TakeKind::Take, TakeKind::Lapse];
    Exposure in [Exposure::Treated, Exposure::HeldOut];
}

record!(Profile {
    key,
    first_seen_at,
    country,
    locale,
    zone,
    attributes,
    addresses,
    consents,
    suppressed,
    activity,
    orders,
    refunds,
    features,
    wallet,
    tier,
    entitlements,
    coupons,
    rules,
    runs,
    waiting,
    holds,
    slots,
    looked,
    postings,
    own_events,
    decided_at,
});
record!(Attribute { value, at });
record!(Consent { granted, at, basis, expires_at });
record!(Suppressed { reason, at, address, until });
record!(Activity { first_active_at, last_active_at, reactivated_at, recent, spells, returns });
record!(Series { points, before_count, before_sum, first_at, last_at });
record!(Point { at, value });
record!(Wallet { lots, next_lot, takes, earned, owed, booked_until });
record!(Owed { class, amount, at });
record!(Lot { id, class, granted, left, granted_at, activates_at, expires_at, expiry_fixed, source });
record!(Take { kind, rule, run, step, reason, at, silence_since, allocations, restore_until, restore_share, restored_at, eligible_before });
record!(TierState { base, since, review_at, grace_until, at_risk_said, protected_until, overlay });
record!(Overlay { tier, from, until, source });
record!(Entitlement { key, value, from, until, source });
record!(Coupon { offer, code, issued_at, valid, until, redeemed_at, message, source });
record!(RuleMemory { when_hash, passage, runs, starts, sent_runs, outcome, ended_at, looked_once, last_nominal });
record!(Run { rule, key, number, version, started_at, event, exposure, silence_since, steps, ended, ended_at });
record!(WaitingEntry { rule, key, event, occurred_at });
record!(Try { channel, message, outcome, accepted_at, at });
record!(Notice { amount, not_before });
record!(Hold { rule, run, step, gate, since, until, because });
record!(Money { minor, currency });
record!(Span { months, days, ms });

impl Stored for bool {
    fn write(&self, to: &mut Writer) {
        to.byte(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(from.error("neither yes nor no")),
        }
    }
}

impl Stored for i64 {
    fn write(&self, to: &mut Writer) {
        to.signed(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.signed()
    }
}

impl Stored for i32 {
    fn write(&self, to: &mut Writer) {
        to.signed(i64::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        i32::try_from(from.signed()?).map_err(|_| from.error("a number that is too large"))
    }
}

impl Stored for Timestamp {
    /// 0 is `FOREVER`, which would otherwise spoil two distances; else the distance and one bit to tell it from 0.
    fn write(&self, to: &mut Writer) {
        if self.is_forever() {
            return to.number(0);
        }
        let distance = self.as_ms().wrapping_sub(to.last);
        to.last = self.as_ms();
        match distance {
            // one value has no room beside the 0: two bytes that no other distance begins with
            i64::MIN => {
                to.number(1);
                to.number(1);
            }
            _ => to.number(((distance << 1 ^ distance >> 63) as u64) + 1),
        }
        if distance == 0 {
            to.number(0);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let distance = match from.number()? {
            0 => return Ok(Timestamp::FOREVER),
            1 => match from.number()? {
                0 => 0,
                1 => i64::MIN,
                _ => return Err(from.error("no distance of instants")),
            },
            number => {
                let number = number - 1;
                (number >> 1) as i64 ^ -((number & 1) as i64)
            }
        };
        from.last = from.last.wrapping_add(distance);
        Ok(Timestamp::from_ms(from.last))
    }
}

impl Stored for Name {
    fn write(&self, to: &mut Writer) {
        to.text(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.text()
    }
}

impl Stored for MessageId {
    fn write(&self, to: &mut Writer) {
        to.body.extend_from_slice(&self.0.to_be_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = from.take(16)?.try_into().map_err(|_| DecodeError { what: "", at: 0, problem: "no message id" })?;
        Ok(MessageId(u128::from_be_bytes(bytes)))
    }
}

impl<T: Stored> Stored for Option<T> {
    fn write(&self, to: &mut Writer) {
        to.byte(u8::from(self.is_some()));
        if let Some(value) = self {
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn write(&self, to: &mut Writer) {
        to.number(self.len() as u64);
        for item in self {
            item.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = from.count()?;
        (0..count).map(|_| T::read(from)).collect()
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn write(&self, to: &mut Writer) {
        to.number(self.len() as u64);
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = from.count()?;
        (0..count).map(|_| Ok((K::read(from)?, V::read(from)?))).collect()
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn write(&self, to: &mut Writer) {
        self.0.write(to);
        self.1.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl Stored for Currency {
    fn write(&self, to: &mut Writer) {
        to.body.extend_from_slice(self.code().as_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = std::str::from_utf8(from.take(3)?).ok().and_then(|code| code.parse().ok());
        code.ok_or_else(|| from.error("no currency"))
    }
}

impl Stored for jiff::civil::Date {
    fn write(&self, to: &mut Writer) {
        to.signed(i64::from(self.year()));
        to.byte(self.month() as u8);
        to.byte(self.day() as u8);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let year = i16::try_from(from.signed()?).map_err(|_| from.error("no year"))?;
        let (month, day) = (from.byte()? as i8, from.byte()? as i8);
        jiff::civil::Date::new(year, month, day).map_err(|_| from.error("no date"))
    }
}

impl Stored for jiff::civil::DateTime {
    fn write(&self, to: &mut Writer) {
        self.date().write(to);
        for part in [self.hour(), self.minute(), self.second()] {
            to.byte(part as u8);
        }
        to.signed(i64::from(self.subsec_nanosecond()));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let date = jiff::civil::Date::read(from)?;
        let (hour, minute, second) = (from.byte()? as i8, from.byte()? as i8, from.byte()? as i8);
        let nanosecond = i32::try_from(from.signed()?).map_err(|_| from.error("no part of a second"))?;
        let time = jiff::civil::Time::new(hour, minute, second, nanosecond).map_err(|_| from.error("no time of day"))?;
        Ok(date.to_datetime(time))
    }
}

impl Stored for Passage {
    fn write(&self, to: &mut Writer) {
        let (kind, since) = match self {
            Passage::False => (0, None),
            Passage::Pending(since) => (1, Some(since)),
            Passage::Tried(since) => (2, Some(since)),
            Passage::Existing(since) => (3, Some(since)),
            Passage::Waiting(since) => (4, Some(since)),
        };
        to.byte(kind);
        if let Some(since) = since {
            since.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.byte()? {
            0 => Passage::False,
            1 => Passage::Pending(Stored::read(from)?),
            2 => Passage::Tried(Stored::read(from)?),
            3 => Passage::Existing(Stored::read(from)?),
            4 => Passage::Waiting(Stored::read(from)?),
            _ => return Err(from.error("no state of a passage")),
        })
    }
}

impl Stored for Slot {
    fn write(&self, to: &mut Writer) {
        let Slot { message, rule, category, channel, sent_at, text } = self;
        message.write(to);
        rule.write(to);
        category.write(to);
        channel.write(to);
        sent_at.write(to);
        text.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (message, rule, category) = (Stored::read(from)?, Stored::read(from)?, Stored::read(from)?);
        let (channel, sent_at) = (Stored::read(from)?, Stored::read(from)?);
        let text = if from.version >= 3 { Stored::read(from)? } else { None };
        Ok(Slot { message, rule, category, channel, sent_at, text })
    }
}

impl Stored for Start {
    fn write(&self, to: &mut Writer) {
        let Start { key, at, times } = self;
        key.write(to);
        at.write(to);
        times.write(to);
    }

    /// What version 1 remembers of a key is that it started: at least once.
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (key, at) = (Stored::read(from)?, Stored::read(from)?);
        let times = if from.version >= 2 { Stored::read(from)? } else { 1 };
        Ok(Start { key, at, times })
    }
}

impl Stored for StepState {
    fn write(&self, to: &mut Writer) {
        match self {
            StepState::Waiting => to.byte(0),
            StepState::Acted { at } => {
                to.byte(1);
                at.write(to);
            }
            StepState::Sent { tries, notice } => {
                to.byte(2);
                tries.write(to);
                notice.write(to);
            }
            StepState::Skipped { at, because } => {
                to.byte(3);
                at.write(to);
                because.write(to);
            }
            StepState::Ended { at, because } => {
                to.byte(4);
                at.write(to);
                because.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.byte()? {
            0 => StepState::Waiting,
            1 => StepState::Acted { at: Stored::read(from)? },
            2 => StepState::Sent { tries: Stored::read(from)?, notice: Stored::read(from)? },
            3 => StepState::Skipped { at: Stored::read(from)?, because: Stored::read(from)? },
            4 => StepState::Ended { at: Stored::read(from)?, because: Stored::read(from)? },
            _ => return Err(from.error("no state of a step")),
        })
    }
}

impl Stored for Value {
    fn write(&self, to: &mut Writer) {
        match self {
            Value::Bool(value) => {
                to.byte(0);
                value.write(to);
            }
            Value::Int(value) => {
                to.byte(1);
                value.write(to);
            }
            Value::Float(value) => {
                to.byte(2);
                to.body.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            Value::Text(value) => {
                to.byte(3);
                value.write(to);
            }
            Value::Date(value) => {
                to.byte(4);
                value.write(to);
            }
            Value::Instant(value) => {
                to.byte(5);
                value.write(to);
            }
            Value::Duration(value) => {
                to.byte(6);
                value.write(to);
            }
            Value::Money(value) => {
                to.byte(7);
                value.write(to);
            }
            Value::List(items) => {
                to.byte(8);
                items.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.byte()? {
            0 => Value::Bool(Stored::read(from)?),
            1 => Value::Int(Stored::read(from)?),
            2 => {
                let bytes = from.take(8)?.try_into().map_err(|_| DecodeError { what: "", at: 0, problem: "no number" })?;
                Value::Float(f64::from_bits(u64::from_be_bytes(bytes)))
            }
            3 => Value::Text(Stored::read(from)?),
            4 => Value::Date(Stored::read(from)?),
            5 => Value::Instant(Stored::read(from)?),
            6 => Value::Duration(Stored::read(from)?),
            7 => Value::Money(Stored::read(from)?),
            8 => Value::List(nested(from)?),
            _ => return Err(from.error("no kind of value")),
        })
    }
}

/// A list within a value, with an end to how deep lists may lie in lists.
fn nested(from: &mut Reader<'_>) -> Result<Vec<Value>, DecodeError> {
    if from.depth >= DEPTH_MAX {
        return Err(from.error("lists too deep in lists"));
    }
    from.depth += 1;
    let items = Stored::read(from);
    from.depth -= 1;
    items
}
