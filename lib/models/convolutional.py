"""The convolutional families of paper 1, from timm and torchvision: a narrow, shallow member for the laptop.

All get the stem that suits small images: a first convolution of 3x3 with stride 1 and no pooling behind it.
Builders take ``(image_shape, classes)``; timm and torchvision are imported when one is called.
"""

import functools

from torch import nn

from lib import torchvision_operators


def _small_stem(builder):
    """Let a builder make its network with the stem for small images, and import timm safely."""

    @functools.wraps(builder)
    def build(image_shape, classes, **options):
        torchvision_operators.define_missing()
        model = builder(image_shape[0], classes, **options)
        name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
        stem = nn.Conv2d(image_shape[0], first.out_channels, 3, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        model.set_submodule(name, stem)
        for name in ("maxpool", "features.pool0"):
            if name in dict(model.named_modules()):
                model.set_submodule(name, nn.Identity())
        return model

    return build


@_small_stem
def resnet(channels, classes, *, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512)):
    """ResNet of basic blocks; by default ResNet18, 11,173,962 parameters for CIFAR-10."""
    from timm.models.resnet import BasicBlock, downsample_conv

    inputs = widths[0]
    layers = [nn.Conv2d(channels, inputs, 3, padding=1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            shortcut = downsample_conv(inputs, width, 1, stride) if stride > 1 else None
            layers.append(BasicBlock(inputs, width, stride, shortcut))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


@_small_stem
def vgg(channels, classes, *, widths=(64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")):
    """VGG with batch norm, a single linear layer behind the convolutions; by default VGG11. "M" is a max-pool."""
    from torchvision.models.vgg import make_layers

    features = make_layers(list(widths), batch_norm=True)
    last = next(width for width in reversed(widths) if width != "M")
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))


@_small_stem
def densenet(channels, classes, *, growth=32, blocks=(6, 12, 24, 16), bottleneck=4):
    """DenseNet-BC; by default DenseNet121."""
    from timm.models.densenet import DenseNet

    return DenseNet(growth, blocks, classes, channels, bn_size=bottleneck)


def _mobile(architecture, activation):
    @_small_stem
    def build(channels, classes, *, blocks=architecture, stem=32, features=1280):
        from timm.models._efficientnet_builder import decode_arch_def
        from timm.models.efficientnet import EfficientNet

        return EfficientNet(
            decode_arch_def([[block] for block in blocks]), classes, features, channels, stem, act_layer=activation
        )

    return build


mobilenetv2 = _mobile(
    ("ds_r1_k3_s1_c16", "ir_r2_k3_s2_e6_c24", "ir_r3_k3_s2_e6_c32", "ir_r4_k3_s2_e6_c64", "ir_r3_k3_s1_e6_c96",
     "ir_r3_k3_s2_e6_c160", "ir_r1_k3_s1_e6_c320"), nn.ReLU6,
)  # fmt: skip
efficientnet = _mobile(
    ("ds_r1_k3_s1_e1_c16_se0.25", "ir_r2_k3_s2_e6_c24_se0.25", "ir_r2_k5_s2_e6_c40_se0.25",
     "ir_r3_k3_s2_e6_c80_se0.25", "ir_r3_k5_s1_e6_c112_se0.25", "ir_r4_k5_s2_e6_c192_se0.25",
     "ir_r1_k3_s1_e6_c320_se0.25"), nn.SiLU,
)  # fmt: skip


@_small_stem
def shufflenet(channels, classes, *, repeats=(4, 8, 4), widths=(24, 116, 232, 464, 1024)):
    """ShuffleNet V2; by default of width 1."""
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2(list(repeats), list(widths), classes)


@_small_stem
def regnetx(channels, classes, *, depth=13, w0=24, wa=36.44, wm=2.49, group=8, stem=32):
    """RegNetX; by default of 200 MF."""
    from timm.models.regnet import RegNet, RegNetCfg

    config = RegNetCfg(depth=depth, w0=w0, wa=wa, wm=wm, group_size=group, stem_width=stem)
    return RegNet(config, channels, classes, zero_init_last=False)


@_small_stem
def dla(channels, classes, *, levels=(1, 1, 1, 2, 2, 1), widths=(16, 32, 64, 128, 256, 512)):
    """Deep layer aggregation; by default DLA34, of which the second level keeps the size of small images."""
    from timm.models.dla import DLA, DlaBasic

    model = DLA(levels, widths, num_classes=classes, in_chans=channels, block=DlaBasic)
    model.level1[0].stride = (1, 1)
    return model
