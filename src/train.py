"""Train a network: `python src/train.py model=... data=... optimizer=... scheduler=... trainer=...`; `-m` sweeps."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("train")
def main(config: DictConfig) -> float | None:
    from alexnet_lab.commands.train import train

    return train(config)


if __name__ == "__main__":
    main()
