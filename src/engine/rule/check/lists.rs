//! Segments that are lists: their files are read before anything is compiled, and who is in them becomes part of what the segment says, so
//! that another list is another meaning, as another condition would be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::read::Findings;
use crate::engine::rule::diagnostic::{Diagnostic, SourceFile};
use crate::engine::rule::list::List;
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{Entry, Kind, Node};

/// The lists by their digest, as it stands at the segments.
pub type Lists = BTreeMap<String, Arc<List>>;

/// A key that no file can hold (YAML has no such character): the digest of the list that a segment names.
pub const DIGEST: &str = "\0list";

/// Whether a file of the rules directory is a list.
pub fn is_list(path: &str) -> bool {
    path.ends_with(".csv")
}

/// Reads the lists that segments name.
pub fn resolve(roots: &mut [(usize, Node)], files: &[SourceFile], findings: &Findings) -> Lists {
    let mut lists = Lists::new();
    for segment in roots.iter_mut().flat_map(|(_, root)| segments(root)) {
        let Some((file, column)) = segment.get("file").zip(segment.get("column")) else { continue };
        let (Some(path), Some(name)) = (file.text(), column.text()) else { continue };
        let found = match files.iter().find(|source| &*source.path == path && is_list(path)) {
            Some(source) => List::read(&source.text, name).map_err(|error| (format!("`{path}`: {error}"), None)),
            None => {
                let there: Vec<&str> = files.iter().map(|source| &*source.path).filter(|path| is_list(path)).collect();
                let help = match (nearest(path, there.iter().copied()), there.as_slice()) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, []) => "put it below the rules directory, as a CSV file: `lists/autumn.csv`".to_owned(),
                    (None, there) => format!("there are {}", there.join(", ")),
                };
                Err((format!("there is no list `{path}`"), Some(help)))
            }
        };
        match found {
            Ok(list) => {
                let digest = format!("{:016x}", list.digest);
                let place = file.place.clone();
                if let Kind::Mapping(entries) = &mut segment.kind {
                    entries.push(Entry::made(DIGEST, &digest, place));
                }
                lists.insert(digest, Arc::new(list));
            }
            Err((message, help)) => {
                let finding = Diagnostic::error("RK0228", file.place.clone(), message).len(file.width());
                findings.add(Diagnostic { help, ..finding });
            }
        }
    }
    lists
}

fn segments(root: &mut Node) -> impl Iterator<Item = &mut Node> {
    let sections = match &mut root.kind {
        Kind::Mapping(entries) => entries.as_mut_slice(),
        _ => &mut [],
    };
    let sections = sections.iter_mut().filter(|section| &*section.key.text == "segments");
    let entries = sections.flat_map(|section| match &mut section.value.kind {
        Kind::Mapping(entries) => entries.as_mut_slice(),
        _ => &mut [],
    });
    entries.map(|entry| &mut entry.value)
}
