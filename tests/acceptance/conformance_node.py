"""Entries of the Kubernetes conformance list that show on a node: pods, containers, volumes, services, names.

    conformance_node.py [WORD...]     only the tests whose title or function has one of the words
"""

import importlib
import sys

import _lib
import _conformance

for part in sorted(_lib.HERE.glob("_conformance_*.py")):
    importlib.import_module(part.stem)

if __name__ == "__main__":
    daemon = _lib.Daemon(options=("--advertise-addr", "192.0.2.1"))
    good = False
    try:
        good = _conformance.main(_conformance.cluster(daemon, "busybox", "httpbin"))
    finally:
        daemon.stop()
    sys.exit(not good)
