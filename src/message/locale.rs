//! Languages: which translation a person gets, and how dates and amounts are written in it.
//!
//! Number and date forms follow CLDR's everyday forms for English, German, French, Spanish, Italian, Dutch and Portuguese. Any
//! other language gets the neutral forms (`2026-03-06`, `1234.50 EUR`): unfamiliar, never wrong.

use jiff::civil::{DateTime, Weekday};

use crate::engine::money::Money;

/// The locales to try for `locale`, the most particular first: `zh-Hant-HK`, `zh-Hant`, `zh`. Underscores are read as hyphens.
pub fn fallback_chain(locale: &str) -> Vec<String> {
    let tag = locale.trim().replace('_', "-");
    let subtags: Vec<&str> = tag.split('-').filter(|part| !part.is_empty()).collect();
    (1..=subtags.len()).rev().map(|length| subtags.iter().take(length).copied().collect::<Vec<_>>().join("-")).collect()
}

/// How one language writes dates and amounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Language {
    forms: &'static Forms,
    /// `en-US` and its likes put the month first and tell the time by twelve hours.
    month_first: bool,
}

#[derive(PartialEq, Eq, Debug)]
struct Forms {
    code: &'static str,
    months: [&'static str; 12],
    weekdays: [&'static str; 7],
    group: &'static str,
    decimal: &'static str,
    /// Groups are written only from this many whole digits on: Spanish writes 1234 but 12.345.
    group_from: usize,
    symbol: SymbolPlace,
    /// Long date: `{d}` day, `{m}` month name, `{y}` year.
    long: &'static str,
    day_month: &'static str,
    short: &'static str,
    first_of_month: &'static str,
}

#[derive(PartialEq, Eq, Debug)]
enum SymbolPlace {
    /// `£4.50`
    Before,
    /// `€ 4,50`
    BeforeSpaced,
    /// `4,50 €`
    After,
}

impl Language {
    /// The language of a locale; the neutral forms if it is not among those listed at the head of this file.
    pub fn of(locale: &str) -> Self {
        let chain = fallback_chain(locale);
        let code = chain.last().map(|code| code.to_ascii_lowercase()).unwrap_or_default();
        let forms = LANGUAGES.iter().find(|forms| forms.code == code).unwrap_or(&NEUTRAL);
        let month_first = matches!(locale.replace('_', "-").to_ascii_lowercase().as_str(), "en-us" | "en-ph");
        Language { forms, month_first }
    }

    /// `£1,234.50`, `1.234,50 €`: an amount with its currency's symbol, or its code where no symbol is usual.
    pub fn money(self, money: Money) -> String {
        if self.forms == &NEUTRAL {
            return money.to_string();
        }
        let amount = self.decimal(money.minor.unsigned_abs(), money.currency.minor_digits());
        let symbol = match money.currency.code() {
            "EUR" => "€",
            "GBP" => "£",
            "USD" => "$",
            "JPY" => "¥",
            "INR" => "₹",
            "BRL" => "R$",
            "PLN" => "zł",
            code => code,
        };
        let sign = if money.minor < 0 { "-" } else { "" };
        match self.forms.symbol {
            // a code is a word and needs its space: `CHF 4.50`
            SymbolPlace::Before if symbol.chars().all(|c| c.is_ascii_uppercase()) => format!("{sign}{symbol}\u{a0}{amount}"),
            SymbolPlace::Before => format!("{sign}{symbol}{amount}"),
            SymbolPlace::BeforeSpaced => format!("{sign}{symbol}\u{a0}{amount}"),
            SymbolPlace::After => format!("{sign}{amount}\u{a0}{symbol}"),
        }
    }

    /// A whole number with its groups: `1,234`.
    pub fn integer(self, number: i64) -> String {
        let sign = if number < 0 { "-" } else { "" };
        format!("{sign}{}", self.decimal(number.unsigned_abs(), 0))
    }

    /// `value` is in units of 10^-`places`.
    fn decimal(self, value: u64, places: u32) -> String {
        let unit = 10u64.pow(places);
        let digits = (value / unit).to_string();
        let mut whole = String::with_capacity(digits.len() * 2);
        for (index, digit) in digits.chars().enumerate() {
            let left = digits.len() - index;
            if index > 0 && left.is_multiple_of(3) && digits.len() >= self.forms.group_from {
                whole.push_str(self.forms.group);
            }
            whole.push(digit);
        }
        if places == 0 {
            return whole;
        }
        format!("{whole}{}{:0width$}", self.forms.decimal, value % unit, width = places as usize)
    }

    /// `6 March 2026`, `6. März 2026`; US English: `March 6, 2026`.
    pub fn long_date(self, at: DateTime) -> String {
        let pattern = if self.month_first { "{m} {d}, {y}" } else { self.forms.long };
        self.fill(pattern, at)
    }

    /// The long date without its year.
    pub fn day_month(self, at: DateTime) -> String {
        let pattern = if self.month_first { "{m} {d}" } else { self.forms.day_month };
        self.fill(pattern, at)
    }

    /// Digits only: `06/03/2026`, `06.03.2026`; US English: `03/06/2026`.
    pub fn short_date(self, at: DateTime) -> String {
        let pattern = if self.month_first { "{mm}/{dd}/{y}" } else { self.forms.short };
        self.fill(pattern, at)
    }

    /// `14:30`; US English: `2:30 pm`.
    pub fn time(self, at: DateTime) -> String {
        if !self.month_first {
            return format!("{:02}:{:02}", at.hour(), at.minute());
        }
        let hour = match at.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        format!("{hour}:{:02} {}", at.minute(), if at.hour() < 12 { "am" } else { "pm" })
    }

    pub fn month(self, at: DateTime) -> &'static str {
        usize::try_from(at.month() - 1).ok().and_then(|index| self.forms.months.get(index)).copied().unwrap_or_default()
    }

    pub fn weekday(self, weekday: Weekday) -> &'static str {
        let index = usize::try_from(weekday.to_monday_zero_offset()).unwrap_or_default();
        self.forms.weekdays.get(index).copied().unwrap_or_default()
    }

