import torch

from mythos.loop.exits.gate import HaltingGate


def test_a_gate_starts_at_its_initial_probability() -> None:
    gate = HaltingGate(dim=8, hidden_dim=4, initial_probability=0.1)
    torch.nn.init.normal_(gate.w1)
    torch.nn.init.zeros_(gate.w2)
    torch.nn.init.zeros_(gate.bias)
    lam = gate(torch.randn(2, 3, 8)).sigmoid()
    torch.testing.assert_close(lam, torch.full((2, 3), 0.1))
