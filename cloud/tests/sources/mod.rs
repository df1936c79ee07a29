//! Reads sources for what they call of this crate. It goes by names: a handle on a bucket is called `objects`, one on a queue `queue`, one on
//! its dead letters `dead`, one on the queue beside it `archive`, and a source that calls them otherwise is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const NAMES: [&str; 4] = ["objects", "queue", "dead", "archive"];

/// Every call of one of `functions` on a handle, as (handle, function), in the sources under `folder`.
pub fn calls(folder: &Path, functions: &BTreeSet<&str>) -> BTreeSet<(String, String)> {
    files(folder).iter().flat_map(|file| calls_in(&fs::read_to_string(file).unwrap(), functions)).collect()
}

/// The same in one source.
pub fn calls_in(source: &str, functions: &BTreeSet<&str>) -> BTreeSet<(String, String)> {
    let text = code(source);
    if imports_handles(&text) {
        refuse_other_names(&text);
    }
    let mut found = BTreeSet::new();
    for function in functions {
        for (at, _) in text.match_indices(&format!(".{function}(")) {
            let on = word_before(&text[..at]);
            if NAMES.contains(&on) {
                found.insert((on.to_owned(), (*function).to_owned()));
            }
        }
    }
    found
}

/// The public functions under `folder` that ask something of a server.
pub fn pending_functions(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in
        files(folder).into_iter().filter(|file| !file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("testing")))
    {
        let text = code(&fs::read_to_string(file).unwrap());
        for (at, start) in text.match_indices("pub fn ") {
            let signature = text[at + start.len()..].split('{').next().unwrap();
            // A handle that is made asks nothing yet.
            if signature.contains("-> Pending<") && !signature.contains("Self>") {
                found.insert(signature.split(['(', '<']).next().unwrap().to_owned());
            }
        }
    }
    found
}

/// Whether a file names the types of handles.
fn imports_handles(text: &str) -> bool {
    text.match_indices("use lectern_cloud::").any(|(at, _)| {
        let import = text[at..].split(';').next().unwrap();
        import.split(|letter: char| !letter.is_alphanumeric()).any(|word| ["Objects", "Queue"].contains(&word))
    })
}

fn refuse_other_names(text: &str) {
    for kind in ["Objects", "Queue"] {
        for of in [format!(": {kind}"), format!(": &{kind}"), format!(": Option<{kind}>"), format!(" = {kind}::connect")] {
            for (at, _) in text.match_indices(&of) {
                let name = word_before(&text[..at]);
                let is_another_type = text[at + of.len()..].starts_with(|letter: char| letter.is_alphanumeric() || letter == ':');
                // `made` is what a function of such a name gives back.
                assert!(is_another_type || name == "made" || NAMES.contains(&name), "{name}{of} is to be one of {NAMES:?}:\n{text}");
            }
        }
    }
    for name in NAMES {
        for (at, found) in text.match_indices(&format!("{name}.clone()")) {
            let Some(bound) = text[..at].trim_end_matches("self.").strip_suffix(" = ") else { continue };
            assert!(NAMES.contains(&word_before(bound)), "{} = {found} is to be one of {NAMES:?}:\n{text}", word_before(bound));
        }
    }
}

fn word_before(text: &str) -> &str {
    let start = text.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_').map_or(0, |at| at + 1);
    &text[start..]
}

/// A source's code: without comments and tests, and with chains of calls on one line.
fn code(source: &str) -> String {
    let text = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if !line.starts_with('.') {
            code.push('\n');
        }
        code.push_str(line.split(" // ").next().unwrap());
    }
    code
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") => found.push(path),
            false => {}
        }
    }
    found
}
