"""Bundles on disk: found, watched for changes, read."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from envelock_pdp import BundleError
from envelock_pdp.bundle import MAX_FILE, decides, read_bundle
from envelock_pdp.evaluate import Bundle

Signature: TypeAlias = tuple[tuple[str, int, int], ...]  # path, mtime in ns, size in bytes


def find_bundles(root: Path) -> tuple[Path, ...]:
    """The bundle at *root*, or every bundle in it, by name.

    Raises:
        BundleError: *root* is no folder, cannot be read, or there is no bundle.
    """
    try:
        if (root / "bundle.toml").is_file():
            return (root,)
        if not root.is_dir():
            raise BundleError(str(root), "no such folder")
        found = tuple(sorted(path.parent for path in root.glob("*/bundle.toml")))
    except OSError as error:
        raise BundleError(str(root), f"cannot be read: {error.strerror}") from error
    if not found:
        raise BundleError(str(root), "holds no bundle (a folder with bundle.toml)")
    return found


def signature(bundle: Path) -> Signature:
    """What tells one state of the deciding files from another without reading them.

    A file that vanishes while it is looked at is no part of it.

    Raises:
        OSError: A folder cannot be read.
    """
    found: list[tuple[str, int, int]] = []
    for part in ("", "rules"):
        folder = bundle / part
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{part}/{entry.name}" if part else entry.name
                if not decides(path) or not entry.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append((path, status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))


def load_bundle(bundle: Path, seen: Signature | None = None) -> Bundle:
    """Read the bundle in the folder *bundle*.

    Args:
        bundle: The folder.
        seen: The files to read; those that are there now when None. A file of it that is gone is
            an error, one that has come since is not read.

    Raises:
        BundleError: It cannot be put in force.
    """
    paths = _deciding(bundle) if seen is None else [path for path, _, _ in seen]
    return read_bundle(_read(bundle, paths))


def read_all_files(bundle: Path) -> dict[str, bytes]:
    """The deciding files, the cases and the people.

    Raises:
        BundleError: A file cannot be read, or is larger than `MAX_FILE`.
    """
    beside = [bundle / "people.json", *sorted((bundle / "cases").glob("[!.]*.json"))]
    paths = [path.relative_to(bundle).as_posix() for path in beside if path.is_file()]
    return _read(bundle, [*_deciding(bundle), *paths])


def _deciding(bundle: Path) -> list[str]:
    try:
        return [path for path, _, _ in signature(bundle)]
    except OSError as error:
        raise BundleError(str(bundle), f"cannot be read: {error.strerror}") from error


def _read(bundle: Path, paths: Sequence[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            with (bundle / path).open("rb") as file:
                files[path] = file.read(MAX_FILE + 1)
        except OSError as error:
            raise BundleError(path, f"cannot be read: {error.strerror}") from error
        if len(files[path]) > MAX_FILE:
            raise BundleError(path, f"is larger than {MAX_FILE} bytes")
    return files
