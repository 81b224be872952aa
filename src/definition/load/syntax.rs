//! The scanner's complaints in words a person can act on.

/// What is wrong, and what to do about it where that is known. `at` is the character complained about.
pub(super) fn explain(info: &str, at: Option<char>) -> (String, Option<String>) {
    // A text in quotes that goes on where the block ends: the quote at its end was forgotten.
    if matches!(at, Some('"' | '\'')) && info.contains("nvalid indentation") {
        return explain("quoted scalar, found unexpected end of stream", None);
    }
    if let Some((_, message, help)) = KNOWN.iter().find(|(part, ..)| info.contains(part)) {
        return ((*message).to_owned(), Some((*help).to_owned()));
    }
    let told = info.split_once(", ").filter(|(start, _)| start.starts_with("while ")).map_or(info, |(_, rest)| rest);
    (format!("not YAML: {told}"), None)
}

/// A part of a complaint, what it means, what to do.
const KNOWN: [(&str, &str, &str); 17] = [
    (
        "quoted scalar, found unexpected end of stream",
        "this quote is never closed",
        "End the text with the same quote it begins with.",
    ),
    (
        "mapping values are not allowed",
        "a `:` stands where no key can be",
        "Quote the text when it contains `: `, or check the indentation of this line.",
    ),
    (
        "simple key expect",
        "expected `:` after this key",
        "A line of a map is `key: value`; check the indentation as well.",
    ),
    (
        "flow mapping, did not find expected ',' or '}'",
        "expected `,` or `}`: a map in braces is not closed",
        "Close the `{` that was opened before this place.",
    ),
    (
        "flow sequence, expected ',' or ']'",
        "expected `,` or `]`: a list in brackets is not closed",
        "Close the `[` that was opened before this place.",
    ),
    (
        "did not find expected node content",
        "expected a value here",
        "Remove the extra `,` or write the value that is missing.",
    ),
    ("block mapping, did not find expected key", "expected a key here", "Check the indentation of this line."),
    (
        "did not find expected '-' indicator",
        "expected another `- ` item of the list",
        "Check the indentation of this line: a list and a map cannot stand at one level.",
    ),
    ("unknown anchor", "this alias names an anchor that is not defined before it", "Write the value out."),
    ("unexpected character: ``'", "a text cannot begin with a backquote", "Quote the text."),
    ("unexpected character: `@'", "a text cannot begin with `@`", "Quote the text."),
    ("unexpected character: `%'", "a text cannot begin with `%`", "Quote the text."),
    (
        "invalid trailing content after double-quoted scalar",
        "something stands after the closing quote",
        "Put the whole value inside the quotes; inside single quotes an apostrophe is written twice.",
    ),
    (
        "unknown escape character",
        "this quoted text has an escape that YAML does not know",
        "Write `\\\\` for a backslash, or use single quotes.",
    ),
    ("tab", "a tab stands where YAML wants spaces", "Indent with spaces."),
    ("recursion limit exceeded", "maps and lists stand too deep inside each other", "Make the file flatter."),
    ("nvalid indentation", "this line is indented in a way that fits no map or list", "Align it with its siblings."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_complaints_lose_their_preamble() {
        assert_eq!(explain("while scanning x, did not find y", None).0, "not YAML: did not find y");
    }
}
