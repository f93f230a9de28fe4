//! Facts from files: newline-delimited JSON in the shape of Segment's spec, and CSV of orders; both plain or gzipped (told by their
//! first bytes, not by their name).
//!
//! What a line of JSON may say stands in [`super::wire`].
//!
//! Files are streamed, and a row holds at most [`MAX_ROW_BYTES`] in memory. A bad row never stops the rest: it comes out as
//! [`Rejected`], with its line and one sentence. What is deliberately not done: rows are not sorted, duplicates of an id are left to
//! the store, and declared types of properties are left to the engine (a property of another type is kept and not counted).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, json};

use super::Incoming;
use super::wire::{self, checked_id, instant};
pub use super::wire::{Origin, Received};
use crate::engine::event::{Event, EventKind};
use crate::engine::money::Currency;
use crate::engine::time::Timestamp;
use crate::store::Identity;

/// A longer row is rejected unread. Segment's limit is 32 KiB, real orders reach 43 KB.
pub const MAX_ROW_BYTES: usize = 1 << 20;
/// So much of a rejected row is kept to show.
const EXCERPT_BYTES: usize = 4096;

/// A row that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// From 1, as editors count; 0: the file as a whole.
    pub line: u64,
    pub reason: String,
    /// The row, cut at 4 KiB.
    pub row: String,
    /// The file cannot be read on: nothing follows.
    pub ends_file: bool,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
    }
}

impl Rejected {
    fn row(line: u64, reason: impl Into<String>, row: &[u8]) -> Self {
        let cut = row.get(..EXCERPT_BYTES).unwrap_or(row);
        Rejected { line, reason: reason.into(), row: String::from_utf8_lossy(cut).into_owned(), ends_file: false }
    }

    fn end(line: u64, reason: impl Into<String>) -> Self {
        Rejected { line, reason: reason.into(), row: String::new(), ends_file: true }
    }
}

/// The facts of a file in its order, or what is wrong with a row.
pub type Rows = Box<dyn Iterator<Item = Result<Incoming, Rejected>> + Send>;

/// Reads newline-delimited JSON.
pub fn read_events(path: &Path, origin: Origin) -> io::Result<Rows> {
    Ok(events_of(File::open(path)?, origin))
}

/// Reads newline-delimited JSON from anywhere.
pub fn events_of(input: impl Read + Send + 'static, origin: Origin) -> Rows {
    match plain(input) {
        Ok(input) => Box::new(Lines { input, line: 0, ended: false }.filter_map(move |row| event_row(row, &origin))),
        Err(error) => Box::new(std::iter::once(Err(Rejected::end(0, format!("cannot be read: {error}"))))),
    }
}

/// Reads orders as CSV: a header, then one row per order (a negative amount is a refund). Columns by name, in any order and case:
/// `customer` (`customer_id`, `user`, `user_id`), `date` (`ordered_at`, `timestamp`), `amount` (`total`, `revenue`), and if there
/// `currency` and `order_id` (`order`, `invoice`). Separated by comma, semicolon or tab.
pub fn read_orders(path: &Path, origin: Origin) -> io::Result<Rows> {
    Ok(orders_of(File::open(path)?, origin))
}

/// Reads orders as CSV from anywhere.
pub fn orders_of(input: impl Read + Send + 'static, origin: Origin) -> Rows {
    let opened = plain(input).map_err(|error| Rejected::end(0, format!("cannot be read: {error}")));
    match opened.and_then(|input| Orders::open(input, origin)) {
        Ok(orders) => Box::new(orders),
        Err(rejected) => Box::new(std::iter::once(Err(rejected))),
    }
}

// ------------------------------------------------------------------------------------------------------------- any file

type Input = Box<dyn BufRead + Send>;

/// Unpacks what is packed, and skips a byte order mark.
fn plain(input: impl Read + Send + 'static) -> io::Result<Input> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let packed = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut input: Input = if packed { Box::new(BufReader::new(MultiGzDecoder::new(input))) } else { Box::new(input) };
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(input)
}

