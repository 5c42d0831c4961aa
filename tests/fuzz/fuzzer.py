"""Fuzz parsers, led by the coverage of their code: `python fuzzer.py SECONDS FOLDER NAME...`.

An input that raises what its parser may not raise, takes too long or too much memory ends the run
of that parser, and is kept in FOLDER as `NAME-...`. Two parsers are fuzzed at a time. The names of
those that failed are printed; the exit code is their number. With 0 seconds each gets a fixed
number of inputs.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

ROOMS = ["envelock_formats", "envelock_kas", "envelock_ledger", "envelock_pdp", "envelock_service"]
SECONDS_AN_INPUT = 3
MEGABYTES = 1024
AT_A_TIME = 2
RUNS = 5000  # where no time is given
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=ROOMS, enable_loader_override=False):
    from fuzz.targets import TARGETS, scratch, values


def fuzz(name: str, seconds: str, kept: str, corpus: str) -> None:
    """Fuzz one parser in a child; libFuzzer ends the process."""
    target = TARGETS[name]
    scratch.cache_clear()
    for number, seed in enumerate(target.corpus()):
        (Path(corpus) / str(number)).write_bytes(seed)
    options = {
        **({"max_total_time": seconds} if int(seconds) else {"runs": RUNS}),
        "max_len": target.max_bytes,
        "timeout": SECONDS_AN_INPUT,
        "rss_limit_mb": MEGABYTES,
        "artifact_prefix": f"{kept}/{name}-",
        "verbosity": 0,
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), corpus]
    atheris.Setup(arguments, target.accepts)
    atheris.Fuzz()


def main(seconds: str, kept: str, *names: str) -> int:
    """Fuzz *names*; returns how many failed."""
    waiting, running, failed = list(names or TARGETS), {}, []
    values()  # once, for all children
    with tempfile.TemporaryDirectory(prefix="envelock-fuzz-") as folder:
        while waiting or running:
            while waiting and len(running) < AT_A_TIME:
                name = waiting.pop()
                corpus = Path(folder) / name
                corpus.mkdir()
                child = os.fork()
                if child == 0:
                    os.environ["TMPDIR"] = folder
                    tempfile.tempdir = None
                    fuzz(name, seconds, kept, str(corpus))
                running[child] = name
            child, status = os.wait()
            if os.waitstatus_to_exitcode(status):
                failed.append(running[child])
            del running[child]
    sys.stdout.write("".join(f"failed: {name}\n" for name in failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
