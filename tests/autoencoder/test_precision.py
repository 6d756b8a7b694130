"""Devices and arithmetic: what may be asked for, and that mixed precision keeps what needs digits."""

import os

import pytest
import torch

from pacs_node.autoencoder import precision
from pacs_node.autoencoder.gates import GATES
from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.precision import arithmetic, device_of, has_bfloat16, mixed, repeatable

CPU = torch.device("cpu")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of("auto").type == expected
        assert device_of("cpu").type == "cpu"


def test_a_missing_gpu_and_an_unknown_device_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="choose cpu or auto"):
        device_of("cuda")
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        device_of("abacus")


@pytest.mark.parametrize(
    ("capability", "native"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False), ({}, False)]
)
def test_a_processor_has_bfloat16_where_it_has_instructions_for_it(capability: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capability)
    assert has_bfloat16(CPU) is native
    assert arithmetic("float32", CPU) is torch.float32
    assert arithmetic("auto", CPU) is (torch.bfloat16 if native else torch.float32)


def test_bfloat16_is_refused_where_it_would_only_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="choose auto or float32"):
        arithmetic("bfloat16", CPU)
    with pytest.raises(ValueError, match="float32, bfloat16, auto"):
        arithmetic("half", CPU)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", sorted(GATES))
def test_mixed_precision_gives_float32_maps_near_those_of_float32(gate: str, training: bool) -> None:
    torch.manual_seed(0)
    network = Network(Architecture(64, 1, (16, 32), (gate, gate))).train(training)
    x = torch.rand(4, 1, 64, 64)
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(1)
        with torch.no_grad(), mixed(dtype, CPU):
            outputs.append(network(x))
    plain, quick = outputs
    for name in ("mean", "log_variance", "embedding"):
        one, other = getattr(plain, name), getattr(quick, name)
        assert other.dtype is torch.float32, name
        assert torch.isfinite(other).all(), name
        assert float((one - other).abs().mean()) < 0.02, name
    assert all(price.dtype is torch.float32 for price in quick.prices)
    assert (plain.mean != quick.mean).any()  # it was another arithmetic


def test_a_gpu_run_is_repeatable_and_leaves_the_settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def settings() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    before = settings()
    with repeatable(torch.float32, torch.device("cuda")):
        assert settings() == (True, True, False, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with repeatable(torch.float32, CPU):
        assert settings() == before
    assert settings() == before
