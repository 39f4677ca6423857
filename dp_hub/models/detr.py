"""DETR's transformer (Carion et al. 2020, appendix A.4), which ACT is made of.

Unlike torch's own layers it adds positions to the queries and keys of every layer, and never to
the values. Norms come after the residual sums. Modules carry DETR's names, so weights of the
original ACT fit by name.
"""

import math

import torch
from torch import Tensor, nn


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """Interleaved sines and cosines (Vaswani et al. 2017, section 3.5).

    Args:
        position: float (n,).
        dim: an even width.
    Returns:
        float32 (n, dim): entry 2i is ``sin(p / 10000 ** (2i / dim))``, entry 2i + 1 its cosine.
    """
    even = torch.arange(0, dim, 2, device=position.device, dtype=torch.float32)
    angle = position.float()[:, None] / 10000.0 ** (even / dim)  # (n, dim / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def sinusoid_2d(height: int, width: int, dim: int, *, device: torch.device) -> Tensor:
    """Positions in a feature map, rows from (0, 2 pi] in one half and columns in the other.

    Args:
        height, width: of the map.
        dim: a multiple of 4.
    Returns:
        float32 (height * width, dim), row by row; entries up to dim / 2 tell the row.
    """
    rows, columns = (
        sinusoid(2 * math.pi * torch.arange(1, n + 1, device=device) / (n + 1e-6), dim // 2)
        for n in (height, width)
    )
    grid = [
        rows[:, None].expand(-1, width, -1),
        columns[None].expand(height, -1, -1),
    ]
    return torch.cat(grid, dim=-1).flatten(0, 1)


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network, each added to its input and then normed."""

    def __init__(self, dim: int, feedforward_dim: int, *, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """float (B, T, dim) of tokens (B, T, dim), positions (B or 1, T, dim), padding (B, T)."""
        query = x + positions
        attended, _ = self.self_attn(query, query, x, key_padding_mask=padding, need_weights=False)
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class Encoder(nn.Module):
    """Encoder layers one after the other."""

    def __init__(
        self, n_layers: int, dim: int, feedforward_dim: int, *, n_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, feedforward_dim, n_heads=n_heads, dropout=dropout)
            for _ in range(n_layers)
        )

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """Encoded tokens.

        Args:
            x: float (B, T, dim).
            positions: float (T, dim), the same in every row.
            padding: bool (B, T), True where nothing is to be attended to; None for nowhere.
        Returns:
            float (B, T, dim).
        """
        for layer in self.layers:
            x = layer(x, positions[None], padding)
        return x


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the memory, and a two-layer network."""

    def __init__(self, dim: int, feedforward_dim: int, *, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        """float (B, Q, dim) of the decoder's state so far, the same shape.

        Args:
            x: float (B, Q, dim).
            memory: float (B, T, dim), encoded tokens.
            positions: float (1, T, dim), of the memory.
            queries: float (1, Q, dim), learned: the decoder's positions.
        """
        query = x + queries
        attended, _ = self.self_attn(query, query, x, need_weights=False)
        x = self.norm1(x + self.dropout(attended))
        attended, _ = self.multihead_attn(
            x + queries, memory + positions, memory, need_weights=False
        )
        x = self.norm2(x + self.dropout(attended))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class Decoder(nn.Module):
    """Decoder layers one after the other, from a state of zeros, and a last norm."""

    def __init__(
        self, n_layers: int, dim: int, feedforward_dim: int, *, n_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, feedforward_dim, n_heads=n_heads, dropout=dropout)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        """float (B, Q, dim) of a memory (B, T, dim), its positions (T, dim), queries (Q, dim)."""
        x = torch.zeros_like(queries).expand(len(memory), -1, -1)
        for layer in self.layers:
            x = layer(x, memory, positions[None], queries[None])
        return self.norm(x)


class Transformer(nn.Module):
    """An encoder of observed tokens and a decoder of one query per output.

    Weight matrices begin Xavier-uniform, as DETR's.
    """

    def __init__(
        self,
        dim: int,
        feedforward_dim: int,
        *,
        n_heads: int,
        n_encoder_layers: int,
        n_decoder_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            n_encoder_layers, dim, feedforward_dim, n_heads=n_heads, dropout=dropout
        )
        self.decoder = Decoder(
            n_decoder_layers, dim, feedforward_dim, n_heads=n_heads, dropout=dropout
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        """float (B, Q, dim) of tokens (B, T, dim), their positions (T, dim), queries (Q, dim)."""
        memory = self.encoder(tokens, positions)
        return self.decoder(memory, positions, queries)
