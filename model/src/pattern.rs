//! Patterns of names, and finding all patterns that match a name.
//!
//! A name is cut into tokens at each `.`. In a pattern `*` stands for exactly one token and `>`,
//! which must be last, for one or more; both only as whole tokens. Everything else stands for
//! itself: `a*` is a token like any other.

use std::collections::BTreeMap;

use crate::error::ModelError;
use crate::name::NAME_BYTES_MAX;

const SEPARATOR: char = '.';

/// A pattern that was checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    text: String,
    is_exact: bool,
}

/// What one token of a pattern stands for.
enum Token<'a> {
    Itself(&'a str),
    AnyOne,
    AnyRest,
}

fn token(text: &str) -> Token<'_> {
    match text {
        "*" => Token::AnyOne,
        ">" => Token::AnyRest,
        _ => Token::Itself(text),
    }
}

impl Pattern {
    /// Checks a pattern.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let refuse = |reason| {
            /// Enough to recognise the pattern by.
            const SHOWN_CHARS: usize = 100;
            Err(ModelError::Pattern {
                pattern: text.chars().take(SHOWN_CHARS).collect(),
                reason,
            })
        };
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > NAME_BYTES_MAX {
            return refuse("it is longer than any name");
        }
        let mut is_exact = true;
        let mut tokens = text.split(SEPARATOR).peekable();
        while let Some(next) = tokens.next() {
            match token(next) {
                Token::AnyRest if tokens.peek().is_some() => {
                    return refuse("'>' stands for all that follows and must be last");
                }
                Token::AnyOne | Token::AnyRest => is_exact = false,
                Token::Itself(_) => {}
            }
        }
        Ok(Self {
            text: text.to_owned(),
            is_exact,
        })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches only the name that is spelled the same.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Whether a name is one of those it stands for.
    pub fn matches(&self, subject: &str) -> bool {
        if self.is_exact {
            return self.text == subject;
        }
        let mut subject = subject.split(SEPARATOR);
        for part in self.text.split(SEPARATOR) {
            let found = subject.next();
            match (token(part), found) {
                (_, None) => return false,
                (Token::AnyRest, Some(_)) => return true,
                (Token::AnyOne, Some(_)) => {}
                (Token::Itself(part), Some(found)) if part == found => {}
                (Token::Itself(_), Some(_)) => return false,
            }
        }
        subject.next().is_none()
    }
}

/// Values under patterns, found by a name in time that depends on the name and on what matches,
/// hardly on how many patterns there are.
#[derive(Debug)]
pub struct PatternTrie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    children: BTreeMap<Box<str>, Node<T>>,
    any_one: Option<Box<Node<T>>>,
    /// Of patterns that end here.
    values: Vec<T>,
    /// Of patterns that end here with `>`.
    rest_values: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: BTreeMap::new(),
            any_one: None,
            values: Vec::new(),
            rest_values: Vec::new(),
        }
    }
}

impl<T> Default for PatternTrie<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            len: 0,
        }
    }
}

/// Ways through the trie that one name may open at once. Each `*` beside an exact token doubles
/// them; the walk keeps its own stack, so that a name of 32,768 tokens cannot exhaust the thread's.
type Ways<'a, 'b, T> = Vec<(&'a Node<T>, Option<&'b str>)>;

impl<T: PartialEq> PatternTrie<T> {
    /// A trie without patterns.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value under a pattern; the same may be added more than once.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut node = &mut self.root;
        self.len += 1;
        for part in pattern.text.split(SEPARATOR) {
            node = match token(part) {
                Token::Itself(part) => node.children.entry(part.into()).or_default(),
                Token::AnyOne => node.any_one.get_or_insert_default(),
                Token::AnyRest => {
                    node.rest_values.push(value);
                    return;
                }
            };
        }
        node.values.push(value);
    }

    /// Removes a value from under a pattern, once; returns whether it was there.
    pub fn remove(&mut self, pattern: &Pattern, value: &T) -> bool {
        let mut parts = pattern.text.split(SEPARATOR);
        // The nodes on the way are taken apart and put together again, so that emptied ones go.
        let mut way: Vec<(Node<T>, &str)> = Vec::new();
        let mut node = std::mem::take(&mut self.root);
        let mut in_rest = false;
        let reached = loop {
            let Some(part) = parts.next() else {
                break true;
            };
            let child = match token(part) {
                Token::Itself(part) => node.children.remove(part),
                Token::AnyOne => node.any_one.take().map(|child| *child),
                Token::AnyRest => {
                    in_rest = true;
                    break true;
                }
            };
            let Some(child) = child else {
                break false;
            };
            way.push((std::mem::replace(&mut node, child), part));
        };
        let values = if in_rest {
            &mut node.rest_values
        } else {
            &mut node.values
        };
        let found = values
            .iter()
            .position(|other| other == value)
            .filter(|_| reached);
        if let Some(found) = found {
            values.swap_remove(found);
            self.len -= 1;
        }
        while let Some((mut parent, part)) = way.pop() {
            if !node.is_empty() {
                match token(part) {
                    Token::Itself(part) => {
                        parent.children.insert(part.into(), node);
                    }
                    Token::AnyOne | Token::AnyRest => parent.any_one = Some(Box::new(node)),
                }
            }
            node = parent;
        }
        self.root = node;
        found.is_some()
    }

    /// Calls back for every value whose pattern matches the name.
    pub fn for_each_match(&self, subject: &str, mut found: impl FnMut(&T)) {
        let mut ways: Ways<'_, '_, T> = vec![(&self.root, Some(subject))];
        while let Some((node, rest)) = ways.pop() {
            let Some(rest) = rest else {
                node.values.iter().for_each(&mut found);
                continue;
            };
            node.rest_values.iter().for_each(&mut found);
            let (part, later) = match rest.split_once(SEPARATOR) {
                Some((part, later)) => (part, Some(later)),
                None => (rest, None),
            };
            if let Some(child) = node.children.get(part) {
                ways.push((child, later));
            }
            if let Some(child) = &node.any_one {
                ways.push((child, later));
            }
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any_one.is_none()
            && self.values.is_empty()
            && self.rest_values.is_empty()
    }
}

