"""Download, convert and check a dataset: `python src/prepare.py data=NAME`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("prepare")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.prepare import prepare

    prepare(config)


if __name__ == "__main__":
    main()
