//! The templates that Swarm allows in host names, environment, mounts, and in secrets and configs: the part of Go's
//! template language that its documentation names.

use std::collections::BTreeMap;

use tripod_model::{Error, Result};

/// What a template can refer to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// `.Service.ID`, `.Node.Hostname`, `.Task.Slot` …
    pub values: BTreeMap<String, String>,
    /// `.Service.Labels`, for `index`.
    pub service_labels: BTreeMap<String, String>,
    /// `env "NAME"` in secrets and configs.
    pub env: BTreeMap<String, String>,
    /// `secret "NAME"`.
    pub secrets: BTreeMap<String, String>,
    /// `config "NAME"`.
    pub configs: BTreeMap<String, String>,
}

/// Replaces every `{{…}}`; an unknown expression is an error.
pub(crate) fn expand(text: &str, scope: &Scope) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        let Some(end) = after.find("}}") else {
            return Err(Error::invalid(format_args!(
                "template: unclosed action in \"{text}\""
            )));
        };
        let inner = &after[2..end];
        let trim_left = inner.starts_with("- ");
        let trim_right = inner.ends_with(" -");
        out.push_str(if trim_left { before.trim_end() } else { before });
        let expression = inner.trim_start_matches('-').trim_end_matches('-').trim();
        out.push_str(&evaluate(expression, scope)?);
        rest = &after[end + 2..];
        if trim_right {
            rest = rest.trim_start();
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn evaluate(expression: &str, scope: &Scope) -> Result<String> {
    if expression.starts_with("/*") {
        return Ok(String::new());
    }
    if let Some(value) = scope.values.get(expression) {
        return Ok(value.clone());
    }
    let unknown = || Error::invalid(format_args!("template: cannot evaluate \"{{{{{expression}}}}}\""));
    let (function, argument) = expression.split_once(' ').ok_or_else(unknown)?;
    let argument = argument.trim();
    match function {
        "env" => Ok(scope.env.get(unquote(argument)).cloned().unwrap_or_default()),
        "secret" => scope.secrets.get(unquote(argument)).cloned().ok_or_else(unknown),
        "config" => scope.configs.get(unquote(argument)).cloned().ok_or_else(unknown),
        "index" => {
            let (of, key) = argument.split_once(' ').ok_or_else(unknown)?;
            match of {
                ".Service.Labels" => Ok(scope
                    .service_labels
                    .get(unquote(key.trim()))
                    .cloned()
                    .unwrap_or_default()),
                _ => Err(unknown()),
            }
        }
        _ => Err(unknown()),
    }
}

fn unquote(text: &str) -> &str {
    text.trim_matches(['"', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let mut scope = Scope::default();
        scope.values.insert(".Task.Slot".into(), "3".into());
        scope.service_labels.insert("a.b".into(), "x".into());
        scope.env.insert("MODE".into(), "fast".into());
        for (text, want) in [
            ("plain", "plain"),
            ("web-{{.Task.Slot}}!", "web-3!"),
            ("{{ .Task.Slot }}{{index .Service.Labels \"a.b\"}}", "3x"),
            ("a {{- .Task.Slot -}} b", "a3b"),
            ("{{env \"MODE\"}}", "fast"),
        ] {
            assert_eq!(expand(text, &scope).unwrap(), want);
        }
        for bad in ["{{.Nope}}", "{{.Task.Slot", "{{secret \"no\"}}"] {
            assert!(expand(bad, &scope).is_err(), "{bad}");
        }
    }
}
