"""Claims: a training depends on its seed and on no global random state; its record is plain and says what happened;
progress reaches its total."""

import json

import numpy as np
import pytest
import torch
from toy_corpus import NODES, WIDTH
from toy_training import Toy, ran_through, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(record, files) of a training that ran through."""
    return ran_through(tmp_path_factory.mktemp("whole"))


def test_seeds_give_other_orders_and_other_weights(whole, tmp_path):
    assert run(tmp_path, seed=1)["history"] != whole[0]["history"]


def test_training_touches_no_global_random_state(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    model = Toy()
    torch.random.set_rng_state(before[0])
    run(tmp_path, model)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_the_record_is_plain_and_says_what_happened(whole):
    record, _ = whole
    assert json.loads(json.dumps(record)) == record
    assert (record["status"], record["epochs"], record["steps"], record["examples"]) == ("finished", 3, 15, 216)
    assert record["parameters"] == WIDTH * 9 + 9 + 9 * NODES + NODES
    assert record["weights_bytes"] == 4 * record["parameters"]
    rates = [entry["learning_rate"] for entry in record["history"]]
    assert rates == [0.01, 0.01, 0.005]  # after 0, 72 and 144 examples; halved each 100
    assert record["tune_gap"] == max(entry["tune_gap"] for entry in record["history"])


def test_progress_reaches_its_total_and_never_goes_back(tmp_path):
    told = []
    run(tmp_path, progress=lambda *event: told.append(event))
    done = [event[0] for event in told]
    assert done == list(range(1, 3 * 7 + 1))  # 5 steps and 2 blocks of tune videos in each of 3 epochs
    assert {event[1] for event in told} == {21}
    assert "epoch 3 of at most 3, loss" in told[-3][2]
