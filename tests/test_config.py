"""Claims: a profile is typed and complete; a wrong one gives one sentence that names the key and the remedy."""

import pytest

from replicate.config import Profile
from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads(name):
    assert isinstance(load_profile(name), Profile)


def test_paper_profile_is_section_4_2():
    paper = load_profile("paper")
    assert (paper.split.train, paper.split.tune, paper.split.draws, paper.split.draw_size) == (
        4_000_000,
        64_000,
        5,
        128_000,
    )
    assert (paper.training.learning_rate, paper.training.batch_size, paper.training.epochs) == (2e-4, 128, 10)
    assert (paper.dataset.frame_limit, paper.model.gru_width, paper.model.netvlad_clusters[0]) == (300, 512, 192)
    assert (paper.coherence.kernel_size, paper.coherence.maps, paper.model.transformer_heads) == (5, 4, 12)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.epoch=3", ["training.epoch", "did you mean 'training.epochs'"]),
        ("trainning.epochs=3", ["trainning", "did you mean 'training'"]),
        ("training.epochs=x", ["training.epochs", "'x'", "integer"]),
        ("training.learning_rate=inf", ["training.learning_rate", "finite"]),
        ("training.learning_rate=-1", ["training.learning_rate", "greater than 0"]),
        ("split.train=1.5", ["split.train = 1.5", "share"]),
        ("split.train=0", ["split.train = 0", "count"]),
        ("training.seeds=[1,1]", ["seeds must differ"]),
        ("training.seeds=[]", ["training.seeds"]),
        ('run.columns=["tcrnn"]', ["run.columns", "'tcrnn'", "'tc_rnn'"]),
        ("dataset=3", ["dataset = 3"]),
        ("dataset.name.x=3", ["'name' is a value"]),
        ("epochs", ["section.key=value"]),
        ("epochs=3", ["unknown key 'epochs'", "'training.epochs'"]),
        ("model.form=exact", ["unknown key 'model.form'", "'coherence.form'"]),
        ("training.seeds=0,1", ["training.seeds = '0,1'", "a list is expected"]),
        ("=3", ["section.key=value"]),
    ],
)
def test_wrong_assignment_is_one_sentence(assignment, words):
    with pytest.raises(ConfigurationError) as caught:
        load_profile("smoke", (assignment,))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'smoke'"):
        load_profile("smoek")


def test_file_extends_a_profile_and_later_values_win(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "smoke"\n[training]\nepochs = 2\n', encoding="utf-8")
    mine = load_profile(str(tmp_path / "mine.toml"), ("training.epochs=5", "run.engine=inline"))
    assert (mine.name, mine.training.epochs, mine.run.engine) == ("mine", 5, "inline")
    assert mine.training.batch_size == load_profile("smoke").training.batch_size


def test_extends_cycle_is_named(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text(f'extends = "{second}"', encoding="utf-8")
    second.write_text(f'extends = "{first}"', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="leads back to itself"):
        load_profile(str(first))


@pytest.mark.parametrize("text", ["[training\n", "\xff\xfe"])
def test_unreadable_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"bad\.toml"):
        load_profile(str(path))


def test_a_fault_within_a_list_is_said_once():
    with pytest.raises(ConfigurationError) as error:
        load_profile("smoke", ("grid.kernel_sizes=[4]",))
    assert str(error.value) == "profile smoke: grid.kernel_sizes.0 = 4: must be odd, to be centred on a frame"
