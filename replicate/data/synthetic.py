"""A synthetic corpus in the exact YouTube-8M frame-level format. docs/synthetic.md states every assumption.

A video has labels drawn from the real joint frequencies, and is a sequence of scenes made of shots made of frames. A
scene shows some of the video's labels, or is a distractor that shows another label or none. What a label looks like is
a fixed direction in feature space, near to its parent's. Everything else is noise that lasts for the video, the scene,
the shot or the frame. The constants below come from genuine records or are stated as assumed; they were fixed before
any model was trained on the corpus, and they are not parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.data.spec import SPECS
from replicate.errors import ConfigurationError
from replicate.record import atomic_file
from replicate.taxonomy import Taxonomy, read_rows

SPEC = SPECS["yt8m"]

# Frames (at 1 per second) of a full-length video; a profile's frame limit scales them.
SHORTEST, LENGTH_SCALE, LONGEST = 120, 130, 300  # 120 + exponential(130), cut at 300: mean 217.5
SCENE_MEAN, SHOT_MEAN = 8.0, 2.5  # frames
STILL = 0.42  # share of steps within a shot that repeat the frame: a quarter of all steps
FADE = 0.3  # share of scene changes that blend over two frames

SHOWN = 0.85  # share of a video's labels that are ever to be seen
DISTRACTOR = 0.25  # share of scenes that show none of the video's labels
ON_SCREEN = 0.6  # chance that a scene shows a given one of the video's shown labels
INTRUDER = 0.5  # chance that a distractor scene shows some other label
KINSHIP = 0.8  # share of the parent's direction in a child's; the square is the share of its variance

DEAD_AUDIO, BLACK = 0.05, 0.05  # share of videos with a constant audio tail; with one to three black frames


@dataclass(frozen=True)
class Modality:
    """Per-dimension standard deviations, in dequantised units, of what lasts for a video, a scene, a shot, a frame;
    and of one label's appearance."""

    width: int
    video: float
    scene: float
    shot: float
    frame: float
    label: float


# Label shares from the 11,790 genuine video-level records: labels explain 7.3 % (rgb) and 11.1 % (audio) of the variance
# of video means (.211, .468), which a label reaches through its time on screen; see docs/synthetic.md.
MODALITIES = (
    Modality(1024, video=0.38, scene=0.47, shot=0.55, frame=0.68, label=0.22),
    Modality(128, video=0.48, scene=0.30, shot=0.35, frame=0.55, label=0.40),
)


