"""Classify images: `python src/predict.py checkpoint=PATH images=PATH_OR_GLOB [out=FILE.json|FILE.csv]`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("predict")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.predict import predict

    predict(config)


if __name__ == "__main__":
    main()
