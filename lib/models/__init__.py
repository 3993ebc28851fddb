"""One registry of architectures: of each family a laptop member (small, for a CPU), a medium and the papers' member.

The LeNets, CCT and the small residual network of the gossip notebooks are written here; everything else comes from
timm and torchvision with a stem for small images (:mod:`lib.models.convolutional`). An entry that you add to
``FAMILIES`` works like the others. Laptop members keep the
family's building blocks at 7,000 to 170,000 parameters, so that a training step of 64 digits of 16 pixels
takes milliseconds on one core. Medium members are for real images on a CPU: the papers' blocks and stages, narrower
(MobileNetV2, EfficientNet and DenseNet of fewer blocks, CCT of two instead of seven).
"""

import functools
from dataclasses import dataclass

from lib import seeds
from lib.errors import InputError
from lib.models import convolutional as conv
from lib.models.cct import CCT
from lib.models.lenet import CaffeLeNet, LeNet5
from lib.models.small_resnet import SmallResNet

SIZES = ("laptop", "medium", "paper")
small = functools.partial


@dataclass(frozen=True)
class Family:
    """The members of a family, ``build(image_shape, classes)`` by size.

    How the paper's member here differs from the one in the paper's code: ``data/families.csv``.
    """

    laptop: callable
    medium: callable
    paper: callable


_MOBILE_BLOCKS = ("ds_r1_k3_s1_c16", "ir_r2_k3_s2_e3_c24", "ir_r3_k3_s2_e3_c48", "ir_r2_k3_s2_e3_c96")
_EFFICIENT_BLOCKS = (
    "ds_r1_k3_s1_e1_c16_se0.25", "ir_r2_k3_s2_e3_c24_se0.25", "ir_r3_k5_s2_e3_c48_se0.25", "ir_r2_k5_s2_e3_c96_se0.25",
)  # fmt: skip

FAMILIES = {
    "lenet5": Family(LeNet5, small(LeNet5, widths=(24, 64, 240, 168)), LeNet5),
    "lenet_caffe": Family(CaffeLeNet, CaffeLeNet, CaffeLeNet),
    "vgg11_bn": Family(
        small(conv.vgg, widths=(8, "M", 16, "M", 24, 24, 32, 32, "M", 32, 32)),
        small(conv.vgg, widths=(16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M")),
        conv.vgg,
    ),
    "resnet18": Family(
        small(conv.resnet, blocks=(1, 1, 1, 1), widths=(8, 16, 24, 32)),
        small(conv.resnet, widths=(8, 16, 32, 64)),
        conv.resnet,
    ),
    "densenet": Family(
        small(conv.densenet, growth=8, blocks=(2, 2), bottleneck=2),
        small(conv.densenet, growth=12, blocks=(6, 6, 6)),
        conv.densenet,
    ),
    "mobilenetv2": Family(
        small(conv.mobilenetv2, stem=8, features=64,
              blocks=("ds_r1_k3_s1_c8", "ir_r1_k3_s2_e3_c16", "ir_r2_k3_s2_e3_c32")),
        small(conv.mobilenetv2, stem=16, features=256, blocks=_MOBILE_BLOCKS),
        conv.mobilenetv2,
    ),
    "shufflenet": Family(
        small(conv.shufflenet, repeats=(2, 1, 1), widths=(8, 16, 32, 64, 96)),
        small(conv.shufflenet, widths=(24, 48, 96, 192, 256)),
        conv.shufflenet,
    ),
    "efficientnet_b0": Family(
        small(conv.efficientnet, stem=8, features=64,
              blocks=("ds_r1_k3_s1_e1_c8_se0.25", "ir_r1_k3_s2_e3_c16_se0.25", "ir_r1_k5_s2_e3_c32_se0.25")),
        small(conv.efficientnet, stem=16, features=256, blocks=_EFFICIENT_BLOCKS),
        conv.efficientnet,
    ),
    "regnetx": Family(
        small(conv.regnetx, depth=4, w0=8, wa=14.0, wm=2.0, stem=8), conv.regnetx, conv.regnetx
    ),
    "dla": Family(
        small(conv.dla, levels=(1, 1, 1, 1, 1, 1), widths=(6, 8, 12, 16, 24, 32)),
        small(conv.dla, widths=(8, 8, 16, 32, 48, 64)),
        conv.dla,
    ),
    "cct7": Family(
        small(CCT, depth=2, tokenizer=(16, 96), heads=2),
        small(CCT, depth=2, tokenizer=(32, 64), heads=2, attention_dropout=0.0, stochastic_depth=0.0),
        CCT,
    ),
    "small_resnet": Family(SmallResNet, SmallResNet, SmallResNet),
}  # fmt: skip


def create(name, task, *, size="laptop", seed):
    """Make a freshly initialised model for a task.

    Parameters
    ----------
    name : str
        A family of ``models.FAMILIES``.
    task : lib.tasks.Task
        Gives the image shape, the number of classes and the device.
    size : {"laptop", "medium", "paper"}
        Which member of the family.
    seed : int
        Of the initial weights.

    Raises
    ------
    InputError
        If there is no such family or size.
    """
    if name not in FAMILIES:
        raise InputError(f"model='{name}': unknown family, choose one of {', '.join(FAMILIES)}")
    if size not in SIZES:
        raise InputError(f"size='{size}': choose one of {', '.join(SIZES)}")
    if len(task.image_shape) != 3 or task.classes is None:
        raise InputError(
            f"model='{name}': is for images (C, H, W) and a class for each, the task has inputs {task.image_shape} and "
            f"{task.classes or 'no'} classes: give a module of your own"
        )
    model = from_entry(dict(name=name, size=size, image_shape=list(task.image_shape), classes=task.classes), seed)
    return model.to(task.device)


def from_entry(entry, seed=0):
    """Make the model that an entry ``{name, size, image_shape, classes}`` describes, as stored with a path."""
    with seeds.scope(seed, "initial weights"):
        model = getattr(FAMILIES[entry["name"]], entry["size"])(tuple(entry["image_shape"]), entry["classes"])
    model.registry_entry = entry
    return model
