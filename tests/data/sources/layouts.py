"""The usual layouts of ImageNet, built from a few images."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from alexnet_lab.data.imagenet_classes import imagenet_classes

Images = Mapping[str, bytes]
"""The images by `split/wnid/name`; validation images are named `ILSVRC2012_val_00000001.JPEG` and so on."""


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def zip_bytes(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return archive.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree(folder: Path, images: Images) -> Path:
    return write(folder, images)


def tree_in_a_tar(folder: Path, images: Images) -> Path:
    return (
        write(folder, {"all.tar": tar_bytes({f"./imagenet/{path}": data for path, data in images.items()})}) / "all.tar"
    )


def tree_in_a_zip(folder: Path, images: Images) -> Path:
    attributes = {f"__MACOSX/imagenet/{path.rpartition('/')[0]}/._a.JPEG": b"attributes" for path in images}
    files = {f"imagenet/{path}": data for path, data in images.items()}
    return write(folder, {"all.zip": zip_bytes({**attributes, **files})}) / "all.zip"


def kaggle(folder: Path, images: Images) -> Path:
    files = {}
    table = "ImageId,PredictionString\n"
    for path, data in reversed(images.items()):
        split, wnid, name = path.split("/")
        if split == "val":
            table += f"{name.removesuffix('.JPEG')},{wnid} 1 2 30 40 {wnid} 5 6 70 80\n"
            files[f"ILSVRC/Data/CLS-LOC/val/{name}"] = data
        else:
            files[f"ILSVRC/Data/CLS-LOC/{path}"] = data
    files["ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG"] = b"unlabelled"
    files["ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_1.xml"] = b"<annotation/>"
    return write(folder, {**files, "LOC_val_solution.csv": table.encode()})


def official(folder: Path, images: Images) -> Path:
    classes: dict[str, dict[str, bytes]] = {}
    val = {}
    numbers = []
    for path, data in sorted(images.items(), key=lambda image: image[0].rpartition("/")[2]):
        split, wnid, name = path.split("/")
        if split == "val":
            val[name] = data
            numbers.append(next(known.ilsvrc2012_id for known in imagenet_classes() if known.wnid == wnid))
        else:
            classes.setdefault(wnid, {})[name] = data
    train = {f"{wnid}.tar": tar_bytes(files) for wnid, files in classes.items()}
    truth = "".join(f"{number}\n" for number in numbers).encode()
    devkit = io.BytesIO()
    with tarfile.open(fileobj=devkit, mode="w:gz") as tar:
        member = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt")
        member.size = len(truth)
        tar.addfile(member, io.BytesIO(truth))
    return write(
        folder,
        {
            "ILSVRC2012_img_train.tar": tar_bytes(train),
            "ILSVRC2012_img_val.tar": tar_bytes(val),
            "ILSVRC2012_devkit_t12.tar.gz": devkit.getvalue(),
        },
    )


LAYOUTS = {"tree": tree, "tar": tree_in_a_tar, "zip": tree_in_a_zip, "kaggle": kaggle, "official": official}
