//! The grammar and the matcher, against naive ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// Matching by its definition: recursion over segments.
fn naive(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, topic @ ..]) => naive(pattern, topic),
        ([mine, pattern @ ..], [theirs, topic @ ..]) => mine == theirs && naive(pattern, topic),
        _ => false,
    }
}

/// The grammar by its definition.
fn naive_valid(text: &str, wildcards: bool) -> bool {
    let segments: Vec<&str> = text.split('.').collect();
    text.len() <= 255
        && segments.len() <= 12
        && segments.iter().enumerate().all(|(index, segment)| match *segment {
            "*" => wildcards,
            ">" => wildcards && index + 1 == segments.len(),
            name => {
                !name.is_empty()
                    && name
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
            }
        })
}

fn split(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

/// Few names and few segments, so that hits are as common as misses.
fn topic() -> impl Strategy<Value = Topic> {
    proptest::collection::vec(prop_oneof!["[ab]", "[ab]{2}", Just("a-b_9".to_owned())], 1..=5)
        .prop_map(|names| names.join(".").parse().unwrap())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let segment = prop_oneof![4 => "[ab]", 1 => "[ab]{2}", 1 => Just("a-b_9".to_owned()), 4 => Just("*".to_owned())];
    (
        proptest::collection::vec(segment, 0..=4),
        prop_oneof![Just(">".to_owned()), Just("*".to_owned()), "[ab]"],
    )
        .prop_map(|(mut names, last)| {
            names.push(last);
            names.join(".").parse().unwrap()
        })
}

/// Every topic of up to 6 segments, made of names that no pattern has told apart otherwise.
fn all_topics(names: &[&str]) -> Vec<Topic> {
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    for _ in 0..6 {
        all.extend_from_slice(&longest);
        longest = longest
            .iter()
            .flat_map(|head| names.iter().map(move |name| format!("{head}.{name}")))
            .collect();
    }
    all.iter().map(|text| text.parse().unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn matches_as_the_naive_matcher(pattern in pattern(), topic in topic()) {
        let expected = naive(&split(pattern.as_str()), &split(topic.as_str()));
        prop_assert_eq!(pattern.matches(&topic), expected);
        prop_assert_eq!(pattern.matches_str(topic.as_str()), expected);
    }

    #[test]
    fn a_literal_matches_itself_alone(a in topic(), b in topic()) {
        let pattern = Pattern::from(&a);
        prop_assert!(pattern.is_literal());
        prop_assert_eq!(pattern.matches(&b), a == b);
        prop_assert_eq!(pattern.as_topic(), Some(a));
    }

    #[test]
    fn valid_as_the_naive_grammar(text in "[ab.*>_ A-]{0,12}|([a]{1,30}\\.){0,14}[a>*]") {
        prop_assert_eq!(Topic::validate(&text).is_ok(), naive_valid(&text, false), "topic {}", text);
        prop_assert_eq!(Pattern::validate(&text).is_ok(), naive_valid(&text, true), "pattern {}", text);
    }

    #[test]
    fn any_text_is_judged(text in "\\PC{0,40}") {
        prop_assert_eq!(Topic::validate(&text).is_ok(), naive_valid(&text, false));
        prop_assert_eq!(Pattern::validate(&text).is_ok(), naive_valid(&text, true));
    }

    #[test]
    fn covering_is_transitive(a in pattern(), b in pattern(), c in pattern()) {
        prop_assert!(a.covers(&a));
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
    }

    #[test]
    fn segments_give_the_pattern_back(pattern in pattern()) {
        let text: Vec<&str> = pattern.segments().map(|segment| match segment {
            Segment::Literal(name) => name,
            Segment::Any => "*",
            Segment::Rest => ">",
        }).collect();
        prop_assert_eq!(text.join("."), pattern.as_str());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Covering is inclusion of the sets of topics, here over every topic of a small world. Its names are those of the patterns and
    /// one that none has, its topics one segment longer than any pattern, so that nothing is covered by accident.
    #[test]
    fn covers_is_inclusion(a in small_pattern(), b in small_pattern()) {
        let included = all_topics(&["a", "b", "other"]).iter().all(|topic| !b.matches(topic) || a.matches(topic));
        prop_assert_eq!(a.covers(&b), included, "{} covers {}", a, b);
    }
}

fn small_pattern() -> impl Strategy<Value = Pattern> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("*"), Just("*")];
    (
        proptest::collection::vec(segment, 0..=4),
        prop_oneof![Just(">"), Just("*"), Just("a")],
    )
        .prop_map(|(mut names, last)| {
            names.push(last);
            names.join(".").parse().unwrap()
        })
}

#[test]
fn errors_name_the_segment_and_the_place() {
    let long = "a".repeat(256);
    let cases: [(&str, TopicError); 10] = [
        ("", TopicError::Empty),
        (&long, TopicError::TooLong { bytes: 256 }),
        ("a.a.a.a.a.a.a.a.a.a.a.a.a", TopicError::TooManySegments),
        (
            ".a",
            TopicError::EmptySegment {
                segment: 1,
                position: 0,
            },
        ),
        (
            "a..b",
            TopicError::EmptySegment {
                segment: 2,
                position: 2,
            },
        ),
        (
            "a.b.",
            TopicError::EmptySegment {
                segment: 3,
                position: 4,
            },
        ),
        (
            "a.bC",
            TopicError::Character {
                segment: 2,
                text: "bC".into(),
                found: 'C',
                position: 3,
            },
        ),
        (
            "a.é",
            TopicError::Character {
                segment: 2,
                text: "é".into(),
                found: 'é',
                position: 2,
            },
        ),
        (
            "a.b*",
            TopicError::Character {
                segment: 2,
                text: "b*".into(),
                found: '*',
                position: 3,
            },
        ),
        (
            "a.>.b",
            TopicError::RestNotLast {
                segment: 2,
                position: 2,
            },
        ),
    ];
    for (text, error) in cases {
        assert_eq!(Pattern::validate(text), Err(error), "{text}");
    }
    assert_eq!(
        Topic::validate("a.*"),
        Err(TopicError::Wildcard {
            segment: 2,
            wildcard: '*',
            position: 2
        })
    );
    assert_eq!(
        Topic::validate("a.>"),
        Err(TopicError::Wildcard {
            segment: 2,
            wildcard: '>',
            position: 2
        })
    );
    assert_eq!(
        Topic::validate("tool.v1.Text").unwrap_err().to_string(),
        "segment 3 `Text` contains 'T' at byte 8; segments are made of a-z, 0-9, `_` and `-`"
    );
}

#[test]
fn limits_are_inclusive() {
    assert!(Topic::validate(&"a".repeat(255)).is_ok());
    assert!(Topic::validate("a.a.a.a.a.a.a.a.a.a.a.a").is_ok());
    assert!(Pattern::validate("*.*.*.*.*.*.*.*.*.*.*.>").is_ok());
    assert!(Pattern::validate(">").is_ok());
}

#[test]
fn documents_hold_them_as_strings() {
    let topic: Topic = serde_json::from_str("\"a.b\"").unwrap();
    assert_eq!(serde_json::to_string(&topic).unwrap(), "\"a.b\"");
    assert_eq!((topic.domain(), topic.segments().count()), ("a", 2));
    let error = serde_json::from_str::<Topic>("\"a.*\"").unwrap_err().to_string();
    assert!(
        error.starts_with("`a.*` is not a topic: segment 2 is the wildcard"),
        "{error}"
    );
    let map: std::collections::BTreeMap<Pattern, u8> = serde_json::from_str("{\"a.>\": 1}").unwrap();
    assert_eq!(map.get("a.>"), Some(&1));
}
