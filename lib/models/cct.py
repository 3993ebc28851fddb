"""The compact convolutional transformer (CCT) of paper 1, built of timm's attention, MLP and stochastic depth.

Convolutions turn an image into tokens (*tokenizer*), learnable positions are added, pre-norm transformer blocks
follow, and an attention over the last tokens (*sequence pooling*) makes one vector of them: no class token.
After Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, arXiv 2104.05704. As in that
paper's network the second normalisation of a block lies on the residual stream, not beside it.
"""

import torch
from torch import nn
from torch.nn import functional as F


class CCT(nn.Module):
    """Compact convolutional transformer; 3,760,139 parameters by default for 3x32x32 images of 10 classes.

    Parameters
    ----------
    image_shape : tuple of int
        Channels, height, width.
    classes : int
    depth, heads : int
        Transformer blocks and attention heads.
    tokenizer : tuple of int
        Widths of the tokenizer's convolutions, each 3x3 with a max-pool that halves the image; the last is the
        length of a token.
    attention_dropout, stochastic_depth : float
        The latter is the last block's; it grows linearly from 0 at the first.
    """

    def __init__(
        self, image_shape, classes, *, depth=7, heads=4, tokenizer=(256,),
        attention_dropout=0.1, stochastic_depth=0.1,
    ):  # fmt: skip
        super().__init__()
        layers, width = [], tokenizer[-1]
        for inputs, outputs in zip([image_shape[0], *tokenizer], tokenizer, strict=False):
            # ReLU and maximum may change places; behind the pooling it has a quarter of the values.
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(3, 2, 1), nn.ReLU()]
        self.tokenizer = nn.Sequential(*layers)
        with torch.no_grad():
            tokens = self.tokenizer(torch.zeros(1, *image_shape)).flatten(2).shape[2]
        self.positions = nn.Parameter(torch.zeros(1, tokens, width))
        rates = torch.linspace(0, stochastic_depth, depth).tolist()
        self.blocks = nn.Sequential(*(Block(width, heads, attention_dropout, rate) for rate in rates))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, classes)
        self._initialise()

    def forward(self, x):
        """Logits (n, classes) of images (n, C, H, W)."""
        x = self.tokenizer(x).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(x + self.positions))
        share = F.softmax(self.pool(x), dim=1)
        return self.head((share * x).sum(1))

    def _initialise(self):
        nn.init.trunc_normal_(self.positions, std=0.2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class Block(nn.Module):
    """A transformer block on tokens (n, tokens, width)."""

    def __init__(self, width, heads, attention_dropout, drop_path):
        super().__init__()
        from timm.layers import DropPath, Mlp
        from timm.models.vision_transformer import Attention

        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, num_heads=heads, attn_drop=attention_dropout)
        self.mlp = Mlp(width, hidden_features=2 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        """Tokens of the same shape."""
        x = self.norm2(x + self.drop_path(self.attention(self.norm1(x))))
        return x + self.drop_path(self.mlp(x))