impl<T> Drop for Node<T> {
    /// A pattern can have 32,768 tokens: dropping that many nodes inside each other would exhaust
    /// the stack.
    fn drop(&mut self) {
        let mut below: Vec<Node<T>> = Vec::new();
        take_children(self, &mut below);
        while let Some(mut node) = below.pop() {
            take_children(&mut node, &mut below);
        }
    }
}

fn take_children<T>(node: &mut Node<T>, into: &mut Vec<Node<T>>) {
    into.extend(std::mem::take(&mut node.children).into_values());
    into.extend(node.any_one.take().map(|child| *child));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(subject)
    }

    #[test]
    fn wildcards_stand_for_whole_tokens() {
        assert!(matches("a.*", "a.b"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(!matches("a.*", "a"));
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(matches(">", "a"));
        assert!(matches("*.b", "a.b"));
        assert!(!matches("a*", "ab"));
        assert!(matches("a*", "a*"));
        assert!(matches("a.*", "a."));
    }

    #[test]
    fn a_pattern_that_goes_on_after_the_rest_is_refused() {
        assert!(Pattern::parse("a.>.b").is_err());
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse(&"x".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_deepest_pattern_exhausts_no_stack() {
        let deep = Pattern::parse(&vec!["*"; NAME_BYTES_MAX / 2].join(".")).unwrap();
        let mut trie = PatternTrie::new();
        trie.insert(&deep, 1);
        let mut found = 0;
        trie.for_each_match(&vec!["x"; NAME_BYTES_MAX / 2].join("."), |value| {
            found += value
        });
        assert_eq!(found, 1);
        assert!(trie.remove(&deep, &1));
        trie.insert(&deep, 2);
        drop(trie);
    }

    fn subject() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{0,2}", 1..5).prop_map(|tokens| tokens.join("."))
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        let token = prop_oneof![3 => "[ab]{0,2}", 1 => Just("*".to_owned())];
        (proptest::collection::vec(token, 0..4), any::<bool>()).prop_filter_map(
            "not empty",
            |(mut tokens, with_rest)| {
                if with_rest {
                    tokens.push(">".to_owned());
                }
                Pattern::parse(&tokens.join(".")).ok()
            },
        )
    }

    /// The definition, written as plainly as possible.
    fn naive(pattern: &[&str], subject: &[&str]) -> bool {
        match (pattern, subject) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            (["*", pattern @ ..], [_, subject @ ..]) => naive(pattern, subject),
            ([one, pattern @ ..], [other, subject @ ..]) => one == other && naive(pattern, subject),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_trie_finds_what_each_pattern_alone_matches(
            patterns in proptest::collection::vec(pattern(), 0..20),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            subjects in proptest::collection::vec(subject(), 1..20),
        ) {
            let mut trie = PatternTrie::new();
            let mut kept: Vec<Option<&Pattern>> = patterns.iter().map(Some).collect();
            for (number, pattern) in patterns.iter().enumerate() {
                trie.insert(pattern, number);
            }
            for index in removed.iter().filter(|_| !patterns.is_empty()) {
                let number = index.index(patterns.len());
                let was_there = kept[number].take().is_some();
                prop_assert_eq!(trie.remove(&patterns[number], &number), was_there);
            }
            prop_assert_eq!(trie.len(), kept.iter().flatten().count());
            for subject in &subjects {
                let tokens: Vec<&str> = subject.split('.').collect();
                let mut found = Vec::new();
                trie.for_each_match(subject, |number| found.push(*number));
                found.sort_unstable();
                let mut expected = Vec::new();
                for (number, pattern) in kept.iter().enumerate() {
                    let Some(pattern) = pattern else { continue };
                    let parts: Vec<&str> = pattern.as_str().split('.').collect();
                    let is_match = naive(&parts, &tokens);
                    prop_assert_eq!(pattern.matches(subject), is_match);
                    if is_match {
                        expected.push(number);
                    }
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}
