"""A synthetic corpus in the exact YouTube-8M frame-level format. docs/synthetic.md states every assumption.

A video has labels drawn from the real joint frequencies, and is a sequence of scenes made of shots made of frames. A
scene shows some of the video's labels, or is a distractor that shows another label or nothing. A node of the taxonomy
looks like a fixed direction in feature space; a label shows its node and all its ancestors, so that kin look alike.
Everything else is noise that lasts for the video, the scene, the shot or the frame.

Strength and shape of signal and noise come from calibration.json, that is from genuine records; what no record tells is
a constant below. All of it was fixed before any model was trained on the corpus, and none of it is a parameter.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.data import calibration
from replicate.data import processes as pool
from replicate.data.label_sets import combinations_of
from replicate.data.spec import SPECS
from replicate.errors import ConfigurationError
from replicate.record import atomic_file, read_json, write_json
from replicate.taxonomy.tree import Taxonomy

SPEC = SPECS["yt8m"]

# Frames (1 per second) of a full-length video: 120 + exponential(130), cut at 300. Their mean is 217.5.
SHORTEST, LENGTH_SCALE, LONGEST = 120, 130, SPEC.frame_limit
MEAN_LENGTH = SHORTEST + LENGTH_SCALE * (1 - np.exp(-(LONGEST - SHORTEST) / LENGTH_SCALE))
SCENE, SHOT = 12.0, 3.0  # mean frames
STILL = 0.45  # chance that a frame within a shot repeats the one before: a quarter of all steps
STILL_STEP = (0.07, 4.0)  # distance that such a step goes nevertheless, log-uniform
FADE = 0.3  # chance that a scene's first frame is a blend with the frame before

SEEN = 0.9  # chance that a label of a video is ever to be seen in it
DISTRACTOR = 0.2  # chance that a scene shows none of the video's labels
INTRUDER = 0.5  # chance that such a scene shows another label
ON_SCREEN = 0.8  # chance that any other scene shows a given one of the seen labels
TIME_SHOWN = SEEN * (1 - DISTRACTOR) * ON_SCREEN

DEAD_AUDIO, BLACK = 0.05, 0.05  # share of videos whose audio is constant to the end; with one to three black frames
LEAST_CHANGE = 0.1  # share of a dimension's variance that scene, shot and frame keep in the most constant video


@dataclass(frozen=True)
class Modality:
    """How one modality varies.

    Attributes:
        key, width: as in the record.
        variance: per dimension, before clipping.
        scene, shot, frame: shares of what changes within a video.
        contrast: standard deviation of the logarithm of a shot's scale.
        constancy: shape of the gamma distribution (mean 1) of how strong a video's constant part is.
        still: frames within a shot may repeat.
    """

    key: str
    width: int
    variance: float
    scene: float
    shot: float
    frame: float
    contrast: float
    constancy: float
    still: bool

    def spread_of_mean(self) -> float:
        """Variance that scenes, shots and frames leave in a full-length video's mean, as a share of theirs."""
        within_shot = (1 - 1 / SCENE) * (1 - 1 / SHOT)
        repeat = STILL * within_shot if self.still else 0.0
        lasting = (self.scene, 1 - 1 / SCENE), (self.shot, within_shot), (self.frame, repeat)
        return sum(share * (1 + stay) / (1 - stay) for share, stay in lasting) / MEAN_LENGTH


MODALITIES = (
    Modality("rgb", 1024, 1.12, scene=0.325, shot=0.055, frame=0.62, contrast=0.12, constancy=1.0, still=True),
    Modality("audio", 128, 1.2, scene=0.16, shot=0.11, frame=0.73, contrast=0.2, constancy=2.0, still=False),
)


