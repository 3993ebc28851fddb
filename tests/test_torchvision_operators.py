"""torchvision and timm import beside any build of torch, once the operators are declared."""

import subprocess
import sys

import pytest
import torch

from lib import torchvision_operators


def test_second_call_has_nothing_to_declare():
    torchvision_operators.define_missing()
    assert torchvision_operators.define_missing() == ()


@pytest.mark.parametrize("name", torchvision_operators.OPERATORS)
def test_operator_has_the_schema_that_torchvision_registers(name):
    torchvision_operators.define_missing()
    schema = str(getattr(torch.ops.torchvision, name).default._schema)
    assert schema == f"torchvision::{name}{torchvision_operators.SCHEMA}"


def test_torchvision_and_timm_import_in_a_fresh_process():
    code = (
        "from lib.torchvision_operators import define_missing\n"
        "define_missing()\n"
        "import timm, torchvision.datasets\n"
        "print(timm.is_model('resnet18'), torchvision.datasets.MNIST.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True MNIST"), done.stderr