    fn fill(self, pattern: &str, at: DateTime) -> String {
        let day = if at.day() == 1 && !self.month_first { self.forms.first_of_month.to_owned() } else { at.day().to_string() };
        pattern
            .replace("{dd}", &format!("{:02}", at.day()))
            .replace("{mm}", &format!("{:02}", at.month()))
            .replace("{d}", &day)
            .replace("{m}", self.month(at))
            .replace("{y}", &at.year().to_string())
    }
}

const NARROW: &str = "\u{202f}";

static NEUTRAL: Forms = Forms {
    code: "",
    months: ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"],
    weekdays: ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    group: "",
    decimal: ".",
    group_from: usize::MAX,
    symbol: SymbolPlace::After,
    long: "{y}-{mm}-{dd}",
    day_month: "{mm}-{dd}",
    short: "{y}-{mm}-{dd}",
    first_of_month: "1",
};

static LANGUAGES: [Forms; 7] = [
    Forms {
        code: "en",
        months: ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"],
        weekdays: ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        group: ",",
        decimal: ".",
        group_from: 4,
        symbol: SymbolPlace::Before,
        long: "{d} {m} {y}",
        day_month: "{d} {m}",
        short: "{dd}/{mm}/{y}",
        first_of_month: "1",
    },
    Forms {
        code: "de",
        months: ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"],
        weekdays: ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        group: ".",
        decimal: ",",
        group_from: 4,
        symbol: SymbolPlace::After,
        long: "{d}. {m} {y}",
        day_month: "{d}. {m}",
        short: "{dd}.{mm}.{y}",
        first_of_month: "1",
    },
    Forms {
        code: "fr",
        months: ["janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"],
        weekdays: ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        group: NARROW,
        decimal: ",",
        group_from: 4,
        symbol: SymbolPlace::After,
        long: "{d} {m} {y}",
        day_month: "{d} {m}",
        short: "{dd}/{mm}/{y}",
        first_of_month: "1er",
    },
    Forms {
        code: "es",
        months: [
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ],
        weekdays: ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
        group: ".",
        decimal: ",",
        group_from: 5,
        symbol: SymbolPlace::After,
        long: "{d} de {m} de {y}",
        day_month: "{d} de {m}",
        short: "{dd}/{mm}/{y}",
        first_of_month: "1",
    },
    Forms {
        code: "it",
        months: [
            "gennaio",
            "febbraio",
            "marzo",
            "aprile",
            "maggio",
            "giugno",
            "luglio",
            "agosto",
            "settembre",
            "ottobre",
            "novembre",
            "dicembre",
        ],
        weekdays: ["lunedì", "martedì", "mercoledì", "giovedì", "venerdì", "sabato", "domenica"],
        group: ".",
        decimal: ",",
        group_from: 4,
        symbol: SymbolPlace::After,
        long: "{d} {m} {y}",
        day_month: "{d} {m}",
        short: "{dd}/{mm}/{y}",
        first_of_month: "1º",
    },
    Forms {
        code: "nl",
        months: [
            "januari",
            "februari",
            "maart",
            "april",
            "mei",
            "juni",
            "juli",
            "augustus",
            "september",
            "oktober",
            "november",
            "december",
        ],
        weekdays: ["maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"],
        group: ".",
        decimal: ",",
        group_from: 4,
        symbol: SymbolPlace::BeforeSpaced,
        long: "{d} {m} {y}",
        day_month: "{d} {m}",
        short: "{dd}-{mm}-{y}",
        first_of_month: "1",
    },
    Forms {
        code: "pt",
        months: [
            "janeiro",
            "fevereiro",
            "março",
            "abril",
            "maio",
            "junho",
            "julho",
            "agosto",
            "setembro",
            "outubro",
            "novembro",
            "dezembro",
        ],
        weekdays: ["segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo"],
        group: ".",
        decimal: ",",
        group_from: 4,
        symbol: SymbolPlace::BeforeSpaced,
        long: "{d} de {m} de {y}",
        day_month: "{d} de {m}",
        short: "{dd}/{mm}/{y}",
        first_of_month: "1º",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_falls_back_from_the_particular_to_the_language() {
        assert_eq!(fallback_chain("zh-Hant-HK"), ["zh-Hant-HK", "zh-Hant", "zh"]);
        assert_eq!(fallback_chain("de_AT"), ["de-AT", "de"]);
        assert!(fallback_chain(" ").is_empty());
    }

    #[test]
    fn amounts_are_written_as_the_language_does() {
        let cases = [
            ("en-GB", "1234.50 GBP", "£1,234.50"),
            ("en", "4.50 CHF", "CHF\u{a0}4.50"),
            ("de-DE", "1234.50 EUR", "1.234,50\u{a0}€"),
            ("fr", "1234.50 EUR", "1\u{202f}234,50\u{a0}€"),
            ("es", "1234.50 EUR", "1234,50\u{a0}€"),
            ("es", "12345 EUR", "12.345,00\u{a0}€"),
            ("nl", "-3 EUR", "-€\u{a0}3,00"),
            ("en", "1200 JPY", "¥1,200"),
            ("fi", "1234.50 EUR", "1234.50 EUR"),
        ];
        for (locale, money, expected) in cases {
            assert_eq!(Language::of(locale).money(money.parse().expect("money")), expected, "{locale} {money}");
        }
    }

    #[test]
    fn dates_are_written_as_the_language_does() {
        let day: DateTime = "2026-03-01T14:05:00".parse().expect("a civil time");
        let cases = [
            ("en-GB", "1 March 2026", "01/03/2026", "14:05"),
            ("en-US", "March 1, 2026", "03/01/2026", "2:05 pm"),
            ("de", "1. März 2026", "01.03.2026", "14:05"),
            ("fr-FR", "1er mars 2026", "01/03/2026", "14:05"),
            ("es", "1 de marzo de 2026", "01/03/2026", "14:05"),
            ("ja", "2026-03-01", "2026-03-01", "14:05"),
        ];
        for (locale, long, short, time) in cases {
            let language = Language::of(locale);
            assert_eq!((language.long_date(day), language.short_date(day), language.time(day)), (long.into(), short.into(), time.into()));
        }
        assert_eq!(Language::of("de").weekday(day.weekday()), "Sonntag");
    }
}
