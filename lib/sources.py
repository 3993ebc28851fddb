"""Data sets by name, as plain arrays: embedded, through torchvision, or any folder of images."""

import functools
import hashlib
import io
import os
from pathlib import Path

import numpy as np

from lib import paths, seeds, storage, torchvision_operators
from lib.errors import InputError

torchvision_operators.define_missing()

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
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
    return LABELS.get(JPEG if name == "cifar10" and _jpeg_folder(paths.data_dir()) else name, name)


def read(name, *, size=None, data_dir=None):
    """Images and classes of a data set, as they lie there.

    Parameters
    ----------
    name, size, data_dir
        As of :func:`lib.tasks.load`; only "folder" needs the size, as its images may differ in theirs.

    Returns
    -------
    tuple
        ``x`` (n, C, H, W), ``y`` (n,), ``x_test``, ``y_test``, from 0 to 1, and the name to show.

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
        For "folder" a hash of the names and bytes of its images, wherever they lie; for CIFAR-10 as JPEG files one
        of their names and sizes; empty for the data sets that are the same everywhere.
    """
    folder = Path(data_dir) if data_dir is not None else paths.data_dir()
    if name == "cifar10" and (jpeg := _jpeg_folder(folder)):
        return _names_and_sizes(jpeg)
    if name != "folder":
        return ""
    if folder is None or not folder.is_dir():
        return ""  # reading it gives the error
    # ImageFolder follows links, too.
    walks = (os.walk(folder / part, followlinks=True) for part in ("train", "test"))
    files = sorted(Path(where, name) for walk in walks for where, _, names in walk for name in names)
    return _digest(folder, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=16)
def _digest(folder, files):
    """Read again only where a name, a size or a time of a file has changed."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
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

    folder = Path(data_dir) if data_dir is not None else paths.data_dir()
    if folder is not None and not folder.is_dir():
        raise InputError(f"DATA_DIR='{folder}': no such folder")
    if name == "folder":
        return _image_folder(folder, size, check)
    if name == "cifar10" and (jpeg := _jpeg_folder(folder)):
        return None if check else (*_jpeg_images(jpeg), JPEG)
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    root, download = (paths.DOWNLOADS, True) if folder is None else (folder, False)
    try:
        parts = [kind(str(root), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "set DATA_DIR to a folder that holds it" if download else "unset DATA_DIR to download it"
        raise InputError(f"data='{name}': not found under {root} ({reason}); {hint}") from None
    (x, y), (x_test, y_test) = ((_from_bytes(np.asarray(part.data)), np.asarray(part.targets)) for part in parts)
    return x, y, x_test, y_test


def _from_bytes(images):
    """Images of one byte a value, (n, H, W) or (n, H, W, C), as (n, C, H, W) from 0 to 1."""
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return images / np.float32(255)


def _jpeg_folder(folder):
    """The folder of CIFAR-10 as JPEG files, if it is there and torchvision's archive is not; else None."""
    root = paths.DOWNLOADS if folder is None else folder
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
    kept = paths.DOWNLOADS / f"{JPEG}-{_names_and_sizes(folder)[:16]}.npz"
    if not kept.is_file():
        parts = {}
        for part in ("train", "test"):
            parts[part], parts[f"{part} classes"] = _decoded(folder / part)
        buffer = io.BytesIO()
        np.savez(buffer, **parts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        storage.write(kept, buffer.getvalue())
    with np.load(kept) as parts:
        x, x_test = (_from_bytes(parts[part]) for part in ("train", "test"))
        return x, parts["train classes"], x_test, parts["test classes"]


def _decoded(folder):
    from PIL import Image

    files = [sorted(each.glob("*.jpg")) for each in sorted(folder.glob("*/"))]
    if len(files) != 10 or not all(files):
        raise InputError(f"data='cifar10': {folder} must hold ten folders of JPEG files, one for each class")
    images = [np.asarray(Image.open(file).convert("RGB")) for each in files for file in each]
    if {image.shape for image in images} != {(32, 32, 3)}:
        raise InputError(f"data='cifar10': {folder} holds images that are not 32 pixels high and wide")
    return np.stack(images), np.repeat(np.arange(10), [len(each) for each in files])


def _image_folder(folder, size, check):
    from torchvision import datasets

    if folder is None or not all((folder / part).is_dir() for part in ("train", "test")):
        raise InputError(f"data='folder': DATA_DIR='{folder}' must hold the folders train and test")
    if check:
        return None
    parts = []
    for part in ("train", "test"):
        images = datasets.ImageFolder(str(folder / part))
        shrink = (lambda image: image) if size is None else (lambda image: image.resize((size, size)))
        parts.append(np.stack([np.asarray(shrink(image), np.float32) for image, _ in images]))
        parts.append(np.asarray(images.targets))
    x, y, x_test, y_test = parts
    return x.transpose(0, 3, 1, 2) / 255, y, x_test.transpose(0, 3, 1, 2) / 255, y_test, folder.name
