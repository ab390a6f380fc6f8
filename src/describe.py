"""Print a network's layer table: `python src/describe.py model=... data=...`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("describe")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.describe import describe

    describe(config)


if __name__ == "__main__":
    main()