def label_sets(labels: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The real label sets cut to `labels`, and how often each occurs.

    Raises:
        ConfigurationError: a label is not among those for which joint frequencies are known.
    """
    path = Path(__file__).with_name("label_sets.csv")
    allowed, known, counts = set(map(int, labels)), set(), {}
    for row in read_rows(path, ("labels", "videos")):
        members = tuple(map(int, row["labels"].split()))
        known.update(members)
        kept = tuple(label for label in members if label in allowed)
        if kept:
            counts[kept] = counts.get(kept, 0) + int(row["videos"])
    if not allowed <= known:
        message = f"the synthetic corpus knows the {len(known)} most frequent labels, not label {min(allowed - known)}"
        raise ConfigurationError(f"{message}; set dataset.label_limit to 1..{len(known)}")
    return [np.array(members) for members in counts], np.array(list(counts.values()), np.float64)


def appearances(taxonomy: Taxonomy, seed: int, modality: Modality) -> np.ndarray:
    """(nodes, width) float32 directions of unit variance: KINSHIP of the parent's, the rest the node's own."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1, modality.width])))
    own = generator.standard_normal((len(taxonomy.names), modality.width), np.float32)
    made = own.copy()
    for node in np.argsort(taxonomy.levels, kind="stable"):
        if taxonomy.parents[node]:
            parent = made[list(taxonomy.parents[node])].mean(axis=0)
            made[node] = KINSHIP * parent + np.sqrt(1 - KINSHIP**2) * own[node]
    return made


class Generator:
    """Makes video number v of a corpus: a pure function of (seed, v)."""

    def __init__(self, seed: int, taxonomy: Taxonomy, labels: Sequence[int], frame_limit: int):
        """
        Args:
            seed: names the corpus.
            taxonomy: gives the node, and so the appearance, of each label.
            labels: label indices that videos may have.
            frame_limit: lengths are scaled by frame_limit / 300.
        """
        self.seed, self.frame_limit = seed, frame_limit
        self.sets, counts = label_sets(labels)
        self.chances = counts / counts.sum()
        self.labels = np.unique(np.concatenate(self.sets))
        frequency = np.zeros(self.labels.max() + 1)
        for members, count in zip(self.sets, counts, strict=True):
            frequency[members] += count
        self.frequency = frequency[self.labels] / frequency.sum()
        self.nodes = np.asarray(taxonomy.label_nodes)
        self.looks = [appearances(taxonomy, seed, modality) for modality in MODALITIES]

    def video(self, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """(label indices, one (frames, width) uint8 array per modality)."""
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 2, number])))
        labels = self.sets[random.choice(len(self.sets), p=self.chances)]
        full = min(LONGEST, SHORTEST + random.exponential(LENGTH_SCALE))
        frames = max(1, round(full * self.frame_limit / LONGEST))
        scene = np.cumsum(random.random(frames) < 1 / SCENE_MEAN)
        scene -= scene[0]
        shot = np.cumsum((random.random(frames) < 1 / SHOT_MEAN) | (np.diff(scene, prepend=0) > 0))
        shot -= shot[0]
        shows = self._shows(random, labels, scene[-1] + 1)
        still = random.random(frames) < STILL
        still[np.flatnonzero(np.diff(shot, prepend=-1))] = False  # the first frame of a shot repeats nothing
        source = np.maximum.accumulate(np.where(still, 0, np.arange(frames)))
        fades = np.flatnonzero(np.diff(scene) > 0) + 1
        fades = fades[random.random(len(fades)) < FADE]
        made = []
        for modality, looks in zip(MODALITIES, self.looks, strict=True):
            values = self._frames(random, modality, looks, shows, scene, shot)
            if modality.width == SPEC.features[0].width:
                values = values[source]
            values[fades] = (values[fades] + values[fades - 1]) / 2
            made.append(values)
        self._glitch(random, made)
        return labels, [quantise(values) for values in made]

    def _shows(self, random: np.random.Generator, labels: np.ndarray, scenes: int) -> list[np.ndarray]:
        """Label indices that each scene shows."""
        shown = labels[random.random(len(labels)) < SHOWN]
        result = []
        for _ in range(scenes):
            if random.random() >= DISTRACTOR:
                result.append(shown[random.random(len(shown)) < ON_SCREEN])
            elif random.random() < INTRUDER:
                other = random.choice(self.labels, p=self.frequency)
                result.append(np.setdiff1d([other], labels))
            else:
                result.append(labels[:0])
        return result

    def _frames(
        self, random: np.random.Generator, modality: Modality, looks: np.ndarray, shows: list[np.ndarray],
        scene: np.ndarray, shot: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        def noise(count: int, deviation: float) -> np.ndarray:
            return random.standard_normal((count, modality.width), np.float32) * np.float32(deviation)

        scenes = noise(len(shows), modality.scene)
        for number, labels in enumerate(shows):
            if len(labels):
                scenes[number] += np.float32(modality.label) * looks[self.nodes[labels]].sum(axis=0)
        values = noise(len(scene), modality.frame)
        values += scenes[scene]
        values += noise(shot[-1] + 1, modality.shot)[shot]
        values += noise(1, modality.video)
        return values

    def _glitch(self, random: np.random.Generator, made: list[np.ndarray]) -> None:
        frames = len(made[0])
        kinds, begin, span = random.random(2), random.integers(frames), random.integers(1, 4)
        if kinds[0] < DEAD_AUDIO:
            made[1][begin:] = made[1][begin]
        if kinds[1] < BLACK:
            made[0][begin : begin + span] = 0


def quantise(values: np.ndarray) -> np.ndarray:
    """Dequantised values to the nearest byte, clipped to the range."""
    return np.clip(np.rint((values - SPEC.bias) / SPEC.scale), 0, 255).astype(np.uint8)


def synthesize(
    out: Path,
    seed: int,
    videos: int,
    shards: int,
    taxonomy: Taxonomy,
    labels: Sequence[int],
    frame_limit: int,
    progress: Callable[..., None] | None = None,
) -> None:
    """Write the corpus with TensorFlow. A shard that is there already is kept.

    Args:
        out: folder for synthetic-00000-of-0000N.tfrecord.
        seed, videos, shards: identity and size of the corpus.
        taxonomy: gives each label's node.
        labels: label indices that videos may have.
        frame_limit: longest video in frames.
        progress: called with (videos done, videos in all).

    Raises:
        ConfigurationError: more shards than videos, or a label without known frequencies.
    """
    if shards > videos:
        raise ConfigurationError(f"synthetic.shards = {shards} is more than synthetic.videos = {videos}; lower it")
    generator = Generator(seed, taxonomy, labels, frame_limit)
    bounds = np.linspace(0, videos, shards + 1).astype(int)
    for shard in range(shards):
        path = out / f"synthetic-{shard:05d}-of-{shards:05d}.tfrecord"
        if path.exists():
            continue
        with atomic_file(path) as file:
            _write_shard(Path(file.name), generator, range(bounds[shard], bounds[shard + 1]), videos, progress)


def _write_shard(path: Path, generator: Generator, numbers: range, videos: int, progress: Callable | None) -> None:
    from replicate.data.tensorflow_reader import tensorflow

    tf = tensorflow()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            labels, arrays = generator.video(number)
            writer.write(sequence_example(tf, f"synthetic-{number:07d}", labels, arrays))
            if progress and number % 50 == 0:
                progress(number, videos)


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
