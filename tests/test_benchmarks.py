"""The measurements of ``make bench``: ratios of what takes turns, arithmetic that is counted, a process's memory."""

import pandas as pd
import torch

from benchmarks import gossip, measure, path


def test_a_ratio_is_the_median_over_rounds():
    times = pd.DataFrame({"a": [2.0, 30.0, 8.0], "b": [1.0, 10.0, 8.0]})
    assert measure.ratio(times["a"], times["b"]) == 2.0


def test_the_product_is_its_own_bound():
    a = torch.randn(1024, 1024)
    assert measure.flops(lambda: a @ a) == measure.PRODUCT_FLOPS
    times = pd.DataFrame({"product": [0.5, 0.25]})
    assert measure.bound(times, measure.PRODUCT_FLOPS).tolist() == [0.5, 0.25]


def test_candidates_take_turns_and_the_first_round_does_not_count():
    order = []
    times = measure.seconds({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert "".join(order) == "ababab"
    assert times.shape == (2, 2)


def test_memory_is_that_of_a_fresh_process():
    held = torch.ones(2**28)  # 1 GiB here is none there
    found = measure.in_fresh_process(gossip.network_of, 10)
    assert set(found) == {"ms a tick", "products a tick", "memory_GiB"}
    assert 0.1 < found["memory_GiB"] < held.nbytes / 2**30


def test_a_tick_of_a_path_is_measured_in_parts():
    found = path.tick_of("lenet5", (1, 28, 28))
    assert found["weights"] == 61_706
    assert found["tick without training, ms"] > 0
