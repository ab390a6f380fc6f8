"""Compare runs: `python src/compare.py runs=logs/train [baseline=NAME] [out=compare.html]`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("compare")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.compare import compare

    compare(config)


if __name__ == "__main__":
    main()
