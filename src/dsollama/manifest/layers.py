"""The small blobs of a manifest, byte for byte as `ollama create` writes them.

Source: server/create.go and types/model/config.go of Ollama 0.33.0. JSON has Go's spacing
(none), Go's order of fields and a newline at its end.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from dsollama.manifest.modelfile import Modelfile, Parameter, format_number

MODEL = "application/vnd.ollama.image.model"
TEMPLATE = "application/vnd.ollama.image.template"
SYSTEM = "application/vnd.ollama.image.system"
PARAMS = "application/vnd.ollama.image.params"
CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

_THOUSAND, _MILLION, _BILLION = 10**3, 10**6, 10**9

# general.file_type -> what `ollama show` calls it (fs/ggml/type.go of Ollama; numbers of
# llama.h's llama_ftype). 0, F32, is "unknown" to Ollama.
_FILE_TYPES = {
    1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A small blob of a manifest: its media type and its bytes."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """`sha256:HEX` of the bytes."""
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    def entry(self) -> dict[str, str | int]:
        """Return the layer's entry in a manifest."""
        return layer_entry(self.media_type, self.digest, self.size)


@dataclass(frozen=True)
class ModelFacts:
    """What a manifest's config says of the weights.

    Attributes:
        family: the GGUF's general.architecture.
        parameters: number of elements of all tensors.
        file_type: the GGUF's general.file_type; None when absent.
    """

    family: str
    parameters: int
    file_type: int | None


def layer_entry(media_type: str, digest: str, size: int) -> dict[str, str | int]:
    """Return one entry of a manifest; `digest` is `sha256:HEX`, `size` in bytes."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def small_layers(modelfile: Modelfile) -> tuple[Layer, ...]:
    """Return the layers beside the model, in the order in which `ollama create` puts them."""
    layers = []
    if modelfile.template is not None:
        layers.append(Layer(TEMPLATE, modelfile.template.encode()))
    if modelfile.system:
        layers.append(Layer(SYSTEM, modelfile.system.encode()))
    if modelfile.params:
        pairs = [f'"{name}":{_go_value(value)}' for name, value in sorted(modelfile.params.items())]
        layers.append(Layer(PARAMS, f"{{{','.join(pairs)}}}\n".encode()))
    return tuple(layers)


def config_layer(facts: ModelFacts) -> Layer:
    """Return the config of a GGUF model; Ollama writes linux/amd64 on every machine."""
    return Layer(
        CONFIG,
        _go_json(
            {
                "model_format": "gguf",
                "model_family": facts.family,
                "model_families": [facts.family],
                "model_type": human_number(facts.parameters),
                "file_type": _FILE_TYPES.get(facts.file_type or 0, "unknown"),
                "architecture": "amd64",
                "os": "linux",
            }
        ),
    )


def manifest_bytes(config: Layer, model: dict[str, str | int], small: tuple[Layer, ...]) -> bytes:
    """Return the manifest that names the config, the model's blob and the small layers."""
    return _go_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.entry(),
            "layers": [model, *(layer.entry() for layer in small)],
        }
    )


def human_number(count: int) -> str:
    """Return `671.0B`, `7B`, `12.34M`... as Ollama's format.HumanNumber does."""
    if count >= _BILLION:
        return f"{count // _BILLION}B" if count % _BILLION == 0 else f"{count / _BILLION:.1f}B"
    if count >= _MILLION:
        return f"{count // _MILLION}M" if count % _MILLION == 0 else f"{count / _MILLION:.2f}M"
    return f"{count / _THOUSAND:.0f}K" if count >= _THOUSAND else str(count)


def _go_value(value: Parameter) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_number(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _go_json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
