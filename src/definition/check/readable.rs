//! A faulty document read as far as it goes: what cannot be read is left out, the rest keeps its places.
//!
//! A block that lacks what it must have cannot be read, and that is told already. It is left out alone, so
//! that what is wrong in all others is told in the same run. Items of lists keep the places they have in
//! the file.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::definition::raw;

/// How much is left out of one document. Each time all of it is read again; what is wrong with more was told already, and
/// the rest is told once that is mended.
const MOST_LEFT_OUT: usize = 100;

/// What was left out of a document.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// The pointers of what is faulty or was left out because of that.
    pointers: Vec<String>,
    /// The places in the file that the items of shortened lists have, by the list's pointer.
    kept: HashMap<String, Vec<usize>>,
}

impl LeftOut {
    /// With what is known to be faulty before anything is read.
    pub fn new(faulty: &[String]) -> Self {
        Self { pointers: faulty.to_vec(), kept: HashMap::new() }
    }

    /// The document as its type. `None` when not even an empty one could be read, or too much would be left out.
    pub fn read<T: for<'de> Deserialize<'de>>(&mut self, document: &Value) -> Option<T> {
        let mut fault = match raw::read(document) {
            Ok(read) => return Some(read),
            Err(fault) => fault,
        };
        let mut rest = document.clone();
        for _ in 0..MOST_LEFT_OUT {
            self.leave_out(&mut rest, &fault.pointer)?;
            match raw::read(&rest) {
                Ok(read) => return Some(read),
                Err(next) => fault = next,
            }
        }
        None
    }

    /// The pointer in the file of what stands at a pointer of the shortened document.
    pub fn in_file(&self, pointer: &str) -> String {
        if self.kept.is_empty() {
            return pointer.to_owned();
        }
        let mut whole = String::with_capacity(pointer.len());
        for token in pointer.split('/').skip(1) {
            let place = self.kept.get(&whole).and_then(|kept| kept.get(token.parse::<usize>().ok()?));
            whole.push('/');
            match place {
                Some(place) => whole.push_str(&place.to_string()),
                None => whole.push_str(token),
            }
        }
        whole
    }

    /// Whether something is missing or faulty at, around or inside a place of the file, so that nobody can
    /// say what its author means there.
    pub fn touches(&self, at: &str) -> bool {
        self.pointers.iter().any(|out| is_within(out, at) || is_within(at, out))
    }

    /// Takes out the value at a pointer, or the nearest one around it that can be.
    fn leave_out(&mut self, value: &mut Value, pointer: &str) -> Option<()> {
        let mut at = pointer;
        while let Some((parent, token)) = at.rsplit_once('/') {
            let (whole, list) = (self.in_file(at), self.in_file(parent));
            let taken = match value.pointer_mut(parent) {
                Some(Value::Object(map)) => map.shift_remove(&token.replace("~1", "/").replace("~0", "~")).is_some(),
                Some(Value::Array(items)) => self.shorten(items, list, token),
                _ => false,
            };
            if taken {
                self.pointers.push(whole);
                return Some(());
            }
            at = parent;
        }
        None
    }

    /// Takes an item out of a list, and remembers where the others stand in the file.
    fn shorten(&mut self, items: &mut Vec<Value>, list: String, token: &str) -> bool {
        let Some(index) = token.parse::<usize>().ok().filter(|index| *index < items.len()) else { return false };
        self.kept.entry(list).or_insert_with(|| (0..items.len()).collect()).remove(index);
        items.remove(index);
        true
    }
}

/// Whether one place is another or inside it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::raw::integration::Integration;
    use serde_json::json;

    #[test]
    fn what_cannot_be_read_is_left_out_alone() {
        let rule = |id: &str| json!({ "id": id, "when": "*", "do": [{ "log": "x" }] });
        let document = json!({
            "trunkline": 1, "id": "a", "webhook": { "verify": {} }, "connections": [{ "id": "c" }, { "saved": {} }, { "id": "d" }],
            "rules": [rule("a"), { "id": "b" }, rule("c")],
        });
        let mut left_out = LeftOut::default();
        let read: Integration = left_out.read(&document).expect("the rest");
        let ids: Vec<_> = read.rules.iter().map(|rule| rule.id.0.as_str()).collect();
        assert!(read.webhook.is_none() && ids == ["a", "c"] && read.connections.len() == 2);
        assert_eq!(left_out.in_file("/rules/1/do/0"), "/rules/2/do/0");
        assert_eq!(left_out.in_file("/connections/0"), "/connections/0");
        assert!(left_out.touches("/webhook/secrets") && left_out.touches("/webhook") && !left_out.touches("/api"));
    }

    #[test]
    fn a_document_that_is_no_map_gives_nothing() {
        assert!(LeftOut::default().read::<Integration>(&json!("text")).is_none());
        assert!(LeftOut::default().read::<Integration>(&json!({ "id": "a" })).is_none());
    }
}
