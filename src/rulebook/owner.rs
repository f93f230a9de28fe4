//! Whose files these are: who stands beside a rule set that was changed on disk and not by a command.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Names of local users; others are told by their number.
const USERS: &str = "/etc/passwd";

/// The owner of the file that was written last; none if none of them is there any more.
pub fn of_the_latest(paths: impl Iterator<Item = PathBuf>) -> Option<String> {
    let written = paths.filter_map(|path| fs::metadata(path).ok()).map(|file| ((file.mtime(), file.mtime_nsec()), file.uid()));
    let (_, uid) = written.max()?;
    let users = fs::read_to_string(USERS).unwrap_or_default();
    Some(name_in(&users, uid).map_or_else(|| format!("uid {uid}"), str::to_owned))
}

/// `name:password:uid:...` a line.
fn name_in(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_by_name() {
        let users = "anna:x:1000:1000::/:/bin/sh\nben:x:100:100::/:/bin/sh\nbroken\n";
        assert_eq!((name_in(users, 100), name_in(users, 1000), name_in(users, 10)), (Some("ben"), Some("anna"), None));
    }
}
