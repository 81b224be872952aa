//! Signed assertions (RFC 7523): form, times and audience always, the signature where the key is the
//! definition's own. Called by `token`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::OAuthSide;

impl OAuthSide {
    /// Whether an assertion is what the definition declares; `Err` says what is wrong with it.
    pub(super) fn check_assertion(&self, assertion: &str) -> Result<(), String> {
        let declared = self.plan.assertion.as_ref().ok_or("the definition declares no assertion")?;
        let (signed, signature) = assertion.rsplit_once('.').ok_or("the assertion is no JWT")?;
        let (header, claims) = signed.split_once('.').ok_or("the assertion is no JWT")?;
        let header = part(header).ok_or("the head of the assertion is no JSON")?;
        let claims = part(claims).ok_or("the claims of the assertion are no JSON")?;
        if header.get("alg").and_then(Value::as_str) != Some(declared.algorithm.name()) {
            return Err(format!("the assertion is not signed by {}", declared.algorithm.name()));
        }
        if let Some(key) = &declared.key {
            let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the signature is not base 64")?;
            if !key.verifies(signed.as_bytes(), &bytes) {
                return Err("the signature of the assertion is wrong".to_owned());
            }
        }
        let number = |name: &str| claims.get(name).and_then(Value::as_u64);
        // The definition may leave out what is added by itself, by writing null; else both are there.
        let written = |name: &str| declared.claims.iter().any(|(known, _)| known == name);
        match (number("iat"), number("exp")) {
            (Some(issued), Some(ends)) if ends > issued && ends - issued <= 3_600 => {}
            _ if written("iat") || written("exp") => {}
            _ => return Err("`iat` and `exp` are missing, or further apart than an hour".to_owned()),
        }
        for (name, tree) in &declared.claims {
            let literal = match tree {
                crate::template::Tree::Literal(value) => Some(value.clone()),
                crate::template::Tree::Text(text) => text.literal().map(Value::from),
                _ => None,
            };
            if literal.is_some_and(|value| !value.is_null() && claims.get(name) != Some(&value)) {
                return Err(format!("the claim `{name}` is not the declared one"));
            }
        }
        Ok(())
    }
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
