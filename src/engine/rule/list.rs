//! Uploaded lists of people: one column of a CSV file beside the rules holds user ids, and a segment is whoever stands in it.

use std::collections::HashSet;

use twox_hash::XxHash3_64;

/// The people of a list, by user id.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    people: HashSet<Box<str>>,
    /// Changes with whoever is in it.
    pub digest: u64,
}

impl List {
    /// Reads a column of a CSV text whose first line names the columns; separated by commas, semicolons or tabs.
    ///
    /// # Errors
    /// What is wrong, with its line, and the columns that there are if the column is not there.
    pub fn read(text: &str, column: &str) -> Result<List, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let header = text.lines().next().unwrap_or_default();
        let separator = [b'\t', b';', b','].into_iter().max_by_key(|s| header.bytes().filter(|b| b == s).count()).unwrap_or(b',');
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).trim(csv::Trim::All).from_reader(text.as_bytes());
        let columns = reader.headers().map_err(|error| error.to_string())?.clone();
        let Some(place) = columns.iter().position(|name| name == column) else {
            let there: Vec<&str> = columns.iter().collect();
            return Err(format!("it has no column `{column}`; its first line names {}", there.join(", ")));
        };
        let mut people: HashSet<Box<str>> = HashSet::new();
        for row in reader.records() {
            let row = row.map_err(|error| match error.position() {
                Some(position) => format!("line {}: the row has another number of columns than the first line", position.line()),
                None => error.to_string(),
            })?;
            let id = row.get(place).unwrap_or_default();
            if !id.is_empty() {
                people.insert(Box::from(id));
            }
        }
        if people.is_empty() {
            return Err(format!("nobody stands in its column `{column}`"));
        }
        // whoever is in it counts, not the order of the rows
        let digest = people.iter().fold(0_u64, |sum, id| sum.wrapping_add(XxHash3_64::oneshot(id.as_bytes())));
        Ok(List { people, digest })
    }

    pub fn has(&self, user: &str) -> bool {
        self.people.contains(user)
    }

    pub fn len(&self) -> usize {
        self.people.len()
    }

    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_read_however_the_table_is_written() {
        for text in [
            "user_id,note\nana,x\nben,y\n",
            "note;user_id\nx;ana\ny;ben",
            "\u{feff}user_id\r\n ana \r\nben\r\nana\r\n\r\n",
            "user_id\tnote\nben\t\"a\tb\"\n\"ana\"\t\n\t\n",
        ] {
            let list = List::read(text, "user_id").expect(text);
            assert_eq!((list.len(), list.has("ana"), list.has("ben"), list.has("x")), (2, true, true, false), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, told) in [
            ("id\nana", "no column `user_id`; its first line names id"),
            ("user_id\n\n", "nobody stands in its column"),
            ("", "no column `user_id`"),
            ("user_id,b\nana,1\nben\n", "line 3: the row has another number"),
        ] {
            let error = List::read(text, "user_id").expect_err(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_people() {
        let digest = |text: &str| List::read(text, "u").map(|list| list.digest);
        assert_eq!(digest("u,v\na,1\nb,2"), digest("u\nb\na\na"));
        assert_ne!(digest("u\na\nb"), digest("u\na\nc"));
    }
}
