//! Parses the grammar of `java.util.Properties`: text becomes keys and values with their line numbers.
//!
//! Nothing here knows what a key means.

use std::collections::HashSet;

use super::types::ZooCfgError;

/// A key and its value, unescaped.
pub(super) struct Property {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    /// Trimmed, as by ZooKeeper.
    pub(super) key: String,
    /// True exactly when there were blanks around the key. Only escaped blanks can be there.
    pub(super) padded_key: bool,
    /// The value with the blanks at its end. ZooKeeper trims most values, but not those of servers, groups and weights.
    pub(super) raw: String,
}

impl Property {
    pub(super) fn new(line: usize, key: &str, raw: impl Into<String>) -> Self {
        Self {
            line,
            key: trim(key).to_owned(),
            padded_key: trim(key).len() < key.len(),
            raw: raw.into(),
        }
    }

    /// The value, trimmed.
    pub(super) fn value(&self) -> &str {
        trim(&self.raw)
    }

    pub(super) fn bad(&self, why: impl AsRef<str>) -> ZooCfgError {
        ZooCfgError {
            line: self.line,
            // An escape can put any character into a key.
            why: format!("{}: {}", self.key.escape_debug(), why.as_ref()),
        }
    }
}

/// Trims like Java's `String.trim`. For example, a non-breaking space stays.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|character| character <= ' ')
}

/// Decodes a file. `Properties.load(InputStream)` reads ISO-8859-1, in which every byte is a character.
pub(super) fn decode(bytes: &[u8]) -> String {
    match bytes.strip_prefix(b"\xef\xbb\xbf") {
        // The byte order mark of UTF-8. It is kept as one character, so that the error can name it instead of three letters.
        Some(rest) => BYTE_ORDER_MARK.to_string() + &decode(rest),
        None => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// White space of a properties file. For example, a non-breaking space is not white space here.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// All properties in their order. If several have the same key, only the last is kept. Lines of servers are all kept, so that
/// two lines for one server can be reported as a mistake.
pub(super) fn properties(text: &str) -> Result<Vec<Property>, ZooCfgError> {
    let (text, is_marked) = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let text = text.replace("\r\n", "\n");
    let mut lines = (1..).zip(text.split(['\n', '\r']));
    let mut properties = Vec::new();
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        if line == 1 && is_marked {
            let why = "a byte order mark stands in front of the key, and ZooKeeper takes it for a part of the key: \
                       remove it, or begin the file with a comment"
                .into();
            return Err(ZooCfgError { line, why });
        }
        // After a line with only a backslash, the next line is a new line and may be a comment. This is so in OpenJDK 17, while
        // OpenJDK 8 still appended it.
        if first == "\\" {
            continue;
        }
        let mut whole = first.to_owned();
        while is_continued(&whole) {
            whole.pop();
            let next = lines.next().map_or("", |(_, next)| next);
            whole.push_str(next.trim_start_matches(BLANK));
        }
        let (key, value) = split(&whole);
        let unescaped = |text| {
            unescape(text).ok_or_else(|| ZooCfgError {
                line,
                why: "\\u is not followed by four hexadecimal digits; write \\\\ for a backslash"
                    .into(),
            })
        };
        properties.push(Property::new(line, &unescaped(key)?, unescaped(value)?));
    }
    Ok(without_replaced(properties))
}

fn without_replaced(mut properties: Vec<Property>) -> Vec<Property> {
    let mut later = HashSet::new();
    let is_last = |property: &Property| {
        later.insert(property.key.clone()) || property.key.starts_with("server.")
    };
    let last: Vec<bool> = properties.iter().rev().map(is_last).collect();
    let mut last = last.into_iter().rev();
    properties.retain(|_| last.next() == Some(true));
    properties
}

/// Whether a line ends with a backslash that is not itself escaped.
fn is_continued(line: &str) -> bool {
    let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Splits a line before the first unescaped separator: `=` or `:`, white space, or both.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let ends_key = |character: char| {
        let ends = !escaped && (matches!(character, '=' | ':') || BLANK.contains(&character));
        escaped = !escaped && character == '\\';
        ends
    };
    let (key, rest) = line.split_at(line.find(ends_key).unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANK);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(BLANK))
}

