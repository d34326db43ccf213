//! The fuzz targets, on their seeds and on mutations of those: short, and the same in every run.

#![allow(clippy::unwrap_used, reason = "a test may stop where something cannot be")]

use std::{fs, path::Path, path::PathBuf};

use maru_tests::fuzz::TARGETS;

#[test]
fn every_target_has_its_file_and_seeds() {
    let mut files: Vec<_> = names(&folder("fuzz_targets"))
        .iter()
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    files.sort_unstable();
    targets.sort_unstable();
    assert_eq!(files, targets);
    for target in targets {
        assert!(seeds(&target).len() > 3, "{target} has too few seeds");
    }
}

#[test]
fn seeds_and_their_mutations_break_no_promise() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            (target.run)(seed);
            for _ in 0..target.mutations {
                let input = mutated(seed, &seeds, &mut random);
                // Says which input it was; the panic that follows says what broke.
                let told = Told(target.name, &input);
                (target.run)(&input);
                std::mem::forget(told);
            }
        }
    }
}

/// Prints the input when a target panics over it.
struct Told<'a>(&'static str, &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{} broke on {:?}", self.0, String::from_utf8_lossy(self.1));
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = folder("seeds").join(target);
    let mut names = names(&folder);
    names.sort_unstable();
    names
        .iter()
        .map(|name| fs::read(folder.join(name)).unwrap())
        .collect()
}

/// One to four small changes: bits, bytes that matter to parsers, cuts, repeats, pieces of other seeds.
fn mutated(seed: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const TELLING: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-",
        b"0",
        b"1e999",
        b"null",
        b"true",
        b"\0",
        b"\\u0000",
        b"\\ud800",
        b"9007199254740992",
        b"-9007199254740991",
        b"\xff",
        "é".as_bytes(),
        "🦊".as_bytes(),
        b"_",
        b"$",
        b"!",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(40) + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.splice(at..end, TELLING[random.below(TELLING.len())].iter().copied())),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let repeated = bytes[at..end].repeat(1 + random.below(4));
                drop(bytes.splice(at..at, repeated));
            }
            _ => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below((other.len() - from).min(60) + 1);
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
        }
    }
    bytes
}

/// A small generator with a fixed start (xorshift64*), so that a failure comes back in the next run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(value).unwrap() % bound.max(1)
    }
}
