//! Dockerfile instructions that change an image's configuration (`docker commit --change`, `docker import
//! --change`). Reference: Dockerfile reference, "Dockerfile format".

use tripod_model::container::HealthCheck;
use tripod_model::image::ImageConfig;
use tripod_model::{Error, Result};

/// Applies instructions in order.
pub(crate) fn apply(mut config: ImageConfig, changes: &[String]) -> Result<ImageConfig> {
    for line in changes
        .iter()
        .flat_map(|c| c.lines())
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        one(&mut config, &word.to_ascii_uppercase(), rest.trim())?;
    }
    Ok(config)
}

fn one(c: &mut ImageConfig, word: &str, rest: &str) -> Result<()> {
    const KNOWN: [&str; 12] = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "LABEL",
        "USER",
        "VOLUME",
        "WORKDIR",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ONBUILD",
        "SHELL",
    ];
    if !KNOWN.contains(&word) {
        return Err(Error::invalid(format!(
            "{} is not a valid change command",
            word.to_lowercase()
        )));
    }
    if rest.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") {
        return Err(Error::invalid(format!("{word} requires at least one argument")));
    }
    match word {
        "CMD" => c.cmd = command(c, rest),
        "ENTRYPOINT" => c.entrypoint = command(c, rest),
        "ENV" => {
            for (name, value) in pairs(rest, word)? {
                let entry = format!("{name}={value}");
                match c.env.iter_mut().find(|e| e.split('=').next() == Some(&name)) {
                    Some(old) => *old = entry,
                    None => c.env.push(entry),
                }
            }
        }
        "LABEL" => c.labels.extend(pairs(rest, word)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                expose(c, port)?;
            }
        }
        "USER" => c.user = rest.to_owned(),
        "VOLUME" => {
            for path in json_list(rest).unwrap_or_else(|| words(rest)) {
                if path.trim().is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                if !c.volumes.contains(&path) {
                    c.volumes.push(path);
                }
            }
        }
        "WORKDIR" => c.working_dir = workdir(&c.working_dir, &unquote(rest)),
        "STOPSIGNAL" => c.stop_signal = signal(rest)?,
        "HEALTHCHECK" => c.healthcheck = Some(healthcheck(rest)?),
        "ONBUILD" => {
            let trigger = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            if trigger == "ONBUILD" {
                return Err(Error::invalid(
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                ));
            }
            if matches!(trigger.as_str(), "MAINTAINER" | "FROM") {
                return Err(Error::invalid(format!(
                    "{trigger} isn't allowed as an ONBUILD trigger"
                )));
            }
            c.on_build.push(rest.to_owned());
        }
        _ => {
            c.shell = json_list(rest)
                .ok_or_else(|| Error::invalid("SHELL requires the arguments to be in JSON form"))?;
        }
    }
    Ok(())
}

/// The exec form, or the shell form behind the image's shell.
fn command(c: &ImageConfig, rest: &str) -> Vec<String> {
    if let Some(list) = json_list(rest) {
        return list;
    }
    let mut out = if c.shell.is_empty() {
        vec!["/bin/sh".to_owned(), "-c".to_owned()]
    } else {
        c.shell.clone()
    };
    out.push(rest.to_owned());
    out
}

fn json_list(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[')
        .then(|| serde_json::from_str(rest).ok())
        .flatten()
}

/// `NAME=value NAME="a b"`, or the old form `NAME value to the end`.
fn pairs(rest: &str, word: &str) -> Result<Vec<(String, String)>> {
    let list = words(rest);
    if !list[0].contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{word} must have two arguments")))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    list.into_iter()
        .map(|w| match w.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::invalid(format!(
                "Syntax error - can't find = in \"{w}\". Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words as a shell splits them: quotes join, a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match (quote, ch) {
            (None, ' ' | '\t') => out.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(ch);
                word.get_or_insert_default();
            }
            (Some(q), ch) if q == ch => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, ch) => word.get_or_insert_default().push(ch),
        }
    }
    out.extend(word);
    if out.is_empty() { vec![String::new()] } else { out }
}

fn unquote(text: &str) -> String {
    let list = words(text);
    if list.len() == 1 {
        list.into_iter().next().unwrap_or_default()
    } else {
        text.to_owned()
    }
}

