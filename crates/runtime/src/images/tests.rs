//! Loading good and bad archives, names, saving, importing. All of it runs as any user that may change owners
//! (root), without mounts.

use std::io::{Cursor, Write};
use std::sync::Arc;

use sha2::Digest;
use tar::{Builder, EntryType, Header};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tripod_agent::ports::{Images, Progress, Removed};
use tripod_model::image::Image;
use tripod_model::reference::Reference;
use tripod_model::{ErrorKind, Result};

use super::ImageStore;

fn sha(bytes: &[u8]) -> String {
    hex::encode(sha2::Sha256::digest(bytes))
}

struct Item<'a> {
    path: &'a str,
    kind: EntryType,
    link: &'a str,
    data: &'a [u8],
}

fn file<'a>(path: &'a str, data: &'a [u8]) -> Item<'a> {
    Item {
        path,
        kind: EntryType::Regular,
        link: "",
        data,
    }
}

fn other<'a>(path: &'a str, kind: EntryType, link: &'a str) -> Item<'a> {
    Item {
        path,
        kind,
        link,
        data: b"",
    }
}

/// A tar whose names are written as they are, however bad.
fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..item.path.len()].copy_from_slice(item.path.as_bytes());
        header.as_old_mut().linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_entry_type(item.kind);
        header.set_mode(if item.kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_mtime(1_700_000_000);
        header.set_size(item.data.len() as u64);
        header.set_cksum();
        out.append(&header, item.data).unwrap();
    }
    out.into_inner().unwrap()
}

