//! Taking credentials out of the few texts that are not our own.

/// Most characters of a text that are sent.
const LONGEST: usize = 500;

/// What stands where something was taken out.
const GONE: &str = "***";

/// Words that announce a credential.
const NAMES: [&str; 7] =
    ["password", "passwd", "secret", "token", "apikey", "api_key", "authorization"];

/// Returns the text cut short and without what looks like a credential: user
/// and query of a URL, tokens, webhook secrets, values with a telling name.
pub(super) fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    let mut hide_next = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let is_scheme = matches!(bare.to_ascii_lowercase().as_str(), "bearer" | "basic");
        let announces = bare.ends_with([':', '=']) && names_credential(bare);
        if hide_next && !bare.is_empty() && !is_scheme {
            out.push_str(GONE);
        } else {
            push_word(&mut out, bare);
        }
        hide_next = is_scheme || announces || (hide_next && bare.is_empty());
        out.push_str(&word[bare.len()..]);
    }
    match out.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out,
    }
}

fn names_credential(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    NAMES.iter().any(|name| word.contains(name))
}

fn push_word(out: &mut String, word: &str) {
    if let Some((scheme, rest)) = word.split_once("://") {
        let (path, query) = rest.split_once('?').map_or((rest, false), |(path, _)| (path, true));
        let host_ends = path.find('/').unwrap_or(path.len());
        let (host, path) = path.split_at(host_ends);
        let shown = host.rsplit_once('@').map(|(_, host)| host);
        out.push_str(scheme);
        out.push_str("://");
        if shown.is_some() {
            out.push_str(GONE);
            out.push('@');
        }
        out.push_str(shown.unwrap_or(host));
        out.push_str(path);
        if query {
            out.push('?');
            out.push_str(GONE);
        }
    } else if word.contains("whsec_") || is_token(word) {
        out.push_str(GONE);
    } else if let Some(at) = word.find(['=', ':'])
        && at + 1 < word.len()
        && names_credential(&word[..at])
    {
        out.push_str(&word[..=at]);
        out.push_str(GONE);
    } else {
        out.push_str(word);
    }
}

/// Tells whether a word holds a signed token: a header of JSON in base64, and
/// three parts.
fn is_token(word: &str) -> bool {
    word.find("eyJ").is_some_and(|at| word[at..].matches('.').count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_and_the_rest_stays() {
        for (text, expected) in [
            ("model overloaded, try later", "model overloaded, try later"),
            (
                "cannot reach postgres://bob:canary@db:5432/app?sslcert=canary now",
                "cannot reach postgres://***@db:5432/app?*** now",
            ),
            ("GET https://api.example/v1/x failed", "GET https://api.example/v1/x failed"),
            ("header was Authorization: Bearer canary", "header was Authorization: Bearer ***"),
            ("signed with whsec_canary", "signed with ***"),
            ("token eyJhbGciOi.canary.canary expired", "token *** expired"),
            ("password=canary api_key: canary", "password=*** api_key: ***"),
            ("{\"secret\":\"canary\"}", "{\"secret\":***"),
        ] {
            assert_eq!(scrub(text), expected);
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let cut = scrub(&"ä".repeat(2_000));
        assert_eq!(cut.chars().count(), LONGEST + 1);
        assert!(cut.ends_with('…'));
    }
}