/// Replaces escapes. `None`: a `\u` without its four digits. Java's characters have 16 bits, so that two escapes may make one
/// character. A half alone becomes U+FFFD, which no value that is used here may contain.
fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut plain: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let character = match character {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let (digits, after) = rest.as_str().split_at_checked(4)?;
                    // `from_str_radix` alone would accept a sign.
                    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return None;
                    }
                    plain.push(u16::from_str_radix(digits, 16).ok()?);
                    rest = after.chars();
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            plain => plain,
        };
        plain.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&plain))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key and value of every property, with its line.
    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let of = |property: Property| {
            (
                property.line,
                property.key.clone(),
                property.value().to_owned(),
            )
        };
        properties(text).unwrap().into_iter().map(of).collect()
    }

    fn pair(line: &str) -> (String, String) {
        let [(_, key, value)] = &pairs(line)[..] else {
            panic!("{line:?} is one property")
        };
        (key.clone(), value.clone())
    }

    #[test]
    fn keys_and_values_are_separated_as_in_java() {
        for line in [
            "key=a b=c",
            "key:a b=c",
            "key a b=c",
            "\t key \t=\x0c a b=c  ",
            "key = a b=c",
            "key: a b=c",
            "k\\ey=a\\ b\\=c",
            "\\u006bey=\\u0061 b\\u003dc",
        ] {
            assert_eq!(pair(line), ("key".into(), "a b=c".into()), "{line:?}");
        }
        assert_eq!(pair("a\\=b=c"), ("a=b".into(), "c".into()));
        assert_eq!(pair("a\\:b\\ c:d"), ("a:b c".into(), "d".into()));
        assert_eq!(pair("key"), ("key".into(), String::new()));
        assert_eq!(pair("key==b"), ("key".into(), "=b".into()));
        assert_eq!(
            pair("d=C:\\\\zk\\\\data"),
            ("d".into(), "C:\\zk\\data".into())
        );
        assert_eq!(pair("d=a\\tb\\\\tc"), ("d".into(), "a\tb\\tc".into()));
    }

    #[test]
    fn lines_are_continued_by_an_odd_number_of_backslashes() {
        let text = "a=1,\\\n   2,\\\r\n\t# 3\nb=x\\\\\nc=y\\\\\\\nz\r\n!d\\\ne=\\\n\nf=7\rg=8";
        let text = text.to_owned() + "\n\\\n#h=9\n\\\n  i=\\";
        let expected = [
            (1, "a", "1,2,# 3"),
            (4, "b", "x\\"),
            (5, "c", "y\\z"),
            (8, "e", ""),
            (10, "f", "7"),
            (11, "g", "8"),
            (15, "i", ""),
        ];
        let expected = expected.map(|(line, key, value)| (line, key.into(), value.into()));
        assert_eq!(pairs(&text), expected);
    }

    #[test]
    fn invalid_escape_is_an_error_everywhere() {
        for line in ["x=\\u12", "x=\\u+123", "x=\\u12\u{20ac}", "C\\users=1"] {
            let error = properties(&format!("a=1\\\n2\n{line}\n")).err().unwrap();
            assert_eq!(error.line, 3, "{line}");
            assert!(error.why.contains("hexadecimal"), "{line}: {}", error.why);
        }
    }

    #[test]
    fn two_escapes_may_make_one_character() {
        let smile = pair("k=\\ud83d\\uDE00!");
        assert_eq!(smile.1, "\u{1f600}!");
        for halves in ["\\ud83d", "\\ude00\\ud83d", "\\ud83dx"] {
            assert!(
                pair(&format!("k={halves}")).1.contains('\u{fffd}'),
                "{halves}"
            );
        }
    }

    #[test]
    fn whitespace_is_trimmed_as_in_java() {
        assert_eq!(
            pair("k=\u{a0}v\u{85}\u{2028} \t\u{1}"),
            ("k".into(), "\u{a0}v\u{85}\u{2028}".into())
        );
        let padded = |line: &str| properties(line).unwrap()[0].padded_key;
        assert!(padded("k\\ =v") && padded("\\ k=v") && !padded(" k =v"));
    }

    #[test]
    fn last_of_equal_keys_stays_except_for_servers() {
        let text = "a=1\nserver.1=x\nb=2\na=3\nserver.1=y\n";
        let lines: Vec<usize> = pairs(text).iter().map(|(line, ..)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
    }

    #[test]
    fn a_byte_order_mark_in_front_of_a_key_is_refused() {
        for text in ["\u{feff}k=v", "\u{feff}  k", "\u{feff}\\\nk=v"] {
            let error = properties(text).err().unwrap();
            assert_eq!(error.line, 1);
            assert!(error.why.contains("byte order mark"), "{}", error.why);
        }
        for text in ["\u{feff}", "\u{feff}# a comment\nk=v", "\u{feff}\nk=v"] {
            assert!(properties(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn every_byte_is_a_character() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let text: String = ('\0'..='\u{ff}').collect();
        assert_eq!(decode(&bytes), text);
        assert_eq!(
            decode(b"\xef\xbb\xbfa\xef\xbb\xbf"),
            "\u{feff}a\u{ef}\u{bb}\u{bf}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = decode(&bytes);
            let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
            match properties(&text) {
                Ok(found) => prop_assert!(found.iter().all(|one| (1..=lines).contains(&one.line))),
                Err(error) => prop_assert!((1..=lines).contains(&error.line)),
            }
        }
    }
}
