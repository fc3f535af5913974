//! Pull and push against Debian's `docker-registry`, and against servers that lie, hang and break off.

use std::collections::{HashMap, VecDeque};
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::Digest;
use tar::{Builder, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tripod_agent::ports::{BoxRead, Images, Progress};
use tripod_model::image::{Platform, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{ErrorKind, Result};
use tripod_runtime::images::{ImageStore, RegistryOptions};

const REGISTRY: &str = "/usr/bin/docker-registry";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

fn open(dir: &Path, name: &str) -> ImageStore {
    let options = RegistryOptions {
        answer: Duration::from_millis(800),
        idle: Duration::from_millis(400),
        back_off: Duration::from_millis(5),
        ..RegistryOptions::default()
    };
    ImageStore::open_with(&dir.join(name), options).unwrap()
}

fn layer(name: &str, size: usize) -> Vec<u8> {
    // Bytes that do not compress, the same each time.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(size)
    .collect();
    let mut out = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, name, &data[..]).unwrap();
    out.into_inner().unwrap()
}

fn config_of(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|l| digest(l)).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    config.to_string().into_bytes()
}

async fn load(store: &ImageStore, tag: &str, layers: &[Vec<u8>]) -> String {
    let config = config_of(layers);
    let names: Vec<_> = (0..layers.len()).map(|i| format!("{i}.tar")).collect();
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": [tag], "Layers": names}]).to_string();
    let mut out = Builder::new(Vec::new());
    let mut put = |name: &str, data: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, data).unwrap();
    };
    names.iter().zip(layers).for_each(|(n, l)| put(n, l));
    put("c.json", &config);
    put("manifest.json", manifest.as_bytes());
    let read: BoxRead = Box::new(Cursor::new(out.into_inner().unwrap()));
    store.load(read, mpsc::unbounded_channel().0).await.unwrap()[0]
        .id
        .clone()
}

async fn pull(store: &ImageStore, name: &str, auth: Option<RegistryAuth>) -> (Result<String>, Vec<Progress>) {
    let (send, mut receive) = mpsc::unbounded_channel();
    let amd64 = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
    };
    let done = store
        .pull(&Reference::parse(name).unwrap(), false, Some(amd64), auth, send)
        .await;
    let mut steps = Vec::new();
    while let Some(step) = receive.recv().await {
        steps.push(step);
    }
    (done.map(|i| i.id.clone()), steps)
}

async fn push(store: &ImageStore, name: &str, auth: Option<RegistryAuth>) -> (Result<()>, Vec<String>) {
    let (send, mut receive) = mpsc::unbounded_channel();
    let done = store
        .push(&Reference::parse(name).unwrap(), false, auth, send)
        .await;
    let mut steps = Vec::new();
    while let Some(step) = receive.recv().await {
        steps.push(step.status);
    }
    (done, steps)
}

fn has(steps: &[String], text: &str) -> bool {
    steps.iter().any(|s| s.starts_with(text))
}

fn auth(user: &str, password: &str) -> Option<RegistryAuth> {
    Some(RegistryAuth {
        username: user.into(),
        password: password.into(),
        ..RegistryAuth::default()
    })
}

