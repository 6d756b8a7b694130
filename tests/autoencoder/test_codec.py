from __future__ import annotations

import hashlib
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import jpeg_ls
import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_node.autoencoder import codec
from pacs_node.autoencoder.codec import StreamError, decode, encode, jpegls_size, method_of
from pacs_node.autoencoder.codec_bytes import Writer
from pacs_node.autoencoder.codec_grid import Grid, spread, steps

Values = NDArray[np.integer]


def smooth(frames: int, rows: int, columns: int, *, seed: int = 1, noise: float = 3.0, level: float = 400.0) -> NDArray[np.float64]:
    """A blurred ball with noise: neighbours, also in the next frame, are alike."""
    z, y, x = np.meshgrid(np.linspace(-1, 1, frames) if frames > 1 else [0.0], np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    ball = level * np.exp(-4 * (x * x + y * y + z * z)) + 60 * np.sin(9 * x) * (x * x + y * y < 0.7)
    return np.where(x * x + y * y < 0.9, ball + np.random.default_rng(seed).normal(0, noise, ball.shape), 0)


def noise(*shape: int, high: int = 65536, dtype: str = "u2") -> Values:
    return np.random.default_rng(4).integers(0, high, shape).astype(dtype)


def padded() -> Values:
    values = (smooth(3, 40, 40) - 1000).astype(np.int16)
    values[:, np.hypot(*np.mgrid[-20:20, -20:20]) > 18] = -3024
    return values


STACKS: dict[str, Values] = {
    "signed CT": (smooth(5, 48, 56) - 1000).astype(np.int16),
    "CT with padding values": padded(),
    "12 bits unsigned": smooth(4, 40, 30).clip(0, 4095).astype(np.uint16),
    "8 bits": smooth(2, 33, 47, level=150).clip(0, 255).astype(np.uint8),
    "signed bytes": smooth(2, 20, 20, level=90).clip(-128, 127).astype(np.int8),
    "values in 32 bits": smooth(2, 24, 24).astype(np.int32) - 70000,
    "the highest of 32 bits": (smooth(2, 24, 24).clip(-100, 600) + 2.0**32 - 1000).astype(np.uint32),
    "the lowest of 32 bits": (smooth(2, 24, 24).clip(-100, 600) - 2.0**31 + 200).astype(np.int32),
    "big-endian values": (smooth(2, 24, 24) - 5).astype(">i2"),
    "colour": np.stack([smooth(2, 40, 44, level=level).clip(0, 255).astype(np.uint8) for level in (200, 190, 60)], -1),
    "four planes": noise(1, 9, 8, 4, high=200, dtype="u1"),
    "one slice": smooth(1, 64, 64).astype(np.int16),
    "one row": smooth(2, 1, 50).astype(np.int16),
    "one column": smooth(2, 50, 1).astype(np.int16),
    "one pixel": np.array([[[7]]], np.uint16),
    "constant": np.full((3, 20, 20), -2000, np.int16),
    "all ends of the range": np.tile(np.array([-32768, 32767], np.int16), (2, 10, 5)),
    "noise of 16 bits": noise(2, 30, 31),
    "a binary mask": (smooth(3, 30, 30) > 200).astype(np.uint8),
    "two values far apart": (smooth(3, 30, 30) > 200).astype(np.uint16) * 60000,
}


@pytest.mark.parametrize("near", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", STACKS)
def test_every_pixel_comes_back_within_the_promised_error_and_no_stream_is_larger_than_jpeg_ls(name: str, near: int) -> None:
    values = STACKS[name]
    stream = encode(values, near)
    found, size = decode(stream), jpegls_size(values, near)
    assert found.shape == values.shape and found.dtype == values.dtype.newbyteorder("<")
    assert np.abs(found.astype(np.int64) - values.astype(np.int64)).max() <= near
    assert near or np.array_equal(found, values)
    assert size is None or len(stream) <= size, "its own header included"


@pytest.mark.parametrize("near", [0, 4])
@pytest.mark.parametrize("name", STACKS)
def test_each_method_keeps_the_promise_by_itself(name: str, near: int) -> None:
    values = STACKS[name]
    head, stack = codec._prepared([values], near)
    for method in range(len(codec._METHODS)):
        stream = codec._sealed(method, head, stack)
        assert stream is not None or codec._METHODS[method].name.startswith("JPEG-LS"), "only JPEG-LS may refuse"
        if stream is not None:
            assert np.abs(decode(stream).astype(np.int64) - values.astype(np.int64)).max() <= near


@pytest.mark.parametrize("near", [0, 1, 4, 8])
@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_ls_with_more_bits_than_are_needed_is_not_smaller(bits: int, near: int) -> None:
    values = smooth(3, 24, 24, level=900).clip(0, 4095).astype(np.uint16)
    whole = sum(len(jpeg_ls.encode_buffer(frame.tobytes(), 24, 24, 1, bits, near, 0)) for frame in values)
    assert len(encode(values, near)) <= whole


def test_the_smaller_method_is_taken() -> None:
    assert method_of(encode((smooth(12, 96, 96) - 1000).astype(np.int16), 0)) == "prediction"
    assert method_of(encode(smooth(1, 9, 24).astype(np.int16), 0)) == "JPEG-LS"
    colour = np.zeros((1, 16, 32, 3), np.uint8)
    colour[:, 3:-3, 4:-9] = noise(1, 10, 19, 3, high=256, dtype="u1")  # runs of black end in all planes together
    assert method_of(encode(colour, 0)) == "JPEG-LS by pixel" and np.array_equal(decode(encode(colour, 0)), colour)


def test_slices_that_are_alike_are_predicted_from_each_other() -> None:
    one = smooth(1, 80, 80, noise=30).astype(np.int16)
    alone, twice = len(encode(one, 0)), len(encode(np.concatenate([one, one]), 0))
    assert twice < 1.2 * alone


def test_stacks_are_put_together_as_one_without_another_copy_of_all() -> None:
    values = noise(64, 64, 64, 3)
    tracemalloc.start()
    try:
        head, stack = codec._prepared(np.split(values, 16), 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * stack.nbytes
    assert np.array_equal(stack, codec._prepared([values], 0)[1]) and head.shape == (64, 3, 64, 64)
    assert codec.encode_and_decode(np.split(STACKS["colour"], 2), 1)[0] == encode(STACKS["colour"], 1)
    with pytest.raises(ValueError, match="integers of shape"):
        codec.encode_and_decode([STACKS["one slice"], STACKS["one row"]], 0)


def test_a_long_series_is_cut_into_slabs_that_are_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = STACKS["signed CT"]
    monkeypatch.setattr(codec, "_SLAB", 2 * 48 * 56)
    head, stack = codec._prepared([values], 1)
    assert np.abs(decode(codec._sealed(2, head, stack) or b"").astype(int) - values).max() <= 1


# --- the same everywhere ---------------------------------------------------------------------------------------------------


def golden() -> Values:
    """Whole numbers only, so that they are the same wherever they are made."""
    z, y, x = np.mgrid[:3, :12, :13]
    return ((x * x * 3 + y * 7 + z * 5) % 61 + (x * y * (z + 3) % 7) - 20).astype(np.int16)


GOLDEN = (
    "504e530102000303000c0d2742ea0342056078da636058c27eebbf2a832173d5dfe9ccefff8bb06d67620082cd6cda8c35ac0c6070fcffcbffbc0c8b19c2ff7ffc7ff8ff69e6b7ff"
    "7772effd3f958187c18461c17f7f0618e86364604807d2c66c10fe45863a20a9c4200c95070098be1d2c01005078da154cc10a805008db8ebb08821441e4e9113d82be28faffbf48"
    "11373736f17e04c40280aaed51ab32098505dce9b1f89ac798f773cd73e4b65b46253ccc8accd8454850b1f5dd8fa8f801f5dc048c0d78da4bc94e49ce010006030203a40284c187"
    "29699f9fd9dac98a5cf8e7c15eba9c950aca058f08184bc487a9b13614670e9d2d89a941380a8d8387a33daf94f090ca1b97d055ed53951688237188d5a0aec8757fabb0a62beed9"
    "b202c94f479517dec16a3f1ece32c11601aea85545c859795a62d3810ee94980ba4efe5ffeedd4d3dab1831f05eacb80777dd45bc69672041709edd66b5d783517559ac0ed2e1d9e"
    "1fac74028d281d9fd973f5735f48fcd4f6b904f1bd34e794022ae64399ea37516bef09f426f906fcc0cb700fab98f0c0c29ec8fb592c4901ae1a672cd2c0dcdd7d9a4554f8a85c12"
    "a578e986b17f20156fbccbefa799188c6cc67e8ec484e0bd1fd3d44112ee8558ad22f3479c537de4b816d109cbf2f86ce8fc79d72d551c40e33b621d6b4dadbf4ff095e9aa40a779"
    "c8983a9af8"
)


def test_a_stream_written_long_ago_is_read_as_it_was_meant() -> None:
    assert np.array_equal(decode(bytes.fromhex(GOLDEN)), golden())


def test_many_threads_decode_the_same() -> None:
    values = (smooth(6, 64, 64) - 1000).astype(np.int16)
    stream = encode(values, 2)
    with ThreadPoolExecutor(4) as pool:
        found = {hashlib.sha256(one.tobytes()).hexdigest() for one in pool.map(decode, [stream] * 8)}
    assert len(found) == 1


def test_the_same_values_give_the_same_stream() -> None:
    assert encode(STACKS["signed CT"], 2) == encode(STACKS["signed CT"].copy(), 2)


# --- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [-1, 9, 1.0, True])
def test_an_error_out_of_range_is_refused(near: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 8"):
        encode(STACKS["one slice"], near)


@pytest.mark.parametrize("values", [np.zeros((2, 3, 3), np.float32), np.zeros((3, 3), np.int16), np.zeros((0, 3, 3), np.int16), np.zeros((1, 2, 2), np.int64)])
def test_what_is_no_stack_of_integers_is_refused(values: Values) -> None:
    with pytest.raises(ValueError, match="integers of shape"):
        encode(values, 0)


def test_a_range_beyond_16_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 65535"):
        encode(np.array([[[0, 65536]]], np.int32), 0)


@pytest.mark.parametrize("name", ["signed CT", "constant", "noise of 16 bits"])
def test_a_stream_cut_short_anywhere_is_refused(name: str) -> None:
    stream = encode(STACKS[name], 0)
    for length in {*range(40), *range(40, len(stream), 97), len(stream) - 1}:
        if length < len(stream):
            with pytest.raises(StreamError):
                decode(stream[:length])


def test_a_changed_byte_anywhere_is_refused() -> None:
    stream = encode(STACKS["signed CT"], 1)
    for at in {*range(30), *range(30, len(stream), 211)}:
        with pytest.raises(StreamError):
            decode(stream[:at] + bytes((stream[at] ^ 0x41,)) + stream[at + 1 :])


def resealed(stream: bytes) -> bytes:
    return stream[:-4] + zlib.crc32(stream[:-4]).to_bytes(4, "little")


def test_a_newer_version_and_an_unknown_method_are_refused_with_what_to_do() -> None:
    stream = encode(STACKS["one slice"], 0)
    with pytest.raises(StreamError, match=r"version 2, this reader knows 1.*newer one"):
        decode(resealed(stream[:3] + b"\2" + stream[4:]))
    with pytest.raises(StreamError, match="method 9"):
        decode(resealed(stream[:4] + b"\t" + stream[5:]))


def headed(stream: bytes, **changed: int) -> bytes:
    """Return a stream with other fields in its head: method, near, type, frames, planes, rows, columns, least."""
    head, reader = codec._opened(stream)
    sizes = dict(zip(("frames", "planes", "rows", "columns"), head.shape, strict=True))
    fields = {"method": head.method, "near": head.near, "type": head.type, **sizes, "least": head.least} | changed
    method, near, kind, *shape, least = fields.values()
    writer = Writer()
    codec._Head(method, near, kind, tuple(shape), least).write(writer)
    return resealed(writer.content() + reader.raw(reader.left) + b"\0\0\0\0")


def test_a_size_beyond_all_bounds_is_refused_before_memory_is_taken() -> None:
    stream = encode(STACKS["one pixel"], 0)
    with pytest.raises(StreamError, match="claims"):
        decode(resealed(stream[:7] + b"\xff\xff\xff\xff\x7f" + stream[8:]))
    for beyond in ({"rows": 8193, "columns": 8192}, {"frames": 2**30 + 1}, {"frames": 2**18, "rows": 2**13, "columns": 2**13}, {"rows": 0}):
        with pytest.raises(StreamError, match="claims"):
            decode(headed(stream, **beyond))


def test_a_short_stream_that_claims_much_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = codec._sealed(0, *codec._prepared([STACKS["one slice"]], 0)) or b""
    monkeypatch.setattr(np, "empty", lambda *shape, **options: pytest.fail("memory was taken"))
    with pytest.raises(StreamError, match="cut short"):
        decode(headed(stream, frames=2**18, rows=2**5, columns=2**5))


def test_a_stack_that_no_reader_takes_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than one stream may hold"):
        encode(STACKS["one slice"], 0)


@pytest.mark.parametrize("least", [-1, 65530])
def test_values_beyond_their_type_are_refused(least: int) -> None:
    stream = encode(np.arange(100, dtype=np.uint16).reshape(1, 10, 10), 0)
    with pytest.raises(StreamError, match="none of its type uint16"):
        decode(headed(stream, least=least))


def test_more_rows_than_jpeg_ls_has_are_one_error() -> None:
    stream = codec._sealed(0, *codec._prepared([STACKS["one slice"]], 0)) or b""
    with pytest.raises(StreamError, match="JPEG-LS has no pictures of 70000 rows"):
        decode(headed(stream, rows=70000))
    assert codec._sealed(0, *codec._prepared([np.zeros((1, 1, 66000), np.int16)], 0)) is None


def test_a_stream_says_what_it_holds_without_being_decoded() -> None:
    stream = encode(STACKS["colour"], 3)
    assert codec.claim_of(stream) == codec.Claim(STACKS["colour"].size, 3)
    with pytest.raises(StreamError, match="no stream"):
        codec.claim_of(b"")


ODD = (0, 1, 2, 3, 255, 256, 8192, 65535, 65536, 2**26, 2**31, 2**40)


@pytest.mark.parametrize("field", ["method", "near", "type", "frames", "planes", "rows", "columns", "least"])
@pytest.mark.parametrize("name, method", [("signed CT", 0), ("signed CT", 2), ("colour", 0), ("colour", 1), ("colour", 2), ("colour", 3)])
def test_a_wrong_field_in_the_head_under_a_right_checksum_is_one_error_or_keeps_to_the_head(name: str, method: int, field: str) -> None:
    stream, outcomes = codec._sealed(method, *codec._prepared([STACKS[name]], 0)) or b"", []
    for value in ODD:
        if field not in ("method", "near", "type") or value < 256:
            damaged = headed(stream, **{field: value})
            outcomes.append(_decoded(damaged))
    assert "refused" in outcomes


def _decoded(stream: bytes) -> str:
    """Decode a damaged stream: all that is allowed is one kind of error, or values of the size and type that the head says."""
    try:
        found = decode(stream)
    except StreamError:
        return "refused"
    head = codec._opened(stream)[0]
    assert found.size == head.values and found.dtype == head.dtype
    return "decoded"


@pytest.mark.parametrize("near", [0, 2])
@pytest.mark.parametrize("method", [0, 2])
def test_damage_under_a_right_checksum_ends_in_one_error_or_in_values_of_the_promised_size(method: int, near: int) -> None:
    head, stack = codec._prepared([STACKS["signed CT"]], near)
    stream, random = codec._sealed(method, head, stack) or b"", np.random.default_rng(8)
    outcomes = []
    for _ in range(60):
        damaged = bytearray(stream)
        for at in random.integers(4, min(len(stream) - 4, 900), 3):
            damaged[at] = random.integers(256)
        outcomes.append(_decoded(resealed(bytes(damaged))))
    beside = [_decoded(resealed(stream[:at] + bytes((stream[at] ^ 1,)) + stream[at + 1 :])) for at in range(4, 60)]
    assert outcomes.count("refused") > 30 and beside.count("refused") > 20, "most damage is seen, not only by the checksum"


# --- the layout ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 7, 9), (1, 1, 5), (2, 5, 1), (4, 2, 2), (1, 1, 1)])
def test_the_border_grows_to_what_the_encoder_sees(shape: tuple[int, int, int]) -> None:
    grid, values = Grid(*shape), np.random.default_rng(2).integers(1, 99, shape).astype(np.int32)
    known, growing, met = grid.with_border(values, 0), np.zeros(grid.size, np.int32), []
    for step in steps(grid):
        growing[step.cells] = known[step.cells]
        spread(grid, growing, step)
        met += step.cells.tolist()
    assert np.array_equal(growing, known)
    assert len(met) == values.size == len(set(met))
    assert np.array_equal(grid.inside(known), values)
