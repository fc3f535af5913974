//! Conditions of patterns, `$.status >= 500 && ($.user = "a*" || $.ip IS NULL)`: parsed, and tried on named values.

use regex::Regex;
use serde_json::Value;

/// A condition.
#[derive(Debug, Clone)]
pub(in crate::logs) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test(String, Test),
}

/// What is asked of a named value.
#[derive(Debug, Clone)]
pub(in crate::logs) enum Test {
    /// Nothing.
    None,
    Compare(Operator, Literal),
    IsNull,
    Is(bool),
    NotExists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logs) enum Operator {
    Equal,
    Unequal,
    Less,
    Greater,
    AtMost,
    AtLeast,
}

#[derive(Debug, Clone)]
pub(in crate::logs) enum Literal {
    Number(f64),
    /// With `*` for any text.
    Text(String),
    Regex(Regex),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Operator(Operator),
    Word(String),
    Quoted(String),
    Regex(String),
}

/// Parses a condition.
///
/// # Errors
/// What of it is not understood.
pub(super) fn parse(text: &str) -> Result<Condition, String> {
    let mut tokens = tokens(text)?;
    tokens.reverse();
    let out = either(&mut tokens)?;
    match tokens.last() {
        None => Ok(out),
        Some(extra) => Err(format!("{extra:?} is not expected")),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let fixed = [
            ("(", Token::Open),
            (")", Token::Close),
            ("&&", Token::And),
            ("||", Token::Or),
            ("!=", Token::Operator(Operator::Unequal)),
            ("<=", Token::Operator(Operator::AtMost)),
            (">=", Token::Operator(Operator::AtLeast)),
            ("=", Token::Operator(Operator::Equal)),
            ("<", Token::Operator(Operator::Less)),
            (">", Token::Operator(Operator::Greater)),
        ];
        let found = fixed
            .into_iter()
            .find_map(|(sign, token)| Some((token, rest.strip_prefix(sign)?)));
        let (token, after) = if let Some(found) = found {
            found
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (inside, after) = quoted.split_once('"').ok_or("a quotation mark is not closed")?;
            (Token::Quoted(inside.to_owned()), after)
        } else if let Some(regex) = rest.strip_prefix('%') {
            let (inside, after) = regex
                .split_once('%')
                .ok_or("a regular expression is not closed")?;
            (Token::Regex(inside.to_owned()), after)
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "()=!<>&|\"".contains(c));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            if word.is_empty() {
                return Err(format!("'{rest}' is not understood"));
            }
            (Token::Word(word.to_owned()), after)
        };
        out.push(token);
        rest = after.trim_start();
    }
    Ok(out)
}

/// The tokens are in reverse: the next is the last.
fn either(tokens: &mut Vec<Token>) -> Result<Condition, String> {
    let mut all = vec![both(tokens)?];
    while tokens.last() == Some(&Token::Or) {
        tokens.pop();
        all.push(both(tokens)?);
    }
    Ok(if all.len() == 1 {
        all.remove(0)
    } else {
        Condition::Any(all)
    })
}

fn both(tokens: &mut Vec<Token>) -> Result<Condition, String> {
    let mut all = vec![single(tokens)?];
    while tokens.last() == Some(&Token::And) {
        tokens.pop();
        all.push(single(tokens)?);
    }
    Ok(if all.len() == 1 {
        all.remove(0)
    } else {
        Condition::All(all)
    })
}

fn single(tokens: &mut Vec<Token>) -> Result<Condition, String> {
    match tokens.pop() {
        Some(Token::Open) => {
            let inside = either(tokens)?;
            match tokens.pop() {
                Some(Token::Close) => Ok(inside),
                _ => Err("a parenthesis is not closed".into()),
            }
        }
        Some(Token::Word(name)) => Ok(Condition::Test(name, test(tokens)?)),
        other => Err(format!("a selector is expected, not {other:?}")),
    }
}

fn test(tokens: &mut Vec<Token>) -> Result<Test, String> {
    let word = |t: Option<&Token>| match t {
        Some(Token::Word(w)) => w.to_ascii_uppercase(),
        _ => String::new(),
    };
    if let Some(Token::Operator(operator)) = tokens.last() {
        let operator = *operator;
        tokens.pop();
        let literal = match tokens.pop() {
            Some(Token::Quoted(text)) => Literal::Text(text),
            Some(Token::Regex(text)) => Literal::Regex(Regex::new(&text).map_err(|e| e.to_string())?),
            Some(Token::Word(word)) => word.parse().map_or(Literal::Text(word), Literal::Number),
            other => return Err(format!("a value is expected, not {other:?}")),
        };
        return Ok(Test::Compare(operator, literal));
    }
    match word(tokens.last()).as_str() {
        "IS" => {
            tokens.pop();
            match word(tokens.pop().as_ref()).as_str() {
                "NULL" => Ok(Test::IsNull),
                "TRUE" => Ok(Test::Is(true)),
                "FALSE" => Ok(Test::Is(false)),
                other => Err(format!("IS {other} is not understood")),
            }
        }
        "NOT" => {
            tokens.pop();
            match word(tokens.pop().as_ref()).as_str() {
                "EXISTS" => Ok(Test::NotExists),
                other => Err(format!("NOT {other} is not understood")),
            }
        }
        _ => Ok(Test::None),
    }
}

impl Condition {
    /// Whether it holds of the values that `look` finds under a name.
    pub(super) fn holds<'a>(&self, look: &dyn Fn(&str) -> Vec<&'a Value>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|c| c.holds(look)),
            Self::Any(any) => any.iter().any(|c| c.holds(look)),
            Self::Test(name, test) => {
                let values = look(name);
                match test {
                    Test::None => true,
                    Test::NotExists => values.is_empty(),
                    Test::IsNull => values.iter().any(|v| v.is_null()),
                    Test::Is(wanted) => values.iter().any(|v| v.as_bool() == Some(*wanted)),
                    Test::Compare(operator, literal) => values.iter().any(|v| compare(v, *operator, literal)),
                }
            }
        }
    }

    /// The names that it asks about.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::All(list) | Self::Any(list) => list.iter().flat_map(Self::names).collect(),
            Self::Test(name, _) => vec![name],
        }
    }
}

fn compare(value: &Value, operator: Operator, literal: &Literal) -> bool {
    let text = match value {
        Value::String(s) => s.clone(),
        Value::Null | Value::Array(_) | Value::Object(_) => return false,
        other => other.to_string(),
    };
    let equal = match literal {
        Literal::Number(n) => {
            let Ok(v) = text.parse::<f64>() else {
                return operator == Operator::Unequal;
            };
            match operator {
                Operator::Less => return v < *n,
                Operator::Greater => return v > *n,
                Operator::AtMost => return v <= *n,
                Operator::AtLeast => return v >= *n,
                Operator::Equal | Operator::Unequal => (v - n).abs() < f64::EPSILON,
            }
        }
        Literal::Text(pattern) => tripod_plan::iam::matches(pattern, &text),
        Literal::Regex(regex) => regex.is_match(&text),
    };
    match operator {
        Operator::Equal => equal,
        Operator::Unequal => !equal,
        _ => false,
    }
}
