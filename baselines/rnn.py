"""RNN, RNN with attention, and the LSTM that aggregates frames for the DNN.

"We used 512 hidden GRU units" (section 4.2): one GRU layer, whose size the paper's 14.2 MB confirm. Where the paper is
silent: the last valid state represents the video; attention is linear, e_i = w . h_i + b, because Table 2 leaves room
for fewer than 25,000 weights; the context replaces the state (facts, section D).
"""

import torch
from torch import Tensor, nn

from baselines.head import Head
from baselines.hooks import Unchanged, then_linear
from baselines.initialisation import initialise


def last_valid(states: Tensor, mask: Tensor) -> Tensor:
    """(batch, width): the state at each video's last valid frame. Later frames cannot have changed it."""
    last = mask.sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), last]


class RecurrentClassifier(nn.Module):
    """A recurrent layer over frames; its last valid state goes to the head. DNN's aggregator (LSTM) and RNN (GRU)."""

    def __init__(
        self, cell: type[nn.GRU | nn.LSTM], width: int, hidden: int, head: tuple[int, ...], nodes: int, seed: int
    ):
        """
        Args:
            cell: nn.GRU or nn.LSTM.
            width: values that are used of each frame, from the first on.
            hidden: width of the state.
            head, nodes: see Head.
            seed: names the initial weights.
        """
        super().__init__()
        self.width = width
        self.recurrent = cell(width, hidden, batch_first=True)
        self.head = Head(hidden, head, nodes)
        initialise(self, seed)

    def states(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, hidden): what represents each video."""
        return last_valid(self.recurrent(frames[..., : self.width])[0], mask)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, nodes) logits."""
        return self.head(self.states(frames, mask))


class AttentionRNN(nn.Module):
    """GRU states h_i, energies e_i = w . h_i + b, weights softmax(e) over valid frames, context sum of weights . h.

    Hooks: `on_states` (h, before the energies), `on_energies` (e), `on_context_states` (h, before the weighted sum).
    """

    def __init__(
        self, width: int, hidden: int, head: tuple[int, ...], nodes: int, seed: int,
        on_states: nn.Module | None = None, on_energies: nn.Module | None = None,
        on_context_states: nn.Module | None = None,
    ):  # fmt: skip
        """As RecurrentClassifier, and the hooks; None leaves one Unchanged."""
        super().__init__()
        self.width = width
        self.recurrent = nn.GRU(width, hidden, batch_first=True)
        self.energy = nn.Linear(hidden, 1)
        self.on_states = on_states or Unchanged()
        self.on_energies = on_energies or Unchanged()
        self.on_context_states = on_context_states or Unchanged()
        self.head = Head(hidden, head, nodes)
        initialise(self, seed)

    def _attend(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.recurrent(frames[..., : self.width])  # (batch, time, hidden)
        energies = then_linear(self.on_states, self.energy, states, states, mask)  # (batch, time, 1)
        energies = self.on_energies(energies, states, mask).squeeze(-1)
        weights = energies.masked_fill(~mask, -torch.inf).softmax(dim=1, dtype=torch.float32)
        return weights, self.on_context_states(states, states, mask)

    def attention(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time) float32 weights; each row sums to 1 over its valid frames."""
        return self._attend(frames, mask)[0]

    def represent(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, hidden) context, which the head classifies, and (batch, time, hidden) states, which it could."""
        weights, states = self._attend(frames, mask)
        return torch.bmm(weights.to(states.dtype).unsqueeze(1), states).squeeze(1), states

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width), (batch, time) -> (batch, nodes) logits."""
        return self.head(self.represent(frames, mask)[0])
