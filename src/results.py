"""Write docs/results.md from recorded runs: `python src/results.py [add=logs/train/runs/NAME]`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("results")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.results import results

    results(config)


if __name__ == "__main__":
    main()