/// A line without its end, with its number; too long ones are skipped without being held.
struct Lines {
    input: Input,
    line: u64,
    ended: bool,
}

impl Iterator for Lines {
    type Item = Result<(u64, Vec<u8>), Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.line += 1;
        let mut row = Vec::new();
        let mut length = 0usize;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(Rejected::end(self.line, format!("the file cannot be read on from here: {error}"))));
                }
            };
            let end = chunk.iter().position(|b| *b == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            length += part.len();
            row.extend_from_slice(part.get(..(MAX_ROW_BYTES + 1).saturating_sub(row.len()).min(part.len())).unwrap_or_default());
            let used = end.map_or(part.len(), |at| at + 1);
            let at_end_of_file = chunk.is_empty();
            self.input.consume(used);
            if at_end_of_file {
                self.ended = true;
                if length == 0 {
                    return None;
                }
            }
            if end.is_some() || at_end_of_file {
                break;
            }
        }
        if length > MAX_ROW_BYTES {
            let reason = format!("the row has {length} bytes, more than the {MAX_ROW_BYTES} that one row may have");
            return Some(Err(Rejected::row(self.line, reason, &row)));
        }
        Some(Ok((self.line, row)))
    }
}

// --------------------------------------------------------------------------------------------------------------- events

fn event_row(row: Result<(u64, Vec<u8>), Rejected>, origin: &Origin) -> Option<Result<Incoming, Rejected>> {
    let (line, bytes) = match row {
        Ok(row) => row,
        Err(rejected) => return Some(Err(rejected)),
    };
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return None;
    }
    Some(wire::message(bytes, None, origin).map_err(|reason| Rejected::row(line, reason, bytes)))
}

// --------------------------------------------------------------------------------------------------------------- orders

/// Where the columns stand.
struct Columns {
    customer: usize,
    date: usize,
    amount: usize,
    currency: Option<usize>,
    order_id: Option<usize>,
}

impl Columns {
    fn of(header: &csv::ByteRecord) -> Result<Self, String> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase().replace([' ', '-'], "_")).collect();
        let find = |known: &[&str]| known.iter().find_map(|name| names.iter().position(|n| n == name));
        let required = |known: &[&str]| {
            let found = names.iter().filter(|n| !n.is_empty()).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            find(known)
                .ok_or_else(|| format!("no column `{}` (also: {}); the header has {found}", known.first().unwrap_or(&""), known.join(", ")))
        };
        Ok(Columns {
            customer: required(&["customer", "customer_id", "customerid", "user", "user_id", "userid", "client"])?,
            date: required(&["date", "ordered_at", "order_date", "orderdate", "timestamp", "created_at", "time"])?,
            amount: required(&["amount", "total", "revenue", "value", "price"])?,
            currency: find(&["currency"]),
            order_id: find(&["order_id", "orderid", "order", "invoice", "invoice_no", "id"]),
        })
    }
}

/// Orders, read line by line: so an unclosed quote spoils one row and not the rest. The price: no line breaks within quotes.
struct Orders {
    lines: Lines,
    separator: u8,
    columns: Columns,
    origin: Origin,
    /// Line of each order id seen, by hash: a second row of an order would be taken for a copy of the first.
    seen: HashMap<u64, u64>,
}

impl Orders {
    fn open(input: Input, origin: Origin) -> Result<Self, Rejected> {
        let mut lines = Lines { input, line: 0, ended: false };
        let header = match lines.next() {
            Some(Ok((_, header))) => header,
            Some(Err(rejected)) => return Err(Rejected { ends_file: true, ..rejected }),
            None => return Err(Rejected::end(0, "the file is empty: the first line names the columns")),
        };
        let count = |separator: u8| header.iter().filter(|b| **b == separator).count();
        let separator = [b'\t', b';', b','].into_iter().max_by_key(|s| count(*s)).unwrap_or(b',');
        let columns =
            Columns::of(&fields(&header, separator)).map_err(|reason| Rejected { ends_file: true, ..Rejected::row(1, reason, &header) })?;
        Ok(Orders { lines, separator, columns, origin, seen: HashMap::new() })
    }

