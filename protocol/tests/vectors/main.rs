//! The code against the vectors in `spec/vectors`, which are what another implementation checks itself against.
//!
//! Each module makes its file anew from code and compares; then it reads the file as a stranger would.
//! `MARU_WRITE_PAGES=1` writes the files.

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

mod canonical;
mod events;
mod frames;
mod page;
mod received;
mod records;
mod redactions;
mod spellings;
mod value;

use std::{env, fs, path::Path};

use serde_json::Value;

/// Holds a file of vectors against what the code makes, and gives what the file says.
fn vectors(file: &str, made: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../spec/vectors")
        .join(file);
    if env::var_os("MARU_WRITE_PAGES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            format!("{}\n", serde_json::to_string_pretty(made).unwrap()),
        )
        .unwrap();
    }
    let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(read, *made, "{file} is not what the code makes");
    read
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    assert!(digits.len().is_multiple_of(2));
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(pair).collect()
}

fn entries(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}
