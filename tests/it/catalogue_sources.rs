//! Every entry of the catalogue says where its facts come from, and every row of that list is of an entry.

use std::collections::BTreeSet;
use std::path::Path;

const WAYS: [&str; 4] = ["page read", "compared with code", "vectors", "compared with others' descriptions"];

fn sources() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CATALOGUE-SOURCES.md")).unwrap()
}

fn entries() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations");
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)).collect()
}

/// The rows of the table under this header, by column.
fn rows<'a>(text: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let table = text.split_once(header).unwrap_or_else(|| panic!("no table {header}")).1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn each_entry_has_one_row_and_each_row_an_entry() {
    let text = sources();
    let rows = rows(&text, "| Entry | Documentation | Checked | Open |");
    let named: BTreeSet<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(named.len(), rows.len(), "an entry has two rows");
    assert_eq!(named, entries());
    for row in &rows {
        let [id, documentation, checked, _open] = row[..] else { panic!("{row:?} has other columns") };
        assert!(documentation.contains('.'), "{id} names no page");
        for way in checked.split(", ") {
            assert!(WAYS.contains(&way), "{id}: `{way}` is no way to check");
        }
        let linked = documentation.contains("](https://");
        assert!(!checked.contains("others'") || linked, "{id} names no page that describes it");
    }
}

#[test]
fn the_entries_of_each_quirk_are_there() {
    let (text, entries) = (sources(), entries());
    let rows = rows(&text, "| Quirk | Entries |");
    assert!(rows.len() > 40, "{}", rows.len());
    for row in rows {
        for entry in row[1].split(", ").filter(|entry| !entry.ends_with(')') || entry.contains(" (")) {
            let id = entry.split(" (").next().unwrap_or_default();
            assert!(entries.contains(id), "{}: `{id}` is no entry", row[0]);
        }
    }
}
