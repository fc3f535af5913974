//! `minikube image`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::super::client::{self, block_on};
use super::super::cluster::Cluster;
use super::super::commands::load_everywhere;
use super::super::kind::with_saved;
use super::super::{images, services, ssh};
use super::Outcome;
use super::failure::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Loads archives, or images of this machine's docker engine; `-` is standard input.
    Load {
        /// Archives or names of images.
        #[arg(required = true)]
        images: Vec<String>,
        /// From the docker engine of this machine, though there is a file of that name.
        #[arg(long)]
        daemon: bool,
        /// Again, though the nodes have it.
        #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
        overwrite: Option<String>,
        /// Accepted: an image is pulled by `image pull`.
        #[arg(long)]
        remote: bool,
        /// Accepted.
        #[arg(long)]
        pull: bool,
    },
    /// Lists images.
    #[command(alias = "list")]
    Ls {
        /// Form of what is printed: short, table, json or yaml.
        #[arg(long, default_value = "short")]
        format: String,
    },
    /// Removes images.
    #[command(aliases = ["remove", "unload"])]
    Rm {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Pulls images.
    Pull {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Pushes images to the registries of their names.
    Push {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Gives an image a further name.
    Tag {
        /// The image.
        image: String,
        /// The name.
        name: String,
    },
    /// Writes an image to an archive.
    Save {
        /// Its name.
        image: String,
        /// The archive; standard output when none is named.
        archive: Option<PathBuf>,
    },
    /// Cannot be had: tripod builds no images.
    Build {
        /// What is ignored.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Runs the command.
pub(super) fn run(what: Image, cluster: &Cluster) -> Outcome<ExitCode> {
    match what {
        Image::Load { images, daemon, .. } => load(cluster, &images, daemon)?,
        Image::Ls { format } => list(cluster, &format)?,
        Image::Rm { images } => images::remove(cluster, &images)?,
        Image::Pull { images } => images::pull(cluster, &images)?,
        Image::Push { images } => return docker(cluster, "push", images),
        Image::Tag { image, name } => {
            for n in &cluster.record.nodes {
                let query = form_urlencoded::Serializer::new(String::new());
                let (repo, tag) = name
                    .rsplit_once(':')
                    .filter(|(_, t)| !t.contains('/'))
                    .unwrap_or((&name, "latest"));
                let query: String = { query }
                    .append_pair("repo", repo)
                    .append_pair("tag", tag)
                    .finish();
                client::post(
                    &cluster.paths.node(&n.name).socket,
                    &format!("/images/{image}/tag?{query}"),
                )?;
            }
        }
        Image::Save { image, archive } => {
            let socket = cluster.paths.node(&cluster.record.first().name).socket;
            let bytes = block_on(client::save_image(&socket, &image))?;
            match archive.filter(|a| a.as_os_str() != "-") {
                Some(path) => std::fs::write(path, bytes)?,
                None => std::io::Write::write_all(&mut std::io::stdout(), &bytes)?,
            }
        }
        Image::Build { .. } => {
            let text = "image build cannot be had: tripod builds no images; build with another tool and load the result";
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn docker(cluster: &Cluster, verb: &str, images: Vec<String>) -> Outcome<ExitCode> {
    for image in images {
        let words = ["docker".to_owned(), verb.to_owned(), image];
        let code = ssh::run(cluster, None, &words, "docker")?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(cluster: &Cluster, what: &[String], daemon: bool) -> Outcome<()> {
    for item in what {
        let path = Path::new(item);
        if item == "-" {
            let file = cluster.paths.dir.join("standard-input.tar");
            let mut to = std::fs::File::create(&file)?;
            std::io::copy(&mut std::io::stdin(), &mut to)?;
            let loaded = load_everywhere(cluster, &file, &[]);
            std::fs::remove_file(&file)?;
            loaded?;
        } else if path.is_file() && !daemon {
            load_everywhere(cluster, path, &[])?;
        } else {
            let loaded = with_saved(std::slice::from_ref(item), |archive| {
                load_everywhere(cluster, archive, &[]).map(drop)
            });
            loaded.map_err(|e| {
                let text = format!("Failed to load image: neither a file nor an image of this machine's docker engine: {item} ({e})");
                Failure::new("GUEST_IMAGE_LOAD", 80, text)
            })?;
        }
    }
    Ok(())
}

fn list(cluster: &Cluster, format: &str) -> Outcome<()> {
    let socket = cluster.paths.node(&cluster.record.first().name).socket;
    let all = client::get(&socket, "/images/json")?;
    let all = all.as_array().cloned().unwrap_or_default();
    let text = |v: &Value| {
        v.as_str()
            .unwrap_or_default()
            .trim_start_matches("sha256:")
            .to_owned()
    };
    let tags = |i: &Value| -> Vec<String> {
        let tags = i["RepoTags"].as_array().into_iter().flatten();
        tags.filter_map(Value::as_str).map(super::full).collect()
    };
    match format {
        "short" => {
            let mut names: Vec<String> = all.iter().flat_map(&tags).collect();
            names.sort_unstable();
            names.iter().for_each(|n| println!("{n}"));
        }
        "json" | "yaml" => {
            let shown: Vec<Value> = all
                .iter()
                .map(|i| {
                    json!({
                        "id": text(&i["Id"]), "repoDigests": i["RepoDigests"].as_array().cloned().unwrap_or_default(),
                        "repoTags": tags(i), "size": i["Size"].to_string(),
                    })
                })
                .collect();
            match format {
                "json" => println!("{}", json!(shown)),
                _ => print!("{}", serde_yaml::to_string(&shown).unwrap_or_default()),
            }
        }
        "table" => {
            let mut rows = vec![["Image", "Tag", "Image ID", "Size"].map(str::to_owned).to_vec()];
            for i in &all {
                for name in tags(i) {
                    let (image, tag) = name.rsplit_once(':').unwrap_or((&name, ""));
                    let size = format!("{:.1}MB", i["Size"].as_f64().unwrap_or_default() / 1e6);
                    let id = text(&i["Id"]).chars().take(13).collect();
                    rows.push(vec![image.to_owned(), tag.to_owned(), id, size]);
                }
            }
            print!("{}", services::draw(&rows));
        }
        other => {
            let text = format!("--format={other:?}: it is short, table, json or yaml");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    Ok(())
}
