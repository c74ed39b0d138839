//! References to the pages of the repository: every page, heading and relative link that code or a page names exists.
//!
//! A reference to a section is written like this: `ARCHITECTURE.md, "Claim"`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders without sources of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "node_modules", ".terraform"];
/// Endings of files whose text is checked.
const TEXTS: [&str; 9] = ["rs", "md", "toml", "tf", "hcl", "yaml", "yml", "py", "sh"];
/// What a comment line begins with.
const COMMENTS: [&str; 4] = ["///", "//!", "//", "#"];

/// The texts of the repository by path, and the headings of each page.
struct Tree {
    texts: BTreeMap<PathBuf, String>,
    headings: BTreeMap<PathBuf, Vec<String>>,
}

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
        let mut texts = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a readable folder") {
                let path = entry.expect("a readable entry").path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if path.is_dir() {
                    if !SKIPPED.contains(&name) {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|ending| TEXTS.iter().any(|text| ending == *text)) {
                    let text = fs::read_to_string(&path).expect("UTF-8 text");
                    texts.insert(path.strip_prefix(root).expect("below the root").to_owned(), text);
                }
            }
        }
        let pages = texts.iter().filter(|(path, _)| is_page(path));
        let headings = pages.map(|(path, text)| (path.clone(), headings(text))).collect();
        Self { texts, headings }
    }

    /// The page that `name` means in `file`: relative to it, from the root, or by its end if only one page has it.
    fn page(&self, file: &Path, name: &str) -> Option<&Path> {
        let known = |path: PathBuf| self.headings.get_key_value(&path).map(|(path, _)| path.as_path());
        let by_end = || {
            let mut found = self.headings.keys().filter(|path| path.ends_with(name));
            found.next().filter(|_| found.next().is_none()).map(PathBuf::as_path)
        };
        known(beside(file, name)).or_else(|| known(PathBuf::from(name))).or_else(by_end)
    }
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "md")
}

/// The path `name`, relative to `file`, without `..`.
fn beside(file: &Path, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in file.parent().unwrap_or(Path::new("")).join(name).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// The headings of a page, without backticks; lines of code blocks are none.
fn headings(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if let (false, Some((marks, heading))) = (in_block, line.split_once(' '))
            && !marks.is_empty()
            && marks.chars().all(|mark| mark == '#')
        {
            found.push(heading.trim().replace('`', ""));
        }
    }
    found
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// `text` in one line, without the marks of comments.
fn joined(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        COMMENTS.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).trim()
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Every page that `text` names, with what follows the name.
fn mentions(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || "._-/".contains(char);
    text.match_indices(".md").filter_map(move |(at, ending)| {
        let after = &text[at + ending.len()..];
        let stem = text[..at].rsplit(|char| !is_name(char)).next().unwrap_or_default();
        // A path that begins with two slashes is the rest of a URL.
        let whole = !stem.is_empty()
            && !stem.starts_with("//")
            && !after.starts_with(|char: char| char.is_ascii_alphanumeric());
        whole.then(|| (&text[at - stem.len()..at + ending.len()], after))
    })
}

/// The heading that follows a page's name: `, "Heading"`, after the rest of a link if there is one.
fn heading_after(after: &str) -> Option<&str> {
    let after = after.strip_prefix('`').unwrap_or(after);
    let after = match after.strip_prefix("](") {
        Some(link) => link.split_once(')')?.1,
        None => after.strip_prefix(')').unwrap_or(after),
    };
    Some(after.strip_prefix(", \"")?.split_once('"')?.0)
}

/// The targets of the links of a page that lead into the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:") && !target.contains(' '))
}

#[test]
fn every_page_and_section_that_is_referred_to_exists() {
    let tree = Tree::read();
    let (mut wrong, mut sections) = (BTreeSet::new(), 0);
    for (file, text) in &tree.texts {
        let ours = file.extension().is_some_and(|ending| ending == "rs" || ending == "md");
        for (name, after) in mentions(&joined(text)) {
            let heading = heading_after(after);
            let Some(page) = tree.page(file, name) else {
                if ours || heading.is_some() {
                    wrong.insert(format!("{}: there is no page {name}", file.display()));
                }
                continue;
            };
            let Some(heading) = heading else { continue };
            sections += 1;
            if !tree.headings[page].iter().any(|known| known == heading) {
                wrong.insert(format!("{}: {name} has no section {heading:?}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(sections > 20, "only {sections} references to sections were found");
}

#[test]
fn every_relative_link_of_a_page_leads_somewhere() {
    let tree = Tree::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let mut wrong = BTreeSet::new();
    for (file, text) in tree.texts.iter().filter(|(file, _)| is_page(file)) {
        for target in links(text) {
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.clone() } else { beside(file, path) };
            let anchors = || tree.headings.get(&path).into_iter().flatten().map(|heading| anchor(heading));
            if !root.join(&path).exists()
                || !(fragment.is_empty() || anchors().any(|known| known == fragment))
            {
                wrong.insert(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
}
