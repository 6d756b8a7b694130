"""The slice as a whole: unlike pictures are told from the normal ones, whatever their brightness and contrast."""

import math

import numpy as np
import pytest
import torch

from pacs_node.autoencoder import whole
from pacs_node.autoencoder.whole import Learnt, Whole, fit_whole, outline, shape

PIXELS = 64


def picture(seed: int, *, stripes: bool = False, slices: int = 1) -> torch.Tensor:
    """An ellipse with a hole, both of random size; with ``stripes`` inside instead of the hole."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(4, generator=generator)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, PIXELS), torch.linspace(-1, 1, PIXELS), indexing="ij")
    body = ((rows / (0.7 + 0.1 * draw[0])) ** 2 + (columns / (0.6 + 0.1 * draw[1])) ** 2 < 1).float()
    hole = ((rows - 0.1 * draw[2]) ** 2 + (columns - 0.1 * draw[3]) ** 2 < 0.04).float()
    inside = 0.15 * torch.sign(torch.sin(16 * columns)) if stripes else -0.3 * hole
    return (body * (0.6 + inside)).expand(slices, PIXELS, PIXELS) + 0.02 * torch.randn(slices, PIXELS, PIXELS, generator=generator)


def one_row(slices: int = 1) -> torch.Tensor:
    return torch.zeros(slices, dtype=torch.long)


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    return fit_whole(((picture(seed), one_row()) for seed in range(30)), 1)


def test_another_texture_is_far_out_and_a_new_normal_picture_is_not(learnt: Learnt) -> None:
    normal = torch.stack([learnt.whole.study(picture(seed), one_row()) for seed in range(100, 120)])
    striped = torch.stack([learnt.whole.study(picture(seed, stripes=True), one_row()) for seed in range(100, 120)])
    assert (normal.median(0).values.abs() < 1.5).all()
    assert (striped.min(0).values > normal.max(0).values).all()


@pytest.mark.parametrize(("level", "contrast"), [(0.0, 0.6), (0.2, 0.6), (0.1, 1.0)])
def test_brightness_and_contrast_change_no_shape(level: float, contrast: float) -> None:
    assert torch.allclose(shape(level + contrast * picture(1)), shape(picture(1)), atol=1e-5)


def test_contrast_shifts_every_outline_alike() -> None:
    strong, weak = outline(picture(1) + 0.0), outline(0.7 * picture(1))
    clear = strong > math.log(1e-2 * float(strong.exp().max()))  # where edges are, and not the floor of the logarithm
    assert clear.sum() > 50
    assert torch.allclose((strong - weak)[clear], torch.tensor(-2 * math.log(0.7)), atol=0.15)


def test_the_outline_of_a_ramp_is_that_of_a_plain_calculation() -> None:
    ramp = (torch.arange(PIXELS) / PIXELS).expand(1, PIXELS, PIXELS).clone()
    first = outline(ramp)[0, : 4 * 16].reshape(4, 4, 4)  # directions, rows, columns of the first octave
    slope = 1 / PIXELS  # a Sobel filter over 8 gives the slope along its direction, and three quarters of it along a diagonal
    for direction, share in enumerate((1.0, 0.0, 0.75, 0.75)):
        assert first[direction, 1:3, 1:3].tolist() == pytest.approx(np.full((2, 2), math.log((share * slope) ** 2 + 1e-5)), rel=1e-4)


def test_the_distances_are_those_of_a_plain_calculation(learnt: Learnt) -> None:
    one, numbers = picture(200), {name: value.double().numpy() for name, value in learnt.whole.tensors().items()}
    row = (outline(one).double().numpy()[0] - numbers["outline_mean"]) / numbers["outline_scale"]
    along = numbers["outline_axes"] @ row
    nearest = min(np.linalg.norm(along / numbers["outline_roots"] - known) for known in numbers["outline_rows"])
    rest = row - along @ numbers["outline_axes"]
    form = shape(one).double().numpy()[0] - numbers["shape_mean"]
    form_rest = form - (numbers["shape_axes"] @ form) @ numbers["shape_axes"]
    expected = np.log([nearest + 1e-5, np.sqrt((rest**2).mean()) + 1e-5, np.sqrt((form_rest**2).mean()) + 1e-5])
    assert learnt.whole.distances_of(outline(one), shape(one))[0].numpy() == pytest.approx(expected, rel=1e-3)


def test_what_is_usual_is_measured_on_studies_that_were_left_out(learnt: Learnt) -> None:
    """A training picture lies nearer to its fellows, itself among them, than any new one: it must not count as usual."""
    seen = torch.stack([learnt.whole.study(picture(seed), one_row()) for seed in range(30)])
    assert seen[:, 0].median() < -1
    assert learnt.study_mean.abs().max() < 0.5
    assert (learnt.study_spread > 0.3).all()


def test_kinds_of_series_and_positions_have_usual_values_of_their_own_where_there_are_enough_slices() -> None:
    studies = [picture(seed, slices=4) for seed in range(12)] + [picture(seed, stripes=True, slices=4) for seed in range(12)] + [picture(50, slices=2)]
    rows = [one_row(4)] * 12 + [one_row(4) + 1] * 12 + [one_row(2) + 2]
    fitted = fit_whole(zip(studies, rows, strict=True), 4).whole
    assert fitted.usual.shape == (4, 3)
    assert not torch.equal(fitted.usual[0], fitted.usual[1])
    assert torch.equal(fitted.usual[2], fitted.usual[3])


def test_a_few_strange_studies_among_the_normal_ones_move_what_is_usual_little(learnt: Learnt) -> None:
    studies = [picture(seed, stripes=seed % 10 == 9) for seed in range(30)]
    soiled = fit_whole([(one, one_row()) for one in studies], 1)
    assert (soiled.whole.usual - learnt.whole.usual).abs().max() < 3 * learnt.whole.spread.max()
    assert soiled.whole.study(picture(100, stripes=True), one_row())[0] > soiled.whole.study(picture(100), one_row())[0]


def test_empty_and_constant_slices_give_finite_numbers(learnt: Learnt) -> None:
    for value in (0.0, 1.0):
        assert learnt.whole.study(torch.full((3, PIXELS, PIXELS), value), one_row(3)).isfinite().all()


def test_slices_of_another_size_are_compared_as_they_are(learnt: Learnt) -> None:
    doubled = torch.nn.functional.interpolate(picture(1)[:, None], scale_factor=2, mode="bilinear")[:, 0]
    assert outline(doubled).shape == outline(picture(1)).shape
    assert torch.allclose(shape(doubled), shape(picture(1)), atol=0.05)


def test_the_study_is_judged_by_its_three_worst_neighbours() -> None:
    values = torch.tensor([[0.0, 5.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    assert whole.study_parts(values).tolist() == pytest.approx([3.0, 5 / 3])
    assert whole.study_parts(values[:1]).tolist() == [0.0, 5.0]


def test_fewer_than_two_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="two studies"):
        fit_whole([(picture(1), one_row())], 1)


def test_the_stored_tensors_are_all_of_it(learnt: Learnt) -> None:
    again = Whole(**learnt.whole.tensors())
    assert torch.equal(again.study(picture(5), one_row()), learnt.whole.study(picture(5), one_row()))
