//! `minikube docker-env`, for each shell.

use serde_json::json;

use super::failure::{Failure, option};
use super::{DockerEnv, Outcome, open, running};

/// The environment for docker.
pub(super) fn docker_env(args: &DockerEnv, profile: &str) -> Outcome<()> {
    let cluster = match args.unset {
        true => open(profile)?,
        false => running(profile)?,
    };
    let socket = cluster.paths.node(&cluster.record.first().name).socket;
    let pairs = [
        ("DOCKER_HOST", format!("unix://{}", socket.display())),
        ("MINIKUBE_ACTIVE_DOCKERD", profile.to_owned()),
    ];
    match args.output.as_str() {
        "text" => {}
        "json" => {
            println!(
                "{}",
                json!(
                    pairs
                        .iter()
                        .cloned()
                        .collect::<std::collections::BTreeMap<_, _>>()
                )
            );
            return Ok(());
        }
        "yaml" => {
            pairs.iter().for_each(|(k, v)| println!("{k}: {v}"));
            return Ok(());
        }
        other => {
            let text = format!("invalid output format: {other}. Valid values: 'text', 'json', 'yaml'");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    let shell = match args.shell.as_str() {
        "" => std::env::var("SHELL")
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned(),
        shell => shell.to_owned(),
    };
    for (name, value) in &pairs {
        println!("{}", assignment(&shell, name, value, args.unset));
    }
    // The user's own clients must not ask for TLS of a unix socket.
    if !args.unset {
        for name in ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"]
            .iter()
            .filter(|n| std::env::var_os(n).is_some())
        {
            println!("{}", assignment(&shell, name, "", true));
        }
        let hint = format!("minikube{} docker-env", option(profile));
        match shell.as_str() {
            "none" => {}
            "fish" => {
                println!("\n# To point your shell to minikube's docker-daemon, run:\n# {hint} | source");
            }
            "powershell" => println!(
                "# To point your shell to minikube's docker-daemon, run:\n# & {hint} | Invoke-Expression"
            ),
            "cmd" => println!(
                "REM To point your shell to minikube's docker-daemon, run:\nREM @FOR /f \"tokens=*\" %i IN ('{hint}') DO @%i"
            ),
            _ => println!(
                "\n# To point your shell to minikube's docker-daemon, run:\n# eval $(minikube -p {profile} docker-env)"
            ),
        }
    }
    Ok(())
}

/// How a shell sets a variable, or takes it away.
fn assignment(shell: &str, name: &str, value: &str, unset: bool) -> String {
    match (shell, unset) {
        ("fish", false) => format!("set -gx {name} \"{value}\";"),
        ("fish", true) => format!("set -e {name};"),
        ("powershell", false) => format!("$Env:{name} = \"{value}\""),
        ("powershell", true) => format!("Remove-Item Env:\\{name}"),
        ("cmd", false) => format!("SET {name}={value}"),
        ("cmd", true) => format!("SET {name}="),
        ("tcsh" | "csh", false) => format!("setenv {name} \"{value}\";"),
        ("tcsh" | "csh", true) => format!("unsetenv {name};"),
        ("none", false) => format!("{name}={value}"),
        ("none", true) => name.to_owned(),
        (_, false) => format!("export {name}=\"{value}\""),
        (_, true) => format!("unset {name};"),
    }
}

#[cfg(test)]
mod tests {
    use super::assignment;

    #[test]
    fn variables_in_each_shell() {
        assert_eq!(assignment("bash", "A", "b", false), "export A=\"b\"");
        assert_eq!(assignment("fish", "A", "b", false), "set -gx A \"b\";");
        assert_eq!(assignment("powershell", "A", "b", true), "Remove-Item Env:\\A");
        assert_eq!(assignment("none", "A", "b", false), "A=b");
    }
}
