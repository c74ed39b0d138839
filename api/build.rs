//! Takes the files of Swagger UI that `/v1/docs` needs out of the release that `utoipa-swagger-ui-vendored` carries.
//!
//! A ZIP archive holds its files as deflate streams with their checksum, and a gzip file is just that with another head
//! and tail: they are re-wrapped, not compressed again, and the API serves them as they are.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

/// By the ends of their paths in the archive.
const WANTED: [&str; 2] = ["/dist/swagger-ui-bundle.js", "/dist/swagger-ui.css"];

/// What a file of the archive begins with (APPNOTE.TXT of PKWARE, 4.3.7), and how long that head is.
const SIGNATURE: &[u8] = b"PK\x03\x04";
const HEAD: usize = 30;
/// The method of a file that is a deflate stream.
const DEFLATE: usize = 8;
/// RFC 1952: deflate, no name, no time, no hint, unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

#[expect(clippy::disallowed_methods, reason = "that is how cargo speaks with a build script")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let (mut at, mut written) = (0, 0);
    while let Some(head) = ARCHIVE.get(at..at + HEAD).filter(|head| head.starts_with(SIGNATURE)) {
        let number = |from: usize, bytes: usize| {
            head[from..from + bytes].iter().rev().fold(0, |number, &byte| (number << 8) | usize::from(byte))
        };
        let (method, compressed) = (number(8, 2), number(18, 4));
        let name_at = at + HEAD;
        let data_at = name_at + number(26, 2) + number(28, 2);
        let name = str::from_utf8(&ARCHIVE[name_at..name_at + number(26, 2)])?;
        let data = &ARCHIVE[data_at..data_at + compressed];
        if WANTED.iter().any(|wanted| name.ends_with(wanted)) {
            if method != DEFLATE {
                return Err(format!("{name} is not compressed as expected").into());
            }
            let (_, file) = name.rsplit_once('/').ok_or("a wanted file lies in a folder")?;
            // The tail of gzip is checksum and length, as the archive has them.
            let gzip = [&GZIP_HEAD, data, &head[14..18], &head[22..26]].concat();
            fs::write(out.join(file).with_added_extension("gz"), gzip)?;
            written += 1;
        }
        at = data_at + compressed;
    }
    if written != WANTED.len() {
        return Err(format!("the archive holds {written} of {} wanted files", WANTED.len()).into());
    }
    Ok(())
}
