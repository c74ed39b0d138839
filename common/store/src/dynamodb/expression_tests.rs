//! Test of the expressions: every attribute name in a string is a declared constant.
//!
//! The sources are read as text, so a new expression anywhere beside this file is covered.

use std::collections::BTreeSet;
use std::path::Path;

use super::attributes::IN_EXPRESSIONS_ONLY;
use super::keys::{PK, SK};

/// Where attribute names are declared.
const DECLARING: [&str; 3] = ["attributes.rs", "keys.rs", "dead_letter_items.rs"];
/// Words of DynamoDB's expressions.
const WORDS: [&str; 15] = [
    "SET",
    "ADD",
    "REMOVE",
    "and",
    "or",
    "AND",
    "in",
    "not",
    "between",
    "attribute_exists",
    "attribute_not_exists",
    "begins_with",
    "if_not_exists",
    "contains",
    "size",
];
/// What tells an expression from any other string.
const MARKS: [&str; 5] = ["attribute_exists(", "attribute_not_exists(", "begins_with(", "SET ", "REMOVE "];

/// The source files of the table, without their tests.
fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dynamodb");
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".rs") && !name.ends_with("_tests.rs") && name != "fuzz.rs" {
            let text = std::fs::read_to_string(path).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            sources.push((name, product.to_owned()));
        }
    }
    sources
}

/// The string literals of a source, continued lines joined.
fn strings(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n").replace("'\"'", "").replace("\\\"", "");
    let quoted = code.split('"').skip(1).step_by(2);
    quoted.map(|text| text.split("\\\n").map(str::trim_start).collect()).collect()
}

fn is_expression(text: &str) -> bool {
    let compares = |sign: &str| text.contains(&format!("{sign} :")) || text.contains(&format!("{sign} #"));
    MARKS.iter().any(|mark| text.contains(mark))
        || ["=", "<", "<=", ">", ">=", "<>", "between"].into_iter().any(compares)
}

/// The names in an expression that are not placeholders, words, or parts of a format string.
fn names(expression: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_:#{}".contains(c);
    let words = expression.split(|c| !is_part(c)).filter(|word| !word.is_empty());
    words
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .filter(|word| !WORDS.contains(word))
        .collect()
}

#[test]
fn every_attribute_in_an_expression_is_a_declared_constant() {
    let sources = sources();
    let declaring = sources.iter().filter(|(name, _)| DECLARING.contains(&name.as_str()));
    let constants = declaring.flat_map(|(_, text)| text.lines()).filter(|line| line.contains("const "));
    let declared = constants.filter_map(|line| line.split('"').nth(1));
    let declared: BTreeSet<_> = declared.chain(IN_EXPRESSIONS_ONLY).chain([PK, SK]).collect();
    let (mut read, mut unknown) = (0, BTreeSet::new());
    for (file, text) in &sources {
        for expression in strings(text).iter().filter(|text| is_expression(text)) {
            read += 1;
            let strange = names(expression).into_iter().filter(|name| !declared.contains(name));
            unknown.extend(strange.map(|name| format!("{file}: {name} in {expression:?}")));
        }
    }
    assert!(read > 60, "only {read} expressions were found");
    assert_eq!(unknown, BTreeSet::new());
}
