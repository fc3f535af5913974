//! The cluster query language: `attribute:ecs.instance-type =~ t2.* and not (task:group == service:web)`.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

/// What a container instance is, for expressions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// Attributes by name; one without a value has none.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Groups of the tasks on it.
    pub groups: BTreeSet<String>,
    /// `arn`, `ec2InstanceId`, `registeredAt`, `runningTasksCount` …
    pub fields: BTreeMap<String, String>,
}

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Query(Node);

#[derive(Debug, Clone)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Exists(Field, bool),
    Compare(Field, Compare, Vec<String>),
    Matches(Field, Regex, bool),
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Attribute(String),
    Group,
    Other(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    In,
    NotIn,
}

impl Query {
    /// Parses an expression.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            words: words(text)?,
            at: 0,
        };
        let node = parser.or()?;
        match parser.words.get(parser.at) {
            None => Ok(Self(node)),
            Some(word) => Err(format!("unexpected '{word}'")),
        }
    }

    /// Whether it is true of an instance.
    pub fn holds(&self, subject: &Subject) -> bool {
        holds(&self.0, subject)
    }
}

fn values<'s>(field: &Field, s: &'s Subject) -> Vec<&'s str> {
    match field {
        Field::Attribute(name) => {
            let value = s.attributes.get(name).and_then(Option::as_deref);
            value.into_iter().collect()
        }
        Field::Group => s.groups.iter().map(String::as_str).collect(),
        Field::Other(name) => s.fields.get(name).map(String::as_str).into_iter().collect(),
    }
}

fn holds(node: &Node, s: &Subject) -> bool {
    match node {
        Node::And(a, b) => holds(a, s) && holds(b, s),
        Node::Or(a, b) => holds(a, s) || holds(b, s),
        Node::Not(a) => !holds(a, s),
        Node::Exists(field, wanted) => {
            let there = match field {
                Field::Attribute(name) => s.attributes.contains_key(name),
                other => !values(other, s).is_empty(),
            };
            there == *wanted
        }
        Node::Matches(field, pattern, wanted) => {
            values(field, s).iter().any(|v| pattern.is_match(v)) == *wanted
        }
        Node::Compare(field, op, wanted) => {
            let values = values(field, s);
            let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|v| test(v));
            let listed = |v: &str| wanted.iter().any(|w| w == v);
            let first = wanted.first().map_or("", String::as_str);
            match op {
                Compare::Equal | Compare::In => any(&listed),
                Compare::NotEqual | Compare::NotIn => !any(&listed),
                Compare::Greater => any(&|v| order(v, first).is_gt()),
                Compare::GreaterEqual => any(&|v| order(v, first).is_ge()),
                Compare::Less => any(&|v| order(v, first).is_lt()),
                Compare::LessEqual => any(&|v| order(v, first).is_le()),
            }
        }
    }
}

/// As numbers where both are, else as texts.
fn order(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => a.cmp(b),
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    const SIGNS: [&str; 9] = ["==", "!=", "=~", "!~", ">=", "<=", "&&", "||", "!"];
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let sign = SIGNS.iter().find(|s| rest.starts_with(**s)).copied();
        let sign = sign.or_else(|| {
            ["(", ")", "[", "]", ",", ">", "<"]
                .into_iter()
                .find(|s| rest.starts_with(*s))
        });
        if let Some(sign) = sign {
            out.push(sign.to_owned());
            rest = &rest[sign.len()..];
            // What follows `=~` is one word up to the next space, whatever is in it.
            if matches!(sign, "=~" | "!~") {
                rest = rest.trim_start();
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                out.push(rest[..end].trim_matches('"').to_owned());
                rest = &rest[end..];
            }
        } else if c == '"' || c == '\'' {
            let end = rest[1..].find(c).ok_or("a quotation mark is not closed")?;
            out.push(rest[1..=end].to_owned());
            rest = &rest[end + 2..];
        } else {
            let stop = |c: char| c.is_whitespace() || "()[],=!<>&|".contains(c);
            let end = rest.find(stop).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("unexpected '{c}'"));
            }
            out.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

