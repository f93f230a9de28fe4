//! Money: minor units with their currency. Amounts of different currencies never meet without a rate.

use std::fmt;
use std::str::FromStr;

/// An ISO 4217 code, three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Digits after the decimal point (ISO 4217, column "minor unit"; 2 unless listed).
    pub fn minor_digits(&self) -> u32 {
        match &self.0 {
            b"JPY" | b"KRW" | b"VND" | b"CLP" | b"ISK" | b"PYG" | b"UGX" | b"XAF" | b"XOF" | b"XPF" | b"RWF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Currency([a, b, c])),
            _ => Err(MoneyError(text.to_owned())),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units (cents) of one currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Self {
        Money { minor, currency }
    }

    /// A decimal amount of major units, rounded half away from zero to the currency's minor unit. None if it does not fit or is
    /// not finite.
    pub fn from_major(major: f64, currency: Currency) -> Option<Self> {
        let scaled = major * 10f64.powi(currency.minor_digits() as i32);
        let rounded = scaled.round();
        (rounded.is_finite() && rounded.abs() < 9.0e15).then_some(Money { minor: rounded as i64, currency })
    }

    /// Whole major units, rounded down: what "1 point per 1 USD" counts.
    pub fn major_floor(&self) -> i64 {
        self.minor.div_euclid(10i64.pow(self.currency.minor_digits()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of money; write it like `30 USD` or `4.50 EUR`")]
pub struct MoneyError(pub String);

impl FromStr for Money {
    type Err = MoneyError;

    /// `30 USD`, `4.50 EUR`, `-12 JPY`.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let error = || MoneyError(text.to_owned());
        let (number, code) = text.trim().rsplit_once(' ').ok_or_else(error)?;
        let currency: Currency = code.parse().map_err(|_| error())?;
        let number = number.trim();
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let places = currency.minor_digits() as usize;
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > places {
            return Err(error());
        }
        let minor: i64 = format!("{whole}{fraction:0<places$}").parse().map_err(|_| error())?;
        Ok(Money { minor: if negative { -minor } else { minor }, currency })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.currency.minor_digits();
        let unit = 10i64.pow(places);
        let sign = if self.minor < 0 { "-" } else { "" };
        let (whole, rest) = (self.minor.unsigned_abs() / unit as u64, self.minor.unsigned_abs() % unit as u64);
        if places == 0 || rest == 0 {
            write!(f, "{sign}{whole} {}", self.currency)
        } else {
            write!(f, "{sign}{whole}.{rest:0width$} {}", self.currency, width = places as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_and_written_alike() {
        for (text, minor) in [("30 USD", 3000), ("4.50 EUR", 450), ("-12 JPY", -12), ("0.005 KWD", 5), ("1000 GBP", 100_000)] {
            let money: Money = text.parse().expect("money");
            assert_eq!(money.minor, minor, "{text}");
        }
        for text in ["30", "USD 30", "4.505 EUR", "1.5 JPY", "a USD", "30 usd", ""] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }
}
