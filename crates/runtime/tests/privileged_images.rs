//! Root filesystems of containers with real overlay mounts. Needs root; says so and passes where it is not.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::Digest;
use tar::{Builder, EntryType, Header};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tripod_agent::ports::{BoxRead, Images, Volumes};
use tripod_model::image::Image;
use tripod_model::reference::Reference;
use tripod_model::volume::Volume;
use tripod_runtime::images::ImageStore;
use tripod_runtime::volumes::VolumeStore;

/// A directory that takes its mounts along when it goes, also when a test fails.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        // Not on a file system in memory or on an overlay, neither of which can hold an upper layer everywhere.
        Some(Self(tempfile::tempdir_in("/var/tmp").unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .map(PathBuf::from);
        points.filter(|p| p.starts_with(self.path())).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for mount in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

type Entry<'a> = (&'a str, EntryType, &'a str, u32, u64);

/// Path, type, link or data, mode, owner.
fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for (path, kind, text, mode, uid) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(*uid);
        header.set_mtime(1_700_000_000);
        let data = if *kind == EntryType::Regular {
            text.as_bytes()
        } else {
            b""
        };
        header.set_size(data.len() as u64);
        if *kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.set_link_name(text).unwrap();
        }
        if *path == "bin/cap" {
            // cap_net_raw+ep, version 2.
            let value = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            out.append_pax_extensions([("SCHILY.xattr.security.capability", &value[..])])
                .unwrap();
        }
        out.append_data(&mut header, path, data).unwrap();
    }
    out.into_inner().unwrap()
}

fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let hex = |b: &[u8]| hex::encode(sha2::Sha256::digest(b));
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| format!("sha256:{}", hex(l))).collect::<Vec<_>>()}});
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", hex(&config));
    let names: Vec<_> = (0..layers.len()).map(|i| format!("{i}.tar")).collect();
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": ["demo:1"], "Layers": names}]).to_string();
    let mut out = Builder::new(Vec::new());
    let mut put = |name: &str, data: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, data).unwrap();
    };
    names.iter().zip(layers).for_each(|(n, l)| put(n, l));
    put(&config_name, &config);
    put("manifest.json", manifest.as_bytes());
    out.into_inner().unwrap()
}

const D: EntryType = EntryType::Directory;
const F: EntryType = EntryType::Regular;

async fn demo(store: &ImageStore) -> Arc<Image> {
    let lowest = layer(&[
        ("bin/", D, "", 0o755, 0),
        ("bin/su", F, "program", 0o4755, 0),
        ("bin/cap", F, "program", 0o755, 0),
        ("bin/again", EntryType::Link, "bin/su", 0o755, 0),
        ("etc/", D, "", 0o755, 0),
        (
            "etc/passwd",
            F,
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
            0o644,
            0,
        ),
        ("etc/group", F, "web:x:33:\nextra:x:44:web\n", 0o644, 0),
        ("null", EntryType::Char, "", 0o666, 0),
        ("old", F, "old", 0o644, 0),
        ("dir/", D, "", 0o750, 33),
        ("dir/a", F, "a", 0o644, 33),
        ("hidden/", D, "", 0o755, 0),
        ("hidden/x", F, "x", 0o644, 0),
    ]);
    let second = layer(&[
        (".wh.old", F, "", 0, 0),
        ("hidden/", D, "", 0o755, 0),
        ("hidden/.wh..wh..opq", F, "", 0, 0),
        ("hidden/y", F, "y", 0o644, 0),
    ]);
    let third = layer(&[("dir/", D, "", 0o750, 33), ("dir/b", F, "b", 0o600, 33)]);
    let read: BoxRead = Box::new(Cursor::new(archive(&[lowest, second, third])));
    store
        .load(read, mpsc::unbounded_channel().0)
        .await
        .unwrap()
        .remove(0)
}

fn kinds(changes: Vec<tripod_agent::ports::Change>) -> Vec<String> {
    changes
        .into_iter()
        .map(|c| format!("{}{}", ['C', 'A', 'D'][usize::from(c.kind)], c.path))
        .collect()
}

