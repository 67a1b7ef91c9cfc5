"""The second network of the course: a transformer encoder, which reads a handwritten digit as a sentence of tokens.

It has what the convolutional networks lack: token ids as its input, two dynamic dimensions, embeddings, attention with
a mask for padding, LayerNorm and GELU.
"""

from tutorial_utils.model import data
from tutorial_utils.model.quiet_paddle import paddle

nn, functional = paddle.nn, paddle.nn.functional

# Arguments of `classifier.save`: sentences, and the tokens of the longest among them, both in any number.
INPUT = {"input_shape": (None, None), "input_name": "ids", "dtype": "int64"}
# What is added to the attention logits of padding, as in BERT (https://github.com/google-research/bert, modeling.py):
# after softmax exactly 0 is left of it, and FP16 can still hold it.
_MASKED = -10_000.0


class EncoderLayer(nn.Layer):
    """Self-attention and a feed-forward network, each with LayerNorm before it and a residual sum after it (pre-norm).

    What the residual sums hand from layer to layer is the residual stream.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
        """Map ``[N, L, width]`` to the same shape; the mask ``[N, 1, 1, L]`` is added to the attention logits."""
        width = x.shape[-1]
        every = self.query_key_value(self.attention_norm(x))
        # A size of 0 stands for the input's own.
        query, key, value = every.reshape([0, 0, 3 * self.heads, width // self.heads]).split(3, axis=2)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.dropout(self.attention_output(attended.reshape([0, 0, width])))
        hidden = functional.gelu(self.expand(self.feed_forward_norm(x)))
        return x + self.dropout(self.contract(hidden))


class TransformerEncoder(nn.Layer):
    """A classifier of sentences. It reads its answer from the first token, [CLS], as BERT does."""

    def __init__(self, num_classes: int = 10, width: int = 64, heads: int = 4, layers: int = 2, dropout: float = 0.05):
        super().__init__()
        self.tokens = nn.Embedding(data.VOCABULARY, width)
        self.positions = nn.Embedding(data.LONGEST_SENTENCE, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.LayerList([EncoderLayer(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Map ids, int64 ``[N, L]`` padded with 0, to logits ``[N, num_classes]``."""
        mask = ((ids == data.PADDING).astype("float32") * _MASKED).unsqueeze([1, 2])
        x = self.dropout(self.tokens(ids) + self.positions(paddle.arange(ids.shape[1])))
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.norm(x)[:, 0])