/// An archive as `docker save` wrote it before version 25.
fn saved(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|l| format!("sha256:{}", sha(l))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2024-05-01T00:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", sha(&config));
    let names: Vec<_> = (0..layers.len()).map(|i| format!("l{i}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut items: Vec<_> = names.iter().zip(layers).map(|(n, l)| file(n, l)).collect();
    items.push(file(&config_name, &config));
    items.push(file("manifest.json", &manifest));
    tar_of(&items)
}

struct Fixture {
    _dir: tempfile::TempDir,
    root: std::path::PathBuf,
    store: ImageStore,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    let store = ImageStore::open(&root).unwrap();
    Fixture {
        _dir: dir,
        root,
        store,
    }
}

impl Fixture {
    async fn load(&self, archive: Vec<u8>) -> Result<Vec<Arc<Image>>> {
        self.store
            .load(
                Box::new(Cursor::new(archive)),
                mpsc::unbounded_channel::<Progress>().0,
            )
            .await
    }

    /// Nothing is left of what failed.
    fn assert_empty(&self) {
        for dir in ["content/blobs/sha256", "tmp", "layers"] {
            let left: Vec<_> = std::fs::read_dir(self.root.join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
    }
}

fn base_layer() -> Vec<u8> {
    tar_of(&[
        other("etc/", EntryType::Directory, ""),
        file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
        file("a", b"a"),
    ])
}

#[tokio::test]
async fn loads_plain_gzip_and_zstd() {
    let archive = saved("demo:1", &[base_layer()]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for archive in [archive.clone(), gzip.finish().unwrap(), zstd] {
        let f = fixture();
        let images = f.load(archive).await.unwrap();
        assert_eq!(images[0].tags, ["demo:1"]);
        assert_eq!(images[0].config.cmd, ["sh"]);
        assert_eq!(images[0].size, 27);
        // After a restart it is all still there.
        let again = ImageStore::open(&f.root).unwrap();
        assert_eq!(again.get("demo:1").await.unwrap(), images[0]);
        assert_eq!(again.get(&images[0].id[7..17]).await.unwrap().id, images[0].id);
    }
}

#[tokio::test]
async fn truncated_archives_are_refused_without_residue() {
    let archive = saved("demo:1", &[base_layer()]);
    for cut in [300, 700, 2000, archive.len() - 1800] {
        let f = fixture();
        let e = f.load(archive[..cut].to_vec()).await.unwrap_err();
        assert_eq!(e.kind, ErrorKind::Invalid, "{cut}: {e}");
        f.assert_empty();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let gzip = gzip.finish().unwrap();
    let f = fixture();
    let e = f.load(gzip[..gzip.len() / 2].to_vec()).await.unwrap_err();
    assert!(e.message.contains("truncated"), "{e}");
    f.assert_empty();
}

#[tokio::test]
async fn malicious_layers_are_refused_or_contained() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let outside = secret.path().to_str().unwrap().to_owned();
    let up = "../../../../../../../../../../../";
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("dot-dot", tar_of(&[file("../evil", b"x")]), false),
        ("deep dot-dot", tar_of(&[file("a/../../evil", b"x")]), false),
        (
            "hard link outside",
            tar_of(&[other("l", EntryType::Link, &format!("{up}{outside}"))]),
            false,
        ),
        (
            "hard link to absolute",
            tar_of(&[other("l", EntryType::Link, &outside)]),
            false,
        ),
        (
            "hard link to nothing",
            tar_of(&[other("l", EntryType::Link, "none")]),
            false,
        ),
        ("absolute path", tar_of(&[file("/evil-absolute", b"x")]), true),
        (
            "link then file",
            tar_of(&[other("l", EntryType::Symlink, "/tmp"), file("l/evil-link", b"x")]),
            false,
        ),
        (
            "hard link through link",
            tar_of(&[
                other("d", EntryType::Symlink, "/"),
                other("l", EntryType::Link, &format!("d{outside}")),
            ]),
            false,
        ),
        (
            "endless link",
            tar_of(&[other("l", EntryType::Symlink, "l"), file("l/x", b"x")]),
            false,
        ),
    ];
    for (what, layer, good) in cases {
        let f = fixture();
        let loaded = f.load(saved("demo:1", &[layer])).await;
        assert_eq!(loaded.is_ok(), good, "{what}: {loaded:?}");
        if let Err(e) = loaded {
            assert_eq!(e.kind, ErrorKind::Invalid, "{what}: {e}");
            f.assert_empty();
        }
        for escaped in ["/tmp/evil-link", "/evil-absolute", "/evil"] {
            assert!(!std::path::Path::new(escaped).exists(), "{what}: {escaped}");
        }
    }
    use std::os::unix::fs::MetadataExt;
    assert_eq!(secret.as_file().metadata().unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_link_inside_the_layer_is_followed_inside() {
    let f = fixture();
    let layer = tar_of(&[
        other("usr/lib/", EntryType::Directory, ""),
        other("lib", EntryType::Symlink, "/usr/lib"),
        file("lib/x", b"x"),
        other("y", EntryType::Link, "lib/x"),
    ]);
    let image = f.load(saved("demo:1", &[layer])).await.unwrap().remove(0);
    let dir = f.root.join("layers").join(&image.diff_ids[0][7..]);
    assert_eq!(std::fs::read(dir.join("usr/lib/x")).unwrap(), b"x");
    assert_eq!(std::fs::read(dir.join("y")).unwrap(), b"x");
}

#[tokio::test]
async fn wrong_digests_are_refused() {
    let layer = base_layer();
    let good = saved("demo:1", std::slice::from_ref(&layer));
    // One bit of the layer's content, behind its first header.
    let at = good.windows(5).position(|w| w == b"root:").unwrap();
    let mut bad = good.clone();
    bad[at] ^= 1;
    let f = fixture();
    let e = f.load(bad).await.unwrap_err();
    assert!(e.message.contains("verification failed"), "{e}");
    f.assert_empty();
    // A layout's blob that is not what its name says.
    let lie = tar_of(&[file(&format!("blobs/sha256/{}", sha(b"other")), &layer)]);
    assert!(
        f.load(lie)
            .await
            .unwrap_err()
            .message
            .contains("verification failed")
    );
    let empty = tar_of(&[file("readme", b"hello")]);
    assert!(
        f.load(empty)
            .await
            .unwrap_err()
            .message
            .contains("holds no image")
    );
    f.assert_empty();
}

#[tokio::test]
async fn bombs_are_bounded() {
    // A header that promises more than any disk has.
    let mut header = Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(1 << 60);
    header.set_cksum();
    let mut layer = header.as_bytes().to_vec();
    layer.extend([0; 4096]);
    let f = fixture();
    let e = f.load(saved("demo:1", &[layer])).await.unwrap_err();
    assert!(e.message.contains("no space left"), "{e}");
    f.assert_empty();
    let long = vec![b' '; 5 << 20];
    let archive = tar_of(&[file("manifest.json", &long)]);
    assert!(f.load(archive).await.unwrap_err().message.contains("too long"));
    f.assert_empty();
}

#[tokio::test]
async fn names_follow_dockers_rules() {
    let f = fixture();
    let id = f.load(saved("demo:1", &[base_layer()])).await.unwrap()[0]
        .id
        .clone();
    let short = id[7..19].to_owned();
    f.store
        .tag("demo:1", &Reference::parse("other/demo:2").unwrap())
        .await
        .unwrap();
    assert_eq!(
        f.store.get("other/demo:2").await.unwrap().tags,
        ["other/demo:2", "demo:1"]
            .map(str::to_owned)
            .iter()
            .rev()
            .cloned()
            .collect::<Vec<_>>()
    );
    let e = f.store.remove(&short, false, true, &[]).await.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Conflict);
    assert_eq!(
        e.message,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    let gone = f.store.remove("demo:1", false, true, &[]).await.unwrap();
    assert_eq!(gone, [Removed::Untagged("demo:1".into())]);
    f.store.prepare("c0ffee", &id).await.unwrap();
    let in_use = [id.clone()];
    let e = f
        .store
        .remove("other/demo:2", false, true, &in_use)
        .await
        .unwrap_err();
    assert_eq!(
        e.message,
        format!(
            "conflict: unable to remove repository reference \"other/demo:2\" (must force) - container c0ffee is using its referenced image {short}"
        )
    );
    let e = f.store.remove(&short, false, true, &in_use).await.unwrap_err();
    assert_eq!(
        e.message,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container c0ffee"
        )
    );
    // By force it goes; the container keeps its layers until it goes itself.
    let gone = f.store.remove("other/demo:2", true, true, &in_use).await.unwrap();
    assert!(gone.contains(&Removed::Deleted(id.clone())), "{gone:?}");
    assert_eq!(std::fs::read_dir(f.root.join("layers")).unwrap().count(), 1);
    let again = ImageStore::open(&f.root).unwrap();
    assert_eq!(again.snapshots().await.unwrap(), ["c0ffee"]);
    again.discard("c0ffee").await.unwrap();
    assert_eq!(std::fs::read_dir(f.root.join("layers")).unwrap().count(), 0);
    assert_eq!(
        f.store.get("nope").await.unwrap_err().message,
        "No such image: nope:latest"
    );
}

#[tokio::test]
async fn what_is_saved_loads_elsewhere() {
    let f = fixture();
    let second = tar_of(&[file(".wh.a", b""), file("b", b"b")]);
    let image = f
        .load(saved("demo:1", &[base_layer(), second]))
        .await
        .unwrap()
        .remove(0);
    f.store
        .tag("demo:1", &Reference::parse("demo:2").unwrap())
        .await
        .unwrap();
    let mut archive = Vec::new();
    f.store
        .save(&["demo".into()])
        .await
        .unwrap()
        .read_to_end(&mut archive)
        .await
        .unwrap();
    let g = fixture();
    let loaded = g.load(archive.clone()).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(
        (&loaded[0].id, &loaded[0].tags),
        (&image.id, &vec!["demo:1".to_owned(), "demo:2".to_owned()])
    );
    assert!(loaded[0].manifest.is_some());
    // The same archive as a pure OCI layout.
    let mut layout = Builder::new(Vec::new());
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if path.to_str() != Some("manifest.json") {
            let mut header = entry.header().clone();
            layout.append_data(&mut header, path, &mut entry).unwrap();
        }
    }
    let h = fixture();
    let loaded = h.load(layout.into_inner().unwrap()).await.unwrap();
    assert_eq!(loaded[0].tags, ["demo:1", "demo:2"]);
    assert!(f.store.save(&["nope".into()]).await.is_err());
}

#[tokio::test]
async fn import_and_prune() {
    let f = fixture();
    let archive: Box<dyn tokio::io::AsyncRead + Send + Unpin> = Box::new(Cursor::new(base_layer()));
    let name = Reference::parse("imported").unwrap();
    let image = f
        .store
        .import(
            archive,
            Some(name),
            vec!["CMD [\"a\"]".into()],
            "why".into(),
            None,
        )
        .await
        .unwrap();
    assert_eq!(
        (image.config.cmd.as_slice(), image.comment.as_str()),
        (&["a".to_owned()][..], "why")
    );
    let (removed, won) = f.store.prune(std::slice::from_ref(&image.id)).await.unwrap();
    assert_eq!(won, 27);
    assert!(removed.contains(&Removed::Untagged("imported:latest".into())));
    f.assert_empty();
    let bad: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
        Box::new(Cursor::new(b"not a tar, but long enough ".repeat(40)));
    let e = f
        .store
        .import(bad, None, Vec::new(), String::new(), None)
        .await
        .unwrap_err();
    assert_eq!(e.kind, ErrorKind::Invalid, "{e}");
    f.assert_empty();
}

/// What another store holds, as a connection that breaks now and then, or lies.
struct Peer {
    store: ImageStore,
    /// Each stream ends after so many bytes.
    breaks_after: u64,
    tampers: bool,
    opened: std::sync::Mutex<Vec<(String, u64)>>,
}

#[async_trait::async_trait]
impl tripod_agent::ports::Content for Peer {
    async fn open(&self, digest: &str, from: u64) -> Result<(u64, tripod_agent::ports::BoxRead)> {
        self.opened.lock().unwrap().push((digest.to_owned(), from));
        let (size, data) = self.store.content(digest, from).await?;
        if !self.tampers {
            return Ok((size, Box::new(data.take(self.breaks_after))));
        }
        let mut bytes = Vec::new();
        data.take(u64::MAX).read_to_end(&mut bytes).await?;
        bytes.iter_mut().for_each(|b| *b ^= 1);
        Ok((size, Box::new(Cursor::new(bytes))))
    }
}

fn peer(f: &Fixture, breaks_after: u64, tampers: bool) -> Arc<Peer> {
    Arc::new(Peer {
        store: f.store.clone(),
        breaks_after,
        tampers,
        opened: std::sync::Mutex::default(),
    })
}

fn silent() -> mpsc::UnboundedSender<Progress> {
    mpsc::unbounded_channel().0
}

#[tokio::test]
async fn images_are_taken_over_from_other_stores() {
    let (from, to) = (fixture(), fixture());
    let loaded = from.load(saved("demo:1", &[base_layer()])).await.unwrap();
    let offer = from.store.offer("demo:1").await.unwrap();
    assert_eq!(offer.id, loaded[0].id);
    // Broken off again and again: goes on where it was.
    let source = peer(&from, 1000, false);
    let name = Reference::parse("demo:1").unwrap();
    let image = to
        .store
        .take_over(&offer, &name, source.clone(), silent())
        .await
        .unwrap();
    assert_eq!(
        (&image.id, &image.tags),
        (&loaded[0].id, &vec!["demo:1".to_owned()])
    );
    assert!(
        to.root
            .join("layers")
            .join(&image.diff_ids[0][7..])
            .join("etc/passwd")
            .exists()
    );
    let layer = &offer.layers[0].digest;
    let starts: Vec<u64> = source
        .opened
        .lock()
        .unwrap()
        .iter()
        .filter(|(d, _)| d == layer)
        .map(|(_, at)| *at)
        .collect();
    assert!(
        starts.len() > 1 && starts.windows(2).all(|w| w[1] == w[0] + 1000),
        "{starts:?}"
    );
    // Once more, under another name: all of it is here.
    let other = Reference::parse("other").unwrap();
    let before = source.opened.lock().unwrap().len();
    to.store
        .take_over(&offer, &other, source.clone(), silent())
        .await
        .unwrap();
    assert_eq!(source.opened.lock().unwrap().len(), before);
    assert!(to.store.get("other:latest").await.is_ok());
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused_and_leaves_nothing() {
    let (from, to) = (fixture(), fixture());
    from.load(saved("demo:1", &[base_layer()])).await.unwrap();
    let offer = from.store.offer("demo:1").await.unwrap();
    let name = Reference::parse("demo:1").unwrap();
    let fails = async |offer: &tripod_model::image::ImageOffer, tampers: bool| {
        let taken = to
            .store
            .take_over(offer, &name, peer(&from, u64::MAX, tampers), silent());
        let error = taken.await.unwrap_err();
        to.assert_empty();
        error
    };
    fails(&offer, true).await;
    let mut fewer = offer.clone();
    fewer.layers.clear();
    assert_eq!(fails(&fewer, false).await.kind, ErrorKind::Invalid);
    let mut longer = offer.clone();
    longer.layers[0].size += 1;
    assert_eq!(fails(&longer, false).await.kind, ErrorKind::Invalid);
    let mut path = offer.clone();
    path.id = "sha256:../../etc/passwd".into();
    assert_eq!(fails(&path, false).await.kind, ErrorKind::Invalid);
    assert!(from.store.content("sha256:../index.json", 0).await.is_err());
    assert_eq!(
        from.store.content(&offer.id, 1 << 30).await.err().unwrap().kind,
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn content_is_fetched_once_at_a_time() {
    let (from, to) = (fixture(), fixture());
    from.load(saved("demo:1", &[base_layer()])).await.unwrap();
    let offer = from.store.offer("demo:1").await.unwrap();
    let source = peer(&from, u64::MAX, false);
    let names: Vec<_> = (0..4)
        .map(|i| Reference::parse(&format!("demo:{i}")).unwrap())
        .collect();
    let all = names
        .iter()
        .map(|name| to.store.take_over(&offer, name, source.clone(), silent()));
    futures::future::try_join_all(all).await.unwrap();
    let opened = source.opened.lock().unwrap();
    assert_eq!(opened.len(), 2, "configuration and layer: {opened:?}");
}
