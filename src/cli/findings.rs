//! Findings for the tools around a rules directory: marks on a pull request, and SARIF.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::explain_code;
use crate::engine::rule::diagnostic::{Diagnostic, Severity};

const SARIF_SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Commands of a GitHub workflow, a line each.
pub fn as_github(findings: &[Diagnostic], dir: &Path) -> String {
    let mut out = String::new();
    for finding in findings {
        let mut said = finding.message.clone();
        if let Some(help) = &finding.help {
            said.push_str("\nhelp: ");
            said.push_str(help);
        }
        let place = match finding.place.line {
            0 => String::new(),
            line => format!(",line={line},col={},endColumn={}", finding.place.column, finding.place.column as usize + finding.len),
        };
        let file = property(&path_of(finding, dir));
        out.push_str(&format!("::{} file={file}{place},title={}::{}\n", finding.severity.name(), finding.code, data(&said)));
    }
    out
}

fn path_of(finding: &Diagnostic, dir: &Path) -> String {
    dir.join(&*finding.place.file).display().to_string().replace('\\', "/")
}

/// A line end would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// SARIF 2.1.0: one run, the codes as its rules.
pub fn as_sarif(findings: &[Diagnostic], dir: &Path) -> Json {
    let level = |severity: Severity| severity.name();
    let result = |finding: &Diagnostic| {
        let mut location = json!({ "artifactLocation": { "uri": path_of(finding, dir) } });
        if let (1.., Some(fields)) = (finding.place.line, location.as_object_mut()) {
            let (line, column) = (finding.place.line, finding.place.column);
            let region = json!({ "startLine": line, "startColumn": column, "endColumn": column as usize + finding.len });
            fields.insert("region".to_owned(), region);
        }
        let said = finding.help.as_ref().map_or_else(|| finding.message.clone(), |help| format!("{}; {help}", finding.message));
        json!({
            "ruleId": finding.code,
            "level": level(finding.severity),
            "message": { "text": said },
            "locations": [{ "physicalLocation": location }],
        })
    };
    let codes: BTreeMap<&str, &str> = findings.iter().map(|f| (f.code, explain_code::title(f.code).unwrap_or(f.code))).collect();
    let rules = codes.iter().map(|(code, title)| json!({ "id": code, "shortDescription": { "text": title } }));
    let driver = json!({ "name": "rekindle", "version": env!("CARGO_PKG_VERSION"), "rules": rules.collect::<Vec<_>>() });
    json!({
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            // columns count characters, not the halves of some of them
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::rule::Place;

    fn finding() -> Diagnostic {
        let place = Place { file: Arc::from("a,b.yaml"), line: 4, column: 7 };
        Diagnostic::error("RK0102", place, "`5` is no percentage").len(1).help("write `5%`\nor nothing")
    }

    #[test]
    fn a_mark_on_a_pull_request_is_one_line_whatever_stands_in_it() {
        let whole = Diagnostic::warning("RK0100", Place { file: Arc::from("c.yaml"), line: 0, column: 0 }, "empty");
        let expected = "::error file=rules/a%2Cb.yaml,line=4,col=7,endColumn=8,title=RK0102::`5` is no percentage%0Ahelp: write `5%25`%0Aor nothing\n\
                        ::warning file=rules/c.yaml,title=RK0100::empty\n";
        assert_eq!(as_github(&[finding(), whole], Path::new("rules")), expected);
    }

    #[test]
    fn sarif_has_the_place_and_the_codes_meaning() {
        let sarif = as_sarif(&[finding()], Path::new("rules"));
        let run = &sarif["runs"][0];
        assert_eq!(
            run["results"][0]["locations"][0]["physicalLocation"]["region"],
            json!({ "startLine": 4, "startColumn": 7, "endColumn": 8 })
        );
        let title = "a value of the wrong form, or a required one missing";
        assert_eq!(run["tool"]["driver"]["rules"], json!([{ "id": "RK0102", "shortDescription": { "text": title } }]));
    }
}
