//! Files of the page that shows the OpenAPI document: Swagger UI and its start script.
//!
//! Invariant: every byte is in this executable, and no file names another host.

/// A file of the pages.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) gzipped: bool,
    pub(crate) bytes: &'static [u8],
}

/// The files of the page.
pub(crate) static FILES: [File; 3] = [
    File {
        name: "swagger-ui-bundle.js",
        media_type: "text/javascript; charset=utf-8",
        gzipped: true,
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")),
    },
    File {
        name: "swagger-ui.css",
        media_type: "text/css; charset=utf-8",
        gzipped: true,
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz")),
    },
    File {
        name: "start.js",
        media_type: "text/javascript; charset=utf-8",
        gzipped: false,
        bytes: include_bytes!("page/start.js"),
    },
];

/// The page.
pub(crate) const INDEX: &[u8] = include_bytes!("page/index.html");

/// The names of the files.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|file| file.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_but_files_that_are_there() {
        let page = include_str!("page/index.html");
        let mut asked: Vec<_> = page.split(['"']).filter_map(|part| part.strip_prefix("docs/")).collect();
        let mut there: Vec<_> = names().collect();
        asked.sort_unstable();
        there.sort_unstable();
        assert_eq!(asked, there);
        assert!(!page.contains("//") && !include_str!("page/start.js").contains("://"), "no other host");
    }
}