    fn order(&mut self, line: u64, record: &csv::ByteRecord) -> Result<Incoming, String> {
        let field = |index: usize, name: &str| match record.get(index).map(std::str::from_utf8) {
            None => Err(format!("the row has {} columns, `{name}` would be number {}", record.len(), index + 1)),
            Some(Err(_)) => Err(format!("`{name}` is not UTF-8 text")),
            Some(Ok(text)) => Ok(text.trim()),
        };
        let customer = checked_id(field(self.columns.customer, "customer")?, "customer")?;
        let date = field(self.columns.date, "date")?;
        let occurred = instant(date, &self.origin.zone)
            .ok_or_else(|| format!("the date is `{date}`; write it like `2026-11-06`, `2026-11-06 10:00` or `2026-11-06T10:00:00Z`"))?;
        let (occurred_at, received_at) = self.origin.received.instants(Some(occurred))?;
        let amount = amount(field(self.columns.amount, "amount")?)?;
        let currency = match self.columns.currency.map(|index| field(index, "currency")).transpose()? {
            Some(code) if !code.is_empty() => {
                Some(code.to_uppercase().parse::<Currency>().map_err(|_| format!("currency `{code}` is not a code like `EUR`"))?)
            }
            _ => self.origin.currency,
        };
        let order_id = match self.columns.order_id.map(|index| field(index, "order_id")).transpose()? {
            Some(id) if !id.is_empty() => self.named_order(&checked_id(id, "order_id")?, line)?,
            _ => self.unnamed_order(&customer, occurred, amount, line),
        };
        let mut properties = Map::new();
        properties.insert("total".into(), json!(amount.abs()));
        properties.insert("revenue".into(), json!(amount));
        properties.insert("order_id".into(), json!(order_id));
        if let Some(currency) = currency {
            properties.insert("currency".into(), json!(currency.code()));
        }
        let name = Arc::from(if amount < 0.0 { "Order Refunded" } else { "Order Completed" });
        let id = Arc::from(format!("order:{order_id}"));
        let event = Event { id, kind: EventKind::Track, name, occurred_at, received_at, source: self.origin.source.clone(), properties };
        Ok(Incoming { identity: Identity::User(customer), link: None, event })
    }

    fn named_order(&mut self, id: &str, line: u64) -> Result<String, String> {
        match self.seen.entry(twox_hash::XxHash3_64::oneshot(id.as_bytes())) {
            Entry::Vacant(free) => {
                free.insert(line);
                Ok(id.to_owned())
            }
            Entry::Occupied(taken) => {
                Err(format!("order `{id}` stands on line {} already; write one row per order, with its total", taken.get()))
            }
        }
    }

    /// An order without a number: named by what it says, and counted where two say the same, so that importing a file again adds
    /// nothing.
    fn unnamed_order(&mut self, customer: &str, at: Timestamp, amount: f64, line: u64) -> String {
        let name = format!("{customer}/{at}/{amount}");
        let mut copy = 1;
        loop {
            let id = if copy == 1 { name.clone() } else { format!("{name}/{copy}") };
            if let Entry::Vacant(free) = self.seen.entry(twox_hash::XxHash3_64::oneshot(id.as_bytes())) {
                free.insert(line);
                return id;
            }
            copy += 1;
        }
    }
}

impl Iterator for Orders {
    type Item = Result<Incoming, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, row) = match self.lines.next()? {
                Ok(row) => row,
                Err(rejected) => return Some(Err(rejected)),
            };
            if !row.trim_ascii().is_empty() {
                let record = fields(&row, self.separator);
                return Some(
                    self.order(line, &record)
                        .and_then(|fact| self.origin.believe(fact))
                        .map_err(|reason| Rejected::row(line, reason, row.trim_ascii_end())),
                );
            }
        }
    }
}

