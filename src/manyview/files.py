"""Results on disk: files appear whole or not at all, and only files of our own are ever replaced."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from manyview.errors import ExportError, InputError

MANIFEST = "manifest.json"
PROGRAM = "manyview"
SHARED_FOLDER = "images"  # several exports point to the same pictures: equal ones are left as they are
STAGING = ".manyview-"  # folders in which files are made; one is left behind only where a run was killed
LONGEST_NAME = 180  # bytes; file systems allow 255, and suffixes are added


@contextmanager
def staged(
    folder: Path, *, overwrite: bool = False, last: str = "", whole: bool = False, keep: Collection[Path] = ()
) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well, its files are moved into `folder`.

    With `whole`, the new files are all that is to be there: files of ours from earlier results, which the manifest
    lists, are deleted once the new ones are in place. Nothing else is ever deleted, nor the files in `keep`, such as
    photos of ours that the result is made from.

    An error or an interrupt in the block leaves `folder` as it was. Each file is synced and renamed, `last` after the
    others; `folder/manifest.json` lists what is ours, says `"complete": false` meanwhile, and is written at the end.

    Raises:
        ExportError: a file is there already and `overwrite` is False; or it is not listed in the manifest, so that it
            is not ours to replace; or the disk refuses.
    """
    with scratch_in(folder) as staging:
        try:
            yield staging
            stale = _stale(folder, staging, keep) if whole else set()
            _move_in(staging, folder, overwrite=overwrite, last=last, stale=stale)
        except OSError as error:
            raise _cannot_write(folder, error) from error


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside `folder`, for what is made before a result can be written; it is deleted at the end.

    `folder` is made if it is missing, and goes again if nothing was put into it.

    Raises:
        ExportError: the disk refuses.
    """
    is_new = not folder.exists()
    scratch = None
    try:
        scratch = _new_scratch(folder)
        yield scratch
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it holds files: the block ended well
                folder.rmdir()


def _new_scratch(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> ExportError:
    return ExportError(f"cannot write into {folder}: {error}", hint="Check the path and the free space.")


def refuse_results(folder: Path, *, overwrite: bool, names: Iterable[str] = ()) -> None:
    """A check before long work: may results be written into `folder`? It may be missing or empty.

    Args:
        folder: where they are to go.
        overwrite: results of ours may be replaced.
        names: of the files and folders that will be written into it.

    Raises:
        ExportError: it is a file, or cannot be written to; it holds results of ours and `overwrite` is False; it holds
            files of others only; or one of `names` is there and not ours.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ExportError(f"{folder} is a file; expected a folder", hint="Choose another name.")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ExportError(f"{folder} cannot be written: {nearest} does not allow it", hint="Choose another folder.")
    owned = owned_files(folder)
    if owned and not overwrite:
        raise ExportError(f"{folder} already holds results", hint=f"Choose another folder, or {_OVERWRITE}.")
    foreign = [name for name in names if _is_foreign(folder / name, name, owned)]
    if not owned and folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith(STAGING))
    _refuse_foreign(folder, foreign)


def _is_foreign(path: Path, name: str, owned: set[str]) -> bool:
    """Whether something is at `path` that is not ours, nor a folder with something of ours, nor an empty folder."""
    if not os.path.lexists(path) or any(mine == name or mine.startswith(f"{name}/") for mine in owned):
        return False
    return path.is_symlink() or not path.is_dir() or any(path.iterdir())


def refuse_inputs_inside(folder: Path, inputs: Iterable[str | Path]) -> None:
    """Raise ExportError if a photo, folder or video to be read lies in `folder`, whose files may be replaced."""
    for given in inputs:
        if Path(given).resolve().is_relative_to(folder.resolve()):
            raise ExportError(
                f"the input {given} lies in the output folder {folder}", hint="Choose another output folder."
            )


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, that file takes the place of `path`.

    Raises:
        ExportError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}", hint="Check the path and the free space.") from error
    finally:
        with suppress(OSError):  # it is in its place, or could never be made
            temporary.unlink()


def owned_files(folder: Path) -> set[str]:
    """Paths that the manifest in `folder` lists, relative to it with forward slashes; empty without a manifest."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return set()
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["program"] != PROGRAM:
            raise ValueError("it is of another program")
        return {str(name) for name in manifest["files"]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ExportError(
            f"{path} is not a manifest of manyview ({error!r})", hint="Choose another folder; nothing was changed."
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON (UTF-8, no NaN or infinity).

    Raises:
        ExportError: `data` holds a number that is not finite, or something JSON has no word for.
    """
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    except (ValueError, TypeError) as error:
        raise ExportError(f"{path.name} cannot be written as JSON: {error}") from error
    # A lone surrogate (a file name that is not UTF-8) becomes "\udcxx", which is JSON's own way to write it.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read strict JSON.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", hint="Give the folder of a saved scene.") from error


def unique_file_names(names: Iterable[str]) -> list[str]:
    """One flat, portable file name for each name, all different also where upper and lower case are the same.

    Slashes and characters that some system forbids become "_"; other letters stay; a repeated name gets "~2", "~3".
    """
    taken: set[str] = set()
    return [_claim(_portable(name), taken) for name in names]