struct Parser {
    words: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.words.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> Result<String, String> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word.ok_or_else(|| "the expression ends too early".to_owned())
    }

    fn skip(&mut self, words: &[&str]) -> bool {
        let here = words.iter().any(|w| w.eq_ignore_ascii_case(self.peek())) && !self.peek().is_empty();
        self.at += usize::from(here);
        here
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut left = self.and()?;
        while self.skip(&["or", "||"]) {
            left = Node::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut left = self.not()?;
        while self.skip(&["and", "&&"]) {
            left = Node::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Node, String> {
        if self.skip(&["not", "!"]) {
            return Ok(Node::Not(Box::new(self.not()?)));
        }
        if self.skip(&["("]) {
            let inner = self.or()?;
            return if self.skip(&[")"]) {
                Ok(inner)
            } else {
                Err("a parenthesis is not closed".into())
            };
        }
        self.test()
    }

    fn test(&mut self) -> Result<Node, String> {
        let subject = self.take()?;
        let field = match subject.split_once(':') {
            Some(("attribute", name)) => Field::Attribute(name.to_owned()),
            Some(("task", "group")) => Field::Group,
            Some(_) => return Err(format!("unknown subject '{subject}'")),
            None => Field::Other(subject),
        };
        let not = self.skip(&["not"]);
        let word = self.take()?;
        let op = match (word.to_ascii_lowercase().as_str(), not) {
            ("exists", _) => return Ok(Node::Exists(field, !not)),
            ("not_exists" | "!exists", _) => return Ok(Node::Exists(field, false)),
            ("=~" | "matches", _) => return self.pattern(field, !not),
            ("!~", _) => return self.pattern(field, false),
            ("==" | "equals", false) => Compare::Equal,
            ("!=" | "not_equals", _) | ("==" | "equals", true) => Compare::NotEqual,
            (">" | "greater_than", _) => Compare::Greater,
            (">=" | "greater_than_equal", _) => Compare::GreaterEqual,
            ("<" | "less_than", _) => Compare::Less,
            ("<=" | "less_than_equal", _) => Compare::LessEqual,
            ("in", false) => Compare::In,
            ("in", true) | ("not_in" | "!in", _) => Compare::NotIn,
            ("!", _) if self.skip(&["in"]) => Compare::NotIn,
            ("!", _) if self.skip(&["exists"]) => return Ok(Node::Exists(field, false)),
            _ => return Err(format!("unknown operator '{word}'")),
        };
        let wanted = match op {
            Compare::In | Compare::NotIn => self.list()?,
            _ => vec![self.take()?],
        };
        Ok(Node::Compare(field, op, wanted))
    }

    fn pattern(&mut self, field: Field, wanted: bool) -> Result<Node, String> {
        let text = self.take()?;
        let pattern = Regex::new(&format!("^(?:{text})$"))
            .map_err(|_| format!("'{text}' is not a regular expression"))?;
        Ok(Node::Matches(field, pattern, wanted))
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        if !self.skip(&["["]) {
            return Err("a list in brackets is wanted".into());
        }
        let mut out = Vec::new();
        loop {
            out.push(self.take()?);
            if self.skip(&["]"]) {
                return Ok(out);
            }
            if !self.skip(&[","]) {
                return Err("a list in brackets is not closed".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let attribute = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
        Subject {
            attributes: [
                attribute("ecs.availability-zone", "us-east-1a"),
                attribute("ecs.instance-type", "t2.small"),
                ("gpu".to_owned(), None),
            ]
            .into(),
            groups: ["service:web".to_owned()].into(),
            fields: [("runningTasksCount".to_owned(), "3".to_owned())].into(),
        }
    }

    #[test]
    fn expressions() {
        for (text, is) in [
            ("attribute:ecs.instance-type =~ t2.*", true),
            ("attribute:ecs.instance-type == t2.micro", false),
            (
                "attribute:ecs.availability-zone in [us-east-1a, us-east-1b]",
                true,
            ),
            ("attribute:ecs.availability-zone not in [us-east-1a]", false),
            ("attribute:ecs.availability-zone !in [us-east-1a]", false),
            ("attribute:gpu exists", true),
            ("attribute:fpga !exists", true),
            ("task:group == service:web", true),
            ("not(task:group == service:web)", false),
            (
                "runningTasksCount > 2 and (runningTasksCount < 2 or attribute:gpu exists)",
                true,
            ),
            (
                "attribute:ecs.instance-type =~ t2.* and attribute:ecs.availability-zone != us-east-1a",
                false,
            ),
        ] {
            assert_eq!(Query::parse(text).unwrap().holds(&subject()), is, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression() {
        for text in [
            "",
            "attribute:a",
            "attribute:a ==",
            "attribute:a in x",
            "(attribute:a exists",
            "foo:a == b",
            "attribute:a =~ [",
            "attribute:a exists extra",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }
}