/// The fields of one line; quotes as usual in CSV.
fn fields(line: &[u8], separator: u8) -> csv::ByteRecord {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(line.len().max(1))
        .from_reader(line);
    let mut record = csv::ByteRecord::new();
    // reading from memory cannot fail, and a line without fields was not asked for
    let _has_fields = reader.read_byte_record(&mut record);
    record
}

/// A decimal number with a point; a currency sign or code around it is not read.
fn amount(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|n: &f64| n.is_finite());
    if let Some(number) = number.filter(|number| number.abs() >= super::AMOUNT_MAX) {
        return Err(format!("the amount is {number}: no order is that large"));
    }
    number.ok_or_else(|| format!("the amount is `{text}`; write a number with a point, like `1234.50`"))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    fn origin() -> Origin {
        Origin::new("test", Received::At(at("2026-06-01T00:00:00Z")))
    }

    fn packed(text: &str) -> Cursor<Vec<u8>> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("memory takes it");
        Cursor::new(encoder.finish().expect("memory takes it"))
    }

    fn reason(row: &str) -> String {
        events_of(Cursor::new(row.to_owned()), origin()).next().expect("one row").expect_err("a bad row").reason
    }

    #[test]
    fn the_three_kinds_are_read_plain_and_packed_alike() {
        let text = concat!(
            "\u{feff}",
            r#"{"type":"identify","messageId":"1","userId":"u","timestamp":"2026-01-01T00:00:00Z","traits":{"country":"DE"}}"#,
            "\r\n\n",
            r#"{"type":"track","messageId":"2","anonymousId":"a","event":"Order Completed","timestamp":"2026-01-01T01:00:00+01:00"}"#,
            "\n",
            r#"{"type":"consent","userId":7,"timestamp":"2026-01-01","properties":{"purpose":"marketing","channel":"email","granted":true}}"#,
        );
        let plain: Vec<_> = events_of(Cursor::new(text), origin()).map(|row| row.expect("a good row")).collect();
        let unpacked: Vec<_> = events_of(packed(text), origin()).map(|row| row.expect("a good row")).collect();
        assert_eq!(plain, unpacked);
        let [identify, track, consent] = &plain[..] else { panic!("three rows: {plain:?}") };
        assert_eq!(identify.event.text_property("country"), Some("DE"));
        assert_eq!(track.identity, Identity::Anonymous("a".into()));
        assert_eq!(track.event.occurred_at, at("2026-01-01T00:00:00Z"));
        assert_eq!((consent.event.kind, &consent.identity), (EventKind::Consent, &Identity::User("7".into())));
    }

    #[test]
    fn a_bad_row_says_why_and_the_rest_goes_on() {
        let bad = [
            ("{", "not JSON"),
            ("[1]", "not a JSON object"),
            (r#"{"userId":"u","timestamp":"2026-01-01"}"#, "no `type`"),
            (r#"{"type":"poke","userId":"u","timestamp":"2026-01-01"}"#, "type `poke` is none of `track`"),
            (r#"{"type":"identify","timestamp":"2026-01-01"}"#, "nobody to whom it happened"),
            (r#"{"type":"identify","userId":" ","timestamp":"2026-01-01"}"#, "nobody to whom it happened"),
            (r#"{"type":"identify","userId":["u"],"timestamp":"2026-01-01"}"#, "`userId` must be text, not a list"),
            (r#"{"type":"identify","userId":"u"}"#, "no `timestamp`"),
            (r#"{"type":"identify","userId":"u","timestamp":"yesterday"}"#, "`timestamp` is `yesterday`"),
            (r#"{"type":"identify","userId":"u","timestamp":"9999-12-31T00:00:00Z"}"#, "`timestamp` is `9999"),
            (r#"{"type":"track","userId":"u","timestamp":"2026-01-01"}"#, "without `event`"),
            (r#"{"type":"track","userId":"u","event":5,"timestamp":"2026-01-01"}"#, "`event` must be text, not a number"),
            (r#"{"type":"track","userId":"u","event":"x","timestamp":"2026-01-01","properties":[]}"#, "must be an object, not a list"),
            (r#"{"type":"consent","userId":"u","timestamp":"2026-01-01","properties":{"channel":"email"}}"#, "needs `purpose`"),
            (
                r#"{"type":"track","userId":"u","event":"tier_changed","timestamp":"2026-01-01"}"#,
                "`tier_changed` is what the engine itself",
            ),
            (r#"{"type":"track","userId":"u","event":"message_opened","timestamp":"2026-01-01"}"#, "`message_opened` is what the engine"),
            (
                r#"{"type":"track","userId":"u","event":"Order Completed","timestamp":"2026-01-01","properties":{"total":1e15}}"#,
                "no order is that large",
            ),
            (
                r#"{"type":"consent","userId":"u","timestamp":"2026-01-01","properties":{"purpose":"marketing","channel":"fax","granted":true}}"#,
                "channel `fax` is not known",
            ),
        ];
        for (row, expected) in bad {
            let got = reason(row);
            assert!(got.contains(expected), "{row}\n  {got}");
        }
        let good = r#"{"type":"identify","userId":"u","timestamp":"2026-01-01"}"#;
        let text = bad.iter().map(|(row, _)| *row).chain([good]).collect::<Vec<_>>().join("\n");
        let rows: Vec<_> = events_of(Cursor::new(text), origin()).collect();
        assert_eq!(rows.len(), bad.len() + 1);
        assert!(rows.last().is_some_and(Result::is_ok));
        assert_eq!(rows[3].as_ref().expect_err("bad").line, 4);
    }

    #[test]
    fn a_huge_row_is_rejected_without_being_held() {
        let good = "{\"type\":\"identify\",\"userId\":\"u\",\"timestamp\":\"2026-01-01\"}\n";
        let huge = io::repeat(b'x').take(50_000_000).chain(Cursor::new(format!("\n{good}")));
        let rows: Vec<_> = events_of(Cursor::new(good).chain(huge), origin()).collect();
        assert_eq!(rows.len(), 3);
        let rejected = rows[1].as_ref().expect_err("too large");
        assert!(rejected.reason.contains("50000000 bytes") && rejected.row.len() == EXCERPT_BYTES && rejected.line == 2);
    }

    #[test]
    fn a_file_cut_short_says_so_after_what_could_be_read() {
        let good = "{\"type\":\"identify\",\"userId\":\"u\",\"timestamp\":\"2026-01-01\"}\n";
        let mut bytes = packed(&good.repeat(5000)).into_inner();
        bytes.truncate(bytes.len() - 20);
        let rows: Vec<_> = events_of(Cursor::new(bytes), origin()).collect();
        let last = rows.last().expect("rows").as_ref().expect_err("cut short");
        assert!(last.ends_file && last.reason.contains("cannot be read on"), "{last}");
    }

    #[test]
    fn what_claims_to_come_from_the_future_is_clamped() {
        let row = r#"{"type":"identify","userId":"u","timestamp":"2027-01-01T00:00:00Z"}"#;
        let event = events_of(Cursor::new(row), origin()).next().expect("a row").expect("good").event;
        assert_eq!((event.occurred_at, event.received_at), (at("2026-06-01T00:00:00Z"), at("2026-06-01T00:00:00Z")));
        let replay = events_of(Cursor::new(row), Origin::new("test", Received::AsItHappened)).next().expect("a row").expect("good").event;
        assert_eq!((replay.occurred_at, replay.received_at), (at("2027-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn what_cannot_be_believed_is_said_so() {
        let origin = || Origin {
            plausible: (at("1990-01-01T00:00:00Z"), at("2026-06-02T00:00:00Z")),
            ..Origin::new("test", Received::AsItHappened)
        };
        let said = |time: &str| {
            let row = format!(r#"{{"type":"identify","userId":"u","timestamp":"{time}"}}"#);
            events_of(Cursor::new(row), origin()).next().expect("a row").err().map(|rejected| rejected.reason).unwrap_or_default()
        };
        assert!(said("2061-03-01T00:00:00Z").contains("2061-03-01T00:00:00Z, which is still to come"));
        assert!(said("1970-01-01T00:00:00Z").contains("is its date missing?"));
        assert_eq!(said("2026-06-02T00:00:00Z"), "");
        let order = |row: &str| {
            let text = format!("customer,date,amount\n{row}\n");
            orders_of(Cursor::new(text), origin()).next().expect("a row").expect_err("not believed").reason
        };
        assert!(order("c1,2061-01-01,10").contains("still to come"));
        assert!(order("c1,2026-01-01,1e300").contains("no order is that large"));
    }

    #[test]
    fn a_row_without_an_id_is_the_same_fact_when_it_comes_again() {
        let row = r#"{"type":"identify","userId":"u","timestamp":"2026-01-01"}"#;
        let id = || events_of(Cursor::new(row), origin()).next().expect("a row").expect("good").event.id;
        assert_eq!(id(), id());
    }

    #[test]
    fn orders_are_read_under_many_names() {
        let files = [
            "customer,date,amount\nc1,2026-01-02,10.5\n",
            "Order ID;Customer ID;Ordered At;Total;Currency\n7;c1;2026-01-02 00:00;10.5;gbp\n",
            "\"revenue\"\t\"user\"\t\"timestamp\"\n10.50\tc1\t2026-01-02T00:00:00Z\n",
            "customer,date,amount\r\n\"c1\",2026-01-02 00:00:00,10.50\r\n",
        ];
        for text in files {
            let rows: Vec<_> = orders_of(Cursor::new(text), origin()).collect();
            let order = rows[0].as_ref().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(order.identity, Identity::User("c1".into()), "{text}");
            assert_eq!(
                (order.event.occurred_at, order.event.property("total")),
                (at("2026-01-02T00:00:00Z"), Some(&json!(10.5))),
                "{text}"
            );
            assert_eq!(&*order.event.name, "Order Completed");
        }
    }

    #[test]
    fn a_bad_order_says_its_line_and_why() {
        let text = concat!(
            "order_id,customer,date,amount\n1,c1,2026-01-02,10\n2,,2026-01-02,10\n3,c1,02/01/2026,10\n4,c1,2026-01-02,ten\n5,c1\n",
            "1,c1,2026-01-02,5\n6,\"c1,2026-01-02,10\n7,c2,2026-01-03,-4\n",
        );
        let rows: Vec<_> = orders_of(Cursor::new(text), origin()).collect();
        let said = |index: usize| rows[index].as_ref().expect_err("a bad row").to_string();
        assert_eq!(said(1), "line 3: `customer` is empty");
        assert!(said(2).starts_with("line 4: the date is `02/01/2026`"), "{}", said(2));
        assert!(said(3).starts_with("line 5: the amount is `ten`"), "{}", said(3));
        assert!(said(4).starts_with("line 6: the row has 2 columns"), "{}", said(4));
        assert!(said(5).starts_with("line 7: order `1` stands on line 2"), "{}", said(5));
        assert!(said(6).starts_with("line 8: the row has 2 columns"), "{}", said(6));
        let refund = rows[7].as_ref().expect("a refund");
        assert_eq!((&*refund.event.name, refund.event.property("total")), ("Order Refunded", Some(&json!(4.0))));
        let headless = orders_of(Cursor::new("who,when,amount\n"), origin()).next().expect("a row").expect_err("no header");
        assert!(headless.reason.contains("no column `customer`") && headless.reason.contains("`who`"), "{headless}");
    }

    #[test]
    fn two_equal_orders_without_a_number_are_two_orders_each_time_the_same() {
        let text = "customer,date,amount\nc1,2026-01-02,10\nc1,2026-01-02,10\n";
        let ids = || orders_of(Cursor::new(text), origin()).map(|row| row.expect("good").event.id).collect::<Vec<_>>();
        assert_eq!(ids(), ids());
        assert_ne!(ids()[0], ids()[1]);
    }
}
