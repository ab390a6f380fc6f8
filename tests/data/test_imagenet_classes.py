from torchvision.models import AlexNet_Weights

from alexnet_lab.data.imagenet_classes import TABLE, imagenet_classes, names_by_wnid, wnids_by_ilsvrc2012_id


def test_classes_have_the_published_order_and_torchvisions_names():
    classes = imagenet_classes()
    wnids = [known.wnid for known in classes]
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert [known.name for known in classes] == AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert TABLE.stat().st_size < 60_000


def test_the_development_kits_numbers_are_1_to_1000():
    wnids = wnids_by_ilsvrc2012_id()
    assert sorted(wnids) == list(range(1, 1001))
    assert [names_by_wnid()[wnids[number]] for number in (1, 2, 490, 1000)] == [
        "kit fox",
        "English setter",
        "sea snake",
        "dumbbell",
    ]
