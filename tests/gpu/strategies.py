"""The two-tower mode with both processes on one GPU, which NCCL refuses and gloo accepts."""

from alexnet_lab.models.two_towers import TwoTowers


class TowersThroughGloo(TwoTowers):
    def __init__(self) -> None:
        super().__init__()
        self._process_group_backend = "gloo"
