"""Image archives, as `docker save` writes them: an OCI layout with the manifest.json that older engines read.

Everything is reproducible: members sorted, one time stamp, owner root.
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", 1767225600))  # 2026-01-01
CREATED = datetime.fromtimestamp(EPOCH, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Layer:
    """An uncompressed layer: its bytes and the history line that tells how it came about."""

    data: bytes
    history: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Image:
    """An image to be: its name with tag, its layers (lowest first), and the `config` part of its configuration."""

    name: str
    layers: list[Layer]
    config: dict = field(default_factory=dict)


def layer(root: Path, history: str) -> Layer:
    """Packs what is below `root`. Files with several names become hard links, everything belongs to root."""
    buffer = io.BytesIO()
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).parts):
            name = str(path.relative_to(root))
            info = path.lstat()
            member = tarfile.TarInfo(name)
            member.mode = stat.S_IMODE(info.st_mode)
            member.mtime = EPOCH
            if path.is_symlink():
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
            elif path.is_dir():
                member.type = tarfile.DIRTYPE
            elif info.st_nlink > 1 and (info.st_dev, info.st_ino) in seen:
                member.type, member.linkname = tarfile.LNKTYPE, seen[info.st_dev, info.st_ino]
            else:
                seen[info.st_dev, info.st_ino] = name
                member.size = info.st_size
                tar.addfile(member, io.BytesIO(path.read_bytes()))
                continue
            tar.addfile(member)
    return Layer(buffer.getvalue(), history)


def _json(value) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def write(path: Path, images: list[Image], architecture: str) -> None:
    """Writes the archive of `images` to `path`, which appears only when it is complete."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    manifests, index = [], []
    for image in images:
        configuration = {
            "architecture": architecture,
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"} | image.config,
            "created": CREATED,
            "history": [{"created": CREATED, "created_by": one.history} for one in image.layers]
            + [{"created": CREATED, "created_by": f"CMD {json.dumps(image.config.get('Cmd', []))}", "empty_layer": True}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.digest}" for one in image.layers]},
        }
        config = put(_json(configuration), "application/vnd.oci.image.config.v1+json")
        layers = [put(one.data, "application/vnd.oci.image.layer.v1.tar") for one in image.layers]
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
        index.append(put(_json(manifest), manifest["mediaType"]) | {
            "platform": {"architecture": architecture, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": f"docker.io/{image.name}" if "/" in image.name else f"docker.io/library/{image.name}",
                "org.opencontainers.image.ref.name": image.name.rsplit(":", 1)[1],
            },
        })

        def blob(descriptor: dict) -> str:
            return "blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")

        manifests.append({"Config": blob(config), "RepoTags": [image.name], "Layers": [blob(one) for one in layers]})

    files = {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
    files["index.json"] = _json({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index})
    files["manifest.json"] = _json(manifests)
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("blobs", "blobs/sha256"):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            tar.addfile(member)
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, EPOCH
            tar.addfile(member, io.BytesIO(data))
    partial.rename(path)