/// A registry on a free port, ended with the test.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    async fn start(dir: &Path, extra: &str) -> Option<Self> {
        if !Path::new(REGISTRY).exists() {
            eprintln!("skipped: {REGISTRY} is not installed");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{extra}",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(REGISTRY)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            address: address.clone(),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        // A server gives no sign but its open port.
        while TcpStream::connect(&address).await.is_err() {
            assert!(Instant::now() < deadline, "registry does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = Registry::start(dir.path(), "").await else {
        return;
    };
    let at = &registry.address;
    let (one, two) = (open(dir.path(), "one"), open(dir.path(), "two"));
    let name = format!("{at}/team/demo:1");
    let layers = [layer("a", 3 << 20), layer("b", 1000)];
    let id = load(&one, &name, &layers).await;
    let (done, steps) = push(&one, &name, None).await;
    done.unwrap();
    assert!(
        has(&steps, &format!("The push refers to repository [{at}/team/demo]")) && has(&steps, "Pushed"),
        "{steps:?}"
    );
    assert!(has(&steps, "1: digest: sha256:"));
    assert!(has(&push(&one, &name, None).await.1, "Layer already exists"));

    let (done, steps) = pull(&two, &name, None).await;
    assert_eq!(done.unwrap(), id);
    let texts: Vec<String> = steps.iter().map(|s| s.status.clone()).collect();
    for text in [
        "Pulling from team/demo",
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Digest: sha256:",
    ] {
        assert!(has(&texts, text), "{text}: {texts:?}");
    }
    assert_eq!(
        texts.last().unwrap(),
        &format!("Status: Downloaded newer image for {name}")
    );
    let texts: Vec<String> = pull(&two, &name, None)
        .await
        .1
        .into_iter()
        .map(|s| s.status)
        .collect();
    assert_eq!(
        texts.last().unwrap(),
        &format!("Status: Image is up to date for {name}")
    );
    let image = two.get(&name).await.unwrap();
    assert_eq!(image.digests.len(), 1);
    assert_eq!(pull(&two, &image.digests[0], None).await.0.unwrap(), id);

    // Compressed layers go on to another repository as they are, mounted there by the registry.
    let other = format!("{at}/other:2");
    two.tag(&name, &Reference::parse(&other).unwrap()).await.unwrap();
    let (done, steps) = push(&two, &other, None).await;
    done.unwrap();
    assert!(has(&steps, "Mounted from team/demo"), "{steps:?}");
    let remote = two
        .inspect_remote(&Reference::parse(&other).unwrap(), None)
        .await
        .unwrap();
    assert_eq!(
        image.manifest.as_ref().unwrap().digest,
        remote.descriptor.digest,
        "the manifest kept its digest"
    );
    assert_eq!(remote.platforms[0].architecture, "amd64");

    let (failed, _) = pull(&two, &format!("{at}/team/demo:nope"), None).await;
    let e = failed.unwrap_err();
    assert_eq!(e.kind, ErrorKind::NotFound);
    assert!(
        e.message.starts_with(&format!(
            "manifest for {at}/team/demo:nope not found: manifest unknown"
        )),
        "{e}"
    );
    let e = push(&two, &format!("{at}/absent:1"), None).await.0.unwrap_err();
    assert_eq!(
        e.message,
        format!("An image does not exist locally with the tag: {at}/absent")
    );
    let e = push(&two, &format!("{at}/other:9"), None).await.0.unwrap_err();
    assert_eq!(e.message, format!("tag does not exist: {at}/other:9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("htpasswd");
    // bcrypt of "secret".
    std::fs::write(
        &users,
        "me:$2y$05$d.VCLF6wLmbZJlWPqrbCUu7hbFbKrNk6d6NOLbNnr6nHoeIMShRd2\n",
    )
    .unwrap();
    let has_htpasswd = Command::new("htpasswd").args(["-Bbn", "me", "secret"]).output();
    match has_htpasswd {
        Ok(out) if out.status.success() => std::fs::write(&users, out.stdout).unwrap(),
        _ => match Command::new("python3")
            .args([
                "-c",
                "import bcrypt;print('me:'+bcrypt.hashpw(b'secret',bcrypt.gensalt(5)).decode())",
            ])
            .output()
        {
            Ok(out) if out.status.success() => std::fs::write(&users, out.stdout).unwrap(),
            _ => {
                eprintln!("skipped: neither htpasswd nor python3-bcrypt is installed");
                return;
            }
        },
    }
    let extra = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display());
    let Some(registry) = Registry::start(dir.path(), &extra).await else {
        return;
    };
    let store = open(dir.path(), "one");
    let name = format!("{}/demo:1", registry.address);
    load(&store, &name, &[layer("a", 100)]).await;
    let e = push(&store, &name, None).await.0.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unauthorized, "{e}");
    assert_eq!(
        push(&store, &name, auth("me", "wrong")).await.0.unwrap_err().kind,
        ErrorKind::Unauthorized
    );
    push(&store, &name, auth("me", "secret")).await.0.unwrap();
    pull(&open(dir.path(), "two"), &name, auth("me", "secret"))
        .await
        .0
        .unwrap();
    let login = |password: &str| RegistryAuth {
        server_address: registry.address.clone(),
        ..auth("me", password).unwrap()
    };
    let plain = RegistryAuth {
        server_address: format!("http://{}", registry.address),
        ..login("secret")
    };
    assert_eq!(store.login(&plain).await.unwrap(), "Login Succeeded");
    let e = store.login(&login("wrong")).await.unwrap_err();
    assert!(
        e.message
            .ends_with("unauthorized: incorrect username or password"),
        "{e}"
    );
}

/// What the bad server does with one request.
#[derive(Clone)]
enum Act {
    /// Status, headers, body.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Promises the body, sends so many bytes of it (from the range asked for) and breaks off.
    Part(Vec<u8>, usize),
    /// Sends so many bytes of it and then nothing, with the connection open.
    Hang(Vec<u8>, usize),
    /// Sends the body, or its asked range.
    Body(Vec<u8>),
}

type Script = Arc<Mutex<HashMap<String, VecDeque<Act>>>>;
type Log = Arc<Mutex<Vec<(String, HashMap<String, String>)>>>;

struct Bad {
    address: String,
    script: Script,
    log: Log,
    task: tokio::task::JoinHandle<()>,
}

impl Bad {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (script, log) = (Script::default(), Log::default());
        let (s, l) = (Arc::clone(&script), Arc::clone(&log));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&s), Arc::clone(&l)));
            }
        });
        Self {
            address,
            script,
            log,
            task,
        }
    }

    /// Answers for a path, in turn; the last one again and again.
    fn on(&self, path: &str, acts: Vec<Act>) {
        self.script.lock().unwrap().insert(path.to_owned(), acts.into());
    }

    /// An image of one layer; gives its layer's path, and the layer.
    fn image(&self, size: usize) -> (String, Vec<u8>) {
        let plain = layer("file", size);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let blob = gzip.finish().unwrap();
        let config = config_of(&[plain]);
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&blob), "size": blob.len()}]});
        let manifest = manifest.to_string().into_bytes();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"arm"), "size": 3, "platform": {"os": "linux", "architecture": "arm64"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(), "platform": {"os": "linux", "architecture": "amd64"}}]});
        self.on(
            "/v2/x/manifests/1",
            vec![Act::Body(index.to_string().into_bytes())],
        );
        self.on(
            &format!("/v2/x/manifests/{}", digest(&manifest)),
            vec![Act::Body(manifest)],
        );
        self.on(
            &format!("/v2/x/blobs/{}", digest(&config)),
            vec![Act::Body(config)],
        );
        let path = format!("/v2/x/blobs/{}", digest(&blob));
        self.on(&path, vec![Act::Body(blob.clone())]);
        (path, blob)
    }

    fn name(&self) -> String {
        format!("{}/x:1", self.address)
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Script, log: Log) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(b) => head.push(b),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let from: usize = headers
        .get("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    log.lock().unwrap().push((target, headers));
    let act = {
        let mut script = script.lock().unwrap();
        match script.get_mut(&path) {
            Some(acts) if acts.len() > 1 => acts.pop_front(),
            Some(acts) => acts.front().cloned(),
            None => None,
        }
    };
    let (status, extra, body, len, stay) = match act.unwrap_or(Act::Say(404, Vec::new(), Vec::new())) {
        Act::Say(status, headers, body) => (status, headers, body.clone(), body.len(), false),
        Act::Body(body) => (200, Vec::new(), body.clone(), body.len(), false),
        Act::Part(body, n) => (200, Vec::new(), body, n, false),
        Act::Hang(body, n) => (200, Vec::new(), body, n, true),
    };
    let ranged = from > 0 && status == 200 && from < body.len();
    let (status, start) = if ranged { (206, from) } else { (status, 0) };
    let mut answer = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len() - start
    );
    if ranged {
        answer += &format!(
            "Content-Range: bytes {start}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        );
    }
    for (name, value) in extra {
        answer += &format!("{name}: {value}\r\n");
    }
    answer += "\r\n";
    let end = (start + len).min(body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.write_all(&body[start..end]).await;
    let _ = stream.flush().await;
    if stay {
        // Until the client has had enough.
        let _ = stream.read(&mut [0; 1]).await;
    }
}

fn assert_clean(dir: &Path) {
    for sub in ["content/blobs/sha256", "tmp", "layers"] {
        assert_eq!(std::fs::read_dir(dir.join(sub)).unwrap().count(), 0, "{sub}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_on_where_they_broke_off() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::start().await;
    let (path, blob) = bad.image(400_000);
    bad.on(
        &path,
        vec![
            Act::Part(blob.clone(), 100_000),
            Act::Say(503, Vec::new(), Vec::new()),
            Act::Hang(blob.clone(), 50_000),
            Act::Body(blob.clone()),
        ],
    );
    let store = open(dir.path(), "one");
    pull(&store, &bad.name(), None).await.0.unwrap();
    let log = bad.log.lock().unwrap();
    let ranges: Vec<_> = log
        .iter()
        .filter(|(t, _)| *t == path)
        .map(|(_, h)| h.get("range").cloned().unwrap_or_default())
        .collect();
    assert_eq!(ranges, ["", "bytes=100000-", "bytes=100000-", "bytes=150000-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::start().await;
    let (path, blob) = bad.image(50_000);
    let store = open(dir.path(), "one");
    let mut wrong = blob.clone();
    wrong[30_000] ^= 1;
    let mut longer = blob.clone();
    longer.extend([0; 10]);
    for (what, body) in [("verification failed", wrong), ("longer than", longer)] {
        bad.on(&path, vec![Act::Body(body)]);
        let e = pull(&store, &bad.name(), None).await.0.unwrap_err();
        assert_eq!(e.kind, ErrorKind::Invalid);
        assert!(e.message.contains(what), "{e}");
        assert_clean(&dir.path().join("one"));
    }
    bad.on(&path, vec![Act::Part(blob, 0)]);
    let e = pull(&store, &bad.name(), None).await.0.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unavailable, "{e}");
    assert_clean(&dir.path().join("one"));
    // A manifest under a digest that it does not have.
    let by_digest = format!("{}/x@{}", bad.address, digest(b"other"));
    bad.on(
        &format!("/v2/x/manifests/{}", digest(b"other")),
        vec![Act::Body(b"{}".to_vec())],
    );
    assert!(
        pull(&store, &by_digest, None)
            .await
            .0
            .unwrap_err()
            .message
            .contains("verification failed")
    );
    bad.on("/v2/x/manifests/1", vec![Act::Body(vec![b' '; 5 << 20])]);
    assert!(
        pull(&store, &bad.name(), None)
            .await
            .0
            .unwrap_err()
            .message
            .contains("too long")
    );
    bad.on("/v2/x/manifests/1", vec![Act::Body(b"<html>".to_vec())]);
    assert_eq!(
        pull(&store, &bad.name(), None).await.0.unwrap_err().kind,
        ErrorKind::Invalid
    );
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_registries_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::start().await;
    let store = open(dir.path(), "one");
    bad.on("/v2/x/manifests/1", vec![Act::Hang(vec![0; 100], 10)]);
    let begin = Instant::now();
    let e = pull(&store, &bad.name(), None).await.0.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Timeout, "{e}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    // Accepts connections (in its backlog), never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/x:1", deaf.local_addr().unwrap());
    assert_eq!(
        pull(&store, &name, None).await.0.unwrap_err().kind,
        ErrorKind::Timeout
    );
    drop(deaf);
    let e = pull(&store, &name, None).await.0.unwrap_err();
    assert!(e.message.contains("connection refused"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_kept_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, elsewhere) = (Bad::start().await, Bad::start().await);
    let (path, blob) = bad.image(5_000);
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"repository:x:pull\"",
        bad.address
    );
    let index = match bad.script.lock().unwrap()["/v2/x/manifests/1"][0].clone() {
        Act::Body(body) => body,
        _ => unreachable!(),
    };
    bad.on(
        "/v2/x/manifests/1",
        vec![
            Act::Say(401, vec![("WWW-Authenticate", challenge.clone())], Vec::new()),
            Act::Body(index),
        ],
    );
    bad.on("/token", vec![Act::Body(br#"{"token":"abc"}"#.to_vec())]);
    // The blob is elsewhere, as registries have it.
    bad.on(
        &path,
        vec![Act::Say(
            307,
            vec![("Location", format!("http://{}/blob", elsewhere.address))],
            Vec::new(),
        )],
    );
    elsewhere.on("/blob", vec![Act::Body(blob)]);
    let store = open(dir.path(), "one");
    pull(&store, &bad.name(), auth("me", "secret")).await.0.unwrap();
    {
        let log = bad.log.lock().unwrap();
        let token = log.iter().find(|(t, _)| t.starts_with("/token")).unwrap();
        assert!(
            token.0.contains("scope=repository%3Ax%3Apull") && token.0.contains("service=reg"),
            "{}",
            token.0
        );
        assert!(token.1["authorization"].starts_with("Basic "));
        assert_eq!(
            log.iter().find(|(t, _)| *t == path).unwrap().1["authorization"],
            "Bearer abc"
        );
        assert!(!elsewhere.log.lock().unwrap()[0].1.contains_key("authorization"));
    }
    // A refresh token is sent in the body of a POST.
    let identity = RegistryAuth {
        identity_token: "refresh".into(),
        ..RegistryAuth::default()
    };
    bad.on(
        "/v2/x/manifests/1",
        vec![Act::Say(401, vec![("WWW-Authenticate", challenge)], Vec::new())],
    );
    let e = pull(&store, &bad.name(), Some(identity)).await.0.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unauthorized);
    assert_eq!(
        bad.log
            .lock()
            .unwrap()
            .iter()
            .filter(|(t, _)| t == "/token")
            .count(),
        1
    );
    let denied =
        br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#.to_vec();
    bad.on("/v2/x/manifests/1", vec![Act::Say(403, Vec::new(), denied)]);
    let e = pull(&store, &bad.name(), None).await.0.unwrap_err();
    assert_eq!(
        e.message,
        format!(
            "pull access denied for {}/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            bad.address
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_platforms_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::start().await;
    bad.image(100);
    let store = open(dir.path(), "one");
    let s390 = Platform {
        os: "linux".into(),
        architecture: "s390x".into(),
        variant: String::new(),
    };
    let name = Reference::parse(&bad.name()).unwrap();
    let e = store
        .pull(&name, false, Some(s390), None, mpsc::unbounded_channel().0)
        .await
        .unwrap_err();
    assert_eq!(
        e.message,
        "no matching manifest for linux/s390x in the manifest list entries"
    );
}