fn expose(c: &mut ImageConfig, port: &str) -> Result<()> {
    let bad = || Error::invalid(format!("Invalid containerPort: {port}"));
    let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("Invalid proto: {protocol}")));
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    if from == 0 || to < from {
        return Err(bad());
    }
    for n in from..=to {
        let port = format!("{n}/{protocol}");
        if !c.exposed_ports.contains(&port) {
            c.exposed_ports.push(port);
        }
    }
    Ok(())
}

fn workdir(old: &str, new: &str) -> String {
    let joined = if new.starts_with('/') {
        new.to_owned()
    } else {
        format!("/{old}/{new}")
    };
    let parts = super::beneath::parts(joined.as_bytes()).unwrap_or_default();
    format!("/{}", String::from_utf8_lossy(&parts.join(&b'/')))
}

fn signal(text: &str) -> Result<String> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let known = text.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n))
        || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        || name.starts_with("RTMIN")
        || name.starts_with("RTMAX");
    if known {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid(format!("Invalid signal: {text}")))
    }
}

fn healthcheck(rest: &str) -> Result<HealthCheck> {
    let mut check = HealthCheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("Missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => {
                check.retries = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("--retries: invalid number {value:?}")))?;
            }
            _ => return Err(Error::invalid(format!("Unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => vec!["NONE".into()],
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" if command.trim().is_empty() => {
            return Err(Error::invalid("Missing command after HEALTHCHECK CMD"));
        }
        "CMD" => match json_list(command.trim()) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".into(), command.trim().to_owned()],
        },
        other => {
            return Err(Error::invalid(format!(
                "Unknown type \"{other}\" for HEALTHCHECK (try CMD)"
            )));
        }
    };
    Ok(check)
}

/// A duration in Go's form (`1m30s`, `500ms`), in nanoseconds.
fn duration(text: &str) -> Result<i64> {
    let bad = || Error::invalid(format!("invalid duration {text:?}"));
    let mut rest = text;
    let mut sum = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ];
        let (unit, factor) = units.iter().find(|(u, _)| rest.starts_with(u)).ok_or_else(bad)?;
        // `ms` begins like `m`, and stands before it in the list.
        sum += number * factor;
        rest = &rest[unit.len()..];
    }
    if text.is_empty() {
        Err(bad())
    } else {
        Ok(sum as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str]) -> Result<ImageConfig> {
        apply(
            ImageConfig::default(),
            &lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn instructions() {
        let c = run(&[
            "CMD [\"a\", \"b c\"]",
            "ENTRYPOINT exec x",
            "env A=1 B=\"x y\"",
            "ENV A two words",
            "EXPOSE 80 53/udp 1000-1001",
            "LABEL a=b c='d e'",
            "USER web",
            "VOLUME [\"/a\", \"/b\"]",
            "WORKDIR /srv",
            "WORKDIR x/../y",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost",
            "ONBUILD RUN x",
        ])
        .unwrap();
        assert_eq!(c.cmd, ["a", "b c"]);
        assert_eq!(c.entrypoint, ["/bin/sh", "-c", "exec x"]);
        assert_eq!(c.env, ["A=two words", "B=x y"]);
        assert_eq!(c.exposed_ports, ["80/tcp", "53/udp", "1000/tcp", "1001/tcp"]);
        assert_eq!(c.labels["c"], "d e");
        assert_eq!(c.volumes, ["/a", "/b"]);
        assert_eq!(c.working_dir, "/srv/y");
        let health = c.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (90_000_000_000, 2));
        assert_eq!(health.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!(c.on_build, ["RUN x"]);
    }

    #[test]
    fn mistakes() {
        for (line, text) in [
            ("RUN x", "run is not a valid change command"),
            ("STOPSIGNAL NOPE", "Invalid signal: NOPE"),
            ("EXPOSE x", "Invalid containerPort: x"),
            ("EXPOSE 80/x", "Invalid proto: x"),
            ("USER", "USER requires at least one argument"),
            ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
            (
                "HEALTHCHECK FOO",
                "Unknown type \"FOO\" for HEALTHCHECK (try CMD)",
            ),
        ] {
            let e = run(&[line]).unwrap_err();
            assert_eq!(
                (e.kind, e.message.as_str()),
                (tripod_model::ErrorKind::Invalid, text)
            );
        }
    }
}
