# SPDX-License-Identifier: Apache-2.0
"""What makes a module compute something else than its class says; all of it is refused.

A graph has a record for `nn.Conv2d`, none for a hook that changes its result or for weights that
two layers share and that would part in training.
"""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from winnow.errors import NetworkError

_WRAPPERS = {  # what computes by another module -> what to do
    nn.DataParallel: "give the module within, .module",
    torch.jit.ScriptModule: "give the module that it was made from",
    torch._dynamo.OptimizedModule: "give the module that torch.compile was given",
}
_HOOKS = {"_forward_hooks": "forward hook", "_forward_pre_hooks": "forward pre-hook"}


def require_plain(module: nn.Module, path: str) -> None:
    """Raise NetworkError for hooks, parametrizations, a replaced forward, NaN and infinity.

    `path` is the module's place in the network, "" for the network itself.
    """
    who = f"'{path}' ({type(module).__name__})" if path else "it"
    for kind, remedy in _WRAPPERS.items():
        if isinstance(module, kind):
            raise NetworkError(f"{who} is wrapped by {kind.__name__}; {remedy}")
    if type(module).__call__ is not nn.Module.__call__ and not isinstance(module, fx.GraphModule):
        raise NetworkError(
            f"{who} has a __call__ of its own, which the flow does not see; write what it does in "
            "forward"
        )
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        raise NetworkError(f"{who} has no weights yet; run it once, or write its sizes")
    if parametrize.is_parametrized(module):
        name = next(iter(module.parametrizations))
        raise NetworkError(
            f"{who} computes its '{name}' by a parametrization; store the result with: "
            f"torch.nn.utils.parametrize.remove_parametrizations(layer, '{name}')"
        )
    for attribute, kind in _HOOKS.items():
        if hooks := getattr(module, attribute):
            raise NetworkError(f"{who} has a {kind}, {_hook_remedy(next(iter(hooks.values())))}")
    if "forward" in vars(module):
        raise NetworkError(
            f"{who} has a forward that was replaced, which the flow does not see; write what it "
            "does in the forward of a module of your own"
        )
    if path:
        _require_finite(module, who)


def _hook_remedy(hook: object) -> str:
    name = type(hook).__name__
    if name in ("WeightNorm", "SpectralNorm"):
        remove = "remove_weight_norm" if name == "WeightNorm" else "remove_spectral_norm"
        return f"which computes its weight; store the result with: torch.nn.utils.{remove}(layer)"
    return "which the flow does not see; remove it, or write what it does in forward"


def _require_finite(module: nn.Module, who: str) -> None:
    for name, value in module.state_dict(keep_vars=True).items():
        if value.is_meta or not value.is_floating_point():
            continue
        if not bool(torch.isfinite(value).all()):
            raise NetworkError(f"{who} holds NaN or infinity in its '{name}'; train it again")


def require_own_weights(module: nn.Module, path: str, owners: dict[int, str]) -> None:
    """Raise NetworkError if another layer has this one's weights; `owners` gains its memory."""
    for name, value in module.named_parameters():
        place = value.data_ptr()
        owner = owners.setdefault(place, path) if place else path
        if owner != path:
            raise NetworkError(
                f"'{path}' shares its '{name}' with '{owner}'; the flow trains every layer by "
                "itself, so give each weights of its own: layer.weight = nn.Parameter("
                "layer.weight.detach().clone())"
            )