def _portable(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    kept = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" else c for c in name)
    kept = kept.strip(" .") or "_"
    return kept.encode()[:LONGEST_NAME].decode(errors="ignore")


def _claim(name: str, taken: set[str]) -> str:
    stem, suffix = Path(name).stem, Path(name).suffix
    candidate, count = name, 1
    while candidate.casefold() in taken:
        count += 1
        candidate = f"{stem}~{count}{suffix}"
    taken.add(candidate.casefold())
    return candidate


def _move_in(staging: Path, folder: Path, *, overwrite: bool, last: str, stale: set[str]) -> None:
    made = _files_below(staging)
    owned = owned_files(folder)
    _aim_links(staging, folder, made)
    names = [name for name in made if not _is_shared(staging / name, folder / name, name, owned)]
    _refuse_conflicts(folder, names, owned, overwrite=overwrite)
    _write_manifest(staging, folder, owned.union(names), complete=False)
    allowed = stat.S_IMODE((folder / MANIFEST).stat().st_mode)  # what the system lets a new file have
    for name in sorted(names, key=lambda name: name == last):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _set_permissions(staging / name, allowed)
        _replace(staging / name, target)
    _delete(folder, stale, made)
    _write_manifest(staging, folder, owned.union(names) - stale, complete=True)


def _files_below(folder: Path) -> list[str]:
    """Relative paths with forward slashes, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or p.is_file())


def _stale(folder: Path, staging: Path, keep: Collection[Path]) -> set[str]:
    """Files of ours in `folder` that are neither written anew nor to be kept."""
    kept = {_place(path) for path in keep}
    return {name for name in owned_files(folder).difference(_files_below(staging)) if _place(folder / name) not in kept}


def _place(path: Path) -> Path:
    """Where a file lies: links among its folders are followed, but the file may be a link itself."""
    return path.parent.resolve() / path.name


def _delete(folder: Path, names: set[str], made: list[str]) -> None:
    """Delete files of ours, and folders that are empty then; `made` are the names of new files, which stay.

    Where upper and lower case are the same, an old name may be that of a new file, so files are told by identity.
    """
    new = {_identity(folder / name) for name in made}
    for name in sorted(names):
        path = folder / name
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            continue  # a folder was exchanged for a link: what lies behind it is not ours
        if not (path.is_symlink() or path.is_file()) or _identity(path) in new:
            continue  # it is gone, or a folder is in its place
        path.unlink()
        for parent in path.parents:
            if parent == folder:
                break
            with suppress(OSError):  # it still holds something
                parent.rmdir()


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _set_permissions(path: Path, allowed: int) -> None:
    """Some writers make files that only their owner can read: let them have what other new files have."""
    if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != allowed:
        path.chmod(allowed)


def _aim_links(staging: Path, folder: Path, made: Iterable[str]) -> None:
    """Let links to files that are moved in as well lead to where these will be."""
    inside = staging.resolve()
    for link in (staging / name for name in made):
        if link.is_symlink() and (end := link.resolve()).is_relative_to(inside):
            link.unlink()
            link.symlink_to(folder.resolve() / end.relative_to(inside))


def _is_shared(source: Path, target: Path, name: str, owned: set[str]) -> bool:
    """Whether `target` is a picture of ours that is already what `source` would make it."""
    if not name.startswith(f"{SHARED_FOLDER}/") or name not in owned or not target.exists():
        return False
    if source.is_symlink():  # it may also lead to the target: the photos are pictures of an earlier result
        return source.resolve() == target.resolve()
    if target.is_symlink():
        return False
    return filecmp.cmp(source, target, shallow=False)


_OVERWRITE = "replace the earlier results with overwrite=True (--overwrite)"


def _refuse_conflicts(folder: Path, names: list[str], owned: set[str], *, overwrite: bool) -> None:
    there = [name for name in names if os.path.lexists(folder / name)]
    foreign = [name for name in there if name not in owned]
    outside = [name for name in names if not (folder / name).parent.resolve().is_relative_to(folder.resolve())]
    _refuse_foreign(folder, foreign + outside)
    if there and not overwrite:
        raise ExportError(f"{folder} already holds {_few(there)}", hint=f"Choose another folder, or {_OVERWRITE}.")


def _refuse_foreign(folder: Path, names: list[str]) -> None:
    if names:
        raise ExportError(
            f"{folder} holds files that manyview did not write: {_few(names)}",
            hint="Choose another folder; they are never replaced.",
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _write_manifest(staging: Path, folder: Path, files: set[str], *, complete: bool) -> None:
    manifest = {"program": PROGRAM, "format_version": 1, "complete": complete, "files": sorted(files)}
    write_json(staging / MANIFEST, manifest)
    _replace(staging / MANIFEST, folder / MANIFEST)


def _replace(source: Path, target: Path) -> None:
    """Move a finished file into place; a link is made relative to its new place, and never followed."""
    if source.is_symlink():
        relative = os.path.relpath(source.resolve(), target.parent.resolve())
        source.unlink()
        source.symlink_to(relative)
    else:
        _sync(source)
    source.replace(target)
    with suppress(OSError):  # not every system lets a folder be synced
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