class Appearance:
    """Looks of the nodes in one modality, and the strength of everything else, per dimension.

    Genuine videos' means vary most along a few principal directions, and there the labels explain most. Here the
    dimensions themselves, in order, play the part of these directions.
    """

    def __init__(self, modality: Modality, levels: np.ndarray, prevalence: np.ndarray, seed: int):
        """
        Args:
            modality: the modality.
            levels: (nodes,) level of each node.
            prevalence: (nodes,) share of videos that are positive; features are centred, as genuine ones are.
            seed: names the corpus.
        """
        facts = calibration.committed()
        means, frames = facts["video_level"][modality.key], facts["frame_level"][modality.key]
        bands = means["bands"]
        sizes = [band["to"] - band["from"] for band in bands]
        variance = np.repeat([band["variance"] for band in bands], sizes)
        explained = np.repeat([band["explained"] for band in bands], sizes)
        # What a clipped normal variable keeps of a shift of its mean is its unclipped share.
        gain = (1 - frames["clipped"]) ** 2
        profile = variance * explained / np.mean(variance * explained)
        node_variance = np.array(means["node_variance"]) / gain
        self.modality = modality
        changing = modality.spread_of_mean() * (modality.variance - means["variance"])
        self.own = np.maximum(variance * (1 - explained) - changing, 0.0) / gain
        shown = np.dot(node_variance, facts["label_sets"]["nodes_per_video_and_level"]) * profile / TIME_SHOWN
        self.left = modality.variance - shown
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1, modality.width])))
        directions = random.standard_normal((len(levels), modality.width))
        strength = np.sqrt(node_variance[levels][:, None] * profile) / TIME_SHOWN
        looks = directions * strength
        self.looks = looks.astype(np.float32)
        self.centre = (TIME_SHOWN * (looks * prevalence[:, None]).sum(axis=0)).astype(np.float32)

    def deviations(self, constancy: float) -> list[np.ndarray]:
        """(width,) float32 standard deviations of what lasts for the video, a scene, a shot, a frame."""
        own = self.own * constancy
        changing = np.maximum(self.left - own, LEAST_CHANGE * self.modality.variance)
        shares = (self.modality.scene, self.modality.shot, self.modality.frame)
        return [np.sqrt(each).astype(np.float32) for each in (own, *(share * changing for share in shares))]


@dataclass(frozen=True)
class Course:
    """How a video runs: per frame the number of its scene and shot, the frame that it repeats (its own number if none),
    and where scenes fade in; per scene the nodes that it shows."""

    scene: np.ndarray
    shot: np.ndarray
    source: np.ndarray
    fades: np.ndarray
    nodes: list[np.ndarray]


