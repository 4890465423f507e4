"""What a deployment uploads, made without Docker and without ``sam build``: one zip for each folder of the template.

A function's folder goes as it is. The layer's dependencies are installed from its hashed lock file once, kept under
``build/`` by the lock's hash, and named in the layer's zip beside the package.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import io
import os
import py_compile
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local import bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHE = bootstrap.ROOT / "build" / "layers"
# Compared with nothing at run time: a cold start must not compile again because a zip does not keep the files' dates.
_UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


class PackagingError(Exception):
    """Raised when a folder of the template cannot be packed; its message names the file."""


def dependencies(lock: Path) -> Path:
    """The folder holding what *lock* names, installed if it is not there yet."""
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = _CACHE / digest
    if folder.is_dir():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
        target = Path(scratch) / "target"
        _install(lock, target)
        compileall.compile_dir(target, quiet=1, force=True, invalidation_mode=_UNCHECKED)
        shutil.rmtree(target / "bin", ignore_errors=True)
        try:
            target.rename(folder)
        except OSError:  # another command has just put it there
            if not folder.is_dir():
                raise
    return folder


def _install(lock: Path, target: Path) -> None:
    """Install *lock* into *target*: with uv, else with pip, which knows mirrors that uv does not."""
    here = ["--require-hashes", "--target", str(target), "-r", str(lock)]
    try:
        uv = [str(bootstrap.uv()), "pip", "install", "-q", "--python", sys.executable, *here]
        bootstrap.run(uv, timeout_s=bootstrap.INSTALL_S, UV_PYTHON_DOWNLOADS="never")
    except bootstrap.BootstrapError:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", *here]
        bootstrap.run(pip, timeout_s=bootstrap.INSTALL_S)


def package(template: dict[str, Any], base: Path, bucket: str) -> dict[str, bytes]:
    """Point *template*'s folders (relative to *base*) at zips in *bucket*, as ``sam package`` does; the zips by key."""
    zips: dict[str, bytes] = {}
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Serverless::Function":
                name, content = "CodeUri", _function_zip
            case "AWS::Serverless::LayerVersion":
                name, content = "ContentUri", _layer_zip
            case _:
                continue
        body = content(base / properties[name])
        key = f"{hashlib.sha256(body).hexdigest()}.zip"
        zips[key] = body
        properties[name] = {"Bucket": bucket, "Key": key}
    return zips


def _function_zip(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add_sources(archive, folder, prefix="")
    return buffer.getvalue()


def _layer_zip(folder: Path) -> bytes:
    """The package itself, and in place of its dependencies the address of the folder that holds them.

    ministack unpacks the layer anew for each cold start: 1,400 files of dependencies would cost most of a second each.
    """
    installed = dependencies(folder / "requirements.txt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, f"python/lib/{PYTHON}/site-packages/dependencies.pth", f"{installed}\n".encode())
        _add_sources(archive, folder, prefix="python/")
    return buffer.getvalue()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _add_sources(archive: zipfile.ZipFile, folder: Path, prefix: str) -> None:
    """Add *folder*'s own files, each module with its compiled form."""
    for path in _files(folder):
        name = path.relative_to(folder)
        if "__pycache__" in name.parts or name.name == "requirements.txt":
            continue
        _add(archive, f"{prefix}{name.as_posix()}", path.read_bytes())
        if path.suffix == ".py":
            compiled = importlib.util.cache_from_source(str(name))
            _add(archive, f"{prefix}{Path(compiled).as_posix()}", _compiled(path))


def _compiled(module: Path) -> bytes:
    handle, name = tempfile.mkstemp(suffix=".pyc")
    os.close(handle)
    try:
        py_compile.compile(str(module), cfile=name, dfile=module.name, doraise=True, invalidation_mode=_UNCHECKED)
        return Path(name).read_bytes()
    except py_compile.PyCompileError as error:
        raise PackagingError(f"{module.relative_to(bootstrap.ROOT)}: {error.exc_value}") from None
    finally:
        Path(name).unlink()


def _add(archive: zipfile.ZipFile, name: str, body: bytes) -> None:
    """Add one file, the same bytes giving the same zip whenever it is made."""
    archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), body)
