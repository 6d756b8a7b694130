"""Penalties on what the encoder does, beside the prices of its `gates`.

The contractive autoencoder (Rifai et al. 2011) asks that the code change little when the input does: it adds the squared Frobenius norm of
the encoder's Jacobian to the loss. The Jacobian of a convolutional encoder is far too large to write down, but for a vector v of
independent signs E ‖vᵀ J‖² = ‖J‖²_F, and vᵀ J is one backward pass (Hutchinson 1990; Hoffman et al. 2019 for networks).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CONTRACTIVE = "contractive"


def jacobian_norm(codes: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return an unbiased estimate of the squared Frobenius norm of ∂ ``codes`` / ∂ ``x`` an image and a unit of code, from one projection.

    ::

        x (B, inputs, P, P) ─► encoder and gates ─► codes, one (B, C, H, W) a level
        signs v like codes  ─► vᵀ ∂codes/∂x  (B, inputs, P, P) ─ squared, summed ─ / (B · units) ─► scalar, ≥ 0

    All that the decoder is given counts as code, so a skip that copies the input pays too. The mean over the code's units (C · H · W,
    over all levels) is the mean squared length of a unit's gradient: it depends neither on the image size nor on the number of levels.
    ``x`` must require gradients and ``codes`` come from it; closed gates pass nothing and are left out. The result can be differentiated
    again. Signs come from torch's global generator. Codes that do not depend on ``x`` at all give 0.
    """
    open_codes = [code for code in codes if code.requires_grad]
    units = sum(code[0].numel() for code in open_codes)
    if not units:
        return x.new_zeros(())
    signs = [torch.empty_like(code).bernoulli_(0.5).mul_(2).sub_(1) for code in open_codes]
    (projected,) = torch.autograd.grad(open_codes, x, signs, create_graph=True)
    return projected.float().square().sum() / (len(x) * units)
