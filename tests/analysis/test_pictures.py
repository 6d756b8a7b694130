"""PNG and JPEG files as studies of one slice: whatever a picture is made of becomes grey values, or a reason why not."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacs_node.analysis import pictures
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.analysis.pipeline import prepare
from pacs_node.config import shipped
from pacs_node.errors import NotAnalysable, OutOfScope

Saved = Callable[..., Path]


def gradient(rows: int = 40, columns: int = 60) -> np.ndarray:
    return np.linspace(0, 255, rows * columns).reshape(rows, columns).astype(np.uint8)


def head(edge: int = 200) -> np.ndarray:
    """A bright disc with a darker one in it, on black."""
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    radius = np.hypot(x, y) / edge
    return np.where(radius < 0.2, 90, np.where(radius < 0.4, 180, 0)).astype(np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    def save(image: Image.Image, name: str = "picture.png", **options: object) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def manifest_of(name: str) -> Manifest:
    return read_manifest(shipped("models") / name)


def coloured(mode: str) -> Image.Image:
    grey = Image.fromarray(gradient())
    if mode == "P":
        return grey.convert("RGB").quantize(256)
    if mode == "CMYK":
        return grey.convert("RGB").convert("CMYK")
    return grey.convert(mode)


@pytest.mark.parametrize(("mode", "name", "off"), [("L", "a.png", 0), ("LA", "a.png", 0), ("RGB", "a.png", 1), ("RGBA", "a.png", 1), ("P", "a.png", 1)])
def test_grey_colour_and_palette_pictures_become_the_same_grey(saved: Saved, mode: str, name: str, off: float) -> None:
    volume = pictures.read(saved(coloured(mode), name), "US")
    assert volume.pixels.shape == (1, 40, 60)
    assert np.abs(volume.pixels[0] - gradient()).max() <= off
    assert (volume.modality, volume.picture, volume.frames[0].plane, volume.frames[0].spacing) == ("US", True, None, None)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_becomes_the_same_grey_but_for_its_compression(saved: Saved, mode: str) -> None:
    volume = pictures.read(saved(coloured(mode), "a.jpg", quality=95), "US")
    assert np.abs(volume.pixels[0] - gradient()).max() <= 8


def test_colour_counts_by_its_luminance(saved: Saved) -> None:
    image = Image.new("RGB", (30, 30), (255, 0, 0))
    assert pictures.read(saved(image), "US").pixels[0, 0, 0] == pytest.approx(0.299 * 255, abs=1)


def test_sixteen_bits_keep_their_precision_and_are_named(saved: Saved) -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    volume = pictures.read(saved(Image.fromarray(values)), "MR")
    assert len(np.unique(volume.pixels)) == 64 * 64
    assert volume.pixels.max() == pytest.approx(4095 * 255 / 65535)
    assert "16 bits" in volume.remarks[0]


def test_what_is_transparent_shows_nothing(saved: Saved) -> None:
    image = Image.fromarray(gradient()).convert("RGBA")
    image.paste((255, 255, 255, 0), (0, 0, 60, 10))
    pixels = pictures.read(saved(image), "US").pixels[0]
    assert np.isnan(pixels[:10]).all()
    assert np.isfinite(pixels[10:]).all()


def test_a_turned_photograph_stands_upright(saved: Saved) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter clockwise to show it
    path = saved(Image.fromarray(gradient()), "turned.jpg", exif=exif, quality=95)
    shown = pictures.read(path, "US").pixels[0]
    assert shown.shape == (60, 40)
    assert np.abs(shown - np.rot90(gradient(), -1)).max() <= 8
    mask = saved(Image.fromarray(np.rot90(gradient(), -1)), "mask.png")
    assert pictures.read_mask(mask, path).shape == (60, 40)


@pytest.mark.slow
def test_a_very_large_picture_is_averaged_and_its_mask_with_it(saved: Saved) -> None:
    edge = 10_000
    values = np.zeros((edge, edge), dtype=np.uint8)
    values[:, edge // 2 :] = 200
    path = saved(Image.fromarray(values), compress_level=1)
    volume, mask = pictures.read(path, "US"), pictures.read_mask(path, path)
    assert volume.pixels.shape == (1, 2000, 2000)
    assert (volume.pixels[0, :, 999], volume.pixels[0, :, 1000]) == (pytest.approx(0), pytest.approx(200))
    assert mask[:, 1000].all()
    assert not mask[:, 999].any()


def test_a_picture_that_claims_to_be_enormous_is_refused_before_it_is_decoded(saved: Saved, tmp_path: Path) -> None:
    path = saved(Image.fromarray(gradient()))
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(NotAnalysable, match=r"60000 × 60000|cannot be read"):
        pictures.read(path, "US")


@pytest.mark.parametrize("name", ["half.jpg", "half.png"])
def test_a_truncated_picture_is_refused_with_the_reason(saved: Saved, name: str) -> None:
    path = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(NotAnalysable, match="the picture cannot be read"):
        pictures.read(path, "US")


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_picture_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(NotAnalysable, match="the picture cannot be read"):
        pictures.read(tmp_path / "odd.png", "US")


def test_a_picture_of_one_pixel_is_blank(saved: Saved) -> None:
    volume = pictures.read(saved(Image.fromarray(np.array([[7]], dtype=np.uint8))), "US")
    with pytest.raises(OutOfScope, match="blank"):
        prepare(volume, manifest_of("us-breast"))


def test_a_mask_of_another_size_is_refused(saved: Saved) -> None:
    image, mask = saved(Image.fromarray(gradient())), saved(Image.fromarray(gradient(40, 40)), "mask.png")
    with pytest.raises(NotAnalysable, match=r"mask\.png has 40 × 40 pixels, the image 60 × 40"):
        pictures.read_mask(mask, image)


@pytest.mark.parametrize("name", ["ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"])
def test_every_shipped_preprocessing_takes_pictures(saved: Saved, name: str) -> None:
    prepared = prepare(pictures.read(saved(Image.fromarray(head())), name.split("-")[0].upper()), manifest_of(name))
    assert prepared.x.shape == (1, 128, 128)
    share = prepared.foreground[0].mean()
    assert share == pytest.approx(1.0 if name == "us-breast" else np.pi * 0.4**2, abs=0.05)
    assert 0 <= float(prepared.x.min()) < float(prepared.x.max()) <= 1
    assert prepared.stratum.index < prepared.stratum.of


def test_black_and_white_are_the_ends_of_the_intensities_where_a_bundle_has_a_unit(saved: Saved) -> None:
    manifest = manifest_of("ct-head")
    prepared = prepare(pictures.read(saved(Image.fromarray(head())), "CT"), manifest)
    assert (prepared.volume.pixels.min(), prepared.volume.pixels.max()) == (-1000, pytest.approx(89.4, abs=0.1))  # 180 of 255 on the line
    assert float(prepared.x[0, 64, 64]) == pytest.approx(90 / 255, abs=0.01)
    assert any("has no unit" in remark and "-1000 to 2000" in remark for remark in prepared.volume.remarks)


def test_the_longer_edge_fills_the_grid(saved: Saved) -> None:
    wide = np.full((100, 200), 100, dtype=np.uint8)
    wide[:, ::2] = 120
    prepared = prepare(pictures.read(saved(Image.fromarray(wide)), "US"), manifest_of("us-breast"))
    known = np.isfinite(prepared.resampled.view[0])
    assert np.flatnonzero(known.any(0)).tolist() == list(range(128))
    assert len(np.flatnonzero(known.any(1))) == 64
    place = prepared.resampled.places[0]
    assert (place.row_step, place.column_step) == (pytest.approx(200 / 128), pytest.approx(200 / 128))


@pytest.mark.parametrize("name", ["mr-brain", "ct-head", "us-breast"])
def test_black_and_white_are_the_ends_of_the_network_s_range_and_nothing_is_cut_away(name: str, saved: Saved) -> None:
    grey = np.full((128, 128), 0, dtype=np.uint8)
    grey[20:108, 20:108] = 128
    grey[40:60, 40:60] = 255
    grey[2:6, 2:6] = 200  # a letter beside the body
    prepared = prepare(pictures.read(saved(Image.fromarray(grey)), read_manifest(shipped("models") / name).modality), manifest_of(name))
    assert prepared.stratum.picture
    values = prepared.x[0]
    assert float(values[50, 50]) == pytest.approx(1.0, abs=1e-4)
    assert float(values[100, 80]) == pytest.approx(128 / 255, abs=1e-3)
    assert float(values[4, 4]) == pytest.approx(200 / 255, abs=1e-3)
    assert float(values[10, 100]) == pytest.approx(0.0, abs=1e-4)


def test_only_a_picture_is_let_off_the_checks_that_need_geometry(saved: Saved) -> None:
    volume = pictures.read(saved(Image.fromarray(head())), "MR")
    manifest = manifest_of("mr-brain")
    prepare(volume, manifest)
    with pytest.raises(OutOfScope, match="unknown weighting"):
        prepare(replace(volume, picture=False), manifest)


def test_a_dark_brain_in_a_thin_bright_skull_is_imaged_as_a_whole(saved: Saved) -> None:
    y, x = np.mgrid[:224, :224] - 111.5
    radius = np.hypot(x, y)
    dark = 60 + 12 * np.sin(x / 7) * np.cos(y / 9)
    image = np.where(radius < 98, dark, np.where(radius < 100, 250, 10)).astype(np.uint8)
    prepared = prepare(pictures.read(saved(Image.fromarray(image)), "MR"), manifest_of("mr-brain"))
    assert prepared.foreground[0].mean() == pytest.approx(np.pi * 100**2 / 224**2, abs=0.05)
    assert float(prepared.x[0, 40:88, 40:88].std()) > 0.02
