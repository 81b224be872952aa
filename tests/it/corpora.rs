//! The properties that fuzzing looks for breaks of, over what it found, what it begins with, and mutations.

use std::fs;
use std::path::{Path, PathBuf};

use trunkline::base::random::{Random, SeededRandom};

#[path = "../../fuzz/properties.rs"]
mod properties;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// `fuzz/regressions/NAME`: one file for each input that once broke the property, and seeds.
#[test]
fn what_fuzzing_found_stays_mended() {
    for (name, property) in properties::ALL {
        let found = files(&root().join("fuzz/regressions").join(name));
        assert!(!found.is_empty(), "fuzz/regressions/{name} has no input");
        for input in &found {
            property(input);
        }
    }
}

/// Bytes taken out, put in, doubled and flipped: a little of what a fuzzer does, in every run.
#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    let random = SeededRandom::new(11);
    for (name, property) in properties::ALL {
        for seed in files(&root().join("fuzz/regressions").join(name)) {
            for _ in 0..40 {
                let mut input = seed.clone();
                for _ in 0..4 {
                    mutate(&mut input, &random);
                }
                property(&input);
            }
        }
    }
}

fn mutate(input: &mut Vec<u8>, random: &SeededRandom) {
    let mut chance = [0; 6];
    random.fill(&mut chance).unwrap();
    let at = usize::from(u16::from_le_bytes([chance[0], chance[1]])) % (input.len() + 1);
    let end = (at + usize::from(chance[2] % 16)).min(input.len());
    match chance[3] % 4 {
        0 => drop(input.drain(at..end)),
        1 => input.insert(at, chance[4]),
        2 => {
            let part = input[at..end].to_vec();
            drop(input.splice(at..at, part));
        }
        _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (chance[5] % 8)),
    }
}
