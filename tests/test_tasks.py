"""Data sets as tensors: sizes, normalisation, batches, augmentation, and what a user can get wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib import paths, seeds, sources, tasks
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


def test_own_tensors_and_image_folders(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    folder = tasks.load("folder", data_dir=tmp_path, size=8, device="cpu")
    assert folder.image_shape == (3, 8, 8) and folder.classes == 2 and len(folder.train) == 6
    assert folder.name == folder.label == tmp_path.name


def test_cifar_from_jpeg_files_is_labelled_so_and_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
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
