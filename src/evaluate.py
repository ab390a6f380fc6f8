"""Evaluate a checkpoint: `python src/evaluate.py checkpoint=PATH [split=val] [trainer=gpu] [data.dir=FOLDER]`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("evaluate")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.evaluate import evaluate

    evaluate(config)


if __name__ == "__main__":
    main()
