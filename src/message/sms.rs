//! How a text message is cut into segments, each of which is paid for: 160 characters of the GSM alphabet, or 70 of any; in several
//! segments 153, or 67.

/// The GSM 7-bit default alphabet (3GPP TS 23.038).
const BASIC: &str =
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// These take the room of two.
const EXTENDED: &str = "^{}\\[~]|€\u{c}";

/// A text message as it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub segments: usize,
    /// The first character that is not in the GSM alphabet: because of it fewer fit into a segment.
    pub odd: Option<char>,
}

pub fn cut(text: &str) -> Cut {
    let odd = text.chars().find(|c| room_of(*c).is_none());
    let (single, several) = if odd.is_none() { (160, 153) } else { (70, 67) };
    let rooms: Vec<usize> = text.chars().map(|c| if odd.is_none() { room_of(c).unwrap_or(1) } else { c.len_utf16() }).collect();
    let whole: usize = rooms.iter().sum();
    if whole <= single {
        return Cut { segments: usize::from(whole > 0), odd };
    }
    let (mut segments, mut left) = (1, several);
    for room in rooms {
        // a character is never cut
        if room > left {
            segments += 1;
            left = several;
        }
        left -= room;
    }
    Cut { segments, odd }
}

fn room_of(c: char) -> Option<usize> {
    match c {
        c if BASIC.contains(c) => Some(1),
        c if EXTENDED.contains(c) => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_as_networks_cut_it() {
        for (text, segments, odd) in [
            (String::new(), 0, None),
            ("a".repeat(160), 1, None),
            ("a".repeat(161), 2, None),
            ("a".repeat(306), 2, None),
            ("a".repeat(307), 3, None),
            ("€".repeat(80), 1, None),
            ("€".repeat(81), 2, None),
            // one of two places at the end of a segment stays empty
            (format!("{}€{}", "a".repeat(152), "a".repeat(152)), 3, None),
            ("é".repeat(160), 1, None),
            ("’".repeat(70), 1, Some('’')),
            (format!("{}’", "a".repeat(70)), 2, Some('’')),
            ("😀".repeat(35), 1, Some('😀')),
            ("😀".repeat(36), 2, Some('😀')),
        ] {
            assert_eq!(cut(&text), Cut { segments, odd }, "{text}");
        }
    }
}
