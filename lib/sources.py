"""Data sets by name, as plain arrays: embedded, through torchvision, or any folder of images."""

import contextlib
import functools
import hashlib
import os
import re
from pathlib import Path

import numpy as np

from lib import folders, seeds, storage, torchvision_operators
from lib.errors import InputError

torchvision_operators.define_missing()

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
MNIST_DIGEST = "ea9ee3e26b17c145512b97c4da7d09860024e593bf058e39df01aa451aad6eaa"  # of the original four files
LABELS = {"digits": "digits (scikit-learn)", "mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
JPEG = "cifar10_jpg"  # folder of JPEG files that takes the place of CIFAR-10's archive where that is not there
LABELS[JPEG] = "CIFAR-10 (JPEG)"


def label_of(name):
    """How figures and tables name a data set: one of ``NAMES``, as ``DATA_DIR`` has it.

    Examples
    --------
    >>> label_of("digits")
    'digits (scikit-learn)'
    """
    return LABELS.get(JPEG if name == "cifar10" and _jpeg_folder(folders.data_dir()) else name, name)


def read(name, *, size=None, data_dir=None):
    """Images and classes of a data set, as they lie there.

    Parameters
    ----------
    name, size, data_dir
        As of :func:`lib.tasks.load`; only "folder" needs the size, as its images may differ in theirs.

    Returns
    -------
    tuple
        ``x`` (n, C, H, W), bytes as the files hold them (digits: from 0 to 1), ``y`` (n,), ``x_test``, ``y_test``, and
        the name to show.

    Raises
    ------
    InputError
        If the name is unknown, the folder does not exist, or the data are missing and cannot be downloaded.
    """
    _check_name(name)
    if name == "digits":
        return *_digits(), name
    parts = _from_disk(name, data_dir, size)
    return parts if len(parts) == 5 else (*parts, name)


def check_available(name, data_dir=None):
    """Raise :class:`InputError` unless ``load(name)`` can find its data, or may download it."""
    _check_name(name)
    if name != "digits":
        _from_disk(name, data_dir, None, check=True)


def fingerprint(name, data_dir=None):
    """What tells the content of a user's own data from another: part of the key of every run on them.

    Returns
    -------
    str
        For "folder" a hash of the names and bytes of its images, wherever they lie; for "mnist" one of its files, if
        they are not the original ones; for CIFAR-10 as JPEG files one of their names and sizes; empty for what is the
        same everywhere (torchvision checks the bytes of what it downloads and of CIFAR).
    """
    folder = Path(data_dir) if data_dir is not None else folders.data_dir()
    if name == "cifar10" and (jpeg := _jpeg_folder(folder)):
        return _names_and_sizes(jpeg)
    if folder is None or not folder.is_dir():
        return ""  # downloaded, or reading it gives the error
    if name == "mnist":
        files = sorted((folder / "MNIST" / "raw").glob("*-ubyte"))
    elif name == "folder":
        files = sorted(file for part in ("train", "test") for file, _ in _images(folder / part))
    else:
        return ""
    digest = _digest(folder, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    return "" if not files or digest == MNIST_DIGEST else digest


@functools.lru_cache(maxsize=16)
def _digest(folder, files):
    """Read again only where a name, a size or a time of a file has changed, whatever the process."""
    known = folders.CACHE / "fingerprints" / hashlib.sha256(repr((folder.resolve(), files)).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{64}", found := known.read_text()):
            return found
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    with contextlib.suppress(OSError):  # a cache that cannot be written makes it slower, not wrong
        known.parent.mkdir(parents=True, exist_ok=True)
        storage.write(known, digest.hexdigest().encode())
    return digest.hexdigest()


def _check_name(name):
    if name not in NAMES:
        raise InputError(f"data='{name}': unknown data set, choose one of {', '.join(NAMES)}")


def _digits():
    """The 8 by 8 digits, the last fifth of a seeded shuffle as test split."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = seeds.numpy(0, "digits", "split").permutation(len(y))
    x, y, cut = x.reshape(-1, 1, 8, 8)[order] / 16, y[order], len(y) * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:]


def _from_disk(name, data_dir, size, *, check=False):
    from torchvision import datasets

    folder = Path(data_dir) if data_dir is not None else folders.data_dir()
    if folder is not None and not folder.is_dir():
        raise InputError(f"DATA_DIR='{folder}': no such folder")
    if name == "folder":
        return _image_folder(folder, size, check)
    if name == "cifar10" and (jpeg := _jpeg_folder(folder)):
        return None if check else (*_jpeg_images(jpeg), JPEG)
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    root, download = (folders.DOWNLOADS, True) if folder is None else (folder, False)
    try:
        parts = [kind(str(root), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "set DATA_DIR to a folder that holds it" if download else "unset DATA_DIR to download it"
        raise InputError(f"data='{name}': not found under {root} ({reason}); {hint}") from None
    (x, y), (x_test, y_test) = ((_channels_first(np.asarray(part.data)), np.asarray(part.targets)) for part in parts)
    return x, y, x_test, y_test


def _channels_first(images):
    """Images (n, H, W) or (n, H, W, C) as (n, C, H, W)."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _jpeg_folder(folder):
    """The folder of CIFAR-10 as JPEG files, if it is there and torchvision's archive is not; else None."""
    root = folders.DOWNLOADS if folder is None else folder
    return root / JPEG if (root / JPEG).is_dir() and not (root / "cifar-10-batches-py").is_dir() else None


@functools.lru_cache(maxsize=16)
def _names_and_sizes(folder):
    files = sorted((file.relative_to(folder).as_posix(), file.stat().st_size) for file in folder.rglob("*.jpg"))
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _jpeg_images(folder):
    """Images and classes of CIFAR-10 as JPEG files, decoded once: ``data/downloads`` keeps their bytes.

    Classes are numbered by the alphabet, which is CIFAR-10's own order, and the files of one lie in the order of
    their names.
    """
    kept = folders.DOWNLOADS / f"{JPEG}-{_names_and_sizes(folder)[:16]}.npz"
    if not kept.is_file():
        parts = {}
        for part in ("train", "test"):
            parts[part], parts[f"{part} classes"] = _decoded(folder / part)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with storage.replacing(kept) as partial, open(partial, "wb") as file:
            np.savez(file, **parts)
    with np.load(kept) as parts:
        x, x_test = (_channels_first(parts[part]) for part in ("train", "test"))
        return x, parts["train classes"], x_test, parts["test classes"]


def _decoded(folder):
    found = _images(folder)
    classes, images = sorted({label for _, label in found}), [_pixels(file, None) for file, _ in found]
    if len(classes) != 10 or {image.shape for image in images} != {(32, 32, 3)}:
        needs = "must hold ten folders of JPEG files, one for each class, of 32 x 32 pixels"
        raise InputError(f"data='cifar10': {folder} {needs}")
    return np.stack(images), np.array([classes.index(label) for _, label in found])


def _image_folder(folder, size, check):
    if folder is None or not all((folder / part).is_dir() for part in ("train", "test")):
        raise InputError(f"data='folder': DATA_DIR='{folder}' must hold the folders train and test")
    found = {part: _images(folder / part) for part in ("train", "test")}
    classes = sorted({label for _, label in found["train"]})  # of both parts: test may lack one
    for part, images in found.items():
        if not images:
            raise InputError(f"data='folder': no images under {folder / part}/<class>")
    if unknown := sorted({label for _, label in found["test"]} - set(classes)):
        raise InputError(f"data='folder': the class '{unknown[0]}' of test has no images under {folder / 'train'}")
    if check:
        return None
    arrays, first = [], None
    for images in found.values():
        pixels = [_pixels(file, size) for file, _ in images]
        first = pixels[0].shape if first is None else first
        for (file, _), image in zip(images, pixels, strict=True):
            if image.shape != first:
                sizes = f"{image.shape[1]} x {image.shape[0]} pixels, others {first[1]} x {first[0]}"
                raise InputError(f"DATA_DIR: {file} has {sizes}: give a size to which all are resized")
        arrays += [np.stack(pixels).transpose(0, 3, 1, 2), np.array([classes.index(label) for _, label in images])]
    return *arrays, folder.name


def _images(folder):
    """Image files and the class of each, in the order of their names; what is hidden or no image does not count."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = []
    for where, inner, names in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        label, shown = Path(where).relative_to(folder).parts[:1], (name for name in sorted(names) if name[0] != ".")
        found += [(Path(where, name), *label) for name in shown if label and name.lower().endswith(IMG_EXTENSIONS)]
    return found


def _pixels(file, size):
    """An image as bytes (H, W, 3)."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            mode, image = opened.mode, opened.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"DATA_DIR: {file} is not a readable image ({str(error).splitlines()[0]})") from None
    if mode.startswith(("I", "F")):  # the conversion cuts them off at 255
        raise InputError(f"DATA_DIR: {file} has more than 8 bits a pixel ({mode}): save it with 8 bits")
    return np.asarray(image if size is None else image.resize((size, size)))