fn boxed(data: Vec<u8>) -> BoxRead {
    Box::new(Cursor::new(data))
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_become_a_root_and_changes_an_image() {
    let Some(scratch) = Scratch::new() else { return };
    let store = ImageStore::open(&scratch.path().join("i")).unwrap();
    let image = demo(&store).await;
    store.prepare("one", &image.id).await.unwrap();
    let roots = futures::future::join_all((0..8).map(|_| store.mount("one"))).await;
    let root = roots[0].as_ref().unwrap().path.clone();
    assert_eq!(scratch.mounts(), std::slice::from_ref(&root), "mounted once");
    assert!(!root.join("old").exists() && !root.join("hidden/x").exists());
    assert_eq!(std::fs::read(root.join("hidden/y")).unwrap(), b"y");
    assert_eq!(
        (
            std::fs::read(root.join("dir/a")).unwrap(),
            std::fs::read(root.join("dir/b")).unwrap()
        ),
        (b"a".to_vec(), b"b".to_vec())
    );
    let dir = root.join("dir").metadata().unwrap();
    assert_eq!(
        (dir.uid(), dir.mode() & 0o7777, dir.mtime()),
        (33, 0o750, 1_700_000_000)
    );
    let su = root.join("bin/su").metadata().unwrap();
    assert_eq!((su.mode() & 0o7777, su.nlink()), (0o4755, 2));
    let mut value = [0u8; 64];
    assert_eq!(
        rustix::fs::getxattr(root.join("bin/cap"), "security.capability", &mut value[..]).unwrap(),
        20
    );
    let null = root.join("null").metadata().unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    assert_eq!(root.metadata().unwrap().mode() & 0o7777, 0o755);

    assert!(store.changes("one").await.unwrap().is_empty());
    std::fs::write(root.join("new"), "new").unwrap();
    std::fs::write(root.join("etc/hosts"), "").unwrap();
    std::fs::write(root.join("dir/a"), "changed").unwrap();
    std::fs::remove_file(root.join("dir/b")).unwrap();
    std::fs::remove_dir_all(root.join("hidden")).unwrap();
    std::fs::create_dir(root.join("hidden")).unwrap();
    let changes = kinds(store.changes("one").await.unwrap());
    assert_eq!(changes, ["C/dir", "C/dir/a", "D/dir/b", "C/hidden", "A/new"]);
    assert_eq!(store.container_size("one").await.unwrap().0, 10);

    let name = Some(Reference::parse("committed").unwrap());
    let config = store
        .apply_changes(image.config.clone(), &["CMD x".into()])
        .unwrap();
    let made = store
        .commit("one", &image.id, config, "me".into(), "m".into(), name)
        .await
        .unwrap();
    assert_eq!(made.diff_ids.len(), 4);
    store.prepare("two", &made.id).await.unwrap();
    let two = store.mount("two").await.unwrap().path;
    assert_eq!(std::fs::read(two.join("dir/a")).unwrap(), b"changed");
    assert!(!two.join("dir/b").exists() && !two.join("hidden/y").exists() && two.join("hidden").is_dir());

    // A daemon that starts anew finds the mounts, and unmounting and mounting keeps what was written.
    drop(store);
    let store = ImageStore::open(&scratch.path().join("i")).unwrap();
    assert_eq!(store.snapshots().await.unwrap(), ["one", "two"]);
    store.unmount("one").await.unwrap();
    store.unmount("one").await.unwrap();
    assert!(!root.join("new").exists());
    store.mount("one").await.unwrap();
    assert_eq!(std::fs::read(root.join("new")).unwrap(), b"new");
    store.discard("one").await.unwrap();
    store.discard("two").await.unwrap();
    store.discard("two").await.unwrap();
    assert!(
        std::fs::read_dir(scratch.path().join("i/snapshots"))
            .unwrap()
            .next()
            .is_none()
    );
    wait_empty(&scratch, &scratch.path().join("i/trash"));
}

/// Waits for a directory to be emptied, told by the kernel.
fn wait_empty(scratch: &Scratch, dir: &Path) {
    use rustix::fs::inotify;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, dir, inotify::WatchFlags::DELETE).unwrap();
    let mut buf = [0u8; 4096];
    while std::fs::read_dir(dir).unwrap().next().is_some() {
        let mut ready = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_eq!(
            rustix::event::poll(&mut ready, Some(&limit)).unwrap(),
            1,
            "trash is not emptied"
        );
        rustix::io::read(&watch, &mut buf).unwrap();
    }
    assert!(scratch.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_but_not_beyond() {
    let Some(scratch) = Scratch::new() else { return };
    let store = ImageStore::open(&scratch.path().join("i")).unwrap();
    let image = demo(&store).await;
    store.prepare("c", &image.id).await.unwrap();
    let volume = scratch.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let over = vec![("/srv/data".to_owned(), volume.clone())];
    // The container is not mounted: each call sees to that.
    let links = layer(&[
        ("out", EntryType::Symlink, "/../../../../etc", 0o777, 0),
        ("data", EntryType::Symlink, "/srv/data", 0o777, 0),
        ("srv/data/", D, "", 0o755, 0),
    ]);
    store
        .write_path("c", &[], "/", boxed(links), true, false)
        .await
        .unwrap();
    let inside = layer(&[("f", F, "in volume", 0o600, 7)]);
    store
        .write_path("c", &over, "/data", boxed(inside.clone()), true, false)
        .await
        .unwrap();
    assert_eq!(volume.join("f").metadata().unwrap().uid(), 7);
    store
        .write_path("c", &over, "/out", boxed(inside), true, false)
        .await
        .unwrap();
    assert!(!Path::new("/etc/f").exists());
    let stat = store.stat_path("c", &over, "/data").await.unwrap();
    assert_eq!(
        (stat.name.as_str(), stat.link_target.as_str(), stat.mode >> 27 & 1),
        ("data", "/srv/data", 1)
    );
    let stat = store.stat_path("c", &over, "/data/f").await.unwrap();
    assert_eq!((stat.size, stat.mode), (9, 0o600));
    let e = store.stat_path("c", &over, "/nope").await.unwrap_err();
    assert_eq!(e.message, "Could not find the file /nope in container c");
    let e = store
        .write_path(
            "c",
            &[],
            "/",
            boxed(layer(&[("etc", F, "x", 0o644, 0)])),
            true,
            false,
        )
        .await
        .unwrap_err();
    assert!(e.message.contains("cannot overwrite directory"), "{e}");
    let e = store
        .write_path("c", &[], "/etc/passwd", boxed(layer(&[])), true, false)
        .await
        .unwrap_err();
    assert_eq!(e.message, "extraction point is not a directory");

    let mut tar = Vec::new();
    store
        .read_path("c", &over, "/srv")
        .await
        .unwrap()
        .1
        .read_to_end(&mut tar)
        .await
        .unwrap();
    let names = |tar: &[u8]| -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(names(&tar), ["srv/", "srv/data/", "srv/data/f"]);
    let mut tar = Vec::new();
    store
        .export("c")
        .await
        .unwrap()
        .read_to_end(&mut tar)
        .await
        .unwrap();
    let all = names(&tar);
    assert!(
        all.contains(&"bin/su".to_owned()) && all.contains(&"out".to_owned()),
        "{all:?}"
    );

    assert_eq!(
        store.resolve_user("c", "web").await.unwrap(),
        (33, 33, vec![44], "/srv".to_owned())
    );
    let into = scratch.path().join("into");
    std::fs::create_dir(&into).unwrap();
    store.copy_up("c", "/dir", into.clone()).await.unwrap();
    let made = into.metadata().unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (33, 0o750));
    assert_eq!(std::fs::read(into.join("b")).unwrap(), b"b");
    store.copy_up("c", "/none", into).await.unwrap();
    assert!(
        scratch.mounts().is_empty(),
        "what was mounted for a while is gone"
    );
    store.discard("c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_stacks_and_quick_starts() {
    let Some(scratch) = Scratch::new() else { return };
    // A long root: no single page of options would hold 120 layers of it.
    let root = scratch.path().join("x".repeat(120));
    let store = ImageStore::open(&root).unwrap();
    let layers: Vec<_> = (0..120)
        .map(|i| layer(&[(&format!("f{i}"), F, "x", 0o644, 0)]))
        .collect();
    let image = store
        .load(boxed(archive(&layers)), mpsc::unbounded_channel().0)
        .await
        .unwrap()
        .remove(0);
    store.prepare("deep", &image.id).await.unwrap();
    let mounted = store.mount("deep").await.unwrap().path;
    assert_eq!(std::fs::read_dir(&mounted).unwrap().count(), 120);
    store.discard("deep").await.unwrap();

    let small = demo(&store).await;
    let rounds = 50;
    let begin = std::time::Instant::now();
    for i in 0..rounds {
        let name = format!("quick{i}");
        store.prepare(&name, &small.id).await.unwrap();
        store.mount(&name).await.unwrap();
        store.discard(&name).await.unwrap();
    }
    let each = begin.elapsed() / rounds;
    eprintln!("prepare, mount, discard: {each:?}");
    assert!(each.as_millis() < 50, "{each:?}");
    wait_empty(&scratch, &root.join("trash"));
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_with_options_are_mounted_for_their_users() {
    let Some(scratch) = Scratch::new() else { return };
    let store = VolumeStore::open(&scratch.path().join("v")).unwrap();
    let options: BTreeMap<String, String> = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nodev")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let path = store.create("mem", &options).await.unwrap();
    let volume = Volume {
        name: "mem".into(),
        driver: "local".into(),
        mountpoint: path.display().to_string(),
        created_at: tripod_model::Time::UNIX_EPOCH,
        labels: BTreeMap::new(),
        options,
        anonymous: false,
    };
    store.mount(&volume).await.unwrap();
    store.mount(&volume).await.unwrap();
    assert_eq!(scratch.mounts(), [path]);
    store.unmount(&volume).await.unwrap();
    assert_eq!(scratch.mounts().len(), 1);
    store.unmount(&volume).await.unwrap();
    assert!(scratch.mounts().is_empty());
    let mut bad = volume.clone();
    bad.options.insert("type".into(), "nosuchfs".into());
    let e = store.mount(&bad).await.unwrap_err();
    assert!(e.message.contains("failed to mount local volume"), "{e}");
    store.remove("mem").await.unwrap();
}
