//! The nearest valid name to one that is not valid.

/// The most bytes of a name for which another is looked for.
const LONGEST: usize = 256;

/// The candidate that a person who wrote `name` most likely meant, if any is near enough: one edit for
/// short names, a third of the letters for longer ones. Case and `-` against `_` cost nothing. What is longer than any name
/// has none: the search takes the square of its length.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if name.len() > LONGEST {
        return None;
    }
    let folded = fold(name);
    let most = (folded.chars().count() / 3).clamp(1, 4);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&folded, &fold(candidate));
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name && candidate.len().abs_diff(name.len()) <= most)
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= most && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let fields = ["signature", "signed", "algorithm", "timestamp", "id", "if"];
        let near = |name| nearest(name, fields);
        assert_eq!(near("algoritm").as_deref(), Some("algorithm"));
        assert_eq!(near("singature").as_deref(), Some("signature"));
        assert_eq!(near("Time-Stamp").as_deref(), Some("timestamp"));
        assert_eq!(near("sign"), None);
        assert_eq!([near("headers"), near("x"), near("")], [None, None, None]);
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest(&long, [&*format!("{long}y")]), None);
    }
}
