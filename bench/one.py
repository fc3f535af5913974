"""Takes one measure of one engine: `one.py MEASURE ENGINE FILE [--quick] [--rounds N]`; run by bench/run on a machine
of its own (namespaces in which nothing else lives). Writes the figures as JSON to FILE."""

import argparse
import importlib
import json
import os
import pathlib
import signal
import sys

from harness.engines import ENGINES


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("measure")
    parser.add_argument("engine", choices=[*ENGINES, "bare"])
    parser.add_argument("file")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    if "TRIPOD_MACHINE" not in os.environ:
        sys.exit("one.py runs on a machine of its own: use bench/run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Engines ask registries for images that are there. No name server: at once, and not after the seconds that a
    # neighbour's rate limit for refusals would cost.
    pathlib.Path("/tmp", os.environ["TRIPOD_MACHINE"], "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    measure = importlib.import_module(f"measures.{options.measure}")
    engine = None if options.engine == "bare" else ENGINES[options.engine]("main")
    try:
        figures = measure.run(engine, options)
    except BaseException:
        if engine:
            print(engine.log_tail(), file=sys.stderr)
        raise
    finally:
        if engine:
            engine.stop()
    with open(options.file, "w") as file:
        json.dump(figures, file)


main()
