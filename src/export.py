"""Write a checkpoint for use elsewhere: `python src/export.py checkpoint=PATH format=onnx|torch_export|state_dict`."""

from omegaconf import DictConfig

from alexnet_lab.commands.entry import command


@command("export")
def main(config: DictConfig) -> None:
    from alexnet_lab.commands.export import export

    export(config)


if __name__ == "__main__":
    main()
