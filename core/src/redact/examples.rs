//! Examples of keys for tests, built when the tests run. No file of this repository may hold a text
//! that looks like a live key, or every secret scanner would report it.

/// Replaces `<60>` by 60 sequential characters, `<hex 32>` and `<low 48>` by hexadecimal digits and
/// lower-case letters.
pub(crate) fn expand(example: &str) -> String {
    let mut text = String::new();
    let mut parts = example.split('<');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (what, after) = part.split_once('>').expect("a closing >");
        let (alphabet, count) = match what.split_once(' ') {
            Some(("hex", count)) => ("0123456789abcdef", count),
            Some((_, count)) => ("0123456789abcdefghijklmnopqrstuvwxyz", count),
            None => ("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", what),
        };
        text.extend(alphabet.chars().cycle().take(count.parse().expect("a count")));
        text.push_str(after);
    }
    text
}
