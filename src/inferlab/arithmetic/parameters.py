"""Exact parameter counts and weight bytes."""

from dataclasses import dataclass

from inferlab.arithmetic.matrices import Matrix, weight_format
from inferlab.arithmetic.shapes import ModelShape


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part; the parts add up to `total`.

    Attributes:
        embedding: input embedding and learned positions.
        attention: mixers of every kind, recurrent ones included.
        head: the output head; 0 when it is the embedding (a head's own bias stays).
        active: parameters that one token goes through, with the whole embedding (how Qwen counts).
        active_without_embedding: the same without the input embedding, of which a token reads one
            row (how gpt-oss counts); a tied table still counts, as the head.
    """

    embedding: int
    attention: int
    mlp: int
    norm: int
    head: int
    active: int
    active_without_embedding: int

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.mlp + self.norm + self.head


def count_parameters(shape: ModelShape) -> ParameterCount:
    """Counts every parameter of the language model described by `shape`, exactly.

    What is left out (vision tower, MTP layers) is named in `shape.left_out`.
    """
    table = shape.vocab_size * shape.hidden_size
    embedding = table + shape.position_rows * shape.hidden_size
    head = shape.head.biases if shape.tied_embeddings else shape.head.parameters
    mixers = [layer.mixer for layer in shape.layers if layer.mixer]
    attention = sum(mixer.vectors + _stored(mixer.matrices) for mixer in mixers)
    mlps = [matrix for layer in shape.layers if layer.mlp for matrix in layer.mlp.matrices]
    norm = shape.final_norm + sum(layer.norms for layer in shape.layers)
    body = attention + norm + sum(matrix.active_parameters for matrix in mlps)
    return ParameterCount(
        embedding=embedding,
        attention=attention,
        mlp=_stored(tuple(mlps)),
        norm=norm,
        head=head,
        active=body + embedding + head,
        active_without_embedding=body + shape.head.parameters,
    )


def weight_bytes(shape: ModelShape, weight_dtype: str = "auto") -> int:
    """Bytes of all weights as an engine holds them on the device.

    Quantised formats apply to the layers' matrices with their scales; embedding, head, norms and
    routers stay in the model's dtype, as llm-compressor and vLLM do by default.

    Args:
        shape: the model.
        weight_dtype: a name of `WEIGHT_FORMATS` (`bf16`, `fp8`, `int8`, `int4`, …) or `auto` for
            what the checkpoint's config says.

    Raises:
        LabError: the format is unknown.
    """
    form = weight_format(shape.weight_format if weight_dtype == "auto" else weight_dtype)
    plain = form.bits / 8 if form.bits >= 16 else shape.dtype_bytes
    count = count_parameters(shape)
    matrices = [
        matrix
        for layer in shape.layers
        for part in (layer.mixer, layer.mlp)
        if part
        for matrix in part.matrices
    ]
    vectors = sum(mixer.vectors for mixer in shape.mixers)
    quantized = sum(m.copies * form.bytes_of(m, shape.dtype_bytes) for m in matrices)
    return round(quantized + plain * (count.embedding + count.head + count.norm + vectors))


def _stored(matrices: tuple[Matrix, ...]) -> int:
    return sum(matrix.parameters for matrix in matrices)
