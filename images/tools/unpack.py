"""Unpacks one image of an archive into a folder: unpack.py ARCHIVE NAME:TAG FOLDER; prints how to run it, for a shell."""

import hashlib
import io
import json
import shlex
import sys
import tarfile

archive, name, folder = sys.argv[1:]
with tarfile.open(archive) as tar:
    def member(path: str) -> bytes:
        return tar.extractfile(path).read()

    image = next(one for one in json.loads(member("manifest.json")) if name in one["RepoTags"])
    configuration = json.loads(member(image["Config"]))
    # The OCI layout in the same archive must tell the same.
    for entry in json.loads(member("index.json"))["manifests"]:
        manifest = json.loads(member("blobs/sha256/" + entry["digest"].removeprefix("sha256:")))
        if entry["annotations"]["io.containerd.image.name"].endswith("/" + name):
            assert manifest["config"]["digest"].removeprefix("sha256:") in image["Config"], "index.json and manifest.json differ"
            break
    else:
        sys.exit(f"index.json does not name {name}")
    for path, wanted in zip(image["Layers"], configuration["rootfs"]["diff_ids"], strict=True):
        data = member(path)
        assert hashlib.sha256(data).hexdigest() == wanted.removeprefix("sha256:"), f"{path} is damaged"
        with tarfile.open(fileobj=io.BytesIO(data)) as layer:
            layer.extractall(folder, filter="fully_trusted") if hasattr(tarfile, "fully_trusted_filter") else layer.extractall(folder)
config = configuration["config"]
print("environment=(" + shlex.join(config["Env"]) + ")")
print("command=(" + shlex.join(config["Cmd"]) + ")")
print("directory=" + shlex.quote(config["WorkingDir"]))