class Generator:
    """Makes video number v of a corpus: a pure function of (seed, v), the taxonomy, the labels and the frame limit."""

    def __init__(self, seed: int, taxonomy: Taxonomy, labels: Sequence[int], frame_limit: int):
        """
        Args:
            seed: names the corpus, 0 or more.
            taxonomy: gives the node, and so the appearance, of each label.
            labels: label indices that videos may have.
            frame_limit: lengths are scaled by frame_limit / 300.

        Raises:
            ConfigurationError: a number is out of range, or a label has no known joint frequencies or no node.
        """
        if seed < 0:
            raise ConfigurationError(f"synthetic.seed = {seed} is negative; set it to 0 or more")
        if not 1 <= frame_limit <= LONGEST:
            message = f"dataset.frame_limit = {frame_limit} does not fit YouTube-8M's format"
            raise ConfigurationError(f"{message}; set it to 1..{LONGEST} for a synthetic corpus")
        self.seed, self.frame_limit = seed, frame_limit
        self.sets, shares = combinations_of(labels)
        self._reached = np.cumsum(shares)
        self.labels = np.unique(np.concatenate(self.sets))
        nodes = np.asarray(taxonomy.label_nodes)
        if (nodes[self.labels] < 0).any():
            missing = self.labels[nodes[self.labels] < 0][0]
            raise ConfigurationError(f"label {missing} has no node in the taxonomy; give it one or leave it out")
        self._shown = {int(label): taxonomy.closure[[nodes[label]]].indices for label in self.labels}
        frequency = np.zeros(self.labels.max() + 1)
        for members, share in zip(self.sets, shares, strict=True):
            frequency[members] += share
        self._intruding = np.cumsum(frequency[self.labels])
        prevalence = np.zeros(len(taxonomy.names))
        for members, share in zip(self.sets, shares, strict=True):
            prevalence[self._closed(members)] += share
        self.appearances = [Appearance(modality, taxonomy.levels, prevalence, seed) for modality in MODALITIES]

    def video(self, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """(ascending label indices, one (frames, width) uint8 array per modality)."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 2, number])))
        labels = self.sets[_draw(random, self._reached)]
        course = self._course(random, labels)
        made = [self._frames(random, appearance, course) for appearance in self.appearances]
        self._glitch(random, made)
        return labels, [quantise(values) for values in made]

    def _course(self, random: np.random.Generator, labels: np.ndarray) -> Course:
        full = min(float(LONGEST), SHORTEST + random.exponential(LENGTH_SCALE))
        frames = max(1, round(full * self.frame_limit / LONGEST))
        new_scene = random.random(frames) < 1 / SCENE
        new_scene[0] = True
        new_shot = new_scene | (random.random(frames) < 1 / SHOT)
        still = (random.random(frames) < STILL) & ~new_shot
        fades = np.flatnonzero(new_scene & (random.random(frames) < FADE))[1:]
        seen = labels[random.random(len(labels)) < SEEN]
        return Course(
            scene=np.cumsum(new_scene) - 1,
            shot=np.cumsum(new_shot) - 1,
            source=np.maximum.accumulate(np.where(still, 0, np.arange(frames))),
            fades=fades,
            nodes=[self._scene_nodes(random, labels, seen) for _ in range(new_scene.sum())],
        )

    def _scene_nodes(self, random: np.random.Generator, labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
        if random.random() >= DISTRACTOR:
            shown = seen[random.random(len(seen)) < ON_SCREEN].tolist()
        elif random.random() < INTRUDER:
            other = int(self.labels[_draw(random, self._intruding)])
            shown = [] if other in labels else [other]
        else:
            shown = []
        return self._closed(shown)

    def _closed(self, labels: Sequence[int]) -> np.ndarray:
        """Nodes of the labels and their ancestors, ascending, each once."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(self._shown[int(label)] for label in labels)]))

    def _frames(self, random: np.random.Generator, appearance: Appearance, course: Course) -> np.ndarray:
        modality, frames = appearance.modality, len(course.scene)

        def normal(count: int) -> np.ndarray:
            return random.standard_normal((count, modality.width), np.float32)

        constancy = random.gamma(modality.constancy) / modality.constancy
        video, scene, shot, frame = appearance.deviations(constancy)
        scenes = normal(len(course.nodes)) * scene
        for number, nodes in enumerate(course.nodes):
            scenes[number] += appearance.looks[nodes].sum(axis=0)
        scenes += normal(1) * video - appearance.centre
        shots = normal(course.shot[-1] + 1) * shot
        contrast = np.exp(modality.contrast * random.standard_normal((len(shots), 1), np.float32))
        noise = normal(frames)
        values = noise * frame
        values += shots[course.shot]
        values += scenes[course.scene]
        values *= contrast[course.shot]
        if modality.still:
            low, high = np.log(STILL_STEP)
            step = np.exp(random.uniform(low, high, (frames, 1))) / np.sqrt(modality.width)
            repeats = course.source != np.arange(frames)
            values[repeats] = values[course.source[repeats]] + (noise * step.astype(np.float32))[repeats]
        values[course.fades] = (values[course.fades] + values[course.fades - 1]) / 2
        return values

    def _glitch(self, random: np.random.Generator, made: list[np.ndarray]) -> None:
        frames = len(made[0])
        kinds, begin, span = random.random(2), int(random.integers(frames)), int(random.integers(1, 4))
        if kinds[0] < DEAD_AUDIO:
            made[1][begin:] = made[1][begin]
        if kinds[1] < BLACK:
            made[0][begin : begin + span] = 0


def _draw(random: np.random.Generator, reached: np.ndarray) -> int:
    """A number drawn with chances that are the steps of `reached`, ascending to any positive value."""
    return int(np.searchsorted(reached, random.random() * reached[-1], side="right"))


def quantise(values: np.ndarray) -> np.ndarray:
    """Dequantised values to the nearest byte, clipped to the range."""
    scaled = (values - np.float32(SPEC.bias)) / np.float32(SPEC.scale)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def synthesize(
    out: Path,
    seed: int,
    videos: int,
    shards: int,
    taxonomy: Taxonomy,
    labels: Sequence[int],
    frame_limit: int,
    progress: Callable[..., None] | None = None,
    processes: int = 1,
) -> None:
    """Write the corpus with TensorFlow. Shards of the same corpus that are there already are kept.

    Args:
        out: folder for synthetic-00000-of-0000N.tfrecord and corpus.json, which says what corpus it is.
        seed, videos, shards: identity and size of the corpus; a video's content does not depend on the sizes.
        taxonomy: gives each label's node.
        labels: label indices that videos may have.
        frame_limit: longest video in frames.
        progress: called with (videos done, videos in all); with several processes, after each shard.
        processes: how many write shards at once; no byte depends on it.

    Raises:
        ConfigurationError: fewer than one video or shard, more shards than videos, another corpus in the folder, or as
            `Generator`.
        IncompleteRun: one of several processes was killed.
    """
    if videos < 1 or shards < 1:
        raise ConfigurationError(f"synthetic.videos = {videos}, synthetic.shards = {shards}: set both to 1 or more")
    if shards > videos:
        raise ConfigurationError(f"synthetic.shards = {shards} is more than synthetic.videos = {videos}; lower it")
    generator = Generator(seed, taxonomy, labels, frame_limit)
    chosen = generator.labels.tolist()
    identity = {"seed": seed, "videos": videos, "shards": shards, "frame_limit": frame_limit, "labels": chosen}
    identity["nodes"] = [taxonomy.names[taxonomy.label_nodes[label]] for label in chosen]
    described = out / "corpus.json"
    if described.exists() and read_json(described) != identity:
        raise ConfigurationError(f"{out} holds another synthetic corpus; remove it or choose another folder")
    write_json(described, identity)
    bounds = np.linspace(0, videos, shards + 1).astype(int).tolist()
    shares = [range(*pair) for pair in itertools.pairwise(bounds)]
    paths = [out / f"synthetic-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)]
    missing = [(path, numbers) for path, numbers in zip(paths, shares, strict=True) if not path.exists()]

    def tell(number: int) -> None:
        if progress:
            progress(number, videos)

    work = functools.partial(_write_shard, generator, tell if processes == 1 else None)
    with pool.in_order(work, missing, processes) as written:
        for _, (_, numbers) in zip(written, missing, strict=True):
            tell(numbers.stop)


def _write_shard(generator: Generator, tell: Callable[[int], None] | None, shard: tuple[Path, range]) -> None:
    from replicate.data.tensorflow_reader import tensorflow

    tf = tensorflow()
    path, numbers = shard
    with atomic_file(path) as file, tf.io.TFRecordWriter(file.name) as writer:
        for number in numbers:
            labels, arrays = generator.video(number)
            writer.write(sequence_example(tf, f"synthetic-{number:07d}", labels, arrays))
            if tell and number % 50 == 0:
                tell(number)


def sequence_example(tf, video: str, labels: np.ndarray, arrays: Sequence[np.ndarray]) -> bytes:
    """A video as YouTube-8M stores it: context id and labels; one list of byte strings per modality."""
    context = {
        SPEC.id_key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[video.encode()])),
        SPEC.label_key: tf.train.Feature(int64_list=tf.train.Int64List(value=labels.tolist())),
    }
    lists = {
        feature.key: tf.train.FeatureList(
            feature=[tf.train.Feature(bytes_list=tf.train.BytesList(value=[frame.tobytes()])) for frame in array]
        )
        for feature, array in zip(SPEC.features, arrays, strict=True)
    }
    message = tf.train.SequenceExample(
        context=tf.train.Features(feature=context), feature_lists=tf.train.FeatureLists(feature_list=lists)
    )
    return message.SerializeToString(deterministic=True)
