//! The allow-list of a trial: who is really written to.

/// Who is really written to: addresses as written, or with `*` for any text (`*@shop.example`, `+4915*`). Upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList(Vec<String>);

impl AllowList {
    /// Reads a list separated by commas.
    ///
    /// # Errors
    /// It names nobody.
    pub fn parse(text: &str) -> Result<AllowList, String> {
        let patterns: Vec<String> = text.split(',').map(|one| one.trim().to_lowercase()).filter(|one| !one.is_empty()).collect();
        if patterns.is_empty() {
            Err("it names nobody: give addresses separated by commas, or `everybody`".into())
        } else {
            Ok(AllowList(patterns))
        }
    }

    pub fn allows(&self, address: &str) -> bool {
        let address = address.trim().to_lowercase();
        self.0.iter().any(|pattern| matches(pattern, &address))
    }
}

/// The pieces between the stars stand in the text in their order, the first at its beginning and the last at its end.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = text.find(piece) else { return false };
        text = text.get(at + piece.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_list_allows() {
        let table = [
            ("ana@shop.example", "ana@shop.example", true),
            ("ana@shop.example", "Ana@Shop.Example ", true),
            ("ana@shop.example", "hana@shop.example", false),
            ("*@shop.example", "ben@shop.example", true),
            ("*@shop.example", "ben@shop.example.org", false),
            ("+4915*", "+491511234567", true),
            ("+4915*", "+4416", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("x, ana@shop.example", "ana@shop.example", true),
        ];
        for (list, address, expected) in table {
            assert_eq!(AllowList::parse(list).expect("a list").allows(address), expected, "{list} and {address}");
        }
        assert!(AllowList::parse(" , ").is_err());
    }
}
