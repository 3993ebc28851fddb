"""Data sets as tensors: sizes, normalisation, batches, augmentation, and what a user can get wrong."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from lib import folders, seeds, sources, tasks
from lib.augmentation import AUGMENTATIONS, Augmentation
from lib.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
digits = tasks.load("digits", size=16, device="cpu")


def test_digits_are_complete_and_normalised():
    assert (len(digits.train), len(digits.test), digits.classes) == (1437, 360, 10)
    assert digits.image_shape == (1, 16, 16)
    deviation, mean = torch.std_mean(digits.train.x, correction=0)
    torch.testing.assert_close(torch.stack([mean, deviation]), torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("augmentation", [None, *AUGMENTATIONS.values()])
def test_images_and_batches_lie_channels_last(augmentation):
    images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 10
    data = tasks.from_tensors(images, labels, images, labels, name="mine", device="cpu", augmentation=augmentation)
    for x in (data.train.x, data.subset(20, 10).test.x, data.batches(0, 5).get(0)[0]):
        assert x.stride(1) == 1
    assert digits.batches(0, 5).get(0)[0].stride(1) == 1  # one channel, of which torch would say both


def test_batches_depend_on_seed_and_number_alone():
    one, same, other = (digits.batches(seed, 32) for seed in (1, 1, 2))
    later = one.get(70)  # in the second epoch, out of order
    assert torch.equal(same.get(70)[0], later[0])
    assert not torch.equal(other.get(70)[0], later[0])
    assert len(torch.unique(torch.cat([one._order(0)]))) == len(digits.train)


def test_an_epoch_visits_images_once():
    batches = digits.batches(3, 100)
    seen = torch.cat([batches.get(i)[0].flatten(1) for i in range(batches.per_epoch)])
    assert len(torch.unique(seen, dim=0)) >= 1390  # 1,400 images; the data set holds a few equal ones


def test_a_subset_is_balanced_and_repeats():
    part = digits.train.subset(50)
    assert torch.bincount(part.y).tolist() == [5] * 10
    assert torch.equal(part.x, digits.train.subset(50).x)
    assert not torch.equal(part.x, digits.train.subset(50, seed=1).x)
    assert len(digits.train.subset(10**6)) == len(digits.train)


def augmented(seed, x, **options):
    return Augmentation(**options)(x, seeds.generator(seed, "augment"))


@pytest.mark.parametrize(
    "options", [{"rotation": 10.0}, {"padding": 2}, {"padding": 2, "padding_mode": "reflect"}, {"flip": True}]
)
def test_augmentation_repeats_with_its_seed_only(options):
    x = digits.train.x[:40]
    assert torch.equal(augmented(1, x, **options), augmented(1, x, **options))
    assert not torch.equal(augmented(1, x, **options), augmented(2, x, **options))
    assert augmented(1, x, **options).shape == x.shape


def test_a_crop_is_a_shift_of_the_image():
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).view(2, 3, 5, 5) + 1
    cropped = augmented(0, x, padding=1)
    padded = torch.nn.functional.pad(x, [1] * 4, value=1.0)
    for image, source in zip(cropped, padded, strict=True):
        shifts = [source[:, r : r + 5, c : c + 5] for r in range(3) for c in range(3)]
        assert any(torch.equal(image, shift) for shift in shifts)


def test_flip_mirrors_some_images_and_no_pixel_is_lost():
    x = digits.train.x[:40]
    flipped = augmented(0, x, flip=True)
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    same = (flipped == x).flatten(1).all(1)
    assert (mirrored | same).all() and mirrored.any() and same.any()


def make_folder(root, **parts):
    """Colour images of 9 by 9 pixels: for each part of the data its classes, and how many images each has."""
    for part, classes in parts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


def test_own_tensors_and_image_folders(tmp_path):
    make_folder(tmp_path, train={"cat": 3, "dog": 3}, test={"cat": 3, "dog": 3})
    folder = tasks.load("folder", data_dir=tmp_path, size=8, device="cpu")
    assert folder.image_shape == (3, 8, 8) and folder.classes == 2 and len(folder.train) == 6
    assert folder.name == folder.label == tmp_path.name


def test_test_images_have_the_classes_of_train(tmp_path):
    make_folder(tmp_path, train={"cat": 2, "cow": 1, "dog": 3}, test={"dog": 1, "cat": 2})
    data = tasks.load("folder", data_dir=tmp_path, device="cpu")
    assert (data.train.y.tolist(), data.test.y.tolist(), data.classes) == ([0, 0, 1, 2, 2, 2], [0, 0, 2], 3)


def test_hidden_and_stray_files_are_no_images(tmp_path):
    make_folder(tmp_path, train={"cat": 2, "dog": 2}, test={"cat": 1, "dog": 1})
    kept = tasks.load("folder", data_dir=tmp_path, device="cpu"), sources.fingerprint("folder", tmp_path)
    make_folder(tmp_path, train={".ipynb_checkpoints": 1, "__MACOSX": 1})
    (tmp_path / "train" / "cat" / ".thumbnails").mkdir()
    for name in ("readme.txt", "cat/notes.csv", "cat/._0.png", "cat/.thumbnails/0.png", "Thumbs.db", "stray.png"):
        (tmp_path / "train" / name).write_bytes(b"no image")
    again = tasks.load("folder", data_dir=tmp_path, device="cpu"), sources.fingerprint("folder", tmp_path)
    assert torch.equal(kept[0].train.x[:], again[0].train.x[:]) and kept[1] == again[1]
    make_folder(tmp_path, train={"cow": 1})
    assert sources.fingerprint("folder", tmp_path) != kept[1]


def test_a_fingerprint_tells_other_mnist_files(tmp_path):
    assert sources.fingerprint("mnist", tmp_path) == sources.fingerprint("digits", tmp_path) == ""
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1"):
        (tmp_path / "MNIST" / "raw" / f"{part}-ubyte").write_bytes(part.encode())
    assert sources.fingerprint("mnist", tmp_path)
    if (SHARED / "MNIST").is_dir():
        assert sources.fingerprint("mnist", SHARED) == ""  # the original files, as from a download


def spoil(folder, file, image=None):
    """Load a folder in which one file is no image, or the given one."""
    make_folder(folder, train={"cat": 2}, test={"cat": 1})
    (folder / file).write_bytes(b"\x89PNG") if image is None else Image.fromarray(image).save(folder / file)
    return tasks.load("folder", data_dir=folder, device="cpu")


def load_folder(folder, **parts):
    return tasks.load("folder", data_dir=make_folder(folder, **parts), device="cpu")


BYTES = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def mine(x, y, x_test=None, y_test=None, **options):
    x_test, y_test = x if x_test is None else x_test, y if y_test is None else y_test
    return tasks.from_tensors(x, y, x_test, y_test, name="mine", device="cpu", **options)


def test_images_of_bytes_are_kept_as_bytes_and_used_as_normalised_numbers():
    y = torch.arange(40) % 4
    kept, numbers = mine(BYTES, y), mine(BYTES.float(), y)
    pixels, wanted = kept.train.x, numbers.train.x
    assert pixels.stored.dtype == torch.uint8 and pixels.dtype == kept.dtype == torch.float32
    for index in (3, slice(4, 20, 2), torch.tensor([7, 1]), torch.tensor([[1, 2], [3, 4]]), y == 2, (slice(None), 0)):
        torch.testing.assert_close(pixels[index], wanted[index], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([*pixels.split(7)]), wanted, rtol=1e-5, atol=1e-5)
    for use in (torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), lambda x: x.double().mean((0, 2)), lambda x: x.shape):
        torch.testing.assert_close(use(pixels), use(wanted), rtol=1e-4, atol=1e-4)
    for same in (copy.deepcopy(pixels), pickle.loads(pickle.dumps(pixels)), pixels.to("cpu"), pixels.clone()):
        assert torch.equal(same[:], pixels[:])
    torch.testing.assert_close(kept.batches(0, 8).get(2), numbers.batches(0, 8).get(2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [
    lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.double().numpy().astype(">f8"),
    lambda x: np.flip(x.numpy().copy()[::-1], 0), lambda x: np.broadcast_to(x.numpy(), x.shape),
    lambda x: pd.DataFrame(x.numpy()), lambda x: x.requires_grad_(),
])  # fmt: skip
def test_arrays_of_many_forms_are_read(form):
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    data = mine(form(x.clone()), y.numpy().astype(np.uint8), x, y)
    torch.testing.assert_close(data.train.x, x)
    assert torch.equal(data.train.y, y) and data.train.y.dtype == torch.int64


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.sampled_from(["floats", "column", "one-hot", "bytes"]))
def test_classes_are_read_as_they_are_meant(classes, form):
    y = torch.tensor([*classes, *range(5)])
    given = {"floats": y.double(), "column": y[:, None], "one-hot": F.one_hot(y).bool(), "bytes": y.byte()}[form]
    data = mine(torch.zeros(len(y), 2), given)
    assert torch.equal(data.train.y, y) and torch.equal(data.test.y, y) and data.classes == 5


def test_inputs_and_targets_of_other_kinds_stay_as_they_are():
    ids = torch.arange(60, dtype=torch.int32).view(10, 6)
    texts = mine(ids, ids % 7)
    assert texts.train.x.dtype == texts.train.y.dtype == torch.int64 and texts.classes is None
    table, target = torch.rand(10, 4) * 100, torch.rand(10, 1)
    rows = mine(table, target, loss=F.mse_loss)
    assert torch.equal(rows.train.x, table) and rows.classes is None and rows.metric is None
    images = mine(BYTES, torch.zeros(40), normalise=False)
    assert torch.equal(images.train.x, BYTES.float())
    signs = mine(table, torch.tensor([-1, 1] * 5), loss=F.soft_margin_loss)
    assert signs.classes is None and signs.train.y.tolist() == [-1, 1] * 5
    wanted = table.clone()
    table.zero_()  # what the caller does to an array later does not matter
    assert torch.equal(rows.train.x, wanted)


def test_samples_of_targets_that_are_no_classes():
    x, y = torch.arange(50.0)[:, None], torch.rand(50, 1)
    split = mine(x, y, loss=F.mse_loss).train
    for part in (split.subset(20), split.sample(20)):
        assert len(part) == len(part.x.unique()) == 20 and part.loss is F.mse_loss
        assert torch.equal(part.y, y[part.x[:, 0].long()])


def test_data_sets_are_read_item_by_item():
    pairs = [(Image.fromarray(image.permute(1, 2, 0).numpy()), i % 4) for i, image in enumerate(BYTES)]
    for items in (pairs, torch.utils.data.TensorDataset(BYTES, torch.arange(40) % 4)):
        test = torch.utils.data.Subset(items, range(9))
        data = tasks.from_datasets(items, test, name="mine", device="cpu")
        assert torch.equal(data.train.x.stored, BYTES) and data.classes == 4 and len(data.test) == 9


FOLDERS = [
    (lambda tmp: spoil(tmp, "train/cat/1.png"), "DATA_DIR: .*train/cat/1.png is not a readable image"),
    (lambda tmp: spoil(tmp, "test/cat/0.png", np.zeros((9, 8), "uint8")), "cat/0.png has 8 x 9 pixels, others 9 x 9"),
    (lambda tmp: spoil(tmp, "train/cat/1.png", np.zeros((9, 9), "uint16")), "train/cat/1.png has more than 8 bits"),
    (lambda tmp: load_folder(tmp, train={"cat": 1}, test={"cat": 1, "cow": 1}), "class 'cow' of test has no images"),
    (lambda tmp: load_folder(tmp, train={"cat": 1}, test={"cat": 0}), "data='folder': no images under .*test/<class>"),
]


def test_cifar_from_jpeg_files_is_labelled_so_and_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for part, number in (("train", 3), ("test", 1)):
        for label in range(10):
            folder = tmp_path / "cifar10_jpg" / part / f"class {label}"
            folder.mkdir(parents=True)
            for image in range(number):
                Image.new("RGB", (32, 32), (25 * label, 100, 10 * image)).save(folder / f"{image:04}.jpg")
    first = tasks.load("cifar10", device="cpu")
    assert first.label == sources.label_of("cifar10") == "CIFAR-10 (JPEG)"
    assert first.train.y.tolist() == [label for label in range(10) for _ in range(3)] and len(first.test) == 10
    assert (first.train.x[::3, 0].mean((1, 2)).diff() > 0).all() and first.augmentation.flip
    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", None)  # the second time nothing is decoded
        assert torch.equal(tasks.load("cifar10", device="cpu").train.x, first.train.x)
    before = sources.fingerprint("cifar10")
    sources._names_and_sizes.cache_clear()  # as in another process
    (tmp_path / "cifar10_jpg/train/class 0/0003.jpg").write_bytes(b"")
    assert sources.fingerprint("cifar10") not in ("", before) and sources.fingerprint("mnist") == ""
    (tmp_path / "cifar10_jpg/train/class 0").rename(tmp_path / "elsewhere")
    sources._names_and_sizes.cache_clear()
    with pytest.raises(InputError, match="must hold ten folders of JPEG files, one for each class"):
        tasks.load("cifar10", device="cpu")


def test_precision_auto_is_bfloat16_where_it_is_faster(monkeypatch):
    data = tasks.load("digits", device="cpu", precision="auto")
    plain, depthwise = (torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=groups)) for groups in (1, 4))
    for fast in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        assert (data.prepared(plain) is not plain) == fast
        assert data.prepared(depthwise) is depthwise


@pytest.mark.skipif(not (SHARED / "MNIST").is_dir(), reason="needs MNIST under ../shared/data")
def test_mnist_from_a_folder():
    mnist = tasks.load("mnist", data_dir=SHARED, device="cpu")
    assert (len(mnist.train), len(mnist.test), mnist.image_shape) == (60000, 10000, (1, 28, 28))
    assert mnist.augmentation.rotation == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *FOLDERS,
        (lambda tmp: tasks.load("imagenet"), "data='imagenet': unknown data set, choose one of digits"),
        (lambda tmp: tasks.load("mnist", data_dir=tmp / "no"), "DATA_DIR='.*no': no such folder"),
        (lambda tmp: tasks.load("mnist", data_dir=tmp), "data='mnist': not found under .*unset DATA_DIR to download"),
        (lambda tmp: tasks.load("folder", data_dir=tmp), "must hold the folders train and test"),
        (lambda tmp: tasks.load("digits", size=4), "size=4: images must be at least 8 pixels"),
        (lambda tmp: tasks.load("digits", device="abacus"), "device='abacus': not usable here"),
        (lambda tmp: tasks.load("digits", precision="half"), "precision='half': choose one of float32, bfloat16"),
        (lambda tmp: digits.batches(0, 2000), "batch=2000: must be between 1 and the 1437 inputs"),
        (lambda tmp: own(torch.zeros(3, 8, 8)), r"x_test: shape \(3, 1, 8, 8\), x has \(3, 8, 8\): all but the number"),
        (lambda tmp: own(torch.full((3, 1, 8, 8), torch.nan)), "x: holds values that are not finite"),
    ],
)
def test_bad_input_is_one_clear_line(call, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def own(x):
    labels = torch.zeros(len(x), dtype=torch.int64)
    return tasks.from_tensors(x, labels, torch.zeros(3, 1, 8, 8), labels[:3], name="mine")
