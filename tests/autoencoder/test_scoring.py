"""From reconstructions to scores: what is planted must stand out, and nothing else decides."""

import pytest
import torch

from pacs_node.autoencoder import scoring
from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.normals import Example, fit_normals, with_whole
from pacs_node.autoencoder.scoring import Fusion, Seen

EDGE = 64


def study(seed: int, slices: int = 6) -> Example:
    """A soft disc with noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(EDGE), torch.arange(EDGE), indexing="ij")
    inside = (((rows - 32) ** 2 + (columns - 32) ** 2) < 24**2).expand(slices, EDGE, EDGE).clone()
    return Example((0.5 + 0.03 * torch.randn(slices, EDGE, EDGE, generator=generator)) * inside, inside)


def seen_as_usual(x: torch.Tensor, foreground: torch.Tensor) -> Seen:
    """What a network that knows the disc would say: its mean, and the noise's variance."""
    return Seen(0.5 * foreground.float(), torch.full_like(x, -7.0), torch.zeros(len(x), 32))


@pytest.fixture(scope="module")
def fitted() -> tuple[Network, scoring.Normals]:
    torch.manual_seed(0)
    network = Network(Architecture(EDGE, 1, (8, 16), ("open", "open"))).eval()
    held_out = [study(seed) for seed in range(8)]
    return network, fit_normals(network, [one.x for one in held_out], held_out, Fusion(), bins=3)


