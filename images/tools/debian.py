"""Packages of the Debian that this runs on: downloaded by apt, unpacked without being installed."""

import os
import shutil
import subprocess
from pathlib import Path


def run(*command, cwd=None, env=None, log=None) -> str:
    """Runs a command; its output is the result, and part of the error when it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if log:
        log.write_text(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-15:]))
    return done.stdout


def unpack(cache: Path, root: Path, packages: list[str]) -> None:
    """Puts the files of `packages` (not of what they depend on) below `root`; `cache` keeps the archives."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not list(cache.glob(f"{name}_*.deb"))]
    if missing:
        run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *missing, cwd=cache)
    for name in packages:
        run("dpkg-deb", "-x", sorted(cache.glob(f"{name}_*.deb"))[-1], root)


def source(work: Path, name: str) -> Path:
    """Unpacks the source package `name`, patched as Debian builds it, and says where.

    The machine's apt may not list sources: so a list of our own is made beside it, from the repositories that it has.
    """
    lists, parts, tree = work / "lists", work / "sources.d", work / name
    shutil.rmtree(tree, ignore_errors=True)
    for folder in (lists / "partial", parts):
        folder.mkdir(parents=True, exist_ok=True)
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)", "Created-By: Packages",
                  "Component: main", "Origin: Debian")
    entries = sorted({line for line in targets.splitlines() if "|" in line})
    if not entries:
        raise RuntimeError("apt has no lists yet: run apt-get update")
    (parts / "debian.sources").write_text("\n".join(
        "Types: deb-src\nURIs: {}\nSuites: {}\nComponents: main\n".format(*line.split("|")) for line in entries))
    options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}", "-o", f"Dir::State::lists={lists}",
               "-o", "APT::Sandbox::User=root"]
    run("apt-get", "update", "-qq", *options)
    run("apt-get", "source", "-qq", "--download-only", name, *options, cwd=work)
    description = max(work.glob(f"{name}_*.dsc"), key=os.path.getmtime)
    run("dpkg-source", "--no-check", "-x", description, tree, cwd=work)
    return tree


def multiarch() -> str:
    """The triplet that names this machine's library folders."""
    return run("gcc", "-print-multiarch").strip()


def architecture() -> str:
    """This machine's architecture, as images name it."""
    return run("dpkg", "--print-architecture").strip()