def test_a_planted_square_is_the_hottest_place(fitted: tuple[Network, scoring.Normals]) -> None:
    one = study(100)
    one.x[3, 20:28, 30:38] += 0.15
    seen = seen_as_usual(one.x, one.foreground)
    maps = scoring.evidence(one.x, seen, one.foreground, fitted[1].low_mean, fitted[1].low_axes)
    for part, values in zip(scoring.PARTS[: len(maps)], maps, strict=True):
        slices, rest = divmod(int(values.argmax()), EDGE * EDGE)
        assert (slices, rest // EDGE in range(17, 31), rest % EDGE in range(27, 41)) == (3, True, True), part


def test_scores_rise_with_what_was_planted_and_are_the_same_every_time(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    scores = []
    for height in (0.0, 0.2, 0.4):
        one = study(100)
        one.x[2:5, 20:32, 20:32] += height
        judged = [scoring.judge(one.x, scoring.look(network, one.x), one.foreground, normals, Fusion(), one.stratum) for _ in range(2)]
        assert judged[0].study == judged[1].study
        assert set(judged[0].parts) == set(scoring.STUDY_PARTS)
        scores.append(judged[0].study)
    assert scores == sorted(scores)
    assert scores[0] < scores[2]


def test_held_out_studies_score_about_zero_by_construction(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    scores = [
        scoring.judge(one.x, scoring.look(network, one.x), one.foreground, normals, Fusion(), one.stratum).study for one in (study(seed) for seed in range(8))
    ]
    assert abs(sum(scores) / 8) < 0.01


def test_nothing_outside_the_foreground_counts(fitted: tuple[Network, scoring.Normals]) -> None:
    normals = fitted[1]
    one, disturbed = study(100), study(100)
    disturbed.x[:, :6, :6] = 1.0
    seen = seen_as_usual(one.x, one.foreground)
    z = [scoring.judge(example.x, seen, one.foreground, normals, Fusion((1, 1, 0, 0, 1)), one.stratum).z for example in (one, disturbed)]
    assert torch.equal(z[0], z[1])
    assert (z[0][~one.foreground] == 0).all()


def test_a_slice_that_is_brighter_as_a_whole_is_a_finding_only_where_brightness_means_something(fitted: tuple[Network, scoring.Normals]) -> None:
    one, normals = study(100), fitted[1]
    one.x[2] += 0.1 * one.foreground[2]
    one.foreground[5] = False  # a slice that shows nothing but air
    one.x[3, 20:28, 30:38] += 0.15
    seen = seen_as_usual(one.x, one.foreground)
    plain, centred = (scoring.evidence(one.x, seen, one.foreground, normals.low_mean, normals.low_axes, centred=choice) for choice in (False, True))
    for part in ("offset", "energy", "error"):
        before, after = (maps[scoring.PARTS.index(part)] for maps in (plain, centred))
        assert before[2][one.foreground[2]].mean() > 2.5 * after[2][one.foreground[2]].mean(), part
        assert after[3].max() > 2 * after[2].max(), part
        assert (after[5] == 0).all()
    assert torch.equal(plain[2:4], centred[2:4])


def test_the_batch_size_does_not_change_what_is_seen(fitted: tuple[Network, scoring.Normals]) -> None:
    one = study(7)
    many, few = scoring.look(fitted[0], one.x, batch=6), scoring.look(fitted[0], one.x, batch=2)
    assert torch.allclose(many.mean, few.mean, atol=1e-5)
    assert many.embedding.shape == (6, 32)


def test_progress_is_heard_after_every_batch_and_may_stop_the_work(fitted: tuple[Network, scoring.Normals]) -> None:
    heard: list[float] = []
    scoring.look(fitted[0], study(7).x, batch=2, beat=heard.append)
    assert heard == pytest.approx([1 / 3, 2 / 3, 1])
    with pytest.raises(KeyboardInterrupt):
        scoring.look(fitted[0], study(7).x, beat=stop)


def stop(fraction: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("slices", "bins", "expected"), [(4, 2, [0, 0, 1, 1]), (1, 8, [4]), (3, 3, [0, 1, 2]), (16, 8, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7])]
)
def test_slices_fall_into_position_bins(slices: int, bins: int, expected: list[int]) -> None:
    assert scoring.bins_of(slices, bins).tolist() == expected


@pytest.mark.parametrize(("values", "peak"), [([0, 0, 3, 0, 0], 1.0), ([3.0, 6.0], 4.5), ([2.0], 2.0), ([1, 2, 3, 4], 3.0)])
def test_the_study_peak_is_the_maximum_of_a_three_slice_average(values: list[float], peak: float) -> None:
    assert scoring.moving_peak(torch.tensor(values, dtype=torch.float32)) == pytest.approx(peak)


def test_a_slice_without_foreground_scores_nothing() -> None:
    z = torch.ones(2, 8, 8)
    foreground = torch.zeros(2, 8, 8, dtype=torch.bool)
    foreground[0] = True
    assert scoring.top_share(z, foreground, 0.01).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("weights", "word"), [((1, 1), "6 numbers"), ((0, 0, 0, 0, 0), "not all zero"), ((1, 1, 1, 1, -1), "none negative")])
def test_impossible_weights_are_refused(weights: tuple[float, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Fusion(pixel=weights)


# --- many slices at once say what one after the other says -------------------------------------------------------------------


def uneven(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, ties among them, on foregrounds of very different sizes: none, one pixel, some, all."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 32, 32, generator=generator).mul(8).round().div(8)
    foreground = torch.rand(5, 32, 32, generator=generator) > 0.6
    foreground[0] = False
    foreground[1] = False
    foreground[1, 3, 4] = True
    foreground[4] = True
    return values, foreground


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 1.0])
def test_the_top_share_of_each_slice_is_what_it_is_alone(share: float) -> None:
    values, foreground = uneven()
    found = scoring.top_share(values, foreground, share)
    for one, row, inside in zip(found, values, foreground, strict=True):
        inner = row[inside]
        expected = inner.sort(descending=True).values[: max(1, int(share * len(inner)))].mean() if len(inner) else torch.tensor(0.0)
        assert float(one) == pytest.approx(float(expected), abs=1e-5)


def test_each_slice_is_centred_on_the_median_of_its_own_foreground() -> None:
    values, foreground = uneven()
    found = scoring._centred(values, foreground)
    for one, row, inside in zip(found, values, foreground, strict=True):
        assert torch.equal(one, row - (row[inside].median() if inside.any() else 0))


def test_a_long_series_is_judged_as_if_at_once(fitted: tuple[Network, scoring.Normals], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a series are only for speed: each slice keeps its place among all."""
    network, normals = fitted
    one = study(3, slices=37)
    one.x[20, 20:28, 30:38] += 0.2
    seen = scoring.look(network, one.x)
    pieces = scoring.judge(one.x, seen, one.foreground, normals, Fusion(), one.stratum)
    monkeypatch.setattr(scoring, "_PIECE", 100)
    whole = scoring.judge(one.x, seen, one.foreground, normals, Fusion(), one.stratum)
    assert torch.allclose(pieces.z, whole.z, atol=1e-5)
    assert pieces.parts == pytest.approx(dict(whole.parts), abs=1e-5)


def test_the_peak_is_the_maximum_of_as_many_slices_as_the_fusion_says(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    one = study(100)
    one.x[3, 20:32, 20:32] += 0.4
    seen = scoring.look(network, one.x)
    single, several = (scoring.judge(one.x, seen, one.foreground, normals, Fusion(moving=moving), one.stratum) for moving in (1, 3))
    assert single.parts["peak"] == pytest.approx(float(single.slices.max()))
    assert several.parts["peak"] == pytest.approx(float(several.slices.unfold(0, 3, 1).mean(1).max()))
    with pytest.raises(ValueError, match="at least one slice"):
        Fusion(moving=0)


def test_mere_pictures_are_judged_as_a_whole_where_that_was_learnt(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    learnt = with_whole(normals, [study(seed) for seed in range(12)])
    one, fusion = study(100), Fusion(study=(1, 0, 0), pictures=(0, 0, 0, 1, 0))
    seen = scoring.look(network, one.x)
    by_kind = {
        (picture, known is learnt): scoring.judge(one.x, seen, one.foreground, known, fusion, scoring.Stratum(picture=picture))
        for picture in (False, True)
        for known in (normals, learnt)
    }
    standard = {name: index for index, name in enumerate(learnt.study_parts)}
    for (picture, whole), judged in by_kind.items():
        part = "outline" if picture and whole else "peak"
        place = standard[part]
        expected = (judged.parts[part] - float(learnt.study_mean[place])) / float(learnt.study_spread[place])
        assert judged.study == pytest.approx(expected, abs=1e-4)
